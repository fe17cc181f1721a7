//! A manager whose disk is full acknowledges nothing that it cannot store, says so, and continues
//! as a worker; with room it is a manager again, with everything.

use std::fs;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lab::Lab;
use lab::cluster::text;
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::services::{make_network, processes, serve_client, serve_echo};
use lab::wait::now;
use serde_json::{Value, json};

use super::{SmallDisk, fill};
use crate::divergence::metric;
use crate::roles::{lead, leader};
use crate::stage::Stage;

const NODES: usize = 3;
const SOON: Duration = Duration::from_secs(30);
/// From the last answer of a leader whose disk is full to the first of the next: 1.1 s measured.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);
/// Pages of the log that are free are written still when the disk takes nothing new.
const WRITES_MAX: usize = 300;
/// Most of what the spec of a network may be.
const LABEL_BYTES: usize = 50 << 10;

const CHECKS: &[Check] = &[
    ("services answer", serve),
    ("a manager with a full disk stores nothing, says so, and its tasks answer", follower_full),
    ("started again it is as it was", restart_full),
    ("with room it has everything", recovered),
    ("a leader with a full disk is replaced, and all that was acknowledged is there", leader_full),
    ("with room that one has everything", recovered),
];

/// Goal: a full disk costs one vote, and no data and no task. Method: data directories are small
/// file systems; one of them is filled while clients write.
#[test]
fn a_manager_with_a_full_disk_goes_on_as_a_worker() {
    let mut stage = Stage::empty("full", NODES);
    let disk = |node: &lab::Node| SmallDisk::new(&node.data_dir(), "24m");
    let disks: Result<Vec<SmallDisk>> = stage.lab.nodes.iter().map(disk).collect();
    let _disks = disks.expect("file systems");
    stage.lab.make_cluster(NODES).unwrap_or_else(|error| panic!("{error:#}"));
    stage.check(CHECKS);
}

fn serve(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client(lab)?;
    serve_echo(lab, NODES)?;
    wait_all_answer(lab, NODES, NODES)
}

fn filler(lab: &Lab, index: usize) -> PathBuf {
    lab.nodes[index].data_dir().join("filler")
}

/// The one whose disk is full.
fn filled(lab: &Lab) -> Result<usize> {
    (0..NODES).find(|index| filler(lab, *index).exists()).context("no disk is full")
}

fn is_out(lab: &Lab, index: usize) -> Result<bool> {
    Ok(metric(lab, index, "skein_manager_disk_full")? == 1)
}

/// Asks the first node for a network that takes room in the log; false if it is refused.
fn write(lab: &Lab, name: &str) -> Result<bool> {
    let labels = json!({"filling": "x".repeat(LABEL_BYTES)});
    let spec = json!({"Name": name, "Driver": "overlay", "Labels": labels});
    let answer = lab.nodes[0].request("POST", "/networks/create", &spec)?;
    Ok((200..300).contains(&answer.status))
}

/// Every acknowledged network is on this manager's own state.
fn has_all(lab: &Lab, index: usize, names: &[String]) -> Result<()> {
    let listed = lab.nodes[index].get("/networks?consistency=stale")?.to_string();
    let lacking = names.iter().filter(|name| !listed.contains(&format!("\"{name}\"")));
    let lacking: Vec<&String> = lacking.collect();
    ensure!(lacking.is_empty(), "{} lacks {lacking:?}", lab.nodes[index].name);
    Ok(())
}

/// Which names were acknowledged, kept for the checks that follow.
fn kept(lab: &Lab) -> PathBuf {
    lab.folder().join("acknowledged.json")
}

fn acknowledged(lab: &Lab) -> Result<Vec<String>> {
    let text = fs::read(kept(lab)).unwrap_or_else(|_none_yet| b"[]".to_vec());
    Ok(serde_json::from_slice(&text)?)
}

fn keep(lab: &Lab, more: Vec<String>) -> Result<()> {
    let all = [acknowledged(lab)?, more].concat();
    Ok(fs::write(kept(lab), serde_json::to_vec(&all)?)?)
}

