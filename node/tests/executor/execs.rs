//! What `Executor::exec` promises, tested on any implementation.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cluster::exec::{ExecEnd, ExecInput, ExecOutput, ExecSpec, INPUT_BYTES_MAX, WindowSize};
use cluster::rights::Capabilities;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skein::executor::exec::{CHUNK_BYTES_MAX, EXECS_PER_TASK_MAX, Exec, QUEUE};
use skein::executor::{Error, LaunchSpec, Launched, StartSpec};

use super::contract::{Contract, ended, reaches};
use super::node::{LIMIT, Node, eventually, exit, pid, shell, words};

/// `SIGKILL`.
const KILL: i32 = 9;
const TERM: u8 = 15;
/// A pipe's buffer (pipe(7)).
const PIPE_BYTES: usize = 64 << 10;
/// Whom a process is, what it may do, and where it is.
const CONFINEMENT: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/self/status; \
    for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; \
    cat /proc/self/limits /proc/self/cgroup; umask; pwd; stat -c %d:%i /; \
    tr '\\0' '\\n' </proc/self/environ | sort";

pub(crate) async fn contract(contract: &Contract<'_>) {
    let task = contract.start("execs", "echo ready; exec sleep 1000").await;
    reaches(&task, "running").await;
    // Its log shows that it is the program that it is to be.
    assert_eq!(contract.first_line("execs").await, "ready");
    let execs = Execs { contract, task };
    execs.streams_are_the_programs().await;
    execs.an_end_has_its_code_and_signal().await;
    execs.a_terminal_is_one().await;
    execs.output_without_a_reader_waits().await;
    execs.input_that_is_not_read_keeps_nothing_waiting().await;
    execs.a_program_ends_without_its_reader().await;
    execs.a_program_ends_with_its_task().await;
    there_are_only_so_many(contract).await;
    a_task_that_does_not_run_is_refused(contract).await;
    for (task, user) in [("as-root", None), ("as-user", Some("1:1"))] {
        a_program_may_do_what_its_task_may(contract, task, user).await;
    }
}

struct Execs<'a> {
    contract: &'a Contract<'a>,
    task: Launched,
}

/// A program with all streams.
pub(crate) fn spec(argv: &[&str]) -> ExecSpec {
    ExecSpec { argv: words(argv), stdin: true, stdout: true, stderr: true, ..ExecSpec::default() }
}

/// What a program has said, up to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) end: ExecEnd,
}

/// What it says, and not what it has taken.
async fn next(exec: &mut Exec) -> ExecOutput {
    loop {
        let said = tokio::time::timeout(LIMIT, exec.output.recv()).await;
        match said.expect("it says nothing").expect("its end is the last that it says") {
            ExecOutput::Taken(_) => {}
            said => return said,
        }
    }
}

pub(crate) async fn rest(exec: &mut Exec) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match next(exec).await {
            ExecOutput::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            ExecOutput::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            said @ ExecOutput::Taken(_) => panic!("{said:?} is not an output"),
            ExecOutput::Ended(end) => {
                assert!(exec.output.recv().await.is_none(), "more after its end");
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return Ran { stdout: text(stdout), stderr: text(stderr), end };
            }
        }
    }
}

/// Reads until the output ends with this.
async fn reads(exec: &mut Exec, wanted: &str) {
    let mut read = String::new();
    while !read.ends_with(wanted) {
        match next(exec).await {
            ExecOutput::Stdout(bytes) => read.push_str(std::str::from_utf8(&bytes).unwrap()),
            other => panic!("{other:?} after {read:?}"),
        }
    }
}

