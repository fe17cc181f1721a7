//! A further program in a running task: what is asked for, and what is said while it runs, by the
//! executor, between nodes, and to clients.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

mod frame;

/// What to run. What is not said here is as in the task's spec: capabilities, system calls, limits
/// and further groups always are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `KEY=VALUE`, in addition to the task's; the last of a name wins.
    pub env: Vec<String>,
    /// As in a task's spec; `None` is the task's user.
    pub user: Option<String>,
    /// `None` is the task's working directory.
    pub dir: Option<String>,
    /// Gives the program a terminal of this size, which carries all streams.
    pub terminal: Option<WindowSize>,
    /// Whether it has an input. It reads /dev/null otherwise.
    pub stdin: bool,
    /// Whether its output is read. It goes to /dev/null otherwise.
    pub stdout: bool,
    /// The same of its standard error.
    pub stderr: bool,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// The most input, in bytes, that is on its way to a program at one time: who sends more before
/// [`ExecOutput::Taken`] has said that some has arrived is hung up on. So nothing on the way has to
/// wait, and signals and hang-ups overtake input that the program does not read.
pub const INPUT_BYTES_MAX: usize = 128 << 10;

/// What is said to a program while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Input.
    Bytes(Bytes),
    /// Its input has ended.
    End,
    /// Its terminal has another size now.
    Resize(WindowSize),
    /// A signal for it and its process group.
    Signal(u8),
}

/// What a program says while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Output; all of it where there is a terminal.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// So many bytes of input were written to the program, or dropped because it takes no more.
    Taken(u32),
    /// The last message.
    Ended(ExecEnd),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecEnd {
    /// The exit code; 128 + signal for a program that a signal ended; 127 or 126 for one that
    /// cannot be found or executed; 128 where anything else went wrong.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it never ran, or why nothing is known of its end, in words for the user.
    pub error: Option<String>,
}

impl ExecEnd {
    /// Of a program that never ran, or whose end nobody saw.
    #[must_use]
    pub fn failed(code: i32, error: String) -> Self {
        ExecEnd { code, signal: None, error: Some(error) }
    }
}
