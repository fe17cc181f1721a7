use super::*;
use crate::protocol::HealthState;
use crate::spec::Probe;

fn at(second: u64) -> Now {
    Now {
        monotonic: Duration::from_secs(second),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + second),
    }
}

fn stop_policy() -> StopPolicy {
    StopPolicy { signal: 15, grace: Duration::from_secs(10) }
}

fn launched(check: Option<HealthCheck>) -> Lifecycle {
    let mut life = Lifecycle::new(40_000);
    assert_eq!(life.step(Input::Launch { stop: stop_policy(), check }, at(0)), Ok(vec![]));
    life
}

fn running(check: Option<HealthCheck>) -> Lifecycle {
    let mut life = launched(check);
    let start = StartSpec::default();
    assert_eq!(
        life.step(Input::Start(start.clone()), at(0)),
        Ok(vec![Output::Report, Output::Fork(start)])
    );
    assert_eq!(life.step(Input::Forked { pid: 77 }, at(0)), Ok(vec![]));
    assert_eq!(life.step(Input::Executed, at(1)), Ok(vec![Output::Report]));
    assert_eq!(life.report().phase, Phase::Running { pid: 77, started_at: at(1).wall });
    life
}

fn ended(ended: Ended) -> Input {
    Input::Ended { ended, out_of_memory: false }
}

fn health(life: &Lifecycle) -> Option<HealthState> {
    life.report().health.as_ref().map(|health| health.state)
}

fn exit(life: &Lifecycle) -> Exit {
    match &life.report().phase {
        Phase::Exited(exit) => exit.clone(),
        other => panic!("not exited: {other:?}"),
    }
}

#[test]
fn a_task_that_is_stopped_gets_its_signal_and_after_the_grace_sigkill() {
    let mut life = running(None);
    let stop = Input::Stop { signal: None, grace: None };
    assert_eq!(life.step(stop, at(2)), Ok(vec![Output::Signal(15)]));
    assert_eq!(life.deadline(), Some(Duration::from_secs(12)));
    assert_eq!(life.step(Input::Tick, at(11)), Ok(vec![]));
    assert_eq!(life.step(Input::Tick, at(12)), Ok(vec![Output::Signal(KILL)]));
    assert_eq!(life.deadline(), None);
    life.step(ended(Ended::Signal(9)), at(13)).unwrap();
    let exit = exit(&life);
    assert_eq!((exit.code, exit.signal, exit.error), (137, Some(9), None));
    assert_eq!((exit.started_at, exit.finished_at), (Some(at(1).wall), at(13).wall));
}

#[test]
fn a_second_stop_shortens_the_grace_but_never_lengthens_it() {
    let mut life = running(None);
    let stop = |seconds| Input::Stop { signal: Some(2), grace: Some(Duration::from_secs(seconds)) };
    life.step(stop(10), at(2)).unwrap();
    life.step(stop(1), at(3)).unwrap();
    assert_eq!(life.deadline(), Some(Duration::from_secs(4)));
    life.step(stop(60), at(3)).unwrap();
    assert_eq!(life.deadline(), Some(Duration::from_secs(4)));
}

#[test]
fn a_signal_before_the_exec_waits_for_the_command() {
    let mut life = launched(None);
    life.step(Input::Start(StartSpec::default()), at(0)).unwrap();
    life.step(Input::Forked { pid: 5 }, at(0)).unwrap();
    let stop = Input::Stop { signal: Some(12), grace: None };
    assert_eq!(life.step(stop, at(0)), Ok(vec![]));
    let outputs = life.step(Input::Executed, at(1));
    assert_eq!(outputs, Ok(vec![Output::Signal(12), Output::Report]));
}

#[test]
fn a_command_that_cannot_be_executed_ends_with_its_error() {
    let mut life = launched(None);
    life.step(Input::Start(StartSpec::default()), at(0)).unwrap();
    life.step(Input::Forked { pid: 5 }, at(0)).unwrap();
    let failure = Failure::path("exec", "/bin/nope", nix::errno::Errno::ENOENT);
    life.step(Input::ExecFailed(failure), at(1)).unwrap();
    life.step(ended(Ended::Code(127)), at(1)).unwrap();
    let exit = exit(&life);
    assert_eq!(exit.code, 127);
    assert_eq!(exit.error.as_deref(), Some("exec \"/bin/nope\": no such file or directory"));
    assert_eq!(exit.started_at, None);
}

