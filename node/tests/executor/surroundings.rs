//! What a task sees and may do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, getrlimit};
use skein::executor::{DnsConfig, HostEntry, LaunchSpec, Mount, MountSource, Propagation, Root};

use super::node::{Node, eventually, exit, shell, words};

/// Runs `line` and returns its output, which must end well.
async fn output(node: &Node, line: &str, change: impl FnOnce(&mut LaunchSpec)) -> String {
    let mut spec = shell("0123456789abcdefghijklmno", line);
    change(&mut spec);
    let (exit, output) = node.run(spec).await;
    assert_eq!((exit.code, &exit.error), (0, &None), "{output}");
    node.executor.remove_logs("0123456789abcdefghijklmno").unwrap();
    output
}

#[tokio::test]
async fn a_task_is_pid_1_in_namespaces_of_its_own() {
    let node = Node::new();
    assert_eq!(output(&node, "echo $$; hostname", |_| ()).await, "1\n0123456789ab");
    let line = "echo $$; cat /proc/1/comm; hostname; cat /etc/hostname; echo $HOSTNAME";
    let text = output(&node, line, |spec| {
        spec.init = true;
        spec.hostname = Some("web".to_owned());
    })
    .await;
    assert_eq!(text, "2\nskein-init\nweb\nweb\nweb");
    let spaces = ["net", "mnt", "pid", "uts", "ipc", "cgroup"];
    let line = spaces.map(|space| format!("readlink /proc/self/ns/{space};")).concat();
    let own = output(&node, &line, |_| ()).await;
    for (space, inside) in spaces.iter().zip(own.lines()) {
        let ours = fs::read_link(format!("/proc/self/ns/{space}")).unwrap();
        assert!(inside.starts_with(space) && Path::new(inside) != ours, "{inside}");
    }
    assert_eq!(output(&node, "ls /sys/class/net", |_| ()).await, "lo");
}

/// Goal: a task may change its root, and only it sees that. Method: files are made, changed and
/// removed in the node's own tree as the task's; the node looks during its run and afterwards, and
/// another task looks.
#[tokio::test]
async fn what_a_task_writes_is_its_own_and_goes_away_with_it() {
    let node = Node::new();
    let shared = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| shared.path().join(name);
    for name in ["kept", "changed", "removed"] {
        fs::write(at(name), "node\n").unwrap();
    }
    let there = shared.path().display().to_string();
    let line = format!(
        "cd {there} && echo task > changed && rm removed && mkdir made && echo task > made/file && \
         echo task > /etc/skein-test && ls && cat kept changed made/file /etc/skein-test; \
         touch /run/x /tmp/x /dev/shm/x; while test -d made; do sleep 0.05; done"
    );
    let handle = node.start(shell("writes", &line)).await;
    let seen = "changed kept made node task task task";
    eventually("the task has written", async || node.log("writes").await.join(" ") == seen).await;
    assert_eq!(fs::read_to_string(at("changed")).unwrap(), "node\n");
    assert!(at("removed").exists() && !at("made").exists());
    assert!(!Path::new("/etc/skein-test").exists());
    let layer = node.data_dir().join("layers/writes");
    assert!(layer.join("upper/etc/skein-test").exists());
    let look = format!("cat {there}/changed; ls {there} /etc/skein-test 2>/dev/null; true");
    assert_eq!(
        output(&node, &look, |_| ()).await,
        format!("node\n{there}:\nchanged\nkept\nremoved")
    );
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
    assert!(!layer.exists());
}

/// Goal: a node whose data directory can hold no layer runs tasks. Method: it is on an overlay, as
/// in a container without a volume for it.
#[tokio::test]
async fn where_the_disk_can_hold_no_layer_it_is_in_memory() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["lower", "upper", "scratch", "data"] {
        fs::create_dir(at(name)).unwrap();
    }
    let path = |name: &str| at(name).display().to_string();
    let [lower, upper, scratch] = ["lower", "upper", "scratch"].map(path);
    let options = format!("lowerdir={lower},upperdir={upper},workdir={scratch}");
    let flags = MsFlags::empty();
    mount(Some("x"), &at("data"), Some("overlay"), flags, Some(options.as_str())).unwrap();
    let _data = Bound(at("data"));
    let node = Node::at(directory);
    let line = "echo task > /etc/skein-test && cat /etc/skein-test; \
                df -k --output=size / | tail -n 1 | tr -d ' '";
    assert_eq!(output(&node, line, |_| ()).await, "task\n1048576");
    assert!(!Path::new("/etc/skein-test").exists());
}

