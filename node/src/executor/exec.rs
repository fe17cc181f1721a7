//! A further program in a running task, as an executor hands it out.

use cluster::exec::{ExecInput, ExecOutput};
use tokio::sync::mpsc;

/// Programs that are run at one time in one task.
pub const EXECS_PER_TASK_MAX: usize = 32;
/// The same in all tasks of a node.
pub const EXECS_MAX: usize = 256;
/// The most bytes in one message of output.
pub const CHUNK_BYTES_MAX: usize = 32 << 10;
/// Messages that wait for their reader, in each direction: with the pipe's own buffer, this is all
/// that is held of a program whose output nobody reads.
pub const QUEUE: usize = 4;

/// A program that runs. It is killed when `output` is dropped.
#[derive(Debug)]
pub struct Exec {
    /// What is said to it; when this is dropped, its input ends.
    pub input: mpsc::Sender<ExecInput>,
    /// What it says, up to its end. While nobody reads, it waits.
    pub output: mpsc::Receiver<ExecOutput>,
}
