//! A cluster of three managers that loses its leader again and again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{EFFECT_MAX, LOOK_PERIOD};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, list, text};
use lab::wait::{Pace, now};

/// Three managers.
#[derive(Debug)]
pub struct Stage {
    lab: Lab,
}

impl Stage {
    /// Makes them.
    ///
    /// # Errors
    /// When they do not happen in time.
    pub fn new() -> Result<Self> {
        let mut lab = Lab::for_test("bench-leader", 3)?;
        lab.make_cluster(3)?;
        let stage = Self { lab };
        stage.wait_whole(0)?;
        Ok(stage)
    }

    /// The leader's daemon is killed; a write to another manager has to be accepted. Then the
    /// killed one is brought back.
    ///
    /// # Errors
    /// When no write is accepted, or the manager does not come back.
    pub fn lose_leader(&mut self, run: usize) -> Result<Duration> {
        let leader = self.leader()?;
        let asked = (leader + 1) % 3;
        let begin = now();
        self.lab.nodes[leader].kill_daemon()?;
        let network = self.write(asked, run)?;
        let took = begin.elapsed();
        self.lab.nodes[leader].start()?;
        self.wait_whole(asked)?;
        self.lab.nodes[asked].request("DELETE", &format!("/networks/{network}"), &Value::Null)?;
        Ok(took)
    }

    /// Asks for a network until it is there. The name differs from one attempt to the next,
    /// because the outcome of one that failed may be unknown.
    fn write(&self, asked: usize, run: usize) -> Result<String> {
        let begin = now();
        let mut pace = Pace::new(LOOK_PERIOD);
        for attempt in 0_u64.. {
            let body = json!({"Name": format!("w-{run}-{attempt}"), "Driver": "overlay"});
            let answer = self.lab.nodes[asked].request("POST", "/networks/create", &body)?;
            if answer.status == 201 {
                return Ok(text(&answer.json()?["Id"]));
            }
            let told = (answer.status, answer.message());
            ensure!(begin.elapsed() < EFFECT_MAX, "no write was accepted: {told:?}");
            pace.wait();
        }
        unreachable!("the attempts do not end by themselves")
    }

    fn leader(&self) -> Result<usize> {
        let mut found = None;
        for node in &self.lab.nodes {
            let nodes = node.get("/nodes")?;
            let leads = |node: &&Value| node["ManagerStatus"]["Leader"] == true;
            found = list(&nodes).find(leads).map(|node| text(&node["Description"]["Hostname"]));
        }
        let name = found.context("no node leads")?;
        let index = self.lab.nodes.iter().position(|node| node.name == name);
        index.with_context(|| format!("{name} is not in the lab"))
    }

    /// Waits until all three vote again: each knows the others as reachable managers.
    fn wait_whole(&self, asked: usize) -> Result<()> {
        self.lab.wait_for(CONVERGE_MAX, "three reachable managers", || {
            let nodes = self.lab.nodes[asked].get("/nodes")?;
            let reachable = |node: &&Value| {
                node["ManagerStatus"]["Reachability"] == "reachable"
                    && node["Status"]["State"] == "ready"
            };
            let count = list(&nodes).filter(reachable).count();
            ensure!(count == 3, "{count} are reachable");
            // A linearizable read of its own shows that each follows the leader.
            self.lab.nodes.iter().try_for_each(|node| node.get("/swarm").map(drop))
        })
    }
}
