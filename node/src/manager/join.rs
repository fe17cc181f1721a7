//! Admission: a token gives a role, a signed certificate makes a member.

use cluster::object::{Cluster, ManagerInfo};
use cluster::rejection::{Code, Rejection};
use cluster::request::{JoinNode, Request};
use cluster::spec::Role;
use time::OffsetDateTime;

use super::Manager;
use crate::clock;
use crate::pki::{Ca, PeerIdentity, sign};
use crate::wire::{JoinAnswer, JoinCall};

/// Admits a node on the leader.
pub(super) async fn admit(manager: &Manager, call: JoinCall) -> Result<JoinAnswer, Rejection> {
    let state = manager.newest();
    let unavailable = || Rejection::new(Code::Unavailable, "the cluster is not ready yet");
    let cluster = state.cluster.clone().ok_or_else(unavailable)?;
    let role = role_of(&cluster, &call.token)?;
    let identity = PeerIdentity { cluster: cluster.id, node: call.node, role };
    let ca = Ca { certificate: cluster.ca_certificate.clone(), key: cluster.ca_key.clone() };
    let now = OffsetDateTime::from(clock::wall());
    let certificate = sign(&ca, &call.request, identity, now)
        .map_err(|e| Rejection::invalid(format!("sign the node's certificate: {e}")))?;
    let manager_info = (role == Role::Manager)
        .then_some(ManagerInfo { raft_id: call.raft_id, address: call.cluster_address });
    manager
        .decide(Request::JoinNode(Box::new(JoinNode {
            id: call.node,
            role,
            availability: call.availability,
            description: call.description,
            manager: manager_info,
        })))
        .await?;
    let managers = manager.newest();
    let managers = managers.nodes.values().filter_map(|node| node.manager.as_ref());
    Ok(JoinAnswer {
        cluster: cluster.id,
        role,
        ca: cluster.ca_certificate.clone(),
        certificate,
        managers: managers.map(|info| info.address).collect(),
        data_path_port: cluster.data_path_port,
    })
}

fn role_of(cluster: &Cluster, token: &str) -> Result<Role, Rejection> {
    if token == cluster.worker_token {
        Ok(Role::Worker)
    } else if token == cluster.manager_token {
        Ok(Role::Manager)
    } else {
        Err(Rejection::new(
            Code::Invalid,
            "the join token is not valid (any more): it may have been rotated; `swarm join-token \
             worker` on a manager prints the current one",
        ))
    }
}
