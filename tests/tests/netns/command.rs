//! `skein-lab` as a user or a script runs it: each call is a separate process.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::command::{Output, run, run_with_input};
use lab::kinds::{TESTED_NAMES, folder_of};
use lab::process::of_folder;
use lab::wait::{now, wait_for};
use lab::{program, sweep};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stage::turn;

const NAME: &str = TESTED_NAMES[0];
/// A lab whose name starts with the name of the other.
const STRANGER: &str = TESTED_NAMES[1];
/// Enough to create a cluster of two on a busy machine.
const SECONDS: u32 = 120;

/// How long the beginning of a lab may take on a busy machine.
const BEGIN_MAX: Duration = Duration::from_secs(20);
/// How long a lab may take to go.
const DOWN_MAX: Duration = Duration::from_secs(3);
const NAMELESS: usize = 100;

/// One named check.
type Check = (&'static str, fn() -> Result<()>);

/// Removes what a check that failed has left.
struct Cleaner;

impl Drop for Cleaner {
    fn drop(&mut self) {
        for name in [NAME, STRANGER] {
            let swept = sweep(name, &folder_of(name));
            assert!(swept.is_ok() || std::thread::panicking(), "{swept:?}");
        }
    }
}

/// Goal: the command does what it says, and cleans up. Method: its calls, their output and status.
#[test]
fn command_makes_breaks_and_removes_a_lab() {
    let _turn = turn();
    let _cleaner = Cleaner;
    let checks: [Check; 11] = [
        ("the remains of a run are removed by name, and nothing else", leftovers_are_removed),
        ("a lab that fails half-way leaves nothing", failing_up_leaves_nothing),
        ("Ctrl-C at any time leaves nothing", interrupted_up_leaves_nothing),
        ("up makes a cluster, and a second one is refused", up),
        ("exec passes input, output and status", exec),
        ("docker asks a node's daemon", docker),
        ("faults are made, shown and healed", faults),
        ("daemons and machines are broken and come back", nodes),
        ("down removes all, twice", down),
        ("down is quick among processes without a command line", down_is_quick),
        ("down removes what it can and says what is left", down_says_what_is_left),
    ];
    for (name, check) in checks {
        check().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

fn skein_lab() -> Result<String> {
    Ok(program("skein-lab")?.to_string_lossy().into_owned())
}

fn lab(line: &str) -> Result<Output> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let own = skein_lab()?;
    let words = [own.as_str(), command, "--name", NAME];
    let words: Vec<&str> = words.into_iter().chain(rest.split_whitespace()).collect();
    run(SECONDS, &words)
}

fn namespaces() -> Result<Vec<String>> {
    let listed = run(10, &["ip", "netns", "list"])?.ok()?;
    let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    Ok(listed.lines().map(first).filter(|name| name.starts_with(NAME)).collect())
}

fn ensure_nothing_is_left() -> Result<()> {
    let left = namespaces()?;
    ensure!(left.is_empty() && !folder_of(NAME).exists(), "{left:?} and perhaps a folder are left");
    Ok(())
}

fn leftovers_are_removed() -> Result<()> {
    run(10, &["ip", "netns", "add", &format!("{STRANGER}-n1")])?.ok()?;
    run(10, &["ip", "netns", "add", &format!("{NAME}-n1")])?.ok()?;
    let refusal = lab("up --nodes 2")?.refused()?;
    ensure!(refusal.contains(&format!("{NAME}-n1")) && refusal.lines().count() == 1, "{refusal}");
    ensure!(!folder_of(NAME).exists(), "a refused lab has left its folder");
    lab("down")?.ok()?;
    ensure!(namespaces()? == [format!("{STRANGER}-n1")], "{:?}", namespaces()?);
    sweep(STRANGER, &folder_of(STRANGER))?;
    ensure_nothing_is_left()
}

/// Without docker's client the machines and daemons come up, but no cluster does.
fn failing_up_leaves_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["ip", "sh", "timeout", "unshare", "nft", "sysctl", "mount", "mkdir"] {
        let found =
            run(10, &["sh", "-c", &format!("PATH=$PATH:/usr/sbin:/sbin command -v {name}")])?;
        std::os::unix::fs::symlink(found.ok()?, folder.path().join(name))?;
    }
    let path = format!("PATH={}", folder.path().display());
    let words = ["env", &path, &skein_lab()?, "up", "--name", NAME, "--nodes", "1"];
    let refusal = run(SECONDS, &words)?.refused()?;
    ensure!(refusal.contains("docker"), "{refusal}");
    ensure_nothing_is_left()
}

fn up() -> Result<()> {
    let shown = lab("up --nodes 2")?.ok()?;
    for word in ["node1", "manager", "node2", "worker", "no faults", "offers: cut"] {
        ensure!(shown.contains(word), "{word}: {shown}");
    }
    let again = lab("up --nodes 2")?.refused()?;
    ensure!(again.contains("is there already") && again.contains(NAME), "{again}");
    let unknown = run(10, &[&skein_lab()?, "fly"])?;
    ensure!(unknown.status == 2 && unknown.stderr.contains("\"fly\""), "{unknown}");
    let stranger = lab("logs node3")?.refused()?;
    ensure!(stranger.contains("node3") && stranger.contains("2 nodes"), "{stranger}");
    Ok(())
}

fn exec() -> Result<()> {
    let words = [&skein_lab()?, "exec", "--name", NAME, "client", "--", "sh", "-c", "cat; exit 7"];
    let output = run_with_input(SECONDS, &words, "words")?;
    ensure!(output.stdout == "words" && output.status == 7, "{output}");
    let shown = lab("exec node2 ip -4 addr show eth0")?.ok()?;
    ensure!(shown.contains("192.168.50.12/24"), "{shown}");
    Ok(())
}

fn docker() -> Result<()> {
    let listed = lab("docker node1 -- node ls")?.ok()?;
    ensure!(listed.contains("node2") && listed.contains("Leader"), "{listed}");
    let refused = lab("docker node2 -- node ls")?;
    ensure!(refused.status == 1 && refused.stderr.contains("not a swarm manager"), "{refused}");
    Ok(())
}

fn faults() -> Result<()> {
    let ping = "exec client ping -q -c 2 -i 0.01 -W 0.5 192.168.50.11";
    lab(ping)?.ok()?;
    let shown = lab("cut node1 client --one-way")?.ok()?;
    ensure!(shown == "fault: node1 to client: cut", "{shown}");
    ensure!(lab(ping)?.status == 1, "an answer came through a cut");
    lab("delay 1 2 20 --spread 5")?.ok()?;
    lab("loss 2 client 50")?.ok()?;
    let shown = lab("status")?.ok()?;
    for fault in ["node1 to client: cut", "node2 to node1: delay of 20 to 25", "loss of 50 %"] {
        ensure!(shown.contains(fault), "{fault}: {shown}");
    }
    let shown = lab("heal node1 client")?.ok()?;
    ensure!(shown.lines().count() == 4, "{shown}");
    let shown = lab("heal")?.ok()?;
    ensure!(shown == "no faults", "{shown}");
    lab(ping)?.ok()?;
    let refused = lab("cut node1 node9")?.refused()?;
    ensure!(refused.contains("node9"), "{refused}");
    Ok(())
}

/// What `status` says of node2's daemon.
fn second() -> Result<String> {
    let shown = lab("status")?.ok()?;
    let row = shown.lines().find(|line| line.starts_with("node2")).context("a row of node2")?;
    Ok(row.to_owned())
}

fn nodes() -> Result<()> {
    for (line, then) in [
        ("pause node2", "does not answer"),
        ("resume node2", "worker"),
        ("stop node2", "does not run"),
        ("start node2", "worker"),
        ("kill --daemon node2", "does not run"),
        ("start node2", "worker"),
        ("kill node2", "does not run"),
        ("start node2", "worker"),
    ] {
        lab(line)?.ok()?;
        let row = second()?;
        ensure!(row.contains(then), "after {line}: {row}");
    }
    let refused = lab("start node2")?.refused()?;
    ensure!(refused.contains("runs already"), "{refused}");
    let log = lab("logs node2")?.ok()?;
    ensure!(log.contains("stopping"), "{log}");
    Ok(())
}

fn down() -> Result<()> {
    let folder = folder_of(NAME);
    // With a slow link, and without the record that tells what lab it is.
    lab("delay node1 node2 10")?.ok()?;
    std::fs::remove_file(folder.join("lab.json"))?;
    lab("down")?.ok()?;
    ensure_nothing_is_left()?;
    ensure!(of_folder(&folder).is_empty(), "processes are left");
    ensure!(!Path::new("/etc/netns").join(format!("{NAME}-n1")).exists(), "files are left");
    lab("down")?.ok()?;
    let gone = lab("status")?.refused()?;
    ensure!(gone.contains(NAME) && gone.contains("skein-lab up"), "{gone}");
    Ok(())
}

/// A name, what is sent then, and whether it has come.
type Moment<'a> = (&'static str, Signal, &'a dyn Fn() -> Result<bool>);

/// A signal once the folder is there, one in the middle of the wires, one while daemons start.
fn interrupted_up_leaves_nothing() -> Result<()> {
    let whole = |count: usize| move || Ok(namespaces()?.len() >= count);
    let daemon = || Ok(!of_folder(&folder_of(NAME).join("n1")).is_empty());
    let moments: [Moment<'_>; 4] = [
        ("a folder", Signal::SIGINT, &|| Ok(folder_of(NAME).exists())),
        ("two namespaces", Signal::SIGTERM, &whole(2)),
        ("all namespaces", Signal::SIGHUP, &whole(5)),
        ("a daemon", Signal::SIGINT, &daemon),
    ];
    for (what, signal, has_come) in moments {
        let own = skein_lab()?;
        let words = ["up", "--name", NAME, "--nodes", "3"];
        let mut child = std::process::Command::new(own).args(words).spawn()?;
        let reached = wait_for(BEGIN_MAX, what, || {
            ensure!(has_come()?, "not yet");
            Ok(())
        });
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let status = child.wait()?;
        reached?;
        ensure!(status.code() == Some(128 + signal as i32), "{signal} after {what}: {status}");
        ensure_nothing_is_left().with_context(|| format!("{signal} after {what}"))?;
    }
    Ok(())
}

/// A hundred processes without a command line, as user-mode Linux has.
fn down_is_quick() -> Result<()> {
    let probe = program("skein-lab-probe")?;
    let mut nameless = BlankProcesses::default();
    for _ in 0..NAMELESS {
        let mut command = std::process::Command::new(&probe);
        command.arg("nameless").stdin(Stdio::piped()).stdout(Stdio::piped());
        nameless.0.push(command.spawn()?);
    }
    for child in &mut nameless.0 {
        let mut word = String::new();
        let output = child.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut word)?;
        ensure!(word.trim() == "nameless", "{word:?}");
        let line = std::fs::read(format!("/proc/{}/cmdline", child.id()))?;
        ensure!(line.is_empty(), "it has a command line: {line:?}");
    }
    lab("up --nodes 3")?.ok()?;
    let begin = now();
    lab("down")?.ok()?;
    let took = begin.elapsed();
    ensure!(took < DOWN_MAX, "down took {took:.1?} with {NAMELESS} nameless processes");
    ensure_nothing_is_left()
}

