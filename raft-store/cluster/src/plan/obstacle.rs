//! Why a node cannot take a task, looked for in Docker's order. The scheduler counts obstacles in
//! Docker's words; `why` tells each with its values.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::constraint::{Requirement, runs_on, unmet};
use crate::generic::{GenericResource, Held, Short};
use crate::id::NodeId;
use crate::object::{Node, NodeState, PublishedPort, Service, Task};
use crate::spec::{Availability, Platform, TaskSpec};
use crate::state::{Load, State};

/// Why a node cannot take a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle<'a> {
    Absent(Absence),
    Cpus {
        nano_wanted: u64,
        nano_free: u128,
    },
    Memory {
        bytes_wanted: u64,
        bytes_free: u128,
    },
    Generic(Short<'a>),
    Constraint(&'a Requirement),
    Platform(&'a [Platform]),
    HostPort(&'a PublishedPort),
    /// So many tasks of the service may be on one node.
    Replicas(u64),
}

/// Why a node takes no tasks at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    Unknown,
    Down,
    Left,
    Paused,
    Drained,
}

/// A node that cannot take a task, and why.
#[derive(Debug, Clone)]
pub(super) struct Refusal<'a> {
    pub(super) node: &'a Node,
    pub(super) obstacle: Obstacle<'a>,
}

/// Docker's kinds of obstacles, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    NotReady,
    Resources,
    Constraints,
    Platform,
    HostPort,
    MaxReplicas,
}

/// Nodes that cannot take a task for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The reason.
    pub reason: String,
    /// How many nodes.
    pub nodes: usize,
    /// Name of the first of them.
    pub example: String,
    /// What is so on that one; empty if the reason says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The first obstacle for a task on a node.
pub(super) fn obstacle<'a>(state: &State, node: &Node, task: &'a Task) -> Option<Obstacle<'a>> {
    let idle = Load::default();
    let load = state.index.loads.of(node.id).unwrap_or(&idle);
    if let Some(absence) = absence(node) {
        return Some(Obstacle::Absent(absence));
    }
    if let Some(short) = short(state, node, load, task) {
        return Some(short);
    }
    if let Some(constraint) = unmet(&task.spec.terms().constraints, node) {
        return Some(Obstacle::Constraint(constraint));
    }
    if !runs_on(&task.spec, node) {
        return Some(Obstacle::Platform(platforms(&task.spec)));
    }
    if let Some(port) = load.held_port_of(task) {
        return Some(Obstacle::HostPort(port));
    }
    let limit = task.spec.placement.as_ref().map_or(0, |placement| placement.max_replicas);
    let same = state.index.loads.of_service(task.service, node.id);
    (limit > 0 && same >= limit).then_some(Obstacle::Replicas(limit))
}

/// Why a global service is to have no task on a node.
pub(super) fn ineligible<'a>(service: &'a Service, node: &Node) -> Option<Obstacle<'a>> {
    let unmet = || unmet(&service.spec.terms().task.constraints, node);
    absence(node).map(Obstacle::Absent).or_else(|| unmet().map(Obstacle::Constraint))
}

/// Whether a node takes tasks at all.
pub(crate) fn takes_tasks(node: &Node) -> bool {
    absence(node).is_none()
}

fn absence(node: &Node) -> Option<Absence> {
    match (node.status.state, node.spec.availability) {
        (NodeState::Unknown, _) => Some(Absence::Unknown),
        (NodeState::Down, _) => Some(Absence::Down),
        (NodeState::Disconnected, _) => Some(Absence::Left),
        (NodeState::Ready, Availability::Pause) => Some(Absence::Paused),
        (NodeState::Ready, Availability::Drain) => Some(Absence::Drained),
        (NodeState::Ready, Availability::Active) => None,
    }
}

