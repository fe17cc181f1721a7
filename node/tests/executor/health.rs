//! Health checks in real tasks.

use std::time::Duration;

use skein::executor::{HealthCheck, HealthState, Probe};

use super::node::{Node, exit, shell, until, words};

fn check(probe: Probe) -> HealthCheck {
    let mut check = HealthCheck::new(probe);
    check.interval = Duration::from_millis(50);
    check.timeout = Duration::from_secs(10);
    check.retries = 2;
    check
}

#[tokio::test]
async fn a_task_becomes_healthy_and_unhealthy_and_healthy_again() {
    let node = Node::new();
    let mut spec = shell("sick", "exec sleep 1000");
    spec.user = Some("12:34".to_owned());
    spec.env = words(&["MARK=ok"]);
    let line = "echo $MARK $(id -u) $(hostname) $(pwd); test -e ok";
    spec.health = Some(check(Probe::Shell(line.to_owned())));
    spec.health.as_mut().unwrap().start_period = Duration::from_secs(100);
    spec.health.as_mut().unwrap().start_interval = Duration::from_millis(50);
    let handle = node.start(spec).await;
    let mark = node.data_dir().join("work/sick/ok");
    let state = async |wanted: HealthState| {
        let is = |report: &skein::executor::TaskReport| {
            report.health.as_ref().is_some_and(|health| health.state == wanted)
        };
        until(&handle, is).await.health.unwrap()
    };
    assert_eq!(state(HealthState::Starting).await.failing_streak, 0);
    std::fs::write(&mark, "").unwrap();
    assert_eq!(state(HealthState::Healthy).await.output, "ok 12 sick /run/work\n");
    std::fs::remove_file(&mark).unwrap();
    assert!(state(HealthState::Unhealthy).await.failing_streak >= 2);
    std::fs::write(&mark, "").unwrap();
    state(HealthState::Healthy).await;
    handle.kill().await.unwrap();
    exit(&handle).await;
    assert_eq!(handle.report().health, None);
    handle.release().await.unwrap();
}

#[tokio::test]
async fn probes_that_hang_or_do_not_exist_make_a_task_unhealthy() {
    let node = Node::new();
    let mut hanging = check(Probe::Command(words(&["sleep", "1000"])));
    hanging.timeout = Duration::from_millis(50);
    let missing = check(Probe::Command(words(&["/bin/nope"])));
    for (check, output) in [
        (hanging, "health check took longer than 50ms"),
        (missing, "exec \"/bin/nope\": no such file or directory"),
    ] {
        let mut spec = shell("probed", "exec sleep 1000");
        spec.health = Some(check);
        let handle = node.start(spec).await;
        let report = until(&handle, |report| {
            report.health.as_ref().is_some_and(|health| health.state == HealthState::Unhealthy)
        })
        .await;
        assert_eq!(report.health.unwrap().output, output);
        handle.kill().await.unwrap();
        exit(&handle).await;
        handle.release().await.unwrap();
    }
}

/// Goal: a running probe does not keep an ended task from being reported. Method: the task is
/// killed while a probe that ignores everything hangs in its pid namespace.
#[tokio::test]
async fn a_task_ends_while_a_probe_runs() {
    let node = Node::new();
    let mut spec = shell("busy", "exec sleep 1000");
    let line = "touch begun; trap '' TERM; sleep 1000";
    spec.health = Some(check(Probe::Shell(line.to_owned())));
    let handle = node.start(spec).await;
    let mark = node.data_dir().join("work/busy/begun");
    super::node::eventually("the probe runs", async || mark.exists()).await;
    handle.kill().await.unwrap();
    assert_eq!(exit(&handle).await.signal, Some(9));
    handle.release().await.unwrap();
}
