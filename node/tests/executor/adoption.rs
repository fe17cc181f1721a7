//! Tasks outlive the daemon; here an executor that is dropped is a daemon that has died.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use skein::executor::{Phase, StartSpec};
use supervise::Launch;
use supervise::client::TaskDir;

use super::node::{Node, eventually, exe, exit, pid, shell, until};

#[tokio::test]
async fn a_restarted_daemon_finds_its_tasks_in_whatever_phase_they_are() {
    let mut node = Node::new();
    node.executor.launch(shell("a-prepared", "exit 4")).await.unwrap();
    let running = node.start(shell("b-running", "exec sleep 1000")).await;
    let first = pid(&running).await;
    let ended = node.start(shell("c-ended", "exit 9")).await;
    exit(&ended).await;
    drop((running, ended));
    node.executor = node.another_executor();

    let handles = node.executor.adopt_all().await.unwrap();
    let names: Vec<&str> = handles.iter().map(|handle| handle.task()).collect();
    assert_eq!(names, ["a-prepared", "b-running", "c-ended"]);
    assert_eq!(handles[0].report().phase, Phase::Prepared);
    handles[0].start(StartSpec::default()).await.unwrap();
    assert_eq!(exit(&handles[0]).await.code, 4);
    assert_eq!(pid(&handles[1]).await, first);
    handles[1].kill().await.unwrap();
    assert_eq!(exit(&handles[1]).await.signal, Some(9));
    assert_eq!(exit(&handles[2]).await.code, 9);
    for handle in &handles {
        handle.release().await.unwrap();
    }
    assert!(node.executor.adopt_all().await.unwrap().is_empty());
}

/// Goal: an older daemon, which starts sandbox and task in one, can start supervisors of this
/// version, and its tasks are adopted. Method: its files and its call.
#[tokio::test]
async fn a_supervisor_that_begins_with_its_task_is_adopted() {
    let node = Node::new();
    let [run_dir, data_dir] = [node.run_dir(), node.data_dir()].map(|d| d.canonicalize().unwrap());
    let task_dir = TaskDir::of(&run_dir, "early").unwrap();
    std::fs::create_dir(task_dir.path()).unwrap();
    let (spec, launched_at) = (shell("early", "exit 6"), Duration::from_secs(1));
    task_dir.supervise(exe(), &Launch { spec, run_dir, data_dir, launched_at }).unwrap();
    let handle = node.executor.adopt("early").await.unwrap().unwrap();
    assert_eq!(handle.report().phase, Phase::Prepared);
    handle.start(StartSpec::default()).await.unwrap();
    assert_eq!(exit(&handle).await.code, 6);
    handle.release().await.unwrap();
    assert!(!node.task_dir("early").exists());
}

/// Goal: a task whose launch spec cannot be read does not run on next to the one that replaces it,
/// and leaves nothing. Method: the file is overwritten, emptied or cut, under a supervisor that
/// lives and one that was killed.
#[tokio::test]
async fn a_task_with_a_damaged_launch_spec_is_ended() {
    for (damage, killed) in [("{", false), ("", false), ("[1]", true)] {
        let node = Node::new();
        let handle = node.start(shell("damaged", "exec sleep 1000")).await;
        let first = pid(&handle).await;
        drop(handle);
        std::fs::write(node.task_dir("damaged").join("launch.json"), damage).unwrap();
        if killed {
            kill(node.supervisor("damaged"), Signal::SIGKILL).unwrap();
        }
        let executor = node.another_executor();
        eventually("the directory is free", async || {
            executor.adopt_all().await.unwrap().is_empty()
        })
        .await;
        let is_gone = async || !Path::new(&format!("/proc/{first}")).exists();
        eventually("the process is gone", is_gone).await;
        assert!(!node.task_dir("damaged").exists());
        assert!(!node.run_dir().join("netns/sandbox-damaged").exists());
        assert!(!node.data_dir().join("work/damaged").exists());
    }
}

