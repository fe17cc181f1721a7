//! What fuzzing calls: each function decodes any bytes, panics where a law of a decoder breaks, and
//! says whether there was something to decode.

mod log;
mod trust;

pub use log::{log, log_seeds};
pub use trust::{certificate, certificate_seeds, key_file, key_file_seeds};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use cluster::assign::{Held, Kept, Parts};
use cluster::exec::{ExecInput, ExecOutput};
use cluster::frame::Frame;
use cluster::id::{ClusterId, NodeId, TaskId};
use cluster::session::{self, Told, frame};
use cluster::spec::Availability;
use cluster::time::Timestamp;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::identity::{AddressFlags, Identity};
use crate::manager::agreement::{Compared, DigestCall};
use crate::manager::why::{WhyAnswer, WhyCall};
use crate::native::own::NativeCall;
use crate::pki::{Credentials, Tls};
use crate::{backup, config, exec_stream, log_stream, wire};

/// First byte of a file's input: which of these it is.
const FILES: u8 = 11;
/// First byte of a backup's input: the bytes are the file. Else they are its content, and the sum
/// is added, which no fuzzer finds.
const AS_IT_IS: u8 = 0;

/// What decodes is encoded to bytes that decode to the same. Not all types can be compared, their
/// bytes can.
fn law<T: Serialize + DeserializeOwned>(json: &[u8]) -> Option<T> {
    let decoded: T = serde_json::from_slice(json).ok()?;
    let once = serde_json::to_vec(&decoded).expect("what was decoded can be encoded");
    let again: T = serde_json::from_slice(&once).expect("what was encoded can be decoded");
    let twice = serde_json::to_vec(&again).expect("what was decoded can be encoded");
    assert_eq!(once, twice, "a value changed on its way");
    Some(decoded)
}

fn wire_law<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(decoded) = wire::decode::<T>(bytes) else { return false };
    let once = wire::encode(&decoded).expect("what was decoded can be encoded");
    let again: T = wire::decode(&once).expect("what was encoded can be decoded");
    assert_eq!(once, wire::encode(&again).expect("it can"), "a message changed on its way");
    true
}

/// A message between nodes.
pub fn message(bytes: &[u8]) -> bool {
    [
        wire_law::<wire::JoinCall>(bytes),
        wire_law::<wire::JoinAnswer>(bytes),
        wire_law::<wire::RenewCall>(bytes),
        wire_law::<wire::RenewAnswer>(bytes),
        wire_law::<wire::ReseatCall>(bytes),
        wire_law::<wire::ReseatAnswer>(bytes),
        wire_law::<session::WatchCall>(bytes),
        watch_answer(bytes),
        wire_law::<session::ReportCall>(bytes),
        wire_law::<session::ReportAnswer>(bytes),
        wire_law::<wire::NotLeader>(bytes),
        wire_law::<DigestCall>(bytes),
        wire_law::<Compared>(bytes),
        wire_law::<WhyCall>(bytes),
        wire_law::<WhyAnswer>(bytes),
        wire_law::<NativeCall>(bytes),
        wire_law::<serde_json::Value>(bytes),
        wire_law::<exec_stream::ExecCall>(bytes),
        stream(bytes),
        wire_law::<log_stream::LogCall>(bytes),
        law::<log_stream::Line>(bytes).is_some(),
    ]
    .contains(&true)
}

/// Frames of a stream, and what a program and its user make of them.
fn stream(bytes: &[u8]) -> bool {
    let mut received = BytesMut::from(bytes);
    let mut understood = false;
    while let Ok(Some(frame)) = Frame::take(&mut received) {
        let again = Frame::take(&mut BytesMut::from(&*frame.encode().expect("it was read")));
        assert_eq!(again, Ok(Some(frame.clone())), "a frame changed on its way");
        if let Ok(input) = ExecInput::try_from(frame.clone()) {
            assert_eq!(ExecInput::try_from(Frame::from(input.clone())), Ok(input));
            understood = true;
        }
        if let Ok(output) = ExecOutput::try_from(frame) {
            // A reason that is too long is cut.
            let once = Frame::from(output);
            let again =
                ExecOutput::try_from(once.clone()).expect("what was encoded can be decoded");
            assert_eq!(Frame::from(again), once, "an output changed on its way");
            understood = true;
        }
    }
    understood
}

/// The node whose assignment the seeds have.
const NODE: NodeId = NodeId(2);

/// No fuzzer finds the bytes of a digest.
fn hash(_bytes: &[u8]) -> [u8; 32] {
    [7; 32]
}

fn take(told: Told) -> Option<Kept> {
    Held::next(None, NODE, told, hash).ok().map(|held| held.kept())
}

/// An answer to a watch, and what a node makes of it.
fn watch_answer(bytes: &[u8]) -> bool {
    let Ok(answer) = frame::decode(Bytes::copy_from_slice(bytes)) else { return false };
    let once = frame::encode(answer.clone()).expect("what was decoded can be encoded").concat();
    let again = frame::decode(once.into()).expect("what was encoded can be decoded");
    assert_eq!(again, answer, "an answer changed on its way");
    if let Some(kept) = answer.told.and_then(take) {
        let assignment = kept.assignment();
        let held = Held::restore(NODE, kept, hash).expect("what a node held it can hold again");
        assert_eq!(*held.assignment, assignment, "an assignment changed on its way");
    }
    true
}

fn told() -> Option<Told> {
    let mut parts = Parts::new(hash);
    parts.follow(&cluster::fuzzing::state());
    parts.tell(NODE, &BTreeSet::new())
}

fn kept() -> Option<Kept> {
    take(told()?)
}