fn short<'a>(state: &State, node: &Node, load: &Load, task: &'a Task) -> Option<Obstacle<'a>> {
    let terms = task.spec.terms();
    let (nano_wanted, bytes_wanted) = (terms.nano_cpus, terms.memory_bytes);
    let nano_free = u128::from(node.description.nano_cpus).saturating_sub(load.nano_cpus);
    if nano_wanted > 0 && u128::from(nano_wanted) > nano_free {
        return Some(Obstacle::Cpus { nano_wanted, nano_free });
    }
    let bytes_free = u128::from(node.description.memory_bytes).saturating_sub(load.memory_bytes);
    if bytes_wanted > 0 && u128::from(bytes_wanted) > bytes_free {
        return Some(Obstacle::Memory { bytes_wanted, bytes_free });
    }
    claim(state, node.id, task).err().map(Obstacle::Generic)
}

/// What the task would get of the node's generic resources, or what there is too little of.
pub(super) fn claim<'a>(
    state: &State,
    node: NodeId,
    task: &'a Task,
) -> Result<Vec<GenericResource>, Short<'a>> {
    let wanted = &task.spec.terms().generic;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let nothing = Held::default();
    let held = state.index.loads.of(node).map_or(&nothing, |load| &load.generic);
    let offered = state.nodes.get(&node).map(|node| &node.description.generic_resources[..]);
    held.claim(wanted, offered.unwrap_or_default())
}

fn platforms(spec: &TaskSpec) -> &[Platform] {
    spec.placement.as_ref().map_or(&[][..], |placement| &placement.platforms)
}

/// How many nodes there are with which kind of obstacle, in Docker's words.
pub(super) fn explain(refusals: &[Refusal<'_>]) -> String {
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for refusal in refusals {
        *counts.entry(refusal.obstacle.kind()).or_default() += 1;
    }
    let nodes = |count: &usize| match count {
        1 => "1 node".to_owned(),
        more => format!("{more} nodes"),
    };
    let reasons: Vec<String> = counts
        .iter()
        .map(|(kind, count)| match kind {
            Kind::NotReady => format!("{} not available for new tasks", nodes(count)),
            Kind::Resources => format!("insufficient resources on {}", nodes(count)),
            Kind::Constraints => {
                format!("scheduling constraints not satisfied on {}", nodes(count))
            }
            Kind::Platform => format!("unsupported platform on {}", nodes(count)),
            Kind::HostPort => format!("host-mode port already in use on {}", nodes(count)),
            Kind::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        })
        .collect();
    if reasons.is_empty() {
        return "no suitable node".to_owned();
    }
    format!("no suitable node ({})", reasons.join("; "))
}

/// The same with values: by reason, how many nodes and an example.
pub(super) fn grouped(state: &State, refusals: &[Refusal<'_>]) -> Vec<Refused> {
    let mut groups: BTreeMap<(Kind, String), (usize, &Refusal<'_>)> = BTreeMap::new();
    for refusal in refusals {
        let key = (refusal.obstacle.kind(), refusal.obstacle.to_string());
        groups.entry(key).or_insert((0, refusal)).0 += 1;
    }
    let refused = |((_, reason), (nodes, first)): ((Kind, String), (usize, &Refusal<'_>))| {
        let example = first.node.name().to_owned();
        Refused { reason, nodes, example, detail: first.detail(state) }
    };
    groups.into_iter().map(refused).collect()
}

impl Obstacle<'_> {
    fn kind(&self) -> Kind {
        match self {
            Self::Absent(_) => Kind::NotReady,
            Self::Cpus { .. } | Self::Memory { .. } | Self::Generic(_) => Kind::Resources,
            Self::Constraint(_) => Kind::Constraints,
            Self::Platform(_) => Kind::Platform,
            Self::HostPort(_) => Kind::HostPort,
            Self::Replicas(_) => Kind::MaxReplicas,
        }
    }
}

/// Without what differs from node to node.
impl fmt::Display for Obstacle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(Absence::Unknown) => f.write_str("node has not reported yet"),
            Self::Absent(Absence::Down) => f.write_str("node is down"),
            Self::Absent(Absence::Left) => f.write_str("node has left the cluster"),
            Self::Absent(Absence::Paused) => f.write_str("node is paused"),
            Self::Absent(Absence::Drained) => f.write_str("node is drained"),
            Self::Cpus { .. } => f.write_str("not enough CPUs"),
            Self::Memory { .. } => f.write_str("not enough memory"),
            Self::Generic(short) => write!(f, "not enough {}", short.kind),
            Self::Constraint(wanted) => write!(f, "constraint {} is not met", wanted.text()),
            Self::Platform(platforms) => {
                let names = platforms.iter().map(|all| named(&all.os, &all.architecture));
                write!(f, "platform is not {}", names.collect::<Vec<_>>().join(" or "))
            }
            Self::HostPort(port) => write!(f, "port {port} is taken"),
            Self::Replicas(limit) => write!(f, "max replicas per node ({limit}) are there"),
        }
    }
}

