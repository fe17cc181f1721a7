//! Clients write and read through every manager while managers are killed and the cluster changes.
//! One order of all operations must explain the answers that they got.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::Lab;
use lab::cluster::{list, text};
use lab::scenario::Check;
use lab::topology::Point;
use lab::wait::{Pace, now};

use self::client::{Client, Histories, Key, Kind};
use self::model::{Event, Operation, Outcome, check};
use self::storm::Storm;
use crate::stage::Stage;

mod client;
mod model;
mod storm;

/// Killed again and again.
const MANAGERS: usize = 3;
/// A worker that becomes a manager and a worker again.
const CANDIDATE: usize = 3;
/// A worker that is removed and joins again.
const LEAVER: usize = 4;
const NODES: usize = 5;

/// How long the storm lasts at least; it continues until each change has happened.
const SECONDS: &str = "SKEIN_HISTORY_SECONDS";
const SECONDS_DEFAULT: u64 = 40;
/// What is killed and asked for when; without it, it is drawn. The rest is up to the machine.
const SEED: &str = "SKEIN_HISTORY_SEED";

/// Clients of each manager.
const CLIENTS: usize = 2;
/// Between two operations of one client.
const BEAT: Duration = Duration::from_millis(25);
/// Objects of each kind at one time.
const OBJECTS: u32 = 4;
/// They make room for new ones: operations that nobody answered make a history hard to check.
const OBJECTS_LAST: Duration = Duration::from_secs(6);
/// Fewer acknowledged writes say nothing.
const ACKNOWLEDGED_MIN: usize = 200;
const SOON: Duration = Duration::from_secs(60);

const CHECKS: &[Check] = &[
    ("what clients are told in a storm is linearizable", linearizable),
    ("a stale read is caught, and comes by request only", stale_read),
];

/// Goal: no write that was acknowledged is lost, and no read is stale, whatever happens to
/// managers, keys and clocks. Method: recorded histories of clients, a checker of linearizability.
#[test]
fn histories_are_linearizable() {
    let mut stage = Stage::cluster("history", NODES, MANAGERS);
    stage.check(CHECKS);
}

fn number(name: &str) -> Result<Option<u64>> {
    let Some(given) = std::env::var_os(name) else { return Ok(None) };
    let given = given.to_string_lossy();
    Ok(Some(given.parse().with_context(|| format!("{name}={given} is no number"))?))
}

/// The socket of each node's daemon.
fn sockets(lab: &Lab) -> Vec<PathBuf> {
    let path = |url: String| PathBuf::from(url.trim_start_matches("unix://"));
    lab.nodes.iter().map(|node| path(node.url())).collect()
}

fn linearizable(lab: &mut Lab) -> Result<()> {
    let seed = number(SEED)?.unwrap_or_else(rand::random);
    let length = Duration::from_secs(number(SECONDS)?.unwrap_or(SECONDS_DEFAULT));
    // Not println: figures are to be seen of a test that passes, too.
    let mut out = std::io::stdout();
    writeln!(out, "    {SEED}={seed} {SECONDS}={}", length.as_secs())?;
    let (stormed, told) = storm(lab, seed, length);
    let stormed = stormed?;
    let mut told = told?;
    calm(lab)?;
    let last = read_all(lab, &told)?;
    merge(&mut told, last);
    let events = || told.values().flatten();
    let counts = |outcome| {
        let writes = events().filter(|event| !matches!(event.operation, Operation::Read(_)));
        writes.filter(|event: &&Event| event.operation.outcome() == outcome).count()
    };
    let (done, open) = (counts(Outcome::Done), counts(Outcome::Open));
    let begin = now();
    let checked = check(&told);
    let (all, objects, took) = (events().count(), told.len(), begin.elapsed().as_secs_f64());
    writeln!(
        out,
        "    {all} operations on {objects} objects, {done} writes acknowledged, {open} open, \
         checked in {took:.1} s; {stormed}"
    )?;
    if let Err(wrong) = checked {
        bail!("{SEED}={seed}: {wrong}");
    }
    ensure!(done >= ACKNOWLEDGED_MIN, "{done} writes were acknowledged");
    Ok(())
}

fn merge(all: &mut Histories, more: Histories) {
    for (key, events) in more {
        all.entry(key).or_default().extend(events);
    }
}

