//! What is built once and used by many runs: kernels and images, outside the checkout.
//!
//! An entry's name carries a digest of all it is made from, so that an entry is never out of date:
//! what changed has another name. It is built in a sibling folder and renamed when it is
//! complete; builders of one entry take turns.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::command::run_with_input;

/// Hexadecimal digits of a digest that a name carries.
const DIGEST_DIGITS: usize = 16;

/// A folder of entries.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache of this user: `SKEIN_CACHE`, or `skein` in `XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    /// When none of these is set, or the folder cannot be made.
    pub fn of_user() -> Result<Self> {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = named("SKEIN_CACHE")
            .map(PathBuf::from)
            .or_else(|| named("XDG_CACHE_HOME").map(|home| Path::new(&home).join("skein")))
            .or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache/skein")))
            .context("there is no place for images: set SKEIN_CACHE to a folder")?;
        Self::new(folder)
    }

    /// A cache in a folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Where its entries lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the entry `what` made from `made_from`; `build` fills it where it is missing.
    ///
    /// # Errors
    /// When building fails; nothing of it stays.
    pub fn entry(
        &self,
        what: &str,
        made_from: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let name = format!("{what}-{}", digest(made_from)?);
        let place = self.folder.join(&name);
        if place.exists() {
            return Ok(place);
        }
        let _turn = self.lock(&name)?;
        // Another builder may have been faster while this one waited.
        if place.exists() {
            return Ok(place);
        }
        let unfinished = self.folder.join(format!("{name}.unfinished"));
        remove(&unfinished)?;
        fs::create_dir(&unfinished).with_context(|| format!("making {}", unfinished.display()))?;
        let built = build(&unfinished).with_context(|| format!("building {name}"));
        if let Err(error) = built {
            remove(&unfinished)?;
            return Err(error);
        }
        fs::rename(&unfinished, &place).with_context(|| format!("naming {}", place.display()))?;
        Ok(place)
    }

    /// Removes the oldest entries called `what`, until `count` are left.
    ///
    /// # Errors
    /// When one stays.
    pub fn keep_newest(&self, what: &str, count: usize) -> Result<()> {
        let mut entries = Vec::new();
        for entry in self.folder.read_dir().context("listing the cache")? {
            let path = entry.context("listing the cache")?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let digest = name.strip_prefix(what).and_then(|rest| rest.strip_prefix('-'));
            if digest.is_some_and(|digest| digest.len() == DIGEST_DIGITS) {
                // One that another process removed meanwhile has no time.
                let made = fs::metadata(&path).and_then(|data| data.modified());
                entries.extend(made.ok().map(|made| (made, path)));
            }
        }
        entries.sort();
        let spare = entries.len().saturating_sub(count);
        entries.iter().take(spare).try_for_each(|(_, path)| remove(path))
    }

    fn lock(&self, name: &str) -> Result<Flock<File>> {
        let path = self.folder.join(format!("{name}.lock"));
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        locked.map_err(|(_, errno)| errno).with_context(|| format!("locking {}", path.display()))
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn digest(text: &str) -> Result<String> {
    let told = run_with_input(20, &["sha256sum"], text)?.ok()?;
    Ok(told.chars().take(DIGEST_DIGITS).collect())
}

/// Tells a person, who waits, what takes long.
pub fn tell(what: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stderr(), "skein-vm: {what}");
}

#[test]
fn an_entry_is_built_once_for_what_it_is_made_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::new(folder.path().join("cache")).expect("a cache");
    let build = |text: &'static str| {
        move |folder: &Path| fs::write(folder.join("file"), text).map_err(Into::into)
    };
    let one = cache.entry("image", "a", build("first")).expect("it is built");
    let again = cache.entry("image", "a", build("second")).expect("it is there");
    assert_eq!(one, again);
    assert_eq!(fs::read_to_string(one.join("file")).expect("a file"), "first");
    let other = cache.entry("image", "b", build("other")).expect("it is built");
    assert_ne!(one, other);
    cache.keep_newest("image", 2).expect("both stay");
    assert!(one.exists() && other.exists());
    cache.keep_newest("image", 1).expect("the old one goes");
    assert!(!one.exists() && other.exists());
}

#[test]
fn a_build_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::new(folder.path().to_owned()).expect("a cache");
    let error = cache.entry("image", "a", |folder| {
        fs::write(folder.join("half"), "")?;
        anyhow::bail!("no network")
    });
    assert!(format!("{:#}", error.expect_err("it fails")).contains("no network"));
    let entries = folder.path().read_dir().expect("a folder").flatten();
    let folders: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    assert!(folders.is_empty(), "{folders:?}");
    assert!(cache.entry("image", "a", |_| Ok(())).is_ok(), "it can be built afterwards");
}
