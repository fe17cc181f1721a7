//! One snapshot as a file: written and read as a stream, so that its size is not held in memory.
//!
//! A file is a magic number, an id drawn for it, and frames: the metadata of openraft first, then
//! the machine's bytes in pieces of a megabyte. Each frame is a length and a sealed piece; the seal
//! covers the id, the frame's number and whether it is the last one, so a file that was changed,
//! cut short or put together from others does not open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec;
use crate::seal::{self, SEAL_BYTES, Sealer};
use crate::types::SnapshotMeta;

/// A state of more bytes cannot be snapshot.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 8 << 30;
/// Bytes of the machine in one frame.
pub(crate) const FRAME_BYTES: usize = 1 << 20;
const MAGIC: &[u8; 8] = b"skeinsn2";
const ID_BYTES: usize = 16;
const HEAD_BYTES: u64 = (MAGIC.len() + ID_BYTES) as u64;
const LENGTH_BYTES: usize = 4;
const FILE_MODE: u32 = 0o600;

type Id = [u8; ID_BYTES];

fn place(id: &Id, frame: u64, is_last: bool) -> Vec<u8> {
    [b"snapshot\0", &id[..], &frame.to_be_bytes(), &[u8::from(is_last)]].concat()
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

/// A snapshot that is being written. Dropped unfinished, it leaves nothing.
pub(crate) struct SnapshotWriter {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    sealer: Arc<Sealer>,
    id: Id,
    frame: u64,
    piece: Vec<u8>,
    bytes: u64,
}

impl SnapshotWriter {
    pub(crate) fn create(
        path: PathBuf,
        meta: &SnapshotMeta,
        sealer: Arc<Sealer>,
    ) -> io::Result<Self> {
        let id: Id = seal::random()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        let mut file = BufWriter::new(options.open(&path)?);
        file.write_all(MAGIC)?;
        file.write_all(&id)?;
        let piece = Vec::with_capacity(FRAME_BYTES);
        let mut writer = Self { path, file: Some(file), sealer, id, frame: 0, piece, bytes: 0 };
        writer.put(&codec::encode(meta)?, false)?;
        Ok(writer)
    }

    fn put(&mut self, piece: &[u8], is_last: bool) -> io::Result<()> {
        let sealed = self.sealer.seal(&place(&self.id, self.frame, is_last), piece)?;
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("it is finished"))?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(&sealed)?;
        self.frame += 1;
        Ok(())
    }

    /// Bytes of the machine so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts it on disk, under the name that it was created with.
    pub(crate) fn finish(mut self) -> io::Result<SnapshotFile> {
        let piece = std::mem::take(&mut self.piece);
        self.put(&piece, true)?;
        let file = self.file.take().ok_or_else(|| io::Error::other("it is finished"))?;
        let unplaced = Arc::new(Unplaced(self.path.clone()));
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(SnapshotFile {
            file: Arc::new(file),
            path: self.path.clone(),
            _unplaced: Some(unplaced),
            sealer: self.sealer.clone(),
            id: self.id,
            bytes: self.bytes,
        })
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == FRAME_BYTES {
            let piece = std::mem::take(&mut self.piece);
            self.put(&piece, false)?;
            self.piece = piece;
            self.piece.clear();
        }
        let taken = bytes.len().min(FRAME_BYTES - self.piece.len());
        if self.bytes + taken as u64 > SNAPSHOT_BYTES_MAX {
            return Err(io::Error::other(format!(
                "the state has more than the {SNAPSHOT_BYTES_MAX} bytes of a snapshot"
            )));
        }
        self.piece.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What stays is removed at the next start.
            let _left = fs::remove_file(&self.path);
        }
    }
}

/// The temporary name of a snapshot. Dropping it removes the file of that name. Once the snapshot
/// has its final name no such file exists, so only an unfinished snapshot is removed.
struct Unplaced(PathBuf);

impl Drop for Unplaced {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _left = fs::remove_file(&self.0);
    }
}

/// A finished snapshot; it can be read as long as this exists, though its name may be gone.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    file: Arc<File>,
    path: PathBuf,
    /// Until it has its name.
    _unplaced: Option<Arc<Unplaced>>,
    sealer: Arc<Sealer>,
    id: Id,
    bytes: u64,
}

impl SnapshotFile {
    /// Opens a file and reads all of it: every frame is there and as it was written.
    pub(crate) fn open(path: &Path, sealer: Arc<Sealer>) -> io::Result<(SnapshotMeta, Self)> {
        let file = File::open(path)?;
        let mut head = [0; HEAD_BYTES as usize];
        file.read_exact_at(&mut head, 0).map_err(short)?;
        let (magic, id) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it is not a snapshot of this version"));
        }
        let id: Id = id.try_into().map_err(|_length| damaged("its head is cut short"))?;
        let path = path.to_owned();
        let file = Arc::new(file);
        let mut snapshot = Self { file, path, _unplaced: None, sealer, id, bytes: 0 };
        let mut frames =
            Frames { snapshot: snapshot.clone(), at: HEAD_BYTES, frame: 0, ended: false };
        let meta = frames.next()?.ok_or_else(|| damaged("it is cut short"))?;
        let meta = codec::decode(&meta).map_err(|e| damaged(&e.to_string()))?;
        while let Some(piece) = frames.next()? {
            snapshot.bytes += piece.len() as u64;
        }
        if frames.at != snapshot.file.metadata()?.len() {
            return Err(damaged("it has bytes too many"));
        }
        Ok((meta, snapshot))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same snapshot after its file was renamed.
    pub(crate) fn renamed(self, path: PathBuf) -> Self {
        Self { path, _unplaced: None, ..self }
    }

    /// Bytes of the machine in it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The machine's bytes from their beginning.
    pub(crate) fn reader(&self) -> io::Result<SnapshotReader> {
        let mut frames = Frames { snapshot: self.clone(), at: HEAD_BYTES, frame: 0, ended: false };
        frames.next()?;
        Ok(SnapshotReader { frames, piece: Vec::new(), read: 0 })
    }
}

fn short(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is cut short"),
        _other => error,
    }
}

struct Frames {
    snapshot: SnapshotFile,
    at: u64,
    frame: u64,
    ended: bool,
}

impl Frames {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        let file = &self.snapshot.file;
        let mut length = [0; LENGTH_BYTES];
        file.read_exact_at(&mut length, self.at).map_err(short)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES + SEAL_BYTES {
            return Err(damaged("the length of a frame is over the limit"));
        }
        let mut sealed = vec![0; length];
        file.read_exact_at(&mut sealed, self.at + LENGTH_BYTES as u64).map_err(short)?;
        let SnapshotFile { sealer, id, .. } = &self.snapshot;
        let piece = match sealer.open(&place(id, self.frame, false), &sealed) {
            Ok(piece) => piece,
            Err(_not_in_between) => {
                self.ended = true;
                sealer.open(&place(id, self.frame, true), &sealed)?
            }
        };
        self.frame += 1;
        self.at += (LENGTH_BYTES + length) as u64;
        Ok(Some(piece))
    }
}

/// Reads the machine's bytes of a snapshot.
pub(crate) struct SnapshotReader {
    frames: Frames,
    piece: Vec<u8>,
    read: usize,
}

impl Read for SnapshotReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            match self.frames.next()? {
                Some(piece) => (self.piece, self.read) = (piece, 0),
                None => return Ok(0),
            }
        }
        let taken = into.len().min(self.piece.len() - self.read);
        into[..taken].copy_from_slice(&self.piece[self.read..self.read + taken]);
        self.read += taken;
        Ok(taken)
    }
}
