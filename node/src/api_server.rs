//! Answering clients of the API, on Unix sockets and on the listener for metrics: HTTP/1.1, so many
//! connections at a time, and each request's head within a limit.

mod raw_query;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use raw_query::RawQuery;

/// How long a client may take to send a request's head, idle time before it included.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Connections at one time on one listener; further clients wait.
const CONNECTIONS_MAX: u32 = 1024;

/// Serves until `stop`; requests that are open then have `drain` to end.
pub(crate) async fn serve<L: Listener>(
    listener: L,
    router: Router,
    stop: CancellationToken,
    drain: Duration,
) {
    serve_within(HEAD_LIMIT, listener, router, stop, drain).await;
}

async fn serve_within<L: Listener>(
    head_limit: Duration,
    mut listener: L,
    router: Router,
    stop: CancellationToken,
    drain: Duration,
) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(head_limit);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, _address) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let service = TowerToHyperService::new(router.clone());
        let stream = TokioIo::new(RawQuery::new(stream));
        let connection = server.serve_connection(stream, service).with_upgrades();
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection of a client ended");
            }
            drop(place);
        });
    }
    drop(listener);
    // What is still open then ends with the daemon.
    let all = places.acquire_many(CONNECTIONS_MAX);
    let _ = tokio::time::timeout(drain, all).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A client that sends no head is let go; one that does is answered.
    #[tokio::test]
    async fn a_client_that_says_nothing_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let (limit, drain) = (Duration::from_secs(2), Duration::from_secs(30));
        let server = tokio::spawn(serve_within(limit, listener, router, stop.clone(), drain));
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = b"GET /?a={\"b\":1} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        client.write_all(head).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        let mut rest = Vec::new();
        let read = tokio::time::timeout(HEAD_LIMIT / 2, silent.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "it is still open");
        stop.cancel();
        server.await.unwrap();
    }
}
