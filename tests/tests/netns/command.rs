//! `skein-lab` as a person or a script uses it: each call a process of its own.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::lab::command::{Output, run, run_with_input};
use tests::lab::kinds::folder_of;
use tests::lab::sweep;

use crate::stage::turn;

const SKEIN_LAB: &str = env!("CARGO_BIN_EXE_skein-lab");
const NAME: &str = "labtest";
/// A lab whose name begins with the other one's.
const STRANGER: &str = "labtest-n1";
/// Enough for a cluster of two to come about on a busy machine.
const SECONDS: u32 = 120;

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
    let checks: [Check; 8] = [
        ("what a run left is removed by name, and no more", leftovers_are_removed),
        ("a lab that fails half-way leaves nothing", failing_up_leaves_nothing),
        ("up makes a cluster, and a second one is refused", up),
        ("exec passes input, output and status", exec),
        ("docker asks a node's daemon", docker),
        ("faults are made, shown and healed", faults),
        ("daemons and machines are broken and come back", nodes),
        ("down removes all, twice", down),
    ];
    for (name, check) in checks {
        check().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

fn lab(line: &str) -> Result<Output> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words = [SKEIN_LAB, command, "--name", NAME];
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
    for name in ["ip", "sh", "timeout", "unshare", "nft", "sysctl", "mount"] {
        let found =
            run(10, &["sh", "-c", &format!("PATH=$PATH:/usr/sbin:/sbin command -v {name}")])?;
        std::os::unix::fs::symlink(found.ok()?, folder.path().join(name))?;
    }
    let path = format!("PATH={}", folder.path().display());
    let words = ["env", &path, SKEIN_LAB, "up", "--name", NAME, "--nodes", "1"];
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
    let unknown = run(10, &[SKEIN_LAB, "fly"])?;
    ensure!(unknown.status == 2 && unknown.stderr.contains("\"fly\""), "{unknown}");
    let stranger = lab("logs node3")?.refused()?;
    ensure!(stranger.contains("node3") && stranger.contains("2 nodes"), "{stranger}");
    Ok(())
}

fn exec() -> Result<()> {
    let words = [SKEIN_LAB, "exec", "--name", NAME, "client", "--", "sh", "-c", "cat; exit 7"];
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
    ensure!(tests::lab::process::of_folder(&folder).is_empty(), "processes are left");
    ensure!(!Path::new("/etc/netns").join(format!("{NAME}-n1")).exists(), "files are left");
    lab("down")?.ok()?;
    let gone = lab("status")?.refused()?;
    ensure!(gone.contains(NAME) && gone.contains("skein-lab up"), "{gone}");
    Ok(())
}
