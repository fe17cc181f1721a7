//! The file system of a task: its root, which is its image and a layer of its own, with its own
//! /proc, /sys, /dev, /tmp, /run and files in /etc, and the mounts of its spec.
//!
//! Everything runs in the task's first process, in its own mount namespace, before the root is
//! entered. A path of the task is resolved by the kernel within the new root
//! (`RESOLVE_IN_ROOT`), so no link in an image can lead a mount out of it.

use std::os::fd::AsFd;
use std::path::Path;

use crate::failure::Failure;
use crate::spec::Mount;
use crate::status::Launch;
use crate::sys;
use crate::tree::descriptor_path;

mod device;
mod layer;
mod mounts;
mod stage;
mod table;

use stage::Stage;

/// Builds the task's file system and makes it the root of this process.
pub(crate) fn enter(launch: &Launch, task_dir: &Path) -> Result<(), Failure> {
    let linked = mounts::linked(&launch.spec.mounts)?;
    let stage = Stage::open(launch, task_dir)?;
    stage.mount_own()?;
    device::mask_kernel_files(&stage)?;
    device::mount_devices(&stage)?;
    stage.mount_files()?;
    stage.mask_state()?;
    stage.mount_work()?;
    let mut mounts: Vec<&Mount> = launch.spec.mounts.iter().collect();
    mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
    for mount in mounts {
        mounts::mount_on(&stage, mount, linked.get(&mount.target))?;
    }
    if launch.spec.read_only {
        for path in ["/", "/run", "/tmp"] {
            let failed = |error| Failure::setup(&format!("make {path} read-only"), error);
            let mounted = stage.find(path).map_err(failed)?;
            let mounted = descriptor_path(mounted.as_fd());
            sys::set_mount_attributes(&mounted, sys::ATTRIBUTE_READ_ONLY, false).map_err(failed)?;
        }
    }
    stage.pivot()
}
