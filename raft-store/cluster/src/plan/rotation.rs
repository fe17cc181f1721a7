//! Ends the rotation of the CA once every node has a certificate of the new one. A node that is
//! down is waited for, unless it has been for so long that its certificate of the old CA identifies
//! it no more (`CERTIFICATE_GRACE_MS`), or until it is removed.

use std::sync::Arc;

use crate::draft::Draft;
use crate::object::{CaRotation, Cluster, Node};
use crate::spec::CERTIFICATE_GRACE_MS;
use crate::transaction::Object;

pub(crate) fn run(draft: &mut Draft<'_>) {
    let Some(cluster) = draft.state().cluster.clone() else { return };
    let Some(rotation) = cluster.ca_rotation.as_deref() else { return };
    let wait_max = cluster.longest_certificate_ms() + CERTIFICATE_GRACE_MS;
    let end = rotation.begun_at.plus_ms(wait_max);
    let mut members = draft.state().nodes.values().filter(|node| !node.has_left());
    if members.all(|node| has_moved(node, rotation)) || draft.now() >= end {
        draft.put(Object::Cluster(Arc::new(completed(&cluster, rotation))));
    } else {
        draft.wake_at(end);
    }
}

fn has_moved(node: &Node, rotation: &CaRotation) -> bool {
    node.description.trust.as_ref().is_some_and(|trust| trust.issuer == rotation.to)
}

/// Tokens carry their CA's digest, so they change with it.
fn completed(cluster: &Cluster, rotation: &CaRotation) -> Cluster {
    Cluster {
        ca_certificate: rotation.certificate.clone(),
        ca_key: rotation.key.clone(),
        worker_token: rotation.worker_token.clone(),
        manager_token: rotation.manager_token.clone(),
        ca: Some(rotation.to),
        ca_rotation: None,
        ..cluster.clone()
    }
}
