//! Who may call what: one table of routes and callers, enforced in one place for both listeners.
//!
//! A certificate says who its node was when it was signed; what it is now the newest state says
//! that this node has. Who was removed or has left is turned away, a role is the one of the state,
//! and a key is the one that the node joined with. Nothing of a body is read before that.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use cluster::assignment::Assignment;
use cluster::id::ClusterId;
use cluster::spec::Role;
use tokio::sync::watch;

use super::MemberOnly;
use crate::pki::PeerCertificate;
use crate::wire::NOT_A_MEMBER;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Nodes that have no certificate yet, too.
    Anyone,
    /// Nodes of the cluster.
    Members,
    /// Managers of the cluster.
    Managers,
}

const RAFT: &str = "/raft/{class}";

/// Every route between nodes. One that is not here answers nobody.
pub const ROUTES: [(&str, Callers); 14] = [
    ("/join", Callers::Anyone),
    (RAFT, Callers::Managers),
    ("/manager/request", Callers::Managers),
    ("/manager/digest", Callers::Managers),
    ("/manager/why", Callers::Managers),
    ("/session/watch", Callers::Members),
    ("/session/report", Callers::Members),
    ("/session/leave", Callers::Members),
    ("/session/renew", Callers::Members),
    ("/session/reseat", Callers::Members),
    ("/gossip/sync", Callers::Members),
    ("/node/logs", Callers::Managers),
    ("/node/exec", Callers::Managers),
    ("/node/native", Callers::Managers),
];

/// Whether who answers at a path may: a member, and a manager where only managers serve. A worker's
/// certificate must not do for assignments and Raft, nor that of a node that was removed for
/// anything. A joiner knows no members: it goes by the certificate.
pub(super) fn answers(
    path: &str,
    peer: Option<&PeerCertificate>,
    members: Option<&Membership>,
) -> Result<(), &'static str> {
    let Some(peer) = peer else { return Err("who answers there has no node's certificate") };
    let standing = match members {
        Some(members) => members.standing(peer),
        None => newer(peer),
    };
    let managers = ["/join", "/raft/", "/manager/", "/session/"];
    match standing {
        Standing::Stranger => Err("who answers there is not in this cluster (any more)"),
        Standing::Leaving | Standing::Promoting if path.starts_with("/raft/") => Ok(()),
        Standing::Leaving => Err("who answers there has left the cluster"),
        Standing::Member(Role::Worker) | Standing::Promoting
            if managers.iter().any(|begin| path.starts_with(begin)) =>
        {
            Err("who answers there is no manager of the cluster")
        }
        Standing::Member(_) | Standing::Promoting => Ok(()),
    }
}

/// What this node knows of who belongs to its cluster, as it changes.
#[derive(Clone)]
pub struct Membership {
    /// This node's cluster.
    pub cluster: ClusterId,
    /// The replicated state, on a manager; empty on a worker.
    pub state: watch::Receiver<Arc<cluster::state::State>>,
    /// What the managers told this node.
    pub assignment: watch::Receiver<Option<Arc<Assignment>>>,
}

/// What a caller is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A member in this role.
    Member(Role),
    /// A manager that has left, until it is removed: Raft still needs its votes and entries to take
    /// it out.
    Leaving,
    /// A worker on its way to be a manager: it receives the log, and votes before it counts as one.
    Promoting,
    /// A member no more, or never one.
    Stranger,
}

impl Membership {
    /// Whether this is a node of the cluster, in whatever role.
    pub(super) fn is_member(&self, peer: &PeerCertificate) -> bool {
        match self.standing(peer) {
            Standing::Member(_) | Standing::Leaving | Standing::Promoting => true,
            Standing::Stranger => false,
        }
    }

    /// Whether it has more rights than a worker.
    pub(super) fn may_manage(&self, peer: &PeerCertificate) -> bool {
        !matches!(self.standing(peer), Standing::Member(Role::Worker) | Standing::Stranger)
    }

    fn standing(&self, peer: &PeerCertificate) -> Standing {
        if peer.identity.cluster != self.cluster {
            return Standing::Stranger;
        }
        let state = self.state.borrow();
        let assignment = self.assignment.borrow();
        match assignment.as_deref() {
            Some(assignment) if state.cluster.is_none() => by_assignment(assignment, peer),
            Some(assignment) if assignment.revision > state.revision => {
                by_both(&state, assignment, peer)
            }
            _newest if state.cluster.is_some() => by_state(&state, peer),
            // A node that has just joined knows nobody: the CA is all that it can go by.
            _nothing => newer(peer),
        }
    }
}

