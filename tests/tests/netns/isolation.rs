//! A task reaches only what it may: it cannot enter another network, reach the cluster's own ports,
//! or take over an address. The frames are those of a program with raw sockets, sent from sandboxes
//! of real tasks.

mod frame;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::{Task, text};
use lab::scenario::Check;
use lab::scenario::background::{Background, until_input_ends};
use lab::scenario::calls::{ask, wait_all_answer};
use lab::scenario::services::{NETWORK, make_network, probe, serve, serve_client, serve_echo};
use tests::bench::sandbox::in_namespace;

use crate::stage::{Stage, on_node, outside};
use frame::{Arp, arp, datagram, end, in_vxlan, send};

const NODES: usize = 2;
const VXLAN_PORT: u16 = 4789;
const CLUSTER_PORT: u16 = 2377;
const GOSSIP_PORT: u16 = 7946;
const VXLAN_IDS: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Where the tests themselves listen in a sandbox.
const PORT: u16 = 6000;
/// Where the published service listens, as `published` and inside.
const PUBLISHED: u16 = 8080;
const TARGET: u16 = 7000;
/// What comes at all comes within this: all is on one machine.
const QUIET: Duration = Duration::from_millis(500);
const CONNECT_MAX: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(20);
/// What is to be heard, and what is not.
const MAY: &str = "may";
const MAY_NOT: &str = "may not";

const CHECKS: &[Check] = &[
    ("tasks run on two networks", furnish),
    ("a task's VXLAN reaches no network", vxlan_from_a_task),
    ("VXLAN of a host outside the cluster reaches no network", vxlan_from_outside),
    ("a task does not reach the cluster's ports", cluster_ports),
    ("a task takes no sibling's address by ARP", arp_of_a_sibling),
    ("a task sends from its own MAC and IP address only", other_sources),
    ("nor does it on the egress bridge", egress_bridge),
    ("on the ingress network only published ports answer", ingress_ports),
    ("a task of internal networks asks nobody outside for names", internal_names),
    ("what may be reached is reached", all_answer),
    ("nothing is left to repair", nothing_to_repair),
];

/// Goal: a task stays in its networks, whatever it sends. Method: what is forbidden is sent next to
/// what is allowed; only the second may arrive.
#[test]
fn tasks_stay_where_they_belong() {
    let mut stage = Stage::cluster("isolation", NODES, 1);
    stage.check(CHECKS);
}

fn furnish(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    for (name, flags) in [("apart", None), ("closed", Some("--internal"))] {
        let words = ["network", "create", "-d", "overlay"].into_iter().chain(flags).chain([name]);
        lab.nodes[0].docker(&words.collect::<Vec<_>>())?.ok()?;
    }
    serve_client(lab)?;
    serve_echo(lab, 3)?;
    let (probe, everywhere) = (probe(lab)?, ["--mode", "global"]);
    serve(lab, "rogue", &everywhere, &[&probe, "serve", "9"], NODES)?;
    let publish = format!("published={PUBLISHED},target={TARGET}");
    let published = [everywhere.as_slice(), &["--publish", &publish]].concat();
    serve(lab, "web", &published, &[&probe, "serve", &TARGET.to_string()], NODES)?;
    for network in ["apart", "closed"] {
        let name = format!("in-{network}");
        let words = ["--name", &name, "--network", network, "--mode", "global", "host"];
        lab.create_service(0, &[words.as_slice(), &[&probe, "serve", "9"]].concat())?;
        lab.wait_running(0, &name, NODES)?;
    }
    wait_all_answer(lab, NODES, 3)
}

/// A service's task on a node.
fn on(lab: &Lab, service: &str, node: usize) -> Result<Task> {
    let tasks = lab.running(0, service)?;
    tasks.into_iter().find(|task| task.node == node).context("no task there")
}

fn namespace(task: &Task) -> PathBuf {
    Path::new("/proc").join(task.pid.to_string()).join("ns/net")
}

/// A socket of a task, on the test's port.
fn listen(task: &Task) -> Result<UdpSocket> {
    in_namespace(&namespace(task), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        socket.set_read_timeout(Some(QUIET))?;
        Ok(socket)
    })
}

/// All that comes until nothing does.
fn heard(socket: &UdpSocket) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => words.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(words),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends words from a task to the test's port of another.
fn say(from: &Task, to: Ipv4Addr, words: &str) -> Result<()> {
    post(&namespace(from), (to, PORT).into(), words.as_bytes())
}

