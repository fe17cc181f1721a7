//! Clients write through a manager while the cluster loses its leader repeatedly: the next
//! leader answers the requests that the lost one left open.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::{list, text};
use lab::http::over_unix;
use lab::scenario::Check;
use lab::topology::{Fault, Point};
use lab::wait::{now, wait_for};
use serde_json::{Value, json};

use crate::stage::Stage;

const MANAGERS: usize = 3;
/// Clients that write at one time, each to one manager.
const CLIENTS: usize = 8;
/// Leaders that are lost in one way.
const LOSSES: usize = 4;
/// The longest answer: an election takes 0.6 to 0.9 s.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Answers are this late where they are to be lost; a leader is doubted after 450 ms.
const ANSWERS_LATE_MS: u32 = 250;
/// Writes flow before the leader is lost and after it.
const FLOWS_MIN: usize = 5 * CLIENTS;
const SOON: Duration = Duration::from_secs(60);

const CHECKS: &[Check] = &[
    ("a leader is killed: each write is answered, and made once", killed),
    ("a leader stands still: each write is answered, and made once", standing_still),
    ("a leader is stopped: each write is answered, and made once", stopped),
    ("a leader is lost with its answers: each write is answered, and made once", unanswered),
    ("a leader is cut off and returns: each write to it is answered, and made once", cut_off),
];

/// Goal: no client of a manager that lives notices the loss of the leader, but for the time of an
/// election. Method: services with names of their own are created one after the other by several
/// clients; the answers, and what is there afterwards.
#[test]
fn writes_outlive_their_leader() {
    let mut stage = Stage::cluster("leaderloss", MANAGERS, MANAGERS);
    stage.check(CHECKS);
}

/// What is done to a manager that leads, while clients of another one write.
type Act = fn(&mut Lab, usize, usize) -> Result<()>;

/// A way to lose a leader, and to have it back.
struct Loss {
    name: &'static str,
    /// The manager whose clients write, counted from the leader.
    asked: usize,
    prepare: Act,
    lose: Act,
    regain: Act,
}

const KILLED: Loss = Loss {
    name: "killed",
    asked: 1,
    prepare: |_, _, _| Ok(()),
    lose: |lab, leader, _| lab.nodes[leader].kill_daemon(),
    regain: |lab, leader, _| lab.nodes[leader].start(),
};

fn killed(lab: &mut Lab) -> Result<()> {
    lose_leaders(lab, &KILLED)
}

fn standing_still(lab: &mut Lab) -> Result<()> {
    let lose: Act = |lab, leader, _| lab.nodes[leader].pause(true);
    let regain: Act = |lab, leader, _| lab.nodes[leader].pause(false);
    lose_leaders(lab, &Loss { name: "still", lose, regain, ..KILLED })
}

fn stopped(lab: &mut Lab) -> Result<()> {
    let lose: Act = |lab, leader, _| lab.nodes[leader].stop();
    lose_leaders(lab, &Loss { name: "stopped", lose, ..KILLED })
}

/// What the leader commits with the third manager is on its way back when it is lost.
fn unanswered(lab: &mut Lab) -> Result<()> {
    let prepare: Act = |lab, leader, asked| {
        let delay = Fault::Delay { ms: ANSWERS_LATE_MS, spread_ms: 0 };
        lab.disturb(Point::Node(leader), Point::Node(asked), delay)
    };
    let lose: Act = |lab, leader, asked| {
        lab.disturb(Point::Node(leader), Point::Node(asked), Fault::Cut)?;
        lab.nodes[leader].kill_daemon()
    };
    let regain: Act = |lab, leader, asked| {
        lab.heal(Point::Node(leader), Point::Node(asked))?;
        lab.nodes[leader].start()
    };
    lose_leaders(lab, &Loss { name: "unanswered", prepare, lose, regain, ..KILLED })
}

/// Those that it was asked itself: it has them in its log when another one is elected.
fn cut_off(lab: &mut Lab) -> Result<()> {
    let lose: Act = |lab, leader, _| {
        let others = [1, 2].map(|further| (leader + further) % MANAGERS);
        for other in others {
            lab.disturb(Point::Node(leader), Point::Node(other), Fault::Cut)?;
            lab.disturb(Point::Node(other), Point::Node(leader), Fault::Cut)?;
        }
        lab.wait_for(SOON, "another leader", || lab.nodes[others[0]].get("/swarm").map(drop))?;
        others.iter().try_for_each(|other| lab.heal(Point::Node(leader), Point::Node(*other)))
    };
    let regain: Act = |_, _, _| Ok(());
    lose_leaders(lab, &Loss { name: "cutoff", asked: 0, lose, regain, ..KILLED })
}

