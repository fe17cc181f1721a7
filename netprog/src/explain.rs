//! Explains whether one task reaches another: every step of a call, with the kernel entries that it
//! needs and whether they are present.
//!
//! The view is that of the calling task's node. A remote node explains its own entries.

mod path;

use std::net::IpAddr;

use cluster::assignment::{AssignedTask, Assignment};
use cluster::id::{NetworkId, ServiceId, TaskId};
use cluster::view::View;
use serde::Serialize;

use crate::dns::{self, Answer, Data, Kind, Question, Zone};
use crate::endpoint::Directory;
use crate::local::Balancer;
use crate::plane::Plane;

/// A call to explain.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The assignment of the calling task's node.
    pub assignment: &'a Assignment,
    /// The gossip view of that node.
    pub view: &'a View,
    /// What its kernel holds, read with the desired plane.
    pub observed: &'a Plane,
    /// Which balancer programs VIPs on that node.
    pub balancer: Balancer,
    /// The calling task.
    pub from: TaskId,
    /// A name or an address.
    pub to: &'a str,
    /// The called port, if given.
    pub port: Option<u16>,
}

/// One step of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// `dns`, `port`, `vip`, `backend`, `path` or `arrival`.
    pub stage: &'static str,
    /// In words.
    pub summary: String,
    /// Whether a packet passes this step.
    pub ok: bool,
    /// The kernel entries behind it.
    pub entries: Vec<Entry>,
}

/// A kernel entry that a step needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Namespace.
    pub place: String,
    /// As `ip`, `bridge` or `nft` would print it.
    pub entry: String,
    /// Whether the kernel holds it.
    pub present: bool,
}

impl Hop {
    fn failed(stage: &'static str, summary: String) -> Self {
        Self { stage, summary, ok: false, entries: Vec::new() }
    }

    /// Passes if all entries are there.
    fn checked(stage: &'static str, summary: String, entries: Vec<Entry>) -> Self {
        let ok = entries.iter().all(|entry| entry.present);
        Self { stage, summary, ok, entries }
    }
}

/// The steps of a call in order; the first one that is not `ok` is where it ends.
#[must_use]
pub fn explain(call: &Call<'_>) -> Vec<Hop> {
    let Some(caller) = call.assignment.tasks.get(&call.from) else {
        let summary = format!("task {} is not on the networks of this node", call.from);
        return vec![Hop::failed("dns", summary)];
    };
    let scene = Scene { call, caller, directory: Directory::new(call.assignment, call.view) };
    let mut hops = Vec::new();
    for address in scene.resolve(&mut hops) {
        scene.reach(address, &mut hops);
    }
    hops
}

struct Scene<'a> {
    call: &'a Call<'a>,
    caller: &'a AssignedTask,
    directory: Directory,
}

impl Scene<'_> {
    /// The addresses that the name stands for; pushes the step that says so.
    fn resolve(&self, hops: &mut Vec<Hop>) -> Vec<IpAddr> {
        let name = self.call.to;
        if let Ok(address) = name.parse::<IpAddr>() {
            return vec![address];
        }
        let zone = Zone::build(self.call.assignment, self.call.view);
        let (mut known, mut confined) = (false, false);
        let mut addresses = Vec::new();
        for kind in [Kind::A, Kind::Aaaa] {
            let question = Question { name: name.to_owned(), kind };
            match dns::answer(&zone, self.call.from, &question) {
                Answer::Known(found) => {
                    known = true;
                    addresses.extend(found.into_iter().filter_map(|data| match data {
                        Data::Address(address) => Some(address),
                        Data::Name(_) | Data::Service { .. } => None,
                    }));
                }
                Answer::Confined => confined = true,
                Answer::Unknown => {}
            }
        }
        let hop = if confined {
            let summary = format!(
                "{name} is no name of this task's networks, and no other resolver is asked: they \
                 are internal, or the task is on none yet"
            );
            Hop::failed("dns", summary)
        } else if !known {
            let summary = format!(
                "{name} is no name of this task's networks: it is asked of its service's name \
                 servers, or else of the host's resolvers"
            );
            Hop { stage: "dns", summary, ok: true, entries: Vec::new() }
        } else if addresses.is_empty() {
            let summary = format!("{name} is known, but nothing healthy and live answers to it");
            Hop::failed("dns", summary)
        } else {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let entries = self.dns_redirect();
            Hop::checked("dns", format!("{name} is {}", list.join(", ")), entries)
        };
        hops.push(hop);
        addresses
    }

    /// Pushes the steps from the sandbox to an address.
    fn reach(&self, address: IpAddr, hops: &mut Vec<Hop>) {
        let attached = self.caller.attachments.iter().find(|attachment| {
            let network = self.call.assignment.networks.get(&attachment.network);
            network.is_some_and(|network| network.subnets.contains(address))
        });
        let Some(attachment) = attached else {
            let summary =
                format!("{address} is on no network of this task: it leaves by the egress bridge");
            hops.push(Hop { stage: "path", summary, ok: true, entries: Vec::new() });
            return;
        };
        let network = attachment.network;
        hops.push(self.port(attachment));
        match self.service_of(network, address) {
            Some(service) => self.balance(network, service, address, hops),
            None => self.direct(network, address, hops),
        }
    }

    fn service_of(&self, network: NetworkId, vip: IpAddr) -> Option<ServiceId> {
        let mut services = self.call.assignment.services.iter();
        services
            .find(|(_, s)| s.vips.get(&network).is_some_and(|vips| vips.contains(vip)))
            .map(|(id, _)| *id)
    }

    /// What the call is about, with its port if one was given.
    fn target(&self, address: IpAddr) -> String {
        match self.call.port {
            Some(port) => std::net::SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
