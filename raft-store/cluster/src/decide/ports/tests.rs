use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fixture;
use crate::object::{Node, Service};
use crate::spec::ServiceSpec;
use crate::transaction::Object;

/// Few numbers, most of them in [`AUTO_PORTS`], so that ports meet each other.
fn port() -> impl Strategy<Value = PublishedPort> {
    let number = prop_oneof![29_998..30_004_u16, 32_767..32_769_u16];
    (any::<bool>(), 80..82_u16, number, any::<bool>(), 0..3_u8).prop_map(
        |(udp, target, published, host, at)| PublishedPort {
            name: String::new(),
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            target,
            published,
            mode: if host { PublishMode::Host } else { PublishMode::Ingress },
            address: (at > 0).then_some([192, 0, 2, at].into()),
            ingress_ports: BTreeMap::new(),
        },
    )
}

fn wanted() -> impl Strategy<Value = PortConfig> {
    (port(), any::<bool>()).prop_map(|(port, open)| PortConfig {
        protocol: port.protocol,
        target_port: port.target,
        published_port: if open { 0 } else { port.published },
        publish_mode: port.mode,
        host_ip: port.address.map(|address| address.to_string()).unwrap_or_default(),
        ..PortConfig::default()
    })
}

/// Every service and every node is looked at: the number and the holder of each port, or of which
/// kind the holder is.
fn by_a_look_at_all(
    state: &State,
    id: ServiceId,
    ports: &[PortConfig],
    before: &[PublishedPort],
) -> Result<Vec<u16>, Option<(ServiceId, PublishMode)>> {
    let others: Vec<_> = state.live_services().filter(|other| other.id != id).collect();
    let mut cluster =
        BTreeSet::from([(Protocol::Udp, state.cluster.as_ref().unwrap().data_path_port)]);
    for node in state.nodes.values() {
        let gossip = node.description.gossip.port();
        cluster.extend([(Protocol::Tcp, gossip), (Protocol::Udp, gossip)]);
        cluster.extend(node.raft().map(|place| (Protocol::Tcp, place.address.port())));
    }
    let mut used = cluster.clone();
    used.extend(others.iter().flat_map(|other| &other.ports).map(|p| (p.protocol, p.published)));
    used.extend(ports.iter().map(number));
    let mut given: Vec<PublishedPort> = Vec::new();
    for port in ports {
        let address = port.host_ip.parse::<IpAddr>().ok();
        let published = if port.published_port == 0 {
            let same = |old: &&PublishedPort| {
                (old.protocol, old.target, old.mode, old.address)
                    == (port.protocol, port.target_port, port.publish_mode, address)
                    && AUTO_PORTS.contains(&old.published)
                    && !given
                        .iter()
                        .any(|g| (g.protocol, g.published) == (old.protocol, old.published))
            };
            let old = before.iter().find(same).map(|old| old.published);
            let old = old.filter(|old| !used.contains(&(port.protocol, *old)));
            let mut all = AUTO_PORTS;
            old.or_else(|| all.find(|n| !used.contains(&(port.protocol, *n)))).ok_or(None)?
        } else if cluster.contains(&number(port)) {
            return Err(None);
        } else {
            for other in &others {
                let overlaps = |taken: &&PublishedPort| {
                    (taken.protocol, taken.published) == number(port)
                        && (taken.address == address
                            || taken.address.is_none()
                            || address.is_none())
                };
                for taken in other.ports.iter().filter(overlaps) {
                    if (taken.mode, port.publish_mode) != (PublishMode::Host, PublishMode::Host) {
                        return Err(Some((other.id, taken.mode)));
                    }
                }
            }
            port.published_port
        };
        used.insert((port.protocol, published));
        given.push(PublishedPort {
            published,
            protocol: port.protocol,
            ..fixture_port(port.target_port)
        });
    }
    Ok(given.iter().map(|port| port.published).collect())
}

