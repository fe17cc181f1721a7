//! What a manager answers on its cluster listener.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cluster::codec::{decode_request, encode_reply};
use cluster::rejection::Rejection;
use cluster::request::Request;
use cluster::session::{PARTS_MAX, ReportCall, WatchCall, frame};
use futures_util::stream;
use leader::Undecided;
use raft_store::Class;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::session::{self, Refusal};
use super::{Manager, join};
use crate::transport::{BODY_BYTES_MAX, MemberOnly};
use crate::wire::{
    self, JoinCall, NOT_LEADER, NotLeader, OUTCOME_UNKNOWN, RenewCall, ReseatAnswer, ReseatCall,
    TOO_OLD,
};

/// The largest body that is read of a caller without a certificate.
const JOIN_BYTES_MAX: usize = 16 << 10;

/// The largest body of a session's call: what a node says of itself and of its tasks.
const SESSION_BYTES_MAX: usize = 8 << 20;

/// Answer with an error: a status and one line.
type Refused = (StatusCode, String);

/// All routes of a manager's cluster listener; who may call them is in `transport::access`.
pub fn router(manager: Manager) -> Router {
    Router::new()
        .route("/raft/{class}", post(raft))
        .route("/join", post(join_route).layer(DefaultBodyLimit::max(JOIN_BYTES_MAX)))
        .route("/manager/request", post(request))
        .route("/manager/why", post(why).layer(DefaultBodyLimit::max(JOIN_BYTES_MAX)))
        .route("/manager/digest", post(digest).layer(DefaultBodyLimit::max(JOIN_BYTES_MAX)))
        .route("/session/watch", post(watch).layer(DefaultBodyLimit::max(SESSION_BYTES_MAX)))
        .route("/session/report", post(report).layer(DefaultBodyLimit::max(SESSION_BYTES_MAX)))
        .route("/session/leave", post(leave))
        .route("/session/reseat", post(reseat).layer(DefaultBodyLimit::max(JOIN_BYTES_MAX)))
        .route("/session/renew", post(renew).layer(DefaultBodyLimit::max(JOIN_BYTES_MAX)))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(manager)
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    wire::decode(body).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))
}

