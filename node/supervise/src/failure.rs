//! Why a task does not run, and the exit code that says so.

use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;

/// The exit code for a program or file that does not exist, as shells have it.
const CODE_NOT_FOUND: i32 = 127;
/// The exit code for a program that cannot be executed.
const CODE_NOT_EXECUTABLE: i32 = 126;
/// The exit code for everything else that keeps a task from running (moby `translateStartErr`).
pub(crate) const CODE_SETUP: i32 = 128;

/// The longest text that is passed on: what it repeats may be as long as a spec.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Why a task's command could not be executed, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) error: String,
    #[serde(skip)]
    errno: i32,
}

impl Failure {
    /// A failure with this text, and the code that Docker gives for such an error.
    pub(crate) fn new(error: Errno, text: String) -> Self {
        let code = match error {
            Errno::ENOENT => CODE_NOT_FOUND,
            Errno::EACCES | Errno::EPERM | Errno::ENOTDIR | Errno::ENOEXEC => CODE_NOT_EXECUTABLE,
            _ => CODE_SETUP,
        };
        Failure { code, error: text, errno: error as i32 }
    }

    /// A user or group that is not there.
    pub(crate) fn unknown_user(text: String) -> Self {
        Failure { code: CODE_NOT_EXECUTABLE, error: text, errno: 0 }
    }

    /// A failure to do something that concerns no value of the user's.
    pub(crate) fn setup(activity: &str, error: Errno) -> Self {
        let text = format!("{activity}: {}", sys::words(error));
        Failure { code: CODE_SETUP, error: text, errno: error as i32 }
    }

    /// A failure to do something with a path.
    pub(crate) fn path(activity: &str, path: &str, error: Errno) -> Self {
        Failure::new(error, format!("{activity} {path:?}: {}", sys::words(error)))
    }

    /// With the beginning of its text, where that is too long for a pipe that nobody reads yet.
    pub(crate) fn shortened(mut self) -> Self {
        let mut length = self.error.len().min(TEXT_BYTES_MAX);
        while !self.error.is_char_boundary(length) {
            length -= 1;
        }
        self.error.truncate(length);
        self
    }

    /// The error number, where this process has seen it.
    pub(crate) fn errno(&self) -> Option<Errno> {
        (self.errno != 0).then(|| Errno::from_raw(self.errno))
    }

    /// The number in an error of the standard library.
    pub(crate) fn number(error: &io::Error) -> Errno {
        error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
    }
}
