//! The ports of a namespace on which something listens.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use cluster::spec::Protocol;
use netprog::ports::Listener;
use nix::sched::{CloneFlags, setns};

use crate::sock_diag::listeners;

/// Ports with a listener at an address that outside callers can reach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listeners {
    ports: BTreeSet<(Protocol, u16)>,
    /// Whether a server's are among them.
    serves: bool,
}

impl Listeners {
    /// Reads the listeners of a namespace. Blocks while the kernel answers.
    pub fn read(namespace: OwnedFd) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name("listeners".to_owned()).spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Self::of_this_namespace()
        })?;
        thread.join().map_err(|_panic| io::Error::other("the thread that looks has died"))?
    }

    /// Whether all of these ports have a listener; without ports, whether any port has one.
    #[must_use]
    pub fn cover(&self, ports: &BTreeSet<(Protocol, u16)>) -> bool {
        if ports.is_empty() { self.serves } else { ports.is_subset(&self.ports) }
    }

    fn of_this_namespace() -> io::Result<Self> {
        let reachable = |address: IpAddr| !address.to_canonical().is_loopback();
        let mut called = listeners()?;
        called.retain(|listener| reachable(listener.address));
        Ok(Self {
            serves: called.iter().any(Listener::is_a_servers),
            ports: called.iter().map(|listener| (listener.protocol, listener.port)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::spaces::new_namespace;

    /// Runs a job in a namespace; what it opens stays bound to it.
    fn inside<T: Send + 'static>(
        namespace: &OwnedFd,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let namespace = namespace.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.unwrap().success());
            job()
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_listens_is_told_from_what_calls() {
        let namespace = new_namespace().unwrap();
        let read = || Listeners::read(namespace.try_clone().unwrap()).unwrap();
        let ports = |ports: &[(Protocol, u16)]| ports.iter().copied().collect::<BTreeSet<_>>();
        assert!(!read().cover(&ports(&[])));
        // Nobody outside reaches these, and the last one calls.
        let _deaf = inside(&namespace, || {
            let dns = (UdpSocket::bind("127.0.0.11:53"), TcpListener::bind("127.0.0.11:53"));
            let connected = UdpSocket::bind("0.0.0.0:0").unwrap();
            connected.connect("127.0.0.11:53").unwrap();
            (dns.0.unwrap(), dns.1.unwrap(), connected, UdpSocket::bind("0.0.0.0:40000").unwrap())
        });
        assert!(!read().cover(&ports(&[])), "{:?}", read());
        let _server = inside(&namespace, || TcpListener::bind("[::]:80").unwrap());
        assert!(read().cover(&ports(&[])));
        assert!(read().cover(&ports(&[(Protocol::Tcp, 80)])));
        let both = ports(&[(Protocol::Tcp, 80), (Protocol::Udp, 514)]);
        assert!(!read().cover(&both));
        let _second = inside(&namespace, || UdpSocket::bind("0.0.0.0:514").unwrap());
        assert!(read().cover(&both));
    }
}
