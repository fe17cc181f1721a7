//! Network namespaces by hand: make one without staying in it, keep a name for it in the file
//! system, and open the sandbox's DNS sockets inside it.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::sys;
use crate::tree::descriptor_path;

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// The address of the sandbox's name server.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Parameters that Docker sets in every container's namespace (moby `daemon/oci_linux.go`):
/// anyone may ping, and no port needs a privilege.
const SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ping_group_range", "0 2147483647"), ("net.ipv4.ip_unprivileged_port_start", "0")];

/// A sandbox: its namespace and the sockets at which it asks for names.
pub(crate) struct Sandbox {
    pub(crate) namespace: OwnedFd,
    pub(crate) dns_udp: UdpSocket,
    pub(crate) dns_tcp: TcpListener,
    pub(crate) dns_port: u16,
}

/// Makes a namespace with its loopback device up, runs `inside` in it and comes back.
///
/// The process must have one thread. If it cannot come back it is of no further use, which is the
/// one case in which the outer error says so.
pub(crate) fn create<T>(inside: impl FnOnce() -> io::Result<T>) -> io::Result<(OwnedFd, T)> {
    let home = File::open(OWN)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let made = fill(inside);
    setns(home.as_fd(), CloneFlags::CLONE_NEWNET)?;
    made
}

fn fill<T>(inside: impl FnOnce() -> io::Result<T>) -> io::Result<(OwnedFd, T)> {
    let namespace = File::open(OWN)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    sys::raise_loopback(socket.as_fd())?;
    Ok((namespace.into(), inside()?))
}

/// Makes a sandbox with Docker's parameters.
pub(crate) fn create_sandbox() -> io::Result<Sandbox> {
    let (namespace, (dns_udp, dns_tcp, dns_port)) = create(|| {
        for (name, value) in SYSCTLS {
            // A node whose /proc/sys is read-only can still run tasks.
            let _ = write_sysctl(name, value);
        }
        let udp = UdpSocket::bind((NAME_SERVER, 0))?;
        let port = udp.local_addr()?.port();
        let tcp = TcpListener::bind((NAME_SERVER, port))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp, port))
    })?;
    Ok(Sandbox { namespace, dns_udp, dns_tcp, dns_port })
}

/// Sets a kernel parameter, by its dotted name, of the namespaces that this process is in.
pub(crate) fn write_sysctl(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(name.replace('.', "/")), value)
}

/// Gives the namespace a name at `path`, for people and for `ip netns`-like tools.
pub(crate) fn publish(namespace: &OwnedFd, path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    withdraw(path)?;
    File::create_new(path)?;
    let source = descriptor_path(namespace.as_fd());
    mount(Some(&source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Removes a name made by [`publish`], by this process or by a dead one.
pub(crate) fn withdraw(path: &Path) -> io::Result<()> {
    if is_namespace(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether a namespace is mounted at `path`, as seen from this process' mount namespace.
pub(crate) fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|statistics| statistics.filesystem_type() == NSFS_MAGIC)
}
