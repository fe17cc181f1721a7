//! The system calls that a task may make.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use skein::executor::{HealthCheck, HealthState, LaunchSpec, Probe, Rights, Root, Seccomp};

use super::execs::rest;
use super::node::{Node, exit, pid, until, words};

/// Says of each `number,argument,…` whether it worked, or its error number.
const CALLS: &str = "for (@ARGV) { my ($n, @a) = split /,/; \
    my $r = syscall($n + 0, map { $_ + 0 } @a); print $r < 0 ? $! + 0 : 0, \"\\n\" }";
const NEW_USER: i64 = 0x1000_0000;

/// A call with its arguments, and the error that Docker's profile answers it with; 0 for none.
type Call = (&'static str, i64, &'static [i64], i32);

/// Where the profile refuses, a kernel without it answers otherwise, as `answered` checks.
const TABLE: [Call; 16] = [
    ("clone3", libc::SYS_clone3, &[0, 0], Errno::ENOSYS as i32),
    ("clone with a user namespace", libc::SYS_clone, &[NEW_USER | 0x80, 0, 0, 0, 0], 1),
    ("keyctl", libc::SYS_keyctl, &[0, -3, 1], 1),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[0, 0], 1),
    ("userfaultfd", libc::SYS_userfaultfd, &[1], 1),
    ("kcmp", libc::SYS_kcmp, &[1, 1, 9, 0, 0], 1),
    ("socket of cryptography", libc::SYS_socket, &[38, 5, 0], 1),
    ("socket of unknown families", libc::SYS_socket, &[1000, 1, 0], 1),
    ("personality without random addresses", libc::SYS_personality, &[0x0004_0000], 1),
    ("a call of later kernels", 500, &[], Errno::ENOSYS as i32),
    ("personality", libc::SYS_personality, &[0xffff_ffff], 0),
    ("socket", libc::SYS_socket, &[2, 2, 0], 0),
    ("chroot, to a path at 0", libc::SYS_chroot, &[0], Errno::EFAULT as i32),
    ("ptrace of itself", libc::SYS_ptrace, &[0, 0, 0, 0], 0),
    ("getpid", libc::SYS_getpid, &[], 0),
    ("a user namespace", libc::SYS_unshare, &[NEW_USER], 1),
];

fn unconfined() -> Rights {
    Rights { seccomp: Seccomp::Unconfined, ..Rights::default() }
}

fn calls() -> Vec<String> {
    let call = |(_, number, arguments, _): &Call| {
        let numbers = std::iter::once(number).chain(*arguments);
        numbers.map(i64::to_string).collect::<Vec<_>>().join(",")
    };
    let head = words(&["perl", "-e", CALLS, "--"]);
    head.into_iter().chain(TABLE.iter().map(call)).collect()
}

fn dockers() -> String {
    let answers = TABLE.iter().map(|(_, _, _, answer)| answer.to_string());
    answers.collect::<Vec<_>>().join("\n")
}

/// Goal: the filter holds whatever way a process comes into the task. Method: one table of calls,
/// made by pid 1, by a child of the reaper, by `skein exec`, and by a health check.
#[tokio::test]
async fn calls_are_answered_as_under_dockers_default_profile() {
    let node = Node::new();
    for (task, init, user) in
        [("first", false, None), ("reaped", true, None), ("u", false, Some("1"))]
    {
        let mut spec = LaunchSpec::new(task, Root::Host, calls());
        (spec.init, spec.user) = (init, user.map(str::to_owned));
        let (exit, answers) = node.run(spec).await;
        assert_eq!((exit.code, answers), (0, dockers()), "{task}");
    }
    let mut spec = LaunchSpec::new("probed", Root::Host, words(&["sleep", "1000"]));
    let line = format!("test $(perl -e '{CALLS}' -- {},{NEW_USER}) = 1", libc::SYS_unshare);
    let mut check = HealthCheck::new(Probe::Shell(line));
    check.interval = Duration::from_millis(50);
    spec.health = Some(check);
    let handle = node.start(spec).await;
    pid(&handle).await;
    let calls = calls();
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    let ran = rest(&mut handle.exec(&calls).await.unwrap()).await;
    assert_eq!(ran.stdout.trim(), dockers());
    until(&handle, |report| {
        report.health.as_ref().is_some_and(|health| health.state == HealthState::Healthy)
    })
    .await;
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
}

