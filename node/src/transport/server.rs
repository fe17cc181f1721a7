//! Answering peers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use cluster::id::NodeId;
use cluster::object::KeyDigest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::access::{Membership, guard};
use super::newcomers::{Newcomer, Newcomers};
use super::{
    CONNECTIONS_MAX, CONNECTIONS_OF_ONE_NODE_MAX, HANDSHAKE_LIMIT, KEEP_ALIVE_INTERVAL,
    KEEP_ALIVE_LIMIT,
};
use crate::pki::{PeerCertificate, PeerIdentity};
use crate::places::Places;
use crate::telemetry::Seldom;

/// How long a connection without a member's certificate lasts: one join, and no more.
const NEWCOMER_LIMIT: Duration = Duration::from_secs(15);
/// How often is looked whether the node of an open connection is a member still.
const STANDING_INTERVAL: Duration = Duration::from_secs(1);
/// What is taken of a member's call unread, in bytes; hyper's default.
const WINDOW_BYTES: u32 = 1 << 20;
/// Calls at one time on one connection.
const STREAMS_MAX: u32 = 64;
/// Pause after a connection could not be accepted, as when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who calls, as the table of routes ([`super::access`]) has found: an extractor for routes of
/// members.
#[derive(Debug, Clone, Copy)]
pub struct MemberOnly(pub PeerIdentity, pub KeyDigest);

impl<S: Send + Sync> FromRequestParts<S> for MemberOnly {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Self, (StatusCode, &'static str)> {
        let member = parts.extensions.get::<Self>().copied();
        member.ok_or((StatusCode::UNAUTHORIZED, "this route is for nodes of the cluster"))
    }
}

/// What every connection of a listener needs. Cheap to clone.
#[derive(Clone)]
struct Service {
    acceptor: TlsAcceptor,
    router: Router,
    membership: Membership,
    newcomers: Newcomers,
    places: Places<NodeId>,
}

/// Serves `router` on `listener` until `stop`, to those whom the table of routes lets in; open
/// connections end with it.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    membership: Membership,
    stop: CancellationToken,
) {
    let service = Service {
        acceptor: TlsAcceptor::from(tls),
        router: guard(router, membership.clone()),
        membership,
        newcomers: Newcomers::default(),
        places: Places::new(CONNECTIONS_OF_ONE_NODE_MAX, CONNECTIONS_MAX),
    };
    let mut complaints = Seldom::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or the like: the listener stays, the peer tries again.
                if let Some(more) = complaints.say() {
                    tracing::warn!(%error, more, "accept a connection of a peer");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (service, stop) = (service.clone(), stop.clone());
        let newcomer = service.newcomers.enter(peer.ip());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = service.connection(stream, newcomer, peer.ip()) => {}
            }
        });
    }
}

impl Service {
    async fn connection(self, stream: TcpStream, newcomer: Newcomer, address: IpAddr) {
        let _ = stream.set_nodelay(true);
        let shaken = tokio::select! {
            () = newcomer.evicted.cancelled() => return,
            shaken = tokio::time::timeout(HANDSHAKE_LIMIT, self.acceptor.accept(stream)) => shaken,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "TLS handshake of a peer");
                return;
            }
            Err(_elapsed) => return,
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let leaf = certificates.and_then(|chain| chain.first());
        let peer = leaf.and_then(|leaf| PeerCertificate::read(leaf).ok());
        if let Some(member) = peer.filter(|peer| self.membership.is_member(peer)) {
            drop(newcomer);
            let Some(_place) = self.places.take(member.identity.node) else {
                tracing::debug!(node = %member.identity.node, "a node has too many connections");
                return;
            };
            tokio::select! {
                () = self.until_removed(&member) => {}
                () = self.answer(stream, peer) => {}
            }
        } else {
            tokio::select! {
                () = newcomer.evicted.cancelled() => {}
                _ended = tokio::time::timeout(NEWCOMER_LIMIT, self.answer(stream, peer)) => {}
            }
        }
    }

    /// Returns once the node is removed, or demoted: what it has open ends then, and what it may
    /// still do it opens again.
    async fn until_removed(&self, member: &PeerCertificate) {
        let began_as_manager = self.membership.may_manage(member);
        while self.membership.is_member(member)
            && (!began_as_manager || self.membership.may_manage(member))
        {
            tokio::time::sleep(STANDING_INTERVAL).await;
        }
    }

    async fn answer(&self, stream: TlsStream<TcpStream>, peer: Option<PeerCertificate>) {
        let router = self.router.clone();
        let service =
            router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                request
            });
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        if peer.is_some_and(|peer| self.membership.is_member(&peer)) {
            // A stream that nobody reads must not hold the others up.
            builder
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(STREAMS_MAX * WINDOW_BYTES);
        }
        let served = builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_LIMIT)
            .max_concurrent_streams(STREAMS_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "connection of a peer ended");
        }
    }
}
