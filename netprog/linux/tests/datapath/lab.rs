//! Two nodes on one underlay, each with a host namespace of its own, and a client outside.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use cluster::assignment::{
    AssignedNetwork, AssignedNode, AssignedService, AssignedTask, Assignment, OwnTask,
};
use cluster::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use cluster::net::{MacAddr, Subnets, Vni};
use cluster::object::{Attachment, PublishedPort, Slot, TaskState};
use cluster::spec::{Protocol, PublishMode, TaskSpec};
use cluster::time::{Revision, Timestamp};
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, Liveness, View, VtepRow};
use netprog::kernel::Kernel;
use netprog::local::{Local, LocalSandbox};
use netprog::op::{LinkChange, LinkOp, Op};
use netprog::plan::{Knowledge, plan};
use netprog::plane::Place;
use netprog::render::render;
use netprog_linux::spaces::{Spaces as _, new_namespace};
use netprog_linux::{HeldSpaces, LinuxKernel};

pub(crate) const INGRESS: NetworkId = NetworkId(u128::MAX / 36);
pub(crate) const WEB: NetworkId = NetworkId(u128::MAX / 3);
/// The service that is called: a VIP on `web`, and port 3000 published to its port 80.
pub(crate) const ECHO: ServiceId = ServiceId(1);
/// One that only calls.
pub(crate) const CALLER: ServiceId = ServiceId(2);
pub(crate) const VIP: &str = "10.0.1.2";
/// A network of IPv6, and the VIP of `echo` there.
pub(crate) const SIX: NetworkId = NetworkId(u128::MAX / 7);
pub(crate) const VIP_SIX: &str = "fd00:a::2";
pub(crate) const CLIENT: &str = "192.168.50.9";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId(n.into())
}

/// Ids that differ in their first characters, as drawn ones do.
pub(crate) fn task(n: u8) -> TaskId {
    TaskId(u128::from(n) << 120 | u128::from(n))
}

/// Task `n`'s place.
pub(crate) fn sandbox(n: u8) -> Place {
    Place::Sandbox(task(n))
}

/// A node: its kernel and what it knows of itself.
pub(crate) struct Node {
    pub(crate) kernel: LinuxKernel<HeldSpaces>,
    local: Local,
}

/// The cluster, its nodes and the client.
pub(crate) struct Lab {
    pub(crate) assignment: Assignment,
    pub(crate) view: View,
    pub(crate) nodes: BTreeMap<u8, Node>,
    /// Outside: its host namespace is the client's.
    pub(crate) client: LinuxKernel<HeldSpaces>,
    _underlay: LinuxKernel<HeldSpaces>,
}

/// Runs `ip` with these words in the host namespace of a kernel.
pub(crate) fn run(kernel: &mut LinuxKernel<HeldSpaces>, words: &str) {
    let mut parts = words.split_whitespace();
    let program = parts.next().unwrap().to_owned();
    let arguments: Vec<String> = parts.map(str::to_owned).collect();
    let job = move || Command::new(program).args(arguments).output();
    let output = kernel.run(Place::Host, job).unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {complaint}");
}

/// A namespace on the underlay with address 192.168.50.`n`.
fn machine(switch: &OwnedFd, n: u8) -> LinuxKernel<HeldSpaces> {
    let mut kernel = LinuxKernel::new(HeldSpaces::new(new_namespace().unwrap()));
    let switch = format!("/proc/{}/fd/{}", std::process::id(), switch.as_raw_fd());
    run(&mut kernel, "ip link set lo up");
    run(&mut kernel, &format!("ip link add eth0 type veth peer name port{n} netns {switch}"));
    run(&mut kernel, &format!("ip addr add 192.168.50.{n}/24 dev eth0"));
    run(&mut kernel, "ip link set eth0 up");
    kernel
}

fn attachment(network: NetworkId, address: &str) -> Attachment {
    let (addresses, mac) = (ip(address).into(), MacAddr::for_address(ip(address)));
    Attachment { network, addresses, mac, aliases: Vec::new() }
}