fn fixture_port(target: u16) -> PublishedPort {
    PublishedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        target,
        published: 0,
        mode: PublishMode::Ingress,
        address: None,
        ingress_ports: BTreeMap::new(),
    }
}

proptest! {
    /// Goal: numbers and refusals are those that a look at every service and node gives.
    /// Method: random services and nodes come, change and go; then ports for a spec.
    #[test]
    fn equals_a_look_at_all(
        services in proptest::collection::vec(
            (1..5_u128, proptest::collection::vec(port(), 0..4), 0..6_u8), 0..12),
        nodes in proptest::collection::vec((1..4_u128, 0..3_u16, any::<bool>()), 0..6),
        ports in proptest::collection::vec(wanted(), 0..5),
    ) {
        let mut state = State::default();
        let mut cluster = fixture::cluster();
        cluster.data_path_port = 30_003;
        state.put(Object::Cluster(Arc::new(cluster))).unwrap();
        for (id, ports, fate) in services {
            let service = fixture::service(id, &format!("s{id}"));
            let service = Service { ports, removed: fate == 1, ..service };
            let object = Object::Service(Arc::new(service));
            state.put(object.clone()).unwrap();
            if fate == 0 {
                state.remove(object.key());
            }
        }
        for (id, port, raft) in nodes {
            let mut node: Node = fixture::node(id, "n", raft.then_some(id as u64));
            node.description.gossip.set_port(30_000 + port);
            if let Some(manager) = &mut node.manager {
                manager.address.set_port(30_001);
            }
            state.put(Object::Node(Arc::new(node))).unwrap();
        }
        let id = ServiceId(1);
        let live = state.services.get(&id).filter(|service| !service.removed).cloned();
        let before = live.map(|service| service.ports.clone()).unwrap_or_default();
        let spec = ServiceSpec {
            endpoint_spec: crate::spec::EndpointSpec { ports: ports.clone(), ..Default::default() },
            ..ServiceSpec::default()
        };
        let found = resolve(&state, id, &spec.into(), &before);
        match by_a_look_at_all(&state, id, &ports, &before) {
            Ok(numbers) => {
                let found: Vec<u16> = found.unwrap().iter().map(|port| port.published).collect();
                prop_assert_eq!(found, numbers);
            }
            Err(None) => {
                let message = found.unwrap_err().message;
                prop_assert!(message.contains("the cluster itself"), "{}", message);
            }
            Err(Some((holder, mode))) => {
                let how = match mode {
                    PublishMode::Ingress => "an ingress port",
                    PublishMode::Host => "a host-published port",
                };
                let name = holder.0;
                let end = format!("is already in use by service 's{name}' ({holder}) as {how}");
                let message = found.unwrap_err().message;
                prop_assert!(message.ends_with(&end), "{} is not {}", message, end);
            }
        }
    }
}

/// Goal: the last number of the range is given, and then none. Method: each is taken.
#[test]
fn the_range_ends() {
    let mut state = State::default();
    let taken = |published| PublishedPort { published, ..fixture_port(80) };
    let ports: Vec<_> = AUTO_PORTS.skip(1).map(taken).collect();
    let service = Service { ports, ..fixture::service(1, "all") };
    state.put(Object::Service(Arc::new(service))).unwrap();
    let open = PortConfig { target_port: 80, ..PortConfig::default() };
    let mut spec = ServiceSpec::default();
    spec.endpoint_spec.ports = vec![open.clone()];
    let found = resolve(&state, ServiceId(2), &spec.clone().into(), &[]).unwrap();
    assert_eq!(found[0].published, *AUTO_PORTS.start());
    spec.endpoint_spec.ports.push(open);
    let refused = resolve(&state, ServiceId(2), &spec.into(), &[]).unwrap_err();
    assert_eq!(
        refused.message,
        "no tcp port from 30000 to 32767 is free for target port 80: give a published port"
    );
}
