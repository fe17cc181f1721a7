//! Rotation of the CA: another one begins to take the place of the cluster's. That it has is the
//! planner's to find (`plan::rotation`).

use crate::object::{CaRotation, Cluster};
use crate::request::CaChange;
use crate::time::Timestamp;

/// A rotation that runs is replaced: its target was never the cluster's CA, and the certificates
/// that it signed carry the old CA's word for it.
pub(super) fn change(cluster: &mut Cluster, change: &CaChange, now: Timestamp) {
    match change {
        CaChange::Rotate(rotation) => {
            let same = cluster.ca_rotation.as_ref().filter(|running| running.to == rotation.to);
            let begun_at = same.map_or(now, |running| running.begun_at);
            cluster.ca_rotation = Some(Box::new(CaRotation { begun_at, ..*rotation.clone() }));
        }
        CaChange::Keep { ca } => {
            if cluster.ca_rotation.take().is_some() {
                cluster.ca = Some(*ca);
            }
        }
    }
}