#[test]
fn requests_in_the_wrong_phase_are_refused_or_do_nothing() {
    let mut life = running(None);
    let start = || Input::Start(StartSpec::default());
    assert!(life.step(start(), at(2)).is_err());
    assert!(life.release_refusal().is_some());
    life.step(ended(Ended::Code(3)), at(3)).unwrap();
    assert_eq!(exit(&life).code, 3);
    assert_eq!(life.release_refusal(), None);
    assert!(life.step(start(), at(4)).is_err());
    assert_eq!(life.step(Input::Kill, at(4)), Ok(vec![]));
    assert_eq!(life.step(Input::Stop { signal: None, grace: None }, at(4)), Ok(vec![]));
}

#[test]
fn a_sandbox_is_for_one_task_once() {
    let launch = || Input::Launch { stop: stop_policy(), check: None };
    let mut life = Lifecycle::new(40_000);
    let early = life.step(Input::Start(StartSpec::default()), at(0));
    assert_eq!(early, Err("no task has been launched in the sandbox".to_owned()));
    let refused = Err("task has already been launched".to_owned());
    life.step(launch(), at(0)).unwrap();
    assert_eq!(life.step(launch(), at(1)), refused);
    let mut life = running(None);
    assert_eq!(life.step(launch(), at(2)), refused);
    life.step(ended(Ended::Code(0)), at(3)).unwrap();
    assert_eq!(life.step(launch(), at(4)), refused);
    let mut unused = Lifecycle::new(40_000);
    unused.step(Input::Stop { signal: None, grace: None }, at(0)).unwrap();
    assert_eq!(unused.step(launch(), at(1)), refused);
}

#[test]
fn a_task_that_was_never_started_ends_without_a_process() {
    for input in [Input::Kill, Input::Stop { signal: None, grace: None }] {
        let mut life = launched(None);
        assert_eq!(life.step(input, at(2)), Ok(vec![Output::Report]));
        assert_eq!(exit(&life).error.as_deref(), Some("stopped before it was started"));
    }
}

#[test]
fn what_was_unhealthy_when_it_ended_says_so_whatever_its_exit_status() {
    let mut check = HealthCheck::new(Probe::Shell("false".into()));
    check.interval = Duration::from_secs(5);
    check.retries = 1;
    let mut life = running(Some(check));
    assert_eq!(life.step(Input::Tick, at(6)), Ok(vec![Output::Probe]));
    let bad = ProbeResult::Exited { code: 1, output: "refused".into() };
    assert_eq!(life.step(Input::Probed(bad), at(6)), Ok(vec![Output::Report]));
    assert_eq!(health(&life), Some(HealthState::Unhealthy));
    life.step(Input::Stop { signal: None, grace: None }, at(7)).unwrap();
    life.step(ended(Ended::Code(0)), at(8)).unwrap();
    assert_eq!((exit(&life).code, exit(&life).error), (0, Some("task: unhealthy: refused".into())));
}

#[test]
fn probes_run_while_the_task_does_and_only_changes_are_reported() {
    let mut check = HealthCheck::new(Probe::Shell("true".into()));
    check.interval = Duration::from_secs(5);
    let mut life = running(Some(check));
    assert_eq!(health(&life), Some(HealthState::Starting));
    assert_eq!(life.step(Input::Tick, at(6)), Ok(vec![Output::Probe]));
    let good = || Input::Probed(ProbeResult::Exited { code: 0, output: "ok".into() });
    assert_eq!(life.step(good(), at(6)), Ok(vec![Output::Report]));
    assert_eq!(health(&life), Some(HealthState::Healthy));
    assert_eq!(life.step(Input::Tick, at(11)), Ok(vec![Output::Probe]));
    assert_eq!(life.step(good(), at(11)), Ok(vec![]));
    assert_eq!(life.step(Input::Tick, at(16)), Ok(vec![Output::Probe]));
    assert_eq!(life.step(Input::Tick, at(46)), Ok(vec![Output::AbortProbe]));
    let outputs = life.step(ended(Ended::Code(0)), at(47));
    assert_eq!(outputs, Ok(vec![Output::AbortProbe, Output::Report]));
    assert_eq!(health(&life), None);
    assert_eq!(life.deadline(), None);
    assert_eq!(life.step(good(), at(48)), Ok(vec![]));
}
