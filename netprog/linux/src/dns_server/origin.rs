//! The namespace from which forwarded queries are sent: the host's, or a task's sandbox, whose own
//! name servers may be on one of its networks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;

/// Stack of a thread that opens one socket.
const STACK_BYTES: usize = 64 * 1024;

/// Opens sockets in one namespace.
#[derive(Clone)]
pub(super) enum Origin {
    /// On the runtime's workers, which live in the host's namespace.
    Host,
    /// In this namespace.
    Sandbox(Arc<OwnedFd>),
}

impl Origin {
    /// A socket with a random port, connected to this address.
    pub(super) async fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let any = match to {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let bind = move || {
            let socket = std::net::UdpSocket::bind((any, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = UdpSocket::from_std(self.open(bind).await?)?;
        // Only datagrams of this resolver arrive, and an ICMP error is reported at once.
        socket.connect(to).await?;
        Ok(socket)
    }

    /// A connection to this address.
    pub(super) async fn tcp(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let make = if to.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
        self.open(make).await?.connect(to).await
    }

    /// A socket belongs to the namespace that it was opened in, wherever it is used.
    async fn open<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let namespace = match self {
            Self::Host => return make(),
            Self::Sandbox(namespace) => Arc::clone(namespace),
        };
        let (reply, made) = oneshot::channel();
        // Each thread enters a namespace once, and ends there.
        let work = move || {
            let entered = setns(&*namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let _given_up = reply.send(entered.and_then(|()| make()));
        };
        std::thread::Builder::new()
            .name("dns-socket".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)?;
        made.await.map_err(io::Error::other)?
    }
}
