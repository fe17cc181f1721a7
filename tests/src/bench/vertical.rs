//! One cluster of a manager and two workers: services, scaling, and the loss of a node.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cluster::net::MacAddr;
use serde_json::{Value, json};

use super::sandbox::{ask_often, until_answered};
use super::slots::Slots;
use super::{EFFECT_MAX, LOOK_PERIOD};
use lab::cluster::{CONVERGE_MAX, Task, list, text};
use lab::wait::{Pace, now};
use lab::{Lab, program};

const NETWORK: &str = "bench";
const CALLER: &str = "caller";
const TARGET: &str = "target";
const PORT: u16 = 7000;
/// Looks, 20 ms apart, at which no node has passed over its kernel again: it is at rest.
const QUIET_LOOKS: usize = 10;
/// Before a scale the target has this many replicas, and one more after it.
const REPLICAS: u64 = 2;

/// A cluster with a network, and a task on every node that calls are made from.
#[derive(Debug)]
pub struct Stage {
    lab: Lab,
    network: String,
    probe: String,
}

impl Stage {
    /// Makes it.
    ///
    /// # Errors
    /// When a step is refused or does not happen in time.
    pub fn new() -> Result<Self> {
        let mut lab = Lab::for_test("bench", 3)?;
        lab.make_cluster(1)?;
        let body = json!({"Name": NETWORK, "Driver": "overlay"});
        let network = text(&lab.nodes[0].post("/networks/create", &body)?["Id"]);
        let probe = program("skein-lab-probe")?.display().to_string();
        let stage = Self { lab, network, probe };
        stage.create(CALLER, json!({"Global": {}}))?;
        let callers = stage.lab.wait_running(0, CALLER, 3)?;
        for caller in &callers {
            ask_often(&sandbox_of(caller), "eth0")?;
        }
        Ok(stage)
    }

    /// A service of one task is requested; its VIP has to answer in the sandboxes of all nodes.
    ///
    /// # Errors
    /// When it does not.
    pub fn create_service(&self, run: usize) -> Result<Duration> {
        let name = format!("run-{run}");
        self.settle()?;
        let callers = self.lab.running(0, CALLER)?;
        let begin = now();
        let service = self.create(&name, json!({"Replicated": {"Replicas": 1}}))?;
        let vip = self.lab.vip(0, &name, NETWORK)?;
        let to = SocketAddr::from((vip, PORT));
        let ends = std::thread::scope(|scope| {
            let ask = |caller: &Task| {
                let sandbox = sandbox_of(caller);
                scope.spawn(move || until_answered(&sandbox, to))
            };
            let asked: Vec<_> = callers.iter().map(ask).collect();
            let joined = asked.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect::<Result<Vec<Instant>>>()
        })?;
        let end = ends.into_iter().max().context("nobody called")?;
        self.remove(&service)?;
        Ok(end.duration_since(begin))
    }

