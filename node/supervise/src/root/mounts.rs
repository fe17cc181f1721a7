//! The mounts of a task's spec.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::stage::{PLAIN, Stage, missing};
use super::table;
use crate::failure::Failure;
use crate::layout::VOLUMES;
use crate::spec::{Mount, MountSource, Propagation};
use crate::sys;
use crate::tree::{descriptor_path, make_directories, make_file, open_directory};

/// Copies of the sources, by target, of mounts that the node's later mounts are to show in, or that
/// show on the node what the task mounts. To be made while this process' mounts are peers of the
/// node's still (mount_namespaces(7)).
pub(super) fn linked(mounts: &[Mount]) -> Result<BTreeMap<String, OwnedFd>, Failure> {
    let mut copies = BTreeMap::new();
    for Mount { target, source, .. } in mounts {
        let MountSource::Bind { path, create, alone, propagation } = source else { continue };
        if *propagation == Propagation::Private {
            continue;
        }
        drop(open_source(path, *create)?);
        let failed = |error| Failure::path("bind", &path.to_string_lossy(), error);
        let holder = table::holder(path).map_err(failed)?;
        let (wanted, is_linked) = match propagation {
            Propagation::Slave => ("shared or slave", holder.is_shared || holder.is_slave),
            Propagation::Private | Propagation::Shared => ("shared", holder.is_shared),
        };
        if !is_linked {
            let (path, point) = (path.display(), holder.point.display());
            let text = format!("bind source {path} is on {point}, which is not a {wanted} mount");
            return Err(Failure::new(Errno::EINVAL, text));
        }
        copies.insert(target.clone(), sys::copy_tree(path, !alone).map_err(failed)?);
    }
    Ok(copies)
}

/// Mounts what the spec says. A target that the image does not have is made.
pub(super) fn mount_on(
    stage: &Stage<'_>,
    mount: &Mount,
    linked: Option<&OwnedFd>,
) -> Result<(), Failure> {
    match (&mount.source, linked) {
        (MountSource::Tmpfs { size_bytes, mode }, _) => {
            make_directories(stage.root.as_fd(), &mount.target)
                .map_err(|error| missing(&mount.target, error))?;
            let size = size_bytes.map(|size| format!(",size={size}")).unwrap_or_default();
            let options = format!("mode={:o}{size}", mode.unwrap_or(0o1777));
            let flags = if mount.read_only { PLAIN | MsFlags::MS_RDONLY } else { PLAIN };
            stage.mount_at(&mount.target, ("tmpfs", flags, Some(&options)))
        }
        (MountSource::Volume { name, subpath }, _) => {
            let volume = open_volume(stage, name, subpath)?;
            make_target(stage, mount, &volume)?;
            bind(stage, mount, &volume, true)
        }
        (MountSource::Bind { path, create, alone, .. }, None) => {
            let source = open_source(path, *create)?;
            make_target(stage, mount, &source)?;
            bind(stage, mount, &source, !alone)
        }
        (MountSource::Bind { alone, propagation, .. }, Some(copy)) => {
            make_target(stage, mount, copy)?;
            attach(stage, mount, copy, (!alone, *propagation))
        }
    }
}

fn open_source(path: &Path, create: bool) -> Result<OwnedFd, Failure> {
    let text = path.to_string_lossy();
    if create && !path.exists() {
        fs::create_dir_all(path)
            .map_err(|error| Failure::path("make bind source", &text, Failure::number(&error)))?;
    }
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(|error| {
        match error {
            Errno::ENOENT => {
                Failure::new(error, format!("bind source path does not exist: {text}"))
            }
            error => Failure::path("open bind source", &text, error),
        }
    })
}

/// The volume, or a path in it. No link leads out of it.
fn open_volume(stage: &Stage<'_>, name: &str, subpath: &str) -> Result<OwnedFd, Failure> {
    let path = stage.launch.data_dir.join(VOLUMES).join(name);
    let failed = |error| Failure::setup(&format!("open volume {name}"), error);
    fs::create_dir_all(&path).map_err(|error| failed(Failure::number(&error)))?;
    let volume = open_directory(&path).map_err(failed)?;
    if subpath.is_empty() {
        return Ok(volume);
    }
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(&volume, subpath, how).map_err(|error| match error {
        Errno::ENOENT => Failure::new(
            error,
            format!("subpath {subpath:?} of volume {name} does not exist: make it there first"),
        ),
        Errno::EXDEV => {
            Failure::new(error, format!("subpath {subpath:?} leads out of volume {name}"))
        }
        error => Failure::path(&format!("open in volume {name}"), subpath, error),
    })
}

fn make_target(stage: &Stage<'_>, mount: &Mount, source: &OwnedFd) -> Result<(), Failure> {
    let kind = fstat(source).map(|found| SFlag::from_bits_truncate(found.st_mode));
    let is_directory = kind.is_ok_and(|kind| kind & SFlag::S_IFMT == SFlag::S_IFDIR);
    let make = if is_directory { make_directories } else { make_file };
    make(stage.root.as_fd(), &mount.target).map_err(|error| missing(&mount.target, error))
}

fn attributes(mount: &Mount) -> u64 {
    let read_only = if mount.read_only { sys::ATTRIBUTE_READ_ONLY } else { 0 };
    read_only | sys::ATTRIBUTE_NO_SUID | sys::ATTRIBUTE_NO_DEVICES
}

fn bind(
    stage: &Stage<'_>,
    mount: &Mount,
    source: &OwnedFd,
    recursive: bool,
) -> Result<(), Failure> {
    let source = descriptor_path(source.as_fd());
    stage.bind_with(&source, &mount.target, attributes(mount), recursive)
}

fn attach(
    stage: &Stage<'_>,
    wanted: &Mount,
    copy: &OwnedFd,
    (recursive, propagation): (bool, Propagation),
) -> Result<(), Failure> {
    let attached = || -> nix::Result<()> {
        let target = stage.find(&wanted.target)?;
        sys::attach_tree(copy.as_fd(), target.as_fd())?;
        // The path now leads to the mount; the descriptor still to what it covers.
        let mounted = stage.find(&wanted.target)?;
        let path = descriptor_path(mounted.as_fd());
        sys::set_mount_attributes(&path, attributes(wanted), recursive)?;
        if propagation == Propagation::Slave {
            let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
            mount(None::<&str>, &path, None::<&str>, slave, None::<&str>)?;
        }
        Ok(())
    };
    attached().map_err(|error| Failure::path("mount on", &wanted.target, error))
}
