//! What could not be removed: a failure does not keep the rest from being removed, and is told at
//! the end with all others.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};

/// Most complaints that one error tells in full.
const TOLD_MAX: usize = 8;

/// The complaints so far.
#[derive(Debug, Default)]
pub(crate) struct Left(Vec<String>);

impl Left {
    /// Takes the complaint of a step, if it has one.
    pub(crate) fn note<T>(&mut self, step: Result<T>) {
        self.0.extend(step.err().map(|error| format!("{error:#}")));
    }

    /// Nothing, or one error with all complaints.
    ///
    /// # Errors
    /// When a step had one.
    pub(crate) fn result(self) -> Result<()> {
        let more = self.0.len().saturating_sub(TOLD_MAX);
        let told = self.0.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("; ");
        match (self.0.len(), more) {
            (0, _) => Ok(()),
            (_, 0) => bail!("{told}"),
            (_, more) => bail!("{told}; and {more} more"),
        }
    }
}

/// Removes a folder with all that is in it or mounted below it. Where there is none, nothing is
/// done.
///
/// # Errors
/// With what stays; all else is gone.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    let mut left = Left::default();
    for mounted in mounted_below(folder) {
        let done = umount2(&mounted, MntFlags::MNT_DETACH);
        left.note(done.with_context(|| format!("unmounting {}", mounted.display())));
    }
    remove(folder, &mut left);
    left.result()
}

fn remove(path: &Path, left: &mut Left) {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.for_each(|entry| remove(&entry.path(), left));
            fs::remove_dir(path)
        }
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // What keeps it is told by itself.
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && !left.0.is_empty() => {}
        other => left.note(other.with_context(|| format!("removing {}", path.display()))),
    }
}

/// What this process sees mounted in a folder, the newest first.
fn mounted_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = points(&table).filter(|at| at.starts_with(folder)).collect();
    found.reverse();
    found
}

/// The mount points of a table; a space, a tab, a line's end and a backslash stand there in octal
/// (proc(5)).
fn points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| {
        let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        escapes.iter().fold(point.to_owned(), |text, (from, to)| text.replace(from, to)).into()
    })
}

#[test]
fn one_failure_hides_no_other() {
    let mut left = Left::default();
    left.note(Ok(()));
    assert!(Left::default().result().is_ok());
    for number in 0..TOLD_MAX + 2 {
        left.note::<()>(Err(anyhow::anyhow!("cause {number}").context("step")));
    }
    let error = left.result().expect_err("ten complaints").to_string();
    assert!(error.contains("step: cause 0; step: cause 1"), "{error}");
    assert!(error.ends_with("and 2 more"), "{error}");
}

#[test]
fn a_folder_is_removed_with_its_links_and_not_what_they_lead_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let (lab, stranger) = (folder.path().join("lab"), folder.path().join("stranger"));
    for made in [&lab.join("a/b"), &stranger.join("c")] {
        fs::create_dir_all(made).expect("a folder");
    }
    std::os::unix::fs::symlink(&stranger, lab.join("a/link")).expect("a link");
    remove_folder(&lab).expect("all of it");
    assert!(!lab.exists() && stranger.join("c").exists());
    remove_folder(&lab).expect("there is none");
}

#[test]
fn mount_points_are_read() {
    let table = "30 1 8:1 / / rw - ext4 d rw\n31 30 0:5 / /a\\040b/c rw - tmpfs t rw\n";
    let found: Vec<PathBuf> = points(table).collect();
    assert_eq!(found, [Path::new("/"), Path::new("/a b/c")]);
}