    /// The target gets a replica more; its MAC address has to be in the slots of every node.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn add_backend(&self) -> Result<Duration> {
        if self.lab.nodes[0].get(&format!("/services/{TARGET}")).is_err() {
            self.create(TARGET, json!({"Replicated": {"Replicas": REPLICAS}}))?;
        }
        let before = self.lab.wait_running(0, TARGET, usize::try_from(REPLICAS)?)?;
        let slots = self.slots(&[0, 1, 2])?;
        self.settle()?;
        let (version, mut spec) = self.spec(TARGET)?;
        spec["Mode"]["Replicated"]["Replicas"] = json!(REPLICAS + 1);
        let begin = now();
        self.lab.nodes[0].post(&format!("/services/{TARGET}/update?version={version}"), &spec)?;
        let is_new = |task: &Task| before.iter().all(|known| known.id != task.id);
        let added = self.lab.all_tasks(0, TARGET)?.into_iter().filter(is_new).collect::<Vec<_>>();
        let [task] = added.as_slice() else { bail!("{} tasks are new", added.len()) };
        let end = until(&slots, mac_of(task)?, true)?;
        self.scale_back()?;
        self.wait_left(TARGET, usize::try_from(REPLICAS)?)?;
        Ok(end.duration_since(begin))
    }

    /// A worker is lost with all that runs on it; its backend of a global service has to leave
    /// the slots of the other two. Then it is brought back.
    ///
    /// # Errors
    /// When it does not leave, or the node does not come back.
    pub fn lose_node(&mut self, run: usize) -> Result<Duration> {
        const GLOBAL: &str = "everywhere";
        // A new one for each run: tasks that are lost repeatedly are replaced ever more slowly.
        let service = self.create(GLOBAL, json!({"Global": {}}))?;
        let lost = 1 + run % 2;
        let tasks = self.lab.wait_running(0, GLOBAL, 3)?;
        let victim = tasks.iter().find(|task| task.node == lost).context("no task on the node")?;
        let backend = mac_of(victim)?;
        let left: Vec<usize> = (0..3).filter(|node| *node != lost).collect();
        let slots = self.slots(&left)?;
        until(&slots, backend, true)?;
        self.settle()?;
        let begin = now();
        self.lab.nodes[lost].kill_machine()?;
        let end = until(&slots, backend, false)?;
        self.lab.nodes[lost].start()?;
        self.lab.wait_nodes_ready(3)?;
        self.remove(&service)?;
        Ok(end.duration_since(begin))
    }

    /// Removes what [`Stage::add_backend`] left, so that it costs the next figures nothing.
    ///
    /// # Errors
    /// When it is refused.
    pub fn clear_target(&self) -> Result<()> {
        match self.lab.nodes[0].get(&format!("/services/{TARGET}")) {
            Ok(service) => self.remove(&text(&service["ID"])),
            Err(_absent) => Ok(()),
        }
    }

    fn create(&self, name: &str, mode: Value) -> Result<String> {
        let port = PORT.to_string();
        let container = json!({"Image": "host", "Command": [self.probe, "serve", port]});
        let networks = json!([{"Target": self.network}]);
        let body = json!({
            "Name": name,
            "TaskTemplate": {"ContainerSpec": container, "Networks": networks},
            "Mode": mode,
        });
        let created = self.lab.nodes[0].post("/services/create", &body)?;
        Ok(text(&created["ID"]))
    }

    /// Removes a service and waits until nothing of it is left on any node.
    fn remove(&self, service: &str) -> Result<()> {
        self.lab.nodes[0].request("DELETE", &format!("/services/{service}"), &Value::Null)?;
        self.lab.wait_for(CONVERGE_MAX, "the tasks of a removed service to end", || {
            let tasks = self.lab.nodes[0].get("/tasks")?;
            let left = list(&tasks).filter(|task| task["ServiceID"] == service).count();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
    }

    fn scale_back(&self) -> Result<()> {
        let (version, mut spec) = self.spec(TARGET)?;
        spec["Mode"]["Replicated"]["Replicas"] = json!(REPLICAS);
        self.lab.nodes[0].post(&format!("/services/{TARGET}/update?version={version}"), &spec)?;
        Ok(())
    }

    /// Waits until `count` tasks of a service run and no other one is on its way to its end.
    fn wait_left(&self, service: &str, count: usize) -> Result<()> {
        self.lab.wait_for(CONVERGE_MAX, "the surplus task to end", || {
            let tasks = self.lab.all_tasks(0, service)?;
            let running = tasks.iter().filter(|task| task.state == "running").count();
            ensure!(running == count, "{running} run");
            Ok(())
        })
    }

    /// Waits until the nodes have done all that earlier runs left them to do.
    fn settle(&self) -> Result<()> {
        let mut last = Vec::new();
        let mut quiet = 0;
        self.lab.wait_for(CONVERGE_MAX, "all nodes to be at rest", || {
            let passes = self.lab.nodes.iter().map(|node| {
                let told = node.get("/skein/v1/dataplane")?;
                told["passes"].as_u64().context("a node that counts its passes")
            });
            let passes = passes.collect::<Result<Vec<u64>>>()?;
            quiet = if passes == last { quiet + 1 } else { 0 };
            last = passes;
            ensure!(quiet >= QUIET_LOOKS, "{last:?} passes, and more");
            Ok(())
        })
    }

    fn spec(&self, service: &str) -> Result<(u64, Value)> {
        let found = self.lab.nodes[0].get(&format!("/services/{service}"))?;
        let version = found["Version"]["Index"].as_u64().context("a service without a version")?;
        Ok((version, found["Spec"].clone()))
    }

    fn slots(&self, nodes: &[usize]) -> Result<Vec<Slots>> {
        nodes.iter().map(|node| Slots::open(&self.lab.nodes[*node], &self.network)).collect()
    }
}

/// The network namespace of a task.
fn sandbox_of(task: &Task) -> PathBuf {
    PathBuf::from(format!("/proc/{}/ns/net", task.pid))
}

/// A task's MAC address on the network.
fn mac_of(task: &Task) -> Result<MacAddr> {
    Ok(MacAddr::for_address(IpAddr::V4(task.address(NETWORK)?)))
}

/// Looks until every balancer holds the backend, or none does, and tells when.
fn until(balancers: &[Slots], backend: MacAddr, held: bool) -> Result<Instant> {
    let begin = now();
    let mut pace = Pace::new(LOOK_PERIOD);
    loop {
        let mut done = true;
        for slots in balancers {
            done &= slots.hold(backend)? == held;
        }
        if done {
            return Ok(now());
        }
        ensure!(begin.elapsed() < EFFECT_MAX, "{backend} held in slots: not {held} everywhere");
        pace.wait();
    }
}
