//! The root that a task may write to: its image below, which nobody changes, and a layer of its own
//! above that takes what the task writes and goes away with it (overlayfs).
//!
//! What is mounted in the image comes along as it is, read-only: an overlay shows one file system.
//! The kernel is named directories by descriptors, because its list of options has no place for
//! every letter that a path may have.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::table;
use crate::failure::Failure;
use crate::tree::{descriptor_path, open_directory};

/// A layer in memory, for a data directory on a file system that cannot hold one.
const MEMORY_OPTIONS: &str = "mode=700,size=1g";
/// Where that is, below the task's directory, in the task's own mount namespace alone.
const MEMORY: &str = "layer";
/// What the task writes, and what the kernel needs for it, both in the layer's directory.
const UPPER: &str = "upper";
const SCRATCH: &str = "scratch";

/// Mounts on `root` what is at `image` with the layer in the directory `layer` over it, and moves
/// along what is mounted below `image`, which is not a mount any more afterwards.
pub(super) fn mount_over(
    image: &Path,
    root: &Path,
    layer: &Path,
    task_dir: &Path,
) -> Result<(), Failure> {
    match overlay(image, root, layer) {
        // The answer where the layer is on an overlay itself, on NFS and the like
        // (Documentation/filesystems/overlayfs.rst, upper and lower).
        Err(Errno::EINVAL) => in_memory(image, root, task_dir),
        mounted => mounted,
    }
    .map_err(|error| Failure::setup("make the task's writable layer (overlayfs)", error))?;
    let moved = || -> nix::Result<()> {
        for point in table::first_below(image)? {
            let Ok(below) = point.strip_prefix(image) else { continue };
            let target = root.join(below);
            match mount(Some(&point), &target, None::<&str>, MsFlags::MS_MOVE, None::<&str>) {
                // Who removes the directory below a mount removes the mount, everywhere.
                Err(_) if !table::first_below(image)?.contains(&point) => {}
                moved => moved?,
            }
        }
        umount2(image, MntFlags::MNT_DETACH)
    };
    moved().map_err(|error| Failure::setup("take along what is mounted in the image", error))
}

fn in_memory(image: &Path, root: &Path, task_dir: &Path) -> nix::Result<()> {
    let directory = task_dir.join(MEMORY);
    fs::create_dir_all(&directory).map_err(|error| Failure::number(&error))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &directory, Some("tmpfs"), flags, Some(MEMORY_OPTIONS))?;
    overlay(image, root, &directory)?;
    // The overlay keeps it.
    umount2(&directory, MntFlags::MNT_DETACH)
}

fn overlay(image: &Path, root: &Path, layer: &Path) -> nix::Result<()> {
    fill(image, layer).map_err(|error| Failure::number(&error))?;
    let [upper, scratch] = [UPPER, SCRATCH].map(|name| open_directory(&layer.join(name)));
    let (lower, upper, scratch) = (open_directory(image)?, upper?, scratch?);
    let [lower, upper, scratch] =
        [&lower, &upper, &scratch].map(|open| descriptor_path(open.as_fd()).display().to_string());
    // Nothing in a layer outlives its task, so nothing waits for the disk (`volatile`): else the
    // end of each task would wait for the whole file system.
    let options = format!(
        "lowerdir={lower},upperdir={upper},workdir={scratch},index=off,metacopy=off,volatile"
    );
    mount(Some("overlay"), root, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()))
}

/// Makes the layer's directories. The root of the task is the upper one, so it has the owner and
/// mode of the image's.
fn fill(image: &Path, layer: &Path) -> io::Result<()> {
    for name in [UPPER, SCRATCH] {
        match fs::DirBuilder::new().mode(0o700).create(layer.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let of_image = fs::metadata(image)?;
    let upper = layer.join(UPPER);
    chown(&upper, Some(of_image.uid()), Some(of_image.gid()))?;
    fs::set_permissions(&upper, Permissions::from_mode(of_image.mode() & 0o7777))
}
