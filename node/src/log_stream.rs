//! Logs of tasks on any node: each node reads its own files, a manager gathers them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{LogRecord, LogRequest, LogSelector, LogStream};
use bytes::{Bytes, BytesMut};
use cluster::id::{NodeId, ServiceId, TaskId};
use cluster::object::Task;
use cluster::state::State;
use cluster::time::{Revision, Timestamp};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::logs::Query;
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
pub(crate) struct Line {
    time: Timestamp,
    stderr: bool,
    text: String,
}

/// Reads a task's lines on its own node.
pub fn read(worker: &WorkerHandle, call: LogCall) -> BoxStream<'static, Bytes> {
    let query = Query {
        tail: call.tail.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        since: call.since.map(|t| std::time::UNIX_EPOCH + Duration::from_millis(t.0)),
        until: None,
        follow: call.follow,
        stdout: call.stdout,
        stderr: call.stderr,
    };
    let lines = worker.executor.logs(&call.task.to_string(), query);
    lines
        .filter_map(|line| async move {
            line.inspect_err(|error| tracing::warn!(%error, "read a log")).ok()
        })
        .map(|line| {
            let since = line.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let line = Line {
                time: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
                stderr: line.stream == supervise::logs::LogStream::Stderr,
                text: String::from_utf8_lossy(&line.text).into_owned(),
            };
            let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
            bytes.push(b'\n');
            Bytes::from(bytes)
        })
        .boxed()
}

/// Lines of all tasks that a request is about, from their nodes. `first` is the state that the
/// request is answered from; a follower of a service goes on with the tasks of later `states`.
pub fn gather(
    net: &Net,
    first: &State,
    states: watch::Receiver<Arc<State>>,
    request: LogRequest,
) -> BoxStream<'static, LogRecord> {
    let follow = request.follow;
    let mut followed = Followed::of(request.selector);
    let net = net.clone();
    let first = followed.news(first);
    let tail = request.tail;
    let open = move |source: Source, tail| of_task(net.clone(), source, &request, tail);
    let streams: Vec<_> = first.into_iter().map(|source| open(source, tail)).collect();
    if !follow {
        return stream::iter(streams).flatten_unordered(READERS_MAX).boxed();
    }
    // Whole: they began after the request.
    let open = move |source| open(source, None);
    let mut states = states;
    // What came between the first state and now rings no more.
    states.mark_changed();
    let follower = Follower { streams: stream::select_all(streams), states, followed, open };
    stream::unfold(follower, |mut follower| async move { Some((follower.next().await?, follower)) })
        .boxed()
}

/// Reads the logs that there are and those that come.
struct Follower<F> {
    streams: SelectAll<BoxStream<'static, LogRecord>>,
    states: watch::Receiver<Arc<State>>,
    followed: Followed,
    open: F,
}

impl<F: Fn(Source) -> BoxStream<'static, LogRecord>> Follower<F> {
    async fn next(&mut self) -> Option<LogRecord> {
        loop {
            tokio::select! {
                Some(record) = self.streams.next() => return Some(record),
                changed = self.states.changed(), if !self.followed.is_over => changed.ok()?,
                else => return None,
            }
            let state = self.states.borrow_and_update().clone();
            self.streams.extend(self.followed.news(&state).into_iter().map(&self.open));
        }
    }
}

/// A task's log: on which node it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    service: ServiceId,
    task: TaskId,
    node: NodeId,
    address: SocketAddr,
}

/// What a reader of logs has met.
struct Followed {
    selector: LogSelector,
    known: BTreeSet<TaskId>,
    revision: Revision,
    /// No other log can follow: the service is forgotten, or it is about one task.
    is_over: bool,
}

impl Followed {
    fn of(selector: LogSelector) -> Self {
        Self { selector, known: BTreeSet::new(), revision: Revision(0), is_over: false }
    }

    /// The logs that it has not met yet, oldest first. One without a node has none yet.
    fn news(&mut self, state: &State) -> Vec<Source> {
        if state.revision < self.revision {
            return Vec::new();
        }
        self.revision = state.revision;
        self.known.retain(|id| state.tasks.contains_key(id));
        let mut tasks: Vec<&Arc<Task>> = match self.selector {
            LogSelector::Service(service) => {
                self.is_over = !state.services.contains_key(&service);
                state.tasks_of(service).collect()
            }
            LogSelector::Task(id) => {
                let task = state.tasks.get(&id);
                self.is_over = task.is_none_or(|task| task.node.is_some());
                task.into_iter().collect()
            }
        };
        tasks.retain(|task| !self.known.contains(&task.id) && task.spec.log_driver().is_read());
        tasks.sort_by_key(|task| (task.meta.created_at, task.id));
        let sources = tasks.into_iter().filter_map(|task| {
            let node = state.nodes.get(&task.node?)?;
            let (service, address) = (task.service, node.description.gossip);
            Some(Source { service, task: task.id, node: node.id, address })
        });
        let sources: Vec<Source> = sources.collect();
        self.known.extend(sources.iter().map(|source| source.task));
        sources
    }
}

fn of_task(
    net: Net,
    source: Source,
    request: &LogRequest,
    tail: Option<u64>,
) -> BoxStream<'static, LogRecord> {
    let Source { service, task: id, node, address } = source;
    let call = LogCall {
        task: id,
        tail,
        since: request.since,
        follow: request.follow,
        stdout: request.stdout,
        stderr: request.stderr,
    };
    let lines = stream::once(async move {
        let body = match wire::encode(&call) {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(task = %id, %error, "ask for logs");
                return stream::empty().boxed();
            }
        };
        match net.open(address, Lane::Logs, "/node/logs", body).await {
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
