//! What is left of a task when it has ended, and how it is removed. The logs are not among it.

use std::fs;
use std::io;
use std::path::Path;

use crate::status::Launch;
use crate::{cgroup, netns};

/// Removes everything of the task but its logs; its directory last, because that is what a later
/// attempt starts from. Goes on after an error and returns the first.
pub(crate) fn remove(launch: &Launch, task_dir: &Path) -> io::Result<()> {
    let results = [netns::withdraw(&launch.namespace_file()), remove_of_task(launch)];
    results.into_iter().collect::<io::Result<Vec<()>>>()?;
    remove_tree(task_dir)
}

/// Removes what running the task has left, but not its sandbox. Goes on after an error and returns
/// the first.
pub(crate) fn remove_of_task(launch: &Launch) -> io::Result<()> {
    let results = [
        remove_tree(&launch.work_directory()),
        remove_tree(&launch.layer_directory()),
        cgroup::remove(&launch.spec.task, &launch.spec.limits),
    ];
    results.into_iter().collect()
}

/// Removes a directory with all in it. None is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
