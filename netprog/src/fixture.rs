//! A small cluster for tests: three nodes, the ingress network and `web`, services `redis` (no
//! ports) and `vote` (published on 3000). Node 1 is the one whose kernel is rendered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::assignment::{
    AssignedNetwork, AssignedNode, AssignedService, AssignedTask, Assignment, OwnTask,
};
use cluster::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use cluster::net::{MacAddr, Subnets, Vni};
use cluster::object::{Attachment, PublishedPort, Slot, TaskState};
use cluster::spec::{Protocol, PublishMode, TaskSpec};
use cluster::time::{Revision, Timestamp};
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, Liveness, View, VtepRow};

use crate::local::{Balancer, Local, LocalSandbox};

pub(crate) const INGRESS: NetworkId = NetworkId(u128::MAX / 36);
pub(crate) const WEB: NetworkId = NetworkId(u128::MAX / 3);
pub(crate) const REDIS: ServiceId = ServiceId(1);
pub(crate) const VOTE: ServiceId = ServiceId(2);

pub(crate) fn node(n: u8) -> NodeId {
    NodeId(u128::from(n))
}

/// Ids that differ in their first characters, as drawn ones do.
pub(crate) fn task(n: u8) -> TaskId {
    TaskId(u128::from(n) << 120 | u128::from(n))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn attachment(network: NetworkId, address: &str) -> Attachment {
    let (addresses, mac) = (ip(address).into(), MacAddr::for_address(ip(address)));
    Attachment { network, addresses, mac, aliases: Vec::new() }
}

fn network(name: &str, vni: u32, subnet: &str, gateway: &str) -> AssignedNetwork {
    AssignedNetwork {
        name: name.to_owned(),
        created_at: Timestamp::default(),
        vni: Vni::try_from(vni).unwrap(),
        subnets: Subnets::one(subnet.parse().unwrap(), ip(gateway)).unwrap(),
        internal: false,
        ingress: name == "ingress",
        underlay_mtu: None,
    }
}

fn service(name: &str, vips: &[(NetworkId, &str)]) -> AssignedService {
    AssignedService {
        name: name.to_owned(),
        vips: vips.iter().map(|(network, vip)| (*network, ip(vip).into())).collect(),
        aliases: BTreeMap::new(),
        ports: Vec::new(),
    }
}

/// The cluster without tasks.
pub(crate) fn assignment() -> Assignment {
    let nodes = (1..=3).map(|n| {
        let node_of = AssignedNode {
            name: format!("node{n}"),
            gossip: format!("192.168.50.{n}:7946").parse().unwrap(),
            proof_key: None,
            vtep: ip(&format!("192.168.50.{n}")),
            manager: None,
            ingress: Some(attachment(INGRESS, &format!("10.0.0.{}", n + 1))),
            up: true,
            underlay_mtu: None,
        };
        (node(n), node_of)
    });
    let mut vote = service("vote", &[(WEB, "10.0.1.3"), (INGRESS, "10.0.0.5")]);
    vote.ports.push(PublishedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        target: 80,
        published: 3000,
        mode: PublishMode::Ingress,
        address: None,
        ingress_ports: (1..=3).map(|n| (node(n), 10_000 + u16::from(n))).collect(),
    });
    Assignment {
        revision: Revision(100),
        cluster: ClusterId(7),
        node: node(1),
        schema: 1,
        data_path_port: 4789,
        gossip_keys: Vec::new(),
        removed: Default::default(),
        raft_id: None,
        trust: None,
        nodes: nodes.collect(),
        networks: BTreeMap::from([
            (INGRESS, network("ingress", 4096, "10.0.0.0/24", "10.0.0.1")),
            (WEB, network("web", 4097, "10.0.1.0/24", "10.0.1.1")),
        ]),
        services: BTreeMap::from([(REDIS, service("redis", &[(WEB, "10.0.1.2")])), (VOTE, vote)]),
        tasks: BTreeMap::new(),
        own: BTreeMap::new(),
    }
}

/// Nobody is up yet but the nodes.
pub(crate) fn view() -> View {
    View {
        vteps: (1..=3)
            .map(|n| (node(n), VtepRow { address: ip(&format!("192.168.50.{n}")) }))
            .collect(),
        liveness: (1..=3).map(|n| (node(n), Liveness::Alive)).collect(),
        complete: true,
        ..View::default()
    }
}

pub(crate) fn local() -> Local {
    Local {
        vtep: ip("192.168.50.1"),
        cluster_port: 2377,
        underlay_mtu: 1500,
        gwbridge: "172.18.0.0/16".parse().unwrap(),
        balancer: Balancer::Nft,
        sandboxes: BTreeMap::new(),
    }
}

/// A task that was made from the service as it is.
pub(crate) fn own(assignment: &Assignment, service: ServiceId) -> OwnTask {
    OwnTask {
        spec: TaskSpec::default(),
        desired: TaskState::Running,
        observed: TaskState::New,
        start_after: None,
        name: String::new(),
        service_name: String::new(),
        service_labels: BTreeMap::new(),
        ports: assignment.services[&service].ports.clone(),
    }
}

/// Everything that rendering and answering read.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) assignment: Assignment,
    pub(crate) view: View,
    pub(crate) local: Local,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { assignment: assignment(), view: view(), local: local() }
    }

    /// Task `n` at 10.0.1.(10+n), and 10.0.0.(10+n) if it is one of `vote`; its sandbox exists if
    /// it is on node 1. No row says that it is up.
    pub(crate) fn add(&mut self, n: u8, service: ServiceId, on: u8) -> &mut Self {
        let mut attachments = vec![attachment(WEB, &format!("10.0.1.{}", 10 + n))];
        if service == VOTE {
            attachments.push(attachment(INGRESS, &format!("10.0.0.{}", 10 + n)));
        }
        let name = if service == VOTE { "vote" } else { "redis" };
        self.assignment.tasks.insert(
            task(n),
            AssignedTask {
                service,
                name: format!("{name}.{n}.{}", task(n)),
                slot: Slot::Replica(n.into()),
                node: node(on),
                attachments,
                draining: false,
            },
        );
        if on == 1 {
            self.assignment.own.insert(task(n), own(&self.assignment, service));
            let sandbox = LocalSandbox {
                egress: ip(&format!("172.18.0.{}", 10 + n)),
                dns_udp_port: 40_000 + u16::from(n),
                dns_tcp_port: 50_000 + u16::from(n),
            };
            self.local.sandboxes.insert(task(n), sandbox);
        }
        self
    }

    /// The task's node announces its endpoints.
    pub(crate) fn up(&mut self, n: u8, healthy: bool) -> &mut Self {
        self.is(n, if healthy { Condition::Ready } else { Condition::Unhealthy })
    }

    /// The same, in any condition.
    pub(crate) fn is(&mut self, n: u8, condition: Condition) -> &mut Self {
        let assigned = &self.assignment.tasks[&task(n)];
        for attachment in &assigned.attachments {
            let owner = EndpointOwner::Task(task(n));
            let row = EndpointRow {
                node: assigned.node,
                addresses: attachment.addresses,
                mac: attachment.mac,
                condition,
                revision: self.assignment.revision,
            };
            let key = EndpointKey { network: attachment.network, owner };
            self.view.endpoints.insert(key, row);
        }
        self
    }
}
