//! Passes over a node's kernel: when there is one is the agent's to say, and
//! [`netprog::programmer::Programmer`] makes it. It takes a while, and may be cut short.

use std::cell::{Ref, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use agent::{Facts, Input, Pass, Passed};
use cluster::assignment::Assignment;
use cluster::id::{NodeId, TaskId};
use cluster::net::{MacAddr, Subnet};
use cluster::object::NodeDescription;
use cluster::view::View;
use netprog::fake::FakeKernel;
use netprog::kernel::{Kernel, KernelError};
use netprog::local::{Balancer, Local};
use netprog::op::{EntryOp, Kind, Op};
use netprog::plan::{Knowledge, plan};
use netprog::plane::{FdbKey, FdbTable, Place, Plane};
use netprog::programmer::Look;
use netprog::render::{render, vxlan_name};
use rand::RngExt as _;

use super::PlantedBug;
use super::host::gwbridge;
use super::network::address;
use super::world::{Event, World};

/// A fault strikes one of this many operations of a pass.
const FAULT_REACH: u64 = 20;
/// A daemon that is killed in a pass has made at most this many of its operations.
const HALF_MAX: usize = 40;
/// MTU of an underlay that says nothing else.
const MTU: u32 = 1500;

/// A machine's kernel, which outlives the daemons that program it.
#[derive(Debug, Clone)]
pub(super) struct SharedKernel(Rc<RefCell<Held>>);

#[derive(Debug)]
struct Held {
    kernel: FakeKernel,
    /// The daemon dies after this many more operations.
    left: Option<usize>,
    /// A planted bug: the first remote entry is said to be made, and never is.
    skips: bool,
    skipped: Option<(Place, FdbKey)>,
}

impl Default for SharedKernel {
    fn default() -> Self {
        Self::new(false)
    }
}

impl SharedKernel {
    pub(super) fn new(skips: bool) -> Self {
        let kernel = FakeKernel::new();
        Self(Rc::new(RefCell::new(Held { kernel, left: None, skips, skipped: None })))
    }

    pub(super) fn contents(&self) -> Ref<'_, Plane> {
        Ref::map(self.0.borrow(), |held| held.kernel.contents())
    }

    pub(super) fn create_sandbox(&self, task: TaskId) {
        self.0.borrow_mut().kernel.create_sandbox(task);
    }

    pub(super) fn delete_sandbox(&self, task: TaskId) {
        self.0.borrow_mut().kernel.delete_sandbox(task);
    }

    pub(super) fn interfere(&self, op: &Op) -> Result<(), KernelError> {
        self.0.borrow_mut().kernel.interfere(op)
    }
}

impl Kernel for SharedKernel {
    fn read(
        &mut self,
        desired: &Plane,
        only: Option<&BTreeSet<Place>>,
    ) -> Result<Plane, KernelError> {
        self.0.borrow_mut().kernel.read(desired, only)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<(usize, KernelError)> {
        let mut held = self.0.borrow_mut();
        let mut failed = Vec::new();
        for (at, op) in ops.iter().enumerate().take(held.left.unwrap_or(usize::MAX)) {
            if !held.is_skipped(op) {
                let refused = held.kernel.apply(std::slice::from_ref(op));
                failed.extend(refused.into_iter().map(|(_, error)| (at, error)));
            }
        }
        failed
    }
}

impl Held {
    fn is_skipped(&mut self, op: &Op) -> bool {
        let Kind::Entry(EntryOp::SetFdb(key, _)) = &op.kind else { return false };
        if !self.skips || key.table != FdbTable::Device {
            return false;
        }
        let entry = (op.place, key.clone());
        *self.skipped.get_or_insert_with(|| entry.clone()) == entry
    }
}

impl World {
    pub(super) fn begin_pass(&mut self, node: NodeId, pass: Box<Pass>) {
        let Some(daemon) = self.daemon(node) else { return };
        if daemon.pass.replace(pass).is_some() {
            self.problems.push(format!("node {}: two passes at a time", node.0));
        }
        let Some(run) = self.daemon(node).map(|daemon| daemon.run) else { return };
        let delay = self.ms_between(1, self.swarm.pass_ms);
        self.after(delay, Event::Pass { node, run });
    }

    pub(super) fn serve_pass(&mut self, node: NodeId, run: u64) {
        let breaks = !self.calm && self.chance.random_bool(self.swarm.kernel_fault);
        let at = self.chance.random_range(0..FAULT_REACH);
        let plant = self.plant;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(daemon) = host.daemon.as_mut().filter(|daemon| daemon.run == run) else { return };
        let Some(pass) = daemon.pass.take() else { return };
        if breaks {
            host.kernel.0.borrow_mut().kernel.fail(at);
        }
        let report = daemon.programmer.pass(&desired(&pass, plant), pass.knowledge, &pass.look);
        match &pass.look {
            Look::Remember if !report.dumped => {}
            Look::Remember | Look::Whole => host.drifted.clear(),
            Look::At(_) if report.dumped && !report.failures.is_empty() => {}
            Look::At(places) => host.drifted.retain(|place| !places.contains(place)),
        }
        let sees_all = host.drifted.is_empty();
        self.passes += 1;
        if report.failures.is_empty() && sees_all {
            self.check_entries(node, &pass.assignment);
        }
        if let Some(failure) = report.failures.first().filter(|_| self.calm) {
            self.tell(format!("node {}: {}", node.0, failure.error));
        }
        self.agent_input(node, Input::Passed(Passed { report, ..Passed::default() }));
    }

