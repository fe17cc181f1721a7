//! File systems in files: made from a folder without mounting anything.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command::run;

/// How long making a file system may take.
const MAKE_SECONDS: u32 = 300;
/// Room beyond the files for what ext4 keeps of its own.
const SPARE_KIB: u64 = 16 << 10;
/// Bytes of a guest's data disk; only what is written takes room.
pub const DATA_BYTES: u64 = 1 << 30;

/// Makes an image of a folder's files, for guests that only read it.
///
/// # Errors
/// When the folder cannot be read or mke2fs fails.
pub fn make_image(from: &Path, image: &Path) -> Result<()> {
    let shown = from.to_string_lossy();
    let told = run(MAKE_SECONDS, &["du", "-s", "--apparent-size", "-k", &shown])?.ok()?;
    let kib: u64 = told.split_whitespace().next().unwrap_or_default().parse()?;
    // Small files fill whole blocks of 4 KiB, which a sum of lengths does not tell.
    let count = run(MAKE_SECONDS, &["du", "-s", "--inodes", &shown])?.ok()?;
    let files: u64 = count.split_whitespace().next().unwrap_or_default().parse()?;
    let size = format!("{}k", kib + files * 4 + SPARE_KIB);
    let image = image.to_string_lossy();
    // No journal and no reserve: nobody writes to it.
    let words = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"];
    run(MAKE_SECONDS, &[&words[..], &[&shown, "-E", "root_owner=0:0", &image, &size]].concat())?
        .ok()?;
    Ok(())
}

/// Makes a data disk: empty, or with the files of a folder.
///
/// # Errors
/// When there is no room for it.
pub fn make_data_disk(image: &Path, from: Option<&Path>) -> Result<()> {
    let file = File::create(image).with_context(|| format!("making {}", image.display()))?;
    file.set_len(DATA_BYTES).with_context(|| format!("growing {}", image.display()))?;
    let shown = image.to_string_lossy();
    let from = from.map(Path::to_string_lossy);
    let mut words = vec!["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0"];
    words.extend(from.iter().flat_map(|from| ["-d", from]));
    words.push(&shown);
    let made = run(MAKE_SECONDS, &words)?.ok();
    if made.is_err() {
        fs::remove_file(image).with_context(|| format!("removing {}", image.display()))?;
    }
    made.map(|_| ())
}

#[test]
fn an_image_holds_the_files_of_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join("files");
    fs::create_dir(&files).expect("made");
    fs::write(files.join("word"), "here").expect("written");
    let image = folder.path().join("image");
    make_image(&files, &image).expect("an image");
    let words = ["debugfs", "-R", "cat word", &image.to_string_lossy()].map(str::to_owned);
    assert_eq!(run(20, &words).expect("debugfs runs").ok().expect("it reads"), "here");
    make_data_disk(&image, None).expect("a disk");
    assert_eq!(fs::metadata(&image).expect("a file").len(), DATA_BYTES);
    assert!(make_data_disk(&folder.path().join("missing/disk"), None).is_err());
}
