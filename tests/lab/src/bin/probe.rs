//! The lab's test server and client: reports who answered, from which address, and what was lost.
//!
//! * `skein-lab-probe serve [ADDR:]PORT`: TCP and UDP. A TCP client gets the line
//!   `<host> <client> <own>`, followed by an echo of its input; a datagram is answered with that
//!   line, padded to the datagram's length.
//! * `skein-lab-probe ask tcp|udp HOST:PORT [TIMES [FROM_PORT [BYTES]]]`: prints one answer a line.
//! * `skein-lab-probe names ADDR:PORT`: a DNS server with one address for every name.
//! * `skein-lab-probe count HOST:PORT`: one TCP connection, a number every 5 ms, until standard
//!   input ends; prints `counting` when the first came back, and at the end
//!   `sent=… received=… gap_ms=…`, where the gap is the longest time without an echo.
//! * `skein-lab-probe load HOST:PORT PER_SECOND`: sends TCP requests at this rate from few source
//!   ports, until standard input ends; `lab::load` describes the output.
//! * `skein-lab-probe nameless`: erases its command line, prints `nameless`, and exits when
//!   standard input ends.

use std::ffi::c_void;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lab::demo::{end_on_sigterm, hostname};
use lab::wait::{Pace, now, wait_for};
use nix::sys::mman::munmap;
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

const ANSWER_SECONDS: i64 = 2;
const ANSWER_MAX: Duration = Duration::from_secs(ANSWER_SECONDS as u64);
const USAGE: &str = "serve [ADDR:]PORT | names ADDR:PORT | count HOST:PORT | \
    ask tcp|udp HOST:PORT [TIMES [FROM_PORT [BYTES]]] | load HOST:PORT PER_SECOND | \
    nameless";
const COUNT_PERIOD: Duration = Duration::from_millis(5);
/// How long the last echoes may take after counting was ended.
const TAIL_MAX: Duration = Duration::from_secs(5);
/// The address of every name: one for documentation (RFC 5737).
const THE_ADDRESS: [u8; 4] = [203, 0, 113, 9];
/// As on every machine that labs run on; a larger page begins where one of these does.
const PAGE_BYTES: usize = 4096;
const DATAGRAM_BYTES_MAX: usize = 65_507;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", port] => serve(port),
        ["ask", protocol, to, rest @ ..] => ask(protocol, to, rest),
        ["count", to] => count(to),
        ["names", address] => serve_names(address),
        ["load", to, rate] => lab::load::run(to, rate.parse().context("reading PER_SECOND")?),
        ["nameless"] => be_nameless(),
        _ => bail!("usage: {USAGE}"),
    }
}

fn serve(port: &str) -> Result<()> {
    end_on_sigterm()?;
    let address = if port.contains(':') { port.to_owned() } else { format!("0.0.0.0:{port}") };
    let datagrams = UdpSocket::bind(&address).with_context(|| format!("binding {address}"))?;
    std::thread::spawn(move || answer_datagrams(&datagrams));
    let listener = TcpListener::bind(&address).with_context(|| format!("binding {address}"))?;
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || echo(stream));
    }
    Ok(())
}

fn answer_datagrams(socket: &UdpSocket) -> Result<()> {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let mut line = format!("{} {from} udp\n", hostname()).into_bytes();
        line.resize(line.len().max(length), b'.');
        socket.send_to(&line, from)?;
    }
}

fn serve_names(address: &str) -> Result<()> {
    end_on_sigterm()?;
    let socket = UdpSocket::bind(address).with_context(|| format!("binding {address}"))?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        if let Some(answer) = answer_name(&buffer[..length]) {
            socket.send_to(&answer, from)?;
        }
    }
}

/// The answer to a query (RFC 1035, section 4.1): [`THE_ADDRESS`] to A, nothing to other types.
fn answer_name(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(query[end]);
    }
    let question = query.get(12..end + 5)?;
    let is_address = question.ends_with(&[0, 1, 0, 1]);
    let mut answer = header[..2].to_vec();
    // A response with recursion; one question, perhaps one answer.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question);
    if is_address {
        // The name of the question, type A, class IN, a minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(THE_ADDRESS);
    }
    Some(answer)
}

fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (client, own) = (stream.peer_addr()?, stream.local_addr()?);
    stream.write_all(format!("{} {client} {own}\n", hostname()).as_bytes())?;
    let mut reader = stream.try_clone()?;
    std::io::copy(&mut reader, &mut stream)?;
    Ok(())
}

fn ask(protocol: &str, to: &str, rest: &[&str]) -> Result<()> {
    let number = |at: usize, otherwise: usize| match rest.get(at) {
        Some(word) => word.parse::<usize>().with_context(|| format!("reading {word:?}")),
        None => Ok(otherwise),
    };
    let (times, from_port, bytes) = (number(0, 1)?, number(1, 0)?, number(2, 1)?);
    let from_port = u16::try_from(from_port).context("reading FROM_PORT")?;
    for _ in 0..times {
        // Resolved each time, as a program that reconnects would.
        let mut addresses = to.to_socket_addrs().with_context(|| format!("resolving {to}"))?;
        let address = addresses.next().with_context(|| format!("{to} has no address"))?;
        let line = match protocol {
            "tcp" => ask_tcp(address, from_port),
            "udp" => ask_udp(address, from_port, bytes),
            other => bail!("{other:?} is neither tcp nor udp"),
        };
        let line = line.with_context(|| format!("asking {address} by {protocol}"))?;
        writeln!(std::io::stdout(), "{}", line.trim_end())?;
    }
    Ok(())
}

