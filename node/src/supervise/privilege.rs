//! What a task may do: Docker's default capabilities and system calls, no new privileges, its user
//! and groups.

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::task::Failure;
use super::user::Identity;
use super::{seccomp, sys};
use crate::executor::Seccomp;

/// Docker's default set (moby `oci/caps/defaults.go`): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
/// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub(crate) const CAPABILITIES: u64 = 0xa804_25fb;
/// Open files of a task, as Swarm's containers have them.
const OPEN_FILES: u64 = 1_048_576;
/// The most that the kernel lets any process have.
const OPEN_FILES_CEILING: &str = "/proc/sys/fs/nr_open";

/// Sets RLIMIT_NOFILE to [`OPEN_FILES`], to the kernel's ceiling where that is lower, or to the
/// hard limit of the daemon where it may not be raised (no CAP_SYS_RESOURCE).
pub(crate) fn raise_open_files() -> Result<(), Failure> {
    let ceiling = std::fs::read_to_string(OPEN_FILES_CEILING)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(OPEN_FILES);
    let limit = OPEN_FILES.min(ceiling);
    let raised = match setrlimit(Resource::RLIMIT_NOFILE, limit, limit) {
        Err(Errno::EPERM) => getrlimit(Resource::RLIMIT_NOFILE)
            .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard)),
        raised => raised,
    };
    raised.map_err(|error| Failure::setup("raise the limit of open files", error))
}

/// Becomes `identity` for good. Root keeps [`CAPABILITIES`], any other user keeps none but can
/// never gain more than those either. The calls of `seccomp` are what is left to it afterwards.
pub(crate) fn restrict(identity: &Identity, seccomp: Seccomp) -> Result<(), Failure> {
    let failed = |error| Failure::setup("drop privileges", error);
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    sys::limit_bounding_set(CAPABILITIES).map_err(failed)?;
    setgroups(&groups).map_err(failed)?;
    setresgid(gid, gid, gid).map_err(failed)?;
    setresuid(uid, uid, uid).map_err(failed)?;
    sys::set_capabilities(if uid.is_root() { CAPABILITIES } else { 0 }).map_err(failed)?;
    set_no_new_privs().map_err(failed)?;
    // Last: what comes before makes calls that a task may not.
    seccomp::install(seccomp)
}
