//! What fuzzing calls: each function decodes any bytes, panics where a law of a decoder breaks, and
//! says whether there was something to decode.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::{EntryPayload, Membership};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{decode, encode};
use crate::log_store::Presence;
use crate::log_store::database::Extent;
use crate::log_store::mark::{FILE_NAME, Mark};
use crate::network::{Envelope, ReadIndex, Refusal, Reply, Request, SnapshotChunk};
use crate::seal::{DISK_KEY_BYTES, DiskKey, Sealer};
use crate::snapshot::{SnapshotFile, SnapshotWriter};
use crate::types::{
    Entry, LeaderId, LogId, Member, Payload, Peer, SnapshotMeta, StoredMembership, Vote,
};

/// First byte of a snapshot's input: what follows is the file itself.
const AS_IT_IS: u8 = 0;

/// What decodes is encoded to bytes that decode to the same; the types of openraft cannot be
/// compared, their bytes can.
fn law<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(decoded) = decode::<T>(bytes) else { return false };
    let once = encode(&decoded).expect("what was decoded can be encoded");
    let again: T = decode(&once).expect("what was encoded can be decoded");
    let twice = encode(&again).expect("what was decoded can be encoded");
    assert_eq!(once, twice, "a value changed on its way");
    true
}

/// A message between managers.
pub fn message(bytes: &[u8]) -> bool {
    law::<Envelope>(bytes) | law::<Reply>(bytes)
}

/// A row of the log, as it is once its seal is open.
pub fn row(bytes: &[u8]) -> bool {
    law::<Entry>(bytes)
        | law::<LogId>(bytes)
        | law::<Vote>(bytes)
        | law::<Extent>(bytes)
        | law::<u64>(bytes)
        | law::<SnapshotMeta>(bytes)
}

fn log_id() -> LogId {
    LogId::new(LeaderId { term: 3, node_id: 7 }, 300)
}

fn membership() -> Membership<u64, Member> {
    let nodes = BTreeMap::from([(7, Member { address: "h:1".to_owned() })]);
    Membership::new(vec![BTreeSet::from([7])], nodes).expect("its one voter has an address")
}

fn meta() -> SnapshotMeta {
    let last_membership = StoredMembership::new(Some(log_id()), membership());
    SnapshotMeta { last_log_id: Some(log_id()), last_membership }
}

fn entries() -> Vec<Entry> {
    let payload = EntryPayload::Normal(Payload(Bytes::from_static(b"ab")));
    let members = EntryPayload::Membership(membership());
    let payloads = [EntryPayload::Blank, payload, members];
    payloads.map(|payload| Entry { log_id: log_id(), payload }).to_vec()
}

/// Messages of every kind.
#[must_use]
pub fn message_seeds() -> Vec<Vec<u8>> {
    let vote = Vote::new_committed(3, 7);
    let append = AppendEntriesRequest {
        vote,
        prev_log_id: None,
        entries: entries(),
        leader_commit: Some(log_id()),
    };
    let data = Payload(Bytes::from_static(b"ab"));
    let chunk = SnapshotChunk { vote, meta: meta(), transfer: 4, offset: 5, total: 6, data };
    let requests = [
        Request::Append(append),
        Request::Vote(VoteRequest::new(vote, Some(log_id()))),
        Request::Snapshot(Box::new(chunk)),
        Request::ReadIndex,
    ];
    let envelopes = requests.map(|request| encode(&Envelope { from: 1, to: 2, request }).ok());
    let leader = Some(Peer { raft_id: 7, address: "h:1".to_owned() });
    let replies = [
        Reply::ReadIndex(ReadIndex::NotLeader { leader }),
        Reply::TransferLeader(Ok(())),
        Reply::Refused(Refusal::WrongNode { raft_id: 7 }),
    ];
    let replies = replies.map(|reply| encode(&reply).ok());
    envelopes.into_iter().chain(replies).flatten().collect()
}

