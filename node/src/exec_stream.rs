//! Programs in tasks of any node: each node runs those in its own, a manager reaches the others'
//! by a stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, ExecSession};
use axum::body::Body;
use axum::http::StatusCode;
use cluster::exec::{ExecEnd, ExecInput, ExecOutput, ExecSpec};
use cluster::frame::{FRAME_BYTES_MAX, Frame};
use cluster::id::{NodeId, TaskId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::causes::chain;
use crate::executor::Error;
use crate::executor::exec::{Exec, QUEUE};
use crate::member::Member;
use crate::native::own::find_task;
use crate::transport::CallError;
use crate::transport::stream::{Incoming, Outgoing, Stream};
use crate::wire;
use crate::worker::shell::WorkerHandle;

/// The route; managers call it.
const PATH: &str = "/node/exec";
/// The kind of a stream's first frame, whose payload is an [`ExecCall`].
const CALL: u8 = 0;
/// How long a manager may take to say what to run.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// The exit code where the program's is not known.
const CODE_UNKNOWN: i32 = 128;

/// What is to be run, and in which task of the node that is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecCall {
    task: TaskId,
    spec: ExecSpec,
}

/// Runs a program in a task, which is named as by users.
pub async fn open(member: &Member, name: &str, spec: ExecSpec) -> Result<ExecSession, ApiError> {
    let (task, node, address) = find(member, name)?;
    let call = ExecCall { task, spec };
    if node == member.identity.node {
        let Exec { input, output } = begin(&member.worker, call).await?;
        return Ok(ExecSession { input, output });
    }
    if member.manager().is_none() {
        let text = format!("task {name} runs on node {node}, and this is a worker: ask a manager");
        return Err(ApiError::forbidden(text));
    }
    let payload = wire::encode(&call).map_err(|error| ApiError::internal(error.to_string()))?;
    if payload.len() > FRAME_BYTES_MAX {
        let text = format!(
            "program, arguments and variables take {} bytes, and the limit is {FRAME_BYTES_MAX}",
            payload.len()
        );
        return Err(ApiError::bad_request(text));
    }
    let opened = member.net.stream(address, PATH, Frame { kind: CALL, payload }).await;
    Ok(attach(opened.map_err(refused)?))
}

fn find(member: &Member, name: &str) -> Result<(TaskId, NodeId, SocketAddr), ApiError> {
    let Some(manager) = member.manager() else { return find_as_worker(member, name) };
    let state = manager.newest();
    let task = state.find_task(name)?;
    let node = task.node.and_then(|node| state.nodes.get(&node));
    let node = node.ok_or_else(|| ApiError::conflict(format!("task {name} has no node yet")))?;
    Ok((task.id, node.id, node.description.gossip))
}

/// Among the tasks that a worker knows.
fn find_as_worker(member: &Member, name: &str) -> Result<(TaskId, NodeId, SocketAddr), ApiError> {
    let assignment: Option<Arc<_>> = member.worker.assignment.borrow().clone();
    let assignment =
        assignment.ok_or_else(|| ApiError::unavailable("there is no assignment yet"))?;
    let (task, assigned) = find_task(&assignment, name).map_err(ApiError::not_found)?;
    let node = assignment.nodes.get(&assigned.node);
    let node = node.ok_or_else(|| ApiError::not_found(format!("the node of task {name}")))?;
    Ok((task, assigned.node, node.gossip))
}

fn refused(error: CallError) -> ApiError {
    match error {
        CallError::Refused { status, message, .. } => ApiError::new(status, message),
        error @ (CallError::Connect { .. } | CallError::Broken { .. }) => {
            ApiError::unavailable(error.to_string())
        }
    }
}

/// Runs a program in a task of this node.
async fn begin(worker: &WorkerHandle, call: ExecCall) -> Result<Exec, ApiError> {
    let ExecCall { task, spec } = call;
    let sandbox = worker.supervisors.adopt(&task.to_string()).await;
    let sandbox = sandbox.map_err(|error| ApiError::unavailable(chain(&error)))?;
    let sandbox = sandbox
        .ok_or_else(|| ApiError::conflict(format!("task {task} does not run on its node (yet)")))?;
    worker.executor.exec(&sandbox, spec).await.map_err(|error| match error {
        Error::Rejected { reason } => ApiError::bad_request(reason),
        error @ Error::Refused { .. } => ApiError::conflict(error.to_string()),
        error => ApiError::unavailable(chain(&error)),
    })
}

/// Answers a manager: the body is what it says, and that of the answer what the program says.
pub async fn serve(worker: &WorkerHandle, body: Body) -> Result<Body, (StatusCode, String)> {
    let mut incoming = Incoming::new(body);
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let first = tokio::time::timeout(CALL_LIMIT, incoming.next()).await;
    let first = first.map_err(|_late| bad("nothing was asked for".to_owned()))?;
    let call = match first.map_err(|error| bad(chain(&error)))? {
        Some(Frame { kind: CALL, payload }) => wire::decode(&payload),
        Some(_) | None => return Err(bad("the first frame is no call".to_owned())),
    };
    let call = call.map_err(|error| bad(error.to_string()))?;
    let exec = begin(worker, call).await.map_err(|error| {
        let status = StatusCode::from_u16(error.status);
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.message)
    })?;
    let (outgoing, body) = Outgoing::new();
    tokio::spawn(carry(exec, incoming, outgoing));
    Ok(body)
}

/// Carries everything between a program here and a manager, until either is gone.
async fn carry(exec: Exec, mut incoming: Incoming, outgoing: Outgoing) {
    let Exec { input, mut output } = exec;
    let up = async {
        while let Ok(Some(frame)) = incoming.next().await {
            let Ok(said) = ExecInput::try_from(frame) else { return };
            if input.send(said).await.is_err() {
                // It has ended, and says so.
                std::future::pending::<()>().await;
            }
        }
    };
    let down = async {
        while let Some(said) = output.recv().await {
            if !outgoing.send(&said.into()).await {
                return;
            }
        }
    };
    // With the program's output, which is dropped then, it ends.
    tokio::select! {
        () = up => {}
        () = down => {}
        () = outgoing.closed() => {}
    }
}

/// A program on another node.
fn attach(stream: Stream) -> ExecSession {
    let (input, mut from_user) = mpsc::channel::<ExecInput>(QUEUE);
    let (to_user, output) = mpsc::channel(QUEUE);
    let (outgoing, mut incoming, place) = stream.into_parts();
    tokio::spawn(async move {
        let up = async {
            while let Some(said) = from_user.recv().await {
                if !outgoing.send(&said.into()).await {
                    break;
                }
            }
            outgoing.send(&ExecInput::End.into()).await;
            std::future::pending::<()>().await;
        };
        let down = async {
            loop {
                let said = match incoming.next().await {
                    Ok(Some(frame)) => ExecOutput::try_from(frame).map_err(|e| e.to_string()),
                    Ok(None) => Err("its node has hung up".to_owned()),
                    Err(error) => Err(chain(&error)),
                };
                let said = said.unwrap_or_else(|why| {
                    let error = format!("the program's end is not known: {why}");
                    ExecOutput::Ended(ExecEnd::failed(CODE_UNKNOWN, error))
                });
                let is_last = matches!(said, ExecOutput::Ended(_));
                if to_user.send(said).await.is_err() || is_last {
                    return;
                }
            }
        };
        tokio::select! {
            () = up => {}
            () = down => {}
            () = to_user.closed() => {}
        }
        drop(place);
    });
    ExecSession { input, output }
}
