//! The state as bytes: a revision and every object.

use super::State;
use crate::codec::{self, CodecError};
use crate::time::Revision;
use crate::transaction::Object;

/// The largest snapshot that is read: a gigabyte holds some 500,000 tasks.
pub const SNAPSHOT_BYTES_MAX: usize = codec::SNAPSHOT_BYTES_MAX;

impl State {
    /// The whole state as bytes, the same for equal states.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode_snapshot(self.revision, self.objects())
    }

    /// The inverse of [`State::to_snapshot`]. Fails if the bytes are no snapshot, or if two of its
    /// objects hold one address.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, CodecError> {
        let (revision, objects): (Revision, Vec<Object>) = codec::decode_snapshot(bytes)?;
        let mut state = Self { revision, ..Self::default() };
        for object in objects {
            let key = object.key();
            state.put(object).map_err(|taken| CodecError::Inconsistent {
                key: key.to_string(),
                address: taken.address,
            })?;
        }
        Ok(state)
    }

    fn objects(&self) -> impl Iterator<Item = Object> {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        let nodes = self.nodes.values().cloned().map(Object::Node);
        let networks = self.networks.values().cloned().map(Object::Network);
        let services = self.services.values().cloned().map(Object::Service);
        let tasks = self.tasks.values().cloned().map(Object::Task);
        cluster.chain(nodes).chain(networks).chain(services).chain(tasks)
    }
}
