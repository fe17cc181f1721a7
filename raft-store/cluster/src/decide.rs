//! From a request to a transaction: the request's own change, and all that follows from it.
//!
//! One request, one commit: the planners run on the draft that the request made, so that VNI,
//! subnet, virtual addresses, ports, tasks, addresses and placement stand in the same log entry.
//! Deciding is pure: the same request, state, seed and time give the same transaction.

use std::sync::Arc;

use crate::draft::Draft;
use crate::id::NodeId;
use crate::object::Node;
use crate::plan;
use crate::rejection::{Code, Rejection};
use crate::request::{Answer, Request};
use crate::state::State;
use crate::time::Timestamp;
use crate::transaction::Transaction;

mod batch;
mod ca;
mod cluster;
mod fields;
mod keys;
mod names;
mod network;
mod node;
pub(crate) mod ports;
mod recovery;
mod role;
pub(crate) mod service;
mod size;
mod spec;
mod tasks;

pub use self::batch::{Added, BATCH_BYTES_MAX, BATCH_OBJECTS_MAX, Batch};
pub(crate) use self::network::MTU_OPTION;

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// To be proposed; empty if the request changes nothing.
    pub transaction: Transaction,
    /// To be given to the asker once the transaction is applied.
    pub answer: Answer,
}

/// Decides one request on a state; [`Batch`] decides several. `seed` is drawn by the shell, once
/// per request: every id in the transaction derives from it. `now` is the leader's wall time.
pub fn decide(
    state: &State,
    request: &Request,
    seed: u128,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let mut draft = Draft::new(state, seed, now);
    let answer = batch::decided(&mut draft, request)?;
    let (transaction, _next_due) = draft.finish();
    Ok(Decision { transaction, answer })
}

/// Docker's words on a node of no cluster.
pub const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \
     \"docker swarm join\" to connect this node to swarm and try again.";

/// The request's own change.
fn step(draft: &mut Draft<'_>, request: &Request) -> Result<Answer, Rejection> {
    match request {
        Request::InitCluster(init) => cluster::init(draft, init),
        Request::UpdateCluster(update) => cluster::update(draft, update),
        Request::CreateNetwork { spec } => network::create(draft, spec),
        Request::RemoveNetwork { id } => network::remove(draft, *id),
        Request::CreateService { spec } => service::create(draft, spec),
        Request::UpdateService { id, version, spec } => service::update(draft, *id, *version, spec),
        Request::RollbackService { id, version } => service::rollback(draft, *id, *version),
        Request::RemoveService { id } => service::remove(draft, *id),
        Request::UpdateNode { id, version, spec } => node::update(draft, *id, *version, spec),
        Request::RemoveNode { id, force } => node::remove(draft, *id, *force),
        Request::JoinNode(join) => node::join(draft, join),
        Request::TakeOver(join) => recovery::take_over(draft, join),
        Request::DescribeNode { id, description } => node::describe(draft, *id, description),
        Request::PromotedManager { id, manager } => role::promoted(draft, *id, manager),
        Request::DemotedManager { id } => role::demoted(draft, *id),
        Request::ReseatManager { id, lost } => role::reseat(draft, *id, *lost),
        Request::LeaveNode { id } => node::leave(draft, *id),
        Request::TurnGossipKey { step } => keys::turn(draft, step),
        Request::ReportTasks { node, statuses } => tasks::report(draft, *node, statuses),
        Request::SetNodeState { id, state, message, address } => {
            node::set_state(draft, *id, *state, message, address)
        }
    }
}

/// What the planners could not find for the very object that was asked for is the asker's news; a
/// planner on its own leaves it for later.
fn check_outcome(draft: &Draft<'_>, answer: &Answer) -> Result<(), Rejection> {
    match answer {
        Answer::Service { id, .. } => match draft.state().services.get(id) {
            Some(service) => plan::allocator::check_service(draft.state(), service),
            None => Ok(()),
        },
        Answer::Done | Answer::Network { .. } | Answer::Node { .. } => Ok(()),
    }
}

/// Refuses a request that was made on an older version of its object, in Docker's words.
fn check_version(
    what: &str,
    found: crate::time::Revision,
    given: crate::time::Revision,
) -> Result<(), Rejection> {
    if found == given {
        return Ok(());
    }
    Err(Rejection::new(
        Code::StaleVersion,
        format!(
            "{what} is at version {}, not {}; read it again and repeat the change: update out of \
             sequence",
            found.0, given.0
        ),
    ))
}

fn existing_node(state: &State, id: NodeId) -> Result<&Arc<Node>, Rejection> {
    state.nodes.get(&id).ok_or_else(|| Rejection::not_found("node", id))
}

#[cfg(test)]
mod tests;
