//! A task's /dev, and the kernel's files that it must not see or write: both as Docker has them
//! (moby `oci/defaults.go`).

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::symlinkat;

use super::stage::{PLAIN, Stage};
use crate::failure::Failure;
use crate::sys;
use crate::tree::descriptor_path;

/// Device nodes, bound from the node's own /dev one by one: the tmpfs around them takes no device
/// nodes, so that CAP_MKNOD opens no disk.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];
const HIDDEN: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Mounts /dev with its nodes, links, pts, shm and mqueue.
pub(super) fn mount_devices(stage: &Stage<'_>) -> Result<(), Failure> {
    let failed = |error| Failure::setup("make /dev", error);
    let flags = PLAIN | MsFlags::MS_STRICTATIME;
    stage.mount_at("/dev", ("tmpfs", flags, Some("mode=755,size=64k")))?;
    let dev = stage.find("/dev").map_err(failed)?;
    for name in NODES {
        let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
        nix::fcntl::openat(&dev, name, create, Mode::from_bits_truncate(0o666)).map_err(failed)?;
        stage.bind(
            &Path::new("/dev").join(name),
            &format!("/dev/{name}"),
            sys::ATTRIBUTE_NO_SUID,
        )?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &dev, name).map_err(failed)?;
    }
    let mode = Mode::from_bits_truncate(0o755);
    for name in ["pts", "shm", "mqueue"] {
        nix::sys::stat::mkdirat(&dev, name, mode).map_err(failed)?;
    }
    let silent = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // Group 5 is tty everywhere (Docker relies on the same).
    let pts = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    stage.mount_at("/dev/pts", ("devpts", silent, Some(pts)))?;
    let quiet = PLAIN | MsFlags::MS_NOEXEC;
    stage.mount_at("/dev/shm", ("tmpfs", quiet, Some("mode=1777,size=64m")))?;
    match stage.mount_at("/dev/mqueue", ("mqueue", quiet, None)) {
        // A kernel without POSIX message queues.
        Err(failure) if failure.errno() == Some(Errno::ENODEV) => Ok(()),
        mounted => mounted,
    }
}

/// Covers or protects the files of the kernel that concern the whole node.
pub(super) fn mask_kernel_files(stage: &Stage<'_>) -> Result<(), Failure> {
    for path in HIDDEN {
        // What this kernel does not have needs no mask.
        let Ok(target) = stage.find(path) else { continue };
        let is_directory = File::from(target).metadata().is_ok_and(|data| data.is_dir());
        if is_directory {
            stage.mount_at(path, ("tmpfs", PLAIN | MsFlags::MS_RDONLY, Some("size=4k")))?;
        } else {
            stage.bind(Path::new("/dev/null"), path, sys::ATTRIBUTE_READ_ONLY)?;
        }
    }
    for path in READ_ONLY {
        let Ok(target) = stage.find(path) else { continue };
        let source = descriptor_path(target.as_fd());
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&source), &source, None::<&str>, bind, None::<&str>)
            .and_then(|()| stage.find(path))
            .and_then(|mounted| {
                let path = descriptor_path(mounted.as_fd());
                sys::set_mount_attributes(&path, sys::ATTRIBUTE_READ_ONLY, true)
            })
            .map_err(|error| Failure::path("make read-only", path, error))?;
    }
    Ok(())
}
