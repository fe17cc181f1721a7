//! Logs of tasks on any node: each node reads its own files, a manager gathers them.

use std::net::SocketAddr;
use std::time::Duration;

use api::{LogRecord, LogRequest, LogSelector, LogStream};
use bytes::{Bytes, BytesMut};
use cluster::id::TaskId;
use cluster::object::Task;
use cluster::state::State;
use cluster::time::Timestamp;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use crate::logs::{self, Query};
use crate::member::Member;
use crate::transport::{Lane, Net};
use crate::wire;
use crate::worker::shell::WorkerHandle;

/// A line on the wire is never longer (the supervisor splits at 16 KiB).
const LINE_BYTES_MAX: usize = 256 << 10;
/// Tasks that are read at one time.
const READERS_MAX: usize = 64;

/// `POST /node/logs`: one task's lines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogCall {
    /// The task.
    pub task: TaskId,
    /// Only so many from the end.
    pub tail: Option<u64>,
    /// Only from this moment on.
    pub since: Option<Timestamp>,
    /// Keep going.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
}

/// One line on the wire: JSON and a newline.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    time: Timestamp,
    stderr: bool,
    text: String,
}

/// Reads a task's lines on its own node.
pub fn read(worker: &WorkerHandle, call: LogCall) -> BoxStream<'static, Bytes> {
    let dir = worker.executor.log_directory(&call.task.to_string());
    let query = Query {
        tail: call.tail.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        since: call.since.map(|t| std::time::UNIX_EPOCH + Duration::from_millis(t.0)),
        until: None,
        follow: call.follow,
        stdout: call.stdout,
        stderr: call.stderr,
    };
    let lines = logs::read(dir, query);
    lines
        .filter_map(|line| async move {
            line.inspect_err(|error| tracing::warn!(%error, "read a log")).ok()
        })
        .map(|line| {
            let since = line.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let line = Line {
                time: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
                stderr: line.stream == logs::LogStream::Stderr,
                text: String::from_utf8_lossy(&line.text).into_owned(),
            };
            let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
            bytes.push(b'\n');
            Bytes::from(bytes)
        })
        .boxed()
}

/// Lines of all tasks that a request is about, from their nodes.
pub fn gather(
    member: &Member,
    state: &State,
    request: &LogRequest,
) -> BoxStream<'static, LogRecord> {
    let wanted = |task: &Task| match request.selector {
        LogSelector::Service(service) => task.service == service,
        LogSelector::Task(id) => task.id == id,
    };
    let mut tasks: Vec<_> = state.tasks.values().filter(|task| wanted(task)).cloned().collect();
    tasks.sort_by_key(|task| (task.meta.created_at, task.id));
    let streams: Vec<_> = tasks
        .into_iter()
        .filter_map(|task| {
            let node = state.nodes.get(&task.node?)?;
            let call = LogCall {
                task: task.id,
                tail: request.tail,
                since: request.since,
                follow: request.follow,
                stdout: request.stdout,
                stderr: request.stderr,
            };
            Some(of_task(member.net.clone(), node.description.gossip, node.id, &task, call))
        })
        .collect();
    if request.follow {
        stream::select_all(streams).boxed()
    } else {
        stream::iter(streams).flatten_unordered(READERS_MAX).boxed()
    }
}

fn of_task(
    net: Net,
    address: SocketAddr,
    node: cluster::id::NodeId,
    task: &Task,
    call: LogCall,
) -> BoxStream<'static, LogRecord> {
    let (service, id) = (task.service, task.id);
    let lines = stream::once(async move {
        let body = match wire::encode(&call) {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(task = %id, %error, "ask for logs");
                return stream::empty().boxed();
            }
        };
        match net.open(address, Lane::Bulk, "/node/logs", body).await {
            Ok(response) => split(response.into_body()).boxed(),
            Err(error) => {
                // Docker leaves out nodes that do not answer as well.
                tracing::warn!(task = %id, %error, "read logs of a node");
                stream::empty().boxed()
            }
        }
    });
    lines
        .flatten()
        .map(move |line: Line| LogRecord {
            node,
            service,
            task: id,
            stream: if line.stderr { LogStream::Stderr } else { LogStream::Stdout },
            time: line.time,
            text: Bytes::from(line.text.into_bytes()),
        })
        .boxed()
}

/// Cuts a body into lines.
fn split(body: hyper::body::Incoming) -> impl futures_util::Stream<Item = Line> {
    stream::unfold((body, BytesMut::new()), |(mut body, mut rest)| async move {
        loop {
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.split_to(end + 1);
                // Who sends one that is none has no more to say.
                let line = serde_json::from_slice(&line)
                    .inspect_err(|error| tracing::warn!(%error, "a log line of a node"));
                return Some((line.ok()?, (body, rest)));
            }
            if rest.len() > LINE_BYTES_MAX {
                return None;
            }
            let frame = body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                rest.extend_from_slice(&data);
            }
        }
    })
}