impl Refusal<'_> {
    fn detail(&self, state: &State) -> String {
        match &self.obstacle {
            Obstacle::Cpus { nano_wanted, nano_free } => {
                let cpus = |nano: u128| nano as f64 / 1e9;
                let (wanted, free) = (cpus(u128::from(*nano_wanted)), cpus(*nano_free));
                let all = cpus(u128::from(self.node.description.nano_cpus));
                format!("wants {wanted}, {free} of {all} are free")
            }
            Obstacle::Memory { bytes_wanted, bytes_free } => {
                let (wanted, free) = (bytes((*bytes_wanted).into()), bytes(*bytes_free));
                let all = bytes(self.node.description.memory_bytes.into());
                format!("wants {wanted}, {free} of {all} are free")
            }
            Obstacle::Generic(Short { wanted, free, .. }) => {
                format!("wants {wanted}, {free} are free")
            }
            Obstacle::Platform(_) => {
                let about = &self.node.description;
                format!("it is {}", named(&about.os, &about.architecture))
            }
            Obstacle::HostPort(port) => self.holder(state, port),
            Obstacle::Constraint(wanted) => match &*wanted.actual(self.node) {
                "" => "it has none".to_owned(),
                actual => format!("it has {actual}"),
            },
            Obstacle::Absent(_) | Obstacle::Replicas(_) => String::new(),
        }
    }

    /// Who has the port on the node.
    fn holder(&self, state: &State, port: &PublishedPort) -> String {
        let open = state.index.open_on_node.of(self.node.id);
        let mut tasks = open.filter_map(|id| state.tasks.get(&id));
        let holds = |task: &&std::sync::Arc<Task>| {
            !task.is_over() && task.host_ports().any(|held| held.overlaps(port))
        };
        tasks.find(holds).map_or_else(String::new, |task| format!("by task {}", task.name()))
    }
}

fn named(os: &str, architecture: &str) -> String {
    let any = |text: &str| if text.is_empty() { "any".to_owned() } else { text.to_owned() };
    format!("{}/{}", any(os), any(architecture))
}

/// In the largest unit of which there is at least one, with one digit after the point.
fn bytes(count: u128) -> String {
    let units = [("GiB", 1_u128 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, size)| count >= *size);
    unit.map_or_else(
        || format!("{count} bytes"),
        |(unit, size)| match (count / size, count % size * 10 / size) {
            (whole, 0) => format!("{whole} {unit}"),
            (whole, tenths) => format!("{whole}.{tenths} {unit}"),
        },
    )
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nodes {
            1 => write!(f, "{}: {}", self.reason, self.example)?,
            more => write!(f, "{}: {more} nodes, such as {}", self.reason, self.example)?,
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_told_in_their_unit() {
        let told = [0, 1023, 1024, 1536, 512 << 20, (3 << 29) + 1, 2 << 30].map(bytes);
        let expected = ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "512 MiB", "1.5 GiB", "2 GiB"];
        assert_eq!(told, expected);
    }
}
