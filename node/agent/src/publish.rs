//! What gossip is told: the cluster's keys and members, out of the assignment, and the rows that
//! this node owns.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster::assignment::{AssignedNode, Assignment};
use cluster::id::NodeId;
use cluster::view::{EndpointKey, EndpointRow, VtepRow};
use gossip::{Input, Keyring, KeyringError, Peer};

use crate::Output;
use crate::worker::Worker;

/// What gossip and the rest of the daemon know.
#[derive(Debug)]
pub(crate) struct Published {
    vtep: VtepRow,
    assignment: Option<Arc<Assignment>>,
    rows: Option<BTreeMap<EndpointKey, EndpointRow>>,
}

impl Published {
    pub(crate) fn new(vtep: IpAddr) -> Self {
        Self { vtep: VtepRow { address: vtep }, assignment: None, rows: None }
    }

    /// What is to be told, in order. `is_manager_s` says whether the assignment came from one.
    pub(crate) fn news(&mut self, worker: &Worker, is_manager_s: bool) -> Vec<Output> {
        let Some(assignment) = worker.assignment() else { return Vec::new() };
        let mut news = Vec::new();
        if self.assignment.as_ref().is_none_or(|known| !Arc::ptr_eq(known, assignment)) {
            news.push(match keys(assignment) {
                Ok(keys) => Output::Gossip(Input::Keys(keys)),
                Err(error) => Output::NoKeys(error),
            });
            news.push(Output::Gossip(Input::Peers(gossip_peers(assignment))));
            let assignment = Arc::clone(assignment);
            self.assignment = Some(Arc::clone(&assignment));
            // An engine begins with its first keys, and what it was told before is lost.
            self.rows = None;
            news.push(Output::InForce { assignment, is_manager_s });
        }
        let rows = worker.own_rows();
        if rows != self.rows
            && let Some(endpoints) = rows
        {
            self.rows = Some(endpoints.clone());
            let vtep = self.vtep;
            news.push(Output::Gossip(Input::Own { endpoints, vtep }));
        }
        news
    }
}

fn keys(assignment: &Assignment) -> Result<Keyring, KeyringError> {
    let keys = &assignment.gossip_keys;
    let primary = keys.first().map_or(0, |key| key.id);
    Keyring::new(primary, &keys.iter().map(|key| (key.id, key.key)).collect())
}

/// Peers out of an assignment as gossip knows them, this node itself left out.
#[must_use]
pub fn gossip_peers(assignment: &Assignment) -> BTreeMap<NodeId, Peer> {
    let others = assignment.nodes.iter().filter(|(id, _)| **id != assignment.node);
    let peer = |node: &AssignedNode| Peer { address: node.gossip, key: node.proof_key };
    others.map(|(id, node)| (*id, peer(node))).collect()
}
