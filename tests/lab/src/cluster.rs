//! Operations of scenarios on a cluster: join it, run services, find tasks and addresses.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::command::{Output, run};
use crate::{Lab, Node};

/// Limit for one program in a task.
const IN_TASK_SECONDS: u32 = 60;
/// How long services may take to converge on a busy machine of two cores.
pub const CONVERGE_MAX: Duration = Duration::from_secs(30);

/// A task as the API tells it.
#[derive(Debug, Clone)]
pub struct Task {
    pub id: String,
    /// Its slot; 0 for a global service's.
    pub slot: u64,
    /// Index of its node in the lab.
    pub node: usize,
    /// `Status.State`.
    pub state: String,
    /// `DesiredState`.
    pub desired: String,
    /// `Status.Err`, or `Status.Message` where that is empty.
    pub message: String,
    /// Address on each network, by the network's name.
    pub addresses: Vec<(String, Ipv4Addr)>,
    /// `Status.ContainerStatus.PID`.
    pub pid: i64,
}

impl Task {
    /// Its address on a network.
    ///
    /// # Errors
    /// When it has none there.
    pub fn address(&self, network: &str) -> Result<Ipv4Addr> {
        let found = self.addresses.iter().find(|(name, _)| name == network);
        let address = found.map(|(_, address)| *address);
        address.with_context(|| format!("task {} has no address on {network}", self.id))
    }
}

impl Lab {
    /// Makes a cluster of all nodes: the first `managers` of them are managers, the rest workers.
    /// Daemons that do not run are started. Done by docker's own client.
    ///
    /// # Errors
    /// When a step is refused, or not all nodes become ready.
    pub fn make_cluster(&mut self, managers: usize) -> Result<()> {
        self.start_all()?;
        let first = &self.nodes[0];
        let address = first.address.to_string();
        first.docker(&["swarm", "init", "--advertise-addr", &address])?.ok()?;
        for index in 1..self.nodes.len() {
            self.join(index, if index < managers { "manager" } else { "worker" })?;
        }
        self.wait_nodes_ready(self.nodes.len())
    }

    /// Lets a node join the cluster of the first one in a role.
    ///
    /// # Errors
    /// When it is refused.
    pub fn join(&self, index: usize, role: &str) -> Result<()> {
        let token = self.nodes[0].docker(&["swarm", "join-token", "-q", role])?.ok()?;
        let manager = format!("{}:2377", self.nodes[0].address);
        let words = ["swarm", "join", "--token", &token, &manager];
        self.nodes[index].docker(&words)?.ok()?;
        Ok(())
    }

    /// Waits until the first node lists exactly `count` ready nodes.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_nodes_ready(&self, count: usize) -> Result<()> {
        self.wait_for(CONVERGE_MAX, &format!("{count} ready nodes"), || {
            let nodes = self.nodes[0].get("/nodes")?;
            let states: Vec<_> = list(&nodes).map(|node| text(&node["Status"]["State"])).collect();
            let ready = states.iter().filter(|state| *state == "ready").count();
            ensure!(ready == count, "states are {states:?}");
            Ok(())
        })
    }

    /// The tasks of a service as the given node tells them, newest history included.
    ///
    /// # Errors
    /// When the API does not answer, or a task is on a node outside the lab.
    pub fn all_tasks(&self, asked: usize, service: &str) -> Result<Vec<Task>> {
        let filter = json!({"service": {service: true}}).to_string();
        let path = format!("/tasks?filters={}", percent_encode(&filter));
        let answer = self.nodes[asked].get(&path)?;
        let nodes = self.node_ids(asked)?;
        list(&answer).map(|task| read_task(task, &nodes)).collect()
    }

    /// The tasks of a service that run and are to run, by slot and node.
    ///
    /// # Errors
    /// As [`Lab::all_tasks`].
    pub fn running(&self, asked: usize, service: &str) -> Result<Vec<Task>> {
        let mut tasks = self.all_tasks(asked, service)?;
        tasks.retain(|task| task.state == "running" && task.desired == "running");
        tasks.sort_by_key(|task| (task.slot, task.node));
        Ok(tasks)
    }

    /// Waits until exactly `count` tasks of a service run, and gives them.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn wait_running(&self, asked: usize, service: &str, count: usize) -> Result<Vec<Task>> {
        let what = format!("{count} running tasks of {service}");
        self.wait_for(CONVERGE_MAX, &what, || {
            let running = self.running(asked, service)?;
            if running.len() == count {
                return Ok(running);
            }
            let all = self.all_tasks(asked, service)?;
            let told = |task: &Task| {
                let (node, state) = (task.node + 1, &task.state);
                format!("slot {} on node{node}: {state} {}", task.slot, task.message)
            };
            bail!("{:?}", all.iter().map(told).collect::<Vec<_>>())
        })
    }

    /// The command line that runs `words` in a task's namespaces, without asking any daemon.
    ///
    /// # Errors
    /// When the task is on no node of the lab.
    pub fn task_line(&self, task: &Task, words: &[&str]) -> Result<Vec<String>> {
        let node = self.nodes.get(task.node);
        let node = node.with_context(|| format!("task {} is on no node", task.id))?;
        let pid = task.pid.to_string();
        let enter = ["nsenter", "-t", &pid, "-n", "-m", "-u", "--"];
        Ok(node.line(&[enter.as_slice(), words].concat()))
    }

    /// Runs a program in a task's namespaces, without asking any daemon.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn in_task(&self, task: &Task, words: &[&str]) -> Result<Output> {
        run(IN_TASK_SECONDS, &self.task_line(task, words)?)
    }

    /// The VIP of a service on a network.
    ///
    /// # Errors
    /// When it has none.
    pub fn vip(&self, asked: usize, service: &str, network: &str) -> Result<Ipv4Addr> {
        let node = &self.nodes[asked];
        let network = node.get(&format!("/networks/{network}"))?["Id"].clone();
        let service = node.get(&format!("/services/{service}"))?;
        let vips = list(&service["Endpoint"]["VirtualIPs"]);
        let found = vips.filter(|vip| vip["NetworkID"] == network).map(|vip| text(&vip["Addr"]));
        let address = found.into_iter().next().context("no VIP on the network")?;
        without_prefix(&address)
    }

    /// Cluster ids of the lab's nodes: (id, index), by their host names.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn node_ids(&self, asked: usize) -> Result<Vec<(String, usize)>> {
        let answer = self.nodes[asked].get("/nodes")?;
        let index = |name: &str| self.nodes.iter().position(|node| node.name == name);
        let ids = list(&answer).filter_map(|node| {
            let name = text(&node["Description"]["Hostname"]);
            index(&name).map(|index| (text(&node["ID"]), index))
        });
        Ok(ids.collect())
    }

    /// Runs a service detached and gives its id. `words` follow `service create -d`.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create_service(&self, asked: usize, words: &[&str]) -> Result<String> {
        let mut line = vec!["service", "create", "-d", "--no-resolve-image"];
        line.extend(words);
        self.nodes[asked].docker(&line)?.ok()
    }
}

