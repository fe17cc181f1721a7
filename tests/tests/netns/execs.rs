//! `skein task exec`: programs in tasks of any node, over streams between nodes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::Task;
use lab::scenario::Check;
use lab::scenario::services::{make_network, serve};

use crate::stage::Stage;

/// A manager and two workers.
const NODES: usize = 3;
const SOON: Duration = Duration::from_secs(20);
const COMMAND_SECONDS: u32 = 30;
/// Of `skein task exec` where the end of the program is not known.
const CODE_UNKNOWN: i32 = 128;

const CHECKS: &[Check] = &[
    ("a task runs on each node", start),
    ("a manager runs programs in tasks of all nodes", any_node),
    ("a worker runs programs in its own tasks", own_tasks),
    ("input and output are whole", whole),
    ("signals reach the program", signals),
    ("a terminal has the size of the caller's", terminal),
    ("output that nobody reads holds no other program up", unread),
    ("input that nobody reads holds no other program up", untaken),
    ("a program ends with its caller", ends_with_caller),
    ("the caller learns of a daemon that was lost, and its program has ended", lost_daemon),
];

/// Goal: a program in a task of another node is as one that runs here. Method: the built client,
/// and what the processes of the task's node show.
#[test]
fn programs_run_in_tasks_of_all_nodes() {
    let mut stage = Stage::cluster("execs", NODES, 1);
    stage.check(CHECKS);
}

fn start(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    let program = ["tail", "-f", "/dev/null"];
    serve(lab, "idle", &["--mode", "global", "--env", "MARK=here"], &program, NODES)?;
    Ok(())
}

fn task(lab: &Lab, node: usize) -> Result<Task> {
    let tasks = lab.running(0, "idle")?.into_iter();
    tasks.into_iter().find(|task| task.node == node).with_context(|| format!("none on {node}"))
}

