//! Which process has a socket, as far as /proc tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Numbers and names of the processes that have these sockets open, by inode: one process each, and
/// none for a socket of the kernel or of a process that may not be looked at. Blocks.
#[must_use]
pub fn holders(inodes: &BTreeSet<u32>) -> BTreeMap<u32, (u32, String)> {
    let mut found = BTreeMap::new();
    // What cannot be read has ended, or is not to be seen.
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if found.len() == inodes.len() {
            break;
        }
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        for inode in sockets(&entry.path()).intersection(inodes) {
            found.entry(*inode).or_insert_with(|| (pid, name(&entry.path())));
        }
    }
    found
}

/// Inodes of the sockets that a process has open.
fn sockets(process: &Path) -> BTreeSet<u32> {
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    open.filter_map(inode).collect()
}

/// As `ps` shows it: /proc/PID/comm (proc(5)).
fn name(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::sock_diag::listeners;

    #[test]
    fn a_listener_is_found_by_its_process() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = socket.local_addr().expect("it has an address").port();
        let all = listeners().expect("the kernel tells");
        let own = all.iter().find(|listener| listener.port == port).expect("it listens");
        let found = holders(&[own.inode].into());
        assert_eq!(found[&own.inode].0, std::process::id());
        assert!(!found[&own.inode].1.is_empty());
        assert!(holders(&BTreeSet::new()).is_empty());
    }
}