#[tokio::test]
async fn what_is_the_kernels_is_read_only_and_so_is_all_of_a_read_only_root() {
    let node = Node::new();
    let mark = "/tmp/skein-test-private";
    let line = format!(
        "for d in / /etc /usr /var/tmp /proc/sys/kernel /sys; do \
           touch $d/x 2>/dev/null && echo writable $d; done; \
         ls /run; ls -A /tmp; touch {mark} ./y && pwd && ls"
    );
    let expected = "writable /\nwritable /etc\nwritable /usr\nwritable /var/tmp\n\
                    work\n/run/work\ny";
    assert_eq!(output(&node, &line, |_| ()).await, expected);
    assert!(!Path::new(mark).exists());
    for left in ["work", "layers"] {
        assert!(!node.data_dir().join(left).join("0123456789abcdefghijklmno").exists());
    }
    let line = "for d in / /etc /usr /var/tmp /tmp /run /run/work; do \
                touch $d/x 2>/dev/null && echo writable $d; done; ls /new/target";
    let text = output(&node, line, |spec| {
        spec.read_only = true;
        let source = MountSource::Volume { name: "v".to_owned(), subpath: String::new() };
        spec.mounts = vec![Mount { target: "/new/target/here".into(), source, read_only: false }];
    })
    .await;
    assert_eq!(text, "here");
    assert!(!Path::new("/new").exists());
}