    /// A daemon that is killed may be in the midst of a pass.
    pub(super) fn half_a_pass(&mut self, node: NodeId) {
        let left = self.chance.random_range(0..=HALF_MAX);
        let plant = self.plant;
        let Some(daemon) = self.daemon(node) else { return };
        let Some(pass) = daemon.pass.take() else { return };
        daemon.programmer.kernel().0.borrow_mut().left = Some(left);
        daemon.programmer.pass(&desired(&pass, plant), pass.knowledge, &pass.look);
        daemon.programmer.kernel().0.borrow_mut().left = None;
    }

    /// Gives the daemon what it could hear of other programs, when it listens.
    pub(super) fn answer_the_bell(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let listens = host.daemon.as_ref().is_some_and(|daemon| daemon.agent.hears_drift(now));
        if listens && !host.bell.is_empty() {
            let heard = std::mem::take(&mut host.bell);
            let disturbed = heard.into_iter().map(|place| (place, BTreeSet::new())).collect();
            self.agent_input(node, Input::Disturbed(disturbed));
        }
    }

    /// What a node would still do if all its knowledge were the truth.
    pub(super) fn left_to_do(
        &mut self,
        node: NodeId,
        assignment: &Assignment,
        truth: &View,
    ) -> Vec<Op> {
        let (Some(host), Some(gwbridge)) = (self.hosts.get_mut(&node), gwbridge()) else {
            return Vec::new();
        };
        let Some(daemon) = &host.daemon else { return Vec::new() };
        let Facts { vtep, cluster_port, underlay_mtu, gwbridge, balancer } =
            facts(node, &host.description, gwbridge);
        let sandboxes = daemon.agent.worker().local();
        let local = Local { vtep, cluster_port, underlay_mtu, gwbridge, balancer, sandboxes };
        let desired = render(assignment, truth, &local);
        let observed = host.kernel.observe(&desired).unwrap_or_default();
        plan(&desired, &observed, Knowledge::Complete)
    }

    /// After a pass every remote endpoint of the assignment has its entries, whatever gossip
    /// thinks of its node: only Raft takes them away.
    fn check_entries(&mut self, node: NodeId, assignment: &Assignment) {
        let Some(host) = self.hosts.get(&node) else { return };
        let (mut missing, contents) = (Vec::new(), host.kernel.contents());
        for (owner, address, network, mac) in remote_endpoints(assignment) {
            let Some(known) = assignment.networks.get(&network) else { continue };
            let device = vxlan_name(network, known);
            let space = contents.spaces.get(&Place::Fabric(network));
            let key = FdbKey { device: device.clone(), mac, table: FdbTable::Device };
            let there = space.is_some_and(|space| {
                space.fdb.contains_key(&key)
                    && space.neighbours.get(&(device, address)) == Some(&mac)
            });
            if !there {
                missing.push(format!(
                    "node {}: {owner} of the assignment has no entries ({address}, {mac})",
                    node.0
                ));
            }
        }
        drop(contents);
        self.problems.extend(missing);
    }
}

/// Addresses of an assignment that are on other nodes: owner, address, network, MAC address.
fn remote_endpoints(
    assignment: &Assignment,
) -> impl Iterator<Item = (String, IpAddr, cluster::id::NetworkId, MacAddr)> + '_ {
    let tasks = assignment.tasks.iter().filter(|(_, task)| task.node != assignment.node);
    let tasks = tasks.flat_map(|(id, task)| {
        task.attachments.iter().map(move |held| (format!("task {id}"), held))
    });
    let nodes = assignment.nodes.iter().filter(|(id, _)| **id != assignment.node);
    let nodes =
        nodes.filter_map(|(id, node)| Some((format!("node {}", id.0), node.ingress.as_ref()?)));
    tasks.chain(nodes).flat_map(|(owner, held)| {
        held.addresses.iter().map(move |address| (owner.clone(), address, held.network, held.mac))
    })
}

/// What a pass is to reach.
fn desired(pass: &Pass, plant: PlantedBug) -> Plane {
    let suspicious = plant == PlantedBug::SuspicionPurges;
    let seen = suspicious.then(|| without_suspects(&pass.assignment, &pass.view)).flatten();
    render(seen.as_ref().unwrap_or(&pass.assignment), &pass.view, &pass.local)
}

pub(super) fn facts(node: NodeId, description: &NodeDescription, gwbridge: Subnet) -> Facts {
    Facts {
        vtep: address(node).ip(),
        cluster_port: address(node).port(),
        underlay_mtu: description.underlay_mtu.unwrap_or(MTU),
        gwbridge,
        balancer: balancer(node),
    }
}

/// Nodes of one cluster need not balance alike: every other one has IPVS.
pub(super) fn balancer(node: NodeId) -> Balancer {
    if node.0.is_multiple_of(2) { Balancer::Ipvs } else { Balancer::Nft }
}

/// A planted bug: what gossip suspects is taken for gone.
fn without_suspects(assignment: &Assignment, view: &View) -> Option<Assignment> {
    let mut less = assignment.clone();
    less.tasks.retain(|_, task| task.node == assignment.node || view.is_alive(task.node));
    (less != *assignment).then_some(less)
}
