use std::time::Duration;

use futures_util::{StreamExt, pin_mut};

use supervise::logs::{TEXT_BYTES_MAX, Writer};

use super::*;
use crate::executor::LogLimits;

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000 + second, 5)
}

async fn texts(directory: &Path, query: Query) -> Vec<String> {
    let lines = read(directory.to_owned(), query);
    lines.map(|line| String::from_utf8(line.unwrap().text).unwrap()).collect().await
}

#[test]
fn an_entry_is_written_with_nanoseconds_and_read_back() {
    let line = LogLine {
        time: at(0),
        stream: LogStream::Stderr,
        partial: true,
        text: b"a b\xff".to_vec(),
    };
    let mut bytes = Vec::new();
    line.encode(&mut bytes);
    assert_eq!(bytes, b"2023-11-14T22:13:20.000000005Z stderr P a b\xff\n");
    assert_eq!(LogLine::decode(&bytes[..bytes.len() - 1]), Some(line));
    assert_eq!(LogLine::decode(b"2023-11-14T22:13:20.000000005Z stderr"), None);
    assert_eq!(LogLine::decode(b""), None);
    // Times that have no form in UTC, or none that is written again.
    for time in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "1969-12-31T23:59:59Z"] {
        assert_eq!(LogLine::decode(format!("{time} stderr F x").as_bytes()), None, "{time}");
    }
    let east = LogLine::decode(b"2023-11-14T23:13:20+01:00 stderr F x").unwrap();
    let mut again = Vec::new();
    east.encode(&mut again);
    assert_eq!(again, b"2023-11-14T22:13:20.000000000Z stderr F x\n");
}

#[tokio::test]
async fn lines_are_joined_from_pieces_and_long_ones_are_split() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), LogLimits::default()).unwrap();
    writer.write(LogStream::Stdout, b"one\ntw", at(1)).unwrap();
    writer.write(LogStream::Stderr, b"err\n", at(2)).unwrap();
    writer.write(LogStream::Stdout, b"o\n", at(3)).unwrap();
    let exact = [vec![b'x'; TEXT_BYTES_MAX], b"\n".to_vec()].concat();
    writer.write(LogStream::Stdout, &exact, at(4)).unwrap();
    writer.write(LogStream::Stdout, &vec![b'y'; TEXT_BYTES_MAX + 3], at(5)).unwrap();
    writer.close(at(6)).unwrap();
    let lines: Vec<LogLine> =
        read(directory.path().to_owned(), Query::all()).map(Result::unwrap).collect().await;
    let summary: Vec<_> = lines
        .iter()
        .map(|line| (line.stream, line.partial, line.text.len(), line.text.first().copied()))
        .collect();
    assert_eq!(
        summary,
        [
            (LogStream::Stdout, false, 3, Some(b'o')),
            (LogStream::Stderr, false, 3, Some(b'e')),
            (LogStream::Stdout, false, 3, Some(b't')),
            (LogStream::Stdout, false, TEXT_BYTES_MAX, Some(b'x')),
            (LogStream::Stdout, true, TEXT_BYTES_MAX, Some(b'y')),
            (LogStream::Stdout, false, 3, Some(b'y')),
        ]
    );
}

fn numbered(directory: &Path, lines: u64, limits: LogLimits) -> Writer {
    let mut writer = Writer::open(directory, limits).unwrap();
    for number in 0..lines {
        writer.write(LogStream::Stdout, format!("{number}\n").as_bytes(), at(number)).unwrap();
    }
    writer
}

#[tokio::test]
async fn rotation_keeps_the_newest_files() {
    let directory = tempfile::tempdir().unwrap();
    let limits = LogLimits { file_bytes_max: 100, files_max: 3 };
    numbered(directory.path(), 40, limits).close(at(40)).unwrap();
    assert_eq!(numbers(directory.path()).unwrap().len(), 3);
    let kept = texts(directory.path(), Query::all()).await;
    assert_eq!(kept.last().unwrap(), "39");
    let first: u64 = kept[0].parse().unwrap();
    assert_eq!(kept.len() as u64, 40 - first);
    assert!((28..=34).contains(&first), "{first}");
}

