//! The mount table: which mounts of the node a task's copy of its tree must not keep, and where
//! that copy shows a directory of the node.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::failure::Failure;

/// Where a tree shows a directory of the node, by whichever mounts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Copies {
    /// The whole directory.
    pub(super) whole: Vec<PathBuf>,
    /// Mounts of something in it.
    pub(super) parts: Vec<PathBuf>,
}

/// Where the tree at `root`, a copy of a tree of the node, shows `directory`, a path without links.
pub(super) fn copies(root: &Path, directory: &Path) -> nix::Result<Copies> {
    Ok(copies_in(&read()?, root, directory))
}

fn copies_in(table: &str, root: &Path, directory: &Path) -> Copies {
    let (copied, own): (Vec<Mount<'_>>, Vec<_>) =
        mounts(table).partition(|mount| mount.point.starts_with(root));
    let holders = own.iter().filter(|mount| directory.starts_with(&mount.point));
    // Of those at one path the last is on top.
    let holder = holders.max_by_key(|mount| mount.point.components().count());
    let Some((holder, below)) =
        holder.and_then(|holder| Some((holder, directory.strip_prefix(&holder.point).ok()?)))
    else {
        return Copies::default();
    };
    let place = holder.root.join(below);
    let mut copies = Copies::default();
    for mount in copied.iter().filter(|mount| mount.device == holder.device) {
        if let Ok(below) = place.strip_prefix(&mount.root) {
            copies.whole.push(mount.point.join(below));
        } else if mount.root.starts_with(&place) {
            copies.parts.push(mount.point.clone());
        }
    }
    copies
}

/// Detaches every mount at or below one of `hidden`, and every namespace file below `root`. The
/// copy of such a mount would keep a sandbox or a disk busy for as long as the task lives.
pub(super) fn detach_below(root: &Path, hidden: &[PathBuf]) -> nix::Result<()> {
    let table = read()?;
    let mut targets: Vec<PathBuf> = mounts(&table)
        .filter(|Mount { point, kind, .. }| {
            let below = point.starts_with(root) && point != root;
            below && (*kind == "nsfs" || hidden.iter().any(|hidden| point.starts_with(hidden)))
        })
        .map(|mount| mount.point)
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

/// The places below `root` where something is mounted that is not below another such mount.
pub(super) fn first_below(root: &Path) -> nix::Result<BTreeSet<PathBuf>> {
    Ok(first_in(&read()?, root))
}

fn first_in(table: &str, root: &Path) -> BTreeSet<PathBuf> {
    let below = mounts(table).map(|mount| mount.point);
    let below: BTreeSet<PathBuf> =
        below.filter(|point| point.starts_with(root) && point != root).collect();
    let above = |point: &Path| point.ancestors().skip(1).any(|above| below.contains(above));
    below.iter().filter(|point| !above(point)).cloned().collect()
}

/// The mount that a path of the node is on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) point: PathBuf,
    /// Mounts below it show in its peers, and theirs in it.
    pub(super) is_shared: bool,
    /// Mounts below its master show in it.
    pub(super) is_slave: bool,
}

/// Which mount `path` is on.
pub(super) fn holder(path: &Path) -> nix::Result<Holder> {
    let path = path.canonicalize().map_err(|error| Failure::number(&error))?;
    holder_in(&read()?, &path).ok_or(Errno::ENOENT)
}

fn holder_in(table: &str, path: &Path) -> Option<Holder> {
    let on_way = table.lines().filter_map(|line| {
        let (left, _) = line.split_once(" - ")?;
        let words: Vec<&str> = left.split(' ').collect();
        let point = PathBuf::from(unescape(words.get(4)?));
        let tagged = |tag: &str| words.iter().skip(6).any(|word| word.starts_with(tag));
        let (is_shared, is_slave) = (tagged("shared:"), tagged("master:"));
        path.starts_with(&point).then_some(Holder { point, is_shared, is_slave })
    });
    // Of those at one path the last is on top.
    on_way.max_by_key(|holder| holder.point.components().count())
}

fn read() -> nix::Result<String> {
    fs::read_to_string("/proc/thread-self/mountinfo").map_err(|error| Failure::number(&error))
}

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    device: &'a str,
    /// What of the file system is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
}

fn mounts(table: &str) -> impl Iterator<Item = Mount<'_>> {
    table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut words = left.split(' ').skip(2);
        let (device, root, point) = (words.next()?, words.next()?, words.next()?);
        let [root, point] = [root, point].map(|path| PathBuf::from(unescape(path)));
        Some(Mount { device, root, point, kind: right.split(' ').next()? })
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
        let found: Vec<_> = mounts(table).map(|mount| (mount.point, mount.kind)).collect();
        assert_eq!(found, vec![("/".into(), "ext4"), ("/run/a b".into(), "nsfs")]);
    }

    #[test]
    fn the_mount_that_a_path_is_on_is_the_nearest_and_uppermost() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 a rw\n\
                     2 1 8:2 / /srv rw - ext4 b rw\n\
                     3 2 8:3 / /srv rw,nodev master:4 - ext4 c rw\n";
        let holder = |path: &str| holder_in(table, Path::new(path)).unwrap();
        let on =
            |point: &str, is_shared, is_slave| Holder { point: point.into(), is_shared, is_slave };
        assert_eq!(holder("/srv/a"), on("/srv", false, true));
        assert_eq!(holder("/srv2"), on("/", true, false));
    }

    #[test]
    fn only_the_first_mount_on_each_way_down_is_told() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n\
                     2 1 8:1 / /stage rw - ext4 a rw\n\
                     3 2 8:2 / /stage/srv rw - ext4 b rw\n\
                     4 3 8:2 / /stage/srv rw - ext4 b rw\n\
                     5 4 8:3 / /stage/srv/a/b rw - ext4 c rw\n\
                     6 2 8:4 / /stage/srv2 rw - ext4 d rw\n\
                     7 1 8:5 / /stages rw - ext4 e rw\n";
        let first = ["/stage/srv", "/stage/srv2"].map(PathBuf::from);
        assert_eq!(first_in(table, Path::new("/stage")), BTreeSet::from(first));
    }

    /// Goal: state is found behind every mount of its file system. Method: a table with a copy of
    /// the whole file system, of the directory's parent, of a part of it, of a directory next to
    /// it, and another file system with the same paths.
    #[test]
    fn a_directory_is_found_behind_every_mount_of_its_file_system() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n\
                     2 1 8:2 / /srv rw - ext4 b rw\n\
                     3 1 8:1 / /stage rw - ext4 a rw\n\
                     4 3 8:2 / /stage/srv rw - ext4 b rw\n\
                     5 3 8:1 /var/lib /stage/mnt/lib rw - ext4 a rw\n\
                     6 3 8:1 /var/lib/skein/raft /stage/mnt/raft rw - ext4 a rw\n\
                     7 3 8:1 /var/lib/other /stage/mnt/other rw - ext4 a rw\n";
        let found = copies_in(table, Path::new("/stage"), Path::new("/var/lib/skein"));
        let whole = ["/stage/var/lib/skein", "/stage/mnt/lib/skein"].map(PathBuf::from).to_vec();
        assert_eq!(found, Copies { whole, parts: vec!["/stage/mnt/raft".into()] });
        let found = copies_in(table, Path::new("/stage"), Path::new("/srv/skein"));
        assert_eq!(found, Copies { whole: vec!["/stage/srv/skein".into()], parts: vec![] });
    }
}
