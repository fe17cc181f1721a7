//! The Unix sockets that the API listens on, and where they are.
//!
//! A task of the image `host` sees the node's files, and who reaches the API has the node. What
//! tasks see of the run and the data directory is covered, and stays so when a socket in them is
//! made again. So every socket is in the run directory, and one that is wanted elsewhere is a link
//! to it: a client of the node follows the link, in a task it leads nowhere.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::unistd::Group;
use tokio::net::{UnixListener, UnixStream};

use crate::config::Config;

/// The API sockets' mode, Docker's.
const SOCKET_MODE: u32 = 0o660;
/// The group that may use them.
const SOCKET_GROUP: &str = "skein";
/// Below the run directory: those that links lead to.
const LINKED: &str = "api";

/// One socket that was bound.
#[derive(Debug)]
pub(crate) struct ApiSocket {
    /// Where clients find it.
    pub(crate) path: PathBuf,
    /// What is taken away when the daemon ends.
    files: Vec<PathBuf>,
}

impl ApiSocket {
    /// Removes the socket, and the link to it.
    pub(crate) fn remove(&self) {
        for file in &self.files {
            // A next start replaces what stays.
            let _ = fs::remove_file(file);
        }
    }
}

/// Binds all sockets of the settings.
///
/// # Errors
/// When one cannot be bound, or another daemon listens there.
pub(crate) async fn bind_all(config: &Config) -> anyhow::Result<Vec<(ApiSocket, UnixListener)>> {
    let mut bound = Vec::new();
    for (number, path) in config.sockets.iter().enumerate() {
        let directory = path.parent().unwrap_or(Path::new("/"));
        make_directory(directory)?;
        let directory = directory.canonicalize()?;
        let covered = [&config.run_dir, &config.data_dir]
            .iter()
            .any(|own| own.canonicalize().is_ok_and(|own| directory.starts_with(own)));
        clear(path, &config.run_dir).await?;
        let (mut files, mut place) = (vec![path.clone()], path.clone());
        if !covered {
            place = config.run_dir.join(LINKED).join(format!("{number}.sock"));
            make_directory(&config.run_dir.join(LINKED))?;
            clear(&place, &config.run_dir).await?;
            files.push(place.clone());
        }
        let listener = listen(&place)?;
        if !covered {
            let target = place.canonicalize()?;
            symlink(target, path).with_context(|| format!("link {}", path.display()))?;
        }
        bound.push((ApiSocket { path: path.clone(), files }, listener));
    }
    Ok(bound)
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make directory {}", path.display()))
}

/// Makes room for a socket where an earlier daemon has left one, or a link to one.
async fn clear(path: &Path, run_dir: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    if UnixStream::connect(path).await.is_ok() {
        anyhow::bail!(
            "{shown} answers already: another daemon runs there; stop it, or give another --host"
        );
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("look at {shown}")),
        Ok(data) if data.file_type().is_socket() => {}
        Ok(data) if data.file_type().is_symlink() && leads_to_socket(path, run_dir) => {}
        Ok(_) => anyhow::bail!("{shown} is no socket: remove it, or give another --host"),
    }
    fs::remove_file(path).with_context(|| format!("remove {shown}"))
}

/// Whether a link leads to a socket, or to where this daemon has its own.
fn leads_to_socket(link: &Path, run_dir: &Path) -> bool {
    let linked = [run_dir.to_path_buf()].into_iter().chain(run_dir.canonicalize().ok());
    let is_own = |target: &Path| linked.clone().any(|run| target.starts_with(run.join(LINKED)));
    fs::read_link(link).is_ok_and(|target| is_own(&target))
        || fs::metadata(link).is_ok_and(|target| target.file_type().is_socket())
}

fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    if let Ok(Some(group)) = Group::from_name(SOCKET_GROUP) {
        std::os::unix::fs::chown(path, None, Some(group.gid.as_raw()))?;
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DaemonArgs;

    fn config(folder: &Path, hosts: &[&str]) -> Config {
        let hosts = hosts.iter().map(|host| format!("unix://{}/{host}", folder.display()));
        let args = DaemonArgs {
            run_dir: Some(folder.join("run")),
            data_dir: Some(folder.join("data")),
            hosts: hosts.collect(),
            ..DaemonArgs::default()
        };
        fs::create_dir_all(folder.join("run")).unwrap();
        args.resolve().unwrap()
    }

    #[tokio::test]
    async fn sockets_are_in_the_run_directory_and_links_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let config = config(folder.path(), &["run/skein.sock", "other/a.sock", "b.sock"]);
        for _again in 0..2 {
            let bound = bind_all(&config).await.unwrap();
            let is_link = |path: &str| at(path).is_symlink();
            assert_eq!(
                ["run/skein.sock", "other/a.sock", "b.sock"].map(is_link),
                [false, true, true]
            );
            for (socket, _) in &bound {
                UnixStream::connect(&socket.path).await.unwrap();
            }
            let taken = bind_all(&config).await.unwrap_err().to_string();
            assert!(taken.contains("another daemon runs there"), "{taken}");
            // A daemon that was killed leaves them there, the next one replaces them.
            drop(bound);
        }
        let bound = bind_all(&config).await.unwrap();
        bound.iter().for_each(|(socket, _)| socket.remove());
        let left = ["run/api/1.sock", "run/skein.sock", "other/a.sock", "b.sock"];
        assert!(!left.into_iter().any(|path| at(path).symlink_metadata().is_ok()));
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes"), "mine").unwrap();
        let error = bind_all(&config(folder.path(), &["notes"])).await.unwrap_err().to_string();
        assert!(
            error.ends_with("notes is no socket: remove it, or give another --host"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(folder.path().join("notes")).unwrap(), "mine");
        // Nor is a link to one, or to nothing.
        for (link, target) in [("linked", "notes"), ("nowhere", "missing")] {
            symlink(folder.path().join(target), folder.path().join(link)).unwrap();
            let refused = bind_all(&config(folder.path(), &[link])).await.unwrap_err().to_string();
            assert!(refused.contains("is no socket"), "{refused}");
            assert!(folder.path().join(link).is_symlink());
        }
    }
}
