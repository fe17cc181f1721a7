//! The process that holds the namespaces: one thread, one client at a time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::prctl::set_name;

use super::protocol::{Answer, Request, SOCKET};
use crate::layout::{NAMESPACES, SANDBOX_PREFIX};
use crate::notes::{give_up, note};
use crate::spec::is_file_name;
use crate::{detach, netns, wire};

/// The longest name of a namespace.
const NAME_BYTES_MAX: usize = 128;
/// The most namespaces of one node; the list of their names fits in one answer.
const NAMESPACES_MAX: usize = 1024;

/// Holds namespaces for the node whose run directory this is. Returns when it has been told to
/// quit. To be called first thing in `main`: the process must have one thread.
///
/// Standard input must be the locked lock file and standard output a pipe to the starter, as
/// [`ensure_running`](super::ensure_running) arranges.
pub(crate) fn run(run_dir: &Path) -> ExitCode {
    let detached = match detach::begin() {
        Ok(detached) => detached,
        Err(error) => return give_up(&format!("detach from the daemon: {error}")),
    };
    // The name is for people who look at the process list.
    let _ = set_name(c"skein-hold");
    let mut holder = match Holder::open(run_dir) {
        Ok(holder) => holder,
        Err(error) => {
            detached.refuse(&error.to_string());
            return give_up(&format!("start: {error}"));
        }
    };
    let _lease = match detached.ready() {
        Ok(lease) => lease,
        Err(error) => return give_up(&format!("tell the daemon: {error}")),
    };
    match holder.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => give_up(&format!("hold: {error}")),
    }
}

struct Holder {
    directory: PathBuf,
    socket: PathBuf,
    listener: UnixListener,
    namespaces: BTreeMap<String, OwnedFd>,
}

impl Holder {
    fn open(run_dir: &Path) -> io::Result<Self> {
        let directory = run_dir.join(NAMESPACES);
        fs::create_dir_all(&directory)?;
        let socket = run_dir.join(SOCKET);
        // The lock says that no other holder lives, so this is a dead one's.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&socket)?;
        let namespaces = take_over(&directory)?;
        Ok(Holder { directory, socket, listener, namespaces })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let (stream, _) = match self.listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                accepted => accepted?,
            };
            match self.converse(&stream) {
                Ok(Request::Quit) => return Ok(()),
                Ok(Request::Open { .. } | Request::List | Request::Close { .. }) => {}
                // A client that goes away or says nothing concerns nobody else.
                Err(error) => note(&format!("answer a request: {error}")),
            }
        }
    }

    fn converse(&mut self, stream: &UnixStream) -> io::Result<Request> {
        let request: Request = wire::read_request(stream)?;
        let (answer, descriptors) = match self.carry_out(&request) {
            Ok(done) => done,
            Err(error) => (Answer::Failed { reason: error.to_string() }, None),
        };
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        wire::send_with_descriptors(stream, &wire::encode(&answer)?, &descriptors)?;
        Ok(request)
    }

    fn carry_out(&mut self, request: &Request) -> io::Result<(Answer, Option<OwnedFd>)> {
        match request {
            Request::Open { name } => Ok((Answer::Done, Some(self.open_namespace(name)?))),
            Request::List => Ok((Answer::Names(self.namespaces.keys().cloned().collect()), None)),
            Request::Close { name } => {
                self.close_namespace(name)?;
                Ok((Answer::Done, None))
            }
            Request::Quit => {
                let names: Vec<String> = self.namespaces.keys().cloned().collect();
                for name in names {
                    self.close_namespace(&name)?;
                }
                fs::remove_file(&self.socket)?;
                Ok((Answer::Done, None))
            }
        }
    }

    fn open_namespace(&mut self, name: &str) -> io::Result<OwnedFd> {
        if !is_holdable(name) {
            return Err(io::Error::other(format!("{name:?} cannot be a namespace's name")));
        }
        if let Some(namespace) = self.namespaces.get(name) {
            return namespace.try_clone();
        }
        if self.namespaces.len() >= NAMESPACES_MAX {
            let text = format!("{NAMESPACES_MAX} namespaces are held already");
            return Err(io::Error::other(text));
        }
        let (namespace, ()) = netns::create(|| Ok(()))?;
        netns::publish(&namespace, &self.directory.join(name))?;
        let copy = namespace.try_clone()?;
        self.namespaces.insert(name.to_owned(), namespace);
        Ok(copy)
    }

    fn close_namespace(&mut self, name: &str) -> io::Result<()> {
        if self.namespaces.remove(name).is_some() {
            netns::withdraw(&self.directory.join(name))?;
        }
        Ok(())
    }
}

/// The files of sandboxes lie in the same directory and belong to the supervisors.
fn is_holdable(name: &str) -> bool {
    is_file_name(name, NAME_BYTES_MAX) && !name.starts_with(SANDBOX_PREFIX)
}

/// Opens the namespaces that a holder before this one has left mounted, and removes the files
/// whose mounts are gone.
fn take_over(directory: &Path) -> io::Result<BTreeMap<String, OwnedFd>> {
    let mut namespaces = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !is_holdable(&name) {
            continue;
        }
        let path = directory.join(&name);
        if netns::is_namespace(&path) {
            namespaces.insert(name, File::open(&path)?.into());
        } else {
            netns::withdraw(&path)?;
        }
    }
    Ok(namespaces)
}