/// Goal: an unconfined task has no filter, and the table above says something. Method: calls that
/// any kernel answers otherwise, and a user namespace.
#[tokio::test]
async fn an_unconfined_task_may_make_all_calls() {
    let node = Node::new();
    let mut spec = LaunchSpec::new("free", Root::Host, calls());
    // A clone would make a second process, which goes on with the list.
    spec.argv.retain(|word| !word.starts_with(&format!("{},", libc::SYS_clone)));
    spec.rights.seccomp = Seccomp::Unconfined;
    let (exit, answers) = node.run(spec).await;
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!((exit.code, answers.len()), (0, TABLE.len() - 1));
    let (clone3, keyctl, personality) = (answers[0], answers[1], answers[7]);
    assert!(clone3 != "38" && keyctl == "0" && personality == "0", "{answers:?}");
    let first = LaunchSpec::new("one", Root::Host, words(&["unshare", "-U", "echo", "made"]));
    let spec = LaunchSpec { rights: unconfined(), ..first.clone() };
    assert_eq!(node.run(spec).await.1, "made");
    let (exit, refused) = node.run(LaunchSpec { task: "two".to_owned(), ..first }).await;
    assert_eq!(
        (exit.code, refused.as_str()),
        (1, "unshare: unshare failed: Operation not permitted")
    );
}

/// Goal: the numbering of another architecture is no way around the list. Method: a program of a
/// few instructions that asks for its pid by `int 0x80`, then ends with status 0.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn calls_in_the_numbering_of_another_architecture_end_the_task() {
    let node = Node::new();
    let root = node.directory.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(
        root.join("program"),
        elf(&[
            0xb8, 20, 0, 0, 0, 0xcd, 0x80, // mov eax, 20; int 0x80
            0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05, // xor edi, edi; mov eax, 60; syscall
        ]),
    )
    .unwrap();
    fs::set_permissions(root.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let spec = LaunchSpec::new("old", Root::Directory(root), words(&["/program"]));
    let (exit, _) = node.run(LaunchSpec { rights: unconfined(), ..spec.clone() }).await;
    assert_eq!(exit.code, 0);
    let (exit, _) = node.run(LaunchSpec { task: "other".to_owned(), ..spec }).await;
    assert_eq!(exit.signal, Some(libc::SIGSYS));
}

/// The smallest ELF file: a header, one segment, the code (elf(5)).
#[cfg(target_arch = "x86_64")]
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 120;
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0");
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// Goal: ordinary programs notice nothing. Method: pipes, forks, threads (for which `clone3` is
/// asked first), files and sockets of shells and tools.
#[tokio::test]
async fn ordinary_programs_run() {
    let node = Node::new();
    let line = "seq 200000 | sort -rn --parallel=2 -S 1M -T . | head -n 1; \
                bash -c 'exec 3<>/dev/udp/127.0.0.1/9; echo $((6*7))'; \
                perl -MIO::Socket::INET -e 'my $l = IO::Socket::INET->new(Listen => 1); \
                  print \"listens\\n\" if $l; print fork() ? wait() > 0 : exit 0' ; \
                mkdir d && mknod p p && chmod 700 d && chown 1:1 d && stat -c %u d && df . | wc -l";
    let spec = LaunchSpec::new("plain", Root::Host, words(&["sh", "-c", line]));
    let (exit, output) = node.run(spec).await;
    assert_eq!((exit.code, output.as_str()), (0, "200000\n42\nlistens\n11\n2"));
}
