//! The leader's planners: from the state as it is to what is due now.
//!
//! They take no event: each reads what the [`agenda`] names, which follows from the draft, so
//! doing it twice changes nothing. `decide` runs them on every request; `plan` runs them when
//! something falls due by time alone, and after a change of leader.

use crate::draft::Draft;
use crate::id::{IdSource, ServiceId};
use crate::object::UpdateState;
use crate::state::State;
use crate::time::Timestamp;
use crate::transaction::Transaction;

pub(crate) mod agenda;
pub(crate) mod allocator;
mod drain;
mod obstacle;
mod orchestrator;
mod reaper;
pub mod restart;
mod rotation;
mod scheduler;
mod schema;
mod slots;
mod updater;
mod why;

pub use self::obstacle::Refused;
pub(crate) use self::obstacle::takes_tasks;
pub use self::why::{Cause, Reason, Subject, Waiting, Why, why};

/// What is due, and when there will be more.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// What is due now; empty if nothing is. A large plan comes in several transactions: propose
    /// until it is empty.
    pub transaction: Transaction,
    /// When planners have something to do if nothing else happens: at the time of the plan if its
    /// transaction is not empty.
    pub next_due: Option<Timestamp>,
}

/// Runs all planners.
#[must_use]
pub fn plan(state: &State, now: Timestamp) -> Planned {
    let mut draft = Draft::new(state, seed(state, now), now);
    if state.cluster.is_some() {
        run(&mut draft);
    }
    Planned::of(draft)
}

/// The same for one service: at the cost of its tasks, and of the nodes if one waits for a node.
fn planned_for(state: &State, service: ServiceId, now: Timestamp) -> Planned {
    let agenda = state.agenda.of_service(state, service);
    let state = State { agenda, ..state.clone() };
    let mut draft = Draft::new(&state, seed(&state, now), now);
    run_services(&mut draft);
    Planned::of(draft)
}

impl Planned {
    fn of(draft: Draft<'_>) -> Self {
        let now = draft.now();
        let (transaction, wake) = draft.finish();
        let next_due = if transaction.is_empty() { wake } else { Some(now) };
        Self { transaction, next_due }
    }
}

/// The seed of a plan's ids: no plan on another revision, at another time or of another cluster
/// has it.
fn seed(state: &State, now: Timestamp) -> u128 {
    let cluster = state.cluster.as_ref().map_or(0, |cluster| cluster.id.0);
    let moment = (u128::from(state.revision.0) << 64) | u128::from(now.0);
    IdSource::new(IdSource::new(moment).draw() ^ cluster).draw()
}

fn update_state(draft: &Draft<'_>, service: ServiceId) -> Option<UpdateState> {
    let status = draft.state().services.get(&service)?.update_status.as_ref()?;
    Some(status.state)
}

/// All planners in order: each one sees what those before it decided.
pub(crate) fn run(draft: &mut Draft<'_>) {
    schema::run(draft);
    rotation::run(draft);
    run_services(draft);
}

fn run_services(draft: &mut Draft<'_>) {
    drain::run(draft);
    for service in draft.state().agenda.restless.clone() {
        // First, so that an empty slot is an unneeded one for the updater; then again, because the
        // updater may have emptied some.
        orchestrator::run(draft, service);
        loop {
            let before = update_state(draft, service);
            let emptied = updater::run(draft, service);
            orchestrator::run(draft, service);
            // It went back to a spec that may have fewer replicas, and the slot that it began with
            // may have gone; or a slot is done with because no node had got its task. Each round
            // leaves fewer tasks of other specs.
            let more = emptied || update_state(draft, service) != before;
            if !more || draft.is_full() {
                break;
            }
        }
    }
    reaper::run(draft);
    allocator::run(draft);
    scheduler::run(draft);
}

#[cfg(test)]
mod tests;
