//! Memory, CPU and pid limits by control groups: one group per task below `skein`, in the hierarchy
//! that has the controller on this node. That is the unified one (version 2) where it offers the
//! controller, else the one of version 1; a hybrid host has some controllers here and some there.
//!
//! Not by a library: cgroups-rs takes one version for the whole host, by what is mounted on
//! /sys/fs/cgroup, so a hybrid host is of version 1 to it, and its releases bring a D-Bus client
//! (0.4 and later) or regular expressions (0.3) for what is here a table of seven files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::spec::Limits;

/// The group of all tasks, at the root of a hierarchy.
const PARENT: &str = "skein";
/// The period of the CPU quota, in microseconds: the kernel's and Docker's default.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;
/// The kernel refuses a smaller quota.
const CPU_QUOTA_MICROSECONDS_MIN: u64 = 1_000;

/// The kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where this node's hierarchies are mounted, of those that can be written to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hierarchies {
    unified: Option<PathBuf>,
    /// Of version 1, by controller.
    old: BTreeMap<String, PathBuf>,
}

/// The task's group in one hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    path: PathBuf,
    controllers: Vec<&'static str>,
}

/// Whether this node can hold a task to `limits`.
///
/// # Errors
/// Why not, in words for the user.
pub fn limits_supported(limits: &Limits) -> Result<(), String> {
    match Hierarchies::read().unwrap_or_default().groups("", limits) {
        Ok(_) => Ok(()),
        Err(missing) => Err(format!(
            "the task has a {missing} limit and this node has no {missing} controller that can be \
             written to, of cgroup v1 or v2: remove the limit or mount the controller"
        )),
    }
}

impl Hierarchies {
    fn read() -> io::Result<Self> {
        Ok(Self::of(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// Of a table of mounts (proc_pid_mountinfo(5)). Several controllers may share a hierarchy.
    fn of(table: &str) -> Self {
        let mut found = Hierarchies::default();
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut own = left.split(' ').skip(4);
            let (Some(point), Some(options)) = (own.next(), own.next()) else { continue };
            let file_system: Vec<&str> = right.split(' ').collect();
            if options.split(',').any(|option| option == "ro") {
                continue;
            }
            match file_system.as_slice() {
                ["cgroup2", ..] if found.unified.is_none() => found.unified = Some(point.into()),
                ["cgroup", _, controllers] => {
                    for controller in controllers.split(',') {
                        found.old.entry(controller.to_owned()).or_insert_with(|| point.into());
                    }
                }
                _other => {}
            }
        }
        found
    }

    /// The groups of a task with these limits; the error is a controller that is not there.
    fn groups(&self, task: &str, limits: &Limits) -> Result<Vec<Group>, &'static str> {
        let offered = self.unified.as_ref().map(|root| root.join("cgroup.controllers"));
        let offered = offered.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let mut groups: Vec<Group> = Vec::new();
        for controller in controllers(limits) {
            let is_new = offered.split_whitespace().any(|name| name == controller);
            let (version, root) = match &self.unified {
                Some(root) if is_new => (Version::Two, root),
                _ => (Version::One, self.old.get(controller).ok_or(controller)?),
            };
            let path = root.join(PARENT).join(task);
            match groups.iter_mut().find(|group| group.path == path) {
                Some(group) => group.controllers.push(controller),
                None => groups.push(Group { version, path, controllers: vec![controller] }),
            }
        }
        Ok(groups)
    }
}

fn controllers(limits: &Limits) -> impl Iterator<Item = &'static str> {
    let Limits { memory_bytes, nano_cpus, pids } = limits;
    let needed = [memory_bytes.map(|_| "memory"), nano_cpus.map(|_| "cpu"), pids.map(|_| "pids")];
    needed.into_iter().flatten()
}

fn groups(task: &str, limits: &Limits) -> io::Result<Vec<Group>> {
    if limits.is_empty() {
        return Ok(Vec::new());
    }
    let groups = Hierarchies::read()?.groups(task, limits);
    groups.map_err(|missing| io::Error::other(format!("there is no {missing} controller")))
}

/// Makes the task's groups. Does nothing without limits.
pub(crate) fn create(task: &str, limits: &Limits) -> io::Result<()> {
    groups(task, limits)?.iter().try_for_each(|group| group.create(limits))
}

