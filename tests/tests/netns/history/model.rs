//! The answers that clients may get about one object, and whether their history is linearizable
//! (Herlihy and Wing, 1990): checked with todc-utils, which implements Wing and Gong's algorithm
//! with Lowe's memoization. Each object is checked alone, which is enough: linearizability is
//! local.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

/// An object has a value that its writer gave it, or it is not there. No value is given twice.
pub(super) type Value = u64;

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Because of what was there or was not.
    Refused,
    /// Nobody told: it may happen at any later time, or never.
    Open,
}

/// What was asked of an object, and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Read(Option<Value>),
    Create(Value, Outcome),
    /// Only where nobody has changed it since it was read with the first value.
    Replace(Value, Value, Outcome),
    Remove(Outcome),
}

impl Operation {
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Read(_) => Outcome::Done,
            Self::Create(_, outcome) | Self::Replace(_, _, outcome) | Self::Remove(outcome) => {
                outcome
            }
        }
    }
}

/// An operation with when it was asked and when it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
    pub(super) operation: Operation,
}

struct Object;

impl Specification for Object {
    type State = Option<Value>;
    type Operation = Operation;

    fn init() -> Self::State {
        None
    }

    fn apply(operation: &Operation, state: &Self::State) -> (bool, Self::State) {
        match (*operation, *state) {
            (Operation::Read(value), state) => (value == state, state),
            (Operation::Create(value, Outcome::Done), None)
            | (Operation::Create(value, Outcome::Open), None) => (true, Some(value)),
            (Operation::Create(_, Outcome::Done), state) => (false, state),
            (Operation::Create(_, Outcome::Refused), state) => (state.is_some(), state),
            (Operation::Create(_, Outcome::Open), state) => (true, state),
            (Operation::Replace(from, to, Outcome::Done), state) => {
                if state == Some(from) {
                    (true, Some(to))
                } else {
                    (false, state)
                }
            }
            // Its version may have risen although its value has not.
            (Operation::Replace(_, _, Outcome::Refused), state) => (true, state),
            (Operation::Replace(from, to, Outcome::Open), state) => {
                (true, if state == Some(from) { Some(to) } else { state })
            }
            (Operation::Remove(Outcome::Done), state) => (state.is_some(), None),
            (Operation::Remove(Outcome::Refused), state) => (state.is_none(), state),
            (Operation::Remove(Outcome::Open), _) => (true, None),
        }
    }
}

/// An object's history that no order of its operations explains.
#[derive(Debug)]
pub(super) struct NotLinearizable<K> {
    key: K,
    events: Vec<Event>,
}

impl<K: fmt::Display> fmt::Display for NotLinearizable<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the history of {} is not linearizable (milliseconds):", self.key)?;
        let Some(begin) = self.events.iter().map(|event| event.asked).min() else { return Ok(()) };
        for Event { asked, answered, operation } in &self.events {
            let ms = |at: &Instant| at.duration_since(begin).as_secs_f64() * 1e3;
            writeln!(f, "{:10.1} {:10.1} {operation:?}", ms(asked), ms(answered))?;
        }
        Ok(())
    }
}

/// Whether each object's history is linearizable.
pub(super) fn check<K: Ord + Copy>(
    history: &BTreeMap<K, Vec<Event>>,
) -> Result<(), NotLinearizable<K>> {
    for (key, events) in history.iter().filter(|(_, events)| !events.is_empty()) {
        let mut events = events.clone();
        events.sort_by_key(|event| event.asked);
        if !WGLChecker::<Object>::is_linearizable(actions(&events)) {
            return Err(NotLinearizable { key: *key, events });
        }
    }
    Ok(())
}

