//! Other programs' firewalls on a node: reported by name while they block, and not afterwards.

use anyhow::{Result, ensure};
use lab::Lab;
use lab::cluster::CONVERGE_MAX;
use lab::scenario::Check;
use lab::scenario::calls::ask_outside;
use lab::scenario::services::{make_network, probe, serve};

use crate::stage::Stage;

const PORT: u16 = 8080;
const TARGET: &str = "80";
/// Of a service in mode `host`.
const HOST_PORT: u16 = 8081;

const CHECKS: &[Check] = &[
    ("a network is made", make_network),
    ("a service is published and answers", publish),
    ("a chain with policy drop is named, with what to do", policy),
    ("so is one that ends by a reject", reject),
    ("what helps makes all well again", remedy),
    ("a rule that names no link and loses calls is reported too", lost),
    ("so is a chain of iptables-legacy", legacy),
    ("a chain that keeps the overlays of other nodes out is named, with what to do", input),
];

/// Goal: a firewall that breaks published ports is not overlooked. Method: chains as ufw, Docker
/// and firewalld have them, in a node's namespace.
#[test]
fn firewalls_of_other_programs_are_named() {
    let mut stage = Stage::cluster("firewalls", 2, 1);
    stage.check(CHECKS);
}

fn nft(lab: &Lab, words: &str) -> Result<()> {
    lab.nodes[0].run(10, &["nft", words])?.ok()?;
    Ok(())
}

/// Waits until doctor has a bad line with all of these words, or, without any, is content.
fn doctor(lab: &Lab, words: &[&str]) -> Result<String> {
    lab.wait_for(CONVERGE_MAX * 2, &format!("doctor to say {words:?}"), || {
        let said = lab.nodes[0].skein(&["doctor"])?;
        let (text, well) = (said.to_string(), said.status == 0);
        let bad =
            |line: &&str| line.starts_with("BAD") && words.iter().all(|word| line.contains(word));
        let line = text.lines().find(bad).unwrap_or_default().to_owned();
        ensure!(if words.is_empty() { well } else { !line.is_empty() }, "{text}");
        Ok(line)
    })
}

fn call(lab: &Lab) -> Result<()> {
    let to = format!("{}:{PORT}", lab.nodes[0].address);
    ask_outside(lab, "tcp", &to, &["1"]).map(drop)
}

fn publish(lab: &mut Lab) -> Result<()> {
    // As where br_netfilter is not loaded: tasks can call ports in mode `host` of their own node.
    lab.nodes[0].run(10, &["sysctl", "-w", "net.bridge.bridge-nf-call-iptables=0"])?.ok()?;
    let port = format!("published={PORT},target={TARGET}");
    // On the node that is looked at: it asks from one of its own tasks.
    let flags = ["--publish", &port, "--constraint", "node.hostname==node1"];
    serve(lab, "web", &flags, &[&probe(lab)?, "serve", TARGET], 1)?;
    let port = format!("mode=host,published={HOST_PORT},target={TARGET}");
    let flags = ["--publish", &port, "--constraint", "node.hostname==node1"];
    serve(lab, "own", &flags, &[&probe(lab)?, "serve", TARGET], 1)?;
    lab.wait_for(CONVERGE_MAX, "the port to answer", || call(lab))?;
    doctor(lab, &[]).map(drop)
}

fn policy(lab: &mut Lab) -> Result<()> {
    nft(
        lab,
        "table ip filter { chain DOCKER-USER { }; chain FORWARD { type filter hook forward \
              priority filter; policy drop; jump DOCKER-USER; }; }",
    )?;
    ensure!(call(lab).is_err(), "the firewall blocks nothing");
    doctor(lab, &["chain FORWARD of table ip filter", "iptables -I DOCKER-USER -i ing0"])?;
    doctor(lab, &[&format!("tcp port {PORT} of service web does not answer")])?;
    nft(lab, "delete table ip filter")
}

fn reject(lab: &mut Lab) -> Result<()> {
    nft(
        lab,
        "table inet firewalld { chain filter_FORWARD { type filter hook forward priority \
              filter + 10; policy accept; ct state established,related accept; reject with \
              icmpx admin-prohibited; }; }",
    )?;
    ensure!(call(lab).is_err(), "the firewall blocks nothing");
    doctor(lab, &["chain filter_FORWARD of table inet firewalld", "--add-interface=ing0"])?;
    nft(lab, "delete table inet firewalld")
}

fn remedy(lab: &mut Lab) -> Result<()> {
    nft(
        lab,
        "table inet fw { chain forward { type filter hook forward priority filter; policy \
              drop; }; }",
    )?;
    let line = doctor(lab, &["chain forward of table inet fw"])?;
    let (_, commands) = line.split_once("Let both through: ").unwrap_or_default();
    lab.nodes[0].run(10, &["sh", "-c", commands])?.ok()?;
    call(lab)?;
    doctor(lab, &[])?;
    call(lab)?;
    nft(lab, "delete table inet fw")
}

fn lost(lab: &mut Lab) -> Result<()> {
    nft(
        lab,
        "table inet fw { chain forward { type filter hook forward priority filter; policy \
              accept; oifname { ing0, skein_gwbridge } ct state new drop; }; }",
    )?;
    doctor(lab, &[&format!("tcp port {PORT} of service web does not answer")])?;
    doctor(lab, &[&format!("tcp port {HOST_PORT} of service own does not answer")])?;
    nft(lab, "delete table inet fw")?;
    doctor(lab, &[]).map(drop)
}

/// `nft list ruleset` does not show these.
fn legacy(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    node.run(10, &["iptables-legacy", "-P", "FORWARD", "DROP"])?.ok()?;
    let line = doctor(lab, &["chain FORWARD of iptables-legacy's table ip filter"])?;
    let (_, commands) = line.split_once("Let both through: ").unwrap_or_default();
    ensure!(commands.starts_with("iptables-legacy -I FORWARD"), "{line}");
    node.run(10, &["sh", "-c", commands])?.ok()?;
    call(lab)?;
    doctor(lab, &[])?;
    node.run(10, &["sh", "-c", "iptables-legacy -F; iptables-legacy -P FORWARD ACCEPT"])?.ok()?;
    Ok(())
}

/// Gossip is let in, and what managers need, as by somebody who has read half of the manual.
fn input(lab: &mut Lab) -> Result<()> {
    nft(
        lab,
        "table inet fw { chain input { type filter hook input priority filter; policy drop; \
              iif lo accept; ct state established,related accept; icmp type echo-request accept; \
              udp dport 7946 accept; tcp dport { 2377, 7946 } accept; }; }",
    )?;
    let line = doctor(lab, &["chain input of table inet fw", "UDP port 4789"])?;
    let (_, command) = line.split_once("Let them in: ").unwrap_or_default();
    lab.nodes[0].run(10, &["sh", "-c", command])?.ok()?;
    doctor(lab, &[])?;
    nft(lab, "delete table inet fw")
}
