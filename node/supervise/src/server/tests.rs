use super::*;

/// A server and clients on a socket of its own.
struct Bench {
    server: Server,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        Bench { server: Server::open(&path).unwrap(), path, _directory: directory }
    }

    fn client(&mut self) -> (UnixStream, ClientId) {
        let stream = UnixStream::connect(&self.path).unwrap();
        self.server.accept();
        let id = self.server.clients.last().unwrap().id;
        (stream, id)
    }
}

fn read_all(mut stream: &UnixStream) -> Vec<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; 1 << 16];
    match stream.read(&mut bytes) {
        Ok(count) => bytes[..count].to_vec(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn requests_may_come_in_pieces_or_together() {
    let mut bench = Bench::new();
    let (mut stream, id) = bench.client();
    stream.write_all(b"\"Kil").unwrap();
    assert_eq!(bench.server.exchange(id), []);
    stream.write_all(b"l\"\n\"Report\"\n").unwrap();
    assert_eq!(bench.server.exchange(id), [Request::Kill, Request::Report]);
    bench.server.send(id, &Message::Done);
    assert_eq!(read_all(&stream), b"\"Done\"\n");
}

#[test]
fn a_client_that_breaks_the_protocol_or_goes_away_is_dropped() {
    let too_long = vec![b'x'; wire::LINE_BYTES_MAX + 1];
    for bytes in [b"\"Dance\"\n".as_slice(), b"\xff\n", &too_long, b""] {
        let mut bench = Bench::new();
        let (mut stream, id) = bench.client();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(bench.server.exchange(id), []);
        assert_eq!(bench.server.clients().count(), 0, "{} bytes", bytes.len());
    }
}

#[test]
fn only_subscribers_get_what_is_published_and_one_that_does_not_read_is_dropped() {
    let mut bench = Bench::new();
    let (reader, reader_id) = bench.client();
    let (_sleeper, sleeper_id) = bench.client();
    let (stranger, _) = bench.client();
    bench.server.subscribe(reader_id);
    bench.server.subscribe(sleeper_id);
    let message = Message::Refused { reason: "x".repeat(60_000) };
    for _ in 0..OUTPUT_BYTES_MAX / 60_000 + 10 {
        bench.server.publish(&message);
        while !bench.server.clients.iter().all(|c| c.id != reader_id || c.output.is_empty()) {
            read_all(&reader);
            bench.server.exchange(reader_id);
        }
        read_all(&reader);
    }
    let left: Vec<ClientId> = bench.server.clients().map(|(id, ..)| id).collect();
    assert!(left.contains(&reader_id) && !left.contains(&sleeper_id));
    stranger.set_nonblocking(true).unwrap();
    let nothing = (&stranger).read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn connections_above_the_limit_are_closed() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| bench.client()).collect();
    let mut extra = UnixStream::connect(&bench.path).unwrap();
    bench.server.accept();
    assert_eq!(extra.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(bench.server.clients().count(), clients.len());
}
