//! The root while it is put together, in the task's own mount namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chown, pivot_root};

use super::{layer, table};
use crate::failure::Failure;
use crate::layout::{FILES, IMAGE, STAGE, VOLUMES, WORK};
use crate::spec::Root;
use crate::status::Launch;
use crate::sys;
use crate::tree::{
    descriptor_path, make_directories, make_file, open_directory, read_within, resolve,
};
use crate::user::{self, Identity};

/// The size of a task's private /tmp.
const TMP_OPTIONS: &str = "mode=1777,size=1g";
/// The size of a task's private /run.
const RUN_OPTIONS: &str = "mode=755,size=64m";
/// Directories that the task gets new, so that what the node has mounted there goes.
const RENEWED: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// A mount without anything special.
pub(super) const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// The root while it is put together.
pub(super) struct Stage<'a> {
    pub(super) launch: &'a Launch,
    task_dir: &'a Path,
    pub(super) root: OwnedFd,
    path: PathBuf,
    /// Where the root shows what the node keeps about the cluster.
    state: Vec<String>,
}

impl<'a> Stage<'a> {
    pub(super) fn open(launch: &'a Launch, task_dir: &'a Path) -> Result<Self, Failure> {
        let (source, image) = (source(&launch.spec.root), task_dir.join(IMAGE));
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|error| Failure::setup("make the mounts private", error))?;
        let bind = MsFlags::MS_REC | MsFlags::MS_BIND;
        mount(Some(source), &image, None::<&str>, bind, None::<&str>).map_err(|error| {
            Failure::path("use as root the directory", &source.to_string_lossy(), error)
        })?;
        refuse_state(launch, &image, source)?;
        let state = take_away(launch, &image, source)
            .map_err(|error| Failure::setup("take the node's own mounts away", error))?;
        let attributes = sys::ATTRIBUTE_READ_ONLY | sys::ATTRIBUTE_NO_DEVICES;
        sys::set_mount_attributes(&image, attributes, true)
            .map_err(|error| Failure::setup("make the image read-only", error))?;
        let path = task_dir.join(STAGE);
        layer::mount_over(&image, &path, &launch.layer_directory(), task_dir)?;
        let root = open_directory(&path).map_err(|error| Failure::setup("open the root", error))?;
        for path in RENEWED {
            make_directories(root.as_fd(), path).map_err(|error| missing(path, error))?;
        }
        Ok(Stage { launch, task_dir, root, path, state })
    }

    pub(super) fn find(&self, path: &str) -> nix::Result<OwnedFd> {
        resolve(self.root.as_fd(), path, OFlag::O_PATH)
    }

    pub(super) fn mount_at(
        &self,
        path: &str,
        kind: (&str, MsFlags, Option<&str>),
    ) -> Result<(), Failure> {
        let (file_system, flags, options) = kind;
        self.find(path)
            .and_then(|target| {
                let target = descriptor_path(target.as_fd());
                mount(Some(file_system), &target, Some(file_system), flags, options)
            })
            .map_err(|error| Failure::path(&format!("mount {file_system} on"), path, error))
    }

    pub(super) fn mount_own(&self) -> Result<(), Failure> {
        let quiet = PLAIN | MsFlags::MS_NOEXEC;
        self.mount_at("/proc", ("proc", quiet, None))?;
        self.mount_at("/sys", ("sysfs", quiet | MsFlags::MS_RDONLY, None))?;
        self.mount_at("/tmp", ("tmpfs", PLAIN, Some(TMP_OPTIONS)))?;
        self.mount_at("/run", ("tmpfs", PLAIN, Some(RUN_OPTIONS)))
    }

    /// Binds `source` with what is mounted below it over `path`; both must exist.
    pub(super) fn bind(&self, source: &Path, path: &str, attributes: u64) -> Result<(), Failure> {
        self.bind_with(source, path, attributes, true)
    }

    pub(super) fn bind_with(
        &self,
        source: &Path,
        path: &str,
        attributes: u64,
        recursive: bool,
    ) -> Result<(), Failure> {
        let failed = |error| Failure::path("mount on", path, error);
        let target = self.find(path).map_err(failed)?;
        let deep = if recursive { MsFlags::MS_REC } else { MsFlags::empty() };
        let bind = MsFlags::MS_BIND | deep;
        let target = descriptor_path(target.as_fd());
        mount(Some(source), &target, None::<&str>, bind, None::<&str>).map_err(failed)?;
        // The path now leads to the mount; the descriptor still to what it covers.
        let mounted = self.find(path).map_err(failed)?;
        sys::set_mount_attributes(&descriptor_path(mounted.as_fd()), attributes, recursive)
            .map_err(failed)
    }

    pub(super) fn mount_files(&self) -> Result<(), Failure> {
        let attributes =
            sys::ATTRIBUTE_READ_ONLY | sys::ATTRIBUTE_NO_SUID | sys::ATTRIBUTE_NO_DEVICES;
        for name in ["hosts", "hostname", "resolv.conf"] {
            let path = format!("/etc/{name}");
            make_file(self.root.as_fd(), &path).map_err(|error| missing(&path, error))?;
            self.bind(&self.task_dir.join(FILES).join(name), &path, attributes)?;
        }
        Ok(())
    }

    /// Covers what the node keeps about the cluster, keys and all, where the root shows it.
    pub(super) fn mask_state(&self) -> Result<(), Failure> {
        for path in &self.state {
            match self.find(path) {
                // A private /run or /tmp covers it already.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => return Err(Failure::path("cover", path, error)),
                Ok(_there) => {
                    let flags = PLAIN | MsFlags::MS_RDONLY;
                    self.mount_at(path, ("tmpfs", flags, Some("mode=755,size=4k")))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn mount_work(&self) -> Result<(), Failure> {
        let identity = self.identity()?;
        let work = self.launch.work_directory();
        let failed = |error| Failure::path("make the working directory", WORK, error);
        chown(&work, Some(identity.uid.into()), Some(identity.gid.into())).map_err(failed)?;
        make_directories(self.root.as_fd(), WORK).map_err(failed)?;
        let read_only = if self.launch.spec.read_only { sys::ATTRIBUTE_READ_ONLY } else { 0 };
        self.bind(&work, WORK, read_only | sys::ATTRIBUTE_NO_SUID | sys::ATTRIBUTE_NO_DEVICES)
    }

    fn identity(&self) -> Result<Identity, Failure> {
        let spec = &self.launch.spec;
        let read = |path| read_within(self.root.as_fd(), path);
        user::resolve(spec.user.as_deref(), &spec.groups, &read("/etc/passwd"), &read("/etc/group"))
    }

    /// Makes the stage the root, and the node's tree unreachable (pivot_root(2), the example with
    /// one directory for both).
    pub(super) fn pivot(self) -> Result<(), Failure> {
        let entered = chdir(&self.path)
            .and_then(|()| pivot_root(".", "."))
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .and_then(|()| chdir("/"));
        entered.map_err(|error| Failure::setup("enter the root", error))
    }
}

fn source(root: &Root) -> &Path {
    match root {
        Root::Host => Path::new("/"),
        Root::Directory(path) => path,
    }
}

/// Takes from the copy of a tree at `image` what the node has mounted for itself, and tells where
/// the root shows what the node keeps about the cluster.
fn take_away(launch: &Launch, image: &Path, source: &Path) -> nix::Result<Vec<String>> {
    let mut hidden: Vec<PathBuf> =
        RENEWED.iter().map(|renewed| image.join(renewed.trim_start_matches('/'))).collect();
    let mut state = Vec::new();
    for directory in [&launch.run_dir, &launch.data_dir] {
        let copies = table::copies(image, directory)?;
        state.extend(copies.whole);
        hidden.extend(copies.parts);
        // The table does not have this process' root where that is no mount (chroot(2)).
        let own = inside(source, directory).map(|below| image.join(below));
        state.extend(own.filter(|own| !state.contains(own)));
    }
    hidden.extend(state.iter().cloned());
    table::detach_below(image, &hidden)?;
    let below = state.iter().filter_map(|path| path.strip_prefix(image).ok());
    Ok(below.map(|below| format!("/{}", below.display())).collect())
}

/// Refuses a root that is the daemon's state by another mount of it; the volumes in it may be one.
fn refuse_state(launch: &Launch, staged: &Path, source: &Path) -> Result<(), Failure> {
    let is_in = |directory: &Path| {
        let copies = table::copies(staged, directory)
            .map_err(|error| Failure::setup("read the mounts", error))?;
        Ok(copies.whole.iter().chain(&copies.parts).any(|copy| copy == staged))
    };
    let is_state = is_in(&launch.run_dir)? || is_in(&launch.data_dir)?;
    if is_state && !is_in(&launch.data_dir.join(VOLUMES))? {
        let what = "use as root the daemon's own state, behind";
        return Err(Failure::path(what, &source.to_string_lossy(), Errno::EACCES));
    }
    Ok(())
}

/// `directory` as a path below `root`, where it lies there.
fn inside(root: &Path, directory: &Path) -> Option<PathBuf> {
    let root = root.canonicalize().ok()?;
    let below = directory.strip_prefix(root).ok()?.to_owned();
    Some(below).filter(|path| !path.as_os_str().is_empty())
}

pub(super) fn missing(path: &str, error: Errno) -> Failure {
    match error {
        Errno::EROFS => Failure::new(
            error,
            format!(
                "mount target {path} does not exist and what is mounted above it is read-only: \
                 make it there on the node, or use another target"
            ),
        ),
        error => Failure::path("make mount target", path, error),
    }
}
