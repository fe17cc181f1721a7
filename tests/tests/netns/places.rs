//! Labs from checkouts in unusual places. Only the folder of the programs matters: each place gets
//! this build's programs and runs the demo, whose tasks run some of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lab::command::run;
use lab::kinds::folder_of;
use lab::{program, sweep};

use crate::stage::turn;

/// The demo's lab.
const NAME: &str = "skein-demo";
/// What the demo runs.
const PROGRAMS: [&str; 4] = ["skein", "skein-demo", "skein-demo-worker", "skein-demo-vote"];
const SECONDS: u32 = 120;
/// Longer than the path of a socket may be (unix(7)).
const LONG: usize = 150;

/// Folders that are gone when this value is, with what is mounted on them.
#[derive(Default)]
struct Folders {
    made: Vec<PathBuf>,
    mounted: Vec<PathBuf>,
}

impl Folders {
    fn make(&mut self, path: &Path) -> Result<PathBuf> {
        ensure!(!path.exists(), "{} is there already", path.display());
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        self.made.push(path.to_owned());
        Ok(path.to_owned())
    }

    fn mount(&mut self, path: &Path) -> Result<()> {
        let shown = path.to_string_lossy();
        run(10, &["mount", "-t", "tmpfs", "-o", "size=2g", "skein-places", &shown])?.ok()?;
        self.mounted.push(path.to_owned());
        Ok(())
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            let left = run(10, &["umount", &path.to_string_lossy()]).and_then(|output| output.ok());
            assert!(left.is_ok() || std::thread::panicking(), "{left:?}");
        }
        for path in &self.made {
            let left = fs::remove_dir_all(path);
            assert!(left.is_ok() || std::thread::panicking(), "{left:?}");
        }
    }
}

/// Goal: a lab can be made from any checkout. Method: the demo on one node, from programs that lie
/// in each kind of place; it fails unless its tasks, which are such programs, run and answer.
#[test]
fn a_lab_is_made_from_checkouts_in_odd_places() {
    let _turn = turn();
    for (what, place) in [
        ("below /tmp", below_tmp as fn(&mut Folders) -> Result<PathBuf>),
        ("spaces and other letters than ASCII", odd_letters),
        ("behind a link", behind_a_link),
        ("on another file system, read-only", read_only),
        ("in a home that nobody else may enter", private),
        ("in a path longer than a socket's may be", long),
    ] {
        let mut folders = Folders::default();
        let played = place(&mut folders).and_then(|place| play(&place));
        let swept = sweep(NAME, &folder_of(NAME));
        played.and(swept).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
}

fn base(what: &str) -> PathBuf {
    Path::new("/var/tmp").join(format!("skein-places-{}-{what}", std::process::id()))
}

/// Puts the programs into a folder, and gives it.
fn fill(folder: PathBuf) -> Result<PathBuf> {
    for name in PROGRAMS {
        fs::copy(program(name)?, folder.join(name)).with_context(|| format!("copying {name}"))?;
    }
    Ok(folder)
}

fn below_tmp(folders: &mut Folders) -> Result<PathBuf> {
    let path = Path::new("/tmp").join(format!("skein-places-{}", std::process::id()));
    folders.make(&path).and_then(fill)
}

fn odd_letters(folders: &mut Folders) -> Result<PathBuf> {
    folders.make(&base("a folder, größer 東京: 'x' \"y\"")).and_then(fill)
}

fn behind_a_link(folders: &mut Folders) -> Result<PathBuf> {
    let folder = folders.make(&base("link"))?;
    let (real, link) = (folder.join("real"), folder.join("link"));
    fs::create_dir(&real)?;
    symlink(&real, &link)?;
    fill(link)
}

fn read_only(folders: &mut Folders) -> Result<PathBuf> {
    let folder = folders.make(&base("disk"))?;
    folders.mount(&folder)?;
    let folder = fill(folder)?;
    run(10, &["mount", "-o", "remount,ro", &folder.to_string_lossy()])?.ok()?;
    Ok(folder)
}

fn private(folders: &mut Folders) -> Result<PathBuf> {
    let folder = folders.make(&base("home"))?;
    run(10, &["chmod", "700", &folder.to_string_lossy()])?.ok()?;
    fill(folder)
}

fn long(folders: &mut Folders) -> Result<PathBuf> {
    folders.make(&base(&"x".repeat(LONG))).and_then(fill)
}

fn play(place: &Path) -> Result<()> {
    let demo = place.join("skein-demo");
    let told = run(SECONDS, &[&demo.to_string_lossy(), "up", "--nodes", "1"])?.ok()?;
    for word in ["failed calls: 0", "the task saw client 192.168.50.100"] {
        ensure!(told.contains(word), "{word:?} is not in {told}");
    }
    let down = run(SECONDS, &[&demo.to_string_lossy(), "down"])?.ok()?;
    ensure!(down.contains("gone") && !folder_of(NAME).exists(), "{down}");
    Ok(())
}
