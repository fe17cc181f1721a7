//! Two versions of Skein side by side: real daemons, some of which read one more schema.
//!
//! The newer version is a copy of this build's program with one changed number: the newest schema
//! that it reads.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster::object::newest_schema;
use lab::Lab;
use lab::cluster::text;
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::restart::Traffic;
use lab::scenario::services::{make_network, processes, serve_client, serve_echo};
use lab::wait::wait_for;
use serde_json::Value;

use crate::adversary::wait_down;
use crate::divergence::metric;
use crate::roles::lead;
use crate::stage::Stage;

const NODES: usize = 5;
const MANAGERS: [usize; 3] = [0, 1, 3];
/// The manager that is of the old version once more.
const BACK: usize = 3;
/// The worker that is replaced last. Traffic goes from the second manager to it.
const WORKER: usize = 2;
/// A worker that is away while the schema is raised.
const AWAY: usize = 4;
const SOON: Duration = Duration::from_secs(30);
/// What the program has before the number (`NEWEST_SCHEMA` of crate `cluster`).
const MARK: &[u8] = b"Skein reads up to schema \0\0";

const CHECKS: &[Check] = &[
    ("a network is made", make_network),
    ("services run", serve),
    ("managers are replaced while either version leads, and no packet is lost", replace_managers),
    ("the last node that is replaced raises the schema", raise),
    ("a manager of the old version stops at the newer entry, and its tasks go on", stop_at_entry),
    ("started again it refuses, and what it had is whole", refuse_log),
    ("a worker of the old version refuses, and no packet is lost", refuse_assignment),
    ("one that has heard of nothing goes on with what it was told", hear_nothing),
    ("no node of the old version is admitted", refuse_join),
];

/// Goal: a cluster of versions n and n+1 works, and nobody reads in part what a newer version
/// writes. Method: each node in turn becomes a program that reads one schema more, during writes
/// and traffic; then nodes go back.
#[test]
fn two_versions_run_side_by_side() {
    let mut stage = Stage::empty("versions", NODES);
    found(&mut stage.lab).unwrap_or_else(|error| panic!("{error:#}"));
    stage.check(CHECKS);
}

fn found(lab: &mut Lab) -> Result<()> {
    lab.start_all()?;
    let address = lab.nodes[0].address.to_string();
    lab.nodes[0].docker(&["swarm", "init", "--advertise-addr", &address])?.ok()?;
    for index in 1..NODES {
        lab.join(index, if MANAGERS.contains(&index) { "manager" } else { "worker" })?;
    }
    lab.wait_nodes_ready(NODES)
}

fn serve(lab: &mut Lab) -> Result<()> {
    serve_client(lab)?;
    serve_echo(lab, NODES)?;
    wait_all_answer(lab, NODES, NODES)
}

/// This build's program, but that it reads one schema more.
fn next_version(lab: &Lab) -> Result<PathBuf> {
    let mut program = fs::read(lab.program("skein")?)?;
    let places = places_of(&program, MARK);
    ensure!(places.len() == 1, "the mark is at {places:?}");
    let number = places[0] + MARK.len();
    ensure!(u32::from(program[number]) == newest_schema(), "it is another number");
    program[number] += 1;
    let folder = lab.folder().join("programs/next");
    fs::create_dir_all(&folder)?;
    let path = folder.join("skein");
    if !path.exists() {
        fs::write(&path, program)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    }
    Ok(path)
}

fn places_of(text: &[u8], words: &[u8]) -> Vec<usize> {
    let found = text.windows(words.len()).enumerate().filter(|(_, window)| *window == words);
    found.map(|(at, _)| at).collect()
}

fn replace(lab: &mut Lab, index: usize) -> Result<()> {
    let next = next_version(lab)?;
    lab.nodes[index].stop()?;
    lab.nodes[index].set_daemon(Some(&next))?;
    lab.nodes[index].start()?;
    lab.wait_nodes_ready(NODES)
}

