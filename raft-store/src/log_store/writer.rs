//! The writer thread: takes what is queued, commits it as one transaction, notifies the waiters.
//!
//! The queue is bounded by a semaphore rather than by the channel, because openraft's task must
//! wait for room without blocking its thread, while the writer must wait for work with a time
//! limit and without a runtime: it may outlive the runtime briefly when a process stops.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::storage::IOFlushed;
use redb::{Database, Durability};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::database::{
    COMMITTED, EXTENT, Extent, LOG, META, PURGED, VOTE, put_meta, refused, without_panic,
};
use super::hold;
use super::mark::Mark;
use crate::disk_full::DiskFull;
use crate::seal::Sealer;
use crate::types::TypeConfig;

/// Writes that may wait for the disk.
const QUEUE_MAX: usize = 1_024;
/// Writes that are committed together.
const BATCH_MAX: usize = 512;
/// How long a lone `committed` waits for a write that has to be flushed anyway.
const LINGER: Duration = Duration::from_millis(50);

/// Rows are sealed for their places.
pub(super) enum Op {
    Append { rows: Vec<(u64, Vec<u8>)>, done: IOFlushed<TypeConfig> },
    Vote { row: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
    Committed { row: Vec<u8> },
    Truncate { from: u64, done: oneshot::Sender<io::Result<()>> },
    Purge { row: Vec<u8>, upto: u64 },
    Close { done: oneshot::Sender<io::Result<()>> },
}

struct Queued {
    sequence: u64,
    op: Op,
    /// Gives the place in the queue back when the write is done.
    _room: OwnedSemaphorePermit,
}

/// The way to the writer.
#[derive(Clone)]
pub(super) struct WriteQueue {
    room: Arc<Semaphore>,
    sender: Arc<Mutex<Sender<Queued>>>,
    next: Arc<AtomicU64>,
    flushed: Arc<AtomicU64>,
    disk: DiskFull,
}

/// A place in the queue; its sequence number orders it among all writes.
pub(super) struct Slot<'a> {
    queue: &'a WriteQueue,
    sequence: u64,
    room: OwnedSemaphorePermit,
}

fn stopped() -> io::Error {
    io::Error::other("the log writer has stopped")
}

impl WriteQueue {
    /// The newest sequence number up to which all writes are on disk.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// Whether the disk had no room for a write.
    pub(super) fn disk_is_full(&self) -> bool {
        self.disk.was_seen()
    }

    /// Waits for room. openraft writes from one task, so reserved places are used in order.
    pub(super) async fn reserve(&self) -> io::Result<Slot<'_>> {
        let room = self.room.clone().acquire_owned().await.map_err(io::Error::other)?;
        let sequence = self.next.fetch_add(1, Ordering::AcqRel);
        Ok(Slot { queue: self, sequence, room })
    }

    pub(super) async fn send(&self, op: Op) -> io::Result<()> {
        self.reserve().await?.send(op)
    }

    /// Sends and waits until it is on disk.
    pub(super) async fn write(
        &self,
        op: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Op,
    ) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(op(done)).await?;
        wait.await.map_err(io::Error::other)?
    }

    /// Returns when the writer has written everything and let go of the database.
    pub(super) async fn close(&self) {
        let (done, wait) = oneshot::channel();
        if self.send(Op::Close { done }).await.is_ok() {
            // An error means that the writer had already ended, which is what is wanted.
            let _ended = wait.await;
        }
    }
}

impl Slot<'_> {
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn send(self, op: Op) -> io::Result<()> {
        let Self { queue, sequence, room } = self;
        hold(&queue.sender)
            .send(Queued { sequence, op, _room: room })
            .map_err(|_returned| stopped())
    }
}

/// Starts the thread; it ends when told to close or when the last `WriteQueue` is dropped.
pub(super) fn start(
    database: Arc<Database>,
    extent: Extent,
    mark: Mark,
    sealer: Arc<Sealer>,
) -> io::Result<WriteQueue> {
    let (sender, receiver) = channel();
    let flushed = Arc::new(AtomicU64::new(0));
    let (database, disk) = (Some(database), DiskFull::default());
    let writer = Writer {
        database,
        extent,
        mark,
        sealer,
        flushed: flushed.clone(),
        disk: disk.clone(),
        failed: None,
    };
    std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || writer.run(&receiver))?;
    Ok(WriteQueue {
        room: Arc::new(Semaphore::new(QUEUE_MAX)),
        sender: Arc::new(Mutex::new(sender)),
        // Zero is the state at start, so the first write is one.
        next: Arc::new(AtomicU64::new(1)),
        flushed,
        disk,
    })
}

