use std::sync::Arc;

use expect_test::{Expect, expect};

use super::*;
use crate::fixture::{attachment, cluster, network, new, node, service, small_state, task};
use crate::request::Request;

/// Printable bytes as they are, others in hexadecimal: JSON stays readable in a diff.
fn golden(bytes: &[u8], expected: &Expect) {
    const COLUMNS: usize = 88;
    let mut text = String::new();
    let mut column = 0;
    for byte in bytes {
        let shown = match byte {
            b'\\' | 0..0x20 | 0x7F.. => format!("\\{byte:02x}"),
            printable => char::from(*printable).to_string(),
        };
        if column + shown.len() > COLUMNS {
            text.push('\n');
            column = 0;
        }
        column += shown.len();
        text.push_str(&shown);
    }
    text.push('\n');
    expected.assert_eq(&text);
}

fn every_kind() -> Transaction {
    let objects = [
        Object::Cluster(Arc::new(cluster())),
        Object::Node(Arc::new(node(2, "a", Some(7)))),
        Object::Network(Arc::new(network(3, "web", "10.0.1.0/24"))),
        Object::Service(Arc::new(service(5, "redis"))),
        Object::Task(Arc::new(task(6, 5, vec![attachment(3, "10.0.1.2")]))),
    ];
    let mut changes: Vec<Change> = objects.into_iter().map(new).collect();
    changes.push(Change::Remove { key: Key::Task(TaskId(9)), expected: Revision(300) });
    let answer = Arc::new(Answer::Network { id: NetworkId(3), warning: String::new() });
    let answered = vec![Answered { request: RequestId(8), answer }];
    Transaction { at: Timestamp(1_700_000_000_000), changes, answered }
}

#[test]
fn transaction_round_trips() {
    let transaction = every_kind();
    let bytes = encode_transaction(&transaction).unwrap();
    assert_eq!(decode_transaction(&bytes).unwrap(), transaction);
}

