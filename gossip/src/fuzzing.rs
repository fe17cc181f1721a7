//! What fuzzing calls: each function decodes any bytes, panics where a law of a decoder breaks, and
//! says whether there was something to decode.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cluster::id::{ClusterId, NetworkId, NodeId, TaskId};
use cluster::net::{Addresses, MacAddr};
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner, VtepRow};
use foca::{Header, Member, Message};

use crate::anti_entropy::{
    Bundle, Delta, Digest, Known, Question, RestartNotice, Standing, SyncReply, SyncRequest,
};
use crate::buckets::BUCKETS;
use crate::codec::{
    Body, Packet, WireMember, decode_datagram, decode_sync, encode_datagram, encode_sync,
};
use crate::keyring::{RUN_BYTES, Sender};
use crate::proof::{Author, Statement};
use crate::row::{EndpointValue, Record, Row, Version};
use crate::{Config, Engine, Identity, Input, Keyring, Peer, ProofSecret};

const CLUSTER: ClusterId = ClusterId(7);
/// The engine that is fuzzed, and a member that says something to it.
const OWN: u8 = 1;
const OTHER: u8 = 2;
/// Of the run that the engine is.
const GENERATION: u64 = 1;
/// First byte of an engine's input: what follows is a sealed datagram, a datagram before sealing, a
/// request, an answer.
const KINDS: u8 = 4;
const ANSWER: u8 = 3;
/// Timers that are run after an input.
const STEPS: usize = 4;
/// The same, until a peer that was heard of is asked for its rows.
const STEPS_TO_EXCHANGE: usize = 100;

/// A datagram, or a packet of foca's in one.
pub fn datagram(bytes: &[u8]) -> bool {
    let Ok(decoded) = decode_datagram(bytes) else { return packet(bytes) };
    let again = encode_datagram(&decoded).expect("what was decoded can be encoded");
    let again = decode_datagram(&again).expect("what was encoded can be decoded");
    assert_eq!(again, decoded, "a datagram changed on its way");
    if let Body::Membership(_, inner) = &decoded {
        packet(inner);
    }
    packet(bytes);
    true
}

fn packet(bytes: &[u8]) -> bool {
    let Ok(decoded) = Packet::decode(bytes) else { return false };
    let again = decoded.encode().expect("what was decoded can be encoded");
    let again = Packet::decode(&again).expect("what was encoded can be decoded");
    assert_eq!(again, decoded, "a packet changed on its way");
    true
}

/// A message of an exchange.
pub fn sync(bytes: &[u8]) -> bool {
    let request = decode_sync::<SyncRequest>(bytes);
    if let Ok(decoded) = &request {
        let again = encode_sync(decoded).expect("what was decoded can be encoded");
        let again = decode_sync::<SyncRequest>(&again).expect("what was encoded can be decoded");
        assert_eq!(&again, decoded, "a request changed on its way");
    }
    let reply = decode_sync::<SyncReply>(bytes);
    if let Ok(decoded) = &reply {
        let again = encode_sync(decoded).expect("what was decoded can be encoded");
        let again = decode_sync::<SyncReply>(&again).expect("what was encoded can be decoded");
        assert_eq!(&again, decoded, "a reply changed on its way");
    }
    request.is_ok() || reply.is_ok()
}

