//! Golden bytes: a change here is a change of the protocol and needs a new wire version.

use super::*;
use crate::anti_entropy::{
    Delta, Known, Question, SYNC_ROWS_MAX, Standing, SyncReply, SyncRequest,
};
use crate::proof::{Author, Proof, ProofSecret, Statement};
use crate::row::{EndpointValue, Record, Version};
use crate::table::{OWNERS_MAX, ROWS_PER_OWNER_MAX};
use cluster::id::{ClusterId, NetworkId, TaskId};
use cluster::net::{Addresses, MacAddr};
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner, VtepRow};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn identity(n: u8) -> Identity {
    let address = (Ipv4Addr::new(10, 1, 2, n), 7946).into();
    Identity {
        generation: 300,
        renewals: 2,
        proof: proof(),
        ..Identity::unknown(NodeId(n.into()), address)
    }
}

/// A real one, so that the golden bytes hold what is signed, too.
fn proof() -> Proof {
    let secret = ProofSecret::from_seed(&[5; 32]).unwrap();
    let author = Author { cluster: ClusterId(7), node: NodeId(5), secret };
    author.prove(Statement::Run(300, 2))
}

fn rows() -> Vec<Row> {
    let version = Version { generation: 3, counter: 70_000 };
    let value = EndpointValue {
        addresses: Addresses::V4(Ipv4Addr::new(10, 0, 9, 5)),
        mac: MacAddr([2, 0x42, 10, 0, 9, 5]),
        condition: Condition::Ready,
        revision: Revision(12),
    };
    let of = |owner| EndpointKey { network: NetworkId(1 << 100), owner };
    let with = |addresses| EndpointValue { addresses, ..value.clone() };
    let six = with(Addresses::V6(Ipv6Addr::LOCALHOST));
    let both = with(Addresses::Both(Ipv4Addr::new(10, 0, 9, 5), Ipv6Addr::LOCALHOST));
    let records = [
        Record::Endpoint(of(EndpointOwner::Task(TaskId(7))), Some(value.clone())),
        Record::Endpoint(of(EndpointOwner::Node(NodeId(8))), Some(six)),
        Record::Endpoint(of(EndpointOwner::Task(TaskId(7))), None),
        Record::Vtep(Some(VtepRow { address: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)) })),
        Record::Vtep(None),
        Record::Endpoint(of(EndpointOwner::Task(TaskId(9))), Some(both)),
    ];
    records.into_iter().map(|record| Row { version, record, proof: proof() }).collect()
}

fn digest() -> Digest {
    let last = Version { generation: 3, counter: 70_000 };
    Digest { owner: NodeId(5), floor: 3, last, live: 40, hash: u64::MAX }
}

fn bundle() -> Bundle {
    Bundle { owner: NodeId(5), floor: 3, rows: rows() }
}