/// Goal: a task can be released though its launch spec was damaged while the daemon knew it.
#[tokio::test]
async fn a_damaged_launch_spec_is_no_reason_to_keep_an_ended_task() {
    let node = Node::new();
    let handle = node.start(shell("damaged", "exit 0")).await;
    exit(&handle).await;
    std::fs::write(node.task_dir("damaged").join("launch.json"), "{").unwrap();
    handle.release().await.unwrap();
    assert!(!node.task_dir("damaged").exists());
}

/// Goal: a query that is asked while no daemon runs is answered by the next one. Method: a socket
/// inside the sandbox sends to the DNS port between two executors.
#[tokio::test]
async fn questions_wait_in_the_sandbox_across_a_restart() {
    let mut node = Node::new();
    let handle = node.start(shell("asking", "exec sleep 1000")).await;
    let port = handle.report().dns_port;
    let fds = handle.fds().await.unwrap();
    assert_eq!(fds.dns_udp.local_addr().unwrap(), SocketAddr::from(([127, 0, 0, 11], port)));
    assert_eq!(fds.dns_tcp.local_addr().unwrap(), SocketAddr::from(([127, 0, 0, 11], port)));
    let client = inside(fds.netns, || std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    drop((fds.dns_udp, fds.dns_tcp, handle));
    client.send_to(b"who?", ("127.0.0.11", port)).unwrap();

    node.executor = node.another_executor();
    let handle = node.executor.adopt_all().await.unwrap().remove(0);
    let fds = handle.fds().await.unwrap();
    let mut question = [0; 16];
    let (length, from) = fds.dns_udp.recv_from(&mut question).unwrap();
    assert_eq!(&question[..length], b"who?");
    fds.dns_udp.send_to(b"me", from).unwrap();
    let mut answer = [0; 16];
    assert_eq!(client.recv(&mut answer).unwrap(), 2);
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
}

/// Runs `make` in a namespace, on a thread of its own.
fn inside<T: Send>(namespace: std::os::fd::OwnedFd, make: impl FnOnce() -> T + Send) -> T {
    let make = || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        make()
    };
    std::thread::scope(|scope| scope.spawn(make).join().unwrap())
}

#[tokio::test]
async fn a_task_dies_with_its_supervisor_and_its_handle_says_so() {
    let node = Node::new();
    for init in [false, true] {
        let mut spec = shell("orphan", "sleep 1000 & exec sleep 1000");
        spec.init = init;
        spec.user = Some("12:34".to_owned());
        let handle = node.start(spec).await;
        let first = pid(&handle).await;
        kill(node.supervisor("orphan"), Signal::SIGKILL).unwrap();
        let exit = exit(&handle).await;
        assert_eq!((exit.code, exit.signal), (137, Some(9)));
        assert!(exit.error.unwrap().starts_with("supervisor lost"));
        eventually("the process is gone", async || !Path::new(&format!("/proc/{first}")).exists())
            .await;
        handle.kill().await.unwrap();
        handle.release().await.unwrap();
        assert!(!node.task_dir("orphan").exists());
        assert!(!node.run_dir().join("netns/sandbox-orphan").exists());
    }
}

/// Goal: a task cannot outlive its supervisor by undoing the kernel's arrangement. Method: its
/// first process clears the death signal.
#[tokio::test]
async fn a_task_that_survives_its_supervisor_is_killed() {
    let node = Node::new();
    let handle = node.start(shell("undone", "exec setpriv --pdeathsig clear sleep 1000")).await;
    let first = pid(&handle).await;
    let name = format!("/proc/{first}/comm");
    eventually("it sleeps", async || std::fs::read_to_string(&name).unwrap() == "sleep\n").await;
    kill(node.supervisor("undone"), Signal::SIGKILL).unwrap();
    assert!(exit(&handle).await.error.unwrap().starts_with("supervisor lost"));
    let state = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap_or_default();
    assert!(state.is_empty() || state.contains("State:\tZ"), "{state}");
    handle.release().await.unwrap();
}