/// Lets clients and storm go on together; what the storm did, and what the clients were told.
fn storm(lab: &mut Lab, seed: u64, length: Duration) -> (Result<String>, Result<Histories>) {
    let sockets = sockets(lab);
    let over = AtomicBool::new(false);
    let begin = now();
    let work = |node: usize, number: u64| {
        let mut client = Client::new(&sockets[node], number, seed);
        // A node that is no manager shows the networks that are on it.
        let kinds: &[Kind] =
            if node < MANAGERS { &[Kind::Network, Kind::Service] } else { &[Kind::Service] };
        let mut beat = Pace::new(BEAT);
        while !over.load(Ordering::Relaxed) {
            let turn = begin.elapsed().as_secs() / OBJECTS_LAST.as_secs();
            let first = u32::try_from(turn)?.saturating_mul(OBJECTS);
            client.act(kinds, first, OBJECTS)?;
            beat.wait();
        }
        Ok(client.told)
    };
    let work = &work;
    thread::scope(|scope| {
        let nodes = (0..MANAGERS * CLIENTS).map(|client| client % MANAGERS).chain([CANDIDATE]);
        let clients = (1..).zip(nodes);
        let clients: Vec<_> =
            clients.map(|(number, node)| scope.spawn(move || work(node, number))).collect();
        let stormed = Storm::new(lab, seed).run(length);
        over.store(true, Ordering::Relaxed);
        let mut all = Histories::new();
        let mut told = Ok(());
        for client in clients {
            match client.join() {
                Ok(Ok(more)) => merge(&mut all, more),
                Ok(Err(error)) => told = Err(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (stormed, told.map(|()| all))
    })
}

/// Waits until all are back, with one state.
fn calm(lab: &mut Lab) -> Result<()> {
    lab.start_all()?;
    lab.wait_for(SOON, "all to be back", || {
        let nodes = lab.nodes[0].get("/nodes")?;
        let ready = list(&nodes).filter(|node| text(&node["Status"]["State"]) == "ready").count();
        ensure!(ready == NODES, "{ready} nodes are ready: {nodes}");
        for node in &lab.nodes[..MANAGERS] {
            let listed = lab.nodes[0].get(&format!("/nodes/{}", node.cluster_id()?))?;
            let reached = text(&listed["ManagerStatus"]["Reachability"]);
            ensure!(reached == "reachable", "{listed}");
            let metrics = text(&node.get("/metrics")?);
            ensure!(metrics.contains("skein_state_differing 0\n"), "{} differs", node.name);
        }
        Ok(())
    })?;
    for node in &lab.nodes {
        let log = node.log();
        let panic = log.lines().find(|line| line.contains("panicked at"));
        ensure!(panic.is_none(), "{}: {}", node.name, panic.unwrap_or_default());
    }
    Ok(())
}

/// What each manager says of each object in the end.
fn read_all(lab: &Lab, told: &Histories) -> Result<Histories> {
    let mut all = Histories::new();
    for (number, socket) in sockets(lab).iter().take(MANAGERS).enumerate() {
        let mut client = Client::new(socket, number as u64, 0);
        for key in told.keys() {
            client.read(*key)?;
            ensure!(client.told.contains_key(key), "manager {number} does not say what {key} is");
        }
        merge(&mut all, client.told);
    }
    Ok(all)
}

/// The managers replace what the third, which is cut off, still holds.
fn stale_read(lab: &mut Lab) -> Result<()> {
    let (key, sockets) = (Key { kind: Kind::Service, number: u32::MAX }, sockets(lab));
    let apart = MANAGERS - 1;
    let mut writer = Client::new(&sockets[0], 1, 0);
    writer.create(key)?;
    lab.wait_for(SOON, "the third manager to have it", || {
        let seen = Client::reading_stale(&sockets[apart], 2).read(key)?;
        seen.context("it has not").map(drop)
    })?;
    lab.cut_off(Point::Node(apart))?;
    lab.wait_for(SOON, "the others to replace it", || {
        writer.replace(key)?;
        let replaced =
            |event: &Event| matches!(event.operation, Operation::Replace(.., Outcome::Done));
        ensure!(writer.told[&key].iter().any(replaced), "not yet: {:?}", writer.told);
        Ok(())
    })?;
    let mut reader = Client::new(&sockets[apart], 2, 0);
    reader.read(key)?;
    let refused = reader.told.values().all(Vec::is_empty);
    let mut stale = Client::reading_stale(&sockets[apart], 2);
    stale.read(key)?;
    lab.rejoin(Point::Node(apart))?;
    ensure!(refused, "a manager that is cut off told what it is: {:?}", reader.told);
    if let Err(wrong) = check(&writer.told) {
        bail!("{wrong}");
    }
    let mut told = writer.told;
    merge(&mut told, stale.told);
    ensure!(check(&told).is_err(), "a stale read was not seen: {told:?}");
    Ok(())
}
