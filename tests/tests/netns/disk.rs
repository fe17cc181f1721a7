//! A worker whose disk is full, or which lost a file. Managers are in `disk/manager.rs`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::CONVERGE_MAX;
use lab::command::run;
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::services::{NETWORK, make_network, serve_client, serve_echo};
use serde_json::Value;

use crate::stage::Stage;

mod manager;

const NODES: usize = 2;
const WORKER: usize = 1;
/// Pages that a small file system cannot take.
const FILL_MAX: usize = 16 << 10;

const CHECKS: &[Check] = &[
    ("services answer", serve),
    ("a worker with a full disk restarts, keeps its tasks, and says so", restart_full),
    ("what it learns meanwhile damages no file", learn_while_full),
    ("it is written when there is room", recover),
    ("addresses that are not on disk are read from the kernel", lose_addresses),
];

/// The worker's data directory as a file system of its own, gone when this value is.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: &Path, size: &str) -> Result<Self> {
        fs::create_dir_all(path)?;
        let shown = path.to_string_lossy();
        let size = format!("size={size}");
        run(10, &["mount", "-t", "tmpfs", "-o", &size, "skein-disk", &shown])?.ok()?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let left = run(10, &["umount", "--lazy", &self.0.to_string_lossy()]);
        let left = left.and_then(|output| output.ok());
        assert!(left.is_ok() || std::thread::panicking(), "{left:?}");
    }
}

/// Goal: a worker with a full disk can restart, and loses nothing.
/// Method: its data directory is a small file system that is filled while its daemon is dead.
#[test]
fn a_worker_with_a_full_disk_serves_on() {
    let mut stage = Stage::empty("disk", NODES);
    let _disk = SmallDisk::new(&stage.lab.nodes[WORKER].data_dir(), "4m").expect("a file system");
    stage.lab.make_cluster(1).unwrap_or_else(|error| panic!("{error:#}"));
    stage.check(CHECKS);
}

fn serve(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client(lab)?;
    serve_echo(lab, NODES)?;
    wait_all_answer(lab, NODES, NODES)
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    lab.nodes[WORKER].data_dir().join(name)
}

fn json(lab: &Lab, name: &str) -> Result<Value> {
    let text = fs::read(file(lab, name))?;
    serde_json::from_slice(&text).with_context(|| format!("{name} is damaged"))
}

fn fill(filler: &Path) -> Result<()> {
    let mut filler = fs::File::create(filler)?;
    let full = (0..FILL_MAX).find_map(|_| filler.write_all(&[0; 4096]).err());
    ensure!(full.is_some(), "the disk takes everything");
    Ok(())
}

fn doctor(lab: &Lab) -> Result<(i32, String)> {
    let output = lab.nodes[WORKER].skein(&["doctor"])?;
    Ok((output.status, output.stdout))
}

fn restart_full(lab: &mut Lab) -> Result<()> {
    let before = (json(lab, "node.json")?, lab.running(0, "echo")?.len());
    lab.nodes[WORKER].kill_daemon()?;
    fill(&file(lab, "filler"))?;
    lab.nodes[WORKER].start()?;
    lab.wait_nodes_ready(NODES)?;
    wait_all_answer(lab, NODES, NODES)?;
    ensure!(before == (json(lab, "node.json")?, lab.running(0, "echo")?.len()), "{before:?}");
    let (status, told) = doctor(lab)?;
    ensure!(status == 1 && told.contains("No space left on device"), "{status}: {told}");
    let log = lab.nodes[WORKER].log();
    ensure!(log.contains("the node comes back from the files that it has"), "{log}");
    // A second one is a later generation than the first, though neither is on that disk.
    lab.nodes[WORKER].kill_daemon()?;
    lab.nodes[WORKER].start()?;
    lab.wait_nodes_ready(NODES)?;
    wait_all_answer(lab, NODES, NODES)
}

fn learn_while_full(lab: &mut Lab) -> Result<()> {
    let before = json(lab, "worker/assignment.json")?;
    let place = ["--constraint", "node.role==manager", "--network", NETWORK];
    let words = [&["--name", "more"], place.as_slice(), &["host", "sleep", "1000"]].concat();
    lab.create_service(0, &words)?;
    lab.wait_running(0, "more", 1)?;
    lab.wait_for(CONVERGE_MAX, "the worker to know the service", || {
        let known = lab.nodes[WORKER].request("GET", "/skein/v1/debug/assignment", &Value::Null)?;
        ensure!(known.text().contains("\"more\""), "not yet");
        Ok(())
    })?;
    ensure!(json(lab, "worker/assignment.json")? == before, "it was written to a full disk");
    Ok(())
}

fn recover(lab: &mut Lab) -> Result<()> {
    let generation = |lab: &Lab| {
        let identity = json(lab, "node.json")?;
        identity["generation"].as_u64().with_context(|| format!("no generation in {identity}"))
    };
    let before: Result<u64> = generation(lab);
    let before = before?;
    fs::remove_file(file(lab, "filler"))?;
    lab.wait_for(CONVERGE_MAX, "all to be on disk", || {
        let assignment = json(lab, "worker/assignment.json")?.to_string();
        ensure!(assignment.contains("\"more\""), "the assignment is not");
        ensure!(generation(lab)? == before + 2, "the generation is not");
        let (status, told) = doctor(lab)?;
        ensure!(status == 0, "{told}");
        Ok(())
    })
}

fn lose_addresses(lab: &mut Lab) -> Result<()> {
    let before = json(lab, "worker/egress.json")?;
    lab.nodes[WORKER].kill_daemon()?;
    fs::remove_file(file(lab, "worker/egress.json"))?;
    lab.nodes[WORKER].start()?;
    lab.wait_for(CONVERGE_MAX, "the addresses to be on disk again", || {
        let after = json(lab, "worker/egress.json")?;
        ensure!(after == before, "{after} was {before}");
        Ok(())
    })?;
    lab.wait_nodes_ready(NODES)?;
    wait_all_answer(lab, NODES, NODES)
}
