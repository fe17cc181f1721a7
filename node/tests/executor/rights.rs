//! What a spec says about capabilities, kernel parameters, limits and mounts of a task.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::rights::Capabilities;
use cluster::spec::Ulimit;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use skein::executor::Error;
use skein::executor::{
    HealthCheck, HealthState, LaunchSpec, Mount, MountSource, Probe, Propagation,
};

use super::execs::rest;
use super::node::{Node, eventually, exit, pid, shell, until, words};

const CAPABILITIES: &str = "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | tr '\\n' ' '";

fn capabilities(add: &[&str], drop: &[&str]) -> Capabilities {
    Capabilities::of(&words(add), &words(drop)).unwrap()
}

/// What this process can hand on.
fn own_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
    u64::from_str_radix(permitted, 16).unwrap()
}

/// Goal: a task has the capabilities of its spec, whatever way a process comes into it, and a user
/// other than root none. Method: added, dropped and all, as told by the kernel and by what works.
#[tokio::test]
async fn capabilities_are_added_and_dropped() {
    let node = Node::new();
    let run = async |add: &[&str], drop: &[&str], user: Option<&str>, init| {
        let mut spec = shell("caps", CAPABILITIES);
        spec.rights.capabilities = capabilities(add, drop);
        (spec.user, spec.init) = (user.map(str::to_owned), init);
        let (exit, text) = node.run(spec).await;
        assert_eq!((exit.code, exit.error), (0, None));
        node.executor.remove_logs("caps").unwrap();
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(|word| u64::from_str_radix(word, 16).unwrap())
            .collect::<Vec<_>>()
    };
    const DEFAULT: u64 = 0xa804_25fb;
    for init in [false, true] {
        let added = DEFAULT | 1 << 12;
        assert_eq!(run(&["NET_ADMIN"], &[], None, init).await, [added; 3]);
        assert_eq!(run(&[], &["CAP_CHOWN"], None, init).await, [DEFAULT & !1; 3]);
        assert_eq!(run(&["KILL"], &["ALL"], None, init).await, [1 << 5; 3]);
        assert_eq!(run(&["NET_ADMIN"], &[], Some("1"), init).await, [0, 0, added]);
    }
    let all = own_capabilities() & !(1 << 21);
    assert_eq!(run(&["ALL"], &["SYS_ADMIN"], None, false).await, [all; 3]);

    let line = "ip link set lo down && echo set; mount -t tmpfs x /mnt 2>/dev/null && echo mounted";
    let mut spec = shell("works", line);
    spec.rights.capabilities = capabilities(&["NET_ADMIN", "SYS_ADMIN"], &[]);
    assert_eq!(node.run(spec).await.1, "set\nmounted");
    let (_, without) = node.run(shell("fails", &format!("({line}) 2>/dev/null; echo end"))).await;
    assert_eq!(without, "end");
    let mut spec = shell("chroots", "chown 1 . || echo no; chroot / true || echo no");
    spec.rights.capabilities = capabilities(&[], &["CHOWN", "SYS_CHROOT"]);
    let (_, dropped) = node.run(spec).await;
    assert_eq!(dropped.lines().filter(|line| *line == "no").count(), 2, "{dropped}");
}

