//! Which programs of a network namespace listen: TCP sockets in the state LISTEN and UDP sockets
//! that are bound and not connected (sock_diag(7), include/uapi/linux/inet_diag.h).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cluster::spec::Protocol;
use netprog::ports::Listener;
use nix::errno::Errno;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;

use crate::netlink::raw::{Attributes, Expect, Request, exchange, ne32, nested};
use crate::netlink::{self, Refusal};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `AF_INET` and `AF_INET6`.
const INET: u8 = 2;
const INET6: u8 = 10;
/// `IPPROTO_TCP`, and of its states `TCP_LISTEN`.
const TCP: (u8, u32) = (6, 1 << 10);
/// `IPPROTO_UDP`, and the state of a socket that is not connected, `TCP_CLOSE`.
const UDP: (u8, u32) = (17, 1 << 7);
/// `struct inet_diag_sockid`.
const SOCKET_ID_BYTES: usize = 48;
/// `struct inet_diag_msg`; attributes follow.
const MESSAGE_BYTES: usize = 72;
/// `INET_DIAG_SKV6ONLY`.
const V6_ONLY: u16 = 11;

/// The listeners of the calling thread's namespace. Blocks.
///
/// # Errors
/// When the kernel does not tell.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let read = || {
        let socket = netlink::open(NETLINK_SOCK_DIAG)?;
        let mut found = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for family in [INET, INET6] {
                let messages = dump(&socket, protocol, family)?;
                found.extend(messages.iter().filter_map(|message| listener(message, protocol)));
            }
        }
        Ok::<_, Refusal>(found)
    };
    read().map_err(|refusal| io::Error::other(refusal.text))
}

/// A kernel without sockets of a family, or without this way to read them, reports none.
fn dump(socket: &Socket, protocol: Protocol, family: u8) -> Result<Vec<Vec<u8>>, Refusal> {
    let (number, states) = match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => return Ok(Vec::new()),
    };
    // `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, socket.
    let mut header = vec![family, number, 0, 0];
    header.extend(states.to_ne_bytes());
    header.extend([0; SOCKET_ID_BYTES]);
    let attributes = Attributes::default();
    let request = Request { kind: BY_FAMILY, header: &header, attributes: &attributes };
    match exchange(socket, &request, Expect::Dump) {
        Err(refusal) if refusal.is(Errno::ENOENT) => Ok(Vec::new()),
        other => other,
    }
}

/// A socket that is bound, from a message without its netlink header.
pub(crate) fn listener(message: &[u8], protocol: Protocol) -> Option<Listener> {
    let fixed = message.get(..MESSAGE_BYTES)?;
    let port = u16::from(fixed[4]) << 8 | u16::from(fixed[5]);
    let source: [u8; 16] = fixed[8..24].try_into().ok()?;
    let address = match fixed[0] {
        INET => IpAddr::V4(Ipv4Addr::new(source[0], source[1], source[2], source[3])),
        INET6 => IpAddr::V6(Ipv6Addr::from(source)),
        _ => return None,
    };
    let inode = ne32(&fixed[68..72])?;
    let v6_only = nested(&message[MESSAGE_BYTES..])
        .any(|(kind, value)| kind == V6_ONLY && value.first().is_some_and(|only| *only != 0));
    (port != 0).then_some(Listener { protocol, address, port, v6_only, inode })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// Each takes a tenth of a millisecond or longer.
    const LOOKS_MAX: usize = 20_000;

    fn of(protocol: Protocol, port: u16) -> Vec<IpAddr> {
        let listeners = listeners().expect("the kernel tells");
        let own = listeners.into_iter().filter(|l| (l.protocol, l.port) == (protocol, port));
        own.map(|listener| listener.address).collect()
    }

    /// Goal: what listens is told, and nothing that is connected. Method: sockets of this process.
    #[test]
    fn listeners_are_told_and_connected_sockets_are_not() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let at = tcp.local_addr().expect("it has an address");
        let client = TcpStream::connect(at).expect("it listens");
        assert_eq!(of(Protocol::Tcp, at.port()), [at.ip()]);
        let local = client.local_addr().expect("it has an address");
        assert!(of(Protocol::Tcp, local.port()).is_empty());

        let udp = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        let port = udp.local_addr().expect("it has an address").port();
        assert_eq!(of(Protocol::Udp, port), [IpAddr::from([0, 0, 0, 0])]);
        udp.connect(("127.0.0.1", 9)).expect("no packet is sent");
        assert!(of(Protocol::Udp, port).is_empty());
        drop(tcp);
        // A program that another test starts has a copy of the socket until it executes.
        let is_gone = (0..LOOKS_MAX).any(|_| of(Protocol::Tcp, at.port()).is_empty());
        assert!(is_gone);
    }

    #[test]
    fn a_dual_stack_listener_is_told_from_one_of_ipv6_alone() {
        let dual = TcpListener::bind("[::]:0").expect("the kernel has IPv6");
        let at = dual.local_addr().expect("it has an address");
        let found = listeners().expect("the kernel tells");
        let own = found.iter().find(|listener| listener.port == at.port()).expect("it listens");
        assert!(!own.v6_only && own.takes_ipv4() && own.inode != 0, "{own:?}");
    }

    #[test]
    fn a_short_message_is_none() {
        assert_eq!(listener(&[2; MESSAGE_BYTES - 1], Protocol::Tcp), None);
        assert_eq!(listener(&[7; MESSAGE_BYTES], Protocol::Tcp), None);
    }
}
