use super::*;
use crate::spec::Probe;

const SECOND: Duration = Duration::from_secs(1);

fn check() -> HealthCheck {
    let mut check = HealthCheck::new(Probe::Shell("true".into()));
    check.interval = 10 * SECOND;
    check.timeout = 2 * SECOND;
    check
}

/// Runs the next probe as soon as it is due, with exit code `code`, and returns when it began.
fn probe(monitor: &mut Monitor, code: i32) -> Duration {
    let now = monitor.deadline();
    assert_eq!(monitor.step(now), Some(Due::Probe));
    monitor.finished(ProbeResult::Exited { code, output: format!("code {code}") }, now);
    now
}

#[test]
fn three_failures_in_a_row_make_a_task_unhealthy_and_one_success_heals_it() {
    let mut monitor = Monitor::new(check(), SECOND);
    assert_eq!(monitor.report().state, HealthState::Starting);
    assert_eq!(probe(&mut monitor, 0), 11 * SECOND);
    assert_eq!(monitor.report().state, HealthState::Healthy);
    probe(&mut monitor, 1);
    probe(&mut monitor, 1);
    assert_eq!(monitor.report().state, HealthState::Healthy);
    assert_eq!(monitor.report().failing_streak, 2);
    probe(&mut monitor, 1);
    assert_eq!(monitor.report().state, HealthState::Unhealthy);
    assert_eq!(monitor.report().output, "code 1");
    probe(&mut monitor, 0);
    assert_eq!(monitor.report().state, HealthState::Healthy);
    assert_eq!(monitor.report().failing_streak, 0);
}

#[test]
fn failures_within_the_start_period_do_not_count() {
    let mut check = check();
    check.start_period = 12 * SECOND;
    check.retries = 1;
    let mut monitor = Monitor::new(check, Duration::ZERO);
    assert_eq!(probe(&mut monitor, 1), 5 * SECOND);
    assert_eq!(probe(&mut monitor, 1), 10 * SECOND);
    assert_eq!(monitor.report().state, HealthState::Starting);
    assert_eq!(monitor.report().failing_streak, 0);
    assert_eq!(probe(&mut monitor, 1), 15 * SECOND);
    assert_eq!(monitor.report().state, HealthState::Unhealthy);
}

#[test]
fn a_probe_that_takes_too_long_is_aborted_once_and_has_failed() {
    let mut check = check();
    check.retries = 1;
    let mut monitor = Monitor::new(check, Duration::ZERO);
    assert_eq!(monitor.step(9 * SECOND), None);
    assert_eq!(monitor.step(10 * SECOND), Some(Due::Probe));
    assert_eq!(monitor.step(11 * SECOND), None);
    assert_eq!(monitor.step(12 * SECOND), Some(Due::Abort));
    assert_eq!(monitor.step(13 * SECOND), None);
    monitor.finished(ProbeResult::TimedOut, 13 * SECOND);
    assert_eq!(monitor.report().state, HealthState::Unhealthy);
    assert_eq!(monitor.report().output, "health check took longer than 2s");
    assert_eq!(monitor.deadline(), 23 * SECOND);
}
