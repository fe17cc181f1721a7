//! One HTTP request over a Unix or TCP socket: only as much of RFC 9112 as a test needs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// How long a request may take before the test counts it as lost.
pub const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A status and a body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head's lines as they came.
    pub head: String,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of a 2xx answer as JSON; an empty one is null.
    ///
    /// # Errors
    /// For another status, with the body in the message, and for a body that is not JSON.
    pub fn json(&self) -> Result<Value> {
        if !(200..300).contains(&self.status) {
            bail!("status {}: {}", self.status, self.text().trim());
        }
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).with_context(|| format!("reading {:?}", self.text()))
    }

    /// The `message` of an answer of Docker's error shape.
    #[must_use]
    pub fn message(&self) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends one request to the server behind a Unix socket. `body` null means none.
///
/// # Errors
/// When the server cannot be reached or answers something that is not HTTP.
pub fn over_unix(socket: &Path, method: &str, path: &str, body: &Value) -> Result<Answer> {
    over_unix_within(REQUEST_MAX, socket, method, path, body)
}

/// As [`over_unix`], with a limit of the caller's for each step.
///
/// # Errors
/// As [`over_unix`].
pub fn over_unix_within(
    limit: Duration,
    socket: &Path,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Answer> {
    let shown = || format!("{method} {path} to {}", socket.display());
    let stream = UnixStream::connect(socket).with_context(shown)?;
    stream.set_read_timeout(Some(limit)).with_context(shown)?;
    stream.set_write_timeout(Some(limit)).with_context(shown)?;
    exchange(stream, method, path, body).with_context(shown)
}

fn exchange(mut to: impl Read + Write, method: &str, path: &str, body: &Value) -> Result<Answer> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: skein\r\nConnection: close\r\n");
    if !text.is_empty() {
        let length = text.len();
        request += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    } else if method != "GET" {
        request += "Content-Length: 0\r\n";
    }
    request += "\r\n";
    request += &text;
    to.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    to.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes)
}

/// Reads a whole answer of a connection that was closed after it.
fn parse(bytes: &[u8]) -> Result<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else {
        bail!("{} bytes without an end of the head", bytes.len());
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("no status in {head:?}"))?;
    let body = &bytes[end + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { join_chunks(body)? } else { body.to_vec() };
    Ok(Answer { status, head, body })
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            bail!("a chunk without a length");
        };
        let length = String::from_utf8_lossy(&rest[..end]).into_owned();
        let length = usize::from_str_radix(length.trim(), 16).context("a chunk's length")?;
        let from = end + 2;
        if length == 0 {
            return Ok(body);
        }
        if rest.len() < from + length + 2 {
            bail!("a chunk of {length} bytes is cut short");
        }
        body.extend_from_slice(&rest[from..from + length]);
        rest = &rest[from + length + 2..];
    }
}

#[test]
fn answers_with_length_and_in_chunks_are_read() {
    let plain = b"HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\n{\"a\": 1}";
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\n{\"a\r\n5\r\n\": 1}\r\n0\r\n\r\n";
    for (bytes, status) in [(plain.as_slice(), 201), (chunks.as_slice(), 200)] {
        let answer = parse(bytes).expect("it is HTTP");
        assert_eq!(answer.status, status);
        assert_eq!(answer.json().expect("it is JSON"), serde_json::json!({"a": 1}));
    }
}

#[test]
fn an_error_carries_the_servers_message() {
    let answer = parse(b"HTTP/1.1 409 Conflict\r\n\r\n{\"message\":\"taken\"}").expect("HTTP");
    assert_eq!(answer.message(), "taken");
    assert!(answer.json().expect_err("409").to_string().contains("409"));
    assert!(parse(b"nonsense").is_err());
    let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx";
    assert!(parse(cut).is_err());
}
