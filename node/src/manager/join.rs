//! Admission: a token gives a role, a signed certificate makes a member.

use std::time::Duration;

use cluster::id::NodeId;
use cluster::object::{Cluster, KeyDigest, ManagerInfo};
use cluster::rejection::{Code, Rejection};
use cluster::request::{Answer, JoinNode, Request};
use cluster::spec::Role;
use cluster::state::State;
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;

use super::Manager;
use crate::causes::chain;
use crate::clock;
use crate::pki::{Authority, PeerIdentity, key_of_request};
use crate::wire::{JoinAnswer, JoinCall, RenewAnswer, RenewCall};

/// Admits a node on the leader, which draws its id: a joiner chooses only its key. A key that is
/// known is that of the node that asks again.
pub(super) async fn admit(manager: &Manager, call: JoinCall) -> Result<JoinAnswer, Rejection> {
    let state = manager.newest();
    let unavailable = || Rejection::new(Code::Unavailable, "the cluster is not ready yet");
    let cluster = state.cluster.clone().ok_or_else(unavailable)?;
    let role = role_of(&cluster, &call.token)?;
    let unreadable = |e| Rejection::invalid(chain(&e));
    let key = key_of_request(&call.request).map_err(unreadable)?;
    let manager_info = (role == Role::Manager)
        .then_some(ManagerInfo { raft_id: rand::random(), address: call.cluster_address });
    let request = Request::JoinNode(Box::new(JoinNode {
        id: NodeId(rand::random()),
        key: Some(key),
        role,
        availability: call.availability,
        description: call.description,
        manager: manager_info,
    }));
    let Answer::Node { id } = manager.decide(request).await? else {
        return Err(Rejection::new(Code::Unavailable, "a join was answered without a node"));
    };
    let state = manager.newest();
    let gone = || Rejection::not_found("node", id);
    let node = state.nodes.get(&id).ok_or_else(gone)?;
    let identity = PeerIdentity { cluster: cluster.id, node: id, role: node.role() };
    // Of the state that the node is in: a rotation may have begun meanwhile.
    let cluster = state.cluster.as_ref().ok_or_else(unavailable)?;
    let authority = Authority::of(cluster);
    let certificate = certificate(&authority, cluster, &call.request, identity)?;
    let managers = state.nodes.values().filter_map(|node| node.manager.as_ref());
    Ok(JoinAnswer {
        cluster: cluster.id,
        node: id,
        raft_id: node.manager.as_ref().map(|info| info.raft_id),
        role: identity.role,
        ca: authority.roots().to_owned(),
        certificate,
        managers: managers.map(|info| info.address).collect(),
        data_path_port: cluster.data_path_port,
    })
}

/// Signs a new certificate for a node that has one: of the key that it joined with, in the role
/// that it has now or is about to get.
pub(super) fn renew(
    state: &State,
    id: NodeId,
    shown: KeyDigest,
    call: &RenewCall,
) -> Result<RenewAnswer, Rejection> {
    let unavailable = || Rejection::new(Code::Unavailable, "the cluster is not ready yet");
    let cluster = state.cluster.as_ref().ok_or_else(unavailable)?;
    let node = state.nodes.get(&id).ok_or_else(|| Rejection::not_found("node", id))?;
    let key = key_of_request(&call.request).map_err(|e| Rejection::invalid(chain(&e)))?;
    // A node whose key is not in the state, as it joined before keys were kept, has the one that it
    // shows.
    if node.key.unwrap_or(shown) != key {
        let message = format!("the request is not of the key that node {id} has");
        return Err(Rejection::invalid(message));
    }
    let role = if node.raft().is_some() { Role::Manager } else { Role::Worker };
    let identity = PeerIdentity { cluster: cluster.id, node: id, role };
    let authority = Authority::of(cluster);
    let certificate = certificate(&authority, cluster, &call.request, identity)?;
    Ok(RenewAnswer { certificate, ca: Some(authority.roots().to_owned()) })
}

fn certificate(
    authority: &Authority,
    cluster: &Cluster,
    request: &str,
    identity: PeerIdentity,
) -> Result<String, Rejection> {
    let now = OffsetDateTime::from(clock::wall());
    let life = Duration::from_millis(cluster.spec.certificate_ms());
    let signed = authority.sign(request, identity, now, life);
    signed.map_err(|error| Rejection::invalid(chain(&error)))
}

/// Compared in a time that does not tell how much of a token is right.
fn role_of(cluster: &Cluster, token: &str) -> Result<Role, Rejection> {
    let is = |right: &str| bool::from(token.as_bytes().ct_eq(right.as_bytes()));
    match (is(&cluster.worker_token), is(&cluster.manager_token)) {
        (true, _) => Ok(Role::Worker),
        (false, true) => Ok(Role::Manager),
        (false, false) => Err(Rejection::new(
            Code::Invalid,
            "the join token is not valid (any more): it may have been rotated; `swarm join-token \
             worker` on a manager prints the current one",
        )),
    }
}