#[test]
fn golden_datagrams() {
    let notice = RestartNotice { node: NodeId(6), generation: 9, grace_ms: 30_000, proof: proof() };
    let bodies = [
        Body::Membership(vec![digest(), digest()], vec![1, 2, 3]),
        Body::Rows(vec![bundle()]),
        Body::Suspected(identity(3), 4),
        Body::Restarting(notice),
    ];
    let text: Vec<String> = (bodies.into_iter())
        .map(|body| {
            let bytes = encode_datagram(&body).unwrap();
            assert_eq!(decode_datagram(&bytes).unwrap(), body);
            hex(&bytes)
        })
        .collect();
    golden(
        &text,
        expect![[r#"
            040002050303fc7011010028fdffffffffffffffff050303fc7011010028fdffffffffffffffff03
                010203
            04010105030603fc7011010000fe00000000000000000000000010000000000701000a0009050242
                0a000905010c<proof>03fc7011010000fe000000000000000000000000100000000108010100000
                00000000000000000000000000102420a000905010c<proof>03fc7011010000fe00000000000000
                000000000010000000000700<proof>03fc701101000101000a010203<proof>03fc701101000100
                <proof>03fc7011010000fe00000000000000000000000010000000000901020a000905000000000
                0000000000000000000000102420a000905010c<proof>
            040203fb2c0102000a010203fb0a1f<proof>04
            04030609fb3075<proof>
        "#]],
    );
}

#[test]
fn golden_exchanges() {
    let standing = Standing { generation: 9, renewals: 1, is_down: true };
    let known = vec![Known { digest: digest(), standing }];
    let members = vec![WireMember::from(&Member::new(identity(1), 4, State::Down))];
    let question =
        Question { buckets: [0, 255].into(), known: known.clone(), after: Some(NodeId(2)) };
    let ask = SyncRequest::Ask(question);
    let give = SyncRequest::Give(vec![bundle()], members.clone());
    let (ask_of, compare) =
        (SyncRequest::AskOf(vec![digest()]), SyncRequest::Compare(u64::MAX, true));
    let delta = SyncReply::Delta(Delta {
        bundles: vec![Bundle { rows: Vec::new(), ..bundle() }],
        members,
        known,
        restarting: vec![RestartNotice {
            node: NodeId(6),
            generation: 9,
            grace_ms: 1,
            proof: proof(),
        }],
        complete: true,
        more: None,
    });
    let text = [
        hex(&encode_sync(&ask).unwrap()),
        hex(&encode_sync(&give).unwrap()),
        hex(&encode_sync(&delta).unwrap()),
        hex(&encode_sync(&SyncReply::Taken).unwrap()),
        hex(&encode_sync(&ask_of).unwrap()),
        hex(&encode_sync(&compare).unwrap()),
        hex(&encode_sync(&SyncReply::Same(Vec::new(), true)).unwrap()),
        hex(&encode_sync(&SyncReply::Parts(vec![0, u64::MAX])).unwrap()),
        hex(&encode_sync(&SyncReply::Loading).unwrap()),
    ];
    assert_eq!(decode_sync::<SyncRequest>(&encode_sync(&ask).unwrap()).unwrap(), ask);
    assert_eq!(decode_sync::<SyncReply>(&encode_sync(&delta).unwrap()).unwrap(), delta);
    golden(
        &text,
        expect![[r#"
            04010200ff01050303fc7011010028fdffffffffffffffff0901010102
            04030105030603fc7011010000fe00000000000000000000000010000000000701000a0009050242
                0a000905010c<proof>03fc7011010000fe000000000000000000000000100000000108010100000
                00000000000000000000000000102420a000905010c<proof>03fc7011010000fe00000000000000
                000000000010000000000700<proof>03fc701101000101000a010203<proof>03fc701101000100
                <proof>03fc7011010000fe00000000000000000000000010000000000901020a000905000000000
                0000000000000000000000102420a000905010c<proof>0101fb2c0102000a010201fb0a1f<proof
                >0402
            0403010503000101fb2c0102000a010201fb0a1f<proof>040201050303fc7011010028fdfffffff
                fffffffff09010101060901<proof>0100
            0404
            040201050303fc7011010028fdffffffffffffffff
            0400fdffffffffffffffff01
            04000001
            04010200fdffffffffffffffff
            0402
        "#]],
    );
}

#[test]
fn golden_membership() {
    let (one, two) = (identity(1), identity(2));
    let messages = [
        Message::Ping(1),
        Message::Ack(2),
        Message::PingReq { target: two, probe_number: 3 },
        Message::IndirectPing { origin: two, probe_number: 4 },
        Message::IndirectAck { target: two, probe_number: 5 },
        Message::ForwardedAck { origin: two, probe_number: 6 },
        Message::Announce,
        Message::Feed,
        Message::Gossip,
        Message::Broadcast,
        Message::TurnUndead,
    ];
    let mut text = Vec::new();
    for message in messages {
        let header = Header { src: one, src_incarnation: 7, dst: two, message };
        let mut bytes = Vec::new();
        FocaCodec.encode_header(&header, &mut bytes).unwrap();
        assert_eq!(FocaCodec.decode_header(bytes.as_slice()).unwrap(), header);
        text.push(hex(&bytes));
    }
    for state in [State::Alive, State::Suspect, State::Down] {
        let member = Member::new(one, 300, state);
        let mut bytes = Vec::new();
        FocaCodec.encode_member(&member, &mut bytes).unwrap();
        assert_eq!(FocaCodec.decode_member(bytes.as_slice()).unwrap(), member);
        text.push(hex(&bytes));
    }
    golden(
        &text,
        expect![[r#"
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>0001
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>0102
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>0202fb2c0102
                000a010202fb0a1f<proof>03
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>0302fb2c0102
                000a010202fb0a1f<proof>04
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>0402fb2c0102
                000a010202fb0a1f<proof>05
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>0502fb2c0102
                000a010202fb0a1f<proof>06
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>06
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>07
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>08
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>09
            01fb2c0102000a010201fb0a1f<proof>0702fb2c0102000a010202fb0a1f<proof>0a
            01fb2c0102000a010201fb0a1f<proof>fb2c0100
            01fb2c0102000a010201fb0a1f<proof>fb2c0101
            01fb2c0102000a010201fb0a1f<proof>fb2c0102
        "#]],
    );
}

#[test]
fn golden_statements() {
    let row = &rows()[3];
    let statements =
        [Statement::Row(row.version, &row.record), Statement::Run(300, 2), Statement::Restart(300)];
    let of = |said| hex(&statement(ClusterId(7), NodeId(5), said).unwrap());
    let mut text: Vec<String> = statements.into_iter().map(of).collect();
    text.push(hex(&bincode::serde::encode_to_vec(proof(), standard()).unwrap()));
    let lines: String = text.iter().map(|line| fold(line)).collect();
    expect![[r#"
        736b65696e20676f737369702073746174656d656e74000000000000000000000000000000000700
            0000000000000000000000000000050003fc701101000101000a010203
        736b65696e20676f737369702073746174656d656e74000000000000000000000000000000000700
            00000000000000000000000000000501fb2c0102
        736b65696e20676f737369702073746174656d656e74000000000000000000000000000000000700
            00000000000000000000000000000502fb2c01
        40917abcfd895f31cbba4c84d513022fe884fcb406b9d8edc1d7668284a2e990bb28edbd84845289
            2c52552f81a37b4b313eb57b5ee909c005a794405490f34307
    "#]]
    .assert_eq(&lines);
}

#[test]
fn golden_hashes() {
    let text: Vec<String> = rows().iter().map(|row| format!("{:016x}", row_hash(row))).collect();
    golden(
        &text,
        expect![[r#"
            db718e9951de0f13
            f0b5452151429b17
            36580879e77523a2
            6d234d2a95784791
            b2222b40bff20e98
            3510257ebbc3cbeb
        "#]],
    );
}

/// Compares one message a line; long ones go on after a deeper indent. A proof is told by its name:
/// its own bytes are those of `golden_statements`.
fn golden(lines: &[String], expected: Expect) {
    let proof = hex(&bincode::serde::encode_to_vec(proof(), standard()).unwrap());
    let short = lines.iter().map(|line| line.replace(&proof, "<proof>"));
    expected.assert_eq(&short.map(|line| fold(&line)).collect::<String>());
}

fn fold(line: &str) -> String {
    let parts: Vec<_> = line.as_bytes().chunks(80).map(String::from_utf8_lossy).collect();
    parts.join("\n    ") + "\n"
}

#[test]
fn the_longest_envelope_leaves_room_for_the_payload() {
    let last = Version { generation: u64::MAX, counter: u64::MAX };
    let head =
        Digest { owner: NodeId(u128::MAX), floor: u64::MAX, last, live: u32::MAX, hash: u64::MAX };
    let body = Body::Membership(vec![head], vec![0; PAYLOAD_BYTES_MAX]);
    let bytes = encode_datagram(&body).unwrap();
    assert_eq!(bytes.len() + SEAL_BYTES, DATAGRAM_BYTES_MAX);
    let payload = PAYLOAD_BYTES_MAX - (DIGESTS_MAX - 1) * DIGEST_BYTES_MAX;
    let body = Body::Membership(vec![head; DIGESTS_MAX], vec![0; payload]);
    assert_eq!(encode_datagram(&body).unwrap().len() + SEAL_BYTES, DATAGRAM_BYTES_MAX);
}

#[test]
fn a_datagram_full_of_the_shortest_rows_is_understood() {
    let dead = Row {
        version: Version { generation: 1, counter: 1 },
        record: Record::Vtep(None),
        proof: proof(),
    };
    let rows = vec![dead.clone(); PAYLOAD_BYTES_MAX / row_bytes(&dead)];
    let body = Body::Rows(vec![Bundle { owner: NodeId(1), floor: 0, rows }]);
    let bytes = encode_datagram(&body).unwrap();
    assert!(bytes.len() > DATAGRAM_BYTES_MAX * 3 / 4, "{}", bytes.len());
    assert_eq!(decode_datagram(&bytes).unwrap(), body);
}

#[test]
fn other_versions_and_cut_or_padded_messages_are_refused() {
    let body = Body::Rows(vec![bundle()]);
    let bytes = encode_datagram(&body).unwrap();
    for len in 0..bytes.len() {
        assert!(decode_datagram(&bytes[..len]).is_err(), "{len}");
    }
    let mut padded = bytes.clone();
    padded.push(0);
    assert!(matches!(decode_datagram(&padded), Err(CodecError::Trailing(1))));
    let mut newer = bytes;
    newer[0] = 5;
    assert_eq!(
        decode_datagram(&newer).unwrap_err().to_string(),
        "the message is of wire version 5, this node speaks 4"
    );
}

#[test]
fn a_claimed_length_is_not_allocated() {
    // A `Give` of 2^60 bundles in twelve bytes.
    let bytes = [4, 3, 253, 0, 0, 0, 0, 0, 0, 0, 16, 0];
    assert!(matches!(decode_sync::<SyncRequest>(&bytes), Err(CodecError::Decode(_))));
}

#[test]
fn a_member_that_does_not_fit_leaves_the_buffer_clean() {
    let mut bytes = Vec::new();
    let mut buffer = (&mut bytes).limit(5);
    let member = Member::alive(identity(1));
    assert!(FocaCodec.encode_member(&member, &mut buffer).is_err());
    assert!(bytes.is_empty());
}

#[test]
fn the_longest_message_of_an_exchange_fits() {
    let of = EndpointOwner::Task(TaskId(u128::MAX));
    let key = EndpointKey { network: NetworkId(u128::MAX), owner: of };
    let value = EndpointValue {
        addresses: Addresses::Both(Ipv4Addr::BROADCAST, Ipv6Addr::from(u128::MAX)),
        mac: MacAddr([255; 6]),
        condition: Condition::Ready,
        revision: Revision(u64::MAX),
    };
    let version = Version { generation: u64::MAX, counter: u64::MAX };
    let row = Row { version, record: Record::Endpoint(key, Some(value)), proof: proof() };
    let rows = vec![row; SYNC_ROWS_MAX + ROWS_PER_OWNER_MAX];
    let bundles = vec![Bundle { owner: NodeId(u128::MAX), floor: u64::MAX, rows }];
    let digest = Digest { owner: NodeId(u128::MAX), ..digest() };
    let standing = Standing { generation: u64::MAX, renewals: u32::MAX, is_down: true };
    let known = vec![Known { digest, standing }; OWNERS_MAX];
    let member = Member::new(identity(1), u16::MAX, State::Suspect);
    let members = vec![WireMember::from(&member); OWNERS_MAX];
    let restarting = Vec::new();
    let delta = Delta { bundles, members, known, restarting, complete: true, more: None };
    let bytes = encode_sync(&SyncReply::Delta(delta)).unwrap();
    assert!(bytes.len() <= SYNC_BYTES_MAX, "{}", bytes.len());
    assert!(decode_sync::<SyncReply>(&bytes).is_ok());
}

proptest! {
    #[test]
    fn noise_is_refused_and_never_panics(bytes: Vec<u8>) {
        let _refused = decode_datagram(&bytes);
        let _refused = decode_sync::<SyncRequest>(&bytes);
        let _refused = decode_sync::<SyncReply>(&bytes);
        let _refused = FocaCodec.decode_header(bytes.as_slice());
    }
}
