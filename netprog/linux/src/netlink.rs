//! Sends requests to the kernel and reads its replies; errors contain the kernel's message.

pub(crate) mod raw;

use std::io;
use std::num::NonZeroI32;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use rtnetlink::sys::{Socket, SocketAddr};

/// Attempts at a dump that keeps changing while it is read.
const DUMP_ATTEMPTS_MAX: u32 = 8;
/// `NLM_F_DUMP_INTR`: the dump is inconsistent.
pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
/// `struct nlmsghdr`; a capped acknowledgement repeats that of the request.
pub(crate) const NETLINK_HEADER_BYTES: usize = 16;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// The error with which the kernel refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refusal {
    /// Positive errno; 0 where the failure was not the kernel's.
    pub(crate) errno: i32,
    /// Words.
    pub(crate) text: String,
}

impl Refusal {
    /// From an errno and, where the kernel gave one, its message.
    pub(crate) fn new(errno: i32, message: Option<String>) -> Self {
        let name = nix::errno::Errno::from_raw(errno).desc().to_lowercase();
        let text = message.map_or_else(|| name.clone(), |words| format!("{words} ({name})"));
        Self { errno, text }
    }

    /// A failure that did not come from the kernel.
    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self { errno: 0, text: text.into() }
    }

    pub(crate) fn is(&self, errno: nix::errno::Errno) -> bool {
        self.errno == errno as i32
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::new(errno, None),
            None => Self::other(error.to_string()),
        }
    }
}

impl From<nix::errno::Errno> for Refusal {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::new(errno as i32, None)
    }
}

/// A blocking netlink socket; the kernel has answered by the time a send returns.
pub(crate) fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// The first of `count` sequence numbers that no other request of this process uses, so that a
/// late reply to an abandoned request is not mistaken for another.
pub(crate) fn next_sequence(count: u32) -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(count, Ordering::Relaxed)
}

/// One request and its acknowledgement.
pub(crate) async fn request(
    handle: &Handle,
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<(), Refusal> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut answers = handle
        .clone()
        .request(message)
        .map_err(|error| Refusal::other(format!("netlink socket: {error}")))?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload {
            refused(&error)?;
        }
    }
    Ok(())
}

/// Dumps all objects of a kind.
pub(crate) async fn dump(
    handle: &Handle,
    message: RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
    for _attempt in 0..DUMP_ATTEMPTS_MAX {
        if let Some(whole) = dump_once(handle, message.clone()).await? {
            return Ok(whole);
        }
    }
    Err(Refusal::other(format!("the list changed {DUMP_ATTEMPTS_MAX} times while it was read")))
}

async fn dump_once(
    handle: &Handle,
    message: RouteNetlinkMessage,
) -> Result<Option<Vec<RouteNetlinkMessage>>, Refusal> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut answers = handle
        .clone()
        .request(message)
        .map_err(|error| Refusal::other(format!("netlink socket: {error}")))?;
    let mut found = Vec::new();
    let mut interrupted = false;
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & DUMP_INTERRUPTED != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(inner) => found.push(inner),
            NetlinkPayload::Error(error) => refused(&error)?,
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(Refusal::new(done.code.saturating_neg(), None));
            }
            // A good end, Noop and Overrun carry nothing for us.
            _ => {}
        }
    }
    Ok((!interrupted).then_some(found))
}

/// Ok for an acknowledgement.
pub(crate) fn refused(error: &ErrorMessage) -> Result<(), Refusal> {
    match error.code.map(NonZeroI32::get) {
        None => Ok(()),
        Some(code) => Err(Refusal::new(code.saturating_neg(), words(&error.header))),
    }
}

/// The kernel's message in an extended acknowledgement.
fn words(payload: &[u8]) -> Option<String> {
    let attributes = payload.get(NETLINK_HEADER_BYTES..)?;
    NlasIterator::new(attributes).filter_map(Result::ok).find(|nla| nla.kind() == ERROR_TEXT).map(
        |nla| {
            let text = nla.value();
            String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no number that stands for an error is too much. Method: the one without a positive
    /// counterpart.
    #[test]
    fn the_lowest_error_number_is_a_refusal() {
        let mut lowest = ErrorMessage::default();
        lowest.code = NonZeroI32::new(i32::MIN);
        assert!(refused(&lowest).is_err());
    }
}
