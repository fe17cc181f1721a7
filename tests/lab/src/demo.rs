//! Code that the demo programs share: a redis client, and exit on SIGTERM.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};

/// How long redis may take for anything.
const REDIS_MAX: Duration = Duration::from_secs(1);
/// Largest bulk string that is read from redis.
const BULK_BYTES_MAX: usize = 1 << 20;

/// Ends this program with status 0 on SIGTERM. Called first, before any thread is started.
///
/// The kernel drops signals without a handler for the first process of a pid namespace, which a
/// task is; a blocked signal that someone waits for is not dropped.
///
/// # Errors
/// When the signal cannot be blocked.
pub fn end_on_sigterm() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().context("blocking SIGTERM")?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            std::process::exit(0);
        }
    });
    Ok(())
}

/// The host name, which is the task's id unless the service sets one.
#[must_use]
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// One connection to one redis.
#[derive(Debug)]
pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    /// Connects; every later step has the same limit of one second.
    ///
    /// # Errors
    /// When nobody answers there.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, REDIS_MAX)
            .with_context(|| format!("connecting to redis at {address}"))?;
        stream.set_read_timeout(Some(REDIS_MAX)).context("limiting reads")?;
        stream.set_write_timeout(Some(REDIS_MAX)).context("limiting writes")?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one command and gives the answer as text; nil is the empty text.
    ///
    /// # Errors
    /// When redis refuses it, or answers with something other than a string or a number.
    pub fn command(&mut self, words: &[&str]) -> Result<String> {
        let request = encode(words);
        self.stream.get_mut().write_all(request.as_bytes()).context("asking redis")?;
        let mut line = String::new();
        self.stream.read_line(&mut line).context("awaiting redis")?;
        let line = line.trim_end();
        let Some(rest) = line.get(1..) else { bail!("redis closed the connection") };
        match line.as_bytes()[0] {
            b'+' | b':' => Ok(rest.to_owned()),
            b'$' => self.bulk(rest),
            b'-' => bail!("redis says {rest}"),
            _ => bail!("redis answers {line:?}"),
        }
    }

    fn bulk(&mut self, length: &str) -> Result<String> {
        let Ok(length) = length.parse::<usize>() else { return Ok(String::new()) };
        ensure!(length <= BULK_BYTES_MAX, "redis answers {length} bytes");
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).context("reading from redis")?;
        bytes.truncate(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The random run id of this redis, unique per replica.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub fn run_id(&mut self) -> Result<String> {
        let info = self.command(&["INFO", "server"])?;
        let found = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        found.map(|id| id.trim().to_owned()).context("redis tells no run_id")
    }
}

/// A command in redis' protocol: an array of bulk strings.
fn encode(words: &[&str]) -> String {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    request
}

#[test]
fn commands_are_arrays_of_bulk_strings() {
    assert_eq!(encode(&["GET", "ä"]), "*2\r\n$3\r\nGET\r\n$2\r\nä\r\n");
}

#[test]
fn answers_of_every_kind_are_read() {
    use std::net::TcpListener;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream
            .write_all(b"+OK\r\n:7\r\n$-1\r\n$24\r\n# Server\r\nrun_id:abc\r\n\r\n\r\n-ERR no\r\n")
            .expect("written");
        stream.read_to_end(&mut Vec::new()).expect("all commands")
    });
    let mut redis = Redis::connect(address).expect("it listens");
    let mut ask = || redis.command(&["X"]);
    assert_eq!(ask().expect("a status"), "OK");
    assert_eq!(ask().expect("a number"), "7");
    assert_eq!(ask().expect("nil"), "");
    assert_eq!(redis.run_id().expect("an id"), "abc");
    let error = redis.command(&["X"]).expect_err("refused").to_string();
    assert!(error.contains("ERR no"), "{error}");
    drop(redis);
    assert!(server.join().expect("it ends") > 0);
}
