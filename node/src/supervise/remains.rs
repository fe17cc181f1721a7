//! What is left of a task when it has ended, and how it is removed. The logs are not among it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::netns::{self, SANDBOX_PREFIX};
use super::root::{LAYERS, WORKS};
use super::status::Launch;
use crate::executor::cgroup;

/// The file that names the task's sandbox.
pub(crate) fn namespace_file(launch: &Launch) -> PathBuf {
    let name = format!("{SANDBOX_PREFIX}{}", launch.spec.task);
    launch.run_dir.join(netns::DIRECTORY).join(name)
}

/// The task's private writable directory, as the node sees it.
pub(crate) fn work_directory(launch: &Launch) -> PathBuf {
    launch.data_dir.join(WORKS).join(&launch.spec.task)
}

/// What the task has changed in its root, as the node sees it.
pub(crate) fn layer_directory(launch: &Launch) -> PathBuf {
    launch.data_dir.join(LAYERS).join(&launch.spec.task)
}

/// Removes everything of the task but its logs; its directory last, because that is what a later
/// attempt starts from. Goes on after an error and returns the first.
pub(crate) fn remove(launch: &Launch, task_dir: &Path) -> io::Result<()> {
    let results = [
        netns::withdraw(&namespace_file(launch)),
        remove_tree(&work_directory(launch)),
        remove_tree(&layer_directory(launch)),
        cgroup::remove(&launch.spec.task, &launch.spec.limits),
    ];
    results.into_iter().collect::<io::Result<Vec<()>>>()?;
    remove_tree(task_dir)
}

/// Removes a directory with all in it. None is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