/// A file that cannot be removed: all else goes, and it is named.
fn down_says_what_is_left() -> Result<()> {
    lab("up --nodes 1 --no-cluster")?.ok()?;
    let folder = folder_of(NAME);
    let (kept, mounted) = (folder.join("kept"), folder.join("n1/mounted"));
    std::fs::write(&kept, "")?;
    run(10, &["chattr", "+i", &kept.to_string_lossy()])?.ok()?;
    std::fs::create_dir(&mounted)?;
    run(10, &["mount", "-t", "tmpfs", "none", &mounted.to_string_lossy()])?.ok()?;
    let said = lab("down").and_then(|output| output.refused());
    run(10, &["chattr", "-i", &kept.to_string_lossy()])?.ok()?;
    let said = said?;
    ensure!(said.contains(&*kept.to_string_lossy()) && said.lines().count() == 1, "{said}");
    let left: Vec<_> = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
    ensure!(left == [kept] && namespaces()?.is_empty(), "more is left: {left:?}");
    ensure!(of_folder(&folder).is_empty(), "processes are left");
    lab("down")?.ok()?;
    ensure_nothing_is_left()
}

/// Processes that end with this value.
#[derive(Default)]
struct BlankProcesses(Vec<Child>);

impl Drop for BlankProcesses {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Their input ends, and so do they.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