impl Execs<'_> {
    async fn exec(&self, spec: ExecSpec) -> Exec {
        (self.contract.daemon)().exec(&self.task.sandbox, spec).await.unwrap()
    }

    /// Runs it to its end, without input.
    async fn run(&self, spec: ExecSpec) -> Ran {
        let mut exec = self.exec(ExecSpec { stdin: false, ..spec }).await;
        rest(&mut exec).await
    }

    async fn streams_are_the_programs(&self) {
        let line = "cat; echo $A >&2; pwd; exit 3";
        let (env, dir) = (words(&["A=b"]), Some("/tmp".to_owned()));
        let mut exec = self.exec(ExecSpec { env, dir, ..spec(&["sh", "-c", line]) }).await;
        for part in ["ty", "ped\n"] {
            exec.input.send(ExecInput::Bytes(Bytes::from(part))).await.unwrap();
        }
        exec.input.send(ExecInput::End).await.unwrap();
        let end = ExecEnd { code: 3, signal: None, error: None };
        let expected = Ran { stdout: "typed\n/tmp\n".to_owned(), stderr: "b\n".to_owned(), end };
        assert_eq!(rest(&mut exec).await, expected);
        // What is not asked for is /dev/null, and a lost input has ended.
        let spec = ExecSpec { stderr: false, ..spec(&["sh", "-c", "cat; echo x >&2; echo end"]) };
        let ran = self.run(spec.clone()).await;
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("end\n", ""));
        let Exec { input, output } = self.exec(spec).await;
        let (closed, _) = tokio::sync::mpsc::channel(1);
        drop(input);
        assert_eq!(rest(&mut Exec { input: closed, output }).await.stdout, "end\n");
    }

    async fn an_end_has_its_code_and_signal(&self) {
        let ran = self.run(spec(&["nope"])).await;
        let error = "exec \"nope\": executable file not found in $PATH".to_owned();
        assert_eq!(ran.end, ExecEnd::failed(127, error));
        let ran = self.run(spec(&["/etc/passwd"])).await;
        assert_eq!(ran.end.code, 126);
        let ran = self.run(spec(&["sh", "-c", "kill -9 $$"])).await;
        assert_eq!(ran.end, ExecEnd { code: 137, signal: Some(KILL), error: None });
        let line = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
        let mut exec = self.exec(spec(&["sh", "-c", line])).await;
        reads(&mut exec, "ready\n").await;
        exec.input.send(ExecInput::End).await.unwrap();
        exec.input.send(ExecInput::Signal(TERM)).await.unwrap();
        assert_eq!(rest(&mut exec).await.end.code, 9);
        let none = (self.contract.daemon)().exec(&self.task.sandbox, spec(&[])).await;
        assert!(matches!(none, Err(Error::Rejected { .. })), "{none:?}");
        // All that it has written is there, and one that stays behind keeps nobody waiting.
        let line = "head -c 60000 /dev/zero; sleep 1000 & exit 4";
        let ran = self.run(spec(&["sh", "-c", line])).await;
        assert_eq!((ran.stdout.len(), ran.end.code), (60_000, 4));
    }

    async fn a_terminal_is_one(&self) {
        let line = "test -t 0 && test -t 1 && test -t 2 && tty >&2; echo $TERM; stty size; \
                    read x; stty size; cat; exit 5";
        let terminal = Some(WindowSize { rows: 24, columns: 80 });
        let mut exec = self.exec(ExecSpec { terminal, ..spec(&["sh", "-c", line]) }).await;
        reads(&mut exec, "24 80\r\n").await;
        let size = WindowSize { rows: 50, columns: 300 };
        exec.input.send(ExecInput::Resize(size)).await.unwrap();
        exec.input.send(ExecInput::Bytes(Bytes::from_static(b"x\n"))).await.unwrap();
        reads(&mut exec, "50 300\r\n").await;
        exec.input.send(ExecInput::End).await.unwrap();
        assert_eq!(rest(&mut exec).await.end.code, 5);
        let line = "tty; echo $TERM";
        let ran = self.run(ExecSpec { terminal, ..spec(&["sh", "-c", line]) }).await;
        assert_eq!((ran.stdout.as_str(), ran.end.code), ("/dev/pts/0\r\nxterm\r\n", 0));
        // Its key for interrupts is one.
        let mut exec =
            self.exec(ExecSpec { terminal, ..spec(&["sh", "-c", "echo r; exec cat"]) }).await;
        reads(&mut exec, "r\r\n").await;
        exec.input.send(ExecInput::Bytes(Bytes::from_static(b"\x03"))).await.unwrap();
        assert_eq!(rest(&mut exec).await.end.signal, Some(2));
    }

    /// Goal: what a program writes that nobody reads stays in the program. Method: it counts its
    /// pieces in a file; the count stands still far below the whole, and then all of it is read.
    async fn output_without_a_reader_waits(&self) {
        const PIECES: usize = 256;
        const PIECE_BYTES: usize = 4096;
        let line = format!(
            "i=0; while [ $i -lt {PIECES} ]; do head -c {PIECE_BYTES} /dev/zero; i=$((i+1)); \
             echo $i >/tmp/pieces; done"
        );
        let mut exec = self.exec(spec(&["sh", "-c", &line])).await;
        let count = async || {
            let ran = self.run(spec(&["cat", "/tmp/pieces"])).await;
            ran.stdout.trim().parse::<usize>().unwrap_or_default()
        };
        let mut last = 0;
        eventually("it stands still", async || {
            let (before, now) = (last, count().await);
            last = now;
            now > 0 && before == now && exec.output.len() == QUEUE
        })
        .await;
        // One more is in the hands of the task that copies.
        let held = (QUEUE + 1) * CHUNK_BYTES_MAX + PIPE_BYTES + PIECE_BYTES;
        assert!(last * PIECE_BYTES <= held, "{last} pieces");
        assert_eq!(rest(&mut exec).await.stdout.len(), PIECES * PIECE_BYTES);
    }

    /// Goal: a user knows how much was taken, and signals overtake what was not; who sends too much
    /// is hung up on.
    async fn input_that_is_not_read_keeps_nothing_waiting(&self) {
        let piece = Bytes::from(vec![0; INPUT_BYTES_MAX / 4]);
        let mut exec = self.exec(spec(&["sleep", "1000"])).await;
        for _ in 0..4 {
            exec.input.send(ExecInput::Bytes(piece.clone())).await.unwrap();
        }
        let mut taken = 0;
        while taken < PIPE_BYTES {
            match tokio::time::timeout(LIMIT, exec.output.recv()).await.unwrap() {
                Some(ExecOutput::Taken(bytes)) => taken += bytes as usize,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(taken, PIPE_BYTES, "nobody reads the pipe");
        exec.input.send(ExecInput::Signal(TERM)).await.unwrap();
        assert_eq!(rest(&mut exec).await.end.signal, Some(TERM.into()));
        let mut greedy = self.exec(spec(&["sleep", "1000"])).await;
        let sent =
            async { while greedy.input.send(ExecInput::Bytes(piece.clone())).await.is_ok() {} };
        tokio::time::timeout(LIMIT, sent).await.expect("it may send without end");
        while let Some(said) = tokio::time::timeout(LIMIT, greedy.output.recv()).await.unwrap() {
            assert!(matches!(said, ExecOutput::Taken(_)), "{said:?}");
        }
    }

    async fn a_program_ends_without_its_reader(&self) {
        let mut exec = self.exec(spec(&["sh", "-c", "echo $$; exec sleep 1000"])).await;
        let ExecOutput::Stdout(pid) = next(&mut exec).await else { panic!("no pid") };
        let pid = String::from_utf8(pid.to_vec()).unwrap();
        let lives = async || self.run(spec(&["kill", "-0", pid.trim()])).await.end.code == 0;
        assert!(lives().await);
        drop(exec);
        eventually("it is killed", async || !lives().await).await;
    }

    async fn a_program_ends_with_its_task(&self) {
        let mut exec = self.exec(spec(&["sh", "-c", "echo ready; exec sleep 1000"])).await;
        reads(&mut exec, "ready\n").await;
        let (daemon, sandbox) = ((self.contract.daemon)(), &self.task.sandbox);
        daemon.stop(sandbox, Some(KILL), Some(Duration::ZERO)).await.unwrap();
        let end = ExecEnd { code: 137, signal: Some(KILL), error: None };
        assert_eq!(rest(&mut exec).await.end, end);
        ended(&self.task).await;
        let refused = daemon.exec(sandbox, spec(&["true"])).await;
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        self.contract.release(sandbox).await;
    }
}

async fn there_are_only_so_many(contract: &Contract<'_>) {
    let launched = contract.start("crowded", "exec sleep 1000").await;
    reaches(&launched, "running").await;
    let (daemon, sandbox) = ((contract.daemon)(), &launched.sandbox);
    let mut all = Vec::new();
    for _ in 0..EXECS_PER_TASK_MAX {
        all.push(daemon.exec(sandbox, spec(&["sleep", "1000"])).await.unwrap());
    }
    let one_more = async || daemon.exec(sandbox, spec(&["true"])).await;
    let refused = one_more().await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    all.pop();
    eventually("there is room again", async || one_more().await.is_ok()).await;
    daemon.stop(sandbox, Some(KILL), Some(Duration::ZERO)).await.unwrap();
    ended(&launched).await;
    contract.release(sandbox).await;
}

/// What `/proc/PID/status` says of a set of capabilities.
fn capabilities<'a>(status: &'a str, set: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(set))
}

