//! The state as a stream of bytes: a revision, every object and answer.

use std::io::{Read, Write};

use super::{Agenda, State};
use crate::codec::{self, CodecError, SnapshotHead, SnapshotPart};
use crate::time::Revision;
use crate::transaction::Object;

impl State {
    /// Writes the whole state, the same bytes for equal states.
    pub fn write_snapshot(&self, to: &mut dyn Write) -> Result<(), CodecError> {
        let objects = usize::from(self.cluster.is_some())
            + self.nodes.len()
            + self.networks.len()
            + self.services.len()
            + self.tasks.len();
        let head = SnapshotHead::V1 {
            revision: self.revision.0,
            objects: objects as u64,
            answers: self.answers.len() as u64,
            forgotten: self.answers.forgotten().0,
        };
        codec::write_snapshot(to, &head, self.objects(), self.answers.iter())
    }

    /// The inverse of [`State::write_snapshot`]. Fails if the bytes are no snapshot, if two of
    /// its objects have one key or hold one address, or if a request has two answers.
    pub fn read_snapshot(from: &mut dyn Read) -> Result<Self, CodecError> {
        let mut state = Self::default();
        let head = codec::read_snapshot(from, |part| match part {
            SnapshotPart::Object(object) => state.restore(object),
            SnapshotPart::Answered(_, answered) if state.answers.of(answered.request).is_some() => {
                Err(CodecError::Twice(format!("request {}", answered.request)))
            }
            SnapshotPart::Answered(at, answered) => {
                state.keep_answer(at, &answered);
                Ok(())
            }
        })?;
        let SnapshotHead::V1 { revision, forgotten, .. } = head;
        state.revision = Revision(revision);
        state.answers.forget_to(Revision(forgotten));
        state.agenda = Agenda::of(&state);
        Ok(state)
    }

    fn restore(&mut self, object: Object) -> Result<(), CodecError> {
        let key = object.key();
        if self.get(key).is_some() {
            return Err(CodecError::Twice(key.to_string()));
        }
        self.digest.add(&object);
        self.replace(key, Some(object)).map_err(|taken| CodecError::Inconsistent {
            key: key.to_string(),
            address: taken.address,
        })
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