/// Anything that a peer may say to an engine. It must live on, and take only rows that their owner
/// signed: those of the seeds.
pub fn engine(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    let mut now = Duration::from_secs(1);
    let mut engine = new_engine(now);
    let bytes = Bytes::copy_from_slice(bytes);
    if kind % KINDS == ANSWER {
        begin_exchange(&mut engine, &mut now);
    }
    let input = match kind % KINDS {
        0 => Input::Datagram(bytes),
        1 => Input::Datagram(sealed(&bytes)),
        2 => Input::SyncRequest { token: 7, bytes },
        _ => Input::SyncAnswer { peer: node(OTHER), result: Ok(bytes) },
    };
    let failed = engine.stats().exchanges_failed;
    let _said = engine.step(input, now);
    let failed = engine.stats().exchanges_failed > failed;
    for _step in 0..STEPS {
        let Some(due) = engine.next_deadline() else { break };
        now = now.max(due);
        let _said = engine.step(Input::Timer, now);
    }
    let signed = rows();
    for (owner, row) in engine.rows() {
        assert!(owner == node(OTHER) && signed.contains(row), "a row that nobody signed: {row:?}");
    }
    let stats = engine.stats();
    match kind % KINDS {
        0 | 1 => stats.datagrams_received > 0,
        2 => stats.exchanges_answered > 0,
        _ => !failed,
    }
}

/// Has the engine hear of the other node and ask it for its rows.
fn begin_exchange(engine: &mut Engine, now: &mut Duration) {
    let heard = packet_of(Message::Gossip, vec![Member::alive(other())]).unwrap_or_default();
    let heard = encode_datagram(&Body::Membership(vec![digest()], heard)).unwrap_or_default();
    let _said = engine.step(Input::Datagram(sealed(&heard)), *now);
    for _step in 0..STEPS_TO_EXCHANGE {
        if engine.stats().exchanges_begun > 0 {
            return;
        }
        let Some(due) = engine.next_deadline() else { break };
        *now = due.max(*now);
        let _said = engine.step(Input::Timer, *now);
    }
    assert!(engine.stats().exchanges_begun > 0, "no exchange has begun");
}

fn node(number: u8) -> NodeId {
    NodeId(number.into())
}

fn address(number: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, number), 7946).into()
}

fn secret(number: u8) -> ProofSecret {
    ProofSecret::from_seed(&[number; 32]).expect("any seed makes a key")
}

fn keyring() -> Keyring {
    Keyring::new(1, &[(1, [7; 32])].into()).expect("the primary is in it")
}

fn new_engine(now: Duration) -> Engine {
    let config = Config::lan(node(OWN), CLUSTER, address(OWN), GENERATION, 7, secret(OWN));
    let mut engine = Engine::new(config, keyring(), now);
    let peers = [OWN, OTHER].map(|number| {
        (node(number), Peer { address: address(number), key: Some(secret(number).key()) })
    });
    let _said = engine.step(Input::Peers(peers.into()), now);
    engine
}

fn sealed(plain: &[u8]) -> Bytes {
    let sender = Sender { cluster: CLUSTER, node: node(OTHER), run: [9; RUN_BYTES] };
    keyring().seal(&sender, 0, plain).map(Bytes::from).unwrap_or_default()
}

fn author() -> Author {
    Author { cluster: CLUSTER, node: node(OTHER), secret: secret(OTHER) }
}

fn rows() -> Vec<Row> {
    let (v4, v6) = (Ipv4Addr::new(10, 0, 9, 5), Ipv6Addr::LOCALHOST);
    let value = EndpointValue {
        addresses: Addresses::V4(v4),
        mac: MacAddr::for_address(v4.into()),
        condition: Condition::Ready,
        revision: Revision(12),
    };
    let owner = EndpointOwner::Task(TaskId(7));
    let key = EndpointKey { network: NetworkId(9), owner };
    let records = [
        Record::Endpoint(key, Some(value.clone())),
        Record::Endpoint(
            key,
            Some(EndpointValue { addresses: Addresses::V6(v6), ..value.clone() }),
        ),
        Record::Endpoint(key, Some(EndpointValue { addresses: Addresses::Both(v4, v6), ..value })),
        Record::Endpoint(key, None),
        Record::Vtep(Some(VtepRow { address: Ipv4Addr::new(192, 0, 2, OTHER).into() })),
    ];
    let row = |(counter, record): (u64, Record)| {
        let version = Version { generation: 3, counter };
        let proof = author().prove(Statement::Row(version, &record));
        Row { version, record, proof }
    };
    (0..).zip(records).map(row).collect()
}

