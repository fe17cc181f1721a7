//! Ends the rotation of the CA once every node has a certificate of the new one. A node that is
//! down is waited for, unless it has been for so long that its certificate of the old CA identifies
//! it no more (`CERTIFICATE_GRACE_MS`), or until it is removed.

use std::sync::Arc;

use crate::draft::Draft;
use crate::object::{CaRotation, Cluster};
use crate::spec::CERTIFICATE_GRACE_MS;
use crate::state::State;
use crate::transaction::Object;

pub(crate) fn run(draft: &mut Draft<'_>) {
    let Some(cluster) = draft.state().cluster.clone() else { return };
    let Some(rotation) = cluster.ca_rotation.as_deref() else { return };
    let wait_max = cluster.longest_certificate_ms() + CERTIFICATE_GRACE_MS;
    let end = rotation.begun_at.plus_ms(wait_max);
    if all_have_moved(draft.state(), rotation) || draft.now() >= end {
        draft.put(Object::Cluster(Arc::new(completed(&cluster, rotation))));
    } else {
        draft.wake_at(end);
    }
}

/// Whether the new CA signed the certificates of all nodes of the cluster.
fn all_have_moved(state: &State, rotation: &CaRotation) -> bool {
    let issuers = &state.index.issuers;
    let ends = [issuers.first_key(), issuers.last_key()];
    ends.into_iter().flatten().all(|issuer| *issuer == Some(rotation.to))
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
