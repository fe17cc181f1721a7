//! Faults of the underlay: each works as described, in one direction or both, and ends when it is
//! healed.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::Lab;
use lab::command::run;
use lab::scenario::background::{Background, until_input_ends};
use lab::topology::{Fault, Point};
use tests::bench::sandbox::in_namespace;

use crate::stage::{Stage, on_node};

const ONE: Point = Point::Node(0);
const TWO: Point = Point::Node(1);
const SOON: Duration = Duration::from_secs(10);
/// Seconds that a ping waits for the last answer.
const PATIENCE: &str = "0.5";
/// Where the probe listens on a node.
const PORT: u16 = 7100;

/// Goal: what a scenario is told about the underlay is what happens there. Method: pings, numbered
/// datagrams and connections between hosts without a daemon, and the hosts' own counters.
#[test]
fn faults_do_what_they_say() {
    let mut stage = Stage::empty("faults", 2);
    stage.check(&[
        ("an underlay without faults loses nothing", whole),
        ("a cut one way lets nothing through there, and all the other way", cut_one_way),
        ("a cut both ways lets nothing through, and spares others", cut_both_ways),
        ("the client can be cut from one node", cut_client),
        ("a node can be cut from all and joined again", cut_off),
        ("a loss loses its part", loss),
        ("a delay adds its time, one way or both", delay),
        ("connections and datagrams of any size survive a delay", traffic_survives_delay),
        ("a spread puts datagrams out of order and loses none", reorder),
        ("a delay that turns into a cut lets nothing through", delay_to_cut),
        ("another process sees the faults", seen_by_others),
        ("mistakes are refused by name", mistakes),
        ("nothing is left when all is healed", all_healed),
    ]);
}

/// What a ping tells.
#[derive(Debug)]
struct Pinged {
    sent: u32,
    received: u32,
    /// The shortest round trip in milliseconds.
    shortest_ms: f64,
}

fn read_ping(text: &str) -> Result<Pinged> {
    let counts = text.lines().find(|line| line.contains("packets transmitted"));
    let counts = counts.with_context(|| format!("reading {text:?}"))?;
    let mut numbers = counts.split(' ').filter_map(|word| word.parse().ok());
    let (sent, received) = (numbers.next().context("sent")?, numbers.next().context("received")?);
    let times = text.lines().find_map(|line| line.split_once("min/avg/max/mdev = "));
    let shortest = times.and_then(|(_, times)| times.split('/').next()?.parse().ok());
    Ok(Pinged { sent, received, shortest_ms: shortest.unwrap_or_default() })
}

/// Pings from one node to another, every 2 ms.
fn ping(lab: &Lab, from: usize, to: usize, count: u32) -> Result<Pinged> {
    let (count, to) = (count.to_string(), lab.nodes[to].address.to_string());
    let words = ["ping", "-q", "-i", "0.002", "-W", PATIENCE, "-c", &count, &to];
    read_ping(&lab.nodes[from].run(60, &words)?.stdout)
}

fn ensure_all(pinged: &Pinged) -> Result<()> {
    ensure!(pinged.sent > 0 && pinged.received == pinged.sent, "{pinged:?}");
    Ok(())
}

fn ensure_none(pinged: &Pinged) -> Result<()> {
    ensure!(pinged.sent > 0 && pinged.received == 0, "{pinged:?}");
    Ok(())
}

/// How many echo requests a node's kernel has seen (RFC 2011, `icmpInEchos`).
fn echos_seen(lab: &Lab, node: usize) -> Result<u64> {
    let text = lab.nodes[node].run(10, &["cat", "/proc/net/snmp"])?.ok()?;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, values) = (rows.next().context("names")?, rows.next().context("values")?);
    let at = names.split(' ').position(|name| name == "InEchos").context("InEchos")?;
    values.split(' ').nth(at).and_then(|word| word.parse().ok()).context("a number")
}

fn both(lab: &mut Lab, fault: Fault) -> Result<()> {
    lab.disturb(ONE, TWO, fault)?;
    lab.disturb(TWO, ONE, fault)
}

fn whole(lab: &mut Lab) -> Result<()> {
    ensure_all(&ping(lab, 0, 1, 10)?)?;
    ensure_all(&ping(lab, 1, 0, 10)?)
}