/// Rows of every kind.
#[must_use]
pub fn row_seeds() -> Vec<Vec<u8>> {
    let entries = entries().into_iter().map(|entry| encode(&entry).ok());
    let others = [
        encode(&meta()).ok(),
        encode(&Vote::new(3, 7)).ok(),
        encode(&log_id()).ok(),
        encode(&Extent { commits: 9, end: 301 }).ok(),
        encode(&7_u64).ok(),
    ];
    entries.chain(others).flatten().collect()
}

fn sealer() -> &'static Arc<Sealer> {
    static SEALER: OnceLock<Arc<Sealer>> = OnceLock::new();
    SEALER.get_or_init(|| {
        let key = DiskKey::from_bytes([7; DISK_KEY_BYTES]);
        Arc::new(Sealer::new(&key).expect("the key is of the right length"))
    })
}

/// A snapshot as a file in a folder of the caller's: any bytes, or, as no fuzzer makes a seal, the
/// bytes of a state that are written by us and read back.
pub fn snapshot_file(folder: &Path, bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    let path = folder.join("fuzzed.snap");
    if *kind == AS_IT_IS {
        std::fs::write(&path, bytes).expect("the folder takes files");
        let Ok((_, file)) = SnapshotFile::open(&path, sealer().clone()) else { return false };
        read(&file, None);
        return true;
    }
    // What an input before this one left.
    let _none = std::fs::remove_file(&path);
    let writer = SnapshotWriter::create(path.clone(), &meta(), sealer().clone());
    let mut writer = writer.expect("the folder takes files");
    std::io::Write::write_all(&mut writer, bytes).expect("the folder takes files");
    // Its file goes with it.
    let written = writer.finish().expect("the folder takes files");
    read(&written, Some(bytes));
    let (read_meta, file) = SnapshotFile::open(&path, sealer().clone()).expect("it is whole");
    assert_eq!(encode(&read_meta), encode(&meta()), "a snapshot's metadata changed on its way");
    read(&file, Some(bytes));
    true
}

/// The mark of a log in a folder of the caller's, which is removed.
pub fn mark(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::write(folder.join(FILE_NAME), bytes).expect("the folder takes files");
    let Ok(mark) = Mark::open(folder, Presence::Existing, sealer().clone()) else { return false };
    let number = mark.found;
    mark.write(number).expect("the file was just opened");
    let again = Mark::open(folder, Presence::Existing, sealer().clone());
    assert_eq!(again.expect("we wrote it").found, number, "a mark changed on its way");
    true
}

/// Marks of logs that reach to some place.
#[must_use]
pub fn mark_seeds(folder: &Path) -> Vec<Vec<u8>> {
    let path = folder.join(FILE_NAME);
    let of = |number| {
        std::fs::remove_file(&path).or_else(|_absent| std::fs::create_dir_all(folder))?;
        Mark::open(folder, Presence::New, sealer().clone())?.write(number)?;
        std::fs::read(&path)
    };
    [0, 7, u64::MAX].map(|number| of(number).unwrap_or_default()).to_vec()
}

fn read(file: &SnapshotFile, expected: Option<&[u8]>) {
    let mut content = Vec::new();
    let reader = file.reader().expect("it was opened whole");
    reader.take(file.bytes() + 1).read_to_end(&mut content).expect("it was opened whole");
    assert_eq!(content.len() as u64, file.bytes(), "a snapshot is not as long as it says");
    assert!(expected.is_none_or(|expected| expected == content), "a snapshot changed on its way");
}

/// A whole file, and content.
#[must_use]
pub fn snapshot_file_seeds(folder: &Path) -> Vec<Vec<u8>> {
    let path = folder.join("seed.snap");
    let made = SnapshotWriter::create(path.clone(), &meta(), sealer().clone());
    let whole = made.and_then(|mut writer| {
        std::io::Write::write_all(&mut writer, b"content")?;
        let _written = writer.finish()?;
        std::fs::read(&path)
    });
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![of(AS_IT_IS, &whole.unwrap_or_default()), of(AS_IT_IS + 1, b"content")]
}
