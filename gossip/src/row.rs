//! What the table holds: one fact of one owner, with the version that orders it.

use cluster::net::{Addresses, MacAddr};
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointRow, VtepRow};
use serde::{Deserialize, Serialize};

use crate::proof::Proof;

/// Orders the writes of one owner; versions of different owners are never compared.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Version {
    /// Which run of the owner wrote it; grows at each start of the owner.
    pub generation: u64,
    /// Which write of that run; no two rows of an owner share a version.
    pub counter: u64,
}

/// Which fact of its owner a row states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowKey {
    /// An endpoint that the owner runs.
    Endpoint(EndpointKey),
    /// Where the owner receives VXLAN.
    Vtep,
}

/// An endpoint row without its node: that is the owner, so an own row cannot name another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointValue {
    /// Addresses on the network.
    pub addresses: Addresses,
    /// MAC address.
    pub mac: MacAddr,
    /// Who may use it.
    pub condition: Condition,
    /// Revision of the assignment that it was made from.
    pub revision: Revision,
}

impl From<&EndpointRow> for EndpointValue {
    fn from(row: &EndpointRow) -> Self {
        let EndpointRow { addresses, mac, condition, revision, .. } = *row;
        Self { addresses, mac, condition, revision }
    }
}

/// A fact, or the statement that it no longer holds: `None` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An endpoint is up.
    Endpoint(EndpointKey, Option<EndpointValue>),
    /// The owner receives VXLAN here.
    Vtep(Option<VtepRow>),
}

impl Record {
    /// The fact's name.
    #[must_use]
    pub fn key(&self) -> RowKey {
        match self {
            Self::Endpoint(key, _) => RowKey::Endpoint(*key),
            Self::Vtep(_) => RowKey::Vtep,
        }
    }

    /// Whether it says that the fact holds.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self {
            Self::Endpoint(_, value) => value.is_some(),
            Self::Vtep(value) => value.is_some(),
        }
    }

    /// The record that says that the fact no longer holds.
    #[must_use]
    pub fn tombstone(key: RowKey) -> Self {
        match key {
            RowKey::Endpoint(key) => Self::Endpoint(key, None),
            RowKey::Vtep => Self::Vtep(None),
        }
    }
}

/// A record with its version; whose it is, the table that holds it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// When it was written, in its owner's order.
    pub version: Version,
    /// What it says.
    pub record: Record,
    /// That its owner wrote it.
    pub proof: Proof,
}
