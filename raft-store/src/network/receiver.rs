//! Puts the pieces of a snapshot together.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::SnapshotChunk;
use crate::snapshot::SNAPSHOT_BYTES_MAX;
use crate::types::Snapshot;

/// One transfer at a time: there is one leader, and it sends one snapshot to this node.
#[derive(Default)]
pub(crate) struct SnapshotReceiver {
    incoming: Mutex<Option<Incoming>>,
}

struct Incoming {
    from: u64,
    transfer: u64,
    total: usize,
    data: Vec<u8>,
}

/// What a piece led to.
#[derive(Debug)]
pub(crate) enum Received {
    /// The next piece starts here.
    More(u64),
    Whole(Snapshot),
}

impl SnapshotReceiver {
    /// Adds a piece. On an error the sender starts again.
    pub(crate) fn add(&self, from: u64, chunk: SnapshotChunk) -> Result<Received, String> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let total = usize::try_from(chunk.total).unwrap_or(usize::MAX);
        if total > SNAPSHOT_BYTES_MAX {
            return Err(format!("{total} bytes are over the limit of {SNAPSHOT_BYTES_MAX}"));
        }
        if chunk.offset == 0 {
            *incoming = Some(Incoming { from, transfer: chunk.transfer, total, data: Vec::new() });
        }
        let state = incoming
            .as_mut()
            .filter(|state| (state.from, state.transfer) == (from, chunk.transfer))
            .ok_or("the transfer has not begun here")?;
        if state.data.len() as u64 != chunk.offset || state.total != total {
            return Err(format!("the next piece starts at {}", state.data.len()));
        }
        if chunk.data.0.len() > total - state.data.len() {
            return Err(format!("the pieces are longer than {total} bytes"));
        }
        state.data.extend_from_slice(&chunk.data.0);
        if state.data.len() < total {
            return Ok(Received::More(state.data.len() as u64));
        }
        let data = std::mem::take(&mut state.data);
        *incoming = None;
        Ok(Received::Whole(Snapshot { meta: chunk.meta, snapshot: Bytes::from(data) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Payload, SnapshotMeta, Vote};

    fn chunk(transfer: u64, offset: u64, total: u64, data: &'static [u8]) -> SnapshotChunk {
        SnapshotChunk {
            vote: Vote::new_committed(1, 1),
            meta: SnapshotMeta::default(),
            transfer,
            offset,
            total,
            data: Payload(Bytes::from_static(data)),
        }
    }

    #[test]
    fn pieces_in_order_make_the_snapshot() {
        let receiver = SnapshotReceiver::default();
        assert!(matches!(receiver.add(1, chunk(0, 0, 5, b"abc")), Ok(Received::More(3))));
        let Ok(Received::Whole(snapshot)) = receiver.add(1, chunk(0, 3, 5, b"de")) else {
            panic!("not whole")
        };
        assert_eq!(snapshot.snapshot, &b"abcde"[..]);
    }

    #[test]
    fn an_empty_snapshot_is_one_empty_piece() {
        let receiver = SnapshotReceiver::default();
        assert!(matches!(receiver.add(1, chunk(0, 0, 0, b"")), Ok(Received::Whole(_))));
    }

    #[test]
    fn a_piece_out_of_place_is_refused_and_a_new_transfer_starts_over() {
        let receiver = SnapshotReceiver::default();
        assert!(receiver.add(1, chunk(0, 3, 5, b"de")).is_err());
        assert!(receiver.add(1, chunk(0, 0, 5, b"abc")).is_ok());
        for wrong in [
            (1, chunk(0, 2, 5, b"c")),
            (1, chunk(0, 3, 6, b"d")),
            (1, chunk(0, 3, 5, b"def")),
            (1, chunk(1, 3, 5, b"de")),
            (2, chunk(0, 3, 5, b"de")),
            (1, chunk(0, 0, u64::MAX, b"a")),
        ] {
            assert!(receiver.add(wrong.0, wrong.1.clone()).is_err(), "{wrong:?}");
        }
        assert!(matches!(receiver.add(1, chunk(1, 0, 2, b"x")), Ok(Received::More(1))));
        assert!(matches!(receiver.add(1, chunk(1, 1, 2, b"y")), Ok(Received::Whole(_))));
    }
}
