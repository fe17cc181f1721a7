//! Kernels of guests: Debian's own for QEMU, with our own initramfs, and user-mode Linux built
//! from Debian's source package.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::cache::{Cache, tell};
use super::debian::Apt;
use super::disk::make_image;
use super::root::{names, write};
use crate::command::run;

const FIRST: &str = include_str!("../../../../deploy/vm/guest/initramfs-init");
const UML_CONFIG: &str = include_str!("../../../../deploy/vm/uml-kernel.config");
/// Debian's kernel package for virtual machines: it has all modules that a node needs.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// The source package of user-mode Linux, of the release below: `seccomp=on` is that new.
const SOURCE_PACKAGE: &str = "linux-source";
const UNSTABLE: &str = "sid";
/// What the kernel needs to see disks and wire, in no order; depmod knows the order.
const BOOT_MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_net", "ext4", "overlay", "crc32c_generic"];
/// Building user-mode Linux takes 6 minutes of two cores.
const BUILD_SECONDS: u32 = 3600;
const STEP_SECONDS: u32 = 300;

/// The kernel of a guest, and how it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kernel {
    /// Debian 12's kernel 6.1, in QEMU.
    Debian61,
    /// Debian's newest kernel, in QEMU.
    DebianCurrent,
    /// User-mode Linux: a process of this machine, at the speed of this machine.
    Uml,
}

impl Kernel {
    /// The one that the user wants where none is named: `SKEIN_VM_GUEST`, or Debian 12's.
    ///
    /// # Errors
    /// When the variable names no kind of guest.
    pub fn of_user() -> Result<Self> {
        match std::env::var_os("SKEIN_VM_GUEST") {
            Some(word) => word.to_string_lossy().parse().context("reading SKEIN_VM_GUEST"),
            None => Ok(Self::Debian61),
        }
    }
}

impl FromStr for Kernel {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "qemu" | "6.1" => Ok(Self::Debian61),
            "current" => Ok(Self::DebianCurrent),
            "uml" => Ok(Self::Uml),
            other => bail!("{other:?} is no kind of guest: qemu (kernel 6.1), current, uml"),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian61 => "qemu",
            Self::DebianCurrent => "current",
            Self::Uml => "uml",
        })
    }
}

/// The files that boot a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// By QEMU.
    Qemu {
        /// The kernel's image.
        kernel: PathBuf,
        /// What it starts from.
        initramfs: PathBuf,
        /// Image of its modules.
        modules: PathBuf,
    },
    /// By itself.
    Uml { program: PathBuf },
}

/// The files of a kernel, built where the cache does not have them.
///
/// # Errors
/// When packages cannot be fetched, or building fails.
pub fn boot_files(cache: &Cache, kernel: Kernel) -> Result<Boot> {
    let suites = match kernel {
        Kernel::Debian61 => ["bookworm", "bookworm-updates"],
        Kernel::DebianCurrent => [UNSTABLE, UNSTABLE],
        Kernel::Uml => return uml(cache),
    };
    let made_from = format!("{PACKAGE} {suites:?} {FIRST} {BOOT_MODULES:?}");
    let entry = cache.entry(&format!("kernel-{kernel}"), &made_from, |folder| {
        tell(&format!("fetching Debian's kernel of {}, once", suites[0]));
        build_qemu(&suites, folder)
    })?;
    Ok(Boot::Qemu {
        kernel: entry.join("vmlinuz"),
        initramfs: entry.join("initramfs.gz"),
        modules: entry.join("modules.img"),
    })
}

fn build_qemu(suites: &[&str], folder: &Path) -> Result<()> {
    let (apt_folder, tree) = (folder.join("apt"), folder.join("tree"));
    let mut suites = suites.to_vec();
    suites.dedup();
    let apt = Apt::new(&apt_folder, &suites)?;
    apt.unpack(&apt.newest(PACKAGE)?, &tree)?;
    let boot = tree.join("boot");
    let vmlinuz = find(&boot, |name| name.starts_with("vmlinuz"))?;
    fs::rename(&vmlinuz, folder.join("vmlinuz")).context("keeping the kernel's image")?;
    let modules = [tree.join("lib/modules"), tree.join("usr/lib/modules")]
        .into_iter()
        .find(|path| path.exists())
        .context("the kernel package has no modules")?;
    // depmod and modprobe look below /lib of their base.
    let base = folder.join("base");
    fs::create_dir_all(base.join("lib")).context("making a base for modules")?;
    fs::rename(&modules, base.join("lib/modules")).context("keeping the modules")?;
    let release = find(&base.join("lib/modules"), |_| true)?;
    let release = release.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shown = base.to_string_lossy();
    run(STEP_SECONDS, &["/sbin/depmod", "-b", &shown, &release])?.ok()?;
    apt.unpack("busybox-static", &tree)?;
    let image = folder.join("initramfs.gz");
    build_initramfs(&base, &release, &tree, &folder.join("initramfs"), &image)?;
    make_image(&base.join("lib/modules"), &folder.join("modules.img"))?;
    remove(&[apt_folder, tree, base, folder.join("initramfs")])
}