fn post(from: &Path, to: SocketAddr, bytes: &[u8]) -> Result<()> {
    in_namespace(from, || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(bytes, to)?;
        Ok(())
    })
}

/// Holds that of all that was sent only what may be said was heard, once.
fn ensure_only_what_may(socket: &UdpSocket, what: &str) -> Result<()> {
    let heard = heard(socket)?;
    ensure!(heard == [MAY], "{what}: {heard:?} was heard");
    Ok(())
}

/// The first field after a word of what `ip` prints.
fn after<'a>(text: &'a str, word: &str) -> Result<&'a str> {
    let mut words = text.split_whitespace().skip_while(|found| *found != word).skip(1);
    words.next().with_context(|| format!("no {word} in {text:?}"))
}

/// The address of the egress bridge, as a task on it sees it.
fn gateway(lab: &Lab, task: &Task) -> Result<Ipv4Addr> {
    let shown = lab.in_task(task, &["ip", "-4", "route", "show", "default"])?.ok()?;
    Ok(after(&shown, "via")?.parse()?)
}

/// A frame for a task of the scenario's network, as VXLAN carries it there from a stranger.
fn injected(lab: &Lab, victim: &Task, words: &str) -> Result<Vec<u8>> {
    let shown = lab.nodes[0].get(&format!("/networks/{NETWORK}"))?;
    let vni: u32 = text(&shown["Options"][VXLAN_IDS]).parse()?;
    let own = victim.address(NETWORK)?;
    let [a, b, c, _] = own.octets();
    let frame = datagram(end(Ipv4Addr::new(a, b, c, 250)), end(own), PORT, words);
    Ok(in_vxlan(vni, &frame))
}

/// Sends the same packet, but for its words, as the other node's kernel would.
fn from_the_other(lab: &Lab, node: usize, victim: &Task) -> Result<()> {
    let packet = injected(lab, victim, MAY)?;
    post(&on_node(lab, 1 - node), (lab.nodes[node].address, VXLAN_PORT).into(), &packet)
}

fn vxlan_from_a_task(lab: &mut Lab) -> Result<()> {
    let stranger = on(lab, "in-apart", 0)?;
    let bridge = gateway(lab, &stranger)?;
    for (node, to) in [(0, lab.nodes[0].address), (0, bridge), (1, lab.nodes[1].address)] {
        let victim = on(lab, "client", node)?;
        let socket = listen(&victim)?;
        let packet = injected(lab, &victim, MAY_NOT)?;
        post(&namespace(&stranger), (to, VXLAN_PORT).into(), &packet)?;
        from_the_other(lab, node, &victim)?;
        ensure_only_what_may(&socket, &format!("by {to}"))?;
    }
    Ok(())
}

fn vxlan_from_outside(lab: &mut Lab) -> Result<()> {
    let victim = on(lab, "client", 0)?;
    let socket = listen(&victim)?;
    let packet = injected(lab, &victim, MAY_NOT)?;
    post(&outside(lab), (lab.nodes[0].address, VXLAN_PORT).into(), &packet)?;
    from_the_other(lab, 0, &victim)?;
    ensure_only_what_may(&socket, "from outside")
}

fn connects(from: &Path, to: SocketAddr) -> Result<bool> {
    in_namespace(from, || Ok(TcpStream::connect_timeout(&to, CONNECT_MAX).is_ok()))
}

/// Datagrams that a node's gossip could not open.
fn unopened(lab: &Lab, node: usize) -> Result<u64> {
    let told = lab.nodes[node].get("/skein/v1/gossip")?;
    told["stats"]["datagrams_unopened"].as_u64().with_context(|| format!("no count in {told}"))
}

