//! The mount table: which mounts of the node a task's copy of its tree must not keep.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::supervise::task::Failure;

/// Detaches every mount at or below one of `hidden`, and every namespace file below `root`. The
/// copy of such a mount would keep a sandbox or a disk busy for as long as the task lives.
pub(super) fn detach_below(root: &Path, hidden: &[PathBuf]) -> nix::Result<()> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo")
        .map_err(|error| Failure::number(&error))?;
    let mut targets: Vec<PathBuf> = mounts(&table)
        .filter(|(path, kind)| {
            let below = path.starts_with(root) && path != root;
            below && (*kind == "nsfs" || hidden.iter().any(|hidden| path.starts_with(hidden)))
        })
        .map(|(path, _)| path)
        .collect();
    targets.sort();
    // A mount that is covered by another one at the same path appears again, so deepest and last
    // first; what went with its parent is no longer a mount point.
    for target in targets.into_iter().rev() {
        match umount2(&target, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Mount point and file system of each line of mountinfo (proc_pid_mountinfo(5)).
fn mounts(table: &str) -> impl Iterator<Item = (PathBuf, &str)> {
    table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let path = left.split(' ').nth(4)?;
        Some((PathBuf::from(unescape(path)), right.split(' ').next()?))
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_file_system() {
        let table = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                     31 22 0:4 net:[4026531840] /run/a\\040b rw shared:3 - nsfs nsfs rw\n\
                     broken\n";
        let found: Vec<_> = mounts(table).collect();
        assert_eq!(found, vec![("/".into(), "ext4"), ("/run/a b".into(), "nsfs")]);
    }
}
