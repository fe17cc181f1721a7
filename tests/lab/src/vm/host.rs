//! What the machine that runs guests must have, asked before anything is made, so that a refusal
//! says what is missing and how to get it.

use std::fs;
use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

use super::disk::DATA_BYTES;
use super::guest::QEMU;
use super::kernel::Kernel;
use crate::command::run;

const TUN: &str = "/dev/net/tun";
const SETUP: &str = "run deploy/vm/setup.sh";
/// Memory of QEMU itself, in addition to the guest's, in MiB.
const MONITOR_MIB: u64 = 100;
/// How much of its data disk a guest fills in a test, at most.
const DATA_SHARE: u64 = 4;

/// Programs that building and running guests call.
///
/// # Errors
/// With those that are missing.
pub fn check_programs(kernel: Kernel) -> Result<()> {
    let common = ["apt-get", "dpkg-deb", "mke2fs", "strip", "sha256sum", "setsid", "ip"];
    let own: &[&str] = match kernel {
        Kernel::Debian61 | Kernel::DebianCurrent => &[QEMU, "gzip", "xz", "depmod"],
        Kernel::Uml => &["make", "gcc", "flex", "bison", "bc", "xz", "tar"],
    };
    let missing: Vec<&str> =
        common.iter().chain(own).filter(|name| !has_program(name)).copied().collect();
    ensure!(missing.is_empty(), "not installed: {}; {SETUP}", missing.join(" "));
    Ok(())
}

fn has_program(name: &str) -> bool {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&own).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).any(|path| path.exists())
}

/// The right to make TAPs, and namespaces for them.
///
/// # Errors
/// When it is missing.
pub fn check_tap() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("guests hang on TAPs in a network namespace, which needs root: run it as root");
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open(TUN) {
        bail!(
            "guests hang on TAPs and {TUN} cannot be opened ({error}): load the module tun, and \
             in a container give it the device and NET_ADMIN \
             (--device {TUN} --cap-add NET_ADMIN)"
        );
    }
    Ok(())
}

/// Room for `guests` machines of `memory_mib` each, with their data below `folder`.
///
/// # Errors
/// When memory or disk do not suffice.
pub fn check_room(guests: usize, memory_mib: u32, folder: &Path) -> Result<()> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let free = available_mib(&text).context("/proc/meminfo has no MemAvailable")?;
    let guests = u64::try_from(guests)?;
    let needed = guests * (u64::from(memory_mib) + MONITOR_MIB);
    ensure!(
        free >= needed,
        "{guests} guests of {memory_mib} MiB need {needed} MiB of memory, {free} MiB are \
         available: end something, or run fewer guests"
    );
    let parent = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(parent).with_context(|| format!("looking at {}", parent.display()))?;
    let (free, needed) =
        (disk.blocks_available() * disk.fragment_size(), guests * DATA_BYTES / DATA_SHARE);
    ensure!(
        free >= needed,
        "{guests} guests need {} MiB of disk in {}, {} MiB are free",
        needed >> 20,
        parent.display(),
        free >> 20
    );
    Ok(())
}

fn available_mib(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib >> 10)
}

/// Whether a TAP of this name exists in a namespace (or in the caller's, without one).
///
/// # Errors
/// When `ip` cannot be run.
pub fn has_device(namespace: Option<&str>, name: &str) -> Result<bool> {
    let mut line = vec!["ip"];
    line.extend(namespace.into_iter().flat_map(|namespace| ["-n", namespace]));
    line.extend(["link", "show", "dev", name]);
    Ok(run(20, &line)?.status == 0)
}

#[test]
fn too_little_room_is_refused() {
    assert_eq!(available_mib("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2));
    let folder = tempfile::tempdir().expect("a folder");
    let error = check_room(1 << 20, 512, folder.path()).expect_err("no machine has that");
    assert!(error.to_string().contains("MiB of memory"), "{error}");
    let error = check_room(1 << 30, 0, folder.path()).expect_err("no disk has that");
    assert!(error.to_string().contains("MiB"), "{error}");
    check_room(0, 512, folder.path()).expect("nothing needs nothing");
}

#[test]
fn a_missing_program_is_known() {
    assert!(has_program("sh") && !has_program("skein-no-such-program"));
}
