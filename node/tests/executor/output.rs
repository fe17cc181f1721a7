//! What tasks write, and who reads it.

use futures_util::{StreamExt, pin_mut};
use skein::executor::Output;
use skein::logs::{self, Query};
use supervise::logs::{LogLine, LogStream};

use super::node::{LIMIT, Node, exit, shell};

#[tokio::test]
async fn both_streams_are_kept_apart_and_a_last_line_without_newline_is_kept() {
    let node = Node::new();
    let handle = node.start(shell("streams", "echo out; echo err >&2; printf tail")).await;
    exit(&handle).await;
    handle.release().await.unwrap();
    let read = async |query: Query| {
        let lines = logs::read(node.executor.log_directory("streams"), query);
        let mut texts: Vec<_> = lines
            .map(|line| line.unwrap())
            .map(|line| (line.stream, String::from_utf8(line.text).unwrap()))
            .collect()
            .await;
        texts.sort_by_key(|(stream, _)| *stream == LogStream::Stderr);
        texts
    };
    let (out, tail) = ((LogStream::Stdout, "out".into()), (LogStream::Stdout, "tail".into()));
    assert_eq!(
        read(Query::all()).await,
        [out.clone(), tail.clone(), (LogStream::Stderr, "err".into())]
    );
    assert_eq!(read(Query { stderr: false, ..Query::all() }).await, [out, tail]);
    node.executor.remove_logs("streams").unwrap();
    node.executor.remove_logs("streams").unwrap();
    assert_eq!(read(Query::all()).await, []);
}

#[tokio::test]
async fn output_that_is_not_kept_is_read_and_dropped() {
    let node = Node::new();
    // More than a pipe holds: nobody would read it, and the task would stand still.
    let mut spec = shell("dropped", "head -c 1000000 /dev/zero; echo end >&2; exit 3");
    spec.output = Output::Dropped;
    let handle = node.start(spec).await;
    assert_eq!(exit(&handle).await.code, 3);
    handle.release().await.unwrap();
    assert!(!node.executor.log_directory("dropped").exists());
}

#[tokio::test]
async fn a_follower_sees_every_line_across_rotation_until_the_task_ends() {
    let node = Node::new();
    let line = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; read wait < f; \
                echo last";
    let mut spec = shell("followed", &format!("mkfifo f; echo ready; {line}"));
    spec.log.file_bytes_max = 4096;
    spec.log.files_max = 100;
    let handle = node.start(spec).await;
    let query = Query { follow: true, ..Query::all() };
    let lines = logs::read(node.executor.log_directory("followed"), query);
    pin_mut!(lines);
    let next = async |lines: &mut std::pin::Pin<&mut _>| {
        let line = tokio::time::timeout(LIMIT, StreamExt::next(lines)).await.unwrap();
        line.map(|line: std::io::Result<LogLine>| String::from_utf8(line.unwrap().text).unwrap())
    };
    assert_eq!(next(&mut lines).await.as_deref(), Some("ready"));
    for number in 0..2000 {
        assert_eq!(next(&mut lines).await, Some(format!("line {number}")));
    }
    let fifo = node.data_dir().join("work/followed/f");
    std::fs::write(fifo, "go\n").unwrap();
    assert_eq!(next(&mut lines).await.as_deref(), Some("last"));
    assert_eq!(next(&mut lines).await, None);
    exit(&handle).await;
    let files = std::fs::read_dir(node.executor.log_directory("followed")).unwrap().count();
    assert!(files > 3, "{files}");
    handle.release().await.unwrap();
}

#[tokio::test]
async fn a_task_that_writes_without_end_fills_only_its_share_of_the_disk() {
    let node = Node::new();
    let mut spec = shell("loud", "yes | head -c 3000000; echo end");
    spec.log.file_bytes_max = 100_000;
    spec.log.files_max = 2;
    let (_, text) = node.run(spec).await;
    assert!(text.ends_with("\nend"), "{}", &text[text.len() - 9..]);
    let files = std::fs::read_dir(node.executor.log_directory("loud")).unwrap();
    let sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
    // Two log files and the end mark; a file exceeds its limit by less than one read.
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().sum::<u64>() < 2 * (100_000 + (2 << 20)), "{sizes:?}");
}