fn published(protocol: Protocol, published: u16, first: u16) -> PublishedPort {
    PublishedPort {
        name: String::new(),
        protocol,
        target: 80,
        published,
        mode: PublishMode::Ingress,
        address: None,
        ingress_ports: (1..=2).map(|n| (node(n), first + u16::from(n))).collect(),
    }
}

fn assignment() -> Assignment {
    let network = |name: &str, vni: u32, third: u8| AssignedNetwork {
        name: name.to_owned(),
        created_at: Timestamp::default(),
        vni: Vni::try_from(vni).unwrap(),
        subnets: Subnets::V4(format!("10.0.{third}.1/24").parse().unwrap()),
        internal: false,
        ingress: name == "ingress",
        underlay_mtu: None,
    };
    let six = |four: AssignedNetwork| AssignedNetwork {
        subnets: Subnets::V6("fd00:a::1/64".parse().unwrap()),
        ..four
    };
    let service = |name: &str, vips: &[(NetworkId, &str)], ports| AssignedService {
        name: name.to_owned(),
        vips: vips.iter().map(|(network, vip)| (*network, ip(vip).into())).collect(),
        aliases: BTreeMap::new(),
        ports,
    };
    let ports =
        vec![published(Protocol::Tcp, 3000, 10_000), published(Protocol::Udp, 3000, 10_010)];
    let nodes = (1..=2).map(|n| {
        let assigned = AssignedNode {
            name: format!("node{n}"),
            gossip: format!("192.168.50.{n}:7946").parse().unwrap(),
            proof_key: None,
            vtep: ip(&format!("192.168.50.{n}")),
            manager: None,
            ingress: Some(attachment(INGRESS, &format!("10.0.0.{}", n + 1))),
            up: true,
            underlay_mtu: None,
        };
        (node(n), assigned)
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
            (INGRESS, network("ingress", 4096, 0)),
            (WEB, network("web", 4097, 1)),
            (SIX, six(network("six", 4098, 6))),
        ]),
        services: BTreeMap::from([
            (ECHO, service("echo", &[(WEB, VIP), (SIX, VIP_SIX), (INGRESS, "10.0.0.5")], ports)),
            (CALLER, service("caller", &[(WEB, "10.0.1.3")], Vec::new())),
        ]),
        tasks: BTreeMap::new(),
        own: BTreeMap::new(),
    }
}

fn own(ports: Vec<PublishedPort>) -> OwnTask {
    OwnTask {
        spec: TaskSpec::default(),
        desired: TaskState::Running,
        observed: TaskState::New,
        start_after: None,
        name: String::new(),
        service_name: String::new(),
        service_labels: BTreeMap::new(),
        ports,
    }
}

impl Lab {
    /// Two nodes without tasks.
    pub(crate) fn new() -> Self {
        let switch = new_namespace().unwrap();
        let mut underlay = LinuxKernel::new(HeldSpaces::new(switch.try_clone().unwrap()));
        run(&mut underlay, "ip link add br0 type bridge");
        run(&mut underlay, "ip link set br0 up");
        let mut join = |n: u8| {
            let kernel = machine(&switch, n);
            run(&mut underlay, &format!("ip link set port{n} master br0 up"));
            kernel
        };
        let client = join(9);
        let nodes = (1..=2).map(|n| {
            let local = Local {
                vtep: ip(&format!("192.168.50.{n}")),
                cluster_port: 2377,
                underlay_mtu: 1500,
                gwbridge: "172.18.0.0/16".parse().unwrap(),
                balancer: crate::BALANCER,
                sandboxes: BTreeMap::new(),
            };
            (n, Node { kernel: join(n), local })
        });
        let nodes = nodes.collect();
        let view = View {
            vteps: (1..=2)
                .map(|n| (node(n), VtepRow { address: ip(&format!("192.168.50.{n}")) }))
                .collect(),
            liveness: (1..=2).map(|n| (node(n), Liveness::Alive)).collect(),
            complete: true,
            ..View::default()
        };
        Self { assignment: assignment(), view, nodes, client, _underlay: underlay }
    }

