//! A node that sees many endpoints of others: each is known by its row alone, every tenth address
//! is a service's, so a fabric holds two FDB entries, a neighbour entry and a tenth of a route for
//! each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use cluster::assignment::{AssignedNetwork, AssignedNode, AssignedService, Assignment};
use cluster::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use cluster::net::{MacAddr, Subnets, Vni};
use cluster::time::{Revision, Timestamp};
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, Liveness, View};
use netprog::local::{Balancer, Local};
use netprog::op::{EntryOp, Op, RouteOp};
use netprog::plane::{Place, Plane, Space};
use netprog::render::render;

/// The network.
pub(crate) const NETWORK: NetworkId = NetworkId(u128::MAX / 3);
/// Endpoints for each service.
const ENDPOINTS_PER_SERVICE: u32 = 10;
const OWN: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn address(second: u8, n: u32) -> IpAddr {
    let [_, high, middle, low] = n.to_be_bytes();
    Ipv4Addr::new(10, second + high, middle, low).into()
}

/// What the node should realise: services, and no tasks.
pub(crate) fn assignment(endpoints: u32) -> Assignment {
    let node = |n: u8| AssignedNode {
        name: format!("node{n}"),
        gossip: format!("192.168.50.{n}:7946").parse().unwrap(),
        proof_key: None,
        underlay_mtu: None,
        vtep: Ipv4Addr::new(192, 168, 50, n).into(),
        manager: None,
        ingress: None,
        up: true,
    };
    let service = |n: u32| AssignedService {
        name: format!("service{n}"),
        vips: BTreeMap::from([(NETWORK, address(128, n + 2).into())]),
        aliases: BTreeMap::new(),
        ports: Vec::new(),
    };
    let services = 0..endpoints / ENDPOINTS_PER_SERVICE;
    Assignment {
        revision: Revision(100),
        cluster: ClusterId(7),
        node: OWN,
        schema: 1,
        data_path_port: 4789,
        gossip_keys: Vec::new(),
        removed: Default::default(),
        raft_id: None,
        trust: None,
        nodes: BTreeMap::from([(OWN, node(1)), (OTHER, node(2))]),
        networks: BTreeMap::from([(
            NETWORK,
            AssignedNetwork {
                created_at: Timestamp::default(),
                name: "large".to_owned(),
                vni: Vni::try_from(4097).unwrap(),
                subnets: Subnets::V4("10.0.0.1/8".parse().unwrap()),
                internal: false,
                ingress: false,
                underlay_mtu: None,
            },
        )]),
        services: services.map(|n| (ServiceId(u128::from(n) + 1), service(n))).collect(),
        tasks: BTreeMap::new(),
        own: BTreeMap::new(),
    }
}

/// What gossip says: rows that are newer than the assignment.
pub(crate) fn view(endpoints: u32) -> View {
    let row = |n: u32| {
        let address = address(0, n + 2);
        let key =
            EndpointKey { network: NETWORK, owner: EndpointOwner::Task(TaskId(u128::from(n) + 1)) };
        let row = EndpointRow {
            node: OTHER,
            addresses: address.into(),
            mac: MacAddr::for_address(address),
            condition: Condition::Ready,
            revision: Revision(101),
        };
        (key, row)
    };
    View {
        endpoints: (0..endpoints).map(row).collect(),
        liveness: BTreeMap::from([(OWN, Liveness::Alive), (OTHER, Liveness::Alive)]),
        complete: true,
        ..View::default()
    }
}

/// The node itself.
pub(crate) fn local() -> Local {
    Local {
        vtep: Ipv4Addr::new(192, 168, 50, 1).into(),
        cluster_port: 2377,
        underlay_mtu: 1500,
        gwbridge: "172.18.0.0/16".parse().unwrap(),
        balancer: Balancer::Nft,
        sandboxes: BTreeMap::new(),
    }
}

/// What the kernel should hold.
pub(crate) fn desired(endpoints: u32) -> Plane {
    render(&assignment(endpoints), &view(endpoints), &local())
}

/// The network's part of it.
pub(crate) fn fabric(plane: &Plane) -> &Space {
    &plane.spaces[&Place::Fabric(NETWORK)]
}

/// What another program does that takes all entries and routes away.
pub(crate) fn wreck(plane: &Plane) -> Vec<Op> {
    let (place, space) = (Place::Fabric(NETWORK), fabric(plane));
    let routes =
        space.routes.iter().map(|route| Op::new(place, RouteOp::DeleteRoute(route.clone())));
    let fdb = space.fdb.keys().map(|key| Op::new(place, EntryOp::DeleteFdb(key.clone())));
    let neighbours = space.neighbours.keys();
    let neighbours = neighbours.map(|(device, address)| {
        Op::new(place, EntryOp::DeleteNeighbour(device.clone(), *address))
    });
    routes.chain(fdb).chain(neighbours).collect()
}
