//! Servers that say who they are and whom they see, and calls to them.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use netprog::plane::Place;
use netprog_linux::{HeldSpaces, LinuxKernel};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

/// No answer takes longer on one machine.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Datagrams may be lost, but not so many in a row.
const UDP_ATTEMPTS_MAX: u32 = 5;
/// The largest message of a test.
pub(crate) const MESSAGE_MAX: usize = 70_000;

pub(crate) type Where<'a> = (&'a mut LinuxKernel<HeldSpaces>, Place);

/// Serves TCP and UDP on port 80 of any address of both families: `<name> saw <peer>`, padded to
/// the length of what was asked.
pub(crate) fn serve(place: Where<'_>, name: &str) {
    serve_on(place, name, 80);
}

/// The same on another port.
pub(crate) fn serve_on((kernel, place): Where<'_>, name: &str, port: u16) {
    let any = (Ipv6Addr::UNSPECIFIED, port);
    let (tcp, udp) =
        kernel.run(place, move || (TcpListener::bind(any).unwrap(), UdpSocket::bind(any))).unwrap();
    let (udp, tcp_name, udp_name) = (udp.unwrap(), name.to_owned(), name.to_owned());
    // Both threads end with the process: nothing else holds the namespace then.
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let name = tcp_name.clone();
            std::thread::spawn(move || answer_stream(stream, &name));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; MESSAGE_MAX];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            let _unreachable = udp.send_to(&answer(&udp_name, peer, length), peer);
        }
    });
}

fn answer(name: &str, peer: SocketAddr, length: usize) -> Vec<u8> {
    let mut answer = format!("{name} saw {} ", peer.ip().to_canonical()).into_bytes();
    if answer.len() < length {
        answer.resize(length, b'.');
    }
    answer
}

/// Each message begins with its length; after one of none the server closes.
fn answer_stream(mut stream: TcpStream, name: &str) -> Option<()> {
    let peer = stream.peer_addr().ok()?;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        if length == [0; 4] {
            return None;
        }
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut message).ok()?;
        let answer = answer(name, peer, message.len());
        let length = u32::try_from(answer.len()).ok()?;
        stream.write_all(&length.to_be_bytes()).ok()?;
        stream.write_all(&answer).ok()?;
    }
}

/// Asks on an open stream.
pub(crate) fn ask(stream: &mut TcpStream, size: usize) -> Result<String, Error> {
    stream.write_all(&u32::try_from(size).unwrap().to_be_bytes())?;
    stream.write_all(&vec![b'x'; size])?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    if answer.len() < size {
        return Err(Error::new(ErrorKind::UnexpectedEof, "a short answer"));
    }
    Ok(words(&answer))
}

fn words(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Opens a stream to `target`, from local port `from` (0: any).
pub(crate) fn open(place: Where<'_>, target: &str, from: u16) -> Result<TcpStream, Error> {
    let (target, (kernel, place)) = (target.to_owned(), place);
    kernel.run(place, move || connect_from(&target, from))?
}

/// The same in the calling thread's namespace.
pub(crate) fn connect_from(target: &str, from: u16) -> Result<TcpStream, Error> {
    let target: SocketAddr = target.parse().unwrap();
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    let wait = nix::sys::time::TimeVal::new(3, 0);
    setsockopt(&fd, sockopt::SendTimeout, &wait)?;
    let any = SocketAddr::new(unspecified(target), from);
    bind(fd.as_raw_fd(), &SockaddrStorage::from(any))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(target))?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    Ok(stream)
}

fn unspecified(family_of: SocketAddr) -> IpAddr {
    match family_of {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// One TCP exchange.
pub(crate) fn tcp(place: Where<'_>, target: &str, size: usize) -> Result<String, Error> {
    ask(&mut open(place, target, 0)?, size)
}

/// One UDP exchange. Asked again where no answer comes: a sender that the scheduler moves between
/// processors reorders its fragments, and one that overtakes the first is lost.
pub(crate) fn udp((kernel, place): Where<'_>, target: &str, size: usize) -> Result<String, Error> {
    let target: SocketAddr = target.parse().unwrap();
    let any = SocketAddr::new(unspecified(target), 0);
    let socket = kernel.run(place, move || UdpSocket::bind(any))??;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.connect(target)?;
    let mut answer = vec![0; MESSAGE_MAX];
    let mut last = Error::from(ErrorKind::TimedOut);
    for _ in 0..UDP_ATTEMPTS_MAX {
        socket.send(&vec![b'x'; size])?;
        match socket.recv(&mut answer) {
            Ok(length) => return Ok(words(&answer[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