async fn a_task_that_does_not_run_is_refused(contract: &Contract<'_>) {
    let launched = contract.launch("waits", "exec sleep 1000").await;
    let (daemon, sandbox) = ((contract.daemon)(), &launched.sandbox);
    let refused = daemon.exec(sandbox, spec(&["true"])).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    daemon.stop(sandbox, None, None).await.unwrap();
    ended(&launched).await;
    contract.release(sandbox).await;
}

/// Goal: a program has no more than its task, and no less. Method: both run one script that prints
/// what the kernel knows of them.
async fn a_program_may_do_what_its_task_may(
    contract: &Contract<'_>,
    task: &str,
    user: Option<&str>,
) {
    let line = format!("({CONFINEMENT}); echo ready; exec sleep 1000");
    let mut launch = LaunchSpec { env: words(&["A=b c"]), ..shell(task, &line) };
    launch.user = user.map(str::to_owned);
    launch.groups = words(&["7"]);
    launch.rights.capabilities = Capabilities::of(&[], &words(&["CHOWN"])).unwrap();
    launch.dir = Some("/tmp".to_owned());
    let sandbox = contract.supervisors.make(task).await.unwrap();
    let daemon = (contract.daemon)();
    let launched = daemon.launch(launch, &sandbox).await.unwrap();
    daemon.start(&sandbox, StartSpec::default()).await.unwrap();
    reaches(&launched, "running").await;
    let mut tasks = Vec::new();
    eventually("the task has said all", async || {
        tasks = contract.lines(task).await;
        tasks.pop().is_some_and(|last| last == "ready")
    })
    .await;
    let line = format!("({CONFINEMENT})");
    let program = ExecSpec { stdin: false, ..spec(&["sh", "-c", &line]) };
    let ran = rest(&mut daemon.exec(&sandbox, program.clone()).await.unwrap()).await;
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), tasks, "{}", ran.stderr);
    assert!(tasks.iter().any(|line| line == "NoNewPrivs:\t1"), "{tasks:?}");
    // Another user has what the task's spec gives it.
    let other = ExecSpec { user: Some("0".to_owned()), ..program };
    let ran = rest(&mut daemon.exec(&sandbox, other).await.unwrap()).await;
    let tasks = tasks.join("\n");
    let bounds = capabilities(&tasks, "CapBnd:");
    assert!(bounds.is_some(), "{tasks}");
    assert_eq!(capabilities(&ran.stdout, "CapBnd:"), bounds);
    assert_eq!(capabilities(&ran.stdout, "CapEff:"), bounds);
    daemon.stop(&sandbox, Some(KILL), Some(Duration::ZERO)).await.unwrap();
    ended(&launched).await;
    contract.release(&sandbox).await;
}

