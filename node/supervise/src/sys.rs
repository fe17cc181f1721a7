//! The system calls that need `unsafe`: nix either marks them so or does not have them.
//! Everything here is a thin call without policy.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use cluster::exec::WindowSize;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid};
use time::UtcOffset;

use crate::clock;

/// The highest capability number that any kernel can have (the width of the mask).
const CAPABILITY_LIMIT: u32 = 63;
/// `_LINUX_CAPABILITY_VERSION_3`, linux/capability.h.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// The highest signal number on Linux.
const SIGNAL_LIMIT: i32 = 64;

/// `MOUNT_ATTR_RDONLY`, linux/mount.h.
pub(crate) const ATTRIBUTE_READ_ONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`, linux/mount.h.
pub(crate) const ATTRIBUTE_NO_SUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`, linux/mount.h.
pub(crate) const ATTRIBUTE_NO_DEVICES: u64 = 0x4;

/// Which side of a [`fork`] this is.
pub(crate) enum Forked {
    /// The caller, with the child's pid.
    Parent(Pid),
    /// The child; it must end in an exec or in [`exit_now`].
    Child,
}

/// Forks. The process must have one thread, as `skein supervise`, `skein hold` and
/// `skein exec-task` have before any runtime starts.
pub(crate) fn fork() -> nix::Result<Forked> {
    // SAFETY: the process is single-threaded, so no lock can be held by a thread that the child
    // lacks, and the child may allocate.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Ends a forked child without running destructors or exit handlers that belong to its parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 on. Owners of such descriptors must never be used or dropped
/// afterwards, so the caller must be a forked child that ends in [`exit_now`].
pub(crate) fn close_all_but_stdio() {
    // SAFETY: the caller never returns to code that owns one of these descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// A descriptor of the process that stays valid, as a name for it, when the pid is used again.
pub(crate) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of this process.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel has just returned this descriptor to us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes ownership of descriptors that `recvmsg` has put into this process.
pub(crate) fn adopt_descriptors(received: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: descriptors in a control message were installed for the receiver alone.
    received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// Sends a signal by number, real-time signals included. A negative pid is a process group.
pub(crate) fn kill(pid: i32, signal: i32) -> nix::Result<()> {
    // SAFETY: kill takes two integers and touches no memory of this process.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// How far the machine's local time was from UTC at a moment, in seconds since 1970; none where its
/// time zone cannot be read. The process must have one thread.
pub(crate) fn utc_offset(moment: i64) -> UtcOffset {
    // SAFETY: zeroes are a valid `tm`, whose only pointer is not looked at.
    let mut local: libc::tm = unsafe { mem::zeroed() };
    // SAFETY: both pointers are to values of our own. No other thread sets the time zone.
    let told = unsafe { libc::localtime_r(&raw const moment, &raw mut local) };
    let seconds = if told.is_null() { 0 } else { local.tm_gmtoff };
    let offset = i32::try_from(seconds).ok().and_then(|s| UtcOffset::from_whole_seconds(s).ok());
    offset.unwrap_or(UtcOffset::UTC)
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It called exit with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Code(code) => write!(f, "ended with status {code}"),
            Ended::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// Makes a call again that a signal has interrupted, unless it has taken as long as it may. The
/// kernel restarts neither poll(2) nor calls on a socket with a time limit (signal(7)), and a
/// daemon's runtime handles SIGCHLD. `limit` is also the call's own, so that it all takes twice
/// that at most.
pub(crate) fn uninterrupted<T>(
    limit: Duration,
    mut call: impl FnMut() -> nix::Result<T>,
) -> nix::Result<T> {
    let end = clock::monotonic() + limit;
    loop {
        match call() {
            Err(Errno::EINTR) if clock::monotonic() < end => {}
            done => return done,
        }
    }
}

/// One child that has ended, without waiting; `None` when none has. nix's version fails when the
/// signal that ended the child is a real-time one.
pub(crate) fn reap(pid: i32) -> Option<(i32, Ended)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call and is the only memory that it writes.
        let ended = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if ended == -1 && Errno::last() == Errno::EINTR {
            continue;
        }
        if ended <= 0 {
            return None;
        }
        if libc::WIFEXITED(status) {
            return Some((ended, Ended::Code(libc::WEXITSTATUS(status))));
        }
        return Some((ended, Ended::Signal(libc::WTERMSIG(status))));
    }
}

/// Gives every signal its default action and unblocks all: a Rust program ignores SIGPIPE and a
/// supervisor blocks what it reads by signalfd, and an exec would keep both.
pub(crate) fn reset_signals() {
    for signal in 1..=SIGNAL_LIMIT {
        // SAFETY: SIG_DFL installs no handler; SIGKILL and SIGSTOP are refused, harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: both pointers are to a set that lives here and that sigemptyset has filled.
    unsafe {
        let mut none = mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks every signal, so that [`next_signal`] receives them.
pub(crate) fn block_all_signals() {
    // SAFETY: both pointers are to a set that lives here and that sigfillset has filled.
    unsafe {
        let mut all = mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// Waits for any signal and takes it. All must be blocked. nix's version cannot express
/// real-time signals.
pub(crate) fn next_signal() -> i32 {
    let mut signal = 0;
    // SAFETY: the set is filled before it is read, and both live across the call.
    unsafe {
        let mut all = mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigwait(&raw const all, &raw mut signal);
    }
    signal
}

/// Changes attributes of the mount at `path`, and of all below it when `recursive`.
pub(crate) fn set_mount_attributes(path: &Path, set: u64, recursive: bool) -> nix::Result<()> {
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_nul| Errno::EINVAL)?;
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is a C string and attributes a struct of the size given; both outlive the call,
    // which only reads them.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            mem::size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// A copy of the mount at `path`, and of what is mounted below it when `recursive`, that is nowhere
/// yet; later mounts in the original show in it, and the other way round, where these are shared.
pub(crate) fn copy_tree(path: &Path, recursive: bool) -> nix::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_nul| Errno::EINVAL)?;
    let depth = if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | depth;
    // SAFETY: path is a C string that outlives the call, which only reads it.
    let tree = Errno::result(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
    })?;
    // SAFETY: the kernel has just returned this descriptor to us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(tree as RawFd) })
}

/// Mounts a tree made by [`copy_tree`] on what `target` has open.
pub(crate) fn attach_tree(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both descriptors are open, both paths are empty C strings.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Sets the loopback device of the current network namespace up.
pub(crate) fn raise_loopback(socket: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: an all-zero ifreq is valid, the name is shorter than its field, and the kernel reads
    // and writes that struct only; `ifru_flags` is the member that these requests use.
    unsafe {
        let mut request = mem::zeroed::<libc::ifreq>();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        Errno::result(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        Errno::result(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request))?;
    }
    Ok(())
}

/// Opens the other end of a terminal whose end of the multiplexer this is, not by its name: what is
/// mounted at that place need not be a terminal.
pub(crate) fn terminal_peer(own: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one integer, which outlives the call.
    Errno::result(unsafe { libc::ioctl(own.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes an integer and touches no memory of this process.
    let peer = Errno::result(unsafe { libc::ioctl(own.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just returned this descriptor to us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(peer) })
}

/// Makes a terminal that of the session that this process leads.
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer and touches no memory of this process.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// The size of a terminal, in characters.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> nix::Result<WindowSize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize`, which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the size of a terminal, in characters.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: WindowSize) -> nix::Result<()> {
    let WindowSize { rows: ws_row, columns: ws_col } = size;
    let size = libc::winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `winsize`, which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
}

/// Removes from the bounding set all but `keep`, a mask by capability number.
pub(crate) fn limit_bounding_set(keep: u64) -> nix::Result<()> {
    for capability in (0..=CAPABILITY_LIMIT).filter(|number| keep & (1 << number) == 0) {
        // SAFETY: these prctls take integers only.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if known == 1 {
            // SAFETY: as above.
            Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
        }
    }
    Ok(())
}

/// `struct __user_cap_header_struct`, linux/capability.h; the process is the caller.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

const OWN_CAPABILITIES: CapabilityHeader = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };

/// `struct __user_cap_data_struct`: one half of the numbers.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capabilities that this process can have and hand on, by number.
pub(crate) fn permitted_capabilities() -> nix::Result<u64> {
    let mut header = OWN_CAPABILITIES;
    let mut data = [CapabilityHalf::default(); 2];
    // SAFETY: header and data have the layout of version 3, two halves, and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// Sets effective and permitted capabilities to `mask`, clears inheritable and ambient.
pub(crate) fn set_capabilities(mask: u64) -> nix::Result<()> {
    let half = |bits: u64| {
        let bits = (bits & 0xffff_ffff) as u32;
        CapabilityHalf { effective: bits, permitted: bits, inheritable: 0 }
    };
    let header = OWN_CAPABILITIES;
    let data = [half(mask), half(mask >> 32)];
    // SAFETY: header and data have the layout of version 3, two halves, and are only read; the
    // prctl takes integers only.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()))?;
        Errno::result(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
    }
    Ok(())
}

/// The error of the last call as the standard library prints it, without the number.
pub(crate) fn words(error: Errno) -> String {
    let text = io::Error::from(error).to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