/// A write through each of these managers, and all of them have all.
fn write_through(lab: &Lab, managers: &[usize], what: &str) -> Result<()> {
    let name = |index: &usize| format!("{what}-{index}");
    for index in managers {
        let words = ["network", "create", "-d", "overlay", &name(index)];
        lab.nodes[*index].docker(&words)?.ok()?;
    }
    for index in managers {
        for written in managers {
            lab.nodes[*index].get(&format!("/networks/{}", name(written)))?;
        }
    }
    Ok(())
}

fn schemas_are(lab: &Lab, managers: &[usize], expected: u32) -> Result<()> {
    for index in managers {
        let schema = metric(lab, *index, "skein_schema")?;
        ensure!(schema == u64::from(expected), "node {index} has schema {schema}");
    }
    Ok(())
}

fn replace_managers(lab: &mut Lab) -> Result<()> {
    let (before, traffic) = (processes(lab)?, Traffic::start(lab)?);
    // The one that stays of the old version.
    replace(lab, AWAY)?;
    let mut newer = Vec::new();
    for index in [BACK, 1, 0] {
        replace(lab, index)?;
        newer.push(index);
        write_through(lab, &MANAGERS, &format!("replaced-{index}"))?;
        lead(lab, NODES, &MANAGERS, &newer)?;
        write_through(lab, &MANAGERS, &format!("newer-leads-{index}"))?;
        let older: Vec<usize> =
            MANAGERS.into_iter().filter(|other| !newer.contains(other)).collect();
        if !older.is_empty() {
            lead(lab, NODES, &MANAGERS, &older)?;
            write_through(lab, &MANAGERS, &format!("older-leads-{index}"))?;
        }
        schemas_are(lab, &MANAGERS, newest_schema())?;
    }
    ensure!(processes(lab)? == before, "tasks were touched");
    let said = lab.nodes[0].skein(&["doctor"])?;
    let (now, next) = (newest_schema(), newest_schema() + 1);
    let line = format!("the cluster has schema {now}, this version reads up to {next}");
    ensure!(said.stdout.contains(&line), "{said}");
    traffic.finish()
}

fn raise(lab: &mut Lab) -> Result<()> {
    // They have said that they read the next one, and will not have heard that it is written.
    for index in [BACK, AWAY] {
        let id = lab.nodes[index].cluster_id()?;
        lab.nodes[index].kill_daemon()?;
        wait_down(lab, &id)?;
    }
    wait_all_answer(lab, NODES - 2, NODES)?;
    let next = next_version(lab)?;
    let traffic = Traffic::start(lab)?;
    schemas_are(lab, &[0, 1], newest_schema())?;
    lab.nodes[WORKER].stop()?;
    lab.nodes[WORKER].set_daemon(Some(&next))?;
    lab.nodes[WORKER].start()?;
    lab.wait_for(SOON, "the schema to be raised", || {
        schemas_are(lab, &[0, 1], newest_schema() + 1)
    })?;
    write_through(lab, &[0, 1], "raised")?;
    traffic.finish()
}

/// Waits until a daemon has ended by itself with a line in its log that an earlier one had not
/// written.
fn ended_with(lab: &mut Lab, index: usize, earlier: usize, words: &str) -> Result<()> {
    let found = wait_for(SOON, "the daemon to end", || {
        ensure!(!lab.nodes[index].is_running()?, "it runs still");
        Ok(())
    });
    found.with_context(|| lab.nodes[index].log_tail())?;
    let log = lab.nodes[index].log();
    ensure!(log[earlier..].contains(words), "{}", &log[earlier..]);
    Ok(())
}

fn too_new() -> String {
    let (schema, reads) = (newest_schema() + 1, newest_schema());
    format!("has schema {schema}, and this version of Skein reads up to schema {reads}: install")
}

fn stop_at_entry(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    let earlier = lab.nodes[BACK].log().len();
    lab.nodes[BACK].set_daemon(None)?;
    lab.nodes[BACK].spawn()?;
    ended_with(lab, BACK, earlier, &too_new())?;
    let log = lab.nodes[BACK].log();
    ensure!(log[earlier..].contains("member of a cluster"), "it did not run: {}", &log[earlier..]);
    write_through(lab, &[0, 1], "without")?;
    traffic.finish()
}

