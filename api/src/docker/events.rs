//! `/events`: changes of the replicated state as Docker's events.
//!
//! Nothing is recorded: an event is the difference between two states that this node applied, so
//! changes in quick succession may appear as one. For the past, `since` returns what can still be
//! read from the objects: their creation and a service's last update, but no removals.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cluster::state::State as Replicated;
use cluster::time::Timestamp;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::watch;

use super::logs::unix_time;
use crate::error::ApiError;
use crate::extract::Control;
use crate::filters::Filters;
use crate::query::Params;

use diff::{Event, between, past};

mod diff;

const FILTERS: &[&str] = &[
    "builder",
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// `GET /events`: a chunked stream of JSON objects, one a line.
pub(crate) async fn stream(State(control): Control, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::parse(params.text("filters"), FILTERS)?;
    let local = control.local();
    let since = moment(&params, "since", local.now)?;
    let until = moment(&params, "until", local.now)?;
    let mut changes = control.changes();
    let first = Arc::clone(&changes.borrow_and_update());
    let history = match since {
        Some(since) => past(&first, since, until.unwrap_or(Timestamp(u64::MAX))),
        None => Vec::new(),
    };
    let remaining = until.map(|until| Duration::from_millis(until.since_ms(local.now)));
    let clock = move || control.local().now;
    let live = live(changes, first, remaining, clock);
    let lines = stream::iter([history])
        .chain(live)
        .map(move |events| Ok::<Bytes, Infallible>(lines(&filters, &events)));
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

pub(crate) fn moment(
    params: &Params,
    name: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApiError> {
    let text = params.text(name);
    // Zero means the beginning here; in `logs` it means no limit.
    if text == "0" {
        return Ok(Some(Timestamp::default()));
    }
    let moment = unix_time(text).map_err(|error| {
        ApiError::bad_request(format!("invalid {name} '{text}': {error}; give a Unix timestamp"))
    })?;
    // A future start is the same as no start: nothing has happened there.
    Ok(moment.filter(|at| name != "since" || *at <= now))
}

/// Batches of events until `remaining` has passed, or until the daemon stops.
fn live(
    changes: watch::Receiver<Arc<Replicated>>,
    first: Arc<Replicated>,
    remaining: Option<Duration>,
    clock: impl Fn() -> Timestamp + Send,
) -> impl Stream<Item = Vec<Event>> + Send {
    let end = async move {
        match remaining {
            Some(remaining) => tokio::time::sleep(remaining).await,
            None => std::future::pending().await,
        }
    };
    stream::unfold((changes, first, clock), |(mut changes, before, clock)| async move {
        changes.changed().await.ok()?;
        let after = Arc::clone(&changes.borrow_and_update());
        let events = between(&before, &after, clock());
        Some((events, (changes, after, clock)))
    })
    .take_until(Box::pin(end))
}

fn lines(filters: &Filters, events: &[Event]) -> Bytes {
    let mut text = String::new();
    for event in events.iter().filter(|event| event.matches(filters)) {
        text.push_str(&event.to_json().to_string());
        text.push('\n');
    }
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_unix_times() {
        let at = |name: &str, text: &str| {
            let params: Params = [(name.to_owned(), text.to_owned())].into_iter().collect();
            moment(&params, name, Timestamp(5_000)).map_err(|error| error.message)
        };
        assert_eq!(at("since", ""), Ok(None));
        assert_eq!(at("since", "0"), Ok(Some(Timestamp(0))));
        assert_eq!(at("since", "3"), Ok(Some(Timestamp(3_000))));
        assert_eq!(at("since", "9"), Ok(None));
        assert_eq!(at("until", "9.5"), Ok(Some(Timestamp(9_500))));
        assert_eq!(
            at("until", "x"),
            Err("invalid until 'x': invalid digit found in string; give a Unix timestamp".into())
        );
    }

    #[tokio::test]
    async fn an_end_that_has_passed_ends_the_stream() {
        let (_sender, changes) = watch::channel(Arc::new(Replicated::default()));
        let events: Vec<Vec<Event>> =
            live(changes, Arc::default(), Some(Duration::ZERO), Timestamp::default).collect().await;
        assert!(events.is_empty());
    }
}
