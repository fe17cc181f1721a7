//! The daemon's side of the holder. Calls block: a runtime makes them where blocking is allowed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Answer, LOCK, LOG, MODE, Request, SOCKET};
use crate::wire::Connection;
use crate::{clock, detach};

/// How often a holder that is starting is asked.
const START_INTERVAL: Duration = Duration::from_millis(10);

/// Starts the holder of `run_dir` from the program `exe` unless it is running. When this returns
/// it answers, and it outlives the caller.
///
/// # Errors
/// When it cannot be started, in its own words.
pub fn ensure_running(exe: &Path, run_dir: &Path) -> io::Result<Client> {
    fs::create_dir_all(run_dir)?;
    let client = Client::new(run_dir);
    let deadline = clock::monotonic() + detach::START_LIMIT;
    loop {
        if let Some(lock) = detach::try_lock(&run_dir.join(LOCK))? {
            let arguments = [Path::new(MODE), run_dir];
            return match detach::spawn(exe, arguments, lock, &run_dir.join(LOG)) {
                Ok(()) => Ok(client),
                Err(error) => {
                    let text = format!("start the holder of namespaces: {error}");
                    Err(io::Error::new(error.kind(), text))
                }
            };
        }
        // It may have been started by a daemon that died before it was ready.
        match client.list() {
            Err(_) if clock::monotonic() < deadline => detach::pause(START_INTERVAL),
            listed => return listed.map(|_| client),
        }
    }
}

/// A node's holder.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The holder of `run_dir`, which need not run yet.
    pub fn new(run_dir: &Path) -> Self {
        Client { socket: run_dir.join(SOCKET) }
    }

    /// The namespace of this name, made with its loopback device up when it is missing.
    ///
    /// # Errors
    /// When the holder does not answer, or says why it cannot.
    pub fn open(&self, name: &str) -> io::Result<OwnedFd> {
        let (answer, mut descriptors) = self.call(&Request::Open { name: name.to_owned() })?;
        match (answer, descriptors.pop()) {
            (Answer::Done, Some(namespace)) => Ok(namespace),
            (answer, _) => Err(unexpected(&answer)),
        }
    }

    /// The names of all namespaces that are held, sorted.
    ///
    /// # Errors
    /// When the holder does not answer.
    pub fn list(&self) -> io::Result<Vec<String>> {
        match self.call(&Request::List)?.0 {
            Answer::Names(names) => Ok(names),
            answer @ (Answer::Done | Answer::Failed { .. }) => Err(unexpected(&answer)),
        }
    }

    /// Lets go of a namespace; one that is not held is no error.
    ///
    /// # Errors
    /// When the holder does not answer, or says why it cannot.
    pub fn close(&self, name: &str) -> io::Result<()> {
        self.done(&Request::Close { name: name.to_owned() })
    }

    /// Lets go of all namespaces and ends the holder.
    ///
    /// # Errors
    /// When the holder does not answer, or says why it cannot.
    pub fn quit(&self) -> io::Result<()> {
        self.done(&Request::Quit)
    }

    fn done(&self, request: &Request) -> io::Result<()> {
        match self.call(request)?.0 {
            Answer::Done => Ok(()),
            answer @ (Answer::Names(_) | Answer::Failed { .. }) => Err(unexpected(&answer)),
        }
    }

    fn call(&self, request: &Request) -> io::Result<(Answer, Vec<OwnedFd>)> {
        Connection::open(&self.socket).and_then(|mut connection| connection.call(request)).map_err(
            |error| {
                let socket = self.socket.display();
                io::Error::new(error.kind(), format!("ask the holder at {socket}: {error}"))
            },
        )
    }
}

fn unexpected(answer: &Answer) -> io::Error {
    io::Error::other(match answer {
        Answer::Failed { reason } => format!("holder: {reason}"),
        Answer::Done | Answer::Names(_) => format!("holder answered {answer:?}"),
    })
}