#[tokio::test]
async fn a_capability_that_the_daemon_does_not_have_is_refused_by_name() {
    let node = Node::new();
    let lacking = (0..41).find(|number| own_capabilities() & 1 << number == 0);
    let mut spec = shell("lacking", "true");
    spec.rights.capabilities = match lacking {
        Some(number) => Capabilities { mask: 1 << number, at_most: false },
        // No kernel has it.
        None => Capabilities { mask: 1 << 62, at_most: false },
    };
    match node.executor.launch(spec).await {
        Err(Error::Rejected { reason }) => {
            assert!(reason.starts_with("capability CAP_"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// Goal: limits of processes hold in the whole task. Method: they are asked for by pid 1, by a
/// command that enters, and by a health check.
#[tokio::test]
async fn ulimits_are_set() {
    let node = Node::new();
    let line = "echo $(ulimit -Sn) $(ulimit -Hn) $(ulimit -Sc) $(ulimit -Hc) $(ulimit -Hu)";
    let expected = "512 1024 0 unlimited 99";
    let ask = format!("test \"$({line})\" = '{expected}'");
    let mut check = HealthCheck::new(Probe::Command(words(&["bash", "-c", &ask])));
    check.interval = Duration::from_millis(50);
    let mut spec = shell("ulimits", &format!("{line}; sleep 1000"));
    let ulimit =
        |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard, ..Ulimit::default() };
    spec.rights.ulimits =
        vec![ulimit("nofile", 512, 1024), ulimit("core", 0, -1), ulimit("nproc", 99, 99)];
    spec.argv[0] = "bash".to_owned();
    spec.health = Some(check);
    let handle = node.start(spec).await;
    pid(&handle).await;
    let ran = rest(&mut handle.exec(&["bash", "-c", line]).await.unwrap()).await;
    assert_eq!(ran.stdout.trim(), expected);
    until(&handle, |report| {
        report.health.as_ref().is_some_and(|health| health.state == HealthState::Healthy)
    })
    .await;
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
    assert_eq!(node.log("ulimits").await, [expected]);
    let mut spec = shell("odd", "true");
    spec.rights.ulimits = vec![ulimit("nofile", 9, 3)];
    let refused = node.executor.launch(spec).await.unwrap_err().to_string();
    assert!(refused.contains("nofile has 9 > 3"), "{refused}");
}

#[tokio::test]
async fn kernel_parameters_are_the_tasks_own() {
    let node = Node::new();
    let sysctls = [
        ("net.ipv4.ip_forward", "1"),
        ("net.core.somaxconn", "77"),
        ("kernel.shmmax", "123456"),
        ("kernel.sem", "250\t32000\t100\t17"),
        ("kernel.domainname", "example.org"),
        ("fs.mqueue.msg_max", "21"),
    ];
    let path = |name: &str| format!("/proc/sys/{}", name.replace('.', "/"));
    let before = sysctls.map(|(name, _)| fs::read_to_string(path(name)).unwrap());
    let mut spec =
        shell("sysctls", &sysctls.map(|(name, _)| format!("cat {};", path(name))).concat());
    spec.sysctls = BTreeMap::from(sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (_, text) = node.run(spec).await;
    assert_eq!(text.lines().collect::<Vec<_>>(), sysctls.map(|(_, value)| value));
    assert_eq!(sysctls.map(|(name, _)| fs::read_to_string(path(name)).unwrap()), before);
    let mut spec = shell("missing", "true");
    spec.sysctls.insert("net.ipv4.no_such_thing".into(), "1".into());
    let (exit, _) = node.run(spec).await;
    let error = exit.error.unwrap_or_default();
    assert!(error.starts_with("set sysctl net.ipv4.no_such_thing to \"1\": no such"), "{error}");
}

/// Goal: a program that reads its standard input waits, as it does in Docker, where it is open, and
/// finds the end of it elsewhere.
#[tokio::test]
async fn an_open_standard_input_does_not_end() {
    let node = Node::new();
    for init in [false, true] {
        let (_, text) = node.run(shell("closed", "cat; echo ended")).await;
        assert_eq!(text, "ended");
        node.executor.remove_logs("closed").unwrap();
        let spec =
            LaunchSpec { open_stdin: true, init, ..shell("open", "echo reads; cat; echo ended") };
        let handle = node.start(spec).await;
        let first = pid(&handle).await;
        eventually("cat reads", async || {
            let processes = Path::new("/proc").join(first.to_string()).join("root").join("proc");
            fs::read_dir(processes).into_iter().flatten().flatten().any(|process| {
                let path = process.path();
                fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "cat\n")
                    && fs::read_link(path.join("fd/0"))
                        .is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))
            })
        })
        .await;
        eventually("it has said so", async || node.log("open").await == ["reads"]).await;
        handle.kill().await.unwrap();
        exit(&handle).await;
        handle.release().await.unwrap();
        node.executor.remove_logs("open").unwrap();
    }
}

fn volume(target: &str, subpath: &str) -> Mount {
    let source = MountSource::Volume { name: "v".to_owned(), subpath: subpath.to_owned() };
    Mount { target: target.to_owned(), source, read_only: false }
}

/// Goal: a path in a volume is mounted in its place, and no link leads out of the volume. Method:
/// directories, a file, and links to elsewhere, by their paths and on the way.
#[tokio::test]
async fn a_subpath_stays_in_its_volume() {
    let node = Node::new();
    let root = node.data_dir().join("volumes/v");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), "content\n").unwrap();
    symlink("a/b", root.join("within")).unwrap();
    symlink("/etc", root.join("absolute")).unwrap();
    symlink("../../..", root.join("up")).unwrap();
    let mut spec = shell("inside", "cat /m/d/file /m/f /m/l/file; echo new > /m/d/new");
    spec.mounts = vec![volume("/m/d", "a/b"), volume("/m/f", "a/b/file"), volume("/m/l", "within")];
    assert_eq!(node.run(spec).await.1, "content\ncontent\ncontent");
    assert_eq!(fs::read_to_string(root.join("a/b/new")).unwrap(), "new\n");
    for (subpath, told) in [
        ("absolute", "leads out of volume v"),
        ("absolute/passwd", "leads out of volume v"),
        ("up/data", "leads out of volume v"),
        ("a/../../..", "leads out of volume v"),
        ("a/c", "of volume v does not exist"),
    ] {
        let mut spec = shell("outside", "true");
        spec.mounts = vec![volume("/m", subpath)];
        let error = node.run(spec).await.0.error.unwrap_or_default();
        assert!(error.contains(told) && error.contains(subpath), "{subpath}: {error}");
    }
}