impl Node {
    /// The node's own id in its cluster; empty outside of one.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn cluster_id(&self) -> Result<String> {
        Ok(text(&self.get("/info")?["Swarm"]["NodeID"]))
    }
}

/// The elements of a JSON list; none for anything else.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A JSON string's text; empty for anything else.
#[must_use]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn read_task(task: &Value, nodes: &[(String, usize)]) -> Result<Task> {
    let status = &task["Status"];
    let node = text(&task["NodeID"]);
    let index = nodes.iter().find(|(id, _)| *id == node).map(|(_, index)| *index);
    let attachments = list(&task["NetworksAttachments"]).flat_map(|attachment| {
        let name = text(&attachment["Network"]["Spec"]["Name"]);
        list(&attachment["Addresses"]).map(move |address| (name.clone(), text(address)))
    });
    let addresses = attachments.map(|(name, address)| Ok((name, without_prefix(&address)?)));
    let error = text(&status["Err"]);
    Ok(Task {
        id: text(&task["ID"]),
        slot: task["Slot"].as_u64().unwrap_or_default(),
        // A task that waits for a node, or whose node left, is on none of the lab.
        node: index.unwrap_or(usize::MAX - 1),
        state: text(&status["State"]),
        desired: text(&task["DesiredState"]),
        message: if error.is_empty() { text(&status["Message"]) } else { error },
        addresses: addresses.collect::<Result<_>>()?,
        pid: status["ContainerStatus"]["PID"].as_i64().unwrap_or_default(),
    })
}

fn without_prefix(address: &str) -> Result<Ipv4Addr> {
    let bare = address.split('/').next().unwrap_or_default();
    bare.parse().with_context(|| format!("reading address {address:?}"))
}

/// All but the unreserved characters of RFC 3986, section 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes a query's value.
pub(crate) fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[test]
fn a_task_of_the_api_is_read() {
    let task = json!({
        "ID": "t1", "Slot": 2, "NodeID": "b", "DesiredState": "running",
        "Status": {"State": "rejected", "Message": "preparing", "Err": "no such image"},
        "NetworksAttachments": [
            {"Network": {"Spec": {"Name": "vote"}}, "Addresses": ["10.0.1.3/24"]},
        ],
    });
    let nodes = [("a".to_owned(), 0), ("b".to_owned(), 1)];
    let task = read_task(&task, &nodes).expect("it is a task");
    assert_eq!((task.node, task.slot, task.message.as_str()), (1, 2, "no such image"));
    assert_eq!(task.address("vote").expect("an address"), Ipv4Addr::new(10, 0, 1, 3));
    assert!(task.address("other").is_err());
}

#[test]
fn queries_are_encoded() {
    assert_eq!(percent_encode("{\"a\":1}~"), "%7B%22a%22%3A1%7D~");
}