fn build_initramfs(
    base: &Path,
    release: &str,
    tree: &Path,
    files: &Path,
    image: &Path,
) -> Result<()> {
    for name in ["bin", "modules", "proc", "dev", "root"] {
        let path = files.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    }
    let busybox = [tree.join("bin/busybox"), tree.join("usr/bin/busybox")]
        .into_iter()
        .find(|path| path.exists())
        .context("busybox-static has no busybox")?;
    fs::copy(&busybox, files.join("bin/busybox")).context("copying busybox")?;
    write(&files.join("init"), FIRST, true)?;
    let mut order: Vec<String> = Vec::new();
    for module in BOOT_MODULES {
        let words = ["/sbin/modprobe", "-d", &base.to_string_lossy(), "-S", release, "-D", module];
        // A kernel that has it built in knows no such module.
        let text = run(STEP_SECONDS, &words)?.stdout;
        for path in text.lines().filter_map(|line| line.trim().strip_prefix("insmod ")) {
            let path = Path::new(path.trim());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let plain = name.trim_end_matches(".xz").to_owned();
            if order.contains(&plain) {
                continue;
            }
            let place = files.join("modules").join(&name);
            fs::copy(path, &place).with_context(|| format!("copying {}", path.display()))?;
            if name != plain {
                run(STEP_SECONDS, &["xz", "-d", &place.to_string_lossy()])?.ok()?;
            }
            order.push(plain);
        }
    }
    ensure!(order.iter().any(|name| name.starts_with("virtio_net")), "no virtio: {order:?}");
    write(&files.join("modules/order"), &format!("{}\n", order.join("\n")), false)?;
    let script = "cd \"$0\" && find . | ./bin/busybox cpio -o -H newc | gzip -1 >\"$1\"";
    let words = ["sh", "-c", script, &files.to_string_lossy(), &image.to_string_lossy()];
    run(STEP_SECONDS, &words)?.ok()?;
    Ok(())
}

fn uml(cache: &Cache) -> Result<Boot> {
    let made_from = format!("{SOURCE_PACKAGE} {UNSTABLE} {UML_CONFIG}");
    let entry = cache.entry("kernel-uml", &made_from, |folder| {
        tell("building user-mode Linux, once: about 6 minutes of two cores");
        build_uml(folder)
    })?;
    Ok(Boot::Uml { program: entry.join("linux") })
}

fn build_uml(folder: &Path) -> Result<()> {
    let (apt_folder, tree) = (folder.join("apt"), folder.join("tree"));
    let apt = Apt::new(&apt_folder, &[UNSTABLE])?;
    let package = apt.newest(SOURCE_PACKAGE)?;
    apt.unpack(&package, &tree)?;
    let archive = tree.join(format!("usr/src/{package}.tar.xz"));
    let (archive, to) = (archive.to_string_lossy(), tree.to_string_lossy());
    run(STEP_SECONDS, &["tar", "-xf", &archive, "-C", &to])?.ok()?;
    let source = tree.join(&package);
    write(&source.join("lab.config"), UML_CONFIG, false)?;
    let log = folder.join("build.log");
    let script = "exec >\"$1\" 2>&1 && cd \"$0\" && make ARCH=um defconfig && \
        ARCH=um scripts/kconfig/merge_config.sh -m .config lab.config && \
        make ARCH=um olddefconfig && exec nice -n 10 make ARCH=um -j\"$(nproc)\" linux";
    let words = ["sh", "-c", script, &source.to_string_lossy(), &log.to_string_lossy()];
    let built = run(BUILD_SECONDS, &words)?.ok();
    if let Err(error) = built {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        bail!("user-mode Linux was not built, is deploy/vm/setup.sh done? {error:#}\n{tail}");
    }
    check_config(&source)?;
    run(
        STEP_SECONDS,
        &["strip", "-o", &folder.join("linux").to_string_lossy(), &{
            source.join("linux").to_string_lossy().into_owned()
        }],
    )?
    .ok()?;
    remove(&[apt_folder, tree])
}

/// Fails when the built kernel lacks what the fragment asks for: kconfig drops what it does not
/// know without a word.
fn check_config(source: &Path) -> Result<()> {
    let path = source.join(".config");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let missing = missing_options(UML_CONFIG, &text);
    for option in ["CONFIG_IP_VS=y", "CONFIG_VXLAN=y", "CONFIG_NF_TABLES=y", "CONFIG_EXT4_FS=y"] {
        ensure!(!missing.contains(&option), "user-mode Linux was built without {option}");
    }
    if !missing.is_empty() {
        tell(&format!("user-mode Linux does not have {}", missing.join(" ")));
    }
    Ok(())
}

fn missing_options<'a>(asked: &'a str, config: &str) -> Vec<&'a str> {
    let wanted = names(asked).filter(|line| line.ends_with("=y"));
    wanted.filter(|line| !config.lines().any(|has| has == *line)).collect()
}

fn find(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = folder.read_dir().with_context(|| format!("listing {}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| is_it(&path.file_name().unwrap_or_default().to_string_lossy()));
    found.with_context(|| format!("{} lacks what is looked for", folder.display()))
}

fn remove(folders: &[PathBuf]) -> Result<()> {
    for folder in folders {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

#[test]
fn options_that_kconfig_dropped_are_found() {
    let asked = "# why\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=y\n";
    assert_eq!(missing_options(asked, "CONFIG_A=y\n# CONFIG_C is not set\n"), ["CONFIG_C=y"]);
}

#[test]
fn kinds_of_guests_have_names() {
    for kernel in [Kernel::Debian61, Kernel::DebianCurrent, Kernel::Uml] {
        assert_eq!(kernel.to_string().parse::<Kernel>().expect("a name"), kernel);
    }
    assert!("xen".parse::<Kernel>().is_err());
}
