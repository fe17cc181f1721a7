//! Golden bytes of what is written to disk and sent between managers.
//!
//! A difference here means that a new version cannot read an old log or talk to old managers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::raft::{SnapshotResponse, TransferLeaderRequest};
use openraft::{EntryPayload, Membership};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{CodecError, decode, encode};
use crate::network::{ChunkReply, Envelope, ReadIndex, Refusal, Reply, Request, SnapshotChunk};
use crate::types::{
    Entry, LeaderId, LogId, Member, Payload, Peer, SnapshotMeta, StoredMembership, Vote,
};

fn check<T: Serialize + DeserializeOwned + Debug>(value: &T, golden: &str) {
    let bytes = encode(value).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden, "{value:?}");
    let back: T = decode(&bytes).unwrap();
    assert_eq!(format!("{back:?}"), format!("{value:?}"));
}

fn log_id() -> LogId {
    LogId::new(LeaderId { term: 3, node_id: 7 }, 300)
}

fn payload() -> Payload {
    Payload(Bytes::from_static(b"ab"))
}

fn membership() -> Membership<u64, Member> {
    let nodes = BTreeMap::from([(7, Member { address: "h:1".to_owned() })]);
    Membership::new(vec![BTreeSet::from([7])], nodes).unwrap()
}

fn request(request: Request) -> Envelope {
    Envelope { from: 1, to: 2, request }
}

#[test]
fn rows_of_the_log() {
    check(&log_id(), "010307fb2c01");
    check(&Vote::new(3, 7), "01030700");
    check(&Vote::new_committed(3, 7), "01030701");
    check(&Entry { log_id: log_id(), payload: EntryPayload::Blank }, "010307fb2c0100");
    check(
        &Entry { log_id: log_id(), payload: EntryPayload::Normal(payload()) },
        "010307fb2c0101026162",
    );
    check(
        &Entry { log_id: log_id(), payload: EntryPayload::Membership(membership()) },
        "010307fb2c0102010107010703683a31",
    );
}

#[test]
fn requests() {
    let entries = vec![Entry { log_id: log_id(), payload: EntryPayload::Normal(payload()) }];
    let vote = Vote::new_committed(3, 7);
    let meta = SnapshotMeta {
        last_log_id: Some(log_id()),
        last_membership: StoredMembership::new(Some(log_id()), membership()),
    };
    check(
        &request(Request::Append(AppendEntriesRequest {
            vote,
            prev_log_id: None,
            entries,
            leader_commit: Some(log_id()),
        })),
        "0101020003070100010307fb2c0101026162010307fb2c01",
    );
    check(
        &request(Request::Vote(VoteRequest::new(vote, Some(log_id())))),
        "01010201030701010307fb2c0100",
    );
    check(&request(Request::PreVote(VoteRequest::new(vote, None))), "010102020307010000");
    check(
        &request(Request::Snapshot(Box::new(SnapshotChunk {
            vote,
            meta,
            transfer: 4,
            offset: 5,
            total: 6,
            data: payload(),
        }))),
        "01010203030701010307fb2c01010307fb2c01010107010703683a3100040506026162",
    );
    check(
        &request(Request::TransferLeader(TransferLeaderRequest::new(vote, 2, None))),
        "010102040307010200",
    );
    check(&request(Request::ReadIndex), "01010205");
}

#[test]
fn replies() {
    let vote = Vote::new(3, 7);
    check(&Reply::Append(AppendEntriesResponse::Success), "010000");
    check(
        &Reply::Append(AppendEntriesResponse::PartialSuccess(Some(log_id()))),
        "010001010307fb2c01",
    );
    check(&Reply::Append(AppendEntriesResponse::Conflict), "010002");
    check(&Reply::Append(AppendEntriesResponse::HigherVote(vote)), "010003030700");
    check(&Reply::Vote(VoteResponse::new(vote, None, true)), "01010307000100");
    check(&Reply::Snapshot(ChunkReply::More { offset: 9 }), "01020009");
    check(&Reply::Snapshot(ChunkReply::Done(SnapshotResponse::new(vote))), "010201030700");
    check(&Reply::TransferLeader(Ok(())), "010300");
    check(&Reply::ReadIndex(ReadIndex::At(300)), "010400fb2c01");
    let leader = Some(Peer { raft_id: 7, address: "h:1".to_owned() });
    check(&Reply::ReadIndex(ReadIndex::NotLeader { leader }), "010401010703683a31");
    check(&Reply::ReadIndex(ReadIndex::NoQuorum), "010402");
    check(&Reply::Refused(Refusal::WrongNode { raft_id: 7 }), "01050007");
}

#[test]
fn bytes_that_are_no_value_are_errors() {
    let good = encode(&(1_u64, "text")).unwrap();
    let decode = decode::<(u64, String)>;
    assert_eq!(decode(&[]), Err(CodecError::Empty));
    assert_eq!(decode(&[9, 0]), Err(CodecError::Version(9)));
    assert_eq!(decode(&[&good[..], &[0]].concat()), Err(CodecError::Trailing { left: 1 }));
    for end in 1..good.len() {
        assert!(matches!(decode(&good[..end]), Err(CodecError::Layout(_))), "{end}");
    }
    // A length that would need more memory than any message has is refused before it is used.
    let huge = [&[1_u8, 1, 0xFC][..], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(decode(&huge), Err(CodecError::Layout(_))));
}
