//! How large what clients and nodes say may be. Every object is in every manager's memory, log and
//! snapshots, and each change of it is written whole; parts of it go to nodes.

use std::fmt;

use serde::Serialize;

use crate::object::NodeDescription;
use crate::rejection::Rejection;

/// A service's spec: every task carries its part of it.
pub(super) const SERVICE_BYTES_MAX: usize = 64 << 10;
/// A network's spec.
pub(super) const NETWORK_BYTES_MAX: usize = 64 << 10;
/// A node's spec: its name and labels.
pub(super) const NODE_BYTES_MAX: usize = 64 << 10;
/// The cluster's spec.
pub(super) const CLUSTER_BYTES_MAX: usize = 64 << 10;
/// What a node says of itself: its texts and its routes.
const DESCRIPTION_BYTES_MAX: usize = 16 << 10;

/// Refuses what has more bytes than `max` as JSON, which is how it is kept.
pub(super) fn check(
    what: impl fmt::Display,
    value: &impl Serialize,
    max: usize,
) -> Result<(), Rejection> {
    let size = serde_json::to_vec(value).map_or(usize::MAX, |json| json.len());
    if size > max {
        return Err(Rejection::invalid(format!("{what} has {size} bytes: make it {max} at most")));
    }
    Ok(())
}

/// Refuses a node that says too much of itself.
pub(super) fn check_description(description: &NodeDescription) -> Result<(), Rejection> {
    // Its name too may be too long to be repeated.
    check("what the node says of itself, routes included,", description, DESCRIPTION_BYTES_MAX)
}