    /// Adds task `n` at 10.0.1.(10+n) and fd00:a::(10+n) on a node; one of `echo` is also on the
    /// ingress network.
    pub(crate) fn add(&mut self, n: u8, service: ServiceId, on: u8) {
        let mut attachments = vec![
            attachment(WEB, &format!("10.0.1.{}", 10 + n)),
            attachment(SIX, &format!("fd00:a::{}", 10 + n)),
        ];
        if service == ECHO {
            attachments.push(attachment(INGRESS, &format!("10.0.0.{}", 10 + n)));
        }
        for attachment in &attachments {
            let owner = EndpointOwner::Task(task(n));
            let row = EndpointRow {
                node: node(on),
                addresses: attachment.addresses,
                mac: attachment.mac,
                condition: Condition::Ready,
                revision: self.assignment.revision,
            };
            self.view.endpoints.insert(EndpointKey { network: attachment.network, owner }, row);
        }
        let assigned = AssignedTask {
            service,
            name: format!("task.{n}.{}", task(n)),
            slot: Slot::Replica(n.into()),
            node: node(on),
            attachments,
            draining: false,
        };
        self.assignment.tasks.insert(task(n), assigned);
        let ports = self.assignment.services[&service].ports.clone();
        self.assignment.own.insert(task(n), own(ports));
        let owner = self.nodes.get_mut(&on).unwrap();
        owner.kernel.spaces().create_sandbox(task(n)).unwrap();
        let up = Op::new(sandbox(n), LinkOp::Set("lo".to_owned(), LinkChange::Up(true)));
        assert_eq!(owner.kernel.apply(&[up]), []);
        let sandbox = LocalSandbox {
            egress: ip(&format!("172.18.0.{}", 10 + n)),
            dns_udp_port: 40_000 + u16::from(n),
            dns_tcp_port: 40_000 + u16::from(n),
        };
        owner.local.sandboxes.insert(task(n), sandbox);
    }

    /// Publishes port 80 of a task on its own node.
    pub(crate) fn publish_on_host(&mut self, n: u8, protocol: Protocol, number: u16) {
        let mut port = published(protocol, number, 0);
        port.mode = PublishMode::Host;
        port.ingress_ports.clear();
        self.assignment.own.get_mut(&task(n)).unwrap().ports.push(port);
    }

    /// Removes a task with its sandbox.
    pub(crate) fn remove(&mut self, n: u8) {
        let gone = EndpointOwner::Task(task(n));
        self.view.endpoints.retain(|key, _| key.owner != gone);
        self.assignment.tasks.remove(&task(n));
        self.assignment.own.remove(&task(n));
        for owner in self.nodes.values_mut() {
            owner.local.sandboxes.remove(&task(n));
            owner.kernel.spaces().delete_sandbox(task(n));
        }
    }

    /// Another agent begins on a node, with all that is in its kernel.
    pub(crate) fn restart(&mut self, on: u8) {
        let owner = self.nodes.get_mut(&on).unwrap();
        let host = owner.kernel.spaces().open(Place::Host).unwrap().unwrap();
        let spaces = std::mem::replace(owner.kernel.spaces(), HeldSpaces::new(host));
        owner.kernel = LinuxKernel::new(spaces);
    }

    /// One pass on every node; a second one must find nothing to do.
    pub(crate) fn settle(&mut self) {
        let nodes: Vec<u8> = self.nodes.keys().copied().collect();
        nodes.into_iter().for_each(|n| self.settle_on(n));
    }

    /// The same on one node.
    pub(crate) fn settle_on(&mut self, n: u8) {
        let owner = self.nodes.get_mut(&n).unwrap();
        let assignment = Assignment { node: node(n), ..self.assignment.clone() };
        let desired = render(&assignment, &self.view, &owner.local);
        let observed = owner.kernel.observe(&desired).unwrap();
        let ops = plan(&desired, &observed, Knowledge::Complete);
        assert_eq!(owner.kernel.apply(&ops), [], "node {n}");
        let observed = owner.kernel.observe(&desired).unwrap();
        let left = plan(&desired, &observed, Knowledge::Complete);
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "node {n}: {left:#?}");
    }

    /// A place of a node, to open sockets in.
    pub(crate) fn at(&mut self, on: u8, place: Place) -> (&mut LinuxKernel<HeldSpaces>, Place) {
        (&mut self.nodes.get_mut(&on).unwrap().kernel, place)
    }
}
