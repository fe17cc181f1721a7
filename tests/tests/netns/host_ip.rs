//! Published ports at one address of a node: each gets only the calls to its address.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, Task};
use lab::scenario::Check;
use lab::scenario::calls::{ask_outside, read_replies};
use lab::scenario::services::{NETWORK, hostname, make_network, probe, remove_services};

use crate::stage::Stage;

const NODES: usize = 2;
const PORT: u16 = 8080;
const LOCAL_PORT: u16 = 8081;
const HOST_PORT: u16 = 8082;
/// From which the steady streams come.
const FROM_PORTS: [&str; 2] = ["20000", "20001"];
const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

const CHECKS: &[Check] = &[
    ("a network is made", make_network),
    ("the second node has three addresses", addresses),
    ("two services have one port at two addresses", two_services),
    ("the same port at all addresses, or at a bad one, is refused", refused),
    ("a steady stream follows a change of the address", change),
    ("a port at 127.0.0.1 is for the node itself", loopback),
    ("a task in mode host goes where its address is", host_mode),
];

/// Goal: a port at an address takes the calls to it and no others. Method: a node gets more
/// addresses, which an outside host calls.
#[test]
fn a_port_is_published_at_one_address() {
    let mut stage = Stage::cluster("host-ip", NODES, 1);
    stage.check(CHECKS);
}

/// One of the second node's addresses; its own is the first.
fn address(lab: &Lab, number: u8) -> Ipv4Addr {
    let [a, b, c, d] = lab.nodes[1].address.octets();
    Ipv4Addr::new(a, b, c, d + 100 * number)
}

fn addresses(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[1];
    let shown = node.run(10, &["ip", "-o", "-4", "address", "show"])?.ok()?;
    let own = format!("inet {}/", node.address);
    let line = shown.lines().find(|line| line.contains(&own)).context("no such address")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let length = words[3].split_once('/').context("no length")?.1;
    for number in 1..=2 {
        let added = format!("{}/{length}", address(lab, number));
        node.run(10, &["ip", "address", "add", &added, "dev", words[1]])?.ok()?;
    }
    Ok(())
}

/// The flags that publish target port 80 at an address by both protocols.
fn at(address: Ipv4Addr, port: u16, more: &str) -> [String; 2] {
    PROTOCOLS.map(|protocol| {
        format!("host-ip={address},published={port},target=80,protocol={protocol}{more}")
    })
}

/// Starts a service with a task by Skein's client: Docker's has no word for an address.
fn serve(lab: &Lab, name: &str, flags: &[&str], program: &[&str]) -> Result<Vec<Task>> {
    let create = ["service", "create", "-d", "--name", name, "--network", NETWORK];
    lab.nodes[0].skein(&[&create, flags, &["host"], program].concat())?.ok()?;
    lab.wait_running(0, name, 1)
}

/// Starts a service whose task is on the first node, and gives its host name.
fn publish(lab: &Lab, name: &str, [tcp, udp]: &[String; 2]) -> Result<String> {
    let flags = ["--constraint", "node.role==manager", "--publish", tcp, "--publish", udp];
    Ok(hostname(&serve(lab, name, &flags, &[&probe(lab)?, "serve", "80"])?[0]))
}

/// Waits until the outside host is answered by a server, by both protocols and with its address.
fn answers(lab: &Lab, address: Ipv4Addr, port: u16, server: &str) -> Result<()> {
    let client = lab.client_address().to_string();
    lab.wait_for(CONVERGE_MAX, &format!("{server} to answer at {address}:{port}"), || {
        for protocol in PROTOCOLS {
            let told = ask_outside(lab, protocol, &format!("{address}:{port}"), &["2"])?;
            let right = told.iter().all(|told| told.server == server && told.client == client);
            ensure!(right, "{told:?} by {protocol}");
        }
        Ok(())
    })
}

/// Fails if anything answers the outside host.
fn is_closed(lab: &Lab, address: Ipv4Addr, port: u16) -> Result<()> {
    for protocol in PROTOCOLS {
        let told = ask_outside(lab, protocol, &format!("{address}:{port}"), &["1"]);
        ensure!(told.is_err(), "{address}:{port} answers: {told:?}");
        let error = format!("{:#}", told.err().context("it is one")?);
        ensure!(error.contains("refused"), "{address}:{port} does not refuse: {error}");
    }
    Ok(())
}