/// `skein task exec`, as words.
fn line(lab: &Lab, asked: usize, flags: &[&str], task: &Task, words: &[&str]) -> Result<String> {
    let node = &lab.nodes[asked];
    let (own, url) = (node.program("skein")?, node.url());
    let line = [&[own.as_str(), "-H", &url, "task", "exec"], flags, &[&task.id], words];
    Ok(line.concat().iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "))
}

/// Runs it on the node that is asked, with its output to be read.
fn spawn(lab: &Lab, flags: &[&str], task: &Task, words: &[&str]) -> Result<Child> {
    let line =
        lab.nodes[0].line(&["sh", "-c", &format!("exec {}", line(lab, 0, flags, task, words)?)]);
    let mut command = Command::new(&line[0]);
    let input = if flags.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.args(&line[1..]).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("starting skein task exec")
}

/// Reads one line of what it writes.
fn says(child: &mut Child, wanted: &str) -> Result<()> {
    let mut read = String::new();
    let stdout = child.stdout.as_mut().context("no output")?;
    // One line is less than a buffer, and nothing comes after it.
    BufReader::new(stdout).read_line(&mut read)?;
    ensure!(read.trim_end() == wanted, "{read:?}");
    Ok(())
}

/// Processor time of each process of this name in a task, as the task's own /proc has it.
fn processes(lab: &Lab, task: &Task, name: &str) -> Result<Vec<u64>> {
    let told = lab.nodes[task.node].exec(&task.id, &["sh", "-c", "cat /proc/[0-9]*/stat"])?;
    ensure!(told.ok()?.contains("(tail) "), "its own program is not among them: {told}");
    let mark = format!("({name}) ");
    let times = told.stdout.lines().filter_map(|line| line.split_once(&mark)).map(|(_, rest)| {
        // utime and stime, 14th and 15th field (proc_pid_stat(5)); the rest begins at the third.
        rest.split(' ').skip(11).take(2).flat_map(str::parse::<u64>).sum()
    });
    Ok(times.collect())
}

fn any_node(lab: &mut Lab) -> Result<()> {
    let line = "echo $MARK $HOSTNAME; echo complaint >&2; exit 7";
    for node in 0..NODES {
        let task = task(lab, node)?;
        let ran = lab.nodes[0].exec(&task.id, &["sh", "-c", line])?;
        ensure!(ran.status == 7 && ran.stderr == "complaint\n", "{ran}");
        let host: String = task.id.chars().take(12).collect();
        ensure!(ran.stdout == format!("here {host}\n"), "{ran}");
        let absent = lab.nodes[0].exec(&task.id, &["nope"])?;
        let why = "skein: exec \"nope\": executable file not found in $PATH\n";
        ensure!(absent.status == 127 && absent.stderr == why, "{absent}");
    }
    let refused = lab.nodes[0].exec("nope", &["true"])?.refused()?;
    ensure!(refused.contains("nope"), "{refused}");
    Ok(())
}

fn own_tasks(lab: &mut Lab) -> Result<()> {
    let (own, other) = (task(lab, 1)?, task(lab, 2)?);
    let told = lab.nodes[1].exec(&own.id, &["echo", "here"])?.ok()?;
    ensure!(told == "here", "{told}");
    let refused = lab.nodes[1].exec(&other.id, &["true"])?.refused()?;
    ensure!(refused.contains("ask a manager"), "{refused}");
    Ok(())
}

/// More than all buffers on the way.
fn whole(lab: &mut Lab) -> Result<()> {
    let task = task(lab, 1)?;
    let cat = line(lab, 0, &["-i"], &task, &["cat"])?;
    let folder = lab.nodes[0].folder()?.display().to_string();
    let script = format!(
        "cd {folder}; head -c 16777216 /dev/urandom >sent; {cat} <sent >came && cmp sent came"
    );
    lab.nodes[0].run(COMMAND_SECONDS, &["sh", "-c", &script])?.ok()?;
    Ok(())
}

fn signals(lab: &mut Lab) -> Result<()> {
    let trap = "trap \"exit 9\" TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = spawn(lab, &[], &task(lab, 1)?, &["sh", "-c", trap])?;
    says(&mut child, "ready")?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let status = child.wait()?;
    ensure!(status.code() == Some(9), "{status}");
    Ok(())
}

fn terminal(lab: &mut Lab) -> Result<()> {
    let exec = line(lab, 0, &["-it"], &task(lab, 1)?, &["sh", "-c", "tty; stty size; exit 6"])?;
    let inner = format!("stty rows 33 cols 99; exec {exec}");
    let words = ["script", "--quiet", "--return", "--command", &inner, "/dev/null"];
    let ran = lab.nodes[0].run(COMMAND_SECONDS, &words)?;
    ensure!(ran.status == 6, "{ran}");
    ensure!(ran.stdout.replace('\r', "").contains("/dev/pts/0\n33 99\n"), "{ran}");
    let refused = lab.nodes[0]
        .run(COMMAND_SECONDS, &["sh", "-c", &line(lab, 0, &["-it"], &task(lab, 1)?, &["true"])?])?;
    ensure!(refused.refused()?.contains("standard input is no terminal"), "{refused}");
    Ok(())
}

/// Goal: programs whose output fills all buffers on the way leave room for others on the same
/// connection. Method: their processor time stands still, and then others run.
fn unread(lab: &mut Lab) -> Result<()> {
    const STALLED: usize = 12;
    let task = task(lab, 1)?;
    let mut all = Vec::new();
    for _ in 0..STALLED {
        all.push(spawn(lab, &[], &task, &["yes"])?);
    }
    let mut last = Vec::new();
    lab.wait_for(SOON, "all of them to stand still", || {
        let now = processes(lab, &task, "yes")?;
        let before = std::mem::replace(&mut last, now);
        ensure!(last.len() == STALLED && before == last, "{before:?}, then {last:?}");
        Ok(())
    })?;
    let told = lab.nodes[0].exec(&task.id, &["echo", "here"])?.ok()?;
    ensure!(told == "here", "{told}");
    for child in &mut all {
        let mut some = vec![0; 1 << 20];
        child.stdout.as_mut().context("no output")?.read_exact(&mut some)?;
        ensure!(some.chunks(2).all(|line| line == b"y\n"), "other output");
    }
    for mut child in all {
        child.kill()?;
        child.wait()?;
    }
    gone(lab, &task, "yes")
}

/// The same of programs that do not read their input. What is taken of it is limited.
fn untaken(lab: &mut Lab) -> Result<()> {
    const STALLED: usize = 12;
    const TAKEN_MAX: usize = 1 << 20;
    let task = task(lab, 1)?;
    let mut all = Vec::new();
    for _ in 0..STALLED {
        let mut child = spawn(lab, &["-i"], &task, &["sh", "-c", "echo ready; exec sleep 1000"])?;
        says(&mut child, "ready")?;
        let mut stdin = child.stdin.take().context("no input")?;
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        // Ends with the child.
        thread::spawn(move || {
            while let Ok(bytes) = stdin.write(&[0; 4096]) {
                count.fetch_add(bytes, Ordering::Relaxed);
            }
        });
        all.push((child, taken));
    }
    let mut last = Vec::new();
    lab.wait_for(SOON, "all inputs to stand still", || {
        let now = all.iter().map(|(_, taken)| taken.load(Ordering::Relaxed)).collect();
        let before = std::mem::replace(&mut last, now);
        ensure!(before == last && last.iter().all(|taken| *taken > 0), "{before:?}, then {last:?}");
        Ok(())
    })?;
    ensure!(last.iter().all(|taken| *taken <= TAKEN_MAX), "{last:?}");
    let told = lab.nodes[0].exec(&task.id, &["echo", "here"])?.ok()?;
    ensure!(told == "here", "{told}");
    for (mut child, _) in all {
        child.kill()?;
        child.wait()?;
    }
    gone(lab, &task, "sleep")
}

fn gone(lab: &Lab, task: &Task, name: &str) -> Result<()> {
    lab.wait_for(SOON, "the program to end", || {
        let left = processes(lab, task, name)?;
        ensure!(left.is_empty(), "{} of {name} are left", left.len());
        Ok(())
    })
}

fn ends_with_caller(lab: &mut Lab) -> Result<()> {
    let task = task(lab, 2)?;
    let mut child = spawn(lab, &[], &task, &["sh", "-c", "echo ready; exec sleep 1000"])?;
    says(&mut child, "ready")?;
    ensure!(processes(lab, &task, "sleep")?.len() == 1, "it does not run");
    child.kill()?;
    child.wait()?;
    gone(lab, &task, "sleep")
}

fn lost_daemon(lab: &mut Lab) -> Result<()> {
    let task = task(lab, 2)?;
    let mut child = spawn(lab, &[], &task, &["sh", "-c", "echo ready; exec sleep 1000"])?;
    says(&mut child, "ready")?;
    lab.nodes[2].kill_daemon()?;
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(CODE_UNKNOWN), "{}: {told}", output.status);
    ensure!(told.contains("the program's end is not known"), "{told}");
    lab.nodes[2].start()?;
    gone(lab, &task, "sleep")
}