/// The answer that a client got to one write.
struct WriteResult {
    name: String,
    status: u16,
    body: String,
    took: Duration,
}

fn lose_leaders(lab: &mut Lab, loss: &Loss) -> Result<()> {
    let mut told = Vec::new();
    for round in 0..LOSSES {
        let leader = whole(lab)?;
        let asked = (leader + loss.asked) % MANAGERS;
        (loss.prepare)(lab, leader, asked)?;
        told.extend(lose_one(lab, loss, round, leader, asked)?);
        (loss.regain)(lab, leader, asked)?;
    }
    let asked = whole(lab)?;
    let longest = told.iter().map(|told| told.took).max().context("nothing was written")?;
    // Not println: figures are to be seen of a test that passes, too.
    let (count, longest_ms) = (told.len(), longest.as_millis());
    writeln!(std::io::stdout(), "    {}: {count} writes, longest {longest_ms} ms", loss.name)?;
    let services = lab.nodes[asked].get("/services")?;
    for told in &told {
        let WriteResult { name, status, body, .. } = told;
        ensure!(*status == 201, "{name} is answered {status}: {body}");
        let answer: Value = serde_json::from_str(body)?;
        let made = list(&services).filter(|service| text(&service["Spec"]["Name"]) == *name);
        let made: Vec<String> = made.map(|service| text(&service["ID"])).collect();
        ensure!(made == [text(&answer["ID"])], "{name} was answered {body}, and is {made:?}");
    }
    let listed = list(&services).map(|service| text(&service["Spec"]["Name"]));
    let made = listed.filter(|name| name.starts_with(loss.name)).count();
    ensure!(made == count, "{made} services for {count} writes");
    ensure!(longest < ANSWER_MAX, "an answer took {longest_ms} ms");
    Ok(())
}

/// Lets clients write while the leader is lost, until writes have flowed for as long afterwards.
fn lose_one(
    lab: &mut Lab,
    loss: &Loss,
    round: usize,
    leader: usize,
    asked: usize,
) -> Result<Vec<WriteResult>> {
    let url = lab.nodes[asked].url();
    let socket = Path::new(url.trim_start_matches("unix://"));
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let write = |client: usize| -> Result<Vec<WriteResult>> {
        let mut told = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let name = format!("{}-{round}-{client}-{}", loss.name, told.len());
            let begin = now();
            let answer = over_unix(socket, "POST", "/services/create", &service(&name))?;
            let (status, body) = (answer.status, answer.text());
            told.push(WriteResult { name, status, body, took: begin.elapsed() });
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(told)
    };
    let flows = |from: usize, what: &str| {
        wait_for(SOON, what, || {
            let count = answered.load(Ordering::Relaxed);
            ensure!(count >= from + FLOWS_MIN, "{count} are answered, {from} were");
            Ok(())
        })
    };
    let write = &write;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || write(n))).collect();
        let lost = flows(0, "writes to flow")
            .and_then(|()| (loss.lose)(lab, leader, asked))
            .and_then(|()| flows(answered.load(Ordering::Relaxed), "writes to flow again"));
        over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().map_err(|_panic| anyhow::anyhow!("a client panicked"))??);
        }
        lost.map(|()| all)
    })
}

/// A service without tasks.
fn service(name: &str) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "host", "Command": ["true"]}},
        "Mode": {"Replicated": {"Replicas": 0}},
    })
}

/// Waits until all managers vote and follow one leader, and tells which that is.
fn whole(lab: &Lab) -> Result<usize> {
    lab.wait_for(SOON, "three managers with a leader", || {
        let nodes = lab.nodes[0].get("/nodes")?;
        let reachable = list(&nodes).filter(|node| {
            text(&node["ManagerStatus"]["Reachability"]) == "reachable"
                && text(&node["Status"]["State"]) == "ready"
        });
        ensure!(reachable.count() == MANAGERS, "{nodes}");
        // A linearizable read of its own shows that each follows the leader.
        lab.nodes.iter().try_for_each(|node| node.get("/swarm").map(drop))?;
        let leads = |node: &&Value| node["ManagerStatus"]["Leader"] == true;
        let leader = list(&nodes).find(leads).context("nobody leads")?;
        let name = text(&leader["Description"]["Hostname"]);
        lab.nodes.iter().position(|node| node.name == name).context("the leader is not in the lab")
    })
}