fn cluster_ports(lab: &mut Lab) -> Result<()> {
    let task = on(lab, "client", 0)?;
    let addresses = [lab.nodes[0].address, lab.nodes[1].address];
    let ports = [(0, CLUSTER_PORT), (0, GOSSIP_PORT), (1, GOSSIP_PORT)];
    for (node, port) in ports {
        let to = SocketAddr::from((addresses[node], port));
        ensure!(connects(&outside(lab), to)?, "{to} does not answer a host");
        ensure!(!connects(&namespace(&task), to)?, "{to} answers a task");
    }
    for (node, address) in addresses.into_iter().enumerate() {
        let before = unopened(lab, node)?;
        post(&namespace(&task), (address, GOSSIP_PORT).into(), b"no gossip")?;
        post(&outside(lab), (address, GOSSIP_PORT).into(), b"no gossip")?;
        let now = lab.wait_for(SOON, "the datagram of the host", || {
            let now = unopened(lab, node)?;
            ensure!(now > before, "none was counted");
            Ok(now)
        })?;
        ensure!(now == before + 1, "node{}: {} datagrams came", node + 1, now - before);
    }
    // Other ports of nodes are not the cluster's: the published one answers a task.
    ensure!(connects(&namespace(&task), (addresses[1], PUBLISHED).into())?, "nothing answers");
    Ok(())
}

/// The MAC address that a task holds for another one's address.
fn neighbour(lab: &Lab, task: &Task, address: Ipv4Addr) -> Result<String> {
    let shown = lab.in_task(task, &["ip", "neigh", "show", &address.to_string()])?.ok()?;
    Ok(after(&shown, "lladdr")?.to_owned())
}

fn arp_of_a_sibling(lab: &mut Lab) -> Result<()> {
    let (victim, rogue, sibling) =
        (on(lab, "client", 0)?, on(lab, "rogue", 0)?, on(lab, "web", 0)?);
    let far = on(lab, "web", 1)?;
    let (own, mac) = (end(victim.address(NETWORK)?), end(rogue.address(NETWORK)?).0);
    for other in [sibling, far] {
        let address = other.address(NETWORK)?;
        let call = |lab: &Lab| ask(lab, &victim, "tcp", &format!("{address}:{TARGET}"), 1);
        call(lab)?;
        for what in [Arp::Reply, Arp::Request] {
            send(&namespace(&rogue), "eth0", &arp(what, mac, (mac, address), own))?;
            // A frame that says it comes from the other one, too.
            send(&namespace(&rogue), "eth0", &arp(what, end(address).0, (mac, address), own))?;
        }
        let socket = listen(&victim)?;
        say(&rogue, own.1, MAY)?;
        ensure_only_what_may(&socket, "from the rogue's own address")?;
        let held = neighbour(lab, &victim, address)?;
        ensure!(held == end(address).0.to_string(), "{address} is at {held}");
        call(lab)?;
    }
    Ok(())
}

fn other_sources(lab: &mut Lab) -> Result<()> {
    let (victim, rogue, sibling) =
        (on(lab, "client", 0)?, on(lab, "rogue", 0)?, on(lab, "web", 0)?);
    let (to, far) = (victim.address(NETWORK)?, on(lab, "client", 1)?);
    let (own, other) = (end(rogue.address(NETWORK)?), end(sibling.address(NETWORK)?));
    for victim in [&victim, &far] {
        let to = end(victim.address(NETWORK)?);
        let socket = listen(victim)?;
        for from in [(own.0, other.1), (other.0, own.1), other] {
            send(&namespace(&rogue), "eth0", &datagram(from, to, PORT, MAY_NOT))?;
        }
        send(&namespace(&rogue), "eth0", &datagram(own, to, PORT, MAY))?;
        ensure_only_what_may(&socket, &format!("on node{}", victim.node + 1))?;
    }
    // The bridge has not learned from it where the sibling is.
    let told = ask(lab, &victim, "tcp", &format!("{}:{TARGET}", other.1), 1)?;
    ensure!(told[0].client == to.to_string(), "{told:?}");
    Ok(())
}

