//! The output of tasks on disk: written by the supervisor, read by anyone.
//!
//! A task's directory holds files `00000001.log`, `00000002.log` … of which the newest is being
//! written and the oldest are removed; nothing is renamed, so a reader that has read a file to its
//! end goes on with the next number. The file `end` says that no more will come.

mod files;
mod line;
mod splitter;
mod writer;

pub use files::{directory, file, has_ended, mark_ended, numbers};
pub use line::{LogLine, LogStream, TEXT_BYTES_MAX};
pub(crate) use splitter::Splitter;
pub use writer::Writer;
