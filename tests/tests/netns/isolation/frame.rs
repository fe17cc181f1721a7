//! Frames as a program with a raw socket may write them, and how they are sent.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use cluster::net::MacAddr;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket};
use tests::bench::sandbox::in_namespace;

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IP_HEADER_BYTES: u16 = 20;
const UDP_HEADER_BYTES: u16 = 8;
const UDP: u8 = 17;
/// Any port: no answer is waited for.
const FROM_PORT: u16 = 4000;

/// A MAC address and the IP address that goes with it.
pub(crate) type End = (MacAddr, Ipv4Addr);

/// The end that has this address on a network of the cluster.
pub(crate) fn end(address: Ipv4Addr) -> End {
    (MacAddr::for_address(address.into()), address)
}

/// A datagram in a frame.
pub(crate) fn datagram(from: End, to: End, port: u16, words: &str) -> Vec<u8> {
    let udp_bytes = UDP_HEADER_BYTES + u16::try_from(words.len()).unwrap_or(u16::MAX);
    let mut ip = vec![0x45, 0];
    ip.extend((IP_HEADER_BYTES + udp_bytes).to_be_bytes());
    // No id and no fragments; time to live; the checksum is filled in below.
    ip.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    ip.extend(from.1.octets());
    ip.extend(to.1.octets());
    let checksum = checksum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut udp = Vec::new();
    // A checksum of 0: none (RFC 768).
    for field in [FROM_PORT, port, udp_bytes, 0] {
        udp.extend(field.to_be_bytes());
    }
    udp.extend(words.as_bytes());
    [&to.0.0[..], &from.0.0, &IPV4, &ip, &udp].concat()
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

/// An ARP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arp {
    Request,
    Reply,
}

/// An ARP message from `sender`, in a frame from the MAC address `from`.
pub(crate) fn arp(what: Arp, from: MacAddr, sender: End, to: End) -> Vec<u8> {
    let operation = match what {
        Arp::Request => [0, 1],
        Arp::Reply => [0, 2],
    };
    // Ethernet and IPv4, with addresses of 6 and 4 bytes (RFC 826).
    let head = [0, 1, 0x08, 0x00, 6, 4];
    [
        &to.0.0[..],
        &from.0,
        &ARP,
        &head,
        &operation,
        &sender.0.0,
        &sender.1.octets(),
        &to.0.0,
        &to.1.octets(),
    ]
    .concat()
}

/// The frame as VXLAN carries it in a datagram (RFC 7348 section 5).
pub(crate) fn in_vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    let vni = (vni << 8).to_be_bytes();
    [&[0x08, 0, 0, 0], &vni[..], frame].concat()
}

/// Sends a frame by a link of a namespace.
pub(crate) fn send(namespace: &Path, link: &str, frame: &[u8]) -> Result<()> {
    in_namespace(namespace, || {
        let mut links = getifaddrs()?.filter(|found| found.interface_name == link);
        let link = links
            .find_map(|found| found.address?.as_link_addr().copied())
            .with_context(|| format!("there is no link {link}"))?;
        let protocol = SockProtocol::EthAll;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, protocol)?;
        sendto(socket.as_raw_fd(), frame, &link, MsgFlags::empty()).context("sending a frame")?;
        Ok(())
    })
}
