//! Which backends a balancer hands new flows to, read from the kernel: the elements of the nft
//! map `slots` of a network's fabric, by one netlink dump of about 20 kB.
//!
//! A started `nft` would cost more than what is measured, and asking the daemon would measure what
//! it believes. The dump is not decoded: one of our MAC addresses is six bytes that begin with
//! 02:42, and nothing else in it looks like that.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use cluster::net::MacAddr;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::sandbox::in_namespace;
use lab::Node;
use lab::namespaces::daemon_pid;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM` (linux/netfilter/nf_tables.h).
const GET_ELEMENTS: u16 = (10 << 8) | 13;
/// `NLM_F_REQUEST | NLM_F_DUMP` (linux/netlink.h).
const DUMP: u16 = 0x1 | 0x300;
/// `NLM_F_DUMP_INTR`: the map changed while it was read.
const INTERRUPTED: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NFPROTO_BRIDGE`.
const BRIDGE: u8 = 7;
/// `NFTA_SET_ELEM_LIST_TABLE` and `NFTA_SET_ELEM_LIST_SET`.
const TABLE: u16 = 1;
const SET: u16 = 2;
const HEADER_BYTES: usize = 16;
/// The kernel fills datagrams of a dump to 32 KiB at most (`netlink_dump`).
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Datagrams of one dump: far more than a map of a few services needs.
const DATAGRAMS_MAX: usize = 1_024;

/// The namespace of a network on a node, as long as the node's daemon runs.
///
/// # Errors
/// When the daemon does not run.
pub fn fabric(node: &Node, network: &str) -> Result<PathBuf> {
    let pid = daemon_pid(node.folder()?)?;
    // The daemon was started in a mount namespace of its own, where its fabrics are mounted.
    let run_dir = node.run_dir();
    Ok(format!("/proc/{pid}/root{}/netns/fabric-{network}", run_dir.display()).into())
}

/// The slots of one network on one node.
#[derive(Debug)]
pub struct Slots {
    socket: OwnedFd,
}

impl Slots {
    /// Opens a socket in the network's fabric on a node; it stays bound to that namespace.
    ///
    /// # Errors
    /// When the node's daemon does not run or the network has no fabric there.
    pub fn open(node: &Node, network: &str) -> Result<Self> {
        let kind = (AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let open = || {
            let made = socket(kind.0, kind.1, kind.2, SockProtocol::NetlinkNetFilter);
            made.context("opening a netlink socket")
        };
        Ok(Self { socket: in_namespace(&fabric(node, network)?, open)? })
    }

    /// Whether any slot leads to this backend. A map that changes while it is read, or does not
    /// exist yet, is read again by the caller's next look.
    ///
    /// # Errors
    /// When the kernel does not answer as expected.
    pub fn hold(&self, backend: MacAddr) -> Result<bool> {
        loop {
            if let Some(found) = self.dump(backend)? {
                return Ok(found);
            }
        }
    }

    fn dump(&self, backend: MacAddr) -> Result<Option<bool>> {
        let to = NetlinkAddr::new(0, 0);
        let fd = self.socket.as_raw_fd();
        sendto(fd, &request(), &to, MsgFlags::empty()).context("asking for slots")?;
        let (mut found, mut interrupted) = (false, false);
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        for _ in 0..DATAGRAMS_MAX {
            let length = recv(fd, &mut buffer, MsgFlags::empty()).context("reading slots")?;
            let read = read_datagram(&buffer[..length], backend)?;
            found |= read.found;
            interrupted |= read.interrupted;
            if read.ended {
                return Ok((!interrupted).then_some(found));
            }
        }
        bail!("a dump of more than {DATAGRAMS_MAX} datagrams")
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    found: bool,
    interrupted: bool,
    ended: bool,
}

fn read_datagram(datagram: &[u8], backend: MacAddr) -> Result<Read> {
    let mut read = Read::default();
    let mut rest = datagram;
    while rest.len() >= HEADER_BYTES {
        let word = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let (kind, flags) = (word(4), word(6));
        let Some(body) = rest.get(HEADER_BYTES..length) else { bail!("a message cut short") };
        read.interrupted |= flags & INTERRUPTED != 0;
        match kind {
            NLMSG_DONE => read.ended = true,
            // The map does not exist (yet): nothing is in it.
            NLMSG_ERROR => read.ended = true,
            _elements => read.found |= body.windows(6).any(|bytes| bytes == backend.0),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(read)
}

/// Asks for all elements of map `slots` of table `bridge skein`.
fn request() -> Vec<u8> {
    let mut body = vec![BRIDGE, 0, 0, 0];
    for (kind, name) in [(TABLE, "skein\0"), (SET, "slots\0")] {
        let length = 4 + name.len();
        body.extend(u16::try_from(length).unwrap_or_default().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(name.as_bytes());
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(GET_ELEMENTS.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    // Sequence number and port: one dump at a time on a socket of its own needs neither.
    message.extend([0; 8]);
    message.extend(body);
    message
}

#[test]
fn elements_are_searched_and_the_end_is_seen() {
    let backend: MacAddr = "02:42:0a:00:01:0b".parse().expect("a MAC address");
    let message = |kind: u16, flags: u16, body: &[u8]| {
        let length = u32::try_from(HEADER_BYTES + body.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    };
    let held = message(0x0a0c, 2, &[9, 9, 0x02, 0x42, 0x0a, 0, 1, 0x0b]);
    let other = message(0x0a0c, 2 | INTERRUPTED, &[0x02, 0x42, 0x0a, 0, 1, 0x0c, 0, 0]);
    let done = message(NLMSG_DONE, 2, &[0, 0, 0, 0]);
    let read = |parts: &[&[u8]]| read_datagram(&parts.concat(), backend).expect("whole messages");
    assert_eq!(read(&[&held]), Read { found: true, ..Read::default() });
    let interrupted = Read { found: false, interrupted: true, ended: true };
    assert_eq!(read(&[&other, &done]), interrupted);
    assert!(read_datagram(&held[..20], backend).is_err());
}

#[test]
fn the_request_is_whole() {
    let request = request();
    assert_eq!(request.len(), 44);
    assert_eq!(u32::from_ne_bytes([request[0], request[1], request[2], request[3]]), 44);
}
