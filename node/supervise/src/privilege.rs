//! What a task may do: its capabilities, system calls and limits, Docker's where its spec does not
//! say; no new privileges; its user and groups.

use cluster::spec::Ulimit;
use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::failure::Failure;
use crate::spec::Rights;
use crate::user::Identity;
use crate::{seccomp, sys};

/// Open files of a task, as Swarm's containers have them.
const OPEN_FILES: u64 = 1_048_576;
/// The most that the kernel lets any process have.
const OPEN_FILES_CEILING: &str = "/proc/sys/fs/nr_open";

/// Why a task with these rights cannot run on this node, in words for the user.
pub(crate) fn lacking(rights: &Rights) -> Option<String> {
    let own = sys::permitted_capabilities().unwrap_or_default();
    let name = rights.capabilities.on(own).err()?;
    Some(format!(
        "capability {name}: this node's daemon does not have it: add it to CapabilityBoundingSet \
         of its unit, or leave it out"
    ))
}

/// Becomes `identity` for good, with the limits and capabilities of `rights`. Root keeps these, any
/// other user keeps none but can never gain more than those either. The calls of the filter are
/// what is left to it afterwards.
pub(crate) fn restrict(identity: &Identity, rights: &Rights) -> Result<(), Failure> {
    let failed = |error| Failure::setup("drop privileges", error);
    let own = sys::permitted_capabilities().map_err(failed)?;
    let capabilities = rights
        .capabilities
        .on(own)
        .map_err(|name| Failure::setup(&format!("keep {name}"), Errno::EPERM))?;
    raise_open_files()?;
    rights.ulimits.iter().try_for_each(limit)?;
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    sys::limit_bounding_set(capabilities).map_err(failed)?;
    setgroups(&groups).map_err(failed)?;
    setresgid(gid, gid, gid).map_err(failed)?;
    setresuid(uid, uid, uid).map_err(failed)?;
    sys::set_capabilities(if uid.is_root() { capabilities } else { 0 }).map_err(failed)?;
    set_no_new_privs().map_err(failed)?;
    // Last: what comes before makes calls that a task may not.
    seccomp::install(rights.seccomp, capabilities)
}

/// Sets RLIMIT_NOFILE to [`OPEN_FILES`], to the kernel's ceiling where that is lower, or to the
/// hard limit of the daemon where it may not be raised (no CAP_SYS_RESOURCE).
fn raise_open_files() -> Result<(), Failure> {
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

fn limit(ulimit: &Ulimit) -> Result<(), Failure> {
    let Ulimit { name, soft, hard, .. } = ulimit;
    let number = |limit: i64| u64::try_from(limit).unwrap_or(RLIM_INFINITY);
    resource(name)
        .ok_or(Errno::EINVAL)
        .and_then(|resource| setrlimit(resource, number(*soft), number(*hard)))
        .map_err(|error| Failure::setup(&format!("set ulimit {name} to {soft}:{hard}"), error))
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _unknown => return None,
    })
}