/// Calls and responses in the order of time; at one moment calls are first. Those that nobody
/// answered end after all others.
fn actions(events: &[Event]) -> History<Operation> {
    let mut ordered = Vec::new();
    for (number, Event { asked, answered, operation }) in events.iter().enumerate() {
        let is_open = operation.outcome() == Outcome::Open;
        let ended = (!is_open).then_some(*answered);
        // An open end is behind every moment.
        ordered.push(((false, Some(*asked), false), number, Action::Call(*operation)));
        ordered.push(((is_open, ended, true), number, Action::Response(*operation)));
    }
    ordered.sort_by_key(|(at, number, _)| (*at, *number));
    History::from_actions(ordered.into_iter().map(|(_, number, action)| (number, action)).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Operation::{Create, Read, Remove, Replace};
    use super::Outcome::{Done, Open, Refused};
    use super::*;

    /// When it was asked and answered, in milliseconds.
    type Timed = (u64, u64, Operation);

    fn linearizable(events: &[Timed]) -> bool {
        let begin = lab::wait::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let event = |(asked, answered, operation): &Timed| Event {
            asked: at(*asked),
            answered: at(*answered),
            operation: *operation,
        };
        check(&BTreeMap::from([(0, events.iter().map(event).collect())])).is_ok()
    }

    /// Goal: the checker judges known histories correctly. Method: those of figures 1 and 2 of
    /// Herlihy and Wing's paper as reads and writes of one object, and each rule of an open end.
    #[test]
    fn known_histories_are_told_apart() {
        let made = (0, 1, Create(1, Done));
        let table: &[(&str, bool, &[Timed])] = &[
            ("one after the other", true, &[made, (2, 3, Read(Some(1)))]),
            ("a stale read", false, &[made, (2, 3, Replace(1, 2, Done)), (4, 5, Read(Some(1)))]),
            ("a read of nothing after it was made", false, &[made, (2, 3, Read(None))]),
            (
                "a read concurrent with a write sees either",
                true,
                &[made, (2, 9, Replace(1, 2, Done)), (3, 4, Read(Some(1))), (5, 6, Read(Some(2)))],
            ),
            (
                "and not the older one after the newer",
                false,
                &[made, (2, 9, Replace(1, 2, Done)), (3, 4, Read(Some(2))), (5, 6, Read(Some(1)))],
            ),
            (
                "two replace one value",
                false,
                &[made, (2, 9, Replace(1, 2, Done)), (2, 9, Replace(1, 3, Done))],
            ),
            (
                "one of them is refused",
                true,
                &[made, (2, 9, Replace(1, 2, Done)), (2, 9, Replace(1, 3, Refused))],
            ),
            ("made twice", false, &[made, (2, 3, Create(2, Done))]),
            (
                "made twice with its removal between",
                true,
                &[made, (2, 9, Create(2, Done)), (3, 8, Remove(Done)), (10, 11, Read(Some(2)))],
            ),
            ("refused though it is not there", false, &[(0, 1, Create(1, Refused))]),
            ("removed though it is not there", false, &[(0, 1, Remove(Done))]),
            (
                "an acknowledged write is lost",
                false,
                &[made, (2, 3, Replace(1, 2, Done)), (4, 5, Replace(1, 3, Done))],
            ),
            (
                "an open write happens late",
                true,
                &[made, (2, 3, Replace(1, 2, Open)), (4, 5, Read(Some(1))), (6, 7, Read(Some(2)))],
            ),
            ("or never", true, &[made, (2, 3, Replace(1, 2, Open)), (4, 5, Read(Some(1)))]),
            (
                "and not twice",
                false,
                &[made, (2, 3, Replace(1, 2, Open)), (4, 5, Read(Some(2))), (6, 7, Read(Some(1)))],
            ),
            (
                "nor before it was asked for",
                false,
                &[made, (2, 3, Read(Some(2))), (4, 5, Replace(1, 2, Open))],
            ),
            (
                "an open creation is why another is refused",
                true,
                &[(0, 1, Create(1, Open)), (2, 3, Create(2, Refused)), (4, 5, Read(Some(1)))],
            ),
            (
                "an open removal is why one is refused",
                true,
                &[made, (2, 3, Remove(Open)), (4, 5, Remove(Refused))],
            ),
        ];
        for (what, expected, events) in table {
            assert_eq!(linearizable(events), *expected, "{what}: {events:?}");
        }
    }
}
