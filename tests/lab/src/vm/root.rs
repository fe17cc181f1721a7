//! What guests run from: the root image, made of Debian's packages, and the image of this build's
//! programs. Both are the same for guests of every kernel.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cache::{Cache, tell};
use super::debian::{Apt, own_release};
use super::disk::make_image;
use crate::command::run;
use crate::program;

const PACKAGES: &str = include_str!("../../../../deploy/vm/packages.txt");
/// Our files of the root image: place, text, and whether it is a program.
const FILES: &[(&str, &str, bool)] = &[
    ("lab/first", include_str!("../../../../deploy/vm/guest/first"), true),
    ("lab/start", include_str!("../../../../deploy/vm/guest/start"), true),
    ("etc/inittab", include_str!("../../../../deploy/vm/guest/inittab"), false),
    (
        "etc/systemd/system/lab-start.service",
        include_str!("../../../../deploy/vm/guest/lab-start.service"),
        false,
    ),
    (
        "etc/systemd/system/lab-agent.service",
        include_str!("../../../../deploy/vm/guest/lab-agent.service"),
        false,
    ),
    // Empty: systemd takes a number for this boot, and asks nobody to set the machine up.
    ("etc/machine-id", "", false),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", false),
];
/// Links of the root image: place and target. Debian makes them when packages are set up.
const LINKS: &[(&str, &str)] = &[
    ("sbin/init", "../bin/busybox"),
    ("sbin/poweroff", "../bin/busybox"),
    ("sbin/reboot", "../bin/busybox"),
    ("usr/bin/awk", "mawk"),
    ("etc/systemd/system/serial-getty@ttyS0.service", "/dev/null"),
    ("etc/systemd/system/multi-user.target.wants/lab-agent.service", "../lab-agent.service"),
    ("etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target"),
];
/// Users of programs that make their own when they are set up, as lines of files in /etc.
const USERS: &[(&str, &str)] = &[
    ("passwd", "tcpdump:x:900:900::/nonexistent:/usr/sbin/nologin\n"),
    ("group", "tcpdump:x:900:\n"),
];
/// Folders that Debian 12 and newer keep in /usr alone.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib64"];
/// Folders that something is mounted on.
const MOUNTED: &[&str] =
    &["dev", "proc", "sys", "run", "tmp", "mnt", "opt/skein", "var/lib/skein", "usr/lib/modules"];
/// Where the programs of this build lie in a guest.
pub const PROGRAMS_FOLDER: &str = "/opt/skein";
/// The programs of this build that guests get.
pub(super) const PROGRAMS: &[&str] =
    &["skein", "skein-lab-agent", "skein-lab-probe", "skein-demo-worker", "skein-demo-vote"];
/// How many builds' programs the cache holds.
const PROGRAM_IMAGES_MAX: usize = 8;
const STRIP_SECONDS: u32 = 120;
/// Part of what the root is made from: raised when the code that makes it changes.
const RECIPE: u32 = 2;

/// The image of the root, built where the cache does not have it.
///
/// # Errors
/// When this is not Debian or packages cannot be fetched.
pub fn root_image(cache: &Cache) -> Result<PathBuf> {
    let release = own_release()?;
    let made_from = format!(
        "{RECIPE} {release} {PACKAGES} {FILES:?} {LINKS:?} {USERS:?} {MERGED:?} {MOUNTED:?}"
    );
    let entry = cache.entry("root", &made_from, |folder| {
        tell("making the guests' root of Debian's packages, once");
        build_root(&release, folder)
    })?;
    Ok(entry.join("root.img"))
}

fn build_root(release: &str, folder: &Path) -> Result<()> {
    let (apt_folder, tree) = (folder.join("apt"), folder.join("tree"));
    for name in MERGED {
        let real = tree.join("usr").join(name);
        fs::create_dir_all(&real).with_context(|| format!("making {}", real.display()))?;
        link(&format!("usr/{name}"), &tree.join(name))?;
    }
    let updates = format!("{release}-updates");
    let apt = Apt::new(&apt_folder, &[release, &updates])?;
    let packages: Vec<&str> = names(PACKAGES).collect();
    apt.unpack_with_dependencies(&packages, &tree)?;
    for name in MOUNTED {
        let path = tree.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    }
    for (place, text, is_program) in FILES {
        write(&tree.join(place), text, *is_program)?;
    }
    for (place, target) in LINKS {
        let path = tree.join(place);
        if path.symlink_metadata().is_err() {
            link(target, &path)?;
        }
    }
    // The users that every Debian has; base-passwd copies them when it is set up.
    for (name, user) in USERS {
        let master = tree.join(format!("usr/share/base-passwd/{name}.master"));
        let text = fs::read_to_string(&master);
        let text = text.with_context(|| format!("reading {}", master.display()))?;
        write(&tree.join("etc").join(name), &format!("{text}{user}"), false)?;
    }
    for name in ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/i18n"] {
        let path = tree.join(name);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    make_image(&tree, &folder.join("root.img"))?;
    for path in [apt_folder, tree] {
        fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// The names of a list with comments.
pub(super) fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn link(target: &str, place: &Path) -> Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    symlink(target, place).with_context(|| format!("linking {}", place.display()))
}

/// Writes a file of an image, with its folder.
pub(super) fn write(place: &Path, text: &str, is_program: bool) -> Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(place, text).with_context(|| format!("writing {}", place.display()))?;
    let mode = fs::Permissions::from_mode(if is_program { 0o755 } else { 0o644 });
    fs::set_permissions(place, mode).with_context(|| format!("allowing {}", place.display()))
}

/// The image of this build's programs, rebuilt when one of them changed.
///
/// # Errors
/// When one was not built.
pub fn programs_image(cache: &Cache) -> Result<PathBuf> {
    let paths = PROGRAMS.iter().map(|name| program(name)).collect::<Result<Vec<_>>>()?;
    let mut made_from = String::new();
    for path in &paths {
        let data = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
        made_from += &format!("{} {} {:?}\n", path.display(), data.len(), data.modified()?);
    }
    let entry = cache.entry("programs", &made_from, |folder| {
        let files = folder.join("files");
        fs::create_dir(&files).with_context(|| format!("making {}", files.display()))?;
        for path in &paths {
            let place = files.join(path.file_name().unwrap_or_default());
            let (from, to) = (path.to_string_lossy(), place.to_string_lossy());
            run(STRIP_SECONDS, &["strip", "-o", &to, &from])?.ok()?;
        }
        make_image(&files, &folder.join("programs.img"))?;
        fs::remove_dir_all(&files).with_context(|| format!("removing {}", files.display()))
    })?;
    // Old ones may still be a running guest's: its monitor would miss them at a new start.
    cache.keep_newest("programs", PROGRAM_IMAGES_MAX)?;
    Ok(entry.join("programs.img"))
}

#[test]
fn lists_have_comments() {
    let list = "# why\n\nbash\n  coreutils \n";
    assert_eq!(names(list).collect::<Vec<_>>(), ["bash", "coreutils"]);
    assert!(names(PACKAGES).count() > 20);
}