/// Messages with much in them.
#[must_use]
pub fn message_seeds() -> Vec<Vec<u8>> {
    let state = cluster::fuzzing::state();
    let join = state.nodes.values().next().and_then(|node| {
        wire::encode(&wire::JoinCall {
            token: "SWMTKN-1-a-b".to_owned(),
            request: "-----BEGIN CERTIFICATE REQUEST-----".to_owned(),
            description: node.description.clone(),
            cluster_address: ([192, 0, 2, 1], 2377).into(),
            availability: Availability::Active,
        })
        .ok()
    });
    let watch = frame::encode(session::WatchAnswer {
        told: told(),
        released: [TaskId(7)].into(),
        now: Timestamp(9),
    });
    let call = wire::encode(&session::WatchCall {
        have: [session::Digest([7; 32])].into(),
        confirmed: true,
        released: [TaskId(7)].into(),
        schema: 1,
    });
    let report = wire::encode(&session::ReportCall {
        applied: Some(session::Digest([7; 32])),
        statuses: state.tasks.values().map(|task| (task.id, task.status.clone())).collect(),
        description: None,
        restarts: true,
    });
    let logs = wire::encode(&log_stream::LogCall {
        task: TaskId(7),
        tail: Some(3),
        since: Some(Timestamp(9)),
        follow: true,
        stdout: true,
        stderr: false,
    });
    let why = wire::encode(&WhyCall { service: "web".to_owned() });
    let line = br#"{"time":9,"stderr":true,"text":"a"}"#.to_vec();
    let watch = watch.ok().map(|pieces| pieces.concat());
    let answers =
        [call.ok(), report.ok(), logs.ok(), why.ok()].map(|bytes| bytes.map(|b| b.to_vec()));
    (join.map(|bytes| bytes.to_vec()).into_iter())
        .chain(watch)
        .chain(answers.into_iter().flatten())
        .chain([line])
        .collect()
}

/// A file of the data directory, of a task's directory, of a task's root, or of the host.
pub fn file(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match kind % FILES {
        0 => law::<Identity>(bytes).is_some(),
        1 => law::<Credentials>(bytes).is_some_and(|found| Tls::new(&found).is_ok()),
        2 => law::<Kept>(bytes).is_some_and(|kept| {
            let _assignment = (kept.assignment(), Held::restore(NODE, kept, hash));
            true
        }),
        3 => law::<BTreeMap<TaskId, IpAddr>>(bytes).is_some(),
        4..=6 => supervise::fuzzing::file(bytes),
        7 => toml::from_str::<config::DaemonArgs>(text).is_ok(),
        8 => law::<Option<u64>>(bytes).is_some(),
        9 => {
            supervise::fuzzing::resolv_conf(text);
            !netprog_linux::facts::resolvers(text).is_empty()
        }
        _ => supervise::fuzzing::users(text),
    }
}

/// A file of each kind.
#[must_use]
pub fn file_seeds() -> Vec<Vec<u8>> {
    let identity = Identity {
        cluster: ClusterId(1),
        node: NodeId(2),
        raft_id: Some(7),
        log_of: Some(7),
        advertise: [192, 0, 2, 1].into(),
        data_path: [192, 0, 2, 1].into(),
        listen: ([0, 0, 0, 0], 2377).into(),
        gossip_port: 7946,
        managers: vec![([192, 0, 2, 1], 2377).into()],
        generation: 3,
        cluster_address: None,
        flags: AddressFlags::default(),
    };
    let egress = BTreeMap::from([(TaskId(7), IpAddr::from([172, 18, 0, 2]))]);
    let [launch, status, start] = supervise::fuzzing::file_seeds();
    let files = [
        (0, serde_json::to_vec(&identity).ok()),
        (1, serde_json::to_vec(&trust::credentials()).ok()),
        (2, serde_json::to_vec(&kept()).ok()),
        (3, serde_json::to_vec(&egress).ok()),
        (4, Some(launch)),
        (5, Some(status)),
        (6, Some(start)),
        (7, Some(b"data-dir = \"/var/lib/skein\"\n".to_vec())),
        (8, Some(b"12".to_vec())),
        (9, Some(b"search example.org\nnameserver 192.0.2.53\n".to_vec())),
        (10, Some(b"redis:redis\nredis:x:999:999:a:/data:/bin/sh\nredis:x:999:redis".to_vec())),
    ];
    let of = |(kind, bytes): (u8, Option<Vec<u8>>)| Some([vec![kind], bytes?].concat());
    files.into_iter().filter_map(of).collect()
}

/// A backup as a file in a folder of the caller's.
pub fn backup_file(folder: &Path, bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    let path = folder.join("fuzzed.backup");
    let sum = digest(&SHA256, bytes);
    let sum = if *kind == AS_IT_IS { &[] } else { sum.as_ref() };
    std::fs::write(&path, [bytes, sum].concat()).expect("the folder takes files");
    let inspected = backup::inspect(&path).ok();
    let Ok((head, state)) = backup::read(&path) else { return false };
    assert_eq!(inspected.as_ref(), Some(&head), "two readings of a backup differ");
    let mut again = Vec::new();
    backup::write(&state, head.made_at, &mut again).expect("a state with a cluster can be kept");
    std::fs::write(&path, &again).expect("the folder takes files");
    let (_, again) = backup::read(&path).expect("what was written can be read");
    assert_eq!(again, state, "a backup changed on its way");
    true
}

/// A whole backup, with its sum and without.
#[must_use]
pub fn backup_seeds() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let written = backup::write(&cluster::fuzzing::state(), Timestamp(7), &mut bytes);
    written.expect("the state has a cluster");
    let content = &bytes[..bytes.len() - SHA256.output_len()];
    vec![[&[AS_IT_IS], &bytes[..]].concat(), [&[AS_IT_IS + 1], content].concat()]
}
