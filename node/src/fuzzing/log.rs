//! The output of a task, and the log that is made of it.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use supervise::logs::{LogLine, LogStream, Writer};
use tokio::runtime::{Builder, Runtime};

use crate::executor::LogLimits;
use crate::logs::{self, Query};

/// First byte of the input: an entry of a log; what a task wrote; a whole file.
const FORMS: u8 = 3;
/// Files are rotated at this size.
const FILE_BYTES: u64 = 512;
/// Lines from the end that are asked for.
const TAIL: usize = 2;

thread_local! {
    static RUNTIME: Runtime =
        Builder::new_current_thread().build().expect("a runtime without threads starts");
}

/// A task's log, in a folder of the caller's.
pub fn log(folder: &Path, bytes: &[u8]) -> bool {
    let Some((form, bytes)) = bytes.split_first() else { return false };
    match form % FORMS {
        0 => entry(bytes),
        1 => output(&folder.join("output"), bytes),
        _ => file(&folder.join("file"), bytes),
    }
}

fn entry(bytes: &[u8]) -> bool {
    let Some(line) = LogLine::decode(bytes) else { return false };
    let mut again = Vec::new();
    line.encode(&mut again);
    let end = again.pop();
    assert_eq!(end, Some(b'\n'), "a line ends");
    assert_eq!(LogLine::decode(&again), Some(line), "a line changed on its way");
    true
}

fn read(folder: &Path, query: Query) -> Vec<LogLine> {
    let lines = logs::read(folder.to_owned(), query);
    let lines: Vec<_> = RUNTIME.with(|runtime| runtime.block_on(lines.collect()));
    lines.into_iter().collect::<Result<_, _>>().expect("the folder can be read")
}

/// What a task writes, in two pieces, is read as it was written.
fn output(folder: &Path, bytes: &[u8]) -> bool {
    let _absent = fs::remove_dir_all(folder);
    let limits = LogLimits { file_bytes_max: FILE_BYTES, files_max: u32::MAX };
    let mut writer = Writer::open(folder, limits).expect("the folder takes files");
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        let time = SystemTime::UNIX_EPOCH;
        writer.write(LogStream::Stdout, piece, time).expect("the folder takes files");
    }
    writer.close(SystemTime::UNIX_EPOCH).expect("the folder takes files");
    let mut text = Vec::new();
    for line in read(folder, Query::all()) {
        text.extend(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let end = if bytes.is_empty() || bytes.ends_with(b"\n") { &b""[..] } else { b"\n" };
    assert_eq!(text, [bytes, end].concat(), "output changed on its way");
    true
}

/// A whole file: all of its lines, and the last ones.
fn file(folder: &Path, bytes: &[u8]) -> bool {
    fs::create_dir_all(folder).expect("the folder takes files");
    fs::write(folder.join("00000001.log"), bytes).expect("the folder takes files");
    fs::write(folder.join("end"), b"").expect("the folder takes files");
    let all = read(folder, Query::all());
    let whole = bytes.split_inclusive(|byte| *byte == b'\n');
    let whole = whole.filter_map(|line| LogLine::decode(line.strip_suffix(b"\n")?));
    assert_eq!(all, whole.collect::<Vec<_>>(), "lines were lost");
    let last = read(folder, Query { tail: Some(TAIL), ..Query::all() });
    assert_eq!(last, all[all.len().saturating_sub(TAIL)..], "the end of a log is not its end");
    !all.is_empty()
}

/// An entry, output, a file.
#[must_use]
pub fn log_seeds() -> Vec<Vec<u8>> {
    let entry = "2025-11-23T19:22:29.123456789Z stdout F text";
    let entries = format!("{entry}\n2025-11-23T19:22:30.1Z stderr P a\ncut\n{entry}\n{entry}\n");
    let of = |form: u8, text: &str| [&[form], text.as_bytes()].concat();
    vec![of(0, entry), of(1, "a\nb\n\nno end"), of(2, &entries)]
}