#[tokio::test]
async fn tail_since_until_and_streams_select_lines() {
    let directory = tempfile::tempdir().unwrap();
    let limits = LogLimits { file_bytes_max: 100, files_max: 99 };
    let mut writer = numbered(directory.path(), 10, limits);
    writer.write(LogStream::Stderr, b"bad\n", at(10)).unwrap();
    let check = async |query: Query, expected: &[&str]| {
        assert_eq!(texts(directory.path(), query.clone()).await, expected, "{query:?}");
    };
    check(Query { tail: Some(0), ..Query::all() }, &[]).await;
    check(Query { tail: Some(2), ..Query::all() }, &["9", "bad"]).await;
    check(Query { tail: Some(5), stderr: false, ..Query::all() }, &["5", "6", "7", "8", "9"]).await;
    check(Query { stdout: false, ..Query::all() }, &["bad"]).await;
    check(Query { since: Some(at(8)), ..Query::all() }, &["8", "9", "bad"]).await;
    check(Query { until: Some(at(1)), ..Query::all() }, &["0", "1"]).await;
    check(Query { tail: Some(1), until: Some(at(4)), ..Query::all() }, &["4"]).await;
    assert_eq!(texts(directory.path(), Query { tail: Some(99), ..Query::all() }).await.len(), 11);
    let nowhere = directory.path().join("nowhere");
    assert_eq!(texts(&nowhere, Query::all()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_follower_sees_every_line_across_rotation_and_ends_with_the_task() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("late");
    let follow = Query { follow: true, ..Query::all() };
    let lines = read(path.clone(), follow);
    pin_mut!(lines);
    assert!(futures_util::poll!(lines.next()).is_pending());
    let limits = LogLimits { file_bytes_max: 100, files_max: 99 };
    let mut writer = numbered(&path, 5, limits);
    for expected in 0..5 {
        assert_eq!(lines.next().await.unwrap().unwrap().text, format!("{expected}").as_bytes());
    }
    assert!(futures_util::poll!(lines.next()).is_pending());
    for number in 5..20 {
        writer.write(LogStream::Stdout, format!("{number}\n").as_bytes(), at(number)).unwrap();
    }
    writer.write(LogStream::Stdout, b"no newline", at(20)).unwrap();
    writer.close(at(21)).unwrap();
    let rest: Vec<_> =
        lines.map(|line| String::from_utf8(line.unwrap().text).unwrap()).collect().await;
    assert_eq!(rest.len(), 16);
    assert_eq!(rest.last().unwrap(), "no newline");
}

#[tokio::test]
async fn a_follower_ends_when_its_until_has_passed_or_the_log_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("task");
    let writer = numbered(&path, 3, LogLimits::default());
    let follow = Query { follow: true, ..Query::all() };
    let past = Query { until: Some(at(1)), ..follow.clone() };
    assert_eq!(texts(&path, past).await, ["0", "1"]);
    let passed = Query { until: Some(at(9)), ..follow.clone() };
    assert_eq!(texts(&path, passed).await, ["0", "1", "2"]);
    let lines = read(path.clone(), Query { tail: Some(1), ..follow });
    pin_mut!(lines);
    assert_eq!(lines.next().await.unwrap().unwrap().text, b"2");
    assert!(futures_util::poll!(lines.next()).is_pending());
    drop(writer);
    std::fs::remove_dir_all(&path).unwrap();
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn a_tail_is_no_longer_although_the_log_grows_and_rotates_while_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let limits = LogLimits { file_bytes_max: 200, ..LogLimits::default() };
    let mut writer = Writer::open(directory.path(), limits).unwrap();
    let mut write = |text: &str| writer.write(LogStream::Stdout, text.as_bytes(), at(1)).unwrap();
    write("one\ntwo\nthree\n");
    let lines = read(directory.path().to_owned(), Query { tail: Some(2), ..Query::all() });
    let lines = lines.map(|line| String::from_utf8(line.unwrap().text).unwrap());
    pin_mut!(lines);
    assert_eq!(lines.next().await.as_deref(), Some("two"));
    (0..20).for_each(|_| write("later\n"));
    assert!(numbers(directory.path()).unwrap().len() > 1, "it has rotated");
    let rest: Vec<String> = lines.collect().await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(texts(directory.path(), Query { tail: Some(0), ..Query::all() }).await.len(), 0);
}
