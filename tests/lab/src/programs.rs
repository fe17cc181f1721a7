//! The programs of this build: their folder, and the copies that the tasks of a lab run.
//!
//! A checkout may be anywhere: below /tmp, which is private to each task; in a home directory that
//! other users cannot enter; on a file system mounted noexec. So a lab runs copies, in a folder
//! that every task and every user can read.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::statvfs::{FsFlags, statvfs};

/// The folder of a lab's programs, in the lab's own.
const FOLDER: &str = "programs";
/// What a task does not see of its node (node/supervise/src/root/stage.rs, `RENEWED`).
const HIDDEN: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// The checkout that this program was built from.
#[must_use]
pub fn checkout() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

/// The folder of the build that this program belongs to: `target/debug` or `target/release`.
///
/// # Errors
/// When this program does not lie in one.
pub fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut folder = own.parent().context("this program has no folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("deps has no parent")?;
    }
    Ok(folder.to_owned())
}

/// A program of the same build as this one.
///
/// # Errors
/// When it was not built, or its sources are newer than it.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = target_folder()?.join(name);
    let Ok(built) = fs::metadata(&path).and_then(|data| data.modified()) else {
        bail!("{} is missing: run make build first", path.display());
    };
    // Cargo writes a list of each program's sources into a file next to it.
    let list = fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    if let Some(newer) = newer_source(&list, built) {
        let path = path.display();
        bail!("{path} is older than {}: run make build first", newer.display());
    }
    Ok(path)
}

/// A lab's copy of a program, for its daemons and tasks. It is made where the build has another
/// one than the lab; processes that run keep the one they have.
///
/// # Errors
/// When the program was not built, or tasks could not run it where the lab lies.
pub(crate) fn installed(lab: &Path, name: &str) -> Result<PathBuf> {
    let built = program(name)?;
    let folder = lab.join(FOLDER);
    let place = folder.join(name);
    if same(&built, &place)? {
        return Ok(place);
    }
    open_to_all(lab)?;
    open_to_all(&folder)?;
    check_place(&folder)?;
    let unfinished = folder.join(format!(".{name}.{}", std::process::id()));
    copy(&built, &unfinished)
        .and_then(|()| fs::rename(&unfinished, &place).context("renaming it"))
        .with_context(|| format!("copying {} to {}", built.display(), place.display()))?;
    Ok(place)
}

/// Whether the copy is of this program: a copy has its length and time.
fn same(built: &Path, copy: &Path) -> Result<bool> {
    let Ok(copied) = fs::metadata(copy) else { return Ok(false) };
    let data = fs::metadata(built).with_context(|| format!("looking at {}", built.display()))?;
    Ok(data.len() == copied.len() && data.modified()? == copied.modified()?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).context("copying it")?;
    fs::set_permissions(to, Permissions::from_mode(0o755)).context("letting all run it")?;
    let time = fs::metadata(from).and_then(|data| data.modified()).context("reading its time")?;
    let copy = File::options().append(true).open(to).context("opening the copy")?;
    copy.set_modified(time).context("keeping its time")
}

/// Makes a folder that tasks of any user may enter, whatever the caller's umask is.
fn open_to_all(folder: &Path) -> Result<()> {
    let made = fs::create_dir_all(folder);
    made.with_context(|| format!("making {}", folder.display()))?;
    let opened = fs::set_permissions(folder, Permissions::from_mode(0o755));
    opened.with_context(|| format!("letting all enter {}", folder.display()))
}

fn check_place(folder: &Path) -> Result<()> {
    let real = folder.canonicalize().with_context(|| format!("finding {}", folder.display()))?;
    let shown = real.display();
    let hidden = HIDDEN.iter().find(|hidden| real.starts_with(hidden));
    ensure!(
        hidden.is_none(),
        "{} leads to {shown}, and tasks have another {}: let it lead elsewhere",
        folder.display(),
        hidden.unwrap_or(&"/")
    );
    let system = statvfs(&real).with_context(|| format!("looking at the disk of {shown}"))?;
    ensure!(
        !system.flags().contains(FsFlags::ST_NOEXEC),
        "{shown} is on a file system that forbids programs (noexec): mount it without"
    );
    Ok(())
}

/// The first source in a dep-info list (`target: source source …`) that changed after `built`.
fn newer_source(list: &str, built: SystemTime) -> Option<PathBuf> {
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    sources(list).into_iter().find(|path| changed(path).is_some_and(|time| time > built))
}

/// The sources of a dep-info list. A space of a path stands there as `\ `.
fn sources(list: &str) -> Vec<PathBuf> {
    const SPACE: &str = "\0";
    let list = list.replace("\\ ", SPACE);
    let sources = list.split_once(": ").map(|(_, sources)| sources).unwrap_or_default();
    sources.split_whitespace().map(|source| source.replace(SPACE, " ").into()).collect()
}

#[test]
fn a_source_newer_than_its_program_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("ma in.rs");
    fs::write(&source, "").expect("written");
    let shown = source.display().to_string().replace(' ', "\\ ");
    let list = format!("/a\\ b:\\ c/target/debug/x: /no/such/lib.rs {shown}\n");
    assert_eq!(newer_source(&list, SystemTime::UNIX_EPOCH), Some(source.clone()));
    let later = fs::metadata(&source).and_then(|data| data.modified()).expect("a time");
    let later = later + std::time::Duration::from_secs(1);
    assert_eq!(newer_source(&list, later), None);
    assert_eq!(newer_source("", SystemTime::UNIX_EPOCH), None);
}

#[test]
fn a_copy_is_known_for_one_until_the_program_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (built, copied) = (folder.path().join("a"), folder.path().join("b"));
    fs::write(&built, "one").expect("written");
    assert!(!same(&built, &copied).expect("compared"));
    copy(&built, &copied).expect("copied");
    assert!(same(&built, &copied).expect("compared"));
    let mode = fs::metadata(&copied).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    fs::write(&built, "two!").expect("written");
    assert!(!same(&built, &copied).expect("compared"));
}

#[test]
fn a_place_that_tasks_do_not_see_is_refused() {
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    let error = check_place(folder.path()).expect_err("tasks do not see it").to_string();
    assert!(error.contains("tasks have another /tmp"), "{error}");
}
