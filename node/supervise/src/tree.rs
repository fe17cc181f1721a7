//! Paths that the kernel resolves within a root: no link of an image leads out of it
//! (`RESOLVE_IN_ROOT`).

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

/// Links followed when a missing file is made behind them, as the kernel's own limit.
const LINKS_MAX: usize = 40;

/// `/proc/self/fd/N`, a path to exactly what the descriptor has open.
pub(crate) fn descriptor_path(descriptor: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// Opens a directory to name it, not to read it.
pub(crate) fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
}

/// Opens `path` as a process whose root is `root` would.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// The text of a file in `root`; empty where it cannot be read.
pub(crate) fn read_within(root: BorrowedFd<'_>, path: &str) -> String {
    let file = resolve(root, path, OFlag::O_RDONLY).map(fs::File::from);
    file.ok().and_then(|file| std::io::read_to_string(file).ok()).unwrap_or_default()
}

/// Makes the missing directories of `path`.
pub(crate) fn make_directories(root: BorrowedFd<'_>, path: &str) -> nix::Result<()> {
    let mut done = PathBuf::from("/");
    for component in Path::new(path).components().skip(1) {
        let parent = resolve(root, &done.to_string_lossy(), OFlag::O_PATH)?;
        done.push(component);
        match resolve(root, &done.to_string_lossy(), OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => {
                mkdirat(parent, component.as_os_str(), Mode::from_bits_truncate(0o755))?;
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Makes the file `path` where it is missing, behind dangling links too.
pub(crate) fn make_file(root: BorrowedFd<'_>, path: &str) -> nix::Result<()> {
    let mut path = PathBuf::from(path);
    for _ in 0..LINKS_MAX {
        match resolve(root, &path.to_string_lossy(), OFlag::O_PATH) {
            Err(Errno::ENOENT) => {}
            found => return found.map(drop),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EINVAL);
        };
        make_directories(root, &parent.to_string_lossy())?;
        let directory = resolve(root, &parent.to_string_lossy(), OFlag::O_PATH)?;
        match readlinkat(&directory, name) {
            Ok(target) => path = parent.join(target),
            Err(Errno::ENOENT) => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
                openat(&directory, name, flags, Mode::from_bits_truncate(0o644))?;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::ELOOP)
}