#[tokio::test]
async fn one_task_can_be_found_by_its_name() {
    let node = Node::new();
    let handle = node.executor.launch(shell("cut-off", "true")).await.unwrap();
    drop(handle);
    for absent in ["absent", "../tasks/cut-off", ""] {
        assert!(node.executor.adopt(absent).await.unwrap().is_none());
    }
    let handle = node.executor.adopt("cut-off").await.unwrap().unwrap();
    assert_eq!(handle.report().phase, Phase::Prepared);
    handle.release().await.unwrap();
    assert!(node.executor.adopt("cut-off").await.unwrap().is_none());
    // Looking for a task leaves nothing behind.
    assert_eq!(std::fs::read_dir(node.run_dir().join("tasks")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_supervisor_that_died_with_the_daemon_is_found_dead() {
    let mut node = Node::new();
    let handle = node.start(shell("both", "exec sleep 1000")).await;
    pid(&handle).await;
    let ended = node.start(shell("ended", "exit 6")).await;
    exit(&ended).await;
    drop((handle, ended));
    for task in ["both", "ended"] {
        let supervisor = node.supervisor(task);
        kill(supervisor, Signal::SIGKILL).unwrap();
        let process = format!("/proc/{supervisor}");
        eventually("it is gone", async || !Path::new(&process).exists()).await;
    }
    std::fs::create_dir(node.task_dir("unlaunched")).unwrap();

    node.executor = node.another_executor();
    let handles = node.executor.adopt_all().await.unwrap();
    assert_eq!(handles.len(), 2);
    assert!(exit(&handles[0]).await.error.unwrap().starts_with("supervisor lost"));
    let known = exit(&handles[1]).await;
    assert_eq!((known.code, known.error), (6, None));
    for handle in handles {
        handle.release().await.unwrap();
    }
    assert_eq!(std::fs::read_dir(node.run_dir().join("tasks")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_supervisor_that_is_asked_to_end_stops_its_task_first() {
    let node = Node::new();
    let line = "trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done";
    let handle = node.start(shell("shutdown", line)).await;
    eventually("the task is ready", async || node.log("shutdown").await == ["ready"]).await;
    let supervisor = node.supervisor("shutdown");
    kill(supervisor, Signal::SIGTERM).unwrap();
    until(&handle, |report| matches!(&report.phase, Phase::Exited(exit) if exit.code == 8)).await;
    // Nobody has to release the task for that: a machine that goes down waits for its processes.
    let process = format!("/proc/{supervisor}");
    eventually("it is gone", async || !Path::new(&process).exists()).await;
    assert_eq!(exit(&handle).await.code, 8);
    handle.release().await.unwrap();
    assert_eq!(std::fs::read_dir(node.run_dir().join("tasks")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_supervisor_that_is_asked_to_end_before_its_task_began_does_so() {
    let node = Node::new();
    let handle = node.executor.launch(shell("waiting", "exec sleep 1000")).await.unwrap();
    let supervisor = node.supervisor("waiting");
    kill(supervisor, Signal::SIGTERM).unwrap();
    let process = format!("/proc/{supervisor}");
    eventually("it is gone", async || !Path::new(&process).exists()).await;
    handle.release().await.unwrap();
    assert_eq!(std::fs::read_dir(node.run_dir().join("tasks")).unwrap().count(), 0);
}

/// Goal: a machine that restarts keeps nothing of the tasks that it had. Method: what they wrote is
/// there, and their directories, which were in memory, are not; a task that runs keeps its own.
#[tokio::test]
async fn what_tasks_wrote_before_a_restart_of_the_machine_is_removed() {
    let node = Node::new();
    let handle = node.start(shell("here", "sleep 1000")).await;
    pid(&handle).await;
    let layers = node.data_dir().join("layers");
    let written = |task: &str| ["work", "layers"].map(|kind| node.data_dir().join(kind).join(task));
    for directory in written("gone") {
        std::fs::create_dir_all(directory.join("upper/etc")).unwrap();
        std::fs::write(directory.join("upper/etc/file"), "").unwrap();
    }
    std::os::unix::fs::symlink(node.task_dir("gone"), layers.join("gone/task")).unwrap();
    // It is just being made.
    std::fs::create_dir(layers.join("new")).unwrap();
    let handles = node.another_executor().adopt_all().await.unwrap();
    assert_eq!(handles.len(), 1);
    eventually("it is removed", async || !written("gone").iter().any(|path| path.exists())).await;
    assert!(layers.join("new").exists());
    assert!(written("here").iter().all(|path| path.exists()));
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
}
