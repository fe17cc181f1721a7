//! The state as a stream of bytes: a revision and every object.

use std::io::{Read, Write};

use super::State;
use crate::codec::{self, CodecError};
use crate::plan::agenda::Agenda;
use crate::transaction::Object;

impl State {
    /// Writes the whole state, the same bytes for equal states.
    pub fn write_snapshot(&self, to: &mut dyn Write) -> Result<(), CodecError> {
        let count = usize::from(self.cluster.is_some())
            + self.nodes.len()
            + self.networks.len()
            + self.services.len()
            + self.tasks.len();
        codec::write_snapshot(to, self.revision, count as u64, self.objects())
    }

    /// The inverse of [`State::write_snapshot`]. Fails if the bytes are no snapshot, or if two of
    /// its objects have one key or hold one address.
    pub fn read_snapshot(from: &mut dyn Read) -> Result<Self, CodecError> {
        let mut state = Self::default();
        state.revision = codec::read_snapshot(from, |object| {
            let key = object.key();
            if state.get(key).is_some() {
                return Err(CodecError::Twice(key.to_string()));
            }
            state.digest.add(&object);
            state.replace(key, Some(object)).map_err(|taken| CodecError::Inconsistent {
                key: key.to_string(),
                address: taken.address,
            })
        })?;
        state.agenda = Agenda::of(&state);
        Ok(state)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = Object> {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        let nodes = self.nodes.values().cloned().map(Object::Node);
        let networks = self.networks.values().cloned().map(Object::Network);
        let services = self.services.values().cloned().map(Object::Service);
        let tasks = self.tasks.values().cloned().map(Object::Task);
        cluster.chain(nodes).chain(networks).chain(services).chain(tasks)
    }
}
