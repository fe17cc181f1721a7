//! How QEMU runs a guest's code: by the processor (KVM) where that works, else by emulation.
//!
//! That `/dev/kvm` exists says little: inside another virtual machine stock guests may abort or
//! hang on it. So a guest is tried once, with a time limit, and the verdict is kept.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::cache::{Cache, tell};
use super::guest::{QEMU, qemu_words};
use crate::command::run;

const DEVICE: &str = "/dev/kvm";
/// How long the trial may take: a kernel that runs on KVM has long answered by then.
const TRIAL_SECONDS: u32 = 20;
const TRIAL_MEMORY_MIB: u32 = 256;
/// What the initramfs says in a trial.
const ANSWER: &str = "skein-lab: the trial boots";

/// An accelerator of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accel {
    /// The processor itself.
    Kvm,
    /// Emulation, about 7 times slower.
    Tcg,
}

impl Accel {
    /// What `-accel` and `-cpu` are given.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Kvm => ("kvm", "host"),
            Self::Tcg => ("tcg,thread=multi", "max"),
        }
    }

    /// The one that works here for this kernel: tried at the first use, remembered afterwards.
    /// Where there is no `/dev/kvm` nothing is tried or remembered: a container without it may
    /// share its cache with a machine that has it.
    ///
    /// # Errors
    /// When QEMU cannot be started, or the verdict cannot be kept.
    pub fn find(cache: &Cache, kernel: &Path, initramfs: &Path) -> Result<Self> {
        if !Path::new(DEVICE).exists() {
            tell(&format!("there is no {DEVICE}: guests are emulated, about 7 times slower"));
            return Ok(Self::Tcg);
        }
        let qemu = run(20, &[QEMU, "--version"])?.ok()?;
        let machine = run(20, &["uname", "-rv"])?.ok()?;
        // A machine whose processor or kernel changed is tried again.
        let info = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let model = info.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
        let made_from = format!("{qemu} {machine} {model} {}", kernel.display());
        let entry = cache.entry("accel", &made_from, |folder| {
            let accel = try_kvm(kernel, initramfs)?;
            fs::write(folder.join("accel"), accel.words().0).context("keeping the verdict")
        })?;
        let kept = fs::read_to_string(entry.join("accel")).context("reading the verdict")?;
        Ok(if kept == Self::Kvm.words().0 { Self::Kvm } else { Self::Tcg })
    }
}

fn try_kvm(kernel: &Path, initramfs: &Path) -> Result<Accel> {
    let mut line = qemu_words(Accel::Kvm, TRIAL_MEMORY_MIB);
    line.extend(["-no-reboot", "-append", "console=ttyS0 panic=-1 skein.trial"].map(str::to_owned));
    line.extend(["-kernel".to_owned(), kernel.to_string_lossy().into_owned()]);
    line.extend(["-initrd".to_owned(), initramfs.to_string_lossy().into_owned()]);
    let output = run(TRIAL_SECONDS, &line)?;
    if output.stdout.contains(ANSWER) {
        tell("KVM works: guests run at the processor's speed");
        return Ok(Accel::Kvm);
    }
    let why = output.stderr.lines().find(|line| !line.trim().is_empty());
    let hung = format!("no answer in {TRIAL_SECONDS} s");
    let why = why.unwrap_or(&hung);
    tell(&format!("{DEVICE} does not boot a guest ({why}): guests are emulated"));
    Ok(Accel::Tcg)
}