/// A manager that has yet to receive the log has states of long ago, in which its leader may be a
/// worker: what it was told since counts for roles and removals.
fn by_both(
    state: &cluster::state::State,
    assignment: &Assignment,
    peer: &PeerCertificate,
) -> Standing {
    match (by_assignment(assignment, peer), by_state(state, peer)) {
        (Standing::Member(_), Standing::Stranger) if has_other_key(state, peer) => {
            Standing::Stranger
        }
        // The assignment does not tell who is on the way.
        (Standing::Member(Role::Worker), Standing::Promoting) => Standing::Promoting,
        (told, _older) => told,
    }
}

fn has_other_key(state: &cluster::state::State, peer: &PeerCertificate) -> bool {
    let node = state.nodes.get(&peer.identity.node);
    node.and_then(|node| node.key).is_some_and(|key| key != peer.key)
}

fn by_state(state: &cluster::state::State, peer: &PeerCertificate) -> Standing {
    let id = peer.identity.node;
    if state.cluster.as_ref().is_some_and(|cluster| cluster.removed.contains_key(&id)) {
        return Standing::Stranger;
    }
    match state.nodes.get(&id) {
        Some(_) if has_other_key(state, peer) => Standing::Stranger,
        Some(node) if node.has_left() => match peer.identity.role {
            Role::Manager => Standing::Leaving,
            Role::Worker => Standing::Stranger,
        },
        Some(node) if node.manager.is_none() && node.promoting.is_some() => Standing::Promoting,
        Some(node) => Standing::Member(node.role()),
        // Signed for one that joined after this state: a follower may lag behind its leader, and
        // must take entries from it.
        None => newer(peer),
    }
}

/// A node that only its certificate speaks for: one that has ended does not.
fn newer(peer: &PeerCertificate) -> Standing {
    let ended = crate::pki::now() > peer.end;
    if ended { Standing::Stranger } else { Standing::Member(peer.identity.role) }
}

fn by_assignment(assignment: &Assignment, peer: &PeerCertificate) -> Standing {
    let id = peer.identity.node;
    if assignment.removed.contains(&id) {
        return Standing::Stranger;
    }
    match assignment.nodes.get(&id) {
        Some(node) if node.manager.is_some() => Standing::Member(Role::Manager),
        Some(_worker) => Standing::Member(Role::Worker),
        None => newer(peer),
    }
}

/// Puts the table before all routes of a router.
pub(super) fn guard(router: Router, membership: Membership) -> Router {
    router.route_layer(from_fn_with_state(membership, check))
}

async fn check(
    State(membership): State<Membership>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<PeerCertificate>().copied();
    match judge(path.as_str(), peer.as_ref(), |peer| membership.standing(peer)) {
        Ok(member) => {
            if let Some(member) = member {
                request.extensions_mut().insert(member);
            }
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Whether a caller may call a route: as whom, or why not.
fn judge(
    path: &str,
    peer: Option<&PeerCertificate>,
    standing: impl Fn(&PeerCertificate) -> Standing,
) -> Result<Option<MemberOnly>, (StatusCode, String)> {
    let callers = ROUTES.iter().find(|(route, _)| *route == path).map(|(_, callers)| *callers);
    let refuse = |status, why: &str| Err((status, why.to_owned()));
    let managers_only = match callers {
        Some(Callers::Anyone) => return Ok(None),
        Some(Callers::Members) => false,
        Some(Callers::Managers) => true,
        None => return refuse(StatusCode::FORBIDDEN, "this route is for nobody"),
    };
    let Some(peer) = peer else {
        let why = "this route is for nodes of the cluster: a node certificate is required";
        return refuse(StatusCode::UNAUTHORIZED, why);
    };
    match standing(peer) {
        Standing::Stranger => {
            let status = StatusCode::from_u16(NOT_A_MEMBER).unwrap_or(StatusCode::GONE);
            Err((status, format!("node {} is not in this cluster (any more)", peer.identity.node)))
        }
        Standing::Leaving | Standing::Promoting if path == RAFT => {
            Ok(Some(MemberOnly(peer.identity, peer.key)))
        }
        Standing::Leaving => {
            let status = StatusCode::from_u16(NOT_A_MEMBER).unwrap_or(StatusCode::GONE);
            Err((status, format!("node {} has left this cluster", peer.identity.node)))
        }
        Standing::Member(Role::Worker) | Standing::Promoting if managers_only => {
            refuse(StatusCode::FORBIDDEN, "this route is for managers")
        }
        Standing::Promoting => Ok(Some(member_as(Role::Worker, peer))),
        Standing::Member(role) => Ok(Some(member_as(role, peer))),
    }
}

fn member_as(role: Role, peer: &PeerCertificate) -> MemberOnly {
    MemberOnly(crate::pki::PeerIdentity { role, ..peer.identity }, peer.key)
}

#[cfg(test)]
mod tests;
