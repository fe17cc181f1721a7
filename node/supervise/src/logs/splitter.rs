//! Splits a task's output into lines.

use std::time::SystemTime;

use super::line::{LogLine, LogStream, TEXT_BYTES_MAX};

/// Holds the beginnings of lines.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Splitter {
    /// Takes what the task has written to `stream`, read at `time`, and gives the lines that end
    /// in it.
    pub(crate) fn split(
        &mut self,
        stream: LogStream,
        bytes: &[u8],
        time: SystemTime,
    ) -> Vec<LogLine> {
        let mut rest = std::mem::take(self.pending(stream));
        rest.extend_from_slice(bytes);
        let mut start = 0;
        let mut lines = Vec::new();
        loop {
            let open = &rest[start..];
            let window = &open[..open.len().min(TEXT_BYTES_MAX)];
            let (text, partial, next) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&window[..end], false, start + end + 1),
                // A newline just behind the window ends the line without an empty rest.
                None if open.get(TEXT_BYTES_MAX) == Some(&b'\n') => {
                    (window, false, start + TEXT_BYTES_MAX + 1)
                }
                None if open.len() > TEXT_BYTES_MAX => (window, true, start + TEXT_BYTES_MAX),
                None => break,
            };
            lines.push(LogLine { time, stream, partial, text: text.to_vec() });
            start = next;
        }
        rest.drain(..start);
        *self.pending(stream) = rest;
        lines
    }

    /// Lines that have no newline and get none any more.
    pub(crate) fn rest(&mut self, time: SystemTime) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let text = std::mem::take(self.pending(stream));
            if !text.is_empty() {
                lines.push(LogLine { time, stream, partial: false, text });
            }
        }
        lines
    }

    fn pending(&mut self, stream: LogStream) -> &mut Vec<u8> {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
    }
}
