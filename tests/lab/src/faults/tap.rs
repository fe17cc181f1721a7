//! A TAP: an Ethernet device of this network namespace whose other end is a file. It goes with
//! the file (Documentation/networking/tuntap.rst).

use std::fs::{File, OpenOptions};
use std::mem;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::libc;

const DEVICE: &str = "/dev/net/tun";

/// Makes a TAP of this name. Reading where there is no frame fails with `WouldBlock`.
///
/// # Errors
/// Without the device or the right to it, and when a device of the name exists.
pub fn open(name: &str) -> Result<File> {
    ensure!(!name.is_empty() && name.len() < libc::IFNAMSIZ, "{name:?} is no device's name");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(DEVICE).with_context(|| {
        format!("opening {DEVICE}, which delays need: this kernel may lack CONFIG_TUN")
    })?;
    // SAFETY: an all-zero ifreq is valid, the name is shorter than its field and keeps a zero
    // behind it, `ifru_flags` is the member that this request reads, and the kernel reads and
    // writes that struct only.
    let made = unsafe {
        let mut request = mem::zeroed::<libc::ifreq>();
        for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        Errno::result(libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request))
    };
    made.with_context(|| format!("making TAP {name}"))?;
    Ok(file)
}
