//! Memory, CPU and pid limits by cgroup v2: one group per task below `skein` in the unified
//! hierarchy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Limits;

/// The group of all tasks, at the root of the hierarchy.
const PARENT: &str = "skein";
/// The period of `cpu.max`, in microseconds: the kernel's and Docker's default.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;
/// The kernel refuses a smaller quota.
const CPU_QUOTA_MICROSECONDS_MIN: u64 = 1_000;

/// Whether this node can hold a task to `limits`.
///
/// # Errors
/// Why not, in words for the user.
pub fn limits_supported(limits: &Limits) -> Result<(), String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    supported_at(unified(&table).as_deref(), limits)
}

fn supported_at(unified: Option<&Path>, limits: &Limits) -> Result<(), String> {
    let needed = controllers(limits);
    if needed.is_empty() {
        return Ok(());
    }
    let available = unified
        .and_then(|path| fs::read_to_string(path.join("cgroup.controllers")).ok())
        .unwrap_or_default();
    let missing = needed.iter().find(|name| !available.split_whitespace().any(|has| has == **name));
    match missing {
        None => Ok(()),
        Some(name) => Err(format!(
            "the task has a {name} limit and this node has no {name} controller on cgroup v2: \
             remove the limit or start the node with cgroup v2"
        )),
    }
}

fn controllers(limits: &Limits) -> Vec<&'static str> {
    let Limits { memory_bytes, nano_cpus, pids } = limits;
    let needed = [memory_bytes.map(|_| "memory"), nano_cpus.map(|_| "cpu"), pids.map(|_| "pids")];
    needed.into_iter().flatten().collect()
}

/// The mount point of the unified hierarchy (proc_pid_mountinfo(5)).
fn unified(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        (kind == "cgroup2").then(|| left.split(' ').nth(4)).flatten().map(PathBuf::from)
    })
}

fn group(task: &str) -> io::Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let root = unified(&table).ok_or_else(|| io::Error::other("no cgroup v2 is mounted"))?;
    Ok(root.join(PARENT).join(task))
}

/// Makes the task's group. Does nothing without limits.
pub(crate) fn create(task: &str, limits: &Limits) -> io::Result<()> {
    if limits.is_empty() {
        return Ok(());
    }
    let group = group(task)?;
    let enable: Vec<String> = controllers(limits).iter().map(|name| format!("+{name}")).collect();
    let ancestors: Vec<&Path> = group.ancestors().skip(1).take(2).collect();
    fs::create_dir_all(&group)?;
    for ancestor in ancestors.into_iter().rev() {
        fs::write(ancestor.join("cgroup.subtree_control"), enable.join(" "))?;
    }
    for (file, value) in settings(limits) {
        fs::write(group.join(file), value)?;
    }
    Ok(())
}

fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
    let Limits { memory_bytes, nano_cpus, pids } = limits;
    let quota = |nano: u64| {
        let quota = u128::from(nano) * u128::from(CPU_PERIOD_MICROSECONDS) / 1_000_000_000;
        quota.max(u128::from(CPU_QUOTA_MICROSECONDS_MIN))
    };
    let values = [
        memory_bytes.map(|bytes| ("memory.max", bytes.to_string())),
        nano_cpus.map(|nano| ("cpu.max", format!("{} {CPU_PERIOD_MICROSECONDS}", quota(nano)))),
        pids.map(|pids| ("pids.max", pids.to_string())),
    ];
    values.into_iter().flatten().collect()
}

/// Moves the calling process into the task's group. Does nothing without limits.
pub(crate) fn join(task: &str, limits: &Limits) -> io::Result<()> {
    if limits.is_empty() {
        return Ok(());
    }
    // Zero is the writer itself (cgroup-v2.rst).
    fs::write(group(task)?.join("cgroup.procs"), "0")
}

/// Whether the kernel has killed a process of the task for its memory limit.
pub(crate) fn out_of_memory(task: &str, limits: &Limits) -> bool {
    let events = group(task)
        .ok()
        .filter(|_| limits.memory_bytes.is_some())
        .and_then(|group| fs::read_to_string(group.join("memory.events")).ok());
    events.is_some_and(|events| killed(&events))
}

fn killed(events: &str) -> bool {
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.is_some_and(|count| count != "0")
}

/// Removes the task's group, which must be empty. Does nothing without limits.
pub(crate) fn remove(task: &str, limits: &Limits) -> io::Result<()> {
    if limits.is_empty() {
        return Ok(());
    }
    match fs::remove_dir(group(task)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
