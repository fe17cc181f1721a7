//! Limits of memory, CPU and processes, on whichever control groups this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use skein::executor::{HealthCheck, HealthState, LaunchSpec, Limits, Probe, Root};

use super::execs::rest;
use super::node::{Node, eventually, exit, pid, shell, until, words};

const LIMITS: Limits =
    Limits { memory_bytes: Some(64 << 20), nano_cpus: Some(100_000_000), pids: Some(12) };

/// The groups of a task: all directories of its name below one called `skein`.
fn groups(task: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let roots = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path());
    let roots = roots.chain([top.to_owned()]).filter(|path| !path.is_symlink());
    roots.map(|root| root.join("skein").join(task)).filter(|group| group.is_dir()).collect()
}

/// The content of a file of whichever of these groups has it.
fn read(groups: &[PathBuf], name: &str) -> Option<String> {
    groups.iter().find_map(|group| fs::read_to_string(group.join(name)).ok())
}

#[tokio::test]
async fn a_task_that_takes_too_much_memory_is_killed_and_says_so() {
    let node = Node::new();
    for init in [false, true] {
        let argv = words(&["perl", "-e", "my $text = 'x' x (300 << 20); print length $text"]);
        let mut spec = LaunchSpec::new("large", Root::Host, argv);
        spec.limits = Limits { memory_bytes: Some(32 << 20), ..Limits::default() };
        spec.init = init;
        let (exit, _) = node.run(spec).await;
        assert_eq!((exit.code, exit.out_of_memory), (137, true), "{exit:?}");
        assert_eq!(groups("large"), [""; 0].map(PathBuf::from));
    }
    let spec = LaunchSpec { limits: LIMITS, ..shell("small", "kill -9 $$; exit 1") };
    let (exit, _) = node.run(spec).await;
    assert!(!exit.out_of_memory, "{exit:?}");
}

#[tokio::test]
async fn a_task_has_no_more_processes_than_its_limit() {
    let node = Node::new();
    let line = "use POSIX; my $made = 0; while (defined(my $pid = fork)) { \
                $pid or sleep 100; $made++ } print \"$made $!\\n\"";
    let mut spec = LaunchSpec::new("many", Root::Host, words(&["perl", "-e", line]));
    spec.limits = Limits { pids: Some(7), ..Limits::default() };
    let (exit, output) = node.run(spec).await;
    assert_eq!((exit.code, output.as_str()), (0, "6 Resource temporarily unavailable"));
}

#[tokio::test]
async fn a_task_that_asks_for_more_cpu_than_its_limit_is_throttled() {
    let node = Node::new();
    let spec = LaunchSpec { limits: LIMITS, ..shell("busy", "while :; do :; done") };
    let handle = node.start(spec).await;
    pid(&handle).await;
    let groups = groups("busy");
    let quota = read(&groups, "cpu.max").or_else(|| read(&groups, "cpu.cfs_quota_us")).unwrap();
    assert!(quota.starts_with("10000"), "{quota}");
    eventually("it is throttled", async || {
        let statistics = read(&groups, "cpu.stat").unwrap();
        let count = statistics.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        count.unwrap().parse::<u64>().unwrap() > 3
    })
    .await;
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
}

/// Goal: nothing that runs in a task is out of its limits. Method: the groups of pid 1, of a
/// command that enters the task, and of a health check.
#[tokio::test]
async fn commands_and_health_checks_in_a_task_are_limited_with_it() {
    let node = Node::new();
    let mut check =
        HealthCheck::new(Probe::Shell("sleep 0.1; readlink /proc/self/ns/cgroup".into()));
    check.interval = Duration::from_millis(50);
    let spec = LaunchSpec { limits: LIMITS, health: Some(check), ..shell("all", "sleep 1000") };
    let handle = node.start(spec).await;
    let first = pid(&handle).await;
    let mut entered = handle.exec(&["sleep", "1000"]).await.unwrap();
    until(&handle, |report| {
        report.health.as_ref().is_some_and(|health| health.state == HealthState::Healthy)
    })
    .await;
    let namespace = fs::read_link(format!("/proc/{first}/ns/pid")).unwrap();
    let mut seen = 0;
    eventually("pid 1, the command and a check are seen", async || {
        let mut now = 0;
        for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
            if fs::read_link(process.join("ns/pid")).ok() != Some(namespace.clone()) {
                continue;
            }
            let Ok(member) = fs::read_to_string(process.join("cgroup")) else { continue };
            let of_task = member.lines().filter(|line| line.ends_with("/skein/all")).count();
            // A process that ends is in no group any more, and one that enters not yet.
            if fs::read_link(process.join("exe")).is_ok_and(|exe| exe != super::node::exe()) {
                assert_eq!(of_task, groups("all").len(), "{member}");
                now += 1;
            }
        }
        seen = seen.max(now);
        seen >= 3
    })
    .await;
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
    assert_eq!(rest(&mut entered).await.end.signal, Some(9));
    assert_eq!(groups("all"), [""; 0].map(PathBuf::from));
}

/// Goal: no group is left, no matter what ends a task. Method: a task is adopted by a later
/// executor; one whose supervisor was killed is adopted too.
#[tokio::test]
async fn groups_go_with_their_task_after_a_restart_and_after_a_loss() {
    let node = Node::new();
    for task in ["adopted", "lost"] {
        let handle = node.start(LaunchSpec { limits: LIMITS, ..shell(task, "sleep 1000") }).await;
        pid(&handle).await;
        assert!(!groups(task).is_empty());
    }
    kill(node.supervisor("lost"), Signal::SIGKILL).unwrap();
    let later = node.another_executor();
    for handle in later.adopt_all().await.unwrap() {
        handle.kill().await.unwrap();
        exit(&handle).await;
        handle.release().await.unwrap();
        assert_eq!(groups(handle.task()), [""; 0].map(PathBuf::from));
    }
}