#[test]
fn what_a_newer_version_wrote_is_refused_and_not_read_in_part() {
    let reads = newest_schema();
    let newer = Cluster { schema: reads + 1, ..cluster() };
    let mut state = small_state();
    state.put(Object::Cluster(Arc::new(newer.clone()))).unwrap();
    let mut snapshot = Vec::new();
    state.write_snapshot(&mut snapshot).unwrap();
    let changes = vec![new(Object::Cluster(Arc::new(newer)))];
    let entry = encode_transaction(&crate::fixture::transaction(changes)).unwrap();
    let read = decode_transaction(&entry).map(|_transaction| ());
    let restored = crate::state::State::read_snapshot(&mut &snapshot[..]).map(|_state| ());
    for refused in [read, restored] {
        let said = refused.unwrap_err().to_string();
        let expected = format!("has schema {}, and this version of Skein reads up to", reads + 1);
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn transaction_encoding_stands_still() {
    golden(
        &encode_transaction(&every_kind()).unwrap(),
        &expect![[r#"
            \00\fd\00h\e5\cf\8b\01\00\00\06\00\00\00\fbi\01{"id":"0000000000000000000000001","meta":
            {"version":0,"created_at":0,"updated_at":0},"spec":{"Name":"","Labels":{},"Orchestration
            ":{"TaskHistoryRetentionLimit":null}},"ca_certificate":"certificate","ca_key":"key","wor
            ker_token":"SWMTKN-1-x-w","manager_token":"SWMTKN-1-x-m","gossip_keys":[],"address_pools
            ":["10.0.0.0/8"],"subnet_size":24,"data_path_port":4789}\00\00\01\fb\13\02{"id":"0000000
            000000000000000002","meta":{"version":0,"created_at":0,"updated_at":0},"spec":{"Labels":
            {},"Role":"manager","Availability":"active"},"description":{"hostname":"a","os":"linux",
            "architecture":"x86_64","nano_cpus":4000000000,"memory_bytes":8589934592,"engine_version
            ":"0.1.0","gossip":"192.0.2.1:7946","vtep":"192.0.2.1","routes":[],"balancer":"nft","exe
            cutors":["process"],"certificate_subject":""},"status":{"state":"ready","message":"","ad
            dress":""},"manager":{"raft_id":7,"address":"192.0.2.1:2377"},"ingress":null}\00\00\02
            \fbC\01{"id":"0000000000000000000000003","meta":{"version":0,"created_at":0,"updated_at"
            :0},"spec":{"Name":"web","Labels":{},"Driver":"","Internal":false,"Attachable":false,"In
            gress":false,"EnableIPv6":false,"Options":{},"IPAM":{"Driver":"","Config":[]}},"vni":409
            9,"subnets":{"v4":"10.0.1.1/24"},"next_address":2,"removed":false}\00\00\03\fbt\01{"id":
            "0000000000000000000000005","meta":{"version":0,"created_at":0,"updated_at":0},"spec":{"
            Name":"redis","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":""},"ForceUpdate":0},
            "Mode":{"Replicated":{"Replicas":1}},"EndpointSpec":{"Mode":"vip"}},"previous_spec":null
            ,"spec_version":1,"previous_spec_version":0,"vips":{},"ports":[],"update_status":null,"r
            emoved":false}\00\00\04\fbj\02{"id":"0000000000000000000000006","meta":{"version":0,"cre
            ated_at":0,"updated_at":0},"service":"0000000000000000000000005","service_name":"web","s
            ervice_labels":{},"slot":{"Replica":1},"node":null,"spec":{"ContainerSpec":{"Image":""},
            "ForceUpdate":0},"spec_version":1,"attachments":[{"network":"0000000000000000000000003",
            "addresses":{"v4":"10.0.1.2"},"mac":"02:42:0a:00:01:02","aliases":[]}],"desired":"runnin
            g","status":{"state":"pending","at":1700000000000,"message":"","error":"","pid":null,"ex
            it_code":null,"healthy":true},"start_after":null,"released":false,"restarts":{"attempts"
            :0,"window_start":0,"streak":0}}\01\04\09\fb,\01\01\08;{"Network":{"id":"000000000000000
            0000000003","warning":""}}
        "#]],
    );
}

/// Goal: a state has the digest of its objects, however it was read. Method: a snapshot with the
/// same object twice, of which one would be kept and both be counted.
#[test]
fn a_snapshot_with_an_object_twice_is_refused() {
    let service = Object::Service(Arc::new(service(5, "redis")));
    let mut bytes = Vec::new();
    let objects = [service.clone(), service].into_iter();
    let head = SnapshotHead::V1 { revision: 2, objects: 2, answers: 0, forgotten: 0 };
    super::write_snapshot(&mut bytes, &head, objects, std::iter::empty()).unwrap();
    let refused = crate::State::read_snapshot(&mut &bytes[..]).unwrap_err().to_string();
    assert!(refused.ends_with("is in it twice"), "{refused}");
}

/// Goal: managers that read a state from a snapshot hold what those do that wrote it. Method: a
/// number that a quick parser of JSON reads as its neighbour.
#[test]
fn numbers_are_kept_to_the_last_bit() {
    let mut changed = network(3, "web", "10.0.1.0/24");
    changed.spec.extra.insert("Number".to_owned(), serde_json::json!(3e122));
    let transaction = crate::fixture::transaction(vec![new(Object::Network(Arc::new(changed)))]);
    let mut state = crate::State::default();
    let outcome = state.apply(Revision(1), &transaction);
    assert_eq!(outcome, crate::apply::Outcome::Applied);
    let mut bytes = Vec::new();
    state.write_snapshot(&mut bytes).unwrap();
    assert_eq!(crate::State::read_snapshot(&mut &bytes[..]).unwrap(), state);
}

#[test]
fn snapshot_encoding_stands_still() {
    let state = small_state();
    let mut bytes = Vec::new();
    state.write_snapshot(&mut bytes).unwrap();
    assert_eq!(crate::State::read_snapshot(&mut &bytes[..]).unwrap(), state);
    for length in 0..bytes.len() {
        assert!(crate::State::read_snapshot(&mut &bytes[..length]).is_err(), "{length} bytes");
    }
    golden(
        &bytes[..64],
        &expect![[r#"
            \00\01\06\00\00\00\fb\81\01{"id":"0000000000000000000000001","meta":{"version":1,"
        "#]],
    );
}

#[test]
fn request_and_reply_encodings_stand_still() {
    let request = Request::RemoveNode { id: NodeId(7), force: true };
    let attempt = Attempt { id: RequestId(8), since: Some(Revision(2)) };
    let bytes = encode_request(attempt, &request).unwrap();
    assert_eq!(decode_request(&bytes).unwrap(), (attempt, request));
    golden(
        &bytes,
        &expect![[r#"
            \00m[{"id":"0000000000000000000000008","since":2},{"RemoveNode":{"id":"00000000000000000
            00000007","force":true}}]
        "#]],
    );
    let reply = Err(Rejection::not_found("node", "x"));
    let bytes = encode_reply(&reply).unwrap();
    assert_eq!(decode_reply(&bytes).unwrap(), reply);
    golden(
        &bytes,
        &expect![[r#"
        \008{"Err":{"code":"NotFound","message":"node x not found"}}
    "#]],
    );
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = encode_transaction(&every_kind()).unwrap();
    for length in 0..bytes.len() {
        assert!(decode_transaction(&bytes[..length]).is_err(), "{length} bytes");
    }
    let longer: Vec<u8> = bytes.into_iter().chain([0]).collect();
    assert!(matches!(decode_transaction(&longer), Err(CodecError::Trailing { count: 1, .. })));
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_it_is_allocated() {
    // Version 1, time 0, then a count of 2^63 changes.
    let bytes = [&[0_u8, 0, 0xFD][..], &(1_u64 << 63).to_le_bytes()].concat();
    assert!(matches!(decode_transaction(&bytes), Err(CodecError::Decode { .. })));
}

proptest::proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
        // The goal is that neither panics; what they say does not matter.
        let _ignored = decode_transaction(&bytes).is_ok();
        let _ignored = crate::State::read_snapshot(&mut &bytes[..]).is_ok();
        let _ignored = decode_request(&bytes).is_ok();
    }
}
