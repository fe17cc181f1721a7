//! Writes the pieces of a snapshot to disk as they arrive.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::SnapshotChunk;
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot, SnapshotFolder, SnapshotWriter};

/// One transfer at a time: there is one leader, and it sends one snapshot to this node.
pub(crate) struct SnapshotReceiver {
    folder: Arc<SnapshotFolder>,
    incoming: Mutex<Option<Incoming>>,
}

struct Incoming {
    from: u64,
    transfer: u64,
    total: u64,
    writer: SnapshotWriter,
}

/// The result of a piece.
pub(crate) enum Received {
    /// The next piece starts here.
    More(u64),
    Whole(Snapshot),
}

/// Why a piece was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// It does not follow the last one: the sender starts again.
    #[error("{0}")]
    Piece(String),
    #[error("writing it to disk: {0}")]
    Disk(#[from] io::Error),
}

impl SnapshotReceiver {
    pub(crate) fn new(folder: Arc<SnapshotFolder>) -> Self {
        Self { folder, incoming: Mutex::default() }
    }

    /// Adds a piece; blocks on the disk.
    pub(crate) fn add(&self, from: u64, chunk: &SnapshotChunk) -> Result<Received, ReceiveError> {
        let piece = |reason: String| ReceiveError::Piece(reason);
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let (transfer, total) = (chunk.transfer, chunk.total);
        if total > SNAPSHOT_BYTES_MAX {
            return Err(piece(format!("{total} bytes are over the limit of {SNAPSHOT_BYTES_MAX}")));
        }
        if chunk.offset == 0 {
            // The file of an earlier try goes first, to make room.
            *incoming = None;
            let writer = self.folder.receive(&chunk.meta)?;
            *incoming = Some(Incoming { from, transfer, total, writer });
        }
        let state = incoming
            .as_mut()
            .filter(|state| (state.from, state.transfer) == (from, transfer))
            .ok_or_else(|| piece("the transfer has not begun here".to_owned()))?;
        let written = state.writer.bytes();
        if written != chunk.offset || state.total != total {
            return Err(piece(format!("the next piece starts at {written}")));
        }
        if chunk.data.0.len() as u64 > total - written {
            return Err(piece(format!("the pieces are longer than {total} bytes")));
        }
        state.writer.write_all(&chunk.data.0)?;
        let written = state.writer.bytes();
        if written < total {
            return Ok(Received::More(written));
        }
        match incoming.take() {
            Some(whole) => {
                let snapshot = whole.writer.finish()?;
                Ok(Received::Whole(Snapshot { meta: chunk.meta.clone(), snapshot }))
            }
            None => Err(piece("the transfer has not begun here".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bytes::Bytes;
    use tempfile::TempDir;

    use super::*;
    use crate::seal::{DiskKey, Sealer};
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

    fn receiver() -> (TempDir, SnapshotReceiver) {
        let dir = TempDir::new().unwrap();
        let sealer = Sealer::new(&DiskKey::generate().unwrap()).unwrap();
        let folder = SnapshotFolder::open(dir.path(), Arc::new(sealer)).unwrap();
        (dir, SnapshotReceiver::new(folder))
    }

    #[test]
    fn pieces_in_order_make_the_snapshot() {
        let (_dir, receiver) = receiver();
        assert!(matches!(receiver.add(1, &chunk(0, 0, 5, b"abc")), Ok(Received::More(3))));
        let Ok(Received::Whole(snapshot)) = receiver.add(1, &chunk(0, 3, 5, b"de")) else {
            panic!("not whole")
        };
        let mut bytes = Vec::new();
        snapshot.snapshot.reader().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abcde");
    }

    #[test]
    fn an_empty_snapshot_is_one_empty_piece() {
        let (_dir, receiver) = receiver();
        assert!(matches!(receiver.add(1, &chunk(0, 0, 0, b"")), Ok(Received::Whole(_))));
    }

    #[test]
    fn a_piece_out_of_place_is_refused_and_a_new_transfer_starts_over() {
        let (dir, receiver) = receiver();
        assert!(receiver.add(1, &chunk(0, 3, 5, b"de")).is_err());
        assert!(receiver.add(1, &chunk(0, 0, 5, b"abc")).is_ok());
        for wrong in [
            (1, chunk(0, 2, 5, b"c")),
            (1, chunk(0, 3, 6, b"d")),
            (1, chunk(0, 3, 5, b"def")),
            (1, chunk(1, 3, 5, b"de")),
            (2, chunk(0, 3, 5, b"de")),
            (1, chunk(0, 0, u64::MAX, b"a")),
        ] {
            assert!(receiver.add(wrong.0, &wrong.1).is_err(), "{wrong:?}");
        }
        assert!(matches!(receiver.add(1, &chunk(1, 0, 2, b"x")), Ok(Received::More(1))));
        assert!(matches!(receiver.add(1, &chunk(1, 1, 2, b"y")), Ok(Received::Whole(_))));
        drop(receiver);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nobody wanted the whole one"
        );
    }

    /// Goal: what comes next does not change a snapshot that is being installed.
    #[test]
    fn the_next_transfer_leaves_a_whole_snapshot_as_it_is() {
        let (dir, receiver) = receiver();
        let Ok(Received::Whole(first)) = receiver.add(1, &chunk(0, 0, 3, b"abc")) else {
            panic!("not whole")
        };
        assert!(matches!(receiver.add(2, &chunk(1, 0, 5, b"x")), Ok(Received::More(1))));
        let mut bytes = Vec::new();
        first.snapshot.reader().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abc");
        receiver.folder.place(&first.meta, first.snapshot).unwrap();
        drop(receiver);
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        let name = names[0].as_ref().unwrap().file_name().into_string().unwrap();
        assert!(names.len() == 1 && name.ends_with(".snap"), "{names:?}");
    }
}
