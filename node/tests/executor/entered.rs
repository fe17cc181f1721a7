//! `skein exec`: a command inside a running task.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::node::{Node, exe, exit, pid, shell, words};

#[tokio::test]
async fn a_command_runs_in_the_tasks_surroundings_with_the_callers_streams() {
    let node = Node::new();
    let mut spec = shell("entered", "exec sleep 1000");
    spec.env = words(&["MARK=here"]);
    let handle = node.start(spec).await;
    let first = pid(&handle).await;
    let enter = |argv: &[&str]| handle.enter(words(argv)).unwrap();
    let line = "cat; echo $MARK $HOSTNAME $(hostname); readlink /proc/self/ns/net; \
                grep nameserver /etc/resolv.conf; grep CapEff /proc/self/status; \
                cat /proc/1/comm; pwd; exit 42";
    let input = node.directory.path().join("input");
    File::create(&input).unwrap().write_all(b"typed\n").unwrap();
    let mut command = enter(&["sh", "-c", line]).command(exe()).unwrap();
    let output = command.stdin(File::open(&input).unwrap()).output().unwrap();
    let sandbox = std::fs::read_link(format!("/proc/{first}/ns/net")).unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            "typed\nhere entered entered\n{}\nnameserver 127.0.0.11\n\
             CapEff:\t00000000a80425fb\nsleep\n/run/work\n",
            sandbox.display()
        )
    );
    assert_eq!(output.status.code(), Some(42));

    let late = enter(&["true"]);
    let output = enter(&["nope"]).command(exe()).unwrap().output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "exec \"nope\": executable file not found in $PATH\n");
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
    let refused = handle.enter(words(&["true"])).unwrap_err();
    assert_eq!(refused.to_string(), "task entered: it is not running");
    let output = late.command(exe()).unwrap().output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with(&format!("enter process {first}: ")), "{text}");
}

#[tokio::test]
async fn signals_reach_the_command_and_a_killed_task_takes_it_along() {
    let node = Node::new();
    let handle = node.start(shell("entered", "exec sleep 1000")).await;
    pid(&handle).await;
    let enter = |argv: &[&str]| handle.enter(words(argv)).unwrap();
    let line = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let start = |line: &str| {
        let mut command = enter(&["sh", "-c", line]).command(exe()).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut word = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
        assert_eq!(&word, b"ready\n");
        child
    };
    let mut child = start(line);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let mut child = start("echo ready; exec sleep 1000");
    handle.kill().await.unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    exit(&handle).await;
    handle.release().await.unwrap();
}