/// Goal: what the node has mounted is there as before. Method: a directory and a
/// file are mounted in the tree; a task sees and cannot change them.
#[tokio::test]
async fn what_is_mounted_in_an_image_comes_along_read_only() {
    let node = Node::new();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let first = directory.path().join("first");
    let _bound = Bound::new(Path::new("/etc"), first.clone());
    let sources = [first.join("hostname"), directory.path().join("file")];
    fs::write(&sources[1], "").unwrap();
    mount(Some(&sources[0]), &sources[1], None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let _file = Bound(sources[1].clone());
    let line = format!(
        "cd {}; cmp first/passwd /etc/passwd && cmp first/hostname file && echo same; \
         touch first/x 2>/dev/null || echo read-only; touch x && echo written",
        directory.path().display()
    );
    for root in [Root::Host, Root::Directory("/".into())] {
        let text = output(&node, &line, |spec| spec.root = root).await;
        assert_eq!(text, "same\nread-only\nwritten");
    }
}

#[tokio::test]
async fn the_files_of_the_node_about_the_cluster_are_not_visible() {
    let node = Node::new();
    fs::write(node.data_dir().join("key"), "secret").unwrap();
    let line = format!("ls -A {} {}", node.data_dir().display(), node.run_dir().display());
    let expected = format!("{}:\n\n{}:", node.data_dir().display(), node.run_dir().display());
    assert_eq!(output(&node, &line, |_| ()).await, expected);
    let image = format!("dir:{}", node.data_dir().display());
    let root = Root::Directory(node.data_dir());
    let refused = node.executor.launch(LaunchSpec::new("state", root, words(&["true"]))).await;
    let reason = format!("image {image}: that is the daemon's own state: use another directory");
    assert_eq!(refused.unwrap_err().to_string(), reason);
    // No mount of another sandbox is kept either.
    assert_eq!(output(&node, "grep -c nsfs /proc/mounts; true", |_| ()).await, "0");
}

fn bind(path: PathBuf) -> MountSource {
    MountSource::Bind { path, create: false, alone: false, propagation: Propagation::Private }
}

/// A mount of the node, taken away when the test has ended.
struct Bound(PathBuf);

impl Bound {
    fn new(source: &Path, target: PathBuf) -> Self {
        fs::create_dir_all(&target).unwrap();
        mount(Some(source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Bound(target)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Goal: another path to the same state shows as little. Method: state is mounted elsewhere: with
/// its parent, itself, a part of it; and a link leads to it.
#[tokio::test]
async fn the_files_about_the_cluster_are_not_visible_behind_another_mount_either() {
    let node = Node::new();
    let (state, directory) = (node.data_dir(), tempfile::tempdir_in("/var/tmp").unwrap());
    fs::create_dir(state.join("raft")).unwrap();
    fs::write(state.join("raft/key"), "secret").unwrap();
    let at = |name: &str| directory.path().join(name);
    let _bound = [
        Bound::new(node.directory.path(), at("parent")),
        Bound::new(&state, at("itself")),
        Bound::new(&state.join("raft"), at("part")),
    ];
    std::os::unix::fs::symlink(&state, at("link")).unwrap();
    let line = format!("cd {}; find . -follow -name 'k*'; ls", directory.path().display());
    assert_eq!(output(&node, &line, |_| ()).await, "itself\nlink\nparent\npart");
    // None of these is the root of a task either.
    for root in [at("itself"), at("itself/raft"), at("part"), at("parent/data/raft")] {
        assert!(root.exists(), "{}", root.display());
        let spec = LaunchSpec::new("state", Root::Directory(root.clone()), words(&["/bin/true"]));
        let (exit, _) = node.run(spec).await;
        let error = exit.error.unwrap_or_default();
        assert!(error.contains("the daemon's own state"), "{}: {error:?}", root.display());
        node.executor.remove_logs("state").unwrap();
    }
}

#[tokio::test]
async fn capabilities_limits_and_privileges_are_dockers() {
    let node = Node::new();
    let line =
        "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t'; ulimit -Sn; ulimit -Hn";
    let open_files = open_files();
    let expected = |effective: &str| {
        format!(
            "CapInh:0000000000000000\nCapPrm:{effective}\nCapEff:{effective}\n\
             CapBnd:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:1\n\
             {open_files}\n{open_files}"
        )
    };
    for init in [false, true] {
        let text = output(&node, line, |spec| spec.init = init).await;
        assert_eq!(text, expected("00000000a80425fb"));
    }
    let text = output(&node, line, |spec| spec.user = Some("12:34".to_owned())).await;
    assert_eq!(text, expected("0000000000000000"));
}

/// Swarm's limit, where this process may raise its own so far.
fn open_files() -> u64 {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    if u64::from_str_radix(effective, 16).unwrap() & SYS_RESOURCE == 0 {
        return getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    }
    let ceiling = fs::read_to_string("/proc/sys/fs/nr_open").unwrap();
    ceiling.trim().parse::<u64>().unwrap().min(1_048_576)
}

#[tokio::test]
async fn no_device_node_of_the_tasks_making_can_be_opened() {
    let node = Node::new();
    let line = "for d in /dev /tmp /run /run/work /dev/shm; do \
                  mknod $d/disk c 1 3 2>/dev/null && cat $d/disk 2>/dev/null && echo open $d; \
                done; head -c 4 /dev/zero | wc -c; echo x >/dev/null && test -e /dev/pts/ptmx";
    assert_eq!(output(&node, line, |_| ()).await, "4");
}

#[tokio::test]
async fn a_user_is_looked_up_and_its_working_directory_is_its_own() {
    let node = Node::new();
    let line = "id -u; id -g; id -G; echo $HOME; touch x && stat -c %u x";
    let text = output(&node, line, |spec| {
        spec.user = Some("daemon".to_owned());
        spec.groups = words(&["4242"]);
    })
    .await;
    assert_eq!(text, "1\n1\n1 4242\n/usr/sbin\n1");
    let text = output(&node, line, |spec| spec.user = Some("777:888".to_owned())).await;
    assert_eq!(text, "777\n888\n888\n/\n777");
}

#[tokio::test]
async fn environment_and_directory_are_the_specs_over_dockers_defaults() {
    let node = Node::new();
    let text = output(&node, "env | sort; pwd", |spec| {
        spec.env = words(&["B=2", "A=1", "B=3", "HOME=/h"]);
        spec.dir = Some("/usr/bin".to_owned());
    })
    .await;
    assert_eq!(
        text,
        "A=1\nB=3\nHOME=/h\nHOSTNAME=0123456789ab\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/usr/bin\n/usr/bin"
    );
}

#[tokio::test]
async fn names_are_resolved_by_the_sandbox() {
    let node = Node::new();
    let text = output(&node, "cat /etc/resolv.conf; grep -v : /etc/hosts", |spec| {
        spec.dns = DnsConfig {
            nameservers: Vec::new(),
            search: words(&["example.com"]),
            options: words(&["edns0"]),
        };
        spec.hosts =
            vec![HostEntry { address: "10.9.9.9".parse().unwrap(), names: words(&["db"]) }];
    })
    .await;
    assert_eq!(
        text,
        "nameserver 127.0.0.11\nsearch example.com\noptions edns0 ndots:0\n\
         127.0.0.1\tlocalhost\n10.9.9.9\tdb\n10.0.0.3\t0123456789ab"
    );
}

#[tokio::test]
async fn mounts_are_made_in_order_of_depth() {
    let node = Node::new();
    let source = node.directory.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    let mount = |target: &str, source: MountSource, read_only| Mount {
        target: target.to_owned(),
        source,
        read_only,
    };
    let bind = |path: &Path| bind(path.to_owned());
    let volume = MountSource::Volume { name: "v1".to_owned(), subpath: String::new() };
    let small = MountSource::Tmpfs { size_bytes: Some(65536), mode: Some(0o700) };
    let text = output(
        &node,
        "cat /run/m/ro/file /run/m/file; touch /run/m/ro/x 2>/dev/null && echo writable; \
         echo kept > /run/m/v/mark; echo out > /run/m/rw/new; stat -c %a /run/m/t; \
         head -c 100000 /dev/zero > /run/m/t/big 2>/dev/null || echo full",
        |spec| {
            spec.mounts = vec![
                mount("/run/m/ro", bind(&source), true),
                mount("/run/m/t", small, false),
                mount("/run/m/rw", bind(&source), false),
                mount("/run/m/v", volume.clone(), false),
                mount("/run/m/file", bind(&source.join("file")), false),
                mount("/run/m", MountSource::Tmpfs { size_bytes: None, mode: None }, false),
            ];
        },
    )
    .await;
    assert_eq!(text, "content\ncontent\n700\nfull");
    assert_eq!(fs::read_to_string(source.join("new")).unwrap(), "out\n");
    let text = output(&node, "cat /run/m/v/mark", |spec| {
        spec.mounts = vec![mount("/run/m/v", volume, true)];
    })
    .await;
    assert_eq!(text, "kept");
}

#[tokio::test]
async fn a_mount_that_cannot_be_made_says_which() {
    let node = Node::new();
    let run = async |target: &str, path: &str| {
        let mut spec = shell("mounts", "true");
        let source = bind(path.into());
        let (target, above) = (target.to_owned(), "/read-only".to_owned());
        let tmpfs = MountSource::Tmpfs { size_bytes: None, mode: None };
        spec.mounts = vec![
            Mount { target, source, read_only: false },
            Mount { target: above, source: tmpfs, read_only: true },
        ];
        node.run(spec).await.0.error.unwrap_or_default()
    };
    assert_eq!(run("/run/x", "/no/where").await, "bind source path does not exist: /no/where");
    let error = run("/read-only/target", "/etc").await;
    assert!(error.starts_with("mount target /read-only/target does not exist"), "{error}");
    assert_eq!(run("/made/target", "/etc").await, "");
    assert!(!Path::new("/made").exists() && !Path::new("/read-only").exists());
}

#[tokio::test]
async fn the_sandbox_has_the_parameters_of_a_container() {
    let node = Node::new();
    let line = "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range";
    assert_eq!(output(&node, line, |_| ()).await, "0\n0\t2147483647");
}

/// Goal: an image of one's own works, and can lead nothing out of it. Method: a root with a shell,
/// a resolv.conf that is a link into /run, and an /etc/hosts that is a link to a path that exists
/// on the node.
#[tokio::test]
async fn a_directory_is_a_root() {
    let node = Node::new();
    let root = node.directory.path().join("image");
    for program in ["sh", "cat", "ls"] {
        copy_program(&root, program);
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    std::os::unix::fs::symlink("../run/dns/resolv.conf", root.join("etc/resolv.conf")).unwrap();
    let victim = node.directory.path().join("victim");
    std::os::unix::fs::symlink(&victim, root.join("etc/hosts")).unwrap();
    fs::write(root.join("etc/passwd"), "app:x:55:56::/home:/bin/sh\n").unwrap();
    let mut spec = LaunchSpec::new(
        "image",
        Root::Directory(root.clone()),
        words(&[
            "sh",
            "-c",
            "ls /; cat /etc/resolv.conf /etc/hostname; echo $HOME; echo $$ > /x; cat /x",
        ]),
    );
    spec.user = Some("app".to_owned());
    std::os::unix::fs::chown(&root, Some(55), None).unwrap();
    let (exit, text) = node.run(spec).await;
    assert_eq!(exit.error, None);
    let (listing, rest) = text.split_once("nameserver").unwrap();
    assert!(listing.contains("proc") && !listing.contains("boot"), "{listing}");
    assert!(rest.ends_with("ndots:0\nimage\n/home\n1"), "{rest}");
    assert_eq!(exit.code, 0);
    assert!(!victim.exists());
    // The image is as it was.
    for made in ["x", "proc", "run", "etc/hostname"] {
        assert!(!root.join(made).exists(), "{made}");
    }
}

/// Copies a program with the libraries that it names.
fn copy_program(root: &Path, program: &str) {
    let path = Path::new("/bin").join(program);
    let listing = std::process::Command::new("ldd").arg(&path).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let libraries = listing.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.map(Path::new).chain([path.as_path()]) {
        let target = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, &target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
