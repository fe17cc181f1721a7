//! Clients that write a `"` as it is in a request's query, like `?filters={"name":["web"]}`: Go's
//! server takes it, hyper refuses it with an empty 400 (RFC 3986 has no such character). It is
//! written as `%22` before hyper reads it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A longer request line is given to hyper as it is, which refuses it.
const LINE_BYTES_MAX: usize = 64 << 10;
/// How much is read at once while a request line is looked for.
const READ_BYTES: usize = 8 << 10;
/// Words that begin a request line of Docker's API.
const METHODS: [&[u8]; 6] = [b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ", b"OPTIONS "];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// What the client sends next may be a request line: nothing came yet, or it was answered.
    RequestLine,
    /// Headers, a body, or a line that was looked at.
    Rest,
    /// Another protocol: the connection was taken over.
    Other,
}

/// A client's connection, whose request lines hyper can read.
pub(super) struct RawQuery<S> {
    inner: S,
    next: Next,
    /// Read and not handed on.
    held: BytesMut,
}

impl<S> RawQuery<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, next: Next::RequestLine, held: BytesMut::new() }
    }

    /// What may come from the client after these bytes of an answer.
    fn note_answer(&mut self, bytes: &[u8]) {
        if bytes.starts_with(b"HTTP/1.1 101 ") {
            self.next = Next::Other;
        } else if self.next == Next::Rest && self.held.is_empty() {
            self.next = Next::RequestLine;
        }
    }
}

/// Whether these bytes may yet become a request line, and are not one as a whole.
fn is_part_of_line(held: &[u8]) -> bool {
    let begins = |method: &&[u8]| held.starts_with(method) || method.starts_with(held);
    METHODS.iter().any(begins) && held.len() < LINE_BYTES_MAX && !held.contains(&b'\n')
}

/// The bytes with each `"` of the request line that they begin with written as `%22`.
fn escape(held: &[u8]) -> BytesMut {
    let end = held.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (line, rest) = held.split_at(end);
    let is_request = METHODS.iter().any(|method| line.starts_with(method));
    if !is_request || !line.contains(&b'"') {
        return BytesMut::from(held);
    }
    let mut escaped = BytesMut::with_capacity(held.len() + 64);
    for byte in line {
        match byte {
            b'"' => escaped.extend_from_slice(b"%22"),
            other => escaped.extend_from_slice(&[*other]),
        }
    }
    escaped.extend_from_slice(rest);
    escaped
}

impl<S: AsyncRead + Unpin> AsyncRead for RawQuery<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.next == Next::RequestLine {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            this.held.extend_from_slice(read.filled());
            if read.filled().is_empty() || !is_part_of_line(&this.held) {
                this.held = escape(&this.held);
                this.next = Next::Rest;
            }
        }
        if this.held.is_empty() {
            return Pin::new(&mut this.inner).poll_read(context, buffer);
        }
        let count = this.held.len().min(buffer.remaining());
        buffer.put_slice(&this.held[..count]);
        this.held.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RawQuery<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.note_answer(bytes);
        Pin::new(&mut this.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.note_answer(pieces.iter().find(|piece| !piece.is_empty()).map_or(&[], |piece| piece));
        Pin::new(&mut this.inner).poll_write_vectored(context, pieces)
    }

    /// Without this hyper copies each answer into one piece.
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What the server reads of what a client wrote in these pieces, answering after each, be it
    /// by one buffer or by several.
    async fn read(pieces: &[&[u8]], answer: &[u8]) -> Vec<String> {
        let found = read_answering(pieces, &[answer]).await;
        assert_eq!(read_answering(pieces, &[b"", answer, b"x"]).await, found);
        found
    }

    async fn read_answering(pieces: &[&[u8]], answer: &[&[u8]]) -> Vec<String> {
        let (mut client, server) = duplex(1 << 20);
        let mut server = RawQuery::new(server);
        let mut found = Vec::new();
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            let mut bytes = vec![0; 1 << 16];
            let count = server.read(&mut bytes).await.unwrap();
            found.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
            match answer {
                [answer] => server.write_all(answer).await.unwrap(),
                several => {
                    let several: Vec<_> = several.iter().map(|piece| IoSlice::new(piece)).collect();
                    assert!(server.is_write_vectored());
                    assert!(server.write_vectored(&several).await.unwrap() > 1);
                }
            }
        }
        found
    }

    #[tokio::test]
    async fn quotes_of_a_request_line_are_escaped_and_no_others() {
        let request = b"GET /a?f={\"b\":1} HTTP/1.1\r\nX: \"y\"\r\n\r\n{\"z\":1}\n";
        let escaped = "GET /a?f={%22b%22:1} HTTP/1.1\r\nX: \"y\"\r\n\r\n{\"z\":1}\n";
        assert_eq!(read(&[request, request], b"HTTP/1.1 200 OK\r\n").await, [escaped, escaped]);
        // A body that follows `100 Continue`, whatever it is.
        for body in [&b"{\"a\":1}\n"[..], b"\"GET\" \"\n", b"Gx\"\n"] {
            let found = read(&[request, body], b"HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(found[1].as_bytes(), body);
        }
    }

    /// Nothing is held back of what is typed into a connection that was taken over.
    #[tokio::test]
    async fn another_protocol_is_left_alone() {
        let found =
            read(&[b"POST /x HTTP/1.1\r\n\r\n", b"G", b"GET \"\n"], b"HTTP/1.1 101 UPGRADED\r\n")
                .await;
        assert_eq!(found[1..], ["G", "GET \"\n"]);
    }

    #[tokio::test]
    async fn a_line_in_pieces_is_put_together_and_a_long_one_is_not_waited_for() {
        let (mut client, server) = duplex(1 << 20);
        let mut server = RawQuery::new(server);
        client.write_all(b"GET /a?").await.unwrap();
        let reads = tokio::spawn(async move {
            let mut bytes = vec![0; 1 << 17];
            let count = server.read(&mut bytes).await.unwrap();
            bytes.truncate(count);
            (server, bytes)
        });
        client.write_all(b"\" HTTP/1.1\r\n").await.unwrap();
        let (mut server, bytes) = reads.await.unwrap();
        assert_eq!(bytes, b"GET /a?%22 HTTP/1.1\r\n");
        server.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        client.write_all(b"GET /").await.unwrap();
        client.write_all(&vec![b'a'; LINE_BYTES_MAX + READ_BYTES]).await.unwrap();
        let mut bytes = vec![0; 1 << 17];
        assert!(server.read(&mut bytes).await.unwrap() >= LINE_BYTES_MAX);
    }
}
