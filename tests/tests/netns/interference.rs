//! Changes of the kernel by other programs and by the kernel itself, and a daemon that hears no
//! other node.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::cluster::{CONVERGE_MAX, Task, text};
use lab::scenario::Check;
use lab::scenario::calls::{ask, ask_with, ensure_all_answer, wait_all_answer};
use lab::scenario::services::{NETWORK, processes, serve_client_and_echo};
use lab::{Lab, Node};
use tests::bench::sandbox::in_namespace;
use tests::bench::slots::fabric;

use crate::stage::Stage;

const NODES: usize = 2;
const REPLICAS: usize = 3;
/// Lower than the networks need that were made before.
const LOW_MTU: &str = "1280";
const FULL_MTU: &str = "1500";
/// One question that is one packet before the MTU falls.
const LARGE: [&str; 3] = ["1", "0", "1400"];

const CHECKS: &[Check] = &[
    ("a network is made whose MTU the user gives", network_with_mtu),
    ("services start", serve_client_and_echo),
    ("a chain that is emptied right after its table was loaded is filled again", after_load),
    ("so is one that is emptied while the daemon is down", while_down),
    ("what the kernel learned of a path is not taken for a change", cached_routes),
    ("a node whose only peer is lost does what it is told", survivor),
];

/// Goal: the kernel holds what it should, no matter what changed it and when. Method: another
/// program empties a chain, an underlay's MTU falls, a node is lost; traffic tells.
#[test]
fn the_kernel_is_kept_as_it_should_be() {
    let mut stage = Stage::cluster("interference", NODES, 1);
    stage.check(CHECKS);
}

/// Nodes do not follow their underlays with such a one: the kernel's own knowledge of paths counts.
fn network_with_mtu(lab: &mut Lab) -> Result<()> {
    let mtu = format!("com.docker.network.driver.mtu={FULL_MTU}");
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", "-o", &mtu, NETWORK])?.ok()?;
    Ok(())
}

/// The network's namespace on the first node, held open: its path is the daemon's alone.
struct Fabric(File);

impl Fabric {
    fn open(lab: &Lab) -> Result<Self> {
        let network = text(&lab.nodes[0].get(&format!("/networks/{NETWORK}"))?["Id"]);
        let path = fabric(&lab.nodes[0], &network)?;
        Ok(Self(File::open(&path).with_context(|| format!("open {}", path.display()))?))
    }

    /// Runs `nft` there; what it prints.
    fn nft(&self, words: &str) -> Result<String> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        let output = in_namespace(&path, || {
            Command::new("nft").args(words.split(' ')).output().context("run nft")
        })?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nft {words}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Nothing is left to repair, and every backend answers by the virtual address.
fn is_repaired(lab: &Lab) -> Result<()> {
    wait_all_answer(lab, NODES, REPLICAS)?;
    let said = lab.nodes[0].skein(&["doctor"])?;
    ensure!(said.status == 0, "{said}");
    Ok(())
}

fn after_load(lab: &mut Lab) -> Result<()> {
    let fabric = Fabric::open(lab)?;
    let whole = fabric.nft("list chain bridge skein pre")?;
    ensure!(whole.lines().count() > 4, "the chain has no rules: {whole}");
    fabric.nft("delete table bridge skein")?;
    lab.wait_for(CONVERGE_MAX, "the table to be loaded again", || {
        fabric.nft("flush chain bridge skein pre").map(drop)
    })?;
    lab.wait_for(CONVERGE_MAX, "the chain to be filled again", || {
        let now = fabric.nft("list chain bridge skein pre")?;
        ensure!(now == whole, "it is {now}");
        Ok(())
    })?;
    is_repaired(lab)
}

fn while_down(lab: &mut Lab) -> Result<()> {
    let (fabric, before) = (Fabric::open(lab)?, processes(lab)?);
    let whole = fabric.nft("list chain bridge skein pre")?;
    lab.nodes[0].kill_daemon()?;
    fabric.nft("flush chain bridge skein pre")?;
    lab.nodes[0].start()?;
    lab.wait_for(CONVERGE_MAX, "the chain to be filled again", || {
        let now = fabric.nft("list chain bridge skein pre")?;
        ensure!(now == whole, "it is {now}");
        Ok(())
    })?;
    ensure!(processes(lab)? == before, "tasks were touched");
    is_repaired(lab)
}

fn repaired(node: &Node) -> Result<u64> {
    let metrics = text(&node.get("/metrics")?);
    let line = metrics.lines().find_map(|l| l.strip_prefix("skein_drift_repaired_total "));
    line.context("no count")?.parse().context("read the count")
}

fn set_mtu(lab: &Lab, mtu: &str) -> Result<()> {
    for node in &lab.nodes {
        node.run(10, &["ip", "link", "set", "eth0", "mtu", mtu])?.ok()?;
    }
    Ok(())
}

/// A task of a service on a node.
fn on(lab: &Lab, service: &str, node: usize) -> Result<Task> {
    let tasks = lab.running(0, service)?;
    tasks.into_iter().find(|task| task.node == node).context("no task there")
}

fn cached_routes(lab: &mut Lab) -> Result<()> {
    let (client, before) = (on(lab, "client", 0)?, repaired(&lab.nodes[0])?);
    let far = format!("{}:7000", on(lab, "echo", 1)?.address(NETWORK)?);
    set_mtu(lab, LOW_MTU)?;
    let cached = lab.wait_for(CONVERGE_MAX, "the kernel to learn the path's MTU", || {
        // What is too large for the path is lost until the kernel has learned.
        let _lost = ask_with(lab, &client, "udp", &far, &LARGE);
        let cached = lab.in_task(&client, &["ip", "route", "show", "cache"])?.ok()?;
        ensure!(cached.contains("mtu"), "{cached:?}");
        Ok(cached)
    })?;
    let said = lab.nodes[0].skein(&["doctor"])?;
    ensure!(said.to_string().contains(" 0 operations would run"), "{said}");
    ensure!(repaired(&lab.nodes[0])? == before, "repaired because of {cached}");
    set_mtu(lab, FULL_MTU)
}

fn survivor(lab: &mut Lab) -> Result<()> {
    lab.nodes[1].kill_machine()?;
    lab.nodes[0].kill_daemon()?;
    lab.nodes[0].start()?;
    lab.nodes[0].docker(&["service", "update", "--detach", "--force", "echo"])?.ok()?;
    let client = on(lab, "client", 0)?;
    lab.wait_for(CONVERGE_MAX * 2, "the new tasks, and no other, to answer", || {
        let tasks = lab.running(0, "echo")?;
        ensure!(tasks.len() == REPLICAS && tasks.iter().all(|task| task.node == 0), "{tasks:?}");
        ensure_all_answer(&ask(lab, &client, "tcp", "echo:7000", 30)?, &tasks)
    })?;
    let said = lab.nodes[0].skein(&["doctor"])?;
    ensure!(said.to_string().contains(" 0 operations would run"), "{said}");
    Ok(())
}