fn egress_bridge(lab: &mut Lab) -> Result<()> {
    let (rogue, sibling) = (on(lab, "rogue", 0)?, on(lab, "client", 0)?);
    let bridge = gateway(lab, &rogue)?;
    let egress = |task: &Task| -> Result<Ipv4Addr> {
        let shown = lab.in_task(task, &["ip", "-4", "addr", "show", "eth1"])?.ok()?;
        let (address, _) = after(&shown, "inet")?.split_once('/').context("no prefix")?;
        Ok(address.parse()?)
    };
    let (own, other) = (end(egress(&rogue)?), end(egress(&sibling)?));
    let host = end(bridge);
    let ping = ["ping", "-c", "1", "-W", "2", &bridge.to_string()];
    lab.in_task(&sibling, &ping)?.ok()?;
    for what in [Arp::Reply, Arp::Request] {
        send(&namespace(&rogue), "eth1", &arp(what, own.0, (own.0, other.1), host))?;
    }
    // What has another's source does not go out of the node.
    let socket = in_namespace(&outside(lab), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        socket.set_read_timeout(Some(QUIET))?;
        Ok(socket)
    })?;
    let to = (host.0, lab.client_address());
    for from in [(own.0, other.1), (own.0, lab.nodes[1].address), (other.0, own.1)] {
        send(&namespace(&rogue), "eth1", &datagram(from, to, PORT, MAY_NOT))?;
    }
    send(&namespace(&rogue), "eth1", &datagram(own, to, PORT, MAY))?;
    ensure_only_what_may(&socket, "outside")?;
    let shown = lab.nodes[0].run(5, &["ip", "neigh", "show", &other.1.to_string()])?.ok()?;
    let held = after(&shown, "lladdr")?;
    ensure!(held == other.0.to_string(), "the host has {} at {held}", other.1);
    lab.in_task(&sibling, &ping)?.ok()?;
    Ok(())
}

/// A task listens on a port that it does not publish; a peer on the ingress network calls both.
fn ingress_ports(lab: &mut Lab) -> Result<()> {
    let (server, peer) = (on(lab, "web", 0)?, on(lab, "web", 1)?);
    let (own, from) = (server.address("ingress")?, namespace(&peer));
    let _listener = in_namespace(&namespace(&server), || {
        Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?)
    })?;
    let socket = listen(&server)?;
    ensure!(connects(&from, (own, TARGET).into())?, "the published port does not answer");
    ensure!(!connects(&from, (own, PORT).into())?, "another port answers");
    say(&peer, own, MAY_NOT)?;
    // By the network that they share it may be called.
    let shared = server.address(NETWORK)?;
    ensure!(connects(&from, (shared, PORT).into())?, "nothing answers on {NETWORK}");
    say(&peer, shared, MAY)?;
    ensure_only_what_may(&socket, "UDP")?;
    // Nor by the ingress link with an address of another network.
    let frame = datagram(end(peer.address("ingress")?), (end(own).0, shared), PORT, MAY_NOT);
    send(&from, "eth1", &frame)?;
    let pinged = lab.in_task(&peer, &["ping", "-c", "1", "-W", "1", &own.to_string()])?;
    ensure!(pinged.status != 0, "it answers a ping: {pinged}");
    let heard = heard(&socket)?;
    ensure!(heard.is_empty(), "{heard:?} was heard by the ingress link");
    Ok(())
}

fn internal_names(lab: &mut Lab) -> Result<()> {
    let address = format!("{}:53", lab.client_address());
    let server = [&lab.client_program("skein-lab-probe")?, "names", &address];
    let outside = Background::start(&lab.client_line(&until_input_ends("TERM", &server)))?;
    let dig = |task: &Task, name: &str| -> Result<String> {
        lab.in_task(task, &["dig", "+tries=1", "+time=10", name])?.ok()
    };
    let (open, closed) = (on(lab, "client", 0)?, on(lab, "in-closed", 0)?);
    lab.wait_for(SOON, "the host's resolver", || {
        let told = dig(&open, "www.example")?;
        ensure!(told.contains("203.0.113.9"), "{told}");
        Ok(())
    })?;
    let told = dig(&closed, "www.example")?;
    ensure!(told.contains("status: SERVFAIL"), "{told}");
    let vip = lab.vip(0, "in-closed", "closed")?.to_string();
    let told = dig(&closed, "in-closed")?;
    ensure!(told.contains(&vip), "its own network's names are unknown: {told}");
    outside.finish()?;
    Ok(())
}

fn all_answer(lab: &mut Lab) -> Result<()> {
    wait_all_answer(lab, NODES, 3)
}

fn nothing_to_repair(lab: &mut Lab) -> Result<()> {
    for node in &lab.nodes {
        lab.wait_for(SOON, "a plan without operations", || {
            let plan = node.get("/skein/v1/plan")?;
            ensure!(plan["count"] == 0, "{plan}");
            Ok(())
        })?;
        let log = node.log();
        ensure!(!log.contains("kernel operation failed"), "{}", node.log_tail());
    }
    Ok(())
}
