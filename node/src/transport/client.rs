//! Dialling peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use cluster::frame::{FRAME_BYTES_MAX, Frame};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::access::{Membership, answers};
use super::stream::{
    Incoming, OPEN_LIMIT, Outgoing, STREAMS_OF_ONE_PEER_MAX, STREAMS_OPENED_MAX, Stream,
    WINDOW_BYTES,
};
use super::{CONNECT_LIMIT, CallError, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_LIMIT, Lane};
use crate::causes::chain;
use crate::clock;
use crate::pki::{PeerCertificate, SERVER_NAME};
use crate::places::Places;
use crate::telemetry::meters::meters;
use crate::wire::MESSAGE_BYTES_MAX;

type Pool = Mutex<BTreeMap<(SocketAddr, Lane), Connection>>;

/// An open connection, and who answers there.
#[derive(Clone)]
struct Connection {
    sender: SendRequest<Body>,
    peer: Option<PeerCertificate>,
}

/// Connections to peers under one identity. Cheap to clone.
#[derive(Clone)]
pub struct Net {
    tls: Arc<rustls::ClientConfig>,
    pool: Arc<Pool>,
    streams: Places<SocketAddr>,
    /// Who belongs to the cluster, once this node knows.
    members: Arc<OnceLock<Membership>>,
}

impl Net {
    /// With a client configuration (a member's, or a joiner's).
    #[must_use]
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        let streams = Places::new(STREAMS_OF_ONE_PEER_MAX, STREAMS_OPENED_MAX);
        Self { tls, pool: Arc::default(), streams, members: Arc::default() }
    }

    /// From now on only members answer: a node that was removed has a certificate still.
    pub fn insist_on(&self, members: Membership) {
        // A node has one membership for as long as it has these connections.
        let _ = self.members.set(members);
    }

    /// Posts a body and reads the answer whole, all within `limit`.
    pub async fn call(
        &self,
        address: SocketAddr,
        lane: Lane,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let broken = |reason: String| CallError::Broken { address, path: path.to_owned(), reason };
        let began = clock::monotonic();
        let exchange = async {
            let response = self.open(address, lane, path, body).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MESSAGE_BYTES_MAX)
                .collect()
                .await
                .map_err(|e| broken(e.to_string()))?
                .to_bytes();
            if status == 200 { Ok(body) } else { Err(refused(status, body)) }
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => {
                let took = clock::monotonic().saturating_sub(began);
                // A watch is answered when there is news, not when it can be.
                if result.is_ok() && path != "/session/watch" {
                    meters().called(path, took);
                }
                result
            }
            Err(_elapsed) => {
                self.forget(address, lane);
                Err(broken(format!("no answer within {} ms", limit.as_millis())))
            }
        }
    }

    /// Opens a stream of frames in both directions. The other node has taken `first`.
    pub async fn stream(
        &self,
        address: SocketAddr,
        path: &str,
        first: Frame,
    ) -> Result<Stream, CallError> {
        let Some(place) = self.streams.take(address) else {
            let text = format!("{STREAMS_OF_ONE_PEER_MAX} streams to {address} are open already");
            return Err(refused(503, Bytes::from(text)));
        };
        let broken = |reason: String| CallError::Broken { address, path: path.to_owned(), reason };
        let (outgoing, body) = Outgoing::new();
        // There is room for the first.
        outgoing.send(&first).await;
        let answer = async {
            let response = self.open(address, Lane::Streams, path, body).await?;
            let status = response.status().as_u16();
            if status == 200 {
                let incoming = Incoming::new(Body::new(response.into_body()));
                return Ok(Stream { outgoing, incoming, place });
            }
            let body = Limited::new(response.into_body(), FRAME_BYTES_MAX).collect().await;
            Err(refused(status, body.map_err(|e| broken(e.to_string()))?.to_bytes()))
        };
        let answered = tokio::time::timeout(OPEN_LIMIT, answer).await;
        let late = |_| Err(broken(format!("no answer within {} s", OPEN_LIMIT.as_secs())));
        answered.unwrap_or_else(late)
    }

    /// Posts a body and returns the response as a stream.
    pub async fn open(
        &self,
        address: SocketAddr,
        lane: Lane,
        path: &str,
        body: impl Into<Body>,
    ) -> Result<Response<hyper::body::Incoming>, CallError> {
        let Connection { mut sender, peer } = self.connection(address, lane).await?;
        if let Err(reason) = answers(path, peer.as_ref(), self.members.get()) {
            return Err(CallError::Connect { address, reason: reason.to_owned() });
        }
        let request = Request::post(format!("https://{SERVER_NAME}{path}"))
            .body(body.into())
            .map_err(|e| CallError::Connect { address, reason: e.to_string() })?;
        sender.send_request(request).await.map_err(|e| {
            self.forget(address, lane);
            CallError::Broken { address, path: path.to_owned(), reason: chain(&e) }
        })
    }

    fn forget(&self, address: SocketAddr, lane: Lane) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).remove(&(address, lane));
    }

    async fn connection(&self, address: SocketAddr, lane: Lane) -> Result<Connection, CallError> {
        let known = {
            let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.get(&(address, lane)).filter(|known| !known.sender.is_closed()).cloned()
        };
        if let Some(connection) = known {
            return Ok(connection);
        }
        let connection =
            match tokio::time::timeout(CONNECT_LIMIT, self.connect(address, lane)).await {
                Ok(result) => result.map_err(|reason| CallError::Connect { address, reason })?,
                Err(_elapsed) => {
                    let reason = format!("no answer within {} ms", CONNECT_LIMIT.as_millis());
                    return Err(CallError::Connect { address, reason });
                }
            };
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.insert((address, lane), connection.clone());
        Ok(connection)
    }

    async fn connect(&self, address: SocketAddr, lane: Lane) -> Result<Connection, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|e| e.to_string())?;
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(|e| e.to_string())?;
        let certificates = stream.get_ref().1.peer_certificates();
        let leaf = certificates.and_then(|chain| chain.first());
        let peer = leaf.and_then(|leaf| PeerCertificate::read(leaf).ok());
        let mut builder = http2::Builder::new(TokioExecutor::new());
        if lane == Lane::Streams {
            // One that nobody reads must not hold the others up.
            let all = STREAMS_OF_ONE_PEER_MAX as u32 * WINDOW_BYTES;
            builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(all);
        }
        let (sender, connection) = builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_LIMIT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| chain(&e))?;
        // The connection lives as long as its sender; its end shows there.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, error = %chain(&error), "connection ended");
            }
        });
        Ok(Connection { sender, peer })
    }
}

fn refused(status: u16, body: Bytes) -> CallError {
    let message = String::from_utf8_lossy(&body).into_owned();
    CallError::Refused { status, message, body }
}
