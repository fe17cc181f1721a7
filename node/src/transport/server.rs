//! Answering peers.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{CONNECTIONS_MAX, HANDSHAKE_LIMIT, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_LIMIT};
use crate::pki::{PeerIdentity, identity_of};

/// Who calls: an extractor for routes that only members of the cluster may use.
#[derive(Debug, Clone, Copy)]
pub struct MemberOnly(pub PeerIdentity);

impl<S: Send + Sync> FromRequestParts<S> for MemberOnly {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Self, (StatusCode, &'static str)> {
        let identity = parts.extensions.get::<PeerIdentity>().copied();
        identity.map(Self).ok_or((
            StatusCode::UNAUTHORIZED,
            "this route is for nodes of the cluster: a node certificate is required",
        ))
    }
}

/// Serves `router` on `listener` until `stop`; open connections end with it.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await;
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                // Out of descriptors or the like: the listener stays, the peer tries again.
                tracing::warn!(%error, "accept a connection of a peer");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(stream, acceptor, router) => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake of a peer");
            return;
        }
        Err(_elapsed) => return,
    };
    let identity = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|leaf| identity_of(leaf).ok());
    let service = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        if let Some(identity) = identity {
            request.extensions_mut().insert(identity);
        }
        request
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection of a peer ended");
    }
}