struct Writer {
    database: Option<Arc<Database>>,
    extent: Extent,
    mark: Mark,
    sealer: Arc<Sealer>,
    flushed: Arc<AtomicU64>,
    disk: DiskFull,
    failed: Option<String>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Queued>) {
        while let Some(batch) = next_batch(receiver) {
            if let Some(done) = self.finish(batch) {
                self.database = None;
                // The caller may have stopped waiting.
                let _unheard = done.send(Ok(()));
                return;
            }
        }
    }

    /// Writes a batch and answers it; returns the closer's channel if it asked to close.
    fn finish(&mut self, batch: Vec<Queued>) -> Option<oneshot::Sender<io::Result<()>>> {
        let result = match (&self.failed, &self.database) {
            (None, Some(database)) => self.commit(database, &batch),
            (Some(reason), _) => Err(io::Error::other(reason.clone())),
            (None, None) => Err(stopped()),
        };
        match &result {
            Ok(extent) => {
                self.extent = *extent;
                let newest = batch.iter().map(|queued| queued.sequence).max().unwrap_or(0);
                self.flushed.fetch_max(newest, Ordering::AcqRel);
            }
            Err(e) => {
                self.disk.note(e);
                if self.failed.is_none() {
                    tracing::error!(error = %e, "writing the Raft log failed, writing stops");
                    self.failed = Some(e.to_string());
                }
            }
        }
        let outcome = || match &result {
            Ok(_extent) => Ok(()),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        let mut close = None;
        for queued in batch {
            match queued.op {
                Op::Append { done, .. } => done.io_completed(outcome()),
                Op::Vote { done, .. } | Op::Truncate { done, .. } => {
                    // openraft may have stopped in the meantime.
                    let _unheard = done.send(outcome());
                }
                Op::Close { done } => close = Some(done),
                Op::Committed { .. } | Op::Purge { .. } => {}
            }
        }
        close
    }

    /// Commits a batch and writes its mark; it is not acknowledged yet.
    fn commit(&self, database: &Database, batch: &[Queued]) -> io::Result<Extent> {
        let ops = || batch.iter().map(|queued| &queued.op);
        let end = ops().fold(self.extent.end, extended);
        let extent = Extent { commits: self.extent.commits + 1, end };
        without_panic(|| write(database, ops(), &extent, &self.sealer))?;
        self.mark.write(extent.commits)?;
        Ok(extent)
    }
}

/// Waits for work and takes what is queued; `None` when all senders are gone.
fn next_batch(receiver: &Receiver<Queued>) -> Option<Vec<Queued>> {
    let mut batch = vec![receiver.recv().ok()?];
    while batch.len() < BATCH_MAX {
        match receiver.try_recv() {
            Ok(queued) => batch.push(queued),
            Err(_empty_or_closed) if batch.iter().all(is_patient) => {
                match receiver.recv_timeout(LINGER) {
                    Ok(queued) => batch.push(queued),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            Err(_empty_or_closed) => break,
        }
    }
    Some(batch)
}

fn is_patient(queued: &Queued) -> bool {
    matches!(queued.op, Op::Committed { .. })
}

/// Index of the entry that comes next after an operation.
fn extended(end: u64, op: &Op) -> u64 {
    match op {
        Op::Append { rows, .. } => rows.last().map_or(end, |(index, _)| index + 1),
        Op::Truncate { from, .. } => *from,
        Op::Purge { upto, .. } => end.max(upto + 1),
        Op::Vote { .. } | Op::Committed { .. } | Op::Close { .. } => end,
    }
}

fn write<'a>(
    database: &Database,
    ops: impl Iterator<Item = &'a Op>,
    extent: &Extent,
    sealer: &Sealer,
) -> io::Result<()> {
    let mut write = database.begin_write().map_err(refused)?;
    write.set_durability(Durability::Immediate).map_err(refused)?;
    {
        let mut log = write.open_table(LOG).map_err(refused)?;
        let mut meta = write.open_table(META).map_err(refused)?;
        for op in ops {
            match op {
                Op::Append { rows, .. } => {
                    for (index, row) in rows {
                        log.insert(index, row.as_slice()).map_err(refused)?;
                    }
                }
                Op::Vote { row, .. } => {
                    meta.insert(VOTE, row.as_slice()).map_err(refused)?;
                }
                Op::Committed { row } => {
                    meta.insert(COMMITTED, row.as_slice()).map_err(refused)?;
                }
                Op::Truncate { from, .. } => {
                    log.retain_in::<u64, _>(from.., |_, _| false).map_err(refused)?;
                }
                Op::Purge { row, upto } => {
                    log.retain_in::<u64, _>(..=upto, |_, _| false).map_err(refused)?;
                    meta.insert(PURGED, row.as_slice()).map_err(refused)?;
                }
                Op::Close { .. } => {}
            }
        }
    }
    put_meta(&write, EXTENT, extent, sealer)?;
    write.commit().map_err(refused)
}