fn ask_tcp(to: SocketAddr, from_port: u16) -> Result<String> {
    let stream = open_tcp(to, from_port)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    ensure!(!line.is_empty(), "the connection was closed without an answer");
    Ok(line)
}

/// Connects within the limit, from a port of the caller's choice where that is not 0.
fn open_tcp(to: SocketAddr, from_port: u16) -> Result<TcpStream> {
    let SocketAddr::V4(to4) = to else { bail!("{to} is not an IPv4 address") };
    if from_port == 0 {
        return Ok(TcpStream::connect_timeout(&to, ANSWER_MAX)?);
    }
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&made, sockopt::ReuseAddr, &true)?;
    // The send limit bounds a blocking connect on Linux (socket(7), SO_SNDTIMEO).
    let limit = TimeVal::seconds(ANSWER_SECONDS);
    setsockopt(&made, sockopt::SendTimeout, &limit)?;
    bind(made.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, from_port))?;
    connect(made.as_raw_fd(), &SockaddrIn::from(to4))?;
    let owned: OwnedFd = made;
    Ok(TcpStream::from(owned))
}

fn ask_udp(to: SocketAddr, from_port: u16, bytes: usize) -> Result<String> {
    let socket = UdpSocket::bind(("0.0.0.0", from_port))?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    // Connected: an answer from another address than the one asked is not taken.
    socket.connect(to)?;
    socket.send(&vec![b'x'; bytes.min(DATAGRAM_BYTES_MAX)])?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let length = socket.recv(&mut buffer)?;
    ensure!(length >= bytes, "{length} bytes came back for {bytes}");
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn count(to: &str) -> Result<()> {
    let mut addresses = to.to_socket_addrs().with_context(|| format!("resolving {to}"))?;
    let address = addresses.next().with_context(|| format!("{to} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX).context("connecting")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TAIL_MAX))?;
    let echoes = stream.try_clone()?;
    let reader = std::thread::spawn(move || read_echoes(echoes));
    let ended = std::sync::Arc::new(AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Relaxed);
    });
    let mut pace = Pace::new(COUNT_PERIOD);
    let mut sent = 0_u64;
    while !ended.load(Ordering::Relaxed) {
        writeln!(stream, "{sent}").context("sending a number")?;
        sent += 1;
        pace.wait();
    }
    stream.shutdown(std::net::Shutdown::Write).context("ending the connection")?;
    let (received, gap) = reader.join().map_err(|panic| anyhow!("the reader: {panic:?}"))??;
    let gap = gap.as_millis();
    writeln!(std::io::stdout(), "sent={sent} received={received} gap_ms={gap}")?;
    Ok(())
}

/// Reads numbers in order until the server ends; gives how many, and the longest silence.
fn read_echoes(echoes: TcpStream) -> Result<(u64, Duration)> {
    let mut lines = BufReader::new(echoes).lines();
    lines.next().context("no greeting came")??;
    let (mut received, mut longest, mut last) = (0_u64, Duration::ZERO, now());
    for line in lines {
        let line = line.context("awaiting an echo")?;
        ensure!(line == received.to_string(), "{line:?} came instead of {received}");
        if received == 0 {
            writeln!(std::io::stdout(), "counting")?;
        }
        received += 1;
        let time = now();
        longest = longest.max(time - last);
        last = time;
    }
    Ok((received, longest))
}

/// From here on the command line of this process is empty, as that of a process of user-mode Linux
/// is: the memory from which the kernel reads it (proc_pid_cmdline(5)) is gone.
fn be_nameless() -> Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Field 48, `arg_start` (proc_pid_stat(5)), counted after the name, which may hold spaces.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let begin: usize = fields.split(' ').nth(45).context("no arg_start")?.parse()?;
    // In a thread, whose stack is elsewhere: the first one's is in this memory too, so it must
    // sleep by then, and never wakes.
    let nameless = std::thread::spawn(move || {
        let slept = wait_for(ANSWER_MAX, "the first thread to sleep", first_sleeps);
        let page = (begin & !(PAGE_BYTES - 1)) as *mut c_void;
        let page = NonNull::new(page).unwrap_or(NonNull::dangling());
        // SAFETY: nothing reads the arguments after this, and the first thread sleeps for ever.
        #[expect(unsafe_code, reason = "memory that is in use is given up")]
        let unmapped = slept.is_ok() && unsafe { munmap(page, PAGE_BYTES) }.is_ok();
        if unmapped && writeln!(std::io::stdout(), "nameless").is_ok() {
            // Whatever is heard, the end of it is the end.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
        // Not by exit(3), which may look at the arguments.
        let _ = raise(Signal::SIGKILL);
    });
    nameless.join().map_err(|panic| anyhow!("{panic:?}"))
}

/// Whether the first thread of this process sleeps.
fn first_sleeps() -> Result<()> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", std::process::id()))?;
    let state = stat.rsplit(") ").next().and_then(|fields| fields.split(' ').next());
    ensure!(state == Some("S"), "its state is {state:?}");
    Ok(())
}

#[test]
fn a_name_has_one_address_and_no_other_record() {
    let query = |kind| {
        [b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x01a\x07example\0\0", &[kind, 0, 1][..]].concat()
    };
    let answer = answer_name(&query(1)).expect("an answer");
    assert!(answer.starts_with(b"\x12\x34\x81\x80") && answer.ends_with(&THE_ADDRESS));
    let empty = answer_name(&query(28)).expect("an answer");
    assert_eq!(empty[7], 0, "no AAAA record");
    assert!(answer_name(b"short").is_none());
}
