//! What fuzzing calls: each function decodes any bytes, panics where a law of a decoder breaks, and
//! says whether there was something to decode.

use std::time::Duration;

use cluster::exec::{ExecEnd, ExecSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::protocol::{Phase, TaskReport};
use crate::spec::{DnsConfig, LaunchSpec, Root, StartSpec};
use crate::status::{Launch, Status};
use crate::{etc, exec, hold, protocol, user, wire};

/// What decodes is encoded to bytes that decode to the same.
fn law<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(json: &[u8]) -> Option<T> {
    let decoded: T = serde_json::from_slice(json).ok()?;
    let once = serde_json::to_vec(&decoded).expect("what was decoded can be encoded");
    let again: T = serde_json::from_slice(&once).expect("what was encoded can be decoded");
    assert_eq!(decoded, again, "a value changed on its way");
    Some(decoded)
}

/// What is said on a socket of a supervisor, of the holder or of a process that watches a program,
/// or on the pipe of a task that begins.
pub fn socket(bytes: &[u8]) -> bool {
    let mut buffer = bytes.to_vec();
    let mut taken = Vec::new();
    let mut understood = false;
    while let Ok(Some(line)) = wire::take_line(&mut buffer) {
        understood |= law::<protocol::Request>(&line).is_some()
            | law::<protocol::Message>(&line).is_some()
            | law::<hold::protocol::Request>(&line).is_some()
            | law::<hold::protocol::Answer>(&line).is_some()
            | law::<Failure>(&line).is_some()
            | law::<ExecSpec>(&line).is_some()
            | law::<exec::Order>(&line).is_some()
            | law::<exec::Said>(&line).is_some();
        taken.extend(line);
        taken.push(b'\n');
    }
    taken.extend(buffer);
    assert_eq!(taken, bytes, "lines were lost");
    understood
}

/// Requests and answers.
#[must_use]
pub fn socket_seeds() -> Vec<Vec<u8>> {
    let line = |value: serde_json::Value| [value.to_string().as_bytes(), b"\n"].concat();
    let start = serde_json::json!(protocol::Request::Stop {
        signal: Some(15),
        grace: Some(Duration::from_secs(1)),
    });
    let open = serde_json::json!(hold::protocol::Request::Open { name: "a".to_owned() });
    let refused = serde_json::json!(protocol::Message::Refused { reason: "b".to_owned() });
    let names = serde_json::json!(hold::protocol::Answer::Names(vec!["a".to_owned()]));
    let spec = ExecSpec { argv: vec!["sh".to_owned()], ..ExecSpec::default() };
    let spec = serde_json::json!(spec);
    let signal = serde_json::json!(exec::Order::Signal(15));
    let end = ExecEnd { code: 137, signal: Some(9), error: None };
    let ended = serde_json::json!(exec::Said::Ended(end));
    let each = [start, open, refused, names, spec, signal, ended].map(line);
    each.iter().cloned().chain([each.concat()]).collect()
}

/// A file of a task's directory.
pub fn file(bytes: &[u8]) -> bool {
    let launch = law::<Launch>(bytes);
    let words = launch.map(|launch| (launch.spec.refusal(), launch.spec.hostname()));
    words.is_some() | law::<Status>(bytes).is_some() | law::<StartSpec>(bytes).is_some()
}

/// A launch, a status, a start.
#[must_use]
pub fn file_seeds() -> [Vec<u8>; 3] {
    let launch = Launch {
        spec: LaunchSpec::new("a", Root::Host, vec!["sh".to_owned()]),
        run_dir: "/run/skein".into(),
        data_dir: "/var/lib/skein".into(),
        launched_at: Duration::from_secs(1),
    };
    let report = TaskReport { phase: Phase::Prepared, health: None, dns_port: 53 };
    let status = Status { report, pid_ticks: Some(7) };
    let start = StartSpec { addresses: vec![[10, 0, 1, 3].into()] };
    let files = [serde_json::json!(launch), serde_json::json!(status), serde_json::json!(start)];
    files.map(|file| file.to_string().into_bytes())
}

/// The host's resolv.conf, of which a task's is made.
pub fn resolv_conf(text: &str) {
    let _file_of_a_task = etc::resolv_conf(&DnsConfig::default(), text);
}

/// A user, and the files of a task's root that it is looked up in.
pub fn users(text: &str) -> bool {
    let (user, files) = text.split_once('\n').unwrap_or((text, ""));
    let group = user.rsplit(':').next().unwrap_or_default().to_owned();
    user::resolve(Some(user), &[group], files, files).is_ok()
}