/// Goal: a program does not outlive the process that watches it, as nobody could end it then.
/// Method: that process is killed; the task's own /proc shows what is left.
#[tokio::test]
async fn a_program_ends_with_the_process_that_watches_it() {
    let node = Node::new();
    let handle = node.start(shell("watched", "exec tail -f /dev/null")).await;
    pid(&handle).await;
    let mut exec = handle.exec(&["sh", "-c", "echo ready; exec sleep 1000"]).await.unwrap();
    reads(&mut exec, "ready\n").await;
    let names = async || {
        let list = handle.exec(&["sh", "-c", "cat /proc/[0-9]*/comm"]).await.unwrap();
        rest(&mut { list }).await.stdout
    };
    assert!(names().await.contains("sleep\n"));
    kill(watcher(node.directory.path()), Signal::SIGKILL).unwrap();
    let end = rest(&mut exec).await.end;
    assert!(end.error.is_some_and(|error| error.contains("its end is not known")));
    eventually("the program has ended", async || {
        let names = names().await;
        assert!(names.contains("tail\n"), "the task itself: {names}");
        !names.contains("sleep\n")
    })
    .await;
    handle.kill().await.unwrap();
    exit(&handle).await;
    handle.release().await.unwrap();
}

/// The process that watches a program in a task whose files are below `directory`.
fn watcher(directory: &Path) -> Pid {
    let directory = directory.to_string_lossy();
    let is_it = |process: &Path| {
        let line = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        line.contains("exec-task") && line.contains(&*directory)
    };
    let mut found = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let process = found.find(|path| is_it(path)).expect("nobody watches it");
    Pid::from_raw(process.file_name().unwrap().to_str().unwrap().parse().unwrap())
}
