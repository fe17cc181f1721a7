//! The client's HTTP: JSON over the daemon's unix socket.

use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::http::request;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::UnixStream;

/// A daemon to talk to.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Client {
    /// From `-H`: `unix:///PATH`.
    pub fn new(host: &str) -> anyhow::Result<Self> {
        match host.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Self { socket: PathBuf::from(path) }),
            _other => bail!("--host {host:?}: give unix:///PATH of a daemon's socket"),
        }
    }

    /// Sends a request; the error is the daemon's message.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(path);
        self.answer(request, body).await
    }

    /// Posts a body and takes the connection over, for another protocol.
    pub async fn upgrade(
        &self,
        path: &str,
        body: &Value,
        protocol: &str,
    ) -> anyhow::Result<TokioIo<Upgraded>> {
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request.header("Connection", "Upgrade").header("Upgrade", protocol);
        let response = self.answer(request, Some(body)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            bail!("the daemon answered {} and does not speak {protocol}", response.status());
        }
        let connection = hyper::upgrade::on(response).await.context("take the connection over")?;
        Ok(TokioIo::new(connection))
    }

    async fn answer(
        &self,
        request: request::Builder,
        body: Option<&Value>,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no daemon answers at unix://{}: start `skein daemon`, or name another with -H",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = request
            .header("Host", "skein")
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        let response = sender.send_request(request).await.context("ask the daemon")?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let bytes = response.into_body().collect().await?.to_bytes();
        match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => bail!("{}", refusal.message),
            Err(_not_json) => bail!("the daemon answered {status}"),
        }
    }

    /// Reads a resource.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json(Method::GET, path, None).await
    }

    /// Posts a body; an empty answer is `null`.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(Method::POST, path, Some(body)).await
    }

    /// Removes a resource.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.json(Method::DELETE, path, None).await.map(|_nothing| ())
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let response = self.send(method, path, body).await?;
        let bytes = response.into_body().collect().await?.to_bytes();
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("read the daemon's answer")
    }
}

/// Percent-encodes a path segment or a query value.
#[must_use]
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// All but the unreserved characters of RFC 3986, section 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(escape("a/b c:1_~"), "a%2Fb%20c%3A1_~");
        assert!(Client::new("tcp://x").unwrap_err().to_string().contains("unix:///PATH"));
    }
}