impl Group {
    fn create(&self, limits: &Limits) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        if self.version == Version::Two {
            let enable: Vec<_> = self.controllers.iter().map(|name| format!("+{name}")).collect();
            let ancestors: Vec<&Path> = self.path.ancestors().skip(1).take(2).collect();
            for ancestor in ancestors.into_iter().rev() {
                fs::write(ancestor.join("cgroup.subtree_control"), enable.join(" "))?;
            }
        }
        let settings =
            self.controllers.iter().flat_map(|name| settings(self.version, name, limits));
        for Setting { file, value, is_optional } in settings {
            let file = self.path.join(file);
            if !is_optional || file.exists() {
                fs::write(file, value)?;
            }
        }
        Ok(())
    }
}

/// What is written into a file of a group.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    file: &'static str,
    value: String,
    /// A kernel without accounting of swap does not have the file.
    is_optional: bool,
}

/// In the order in which the kernel takes them. A task with a limit of memory may have as much
/// swap, as Docker has it.
fn settings(version: Version, controller: &str, limits: &Limits) -> Vec<Setting> {
    let needed = |file, value: u64| Setting { file, value: value.to_string(), is_optional: false };
    let swap = |file, value: u64| Setting { file, value: value.to_string(), is_optional: true };
    let memory = limits.memory_bytes.unwrap_or(u64::MAX);
    let quota = quota(limits.nano_cpus.unwrap_or(u64::MAX));
    match (version, controller) {
        (Version::One, "memory") => vec![
            needed("memory.limit_in_bytes", memory),
            swap("memory.memsw.limit_in_bytes", memory.saturating_mul(2)),
        ],
        (Version::Two, "memory") => {
            vec![needed("memory.max", memory), swap("memory.swap.max", memory)]
        }
        (Version::One, "cpu") => vec![
            needed("cpu.cfs_period_us", CPU_PERIOD_MICROSECONDS),
            needed("cpu.cfs_quota_us", quota),
        ],
        (Version::Two, "cpu") => {
            let value = format!("{quota} {CPU_PERIOD_MICROSECONDS}");
            vec![Setting { file: "cpu.max", value, is_optional: false }]
        }
        (Version::One | Version::Two, _pids) => {
            vec![needed("pids.max", limits.pids.unwrap_or(u64::MAX))]
        }
    }
}

fn quota(nano_cpus: u64) -> u64 {
    let quota = u128::from(nano_cpus) * u128::from(CPU_PERIOD_MICROSECONDS) / 1_000_000_000;
    u64::try_from(quota).unwrap_or(u64::MAX).max(CPU_QUOTA_MICROSECONDS_MIN)
}

/// Moves the calling process into the task's groups. Does nothing without limits.
pub(crate) fn join(task: &str, limits: &Limits) -> io::Result<()> {
    // Zero is the writer itself (cgroup-v2.rst; cgroup_procs_write_start of both versions).
    groups(task, limits)?
        .iter()
        .try_for_each(|group| fs::write(group.path.join("cgroup.procs"), "0"))
}

/// Whether the kernel has killed a process of the task for its memory limit.
pub(crate) fn out_of_memory(task: &str, limits: &Limits) -> bool {
    let groups = groups(task, limits).unwrap_or_default();
    let memory = groups.iter().find(|group| group.controllers.contains(&"memory"));
    let events = memory.map(|group| match group.version {
        Version::One => group.path.join("memory.oom_control"),
        Version::Two => group.path.join("memory.events"),
    });
    events.and_then(|file| fs::read_to_string(file).ok()).is_some_and(|events| killed(&events))
}

fn killed(events: &str) -> bool {
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.is_some_and(|count| count != "0")
}

/// Removes the task's groups, which must have no process, and those that it has made in them.
pub(crate) fn remove(task: &str, limits: &Limits) -> io::Result<()> {
    groups(task, limits)?.iter().try_for_each(|group| remove_group(&group.path))
}

fn remove_group(path: &Path) -> io::Result<()> {
    let removed = || -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove_group(&entry.path())?;
            }
        }
        fs::remove_dir(path)
    };
    match removed() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