/// A directory on a mount of its own, taken away with all below it.
struct Own(PathBuf);

impl Own {
    fn new(path: PathBuf, propagation: MsFlags) -> Self {
        fs::create_dir_all(path.join("later")).unwrap();
        mount(Some(&path), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mount(None::<&str>, &path, None::<&str>, propagation, None::<&str>).unwrap();
        Own(path)
    }

    fn mount_later(&self) {
        let target = self.0.join("later");
        mount(Some("x"), &target, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::write(target.join("from-node"), "").unwrap();
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn bound(path: &Path, propagation: Propagation) -> Mount {
    let path = path.to_owned();
    let source = MountSource::Bind { path, create: false, alone: false, propagation };
    Mount { target: "/m".to_owned(), source, read_only: false }
}

/// Goal: later mounts go on as the spec says. Method: on a shared mount the node mounts something
/// below the source when the task runs; a task with the capability mounts something below the
/// target.
#[tokio::test]
async fn later_mounts_go_on_as_the_propagation_says() {
    let node = Node::new();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    for (propagation, comes, goes) in [
        (Propagation::Private, false, false),
        (Propagation::Slave, true, false),
        (Propagation::Shared, true, true),
    ] {
        let own = Own::new(directory.path().join(format!("{propagation:?}")), MsFlags::MS_SHARED);
        fs::create_dir(own.0.join("tasks")).unwrap();
        let line = "mount -t tmpfs x /m/tasks && touch /m/tasks/from-task && echo ready; \
                    until test -e /tmp/go; do sleep 0.05; done; ls /m/later";
        let mut spec = shell("spreads", line);
        spec.rights.capabilities = capabilities(&["SYS_ADMIN"], &[]);
        spec.mounts = vec![bound(&own.0, propagation)];
        let handle = node.start(spec).await;
        pid(&handle).await;
        eventually("the task has mounted", async || node.log("spreads").await == ["ready"]).await;
        assert_eq!(own.0.join("tasks/from-task").exists(), goes, "{propagation:?}");
        own.mount_later();
        let go = rest(&mut handle.exec(&["touch", "/tmp/go"]).await.unwrap()).await;
        assert_eq!(go.end.code, 0);
        exit(&handle).await;
        handle.release().await.unwrap();
        let seen = node.log("spreads").await.contains(&"from-node".to_owned());
        assert_eq!(seen, comes, "{propagation:?}");
        node.executor.remove_logs("spreads").unwrap();
        let _ = umount2(&own.0.join("tasks"), MntFlags::MNT_DETACH);
        let _ = umount2(&own.0.join("later"), MntFlags::MNT_DETACH);
    }
    let own = Own::new(directory.path().join("lonely"), MsFlags::MS_PRIVATE);
    for (propagation, told) in [(Propagation::Slave, "slave"), (Propagation::Shared, "shared")] {
        let mut spec = shell("lonely", "true");
        spec.mounts = vec![bound(&own.0, propagation)];
        let error = node.run(spec).await.0.error.unwrap_or_default();
        assert!(error.contains("which is not a shared") && error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_source_is_made_or_bound_alone_where_the_spec_says() {
    let node = Node::new();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let (missing, own) = (directory.path().join("a/b"), directory.path().join("own"));
    let own = Own::new(own, MsFlags::MS_PRIVATE);
    own.mount_later();
    let bind = |target: &str, path: &Path, create, alone| {
        let propagation = Propagation::Private;
        let source = MountSource::Bind { path: path.to_owned(), create, alone, propagation };
        Mount { target: target.to_owned(), source, read_only: false }
    };
    let mut spec = shell("binds", "touch /made/x; ls /whole/later; ls /alone/later");
    spec.mounts = vec![
        bind("/made", &missing, true, false),
        bind("/whole", &own.0, false, false),
        bind("/alone", &own.0, false, true),
    ];
    assert_eq!(node.run(spec).await.1, "from-node");
    assert!(missing.join("x").exists());
    let _ = umount2(&own.0.join("later"), MntFlags::MNT_DETACH);
}
