//! MTU and routes of nodes' underlays, and how the cluster follows their changes.

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, Task};
use lab::scenario::Check;
use lab::scenario::calls::ask_with;
use lab::scenario::services::{NETWORK, make_network, serve_client_and_echo};

use crate::stage::Stage;

/// The network's links, 50 bytes less than the underlay.
const FULL: (&str, &str) = ("1500", "1450");
const LOW: (&str, &str) = ("1380", "1330");
/// One question of as many bytes, which is one packet with the full MTU.
const LARGE: [&str; 3] = ["1", "0", "1400"];
const INGRESS: &str = "10.0.0.0/24";

/// Goal: all nodes send what the smallest underlay takes, without a restart. Method: one node's
/// underlay shrinks; datagrams between the nodes.
#[test]
fn the_mtu_of_a_network_is_that_of_its_smallest_underlay() {
    let mut stage = Stage::cluster("mtu", 2, 1);
    let checks: &[Check] = &[
        ("a network is made", make_network),
        ("services start", serve_client_and_echo),
        ("an underlay that shrinks makes every node's links shrink", shrinks),
        ("and grow when it does", |lab| follows(lab, FULL)),
        ("a network's own MTU that does not fit is reported", option),
    ];
    stage.check(checks);
}

/// Goal: no node has a network's addresses elsewhere without a word. Method: a second interface on
/// a machine before it joins, and after.
#[test]
fn routes_into_the_clusters_networks_are_told() {
    let mut stage = Stage::empty("routes", 2);
    let checks: &[Check] = &[
        ("a machine with a route to the ingress network is refused by name", refused),
        ("a route that appears later is reported by name", appears),
        ("and no new network gets its addresses", avoided),
    ];
    stage.check(checks);
}

fn client(lab: &Lab, node: usize) -> Result<Task> {
    let tasks = lab.running(0, "client")?;
    tasks.into_iter().find(|task| task.node == node).context("no client there")
}

/// Sets the second node's underlay to an MTU; the links of tasks on both nodes follow.
fn follows(lab: &mut Lab, (underlay, link): (&str, &str)) -> Result<()> {
    lab.nodes[1].run(10, &["ip", "link", "set", "eth0", "mtu", underlay])?.ok()?;
    lab.wait_for(CONVERGE_MAX, &format!("links with MTU {link} on both nodes"), || {
        for node in 0..2 {
            let shown = lab.in_task(&client(lab, node)?, &["ip", "-o", "link"])?.ok()?;
            let links: Vec<&str> = shown.lines().filter(|line| line.contains(": eth")).collect();
            let fits = |line: &&str| line.contains(&format!("mtu {link} "));
            ensure!(!links.is_empty() && links.iter().all(fits), "node{}: {shown}", node + 1);
        }
        Ok(())
    })
}

fn shrinks(lab: &mut Lab) -> Result<()> {
    follows(lab, LOW)?;
    // The other end of the link has the same MTU, so that larger packets are lost.
    let echo = lab.running(0, "echo")?.into_iter().find(|task| task.node == 1);
    let to = format!("{}:7000", echo.context("no task there")?.address(NETWORK)?);
    for _ in 0..20 {
        ask_with(lab, &client(lab, 0)?, "udp", &to, &LARGE)?;
    }
    let said = lab.nodes[0].skein(&["doctor"])?;
    ensure!(said.status == 0, "{said}");
    Ok(())
}

/// Waits until doctor of a node has a bad line with all of these words.
fn doctor(lab: &Lab, node: usize, words: &[&str]) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, &format!("doctor to say {words:?}"), || {
        let said = lab.nodes[node].skein(&["doctor"])?.to_string();
        let told = said
            .lines()
            .any(|line| line.starts_with("BAD") && words.iter().all(|word| line.contains(word)));
        ensure!(told, "{said}");
        Ok(())
    })
}

fn option(lab: &mut Lab) -> Result<()> {
    let option = "com.docker.network.driver.mtu=1600";
    let words = ["network", "create", "-d", "overlay", "-o", option, "--label", "x", "large"];
    lab.nodes[0].docker(&words)?.ok()?;
    let flags = ["--name", "far", "--mode", "global", "--network", "large", "host", "sleep", "600"];
    lab.create_service(0, &flags)?;
    doctor(lab, 1, &["network large", "driver.mtu 1600", "MTU of 1500"])?;
    doctor(lab, 0, &["network large", "driver.mtu 1600", "MTU of 1500"])
}

/// A second interface with an address in a prefix.
fn plug(lab: &Lab, name: &str, address: &str) -> Result<()> {
    for words in [
        ["ip", "link", "add", name, "type", "bridge"].as_slice(),
        &["ip", "addr", "add", address, "dev", name],
        &["ip", "link", "set", name, "up"],
    ] {
        lab.nodes[1].run(10, words)?.ok()?;
    }
    Ok(())
}

fn refused(lab: &mut Lab) -> Result<()> {
    lab.nodes[0].start()?;
    let address = lab.nodes[0].address.to_string();
    lab.nodes[0].docker(&["swarm", "init", "--advertise-addr", &address])?.ok()?;
    plug(lab, "nic2", "10.0.0.9/24")?;
    lab.nodes[1].start()?;
    let error = lab.join(1, "worker").expect_err("its published ports would not work").to_string();
    for word in ["route 10.0.0.0/24", "node2", "network ingress", INGRESS] {
        ensure!(error.contains(word), "{word} is not in {error}");
    }
    lab.nodes[1].run(10, &["ip", "link", "del", "nic2"])?.ok()?;
    lab.join(1, "worker")?;
    lab.wait_nodes_ready(2)
}

fn appears(lab: &mut Lab) -> Result<()> {
    plug(lab, "nic2", "10.0.0.9/24")?;
    doctor(lab, 1, &["route 10.0.0.0/24 of this machine", "network ingress", "published ports"])?;
    ensure!(lab.nodes[1].log().contains("of this machine overlaps"), "nothing in its log");
    Ok(())
}

fn avoided(lab: &mut Lab) -> Result<()> {
    plug(lab, "nic3", "10.0.1.9/24")?;
    let create = ["network", "create", "-d", "overlay", "--subnet", "10.0.1.0/24", "given"];
    lab.wait_for(CONVERGE_MAX, "the subnet to be refused", || {
        let said = lab.nodes[0].docker(&create)?;
        if said.status == 0 {
            lab.nodes[0].docker(&["network", "rm", "given"])?.ok()?;
        }
        let named = said.stderr.contains("route 10.0.1.0/24 of node node2");
        ensure!(said.status != 0 && named, "{said}");
        Ok(())
    })?;
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", NETWORK])?.ok()?;
    let made = lab.nodes[0].get(&format!("/networks/{NETWORK}"))?;
    let subnet = lab::cluster::text(&made["IPAM"]["Config"][0]["Subnet"]);
    ensure!(subnet == "10.0.2.0/24", "it is {subnet}");
    Ok(())
}