fn cut_one_way(lab: &mut Lab) -> Result<()> {
    lab.disturb(ONE, TWO, Fault::Cut)?;
    let before = (echos_seen(lab, 0)?, echos_seen(lab, 1)?);
    ensure_none(&ping(lab, 0, 1, 10)?)?;
    ensure_none(&ping(lab, 1, 0, 10)?)?;
    let after = (echos_seen(lab, 0)?, echos_seen(lab, 1)?);
    ensure!(after.1 == before.1, "node2 heard node1: {before:?} {after:?}");
    ensure!(after.0 == before.0 + 10, "node1 did not hear node2: {before:?} {after:?}");
    lab.heal(TWO, ONE)?;
    ensure_all(&ping(lab, 0, 1, 10)?)
}

fn cut_both_ways(lab: &mut Lab) -> Result<()> {
    both(lab, Fault::Cut)?;
    let before = (echos_seen(lab, 0)?, echos_seen(lab, 1)?);
    ensure_none(&ping(lab, 0, 1, 10)?)?;
    ensure_none(&ping(lab, 1, 0, 10)?)?;
    let after = (echos_seen(lab, 0)?, echos_seen(lab, 1)?);
    ensure!(after == before, "something came through: {before:?} {after:?}");
    client_pings(lab, 0, true)?;
    client_pings(lab, 1, true)?;
    lab.heal(ONE, TWO)?;
    ensure_all(&ping(lab, 0, 1, 10)?)
}

fn client_pings(lab: &Lab, node: usize, arrives: bool) -> Result<()> {
    let to = lab.nodes[node].address.to_string();
    let words = ["ping", "-q", "-i", "0.002", "-W", PATIENCE, "-c", "10", &to];
    let pinged = read_ping(&lab.client_run(60, &words)?.stdout)?;
    if arrives { ensure_all(&pinged) } else { ensure_none(&pinged) }
}

fn cut_client(lab: &mut Lab) -> Result<()> {
    lab.disturb(Point::Client, ONE, Fault::Cut)?;
    client_pings(lab, 0, false)?;
    client_pings(lab, 1, true)?;
    ensure_all(&ping(lab, 0, 1, 10)?)?;
    lab.heal(Point::Client, ONE)?;
    client_pings(lab, 0, true)
}

fn cut_off(lab: &mut Lab) -> Result<()> {
    lab.cut_off(ONE)?;
    ensure_none(&ping(lab, 0, 1, 10)?)?;
    client_pings(lab, 0, false)?;
    client_pings(lab, 1, true)?;
    lab.rejoin(ONE)?;
    client_pings(lab, 0, true)?;
    ensure_all(&ping(lab, 0, 1, 10)?)
}

/// Of 300 with 30 % lost, 210 arrive; fewer than 147 or more than 273 is 8 standard deviations.
fn loss(lab: &mut Lab) -> Result<()> {
    lab.disturb(ONE, TWO, Fault::Loss { percent: 30 })?;
    let before = echos_seen(lab, 1)?;
    let pinged = ping(lab, 0, 1, 300)?;
    let heard = echos_seen(lab, 1)? - before;
    ensure!((147..=273).contains(&heard), "node2 heard {heard}: {pinged:?}");
    ensure!(u64::from(pinged.received) == heard, "answers were lost: {heard} {pinged:?}");
    lab.disturb(ONE, TWO, Fault::Loss { percent: 100 })?;
    ensure_none(&ping(lab, 0, 1, 10)?)?;
    lab.heal(ONE, TWO)?;
    ensure_all(&ping(lab, 0, 1, 100)?)
}

fn delay(lab: &mut Lab) -> Result<()> {
    const DELAY_MS: u32 = 40;
    let delay = Fault::Delay { ms: DELAY_MS, spread_ms: 0 };
    lab.disturb(ONE, TWO, delay)?;
    for (from, to) in [(0, 1), (1, 0)] {
        let pinged = ping(lab, from, to, 20)?;
        ensure_all(&pinged)?;
        ensure!(pinged.shortest_ms >= f64::from(DELAY_MS), "{pinged:?}");
        ensure!(pinged.shortest_ms < f64::from(2 * DELAY_MS), "one way was asked for: {pinged:?}");
    }
    client_pings(lab, 0, true)?;
    both(lab, delay)?;
    let pinged = ping(lab, 0, 1, 20)?;
    ensure_all(&pinged)?;
    ensure!(pinged.shortest_ms >= f64::from(2 * DELAY_MS), "{pinged:?}");
    lab.heal(ONE, TWO)?;
    let pinged = ping(lab, 0, 1, 20)?;
    ensure_all(&pinged)?;
    ensure!(pinged.shortest_ms < f64::from(DELAY_MS), "it is still slow: {pinged:?}");
    Ok(())
}