fn digest() -> Digest {
    let last = Version { generation: 3, counter: 4 };
    Digest { owner: node(OTHER), floor: 3, last, live: 2, hash: 5 }
}

fn bundle() -> Bundle {
    Bundle { owner: node(OTHER), floor: 3, rows: rows() }
}

fn notice() -> RestartNotice {
    let proof = author().prove(Statement::Restart(3));
    RestartNotice { node: node(OTHER), generation: 3, grace_ms: 30_000, proof }
}

fn other() -> Identity {
    Identity::of_run(&author(), 3, 0, address(OTHER))
}

fn packet_of(message: Message<Identity>, members: Vec<Member<Identity>>) -> Option<Vec<u8>> {
    let own = Author { cluster: CLUSTER, node: node(OWN), secret: secret(OWN) };
    let dst = Identity::of_run(&own, GENERATION, 0, address(OWN));
    let header = Header { src: other(), src_incarnation: 1, dst, message };
    Packet { header, members }.encode().ok()
}

fn packets() -> Vec<Vec<u8>> {
    let messages = [
        Message::Announce,
        Message::Ping(7),
        Message::Gossip,
        Message::IndirectPing { origin: other(), probe_number: 7 },
    ];
    let members = || vec![Member::alive(other()), Member::down(other())];
    messages.into_iter().filter_map(|message| packet_of(message, members())).collect()
}

/// Datagrams and packets of every kind.
#[must_use]
pub fn datagram_seeds() -> Vec<Vec<u8>> {
    let bodies = (packets().into_iter().map(|inner| Body::Membership(vec![digest()], inner)))
        .chain([
            Body::Rows(vec![bundle()]),
            Body::Suspected(other(), 4),
            Body::Restarting(notice()),
        ]);
    bodies.filter_map(|body| encode_datagram(&body).ok()).chain(packets()).collect()
}

/// Messages of exchanges of every kind.
#[must_use]
pub fn sync_seeds() -> Vec<Vec<u8>> {
    requests().into_iter().chain(replies()).collect()
}

fn known() -> Known {
    Known { digest: digest(), standing: Standing { generation: 1, renewals: 0, is_down: false } }
}

fn member() -> WireMember {
    WireMember::from(&Member::alive(other()))
}

fn requests() -> Vec<Vec<u8>> {
    let requests = [
        SyncRequest::Compare(7, true),
        SyncRequest::Ask(Question {
            buckets: (0..=u8::MAX).collect(),
            known: vec![known()],
            after: Some(node(OTHER)),
        }),
        SyncRequest::AskOf(vec![digest()]),
        SyncRequest::Give(vec![bundle()], vec![member()]),
    ];
    requests.iter().filter_map(|request| encode_sync(request).ok()).collect()
}

fn replies() -> Vec<Vec<u8>> {
    let delta = Delta {
        bundles: vec![bundle()],
        members: vec![member()],
        known: vec![known()],
        restarting: vec![notice()],
        complete: true,
        more: None,
    };
    let replies = [
        SyncReply::Same(vec![notice()], true),
        SyncReply::Parts(vec![7; BUCKETS]),
        SyncReply::Loading,
        SyncReply::Delta(delta),
        SyncReply::Taken,
    ];
    replies.iter().filter_map(|reply| encode_sync(reply).ok()).collect()
}

/// All of that, as it reaches an engine.
#[must_use]
pub fn engine_seeds() -> Vec<Vec<u8>> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let mut datagrams = datagram_seeds();
    datagrams.retain(|plain| decode_datagram(plain).is_ok());
    let opened = datagrams.iter().map(|plain| of(1, plain));
    let closed = datagrams.iter().map(|plain| of(0, &sealed(plain)));
    let asked = requests().into_iter().map(|bytes| of(2, &bytes));
    let answered = replies().into_iter().map(|bytes| of(3, &bytes));
    closed.chain(opened).chain(asked).chain(answered).collect()
}
