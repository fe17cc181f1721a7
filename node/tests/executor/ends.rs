//! How tasks end, and what is said about it.

use std::time::Duration;

use skein::executor::Error;
use skein::executor::{LaunchSpec, Phase, Root};

use super::node::{Node, eventually, exit, pid, shell, until, words};

#[tokio::test]
async fn exit_codes_are_those_of_the_command_with_and_without_a_reaper() {
    let node = Node::new();
    for init in [false, true] {
        for (line, code) in [("exit 0", 0), ("exit 3", 3)] {
            let mut spec = shell("codes", line);
            spec.init = init;
            let (exit, _) = node.run(spec).await;
            assert_eq!((exit.code, exit.signal, exit.error), (code, None, None), "{line} {init}");
            assert!(exit.started_at.unwrap() <= exit.finished_at);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_executed_says_why_with_the_code_of_a_shell() {
    let node = Node::new();
    let run = async |change: &dyn Fn(&mut LaunchSpec)| {
        let mut spec = LaunchSpec::new("broken", Root::Host, words(&["true"]));
        change(&mut spec);
        let (exit, _) = node.run(spec).await;
        assert_eq!(exit.started_at, None);
        format!("{} {}", exit.code, exit.error.unwrap_or_default())
    };
    for init in [false, true] {
        assert_eq!(
            run(&|spec| {
                spec.argv = words(&["/bin/nope"]);
                spec.init = init;
            })
            .await,
            "127 exec \"/bin/nope\": no such file or directory"
        );
    }
    assert_eq!(
        run(&|spec| spec.argv = words(&["nope"])).await,
        "127 exec \"nope\": executable file not found in $PATH"
    );
    assert_eq!(
        run(&|spec| spec.argv = words(&["/etc/passwd"])).await,
        "126 exec \"/etc/passwd\": permission denied"
    );
    assert_eq!(
        run(&|spec| spec.dir = Some("/no/where".to_owned())).await,
        "127 working directory \"/no/where\": no such file or directory"
    );
    assert_eq!(
        run(&|spec| spec.user = Some("nobody-here".to_owned())).await,
        "126 unable to find user nobody-here: no matching entries in passwd file"
    );
}

#[tokio::test]
async fn a_task_that_no_node_or_not_this_one_can_run_is_rejected_and_leaves_nothing() {
    let node = Node::new();
    let reject = async |change: &dyn Fn(&mut LaunchSpec)| {
        let mut spec = shell("rejected", "true");
        change(&mut spec);
        match node.executor.launch(spec).await {
            Err(Error::Rejected { reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        reject(&|spec| spec.argv.clear()).await,
        "image host has no default command: set one"
    );
    let reason = reject(&|spec| spec.root = Root::Directory("/no/where".into())).await;
    assert!(reason.contains("is not a directory of this node"), "{reason}");
    assert_eq!(std::fs::read_dir(node.run_dir().join("tasks")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_made_fails_the_launch_and_leaves_nothing() {
    let node = Node::new();
    // Where the directory of logs should be.
    std::fs::write(node.data_dir().join("logs"), "").unwrap();
    match node.executor.launch(shell("unlogged", "true")).await {
        Err(Error::Launch { source, .. }) => {
            assert!(source.to_string().contains("open the log"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(node.run_dir().join("tasks")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_task_stops_at_its_signal() {
    let node = Node::new();
    let line = "trap 'echo bye; exit 5' USR1; echo ready; while :; do sleep 0.05; done";
    let mut spec = shell("polite", line);
    spec.stop.signal = skein::executor::parse_signal("SIGUSR1").unwrap();
    let handle = node.start(spec).await;
    eventually("the task is ready", async || node.log("polite").await == ["ready"]).await;
    handle.stop(None, None).await.unwrap();
    let exit = exit(&handle).await;
    assert_eq!((exit.code, exit.signal), (5, None));
    assert_eq!(node.log("polite").await, ["ready", "bye"]);
    handle.stop(None, None).await.unwrap();
    handle.kill().await.unwrap();
    handle.release().await.unwrap();
    handle.release().await.unwrap();
}

#[tokio::test]
async fn a_task_that_ignores_its_signal_is_killed_with_all_its_children() {
    let node = Node::new();
    let line = "trap '' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.05; done";
    let handle = node.start(shell("stubborn", line)).await;
    let first = pid(&handle).await;
    eventually("the task is ready", async || node.log("stubborn").await == ["ready"]).await;
    handle.stop(Some(15), Some(Duration::from_millis(100))).await.unwrap();
    let exit = exit(&handle).await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert!(!std::path::Path::new(&format!("/proc/{first}")).exists());
    handle.release().await.unwrap();
}

#[tokio::test]
async fn a_real_time_signal_that_ends_a_command_is_its_exit_code() {
    let node = Node::new();
    let mut spec = LaunchSpec::new("real-time", Root::Host, words(&["sleep", "1000"]));
    spec.init = true;
    let handle = node.start(spec).await;
    pid(&handle).await;
    handle.stop(Some(40), None).await.unwrap();
    assert_eq!(exit(&handle).await.code, 168);
    handle.release().await.unwrap();
}

#[tokio::test]
async fn the_reaper_reaps_orphans_and_passes_signals_on() {
    let node = Node::new();
    let line = "trap 'exit 7' TERM; (sleep 0.1 &) ; sh -c 'sleep 0 & sleep 0 &'; echo ready; \
                while :; do sleep 0.05; done";
    let mut spec = shell("reaped", line);
    spec.init = true;
    let handle = node.start(spec).await;
    let first = pid(&handle).await;
    eventually("the task is ready", async || node.log("reaped").await == ["ready"]).await;
    eventually("only the command is a child of pid 1", async || {
        let path = format!("/proc/{first}/task/{first}/children");
        std::fs::read_to_string(path).unwrap().split_whitespace().count() == 1
    })
    .await;
    handle.stop(None, None).await.unwrap();
    assert_eq!(exit(&handle).await.code, 7);
    handle.release().await.unwrap();
}

#[tokio::test]
async fn requests_that_do_not_fit_the_phase_are_refused() {
    let node = Node::new();
    let handle = node.start(shell("phases", "sleep 1000")).await;
    until(&handle, |report| matches!(report.phase, Phase::Running { .. })).await;
    let again = handle.start(skein::executor::StartSpec::default()).await.unwrap_err();
    assert_eq!(again.to_string(), "task phases: task has already been started");
    let early = handle.release().await.unwrap_err();
    assert_eq!(early.to_string(), "task phases: task is running: stop it first");
    let twice = node.executor.launch(shell("phases", "true")).await.unwrap_err();
    assert_eq!(twice.to_string(), "task phases has already been launched");
    handle.kill().await.unwrap();
    assert_eq!(exit(&handle).await.signal, Some(9));
    handle.release().await.unwrap();
}

#[tokio::test]
async fn a_task_that_was_never_started_can_be_stopped_and_released() {
    let node = Node::new();
    let handle = node.executor.launch(shell("unstarted", "true")).await.unwrap();
    handle.stop(None, None).await.unwrap();
    let exit = exit(&handle).await;
    assert_eq!(exit.error.as_deref(), Some("stopped before it was started"));
    handle.release().await.unwrap();
    let handle = node.executor.launch(shell("unstarted", "true")).await.unwrap();
    handle.release().await.unwrap();
    assert!(!node.task_dir("unstarted").exists());
}

/// Goal: a handle of an earlier launch never touches a later one of the same task. Method: the
/// directory is made again at once, many times, because a released supervisor is seen to end later.
#[tokio::test]
async fn a_task_can_be_launched_again_as_soon_as_it_is_released() {
    let node = Node::new();
    let mut earlier = node.executor.launch(shell("again", "true")).await.unwrap();
    for _ in 0..20 {
        earlier.release().await.unwrap();
        let later = node.executor.launch(shell("again", "true")).await.unwrap();
        earlier.release().await.unwrap();
        assert_eq!(later.report().phase, Phase::Prepared);
        assert!(node.task_dir("again").exists());
        earlier = later;
    }
    earlier.release().await.unwrap();
}
