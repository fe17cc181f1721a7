//! Asks a TCP port whether the way to it is open, without a connection: a SYN, whose answer the
//! kernel resets, since no socket waits for it. The program that listens notices nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, recv,
    send, socket,
};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::namespace::Namespace;

/// SYNs to a port that does not answer, each after [`WAIT_MS`].
const ATTEMPTS_MAX: u32 = 4;
const WAIT_MS: u64 = 250;
/// Calls begin at ports that no program gets by itself: from 512 to 1023.
const PORTS: u16 = 512;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const SYN_ACK: u8 = 0x12;
const TCP_HEADER_BYTES: usize = 20;
const IPPROTO_TCP: u8 = 6;

/// What came back for a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The port is open.
    Open,
    /// A reset: of a host where nothing listens, or of a firewall on the way.
    Closed,
}

/// How these ports answer to calls from a namespace that has the address `source`; none
/// where nothing came. `number` tells one round from others. Blocks, a second for each port without
/// an answer.
///
/// # Errors
/// When the namespace cannot be entered, or has no such address.
pub fn answers(
    namespace: OwnedFd,
    source: Ipv4Addr,
    ports: Vec<SocketAddrV4>,
    number: u32,
) -> io::Result<Vec<Option<Answer>>> {
    Namespace::enter("probe", namespace)?.run(move || {
        let each = (number..).zip(ports);
        each.map(|(number, port)| ask(source, port, number)).collect()
    })?
}

fn ask(source: Ipv4Addr, to: SocketAddrV4, number: u32) -> io::Result<Option<Answer>> {
    let socket =
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    let fd = socket.as_raw_fd();
    bind(fd, &SockaddrIn::from(SocketAddrV4::new(source, 0)))?;
    connect(fd, &SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0)))?;
    let from = SocketAddrV4::new(source, PORTS + (number % u32::from(PORTS)) as u16);
    let syn = segment(from, to, number);
    let mut answer = [0; 256];
    for _attempt in 0..ATTEMPTS_MAX {
        // A host that refuses to send it does not let it through either.
        if send(fd, &syn, MsgFlags::empty()).is_err() {
            continue;
        }
        let limit = Expiration::OneShot(TimeSpec::from(Duration::from_millis(WAIT_MS)));
        timer.set(limit, TimerSetTimeFlags::empty())?;
        while arrives(&socket, &timer)? {
            // An error of ICMP is not an answer of the port.
            let Ok(length) = recv(fd, &mut answer, MsgFlags::MSG_DONTWAIT) else { break };
            let found = read(&answer[..length], from.port(), to.port(), number);
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

/// Waits for a packet; false once the timer has run out. One limit for all packets: others of the
/// same host do not prolong it.
fn arrives(socket: &OwnedFd, timer: &TimerFd) -> io::Result<bool> {
    let mut both = [
        PollFd::new(timer.as_fd(), PollFlags::POLLIN),
        PollFd::new(socket.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut both, PollTimeout::NONE) {
        // A signal: the next packet or the timer ends the wait.
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let [timer, _] = both;
    Ok(!timer.any().unwrap_or(true))
}

/// A SYN (RFC 9293, section 3.1).
fn segment(from: SocketAddrV4, to: SocketAddrV4, sequence: u32) -> [u8; TCP_HEADER_BYTES] {
    let mut header = [0; TCP_HEADER_BYTES];
    header[0..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[12] = (TCP_HEADER_BYTES as u8 / 4) << 4;
    header[13] = SYN;
    header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let pseudo = [
        from.ip().octets().as_slice(),
        &to.ip().octets(),
        &[0, IPPROTO_TCP, 0, TCP_HEADER_BYTES as u8],
    ]
    .concat();
    let words = pseudo.chunks(2).chain(header.chunks(2));
    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[16..18].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    header
}

/// The answer to the SYN that an IPv4 packet is, if it is one.
pub(crate) fn read(packet: &[u8], own: u16, port: u16, sequence: u32) -> Option<Answer> {
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let segment = packet.get(header..header + TCP_HEADER_BYTES)?;
    let two = |at: usize| u16::from(segment[at]) << 8 | u16::from(segment[at + 1]);
    let acknowledged = u32::from(two(8)) << 16 | u32::from(two(10));
    let is_ours = (two(0), two(2)) == (port, own) && acknowledged == sequence.wrapping_add(1);
    match segment[13] {
        flags if is_ours && flags & RST != 0 => Some(Answer::Closed),
        flags if is_ours && flags & SYN_ACK == SYN_ACK => Some(Answer::Open),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::spaces::own_namespace;

    /// Goal: a port that listens and one that is closed answer, and the listener hears of no call.
    #[test]
    fn a_port_answers_without_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let open = listener.local_addr().expect("it has an address").port();
        let gone = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let closed = gone.local_addr().expect("it has an address").port();
        drop(gone);
        let here = Ipv4Addr::LOCALHOST;
        let ends = [open, closed].map(|port| SocketAddrV4::new(here, port)).to_vec();
        let namespace = own_namespace().expect("there is one");
        let told = answers(namespace, here, ends, 7).expect("root may ask");
        assert_eq!(told, [Some(Answer::Open), Some(Answer::Closed)]);
        listener.set_nonblocking(true).expect("it is a socket");
        assert!(listener.accept().is_err(), "a connection was made");
    }

    #[test]
    fn a_packet_of_another_call_is_no_answer() {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
        let mut packet = [0; 40];
        packet[0] = 0x45;
        packet[20..].copy_from_slice(&segment(to, SocketAddrV4::new(*to.ip(), 600), 0));
        packet[28..32].copy_from_slice(&8_u32.to_be_bytes());
        assert_eq!(read(&packet, 600, 80, 7), None, "a SYN");
        packet[33] = SYN_ACK;
        assert_eq!(read(&packet, 600, 80, 7), Some(Answer::Open));
        for other in [read(&packet, 600, 80, 8), read(&packet, 601, 80, 7)] {
            assert_eq!(other, None);
        }
        for short in [read(&packet[..30], 600, 80, 7), read(&[], 600, 80, 7)] {
            assert_eq!(short, None);
        }
        packet[33] = RST;
        assert_eq!(read(&packet, 600, 80, 7), Some(Answer::Closed));
    }
}
