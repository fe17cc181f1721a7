//! Lines that are sent elsewhere, and servers that are away.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use cluster::log_driver::{Address, Format, Syslog};
use skein::executor::{LogSink, Output};

use super::node::{LIMIT, Node, eventually, exit, shell};

fn syslog(address: Address) -> Option<LogSink> {
    let format = Format::Rfc5424;
    Some(LogSink::Syslog(Syslog { address, facility: 3, format, tag: "web".to_owned() }))
}

/// A message's priority and text.
fn parts(message: &str) -> (&str, &str) {
    let (head, text) = message.split_once(" web - ").unwrap_or(("", message));
    (head.split(' ').next().unwrap_or(""), text)
}

fn received(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 32 << 10];
    let count = socket.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

fn bound(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Goal: each line is a message of its own, with the stream as its severity, and is kept as well.
#[tokio::test]
async fn lines_go_to_a_syslog_server_by_datagrams() {
    let node = Node::new();
    let path = node.directory.path().join("log");
    let local = bound(&path);
    let mut spec = shell("local", "echo out; echo; printf tail; sleep 0.1; echo err >&2");
    spec.sink = syslog(Address::Unixgram(path.to_string_lossy().into_owned()));
    let (ended, kept) = node.run(spec).await;
    assert_eq!(ended.code, 0);
    assert!(kept.contains("out") && kept.contains("err"), "{kept}");
    let messages: Vec<String> = (0..3).map(|_| received(&local)).collect();
    let messages: Vec<_> = messages.iter().map(|message| parts(message)).collect();
    assert_eq!(messages, [("<30>1", "out\n"), ("<27>1", "err\n"), ("<30>1", "tail\n")]);

    let remote = UdpSocket::bind("127.0.0.1:0").unwrap();
    remote.set_read_timeout(Some(LIMIT)).unwrap();
    let mut spec = shell("remote", "echo far");
    spec.output = Output::Dropped;
    spec.sink = syslog(Address::Udp(remote.local_addr().unwrap()));
    assert_eq!(node.run(spec).await.1, "", "nothing is kept");
    let mut bytes = [0; 1024];
    let count = remote.recv(&mut bytes).unwrap();
    assert_eq!(parts(str::from_utf8(&bytes[..count]).unwrap()), ("<30>1", "far\n"));
}

/// Goal: entries of the journal have the fields of the task. Method: a socket in the journal's
/// place.
#[tokio::test]
async fn lines_go_to_the_journal() {
    let node = Node::new();
    let socket = node.directory.path().join("journal");
    let journal = bound(&socket);
    let mut spec = shell("told", "echo out; exec 1>&-; echo err >&2");
    let fields = vec![("CONTAINER_NAME".to_owned(), "web.1.x".to_owned())];
    spec.sink = Some(LogSink::Journald { socket, fields });
    node.run(spec).await;
    let mut entries: Vec<String> = (0..2).map(|_| received(&journal)).collect();
    entries.sort();
    assert!(entries[0].starts_with("MESSAGE=err\nPRIORITY=3\nCONTAINER_NAME=web.1.x\n"));
    assert!(entries[1].starts_with("MESSAGE=out\nPRIORITY=6\nCONTAINER_NAME=web.1.x\n"));
}

/// Goal: a server that is away does not hold up a task, and gets its lines when it comes, and again
/// when it went and came back. Method: a listener on a port that was free at first.
#[tokio::test]
async fn a_server_that_comes_gets_what_was_written_before() {
    let node = Node::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut spec = shell("early", "mkfifo f; echo one; echo two; read wait < f; echo three");
    spec.sink = syslog(Address::Tcp(address));
    let handle = node.start(spec).await;
    let told = node.task_dir("early").join("supervisor.log");
    eventually("the supervisor says that the server is away", async || {
        fs::read_to_string(&told).unwrap_or_default().contains("does not take lines")
    })
    .await;
    assert_eq!(node.log("early").await, ["one", "two"], "they are kept meanwhile");
    let mut server = accepted(address).await;
    assert_eq!(next(&mut server), "one");
    assert_eq!(next(&mut server), "two");
    drop(server);
    fs::write(node.data_dir().join("work/early/f"), "go\n").unwrap();
    assert_eq!(exit(&handle).await.code, 0);
    let mut server = accepted(address).await;
    assert_eq!(next(&mut server), "three");
    let log = fs::read_to_string(&told).unwrap();
    assert_eq!(log.matches("does not take lines").count(), 1, "{log}");
    handle.release().await.unwrap();
}

async fn accepted(address: SocketAddr) -> BufReader<std::net::TcpStream> {
    let accept = tokio::task::spawn_blocking(move || {
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
            }
        };
        listener.accept().unwrap().0
    });
    let stream = tokio::time::timeout(LIMIT, accept).await.unwrap().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    BufReader::new(stream)
}

fn next(server: &mut BufReader<std::net::TcpStream>) -> String {
    let mut line = String::new();
    server.read_line(&mut line).unwrap();
    parts(&line).1.trim_end().to_owned()
}

/// Goal: a server that takes nothing costs a task neither time nor its node memory. Method: a
/// socket that nobody reads, and far more than the queue holds.
#[tokio::test]
async fn what_a_server_does_not_take_is_dropped_and_counted() {
    let node = Node::new();
    let path: PathBuf = node.directory.path().join("stuck");
    let _nobody_reads = bound(&path);
    let line = "i=0; while [ $i -lt 20000 ]; do printf '%0100d\\n' $i; i=$((i+1)); done";
    let mut spec = shell("stuck", line);
    spec.sink = syslog(Address::Unixgram(path.to_string_lossy().into_owned()));
    let handle = node.start(spec).await;
    assert_eq!(exit(&handle).await.code, 0);
    assert_eq!(node.log("stuck").await.len(), 20_000, "all are kept");
    let log = fs::read_to_string(node.task_dir("stuck").join("supervisor.log")).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("takes lines too slowly; 1 MiB of them wait"), "{log}");
    handle.release().await.unwrap();
}
