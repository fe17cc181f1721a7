//! What a node answers about itself.

use std::collections::BTreeMap;

use cluster::assignment::Assignment;
use cluster::id::TaskId;
use netprog::explain::{Call, explain};
use netprog::plan::{Knowledge, plan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gossip_io::Gossip;
use crate::worker::shell::WorkerHandle;

/// Operations that `plan` lists.
const OPS_MAX: usize = 1000;

/// `POST /node/native`: a question about the node that is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NativeCall {
    /// Which resource.
    pub topic: Topic,
    /// Query parameters.
    pub query: BTreeMap<String, String>,
}

/// Resources that one node answers about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topic {
    /// Why does A reach B, or not.
    Explain,
    /// Kernel operations that would run now.
    Plan,
    /// Members, rows, versions.
    Gossip,
    /// Desired state, and what the last pass did.
    Dataplane,
    /// The assignment in force.
    Assignment,
}

/// What answers are made of.
#[derive(Clone)]
pub struct NodeServices {
    /// Gossip.
    pub gossip: Gossip,
    /// The worker.
    pub worker: WorkerHandle,
}

/// Answers about this node.
pub async fn answer(services: &NodeServices, call: &NativeCall) -> Result<Value, String> {
    let assignment = services.worker.assignment.borrow().clone();
    let assignment = assignment.ok_or("this node has no assignment yet: try again")?;
    match call.topic {
        Topic::Gossip => {
            services.gossip.describe().await.ok_or_else(|| "gossip has ended".to_owned())
        }
        Topic::Assignment => serde_json::to_value(&*assignment).map_err(|e| e.to_string()),
        Topic::Dataplane => {
            let done = services.worker.done.borrow().clone();
            let spaces: BTreeMap<String, Value> = done
                .desired
                .spaces
                .iter()
                .map(|(place, space)| {
                    let value = serde_json::to_value(SpaceSummary::of(space));
                    (place.to_string(), value.unwrap_or_default())
                })
                .collect();
            Ok(json!({
                "findings": services.worker.findings(),
                "disk": services.worker.disk_trouble().await.map(|error| error.to_string()),
                "passes": done.passes,
                "operations": done.operations,
                "failures": done.failures,
                "late": services.worker.late(),
                "spaces": spaces,
                "tasks": own_tasks(&services.worker, &assignment),
            }))
        }
        Topic::Plan => {
            let (desired, observed) = services.worker.inspect().await?;
            let ops = plan(&desired, &observed, Knowledge::Complete);
            let listed: Vec<&netprog::op::Op> = ops.iter().take(OPS_MAX).collect();
            Ok(json!({ "count": ops.len(), "operations": listed }))
        }
        Topic::Explain => {
            let (_, observed) = services.worker.inspect().await?;
            let (task, _) = find_task(&assignment, parameter(call, "from")?)?;
            let to = parameter(call, "to")?;
            let port = call.query.get("port").map(|port| port.parse::<u16>());
            let port = port.transpose().map_err(|e| format!("parameter port: {e}"))?;
            let view = services.gossip.view().borrow().clone();
            let (assignment, observed) = (&*assignment, &observed);
            let balancer = services.worker.balancer;
            let call = Call { assignment, view: &view, observed, balancer, from: task, to, port };
            serde_json::to_value(explain(&call)).map_err(|e| e.to_string())
        }
    }
}

/// The node's own tasks with their process ids.
fn own_tasks(worker: &WorkerHandle, assignment: &Assignment) -> Vec<Value> {
    let tasks = worker.tasks.borrow();
    let describe = |(id, task): (&TaskId, &agent::LocalTask)| {
        let name = assignment.tasks.get(id).map(|assigned| assigned.name.as_str());
        json!({
            "id": id,
            "name": name,
            "pid": task.status.pid,
            "state": task.status.state,
        })
    };
    tasks.iter().map(describe).collect()
}

/// Counts of a namespace, for people.
#[derive(Serialize)]
struct SpaceSummary {
    links: Vec<String>,
    addresses: usize,
    routes: usize,
    fdb: usize,
    neighbours: usize,
    virtual_services: usize,
    tables: Vec<String>,
}

impl SpaceSummary {
    fn of(space: &netprog::plane::Space) -> Self {
        Self {
            links: space.links.keys().cloned().collect(),
            addresses: space.addresses.len(),
            routes: space.routes.len(),
            fdb: space.fdb.len(),
            neighbours: space.neighbours.len(),
            virtual_services: space.ipvs.len(),
            tables: space.nft.keys().map(|key| key.name.clone()).collect(),
        }
    }
}

pub(super) fn parameter<'a>(call: &'a NativeCall, name: &str) -> Result<&'a str, String> {
    call.query.get(name).map(String::as_str).ok_or_else(|| {
        format!("parameter {name} is missing: give ?from=TASK&to=NAME, and port=N if it matters")
    })
}

/// A task by id, prefix of an id, or name (with or without the id at its end).
pub(crate) fn find_task<'a>(
    assignment: &'a Assignment,
    text: &str,
) -> Result<(TaskId, &'a cluster::assignment::AssignedTask), String> {
    let matches = |id: &TaskId, name: &str| {
        let text_of_id = id.to_string();
        text_of_id.starts_with(text)
            || name == text
            || name.strip_suffix(&format!(".{text_of_id}")) == Some(text)
    };
    let mut found = assignment.tasks.iter().filter(|(id, task)| matches(id, &task.name));
    match (found.next(), found.next()) {
        (Some((id, task)), None) => Ok((*id, task)),
        (None, _) => Err(format!("task {text} not found on the networks of this node")),
        (Some(_), Some(_)) => Err(format!("task {text} is ambiguous: give more of its id")),
    }
}
