//! `/services/{id}/logs` and `/tasks/{id}/logs`: Docker's multiplexed frames.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use cluster::spec::CheckedTask;
use cluster::time::Timestamp;
use futures_util::StreamExt;

use super::cluster_state;
use super::wire::rfc3339_fixed;
use crate::control_plane::{ControlPlane, LogRecord, LogRequest, LogSelector, LogStream};
use crate::error::ApiError;
use crate::extract::{Control, Id};
use crate::query::Params;

/// `application/vnd.docker.multiplexed-stream`, since 1.42.
const FRAMED: &str = "application/vnd.docker.multiplexed-stream";
/// The media type for a service with a terminal.
const RAW: &str = "application/vnd.docker.raw-stream";

/// `GET /services/{id}/logs`.
pub(crate) async fn service(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<Response, ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let found = snapshot.state.find_service(&id)?;
    let tty = found.spec.task_template.container_spec.tty;
    let tasks = snapshot.state.tasks_of(found.id).map(|task| &task.spec);
    check_read(tasks)?;
    answer(control.as_ref(), LogSelector::Service(found.id), tty, &params).await
}

/// `GET /tasks/{id}/logs`.
pub(crate) async fn task(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<Response, ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let found = snapshot.state.find_task(&id)?;
    let tty = found.spec.container_spec.tty;
    check_read([&found.spec].into_iter())?;
    answer(control.as_ref(), LogSelector::Task(found.id), tty, &params).await
}

/// Refuses if no task stores its output, with Docker's message.
fn check_read<'a>(specs: impl Iterator<Item = &'a CheckedTask>) -> Result<(), ApiError> {
    let mut read = specs.map(|spec| spec.log_driver().is_read()).peekable();
    if read.peek().is_some() && !read.any(|is_read| is_read) {
        let message = "configured logging driver does not support reading";
        return Err(ApiError::not_implemented(message));
    }
    Ok(())
}

async fn answer(
    control: &dyn ControlPlane,
    selector: LogSelector,
    tty: bool,
    params: &Params,
) -> Result<Response, ApiError> {
    let request = log_request(selector, params)?;
    let format =
        Format { details: params.flag("details"), timestamps: params.flag("timestamps"), tty };
    let records = control.logs(request).await?;
    let frames =
        records.map(move |record| Ok::<Bytes, std::convert::Infallible>(format.frame(&record)));
    let kind = [(header::CONTENT_TYPE, if tty { RAW } else { FRAMED })];
    Ok((kind, Body::from_stream(frames)).into_response())
}

pub(crate) fn log_request(selector: LogSelector, params: &Params) -> Result<LogRequest, ApiError> {
    let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let tail = match params.text("tail") {
        "" | "all" => None,
        text => Some(text.parse().map_err(|error| {
            ApiError::bad_request(format!("invalid tail '{text}': {error}; give a number or all"))
        })?),
    };
    let since = params.text("since");
    Ok(LogRequest {
        selector,
        tail,
        since: unix_time(since)
            .map_err(|error| ApiError::bad_request(format!("invalid since '{since}': {error}")))?,
        follow: params.flag("follow"),
        stdout,
        stderr,
    })
}

/// Docker's Unix timestamps: seconds, optionally a dot and a fraction. Zero and empty: none.
pub(crate) fn unix_time(text: &str) -> Result<Option<Timestamp>, std::num::ParseIntError> {
    if text.is_empty() {
        return Ok(None);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u64 = seconds.parse()?;
    let mut milliseconds = 0;
    if !fraction.is_empty() {
        fraction.parse::<u64>()?;
        let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
        milliseconds = digits.parse::<u64>()?;
    }
    let at = seconds.saturating_mul(1000).saturating_add(milliseconds);
    Ok((at != 0).then_some(Timestamp(at)))
}

/// How a line is written.
#[derive(Debug, Clone, Copy)]
struct Format {
    details: bool,
    timestamps: bool,
    tty: bool,
}

/// Bytes before each line: stream, three zeros, length in big-endian (Docker's `stdcopy`).
const FRAME_HEADER_BYTES: usize = 8;

impl Format {
    /// `[time ][details ]text`, in a frame unless the service has a terminal.
    fn frame(&self, record: &LogRecord) -> Bytes {
        let mut prefix = String::new();
        if self.timestamps {
            prefix.push_str(&rfc3339_fixed(record.time));
            prefix.push(' ');
        }
        if self.details {
            prefix.push_str(&format!(
                "com.docker.swarm.node.id={},com.docker.swarm.service.id={},\
                 com.docker.swarm.task.id={} ",
                record.node, record.service, record.task
            ));
        }
        let length = prefix.len() + record.text.len() + 1;
        let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + length);
        if !self.tty {
            frame.put_u8(match record.stream {
                LogStream::Stdout => 1,
                LogStream::Stderr => 2,
            });
            frame.put_bytes(0, 3);
            frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        }
        frame.put_slice(prefix.as_bytes());
        frame.put_slice(&record.text);
        frame.put_u8(b'\n');
        frame.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::id::{NodeId, ServiceId, TaskId};

    fn record() -> LogRecord {
        LogRecord {
            node: NodeId(1),
            service: ServiceId(2),
            task: TaskId(3),
            stream: LogStream::Stderr,
            time: Timestamp(1_763_929_349_123),
            text: Bytes::from_static(b"hello"),
        }
    }

    #[test]
    fn frames_are_dockers() {
        let format = Format { details: true, timestamps: true, tty: false };
        let frame = format.frame(&record());
        assert_eq!(frame[..4], [2, 0, 0, 0]);
        assert_eq!(
            usize::try_from(u32::from_be_bytes(frame[4..8].try_into().unwrap())),
            Ok(frame.len() - 8)
        );
        let id = |n: u8| format!("000000000000000000000000{n}");
        let expected = format!(
            "2025-11-23T20:22:29.123000000Z com.docker.swarm.node.id={},\
             com.docker.swarm.service.id={},com.docker.swarm.task.id={} hello\n",
            id(1),
            id(2),
            id(3)
        );
        assert_eq!(std::str::from_utf8(&frame[8..]), Ok(expected.as_str()));
    }

    #[test]
    fn a_terminal_gets_raw_text() {
        let format = Format { details: false, timestamps: false, tty: true };
        assert_eq!(&format.frame(&record())[..], b"hello\n");
    }

    #[test]
    fn unix_times_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("", None),
            ("0", None),
            ("0.000000000", None),
            ("1763929349", Some(1_763_929_349_000)),
            ("1763929349.123456789", Some(1_763_929_349_123)),
            ("1763929349.5", Some(1_763_929_349_500)),
        ] {
            assert_eq!(unix_time(text), Ok(expected.map(Timestamp)), "{text}");
        }
        assert!(unix_time("yesterday").is_err());
        assert!(unix_time("1.x").is_err());
    }

    #[test]
    fn a_stream_must_be_chosen() {
        let params: Params = [("tail".to_owned(), "3".to_owned())].into_iter().collect();
        let error = log_request(LogSelector::Task(TaskId(1)), &params).unwrap_err();
        assert_eq!(error.message, "Bad parameters: you must choose at least one stream");
    }
}