fn write<T: Serialize>(answer: &T) -> Response {
    match wire::encode(answer) {
        Ok(bytes) => bytes.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn not_leader(manager: &Manager) -> Response {
    let own = manager.raft.status().is_leader;
    let leader = if own { None } else { manager.leader_address() };
    let status = StatusCode::from_u16(NOT_LEADER).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (status, write(&NotLeader { leader })).into_response()
}

fn rejected(rejection: &Rejection) -> Refused {
    let status = StatusCode::from_u16(rejection.code.http_status());
    (status.unwrap_or(StatusCode::BAD_REQUEST), rejection.message.clone())
}

async fn raft(
    State(manager): State<Manager>,
    Path(class): Path<String>,
    body: Bytes,
) -> Result<Bytes, Refused> {
    let class = Class::from_name(&class)
        .ok_or_else(|| (StatusCode::NOT_FOUND, "no such Raft call".to_owned()))?;
    let answered = manager.raft.serve(class, body).await;
    answered.map_err(|e| (StatusCode::SERVICE_UNAVAILABLE, e.to_string()))
}

async fn request(State(manager): State<Manager>, body: Bytes) -> Result<Response, Refused> {
    let (attempt, request) =
        decode_request(&body).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    if !manager.raft.status().is_leader {
        return Ok(not_leader(&manager));
    }
    let reply = match manager.decide_attempt(request, Some(attempt)).await {
        Ok(answer) => Ok(answer),
        Err(Undecided::Rejected(rejection)) => Err(rejection),
        Err(Undecided::NotLeader | Undecided::NotWritten(_)) => return Ok(not_leader(&manager)),
        Err(Undecided::Unknown(reason)) => {
            let status = StatusCode::from_u16(OUTCOME_UNKNOWN);
            return Err((status.unwrap_or(StatusCode::GATEWAY_TIMEOUT), reason));
        }
    };
    let reply =
        encode_reply(&reply).map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(reply.into_response())
}

async fn why(State(manager): State<Manager>, body: Bytes) -> Result<Response, Refused> {
    let call: super::why::WhyCall = read(&body)?;
    if !manager.raft.status().leader_ready {
        return Ok(not_leader(&manager));
    }
    Ok(write(&manager.explain(&call).await))
}

async fn digest(State(manager): State<Manager>, body: Bytes) -> Result<Response, Refused> {
    let call: super::agreement::DigestCall = read(&body)?;
    Ok(write(&manager.history.compare(&call)))
}

async fn join_route(State(manager): State<Manager>, body: Bytes) -> Result<Response, Refused> {
    let call: JoinCall = read(&body)?;
    if !manager.raft.status().leader_ready {
        return Ok(not_leader(&manager));
    }
    let answer = join::admit(&manager, call).await.map_err(|r| rejected(&r))?;
    Ok(write(&answer))
}

async fn watch(
    State(manager): State<Manager>,
    member: MemberOnly,
    body: Bytes,
) -> Result<Response, Refused> {
    let call: WatchCall = read(&body)?;
    if call.have.len() > PARTS_MAX {
        let count = call.have.len();
        let message = format!("{count} parts, and an assignment has at most {PARTS_MAX}");
        return Err((StatusCode::BAD_REQUEST, message));
    }
    let answer = match session::watch(&manager, member.0.node, call).await {
        Ok(answer) => answer,
        Err(refusal) => return refuse(&manager, refusal),
    };
    let pieces = frame::encode(answer);
    let pieces = pieces.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    // The bytes of a part are shared by all answers that it is in.
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    Ok(Body::from_stream(pieces).into_response())
}

async fn report(
    State(manager): State<Manager>,
    member: MemberOnly,
    body: Bytes,
) -> Result<Response, Refused> {
    let call: ReportCall = read(&body)?;
    let from = call.description.as_ref().map(|d| d.gossip.ip());
    match session::report(&manager, member.0.node, from, call).await {
        Ok(answer) => Ok(write(&answer)),
        Err(refusal) => refuse(&manager, refusal),
    }
}

async fn renew(
    State(manager): State<Manager>,
    member: MemberOnly,
    body: Bytes,
) -> Result<Response, Refused> {
    let call: RenewCall = read(&body)?;
    if !manager.raft.status().leader_ready {
        return Ok(not_leader(&manager));
    }
    let answer = manager.renew(member.0.node, member.1, &call).await.map_err(|r| rejected(&r))?;
    Ok(write(&answer))
}

async fn reseat(
    State(manager): State<Manager>,
    member: MemberOnly,
    body: Bytes,
) -> Result<Response, Refused> {
    let call: ReseatCall = read(&body)?;
    if !manager.raft.status().leader_ready {
        return Ok(not_leader(&manager));
    }
    let request = Request::ReseatManager { id: member.0.node, lost: call.lost };
    let decided = manager.decide(request).await;
    Ok(write(&ReseatAnswer { refused: decided.err().map(|rejection| rejection.message) }))
}

async fn leave(State(manager): State<Manager>, member: MemberOnly) -> Result<Response, Refused> {
    if !manager.raft.status().leader_ready {
        return Ok(not_leader(&manager));
    }
    let request = Request::LeaveNode { id: member.0.node };
    manager.decide(request).await.map_err(|r| rejected(&r))?;
    Ok(write(&()))
}

fn refuse(manager: &Manager, refusal: Refusal) -> Result<Response, Refused> {
    match refusal {
        Refusal::NotLeader => Ok(not_leader(manager)),
        // It is being founded: its first node is told once that is committed.
        Refusal::Node(leader::Refusal::Unknown(_)) if manager.newest().cluster.is_none() => {
            Ok(not_leader(manager))
        }
        Refusal::Node(leader::Refusal::Unknown(node)) => {
            Err((StatusCode::GONE, format!("node {node} is not in this cluster (any more)")))
        }
        Refusal::Node(leader::Refusal::TooOld { cluster, node }) => {
            let status = StatusCode::from_u16(TOO_OLD).unwrap_or(StatusCode::UPGRADE_REQUIRED);
            let line = format!(
                "the cluster has schema {cluster}, and this node's version of Skein reads up to \
                 schema {node}: install the version of the other nodes"
            );
            Err((status, line))
        }
        Refusal::Rejected(rejection) => Err(rejected(&rejection)),
    }
}