/// Fills a manager's disk, and writes until it has stopped being one. Gives the longest time
/// without an acknowledgement.
fn write_until_out(lab: &Lab, index: usize, what: &str) -> Result<Duration> {
    fill(&filler(lab, index))?;
    let (mut names, mut longest, mut last): (Vec<String>, _, Instant) =
        (Vec::new(), Duration::ZERO, now());
    let mut after = 0;
    for number in 0..WRITES_MAX {
        let name = format!("{what}-{number}");
        if write(lab, &name)? {
            names.push(name);
            longest = longest.max(last.elapsed());
            last = now();
            after += usize::from(is_out(lab, index)?);
        }
        // Others acknowledge without it.
        if after >= 3 {
            keep(lab, names)?;
            return Ok(longest);
        }
        ensure!(last.elapsed() < SOON, "nothing is acknowledged: {}", lab.nodes[0].log_tail());
    }
    bail!("{WRITES_MAX} writes, and the disk takes all\n{}", lab.nodes[index].log_tail())
}

/// It says what is wrong, refuses what a manager is asked, and is a worker like others.
fn is_worker_that_says_so(lab: &Lab, index: usize) -> Result<()> {
    let node = &lab.nodes[index];
    let said = node.skein(&["doctor"])?;
    let line = "BAD  this manager has no vote until its disk has room";
    ensure!(said.status == 1 && said.stdout.contains(line), "{said}");
    ensure!(node.log().contains("the disk of this manager is full"), "{}", node.log_tail());
    let refused = node.docker(&["node", "ls"])?.refused()?;
    ensure!(refused.contains("the disk of this manager is full"), "{refused}");
    let listed = lab.nodes[0].get(&format!("/nodes/{}", node.name))?;
    ensure!(text(&listed["Status"]["State"]) == "ready", "{listed}");
    wait_all_answer(lab, NODES, NODES)
}

fn follower_full(lab: &mut Lab) -> Result<()> {
    let leads = leader(lab, 0)?;
    let hurt = (1..NODES).find(|index| *index != leads).context("all lead")?;
    let before = processes(lab)?;
    write_until_out(lab, hurt, "one")?;
    is_worker_that_says_so(lab, hurt)?;
    ensure!(processes(lab)? == before, "tasks were touched");
    Ok(())
}

fn restart_full(lab: &mut Lab) -> Result<()> {
    let hurt = filled(lab)?;
    let before = processes(lab)?;
    lab.nodes[hurt].kill_daemon()?;
    lab.nodes[hurt].start()?;
    lab.wait_nodes_ready(NODES)?;
    let mut tried = 0;
    lab.wait_for(SOON, "it to find its disk full", || {
        // It may have come back with enough for a vote: more is written until it is not.
        tried += 1;
        let out = is_out(lab, hurt)?;
        ensure!(out || write(lab, &format!("again-{tried}"))?, "a write was refused");
        ensure!(out, "not yet");
        Ok(())
    })?;
    is_worker_that_says_so(lab, hurt)?;
    ensure!(processes(lab)? == before, "tasks were touched");
    Ok(())
}

fn recovered(lab: &mut Lab) -> Result<()> {
    let hurt = filled(lab)?;
    fs::remove_file(filler(lab, hurt))?;
    let names = acknowledged(lab)?;
    lab.wait_for(SOON, "it to be a manager with everything", || {
        ensure!(!is_out(lab, hurt)?, "its disk is full still");
        (0..NODES).try_for_each(|index| has_all(lab, index, &names))
    })?;
    let said = lab.nodes[hurt].skein(&["doctor"])?;
    ensure!(!said.stdout.contains("no vote"), "{said}");
    let log = lab.nodes[hurt].log();
    ensure!(!log.contains("damaged"), "{log}");
    // All three vote: each of the others may be lost.
    let written = lab.nodes[hurt].request("GET", "/networks", &Value::Null)?;
    ensure!(written.status == 200, "{}", written.text());
    wait_all_answer(lab, NODES, NODES)
}

fn leader_full(lab: &mut Lab) -> Result<()> {
    lead(lab, NODES, &[0, 1, 2], &[1, 2])?;
    let hurt = leader(lab, 0)?;
    let longest = write_until_out(lab, hurt, "two")?;
    writeln!(stdout(), "    (no write was acknowledged for {} ms)", longest.as_millis())?;
    ensure!(longest < TAKEOVER_MAX, "nothing was acknowledged for {longest:?}");
    ensure!(leader(lab, 0)? != hurt, "it leads still");
    is_worker_that_says_so(lab, hurt)
}
