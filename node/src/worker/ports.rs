//! Published ports of this node and the programs of its host that listen on the same ones: looked
//! at before a port is published, told by name, and looked at again until the program has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cluster::assignment::Assignment;
use cluster::id::TaskId;
use netprog::kernel::Kernel;
use netprog::plane::Plane;
use netprog::ports::{Listener, Port, Ports};
use netprog::programmer::Programmer;
use netprog::render::{published, withhold};
use netprog_linux::facts::HostFacts;
use netprog_linux::holders::holders;
use netprog_linux::sock_diag::listeners;

/// The ports of this node that programs and services both want, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conflicts {
    /// One line for each.
    pub lines: BTreeSet<String>,
    /// How many are not published here.
    pub withheld: usize,
}

/// Who has the ports of this node.
#[derive(Debug, Default)]
pub(super) struct HostPorts {
    ports: Ports,
    wanted: BTreeSet<Port>,
    /// Whether the kernel was asked what was published before.
    has_asked: bool,
    /// What this machine is like, where a port at one of its addresses is wanted.
    machine: Option<HostFacts>,
    /// Processes by the inodes of their sockets; none where nothing tells.
    names: BTreeMap<u32, Option<String>>,
}

impl HostPorts {
    /// Leaves out of what is desired what programs have. Until the tasks are known, what was
    /// published before the daemon started may be theirs. Blocks.
    pub(super) fn settle<K: Kernel>(
        &mut self,
        programmer: &mut Programmer<K>,
        desired: &mut Plane,
        (look, knows_tasks): (bool, bool),
    ) {
        self.wanted = published(desired);
        if !self.has_asked {
            match programmer.observe(desired) {
                Ok(observed) => {
                    self.ports.found(published(&observed));
                    self.has_asked = true;
                }
                Err(error) => tracing::warn!(%error, "read which ports are published"),
            }
        }
        if look || self.ports.needs_look(&self.wanted) {
            self.look();
        } else {
            self.ports.keep(&self.wanted);
        }
        if knows_tasks && self.has_asked {
            self.ports.found(BTreeSet::new());
        }
        withhold(desired, self.ports.withheld().keys());
    }

    /// Looks at the listeners again and says whether the ports of programs are others now. Blocks.
    pub(super) fn look_again(&mut self) -> bool {
        let before: BTreeSet<Port> = self.ports.withheld().keys().copied().collect();
        self.look();
        !before.iter().eq(self.ports.withheld().keys())
    }

    fn look(&mut self) {
        self.machine = None;
        if self.wanted.iter().any(|port| port.address.is_some()) {
            let machine = HostFacts::read().inspect_err(|error| {
                tracing::warn!(%error, "read which addresses this machine has");
            });
            self.machine = machine.ok();
        }
        match listeners() {
            Ok(listeners) => self.ports.settle(&self.wanted, &listeners),
            Err(error) => tracing::warn!(%error, "read which programs of this machine listen"),
        }
        let inode = |listener: &Listener| listener.inode;
        let conflicts = self.ports.withheld().values().chain(self.ports.hidden().values());
        let inodes: BTreeSet<u32> = conflicts.map(inode).collect();
        self.names.retain(|inode, _| inodes.contains(inode));
        let unknown: BTreeSet<u32> =
            inodes.into_iter().filter(|inode| !self.names.contains_key(inode)).collect();
        if !unknown.is_empty() {
            let mut found = holders(&unknown);
            self.names.extend(unknown.into_iter().map(|inode| {
                let holder = found.remove(&inode);
                (inode, holder.map(|(pid, name)| format!("{name} (pid {pid})")))
            }));
        }
    }

    /// Whether a program has a port that is to be published here.
    pub(super) fn are_withheld(&self) -> bool {
        !self.ports.withheld().is_empty()
    }

    /// This node's tasks that publish, in mode `host`, a port of a program or one at an address
    /// that this machine does not have, and why they cannot run.
    pub(super) fn refused(&self, assignment: &Assignment) -> BTreeMap<TaskId, String> {
        let reason = |own: &cluster::assignment::OwnTask| {
            own.host_ports().find_map(|port| {
                let port = Port::from(port);
                if let Some(address) = self.lacks(&port) {
                    return Some(format!("this node does not have address {address} of {port}"));
                }
                let who = self.who(self.ports.withheld().get(&port)?);
                Some(format!("{port} of this node is in use: {who}"))
            })
        };
        assignment.own.iter().filter_map(|(id, own)| Some((*id, reason(own)?))).collect()
    }

    fn lacks(&self, port: &Port) -> Option<IpAddr> {
        let machine = self.machine.as_ref()?;
        port.address.filter(|address| !machine.has(*address))
    }

    /// What an operator should know.
    pub(super) fn conflicts(&self, assignment: &Assignment) -> Conflicts {
        let withheld = self.ports.withheld().iter().map(|(port, listener)| {
            let (what, who) = (publication(assignment, *port), self.who(listener));
            format!(
                "{what} is not published on this node: {who}. End that program, or publish \
                 another port"
            )
        });
        let hidden = self.ports.hidden().iter().map(|(port, listener)| {
            let (what, who) = (publication(assignment, *port), self.who(listener));
            format!(
                "{what} is published on this node, and takes all calls by IPv4 of a program that \
                 began to listen later: {who}. Have one of them use another port"
            )
        });
        let lines = withheld.chain(hidden).collect();
        Conflicts { lines, withheld: self.ports.withheld().len() }
    }

    fn who(&self, listener: &Listener) -> String {
        let kernel = || match listener.inode {
            0 => "the kernel".to_owned(),
            _ => "a program".to_owned(),
        };
        let name = self.names.get(&listener.inode).cloned().flatten().unwrap_or_else(kernel);
        let at = std::net::SocketAddr::from((listener.address, listener.port));
        format!("{name} listens on {at}")
    }
}

/// A published port and whose it is.
fn publication(assignment: &Assignment, port: Port) -> String {
    let services = assignment.services.values();
    let ingress = services
        .filter(|service| service.ports.iter().any(|published| Port::from(published) == port));
    let name = ingress.map(|service| service.name.as_str()).next();
    let name = name.map_or_else(String::new, |name| format!(" of service {name}"));
    format!("{port}{name}")
}