fn two_services(lab: &mut Lab) -> Result<()> {
    let [own, second, third] = [0, 1, 2].map(|number| address(lab, number));
    let one = publish(lab, "one", &at(own, PORT, ""))?;
    let two = publish(lab, "two", &at(second, PORT, ""))?;
    answers(lab, own, PORT, &one)?;
    answers(lab, second, PORT, &two)?;
    is_closed(lab, third, PORT)?;
    is_closed(lab, lab.nodes[0].address, PORT)?;
    let listed = lab.nodes[0].skein(&["service", "ls"])?.ok()?;
    ensure!(listed.contains(&format!("{second}:{PORT}->80/tcp")), "{listed}");
    let (well, said) = {
        let said = lab.nodes[1].skein(&["doctor"])?;
        (said.status == 0, said.to_string())
    };
    ensure!(well, "{said}");
    Ok(())
}

fn refused(lab: &mut Lab) -> Result<()> {
    let table = [
        (format!("{PORT}:80"), "already in use by service"),
        (format!("{}:{PORT}:80", address(lab, 1)), "already in use by service 'two'"),
        ("host-ip=::1,published=9000,target=80".to_owned(), "HostIP \"::1\""),
        ("host-ip=eth0,published=9000,target=80".to_owned(), "HostIP \"eth0\""),
    ];
    for (port, words) in table {
        let create =
            ["service", "create", "-d", "--name", "no", "--publish", &port, "host", "true"];
        let said = lab.nodes[0].skein(&create)?;
        ensure!(said.status != 0 && said.to_string().contains(words), "{port}: {said}");
    }
    Ok(())
}

/// Without forgetting the flows, the stream to the old address goes on, and the one to the new
/// address is refused for as long as it lasts.
fn change(lab: &mut Lab) -> Result<()> {
    let [own, _, third] = [0, 1, 2].map(|number| address(lab, number));
    let update = |from: Ipv4Addr, to: Ipv4Addr| -> Result<()> {
        let [tcp, udp] = at(to, PORT, "");
        let words = ["service", "update", "-d", "--publish-rm", "80/tcp", "--publish-rm", "80/udp"];
        let words = [&words[..], &["--publish-add", &tcp, "--publish-add", &udp, "one"]].concat();
        let ask = |address: Ipv4Addr, port: &str| {
            ask_outside(lab, "udp", &format!("{address}:{PORT}"), &["1", port])
        };
        ask(from, FROM_PORTS[0])?;
        ensure!(ask(to, FROM_PORTS[1]).is_err(), "{to} answers before the change");
        lab.nodes[0].skein(&words)?.ok()?;
        lab.wait_for(CONVERGE_MAX, "the streams to follow", || {
            let (before, after) = (ask(from, FROM_PORTS[0]), ask(to, FROM_PORTS[1]));
            ensure!(before.is_err(), "the old address answers: {before:?}");
            after.map(|_| ())
        })
    };
    update(own, third)?;
    update(third, own)?;
    answers(lab, address(lab, 1), PORT, &hostname(&lab.running(0, "two")?[0]))?;
    remove_services(lab, &["one", "two"])
}

fn loopback(lab: &mut Lab) -> Result<()> {
    let server = publish(lab, "local", &at(Ipv4Addr::LOCALHOST, LOCAL_PORT, ""))?;
    let probe = probe(lab)?;
    let to = format!("127.0.0.1:{LOCAL_PORT}");
    for node in &lab.nodes {
        lab.wait_for(CONVERGE_MAX, &format!("{} to be answered", node.name), || {
            for protocol in PROTOCOLS {
                let told = read_replies(&node.run(20, &[&probe, "ask", protocol, &to])?.ok()?)?;
                ensure!(told[0].server == server, "{told:?}");
            }
            Ok(())
        })?;
        is_closed(lab, node.address, LOCAL_PORT)?;
    }
    remove_services(lab, &["local"])
}

fn host_mode(lab: &mut Lab) -> Result<()> {
    let (own, second) = (address(lab, 0), address(lab, 1));
    // Of equal nodes the one with fewer tasks is chosen first.
    let filler = ["--constraint", "node.role==worker"];
    serve(lab, "filler", &filler, &[&probe(lab)?, "serve", "9"])?;
    let [tcp, udp] = at(second, HOST_PORT, ",mode=host");
    let flags = ["--restart-delay", "100ms", "--publish", &tcp, "--publish", &udp];
    let tasks = serve(lab, "hosted", &flags, &[&probe(lab)?, "serve", "80"])?;
    ensure!(tasks[0].node == 1, "it runs on {}", tasks[0].node);
    let all = lab.all_tasks(0, "hosted")?;
    let rejected = all.iter().find(|task| task.state == "rejected" && task.node == 0);
    let message = rejected.map(|task| task.message.as_str()).unwrap_or_default();
    ensure!(message.contains(&second.to_string()), "no rejected task says why: {all:?}");
    answers(lab, second, HOST_PORT, &hostname(&tasks[0]))?;
    is_closed(lab, own, HOST_PORT)
}
