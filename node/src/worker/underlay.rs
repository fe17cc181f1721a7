//! This machine's links and routes against the cluster's networks, while the daemon runs.

use std::collections::BTreeSet;

use cluster::assignment::{AssignedNetwork, Assignment};
use netprog_linux::facts::HostFacts;

/// What of this machine and its peers does not fit the networks that this node takes part in, one
/// line each.
pub(super) fn misfits(assignment: &Assignment, machine: &HostFacts, mtu: u32) -> BTreeSet<String> {
    let networks = assignment.networks.values();
    let misfit = |network| {
        [overlapping(network, machine), too_large(network, assignment, mtu)].into_iter().flatten()
    };
    networks.flat_map(misfit).collect()
}

/// The first route of this machine that leads to addresses of a network.
fn overlapping(network: &AssignedNetwork, machine: &HostFacts) -> Option<String> {
    let mut routes = machine.routes.iter().filter(|route| route.prefix_len() > 0);
    let clash = routes.find_map(|route| Some((route, network.subnets.overlapping(route)?)));
    let (route, subnet) = clash?;
    let effect = if network.ingress {
        "published ports do not work by this node"
    } else {
        "tasks of this node cannot reach both"
    };
    Some(format!(
        "route {route} of this machine overlaps subnet {subnet} of network {}: {effect}. Take the \
         route away, or make the network again with another subnet",
        network.name
    ))
}

/// An MTU that the user gave a network and that some node's underlay does not have.
fn too_large(network: &AssignedNetwork, assignment: &Assignment, mtu: u32) -> Option<String> {
    let given = network.underlay_mtu?;
    let nodes = assignment.nodes.iter().filter_map(|(id, node)| {
        let own = (*id == assignment.node).then_some(mtu);
        Some((own.or(node.underlay_mtu)?, node.name.as_str()))
    });
    let (least, node) = nodes.min().filter(|(least, _)| *least < given)?;
    Some(format!(
        "network {} has the option com.docker.network.driver.mtu {given}, and the underlay of node \
         {node} an MTU of {least}: packets that are larger are lost on their way there. Make the \
         network again without the option, or raise that MTU",
        network.name
    ))
}

#[cfg(test)]
mod tests {
    use cluster::net::Subnets;

    use super::*;
    use crate::fixture::cluster;

    /// What misfits a node whose one network has this option, with this route and MTU.
    fn told(option: Option<u32>, route: &str, mtu: u32) -> Vec<String> {
        let state = cluster();
        let id = *state.nodes.keys().next().unwrap();
        let mut assignment = cluster::assignment_for(&state, id).unwrap();
        assignment.networks.clear();
        let network = AssignedNetwork {
            name: "web".to_owned(),
            created_at: cluster::time::Timestamp::default(),
            vni: cluster::net::Vni::FIRST,
            subnets: Subnets::V4("10.0.0.1/24".parse().unwrap()),
            internal: false,
            ingress: true,
            underlay_mtu: option,
        };
        assignment.networks.insert(cluster::id::NetworkId(1), network);
        let machine = HostFacts { routes: vec![route.parse().unwrap()], ..HostFacts::default() };
        misfits(&assignment, &machine, mtu).into_iter().collect()
    }

    #[test]
    fn what_does_not_fit_is_told_by_name() {
        assert!(told(None, "192.0.2.0/24", 1380).is_empty());
        assert!(told(Some(1380), "0.0.0.0/0", 1380).is_empty());
        let line = told(None, "10.0.0.0/16", 1500).remove(0);
        assert!(line.contains("route 10.0.0.0/16") && line.contains("network web"), "{line}");
        let line = told(Some(1500), "192.0.2.0/24", 1380).remove(0);
        assert!(line.contains("driver.mtu 1500") && line.contains("MTU of 1380"), "{line}");
    }
}