fn refuse_log(lab: &mut Lab) -> Result<()> {
    let file = lab.nodes[BACK].data_dir().join("worker/assignment.json");
    let (earlier, before) = (lab.nodes[BACK].log().len(), fs::read(&file)?);
    lab.nodes[BACK].spawn()?;
    ended_with(lab, BACK, earlier, &too_new())?;
    ensure!(fs::read(&file)? == before, "it wrote an assignment");
    let next = next_version(lab)?;
    lab.nodes[BACK].set_daemon(Some(&next))?;
    lab.nodes[BACK].start()?;
    lab.wait_nodes_ready(NODES - 1)?;
    write_through(lab, &MANAGERS, "back")?;
    schemas_are(lab, &MANAGERS, newest_schema() + 1)
}

fn refuse_assignment(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    let file = |name: &str| lab.nodes[WORKER].data_dir().join(name);
    let files = ["node.json", "worker/assignment.json"].map(file);
    let read = || files.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>();
    lab.nodes[WORKER].stop()?;
    let (before, earlier) = (read()?, lab.nodes[WORKER].log().len());
    lab.nodes[WORKER].set_daemon(None)?;
    lab.nodes[WORKER].spawn()?;
    ended_with(lab, WORKER, earlier, &too_new())?;
    ensure!(read()? == before, "it has changed a file");
    let next = next_version(lab)?;
    lab.nodes[WORKER].set_daemon(Some(&next))?;
    lab.nodes[WORKER].start()?;
    lab.wait_nodes_ready(NODES - 1)?;
    traffic.finish()
}

fn hear_nothing(lab: &mut Lab) -> Result<()> {
    lab.nodes[AWAY].set_daemon(None)?;
    lab.nodes[AWAY].start()?;
    lab.wait_for(SOON, "it to say why it is told nothing", || {
        let said = lab.nodes[AWAY].skein(&["doctor"])?;
        let line = format!("BAD  the cluster has schema {}", newest_schema() + 1);
        ensure!(said.status == 1 && said.stdout.contains(&line), "{said}");
        Ok(())
    })?;
    let listed = lab.nodes[0].get(&format!("/nodes/{}", lab.nodes[AWAY].name))?;
    ensure!(text(&listed["Status"]["State"]) == "down", "it has a lease: {listed}");
    // What it was told last is in its kernel.
    let plan = lab.nodes[AWAY].get("/skein/v1/plan")?;
    ensure!(plan["count"] == 0, "{plan}");
    lab.nodes[AWAY].stop()?;
    let next = next_version(lab)?;
    lab.nodes[AWAY].set_daemon(Some(&next))?;
    lab.nodes[AWAY].start()?;
    lab.wait_nodes_ready(NODES)?;
    wait_all_answer(lab, NODES, NODES)
}

fn refuse_join(lab: &mut Lab) -> Result<()> {
    lab.nodes[AWAY].docker(&["swarm", "leave"])?.ok()?;
    lab.nodes[AWAY].stop()?;
    lab.nodes[AWAY].set_daemon(None)?;
    lab.nodes[AWAY].start()?;
    let token = lab.nodes[0].docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
    let count = |lab: &Lab| Ok::<_, anyhow::Error>(list_of(lab)?.len());
    let before = count(lab)?;
    let manager = format!("{}:2377", lab.nodes[0].address);
    let words = ["swarm", "join", "--token", &token, &manager];
    let refused = lab.nodes[AWAY].docker(&words)?.refused()?;
    ensure!(refused.contains("install the version of the other nodes"), "{refused}");
    ensure!(count(lab)? == before, "it was listed");
    ensure!(lab.nodes[AWAY].cluster_id()?.is_empty(), "it holds itself for a member");
    Ok(())
}

fn list_of(lab: &Lab) -> Result<Vec<Value>> {
    lab.nodes[0].get("/nodes")?.as_array().cloned().context("a list of nodes")
}
