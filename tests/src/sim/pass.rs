//! Passes over a node's kernel, as `worker/programmer.rs` makes them: level-triggered, one at a
//! time, again after a failure, and by themselves once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::id::NodeId;
use cluster::net::MacAddr;
use cluster::view::View;
use netprog::kernel::Kernel as _;
use netprog::local::{Balancer, Local};
use netprog::op::{EntryOp, Kind, Op};
use netprog::plan::{Knowledge, plan};
use netprog::plane::{FdbKey, FdbTable, Place, Plane};
use netprog::render::{render, vxlan_name};
use rand::RngExt as _;
use skein::worker::Input;

use super::Plant;
use super::host::{Wanted, gwbridge};
use super::network::address;
use super::world::{Event, World};

/// As the programmer's.
const VERIFY_INTERVAL: Duration = Duration::from_secs(10);
/// As the programmer's.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// A fault strikes one of this many operations of a pass.
const FAULT_REACH: u64 = 20;

impl World {
    pub(super) fn pass_soon(&mut self, node: NodeId) {
        let Some(daemon) = self.daemon(node).filter(|daemon| !daemon.pass_pending) else { return };
        daemon.pass_pending = true;
        let run = daemon.run;
        let delay = self.ms_between(1, self.swarm.pass_ms);
        self.after(delay, Event::Pass { node, run });
    }

    pub(super) fn verify(&mut self, node: NodeId, run: u64, passes: u64) {
        if self.daemon_of_run(node, run).is_some_and(|daemon| daemon.passes == passes) {
            self.serve_pass(node, run);
        }
    }

    pub(super) fn serve_pass(&mut self, node: NodeId, run: u64) {
        let Some(daemon) = self.daemon_of_run(node, run) else { return };
        daemon.pass_pending = false;
        let (wanted, view) = (daemon.wanted.clone(), Arc::clone(&daemon.view));
        let Some((digest, assignment)) = wanted.assignment.clone() else { return };
        let Some(ops) = self.planned(node, &wanted, &assignment, &view) else { return };
        let breaks = !self.calm && self.chance.random_bool(self.swarm.kernel_fault);
        let at = self.chance.random_range(0..FAULT_REACH);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if breaks {
            host.kernel.fail(at);
        }
        let failed = host.kernel.apply(&ops);
        self.passes += 1;
        let reason = failed.first().map(|(_, error)| error.to_string());
        if let Some(reason) = reason.clone().filter(|_| self.calm) {
            self.tell(format!("node {}: {reason}", node.0));
        }
        if failed.is_empty() {
            self.applied(node, digest);
            self.check_entries(node, &assignment);
        }
        let Some(daemon) = self.daemon(node) else { return };
        daemon.passes += 1;
        let passes = daemon.passes;
        let pause = if failed.is_empty() { VERIFY_INTERVAL } else { RETRY_PAUSE };
        self.after(pause, Event::Verify { node, run, passes });
        let sandboxes = wanted.sandboxes.keys().copied();
        // Harsher than the daemon's, which looks where an operation failed.
        let outcome = match reason {
            None => Input::Programmed { ready: sandboxes.collect(), failed: BTreeMap::new() },
            Some(reason) => Input::Programmed {
                ready: BTreeSet::new(),
                failed: sandboxes.map(|id| (id, reason.clone())).collect(),
            },
        };
        self.worker_input(node, outcome);
    }

    /// A daemon that is killed may be in the midst of a pass.
    pub(super) fn half_a_pass(&mut self, node: NodeId) {
        let Some(daemon) = self.daemon(node) else { return };
        let (wanted, view) = (daemon.wanted.clone(), Arc::clone(&daemon.view));
        let Some((_, assignment)) = wanted.assignment.clone() else { return };
        let Some(ops) = self.planned(node, &wanted, &assignment, &view) else { return };
        let done = self.chance.random_range(0..=ops.len());
        if let Some(host) = self.hosts.get_mut(&node) {
            host.kernel.apply(&ops[..done]);
        }
    }

    /// What a pass would do.
    fn planned(
        &mut self,
        node: NodeId,
        wanted: &Wanted,
        assignment: &Assignment,
        view: &View,
    ) -> Option<Vec<Op>> {
        let knowledge = Knowledge::when(wanted.knows_tasks && view.complete);
        let local = local(node, wanted)?;
        let seen = match self.plant {
            Plant::SuspicionPurges => without_suspects(assignment, view),
            Plant::Nothing
            | Plant::SkippedEntry
            | Plant::LostDoorbell
            | Plant::KeptRow
            | Plant::EarlyEnd
            | Plant::OtherName
            | Plant::KeptKey
            | Plant::NoTurn
            | Plant::ToldThief
            | Plant::KeptVote => None,
        };
        let desired = render(seen.as_ref().unwrap_or(assignment), view, &local);
        let host = self.hosts.get_mut(&node)?;
        let observed = host.kernel.observe(&desired).unwrap_or_default();
        let mut ops = plan(&desired, &observed, knowledge);
        if self.plant == Plant::SkippedEntry && node == NodeId(2) {
            skip_an_entry(&desired, &mut ops);
        }
        Some(ops)
    }

    /// What a node would still do if all its knowledge were the truth.
    pub(super) fn left_to_do(
        &mut self,
        node: NodeId,
        assignment: &Assignment,
        truth: &View,
    ) -> Vec<Op> {
        let Some(wanted) = self.daemon(node).map(|daemon| daemon.wanted.clone()) else {
            return Vec::new();
        };
        let Some(local) = local(node, &wanted) else { return Vec::new() };
        let desired = render(assignment, truth, &local);
        let Some(host) = self.hosts.get_mut(&node) else { return Vec::new() };
        let observed = host.kernel.observe(&desired).unwrap_or_default();
        plan(&desired, &observed, Knowledge::Complete)
    }

    /// After a pass every remote endpoint of the assignment has its entries, whatever gossip
    /// thinks of its node: only Raft takes them away.
    fn check_entries(&mut self, node: NodeId, assignment: &Assignment) {
        let Some(host) = self.hosts.get(&node) else { return };
        let mut missing = Vec::new();
        for (owner, address, network, mac) in remote_endpoints(assignment) {
            let Some(known) = assignment.networks.get(&network) else { continue };
            let device = vxlan_name(network, known);
            let space = host.kernel.contents().spaces.get(&Place::Fabric(network));
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
        self.problems.extend(missing);
    }
}

/// Endpoints of an assignment that are on other nodes: owner, address, network, MAC address.
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
    tasks.chain(nodes).map(|(owner, held)| (owner, held.address, held.network, held.mac))
}

pub(super) fn local(node: NodeId, wanted: &Wanted) -> Option<Local> {
    Some(Local {
        vtep: address(node).ip(),
        cluster_port: address(node).port(),
        underlay_mtu: 1500,
        gwbridge: gwbridge()?,
        balancer: balancer(node),
        sandboxes: wanted.sandboxes.clone(),
    })
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

/// A planted bug: the first remote entry of each fabric is never made.
fn skip_an_entry(desired: &Plane, ops: &mut Vec<Op>) {
    let first = desired
        .spaces
        .values()
        .find_map(|space| space.fdb.keys().find(|key| key.table == FdbTable::Device).cloned());
    ops.retain(|op| match &op.kind {
        Kind::Entry(EntryOp::SetFdb(key, _)) => Some(key) != first.as_ref(),
        _ => true,
    });
}
