//! Gossip's socket. The kernel notes when each datagram arrived (`SO_TIMESTAMPNS`, socket(7)), so
//! that a daemon that gets no time still knows how late it is.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, UNIX_EPOCH};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::clock;

/// A socket, and when it was last seen empty.
pub(super) struct Inlet {
    socket: UdpSocket,
    buffer: Vec<u8>,
    empty_at: Duration,
}

impl Inlet {
    /// `bytes_max` is the longest datagram that is read whole.
    pub(super) fn new(socket: UdpSocket, bytes_max: usize) -> Self {
        if let Err(error) = setsockopt(&socket, sockopt::ReceiveTimestampns, &true) {
            tracing::warn!(%error, "the kernel does not say when gossip's datagrams arrive");
        }
        Self { socket, buffer: vec![0; bytes_max], empty_at: clock::monotonic() }
    }

    /// The next datagram that lies there, and when it arrived by the monotonic clock.
    pub(super) fn try_read(&mut self) -> Option<(&[u8], Duration)> {
        let Self { socket, buffer, empty_at } = self;
        let mut asked = false;
        let read = socket.try_io(Interest::READABLE, || {
            asked = true;
            receive(socket, buffer)
        });
        let now = clock::monotonic();
        match read {
            Ok((length, stamp)) => {
                let age = stamp.and_then(|at| clock::wall().duration_since(UNIX_EPOCH + at).ok());
                let arrived = now.saturating_sub(age.unwrap_or(Duration::ZERO));
                // The wall clock may have been set meanwhile.
                Some((&buffer[..length], arrived.max(*empty_at)))
            }
            // An ICMP error of an earlier send shows here, too: the engine finds out by itself.
            Err(_empty) => {
                // The runtime does not ask the kernel before it has heard of a datagram.
                if asked {
                    *empty_at = now;
                }
                None
            }
        }
    }

    /// Waits until there may be something to read.
    pub(super) async fn readable(&self) {
        // What is wrong shows when it is read.
        let _ = self.socket.readable().await;
    }

    pub(super) async fn send(&self, to: SocketAddr, bytes: &[u8]) {
        if let Err(error) = self.socket.send_to(bytes, to).await {
            tracing::trace!(%to, %error, "gossip datagram");
        }
    }
}

/// Reads a datagram; gives its length, and when the kernel got it by the wall clock.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(TimeSpec);
    let fd = socket.as_raw_fd();
    let message = recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _other => None,
    });
    Ok((message.bytes, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clocks are read one after the other.
    const SLACK: Duration = Duration::from_millis(100);
    const TRIES_MAX: usize = 20;

    /// Goal: what waits in the socket counts. Method: a datagram that is read late, once the kernel
    /// stamps: it begins to a moment after it was asked, by work that it defers
    /// (`net_enable_timestamp`, net/core/dev.c), and stamps at the reading until then.
    #[tokio::test]
    async fn a_datagram_arrived_when_the_kernel_got_it() {
        let here = (std::net::Ipv4Addr::LOCALHOST, 0);
        let sender = UdpSocket::bind(here).await.unwrap();
        let mut inlet = Inlet::new(UdpSocket::bind(here).await.unwrap(), 16);
        let to = inlet.socket.local_addr().unwrap();
        for _ in 0..TRIES_MAX {
            let sent_from = clock::monotonic();
            sender.send_to(b"early", to).await.unwrap();
            let sent_until = clock::monotonic();
            inlet.readable().await;
            tokio::time::sleep(3 * SLACK).await;
            let (bytes, arrived) = inlet.try_read().unwrap();
            assert_eq!(bytes, b"early");
            assert!(arrived + SLACK >= sent_from, "{arrived:?} is before {sent_from:?}");
            assert!(inlet.try_read().is_none());
            if arrived <= sent_until + SLACK {
                return;
            }
        }
        panic!("none of {TRIES_MAX} datagrams was stamped when it arrived");
    }
}
