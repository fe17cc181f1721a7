//! Streams of frames between two nodes, in both directions at once: the bodies of a request and of
//! its response. HTTP/2's windows hold back who sends faster than the other side reads. The loss of
//! either side ends the other: a peer that hangs up resets the stream, one that is dead is noticed
//! by the connection's keep-alive. A stream that is silent stays open.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use cluster::frame::{Frame, FrameError};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use crate::places::Place;

/// Streams that a node has opened to one other at one time.
pub(super) const STREAMS_OF_ONE_PEER_MAX: usize = 48;
/// The same to all others.
pub(super) const STREAMS_OPENED_MAX: usize = 1024;
/// What the node that opens a stream takes of it unread, in bytes.
pub(super) const WINDOW_BYTES: u32 = 256 << 10;
/// How long the other node may take to answer the first frame.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Frames that wait for room in the other side's window.
const QUEUE: usize = 2;

/// A stream that this node has opened. Dropping it, or its outgoing half, hangs up.
pub struct Stream {
    /// To the other node.
    pub outgoing: Outgoing,
    /// From the other node.
    pub incoming: Incoming,
    /// Held while it is open.
    pub(super) place: Place<SocketAddr>,
}

impl Stream {
    /// Both halves, and what is held while either is in use.
    #[must_use]
    pub fn into_parts(self) -> (Outgoing, Incoming, Place<SocketAddr>) {
        (self.outgoing, self.incoming, self.place)
    }
}

/// The half of a stream that is written. The stream ends when it is dropped.
pub struct Outgoing(mpsc::Sender<Bytes>);

impl Outgoing {
    /// One, and the body that its frames go into.
    pub fn new() -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|frame: Bytes| (Ok::<_, Infallible>(frame), receiver))
        });
        (Self(sender), Body::from_stream(frames))
    }

    /// Sends a frame once there is room for it. Whether the other side can still get it.
    pub async fn send(&self, frame: &Frame) -> bool {
        match frame.encode() {
            Ok(bytes) => self.0.send(bytes).await.is_ok(),
            Err(error) => {
                tracing::error!(%error, "write a frame of a stream");
                false
            }
        }
    }

    /// Returns once the other side takes no more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// The half of a stream that is read.
pub struct Incoming {
    body: Body,
    received: BytesMut,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection broke, or the other side hung up.
    #[error("the stream broke")]
    Broken(#[source] axum::Error),
    /// It has ended within a frame.
    #[error("the stream ended within a frame")]
    Cut,
    /// What came is no frame.
    #[error("read a frame")]
    Frame(#[source] FrameError),
}

impl Incoming {
    /// The frames of a body.
    #[must_use]
    pub fn new(body: Body) -> Self {
        Self { body, received: BytesMut::new() }
    }

    /// The next frame; `None` once the other side has ended the stream. May be dropped while it
    /// waits.
    ///
    /// # Errors
    /// When there can be no other frame.
    pub async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            if let Some(frame) = Frame::take(&mut self.received).map_err(StreamError::Frame)? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                Some(Ok(part)) => {
                    if let Ok(data) = part.into_data() {
                        self.received.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(StreamError::Broken(error)),
                None if self.received.is_empty() => return Ok(None),
                None => return Err(StreamError::Cut),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn frame(text: &'static str) -> Frame {
        Frame { kind: 1, payload: Bytes::from_static(text.as_bytes()) }
    }

    fn body(parts: Vec<Result<Bytes, &'static str>>) -> Incoming {
        Incoming::new(Body::from_stream(futures_util::stream::iter(parts)))
    }

    #[tokio::test]
    async fn frames_are_read_however_the_body_is_cut() {
        let bytes = frame("abc").encode().unwrap();
        for cut in 0..=bytes.len() {
            let parts = [bytes.slice(..cut), bytes.slice(cut..), bytes.clone()];
            let mut incoming = body(parts.map(Ok).to_vec());
            for _ in 0..2 {
                assert_eq!(incoming.next().await.unwrap(), Some(frame("abc")), "{cut}");
            }
            assert!(incoming.next().await.unwrap().is_none(), "{cut}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_not_one_that_ends() {
        let part = frame("abc").encode().unwrap();
        let mut broken = body(vec![Ok(part.clone()), Err("reset")]);
        assert!(broken.next().await.unwrap().is_some());
        assert!(matches!(broken.next().await, Err(StreamError::Broken(_))));
        let mut cut = body(vec![Ok(part.slice(..part.len() - 1))]);
        assert!(matches!(cut.next().await, Err(StreamError::Cut)));
        let mut long = body(vec![Ok(Bytes::from_static(&[1, 255, 255, 255, 255]))]);
        assert!(matches!(long.next().await, Err(StreamError::Frame(_))));
    }

    #[tokio::test]
    async fn what_nobody_reads_waits_with_its_sender() {
        let (outgoing, body) = Outgoing::new();
        for _ in 0..QUEUE {
            assert_eq!(outgoing.send(&frame("a")).now_or_never(), Some(true));
        }
        assert_eq!(outgoing.send(&frame("b")).now_or_never(), None);
        let mut incoming = Incoming::new(body);
        assert_eq!(incoming.next().await.unwrap(), Some(frame("a")));
        assert_eq!(outgoing.send(&frame("c")).now_or_never(), Some(true));
        assert_eq!(outgoing.closed().now_or_never(), None);
        drop(incoming);
        outgoing.closed().await;
        assert!(!outgoing.send(&frame("d")).await);
    }
}
