//! All that guests of one kernel boot from, built where the cache does not have it.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::accel::Accel;
use super::cache::Cache;
use super::host;
use super::kernel::{Boot, Kernel, boot_files};
use super::root::{programs_image, root_image};

/// Images and kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Images {
    /// Which kernel it is.
    pub kernel: Kernel,
    /// Its files.
    pub boot: Boot,
    /// How QEMU runs it.
    pub accel: Accel,
    /// The guests' root.
    pub root: PathBuf,
    /// The programs of this build.
    pub programs: PathBuf,
}

impl Images {
    /// Builds what is missing in the user's cache.
    ///
    /// # Errors
    /// When this machine lacks what it takes: the error says what and how to get it.
    pub fn build(kernel: Kernel) -> Result<Self> {
        host::check_programs(kernel)?;
        let cache = Cache::of_user()?;
        let programs = programs_image(&cache)?;
        let root = root_image(&cache)?;
        let boot = boot_files(&cache, kernel)?;
        let accel = match &boot {
            Boot::Qemu { kernel, initramfs, .. } => Accel::find(&cache, kernel, initramfs)?,
            Boot::Uml { .. } => Accel::Tcg,
        };
        Ok(Self { kernel, boot, accel, root, programs })
    }

    /// The memory of a guest in MiB: as little as a node with a few tasks runs well in.
    #[must_use]
    pub fn memory_mib(&self) -> u32 {
        match self.boot {
            Boot::Qemu { .. } => 512,
            Boot::Uml { .. } => 384,
        }
    }
}
