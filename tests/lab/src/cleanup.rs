//! Removal that continues after a failure: all failures are collected and reported at the end.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};

/// Most failures that one error shows in full.
const TOLD_MAX: usize = 8;

/// The failures so far.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    /// Records the error of a step, if any.
    pub(crate) fn note<T>(&mut self, step: Result<T>) {
        self.0.extend(step.err().map(|error| format!("{error:#}")));
    }

    /// One error with all failures, if any.
    ///
    /// # Errors
    /// When a step failed.
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

/// Removes a folder with its contents, and unmounts what is mounted below it. Does nothing if the
/// folder does not exist.
///
/// # Errors
/// With what could not be removed; everything else is gone.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    let mut failures = Failures::default();
    for mounted in mounted_below(folder) {
        let done = umount2(&mounted, MntFlags::MNT_DETACH);
        failures.note(done.with_context(|| format!("unmounting {}", mounted.display())));
    }
    remove(folder, &mut failures);
    failures.result()
}

fn remove(path: &Path, failures: &mut Failures) {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.for_each(|entry| remove(&entry.path(), failures));
            fs::remove_dir(path)
        }
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // The cause has been recorded already.
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && !failures.0.is_empty() => {}
        other => failures.note(other.with_context(|| format!("removing {}", path.display()))),
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
    let mut failures = Failures::default();
    failures.note(Ok(()));
    assert!(Failures::default().result().is_ok());
    for number in 0..TOLD_MAX + 2 {
        failures.note::<()>(Err(anyhow::anyhow!("cause {number}").context("step")));
    }
    let error = failures.result().expect_err("ten complaints").to_string();
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