fn traffic_survives_delay(lab: &mut Lab) -> Result<()> {
    both(lab, Fault::Delay { ms: 10, spread_ms: 0 })?;
    let probe = lab.program("skein-lab-probe")?;
    let port = PORT.to_string();
    let server = until_input_ends("TERM", &[&probe, "serve", &port]);
    let server = Background::start(&lab.nodes[1].line(&server))?;
    let to = format!("{}:{PORT}", lab.nodes[1].address);
    lab.wait_for(SOON, "the server to answer", || {
        lab.nodes[0].run(20, &[&probe, "ask", "tcp", &to])?.ok()
    })?;
    for (protocol, bytes) in [("tcp", "1"), ("udp", "1"), ("udp", "4000")] {
        lab.nodes[0].run(20, &[&probe, "ask", protocol, &to, "20", "0", bytes])?.ok()?;
    }
    server.finish()?;
    lab.heal(ONE, TWO)
}

/// A UDP socket of a node, on this process.
fn socket(lab: &Lab, node: usize, port: u16) -> Result<UdpSocket> {
    let bind = || UdpSocket::bind(("0.0.0.0", port)).context("binding a socket");
    in_namespace(&on_node(lab, node), bind)
}

fn reorder(lab: &mut Lab) -> Result<()> {
    const DATAGRAMS: u32 = 200;
    lab.disturb(ONE, TWO, Fault::Delay { ms: 5, spread_ms: 50 })?;
    let (sender, receiver) = (socket(lab, 0, PORT)?, socket(lab, 1, PORT)?);
    receiver.set_read_timeout(Some(SOON))?;
    for number in 0..DATAGRAMS {
        sender.send_to(&number.to_be_bytes(), (lab.nodes[1].address, PORT))?;
    }
    let mut came = Vec::new();
    while came.len() < DATAGRAMS as usize {
        let mut bytes = [0; 4];
        let length = receiver.recv(&mut bytes);
        ensure!(length.with_context(|| format!("{} came", came.len()))? == 4, "a short datagram");
        came.push(u32::from_be_bytes(bytes));
    }
    ensure!(!came.is_sorted(), "all came in order");
    came.sort_unstable();
    ensure!(came == (0..DATAGRAMS).collect::<Vec<_>>(), "some came twice: {came:?}");
    lab.heal(ONE, TWO)
}

/// What the link holds when the way is cut stays away too.
fn delay_to_cut(lab: &mut Lab) -> Result<()> {
    lab.disturb(ONE, TWO, Fault::Delay { ms: 2_000, spread_ms: 0 })?;
    let before = echos_seen(lab, 1)?;
    ensure_none(&ping(lab, 0, 1, 10)?)?;
    lab.disturb(ONE, TWO, Fault::Cut)?;
    ensure_none(&ping(lab, 0, 1, 10)?)?;
    let heard = echos_seen(lab, 1)? - before;
    ensure!(heard == 0, "node2 heard {heard}");
    lab.heal(ONE, TWO)?;
    ensure_all(&ping(lab, 0, 1, 10)?)
}

fn seen_by_others(lab: &mut Lab) -> Result<()> {
    lab.disturb(ONE, TWO, Fault::Cut)?;
    let mut other = Lab::attach(lab.folder())?;
    let seen = other.faults()?;
    let healed = other.heal(ONE, TWO);
    other.keep();
    healed?;
    ensure!(seen == [(ONE, TWO, Fault::Cut)], "{seen:?}");
    ensure_all(&ping(lab, 0, 1, 10)?)
}

fn mistakes(lab: &mut Lab) -> Result<()> {
    for (from, to, fault, named) in [
        (ONE, Point::Node(7), Fault::Cut, "node8"),
        (ONE, ONE, Fault::Cut, "node1"),
        (ONE, TWO, Fault::Loss { percent: 101 }, "101 %"),
        (ONE, TWO, Fault::Delay { ms: 0, spread_ms: 0 }, "0 ms"),
    ] {
        let Err(error) = lab.disturb(from, to, fault) else { bail!("{fault} was accepted") };
        let error = format!("{error:#}");
        ensure!(error.contains(named), "{error}");
    }
    let faults = lab.faults()?;
    ensure!(faults.is_empty(), "{faults:?}");
    Ok(())
}

fn all_healed(lab: &mut Lab) -> Result<()> {
    let underlay = format!("{}-ul", lab.name);
    let tables = run(10, &["ip", "netns", "exec", &underlay, "nft", "list", "tables"])?.ok()?;
    ensure!(tables.is_empty(), "{tables}");
    lab.wait_for(SOON, "the slow device to go", || {
        let devices = run(10, &["ip", "-n", &underlay, "link", "show"])?.ok()?;
        ensure!(!devices.contains("slow0"), "{devices}");
        Ok(())
    })
}
