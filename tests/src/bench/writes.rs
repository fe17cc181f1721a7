//! Durable writes a second of three managers, and of three members of etcd in the namespaces and
//! on the disk of the same machines, by clients that write again as soon as they are answered.
//!
//! A write is a service without a task and with a label, or a key, of 256 bytes. Managers are
//! called by their sockets, members of etcd by gRPC over TCP; each client has a connection, and
//! clients are shared out evenly.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::Lab;
use lab::command::run;
use lab::wait::{now, wait_for};
use serde_json::json;
use tokio::net::{TcpStream, UnixStream};

use super::sandbox::in_namespace;

/// Managers, and members of etcd.
const MEMBERS: usize = 3;
const VALUE_BYTES: usize = 256;
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const START_MAX: Duration = Duration::from_secs(30);
/// Clients that write what is there before a measurement.
const LOADERS: usize = 64;

/// Who is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The managers.
    Skein,
    /// The members of etcd.
    Etcd,
}

/// Both clusters.
#[derive(Debug)]
pub struct Stage {
    lab: Lab,
    members: Vec<Child>,
    outside: PathBuf,
    written: usize,
}

/// What is written, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Service,
    Network,
}

impl Stage {
    /// Makes them; `etcd` is its program.
    ///
    /// # Errors
    /// When one does not start.
    pub fn new(etcd: &Path) -> Result<Self> {
        let mut lab = Lab::for_test("bench-writes", MEMBERS)?;
        lab.make_cluster(MEMBERS)?;
        let all: Vec<String> = (lab.nodes.iter())
            .map(|node| format!("{}=http://{}:{PEER_PORT}", node.name, node.address))
            .collect();
        let mut members = Vec::new();
        for node in &lab.nodes {
            let at = |port: u16| format!("http://{}:{port}", node.address);
            let data = node.folder()?.join("etcd");
            let words = [
                ("--name", node.name.clone()),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", at(CLIENT_PORT)),
                ("--advertise-client-urls", at(CLIENT_PORT)),
                ("--listen-peer-urls", at(PEER_PORT)),
                ("--initial-advertise-peer-urls", at(PEER_PORT)),
                ("--initial-cluster", all.join(",")),
            ];
            let mut line = vec![etcd.display().to_string()];
            line.extend(words.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let line = node.line(&line);
            let (program, rest) = line.split_first().context("an empty command line")?;
            let log = std::fs::File::create(node.folder()?.join("etcd.log"))?;
            let child = Command::new(program).args(rest).stdout(Stdio::null()).stderr(log).spawn();
            members.push(child.with_context(|| format!("starting {program}"))?);
        }
        let outside = PathBuf::from(format!("/run/netns/{}-cl", lab.name));
        let mut stage = Self { lab, members, outside, written: 0 };
        wait_for(START_MAX, "etcd to take a write", || {
            stage.write(Store::Etcd, 1, Object::Service, Some(1), Duration::MAX).map(drop)
        })?;
        Ok(stage)
    }

    /// So many services and as many networks, or keys, are written.
    ///
    /// # Errors
    /// When one is refused.
    pub fn load(&mut self, objects: usize) -> Result<()> {
        let each = objects.div_ceil(LOADERS);
        for object in [Object::Service, Object::Network] {
            for store in [Store::Skein, Store::Etcd] {
                if objects > 0 {
                    self.write(store, LOADERS, object, Some(each), Duration::MAX)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a second of so many clients.
    ///
    /// # Errors
    /// When a write is refused.
    pub fn measure(&mut self, store: Store, clients: usize, lasts: Duration) -> Result<f64> {
        let begin = now();
        let written = self.write(store, clients, Object::Service, None, lasts)?;
        Ok(written as f64 / begin.elapsed().as_secs_f64())
    }

    /// Writes until each client has written `each`, or the time is over.
    fn write(
        &mut self,
        store: Store,
        clients: usize,
        object: Object,
        each: Option<usize>,
        lasts: Duration,
    ) -> Result<usize> {
        self.written += 1;
        let round = self.written;
        let sockets: Vec<PathBuf> = (self.lab.nodes.iter())
            .map(|node| PathBuf::from(node.url().trim_start_matches("unix://")))
            .collect();
        let ends: Vec<SocketAddr> =
            self.lab.nodes.iter().map(|node| (node.address, CLIENT_PORT).into()).collect();
        in_namespace(&self.outside, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let begin = now();
            runtime.block_on(async {
                let mut writers = tokio::task::JoinSet::new();
                for client in 0..clients {
                    let mut connection = match store {
                        Store::Skein => Connection::skein(&sockets[client % MEMBERS]).await?,
                        Store::Etcd => Connection::etcd(ends[client % MEMBERS]).await?,
                    };
                    writers.spawn(async move {
                        let mut count = 0;
                        while begin.elapsed() < lasts && each.is_none_or(|each| count < each) {
                            let name = format!("w-{round}-{client}-{count}");
                            connection.write(object, &name).await?;
                            count += 1;
                        }
                        anyhow::Ok(count)
                    });
                }
                let mut written = 0;
                while let Some(ended) = writers.join_next().await {
                    written += ended??;
                }
                Ok(written)
            })
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for member in &mut self.members {
            // One that has ended needs none of this.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// Of one client.
enum Connection {
    Skein(http1::SendRequest<Full<Bytes>>),
    Etcd(http2::SendRequest<Full<Bytes>>, SocketAddr),
}

impl Connection {
    async fn skein(socket: &Path) -> Result<Self> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(UnixStream::connect(socket).await?)).await?;
        tokio::spawn(connection);
        Ok(Self::Skein(sender))
    }

    async fn etcd(at: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::Etcd(sender, at))
    }

    async fn write(&mut self, object: Object, name: &str) -> Result<()> {
        match self {
            Self::Skein(sender) => {
                let (path, body) = body_of(object, name);
                let request = Request::post(path)
                    .header("host", "skein")
                    .header("content-type", "application/json")
                    .body(Full::new(Bytes::from(body)))?;
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                let status = answer.status();
                let said = answer.into_body().collect().await?.to_bytes();
                ensure!(status == 201, "{name}: {status} {}", String::from_utf8_lossy(&said));
            }
            Self::Etcd(sender, at) => {
                let request = Request::post(format!("http://{at}/etcdserverpb.KV/Put"))
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(Full::new(put(name.as_bytes())))?;
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                let status = answer.status();
                let trailers = answer.into_body().collect().await?.trailers().cloned();
                let code = trailers.as_ref().and_then(|all| all.get("grpc-status"));
                let is_done = code.is_some_and(|code| code == "0");
                if status != 200 || !is_done {
                    bail!("etcd answers {status} with {trailers:?}");
                }
            }
        }
        Ok(())
    }
}

fn body_of(object: Object, name: &str) -> (&'static str, String) {
    match object {
        Object::Service => {
            let spec = json!({
                "Name": name,
                "Labels": {"value": "x".repeat(VALUE_BYTES)},
                "TaskTemplate": {"ContainerSpec": {"Image": "host", "Command": ["sleep"]}},
                "Mode": {"Replicated": {"Replicas": 0}},
            });
            ("/services/create", spec.to_string())
        }
        Object::Network => {
            let spec = json!({"Name": name, "Driver": "overlay"});
            ("/networks/create", spec.to_string())
        }
    }
}

/// `PutRequest` of etcd's rpc.proto (key 1, value 2) as a message of gRPC over HTTP/2.
fn put(key: &[u8]) -> Bytes {
    let mut message = Vec::new();
    for (tag, field) in [(0x0a, key), (0x12, &[b'x'; VALUE_BYTES])] {
        message.push(tag);
        let mut length = field.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(field);
    }
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// Where etcd's program is.
///
/// # Errors
/// When it is nowhere in the path.
pub fn etcd() -> Result<PathBuf> {
    let found = run(10, &["which", "etcd"])?;
    let path = found.ok().context("no etcd: install Debian's package etcd-server")?;
    Ok(PathBuf::from(path.trim()))
}

#[test]
fn a_put_is_what_etcd_reads() {
    let bytes = put(b"k");
    let length = 1 + 1 + 1 + 1 + 2 + VALUE_BYTES;
    assert_eq!(bytes[..5], [0, 0, 0, 1, 6], "not compressed, {length} bytes");
    assert_eq!(bytes[5..11], [0x0a, 1, b'k', 0x12, 0x80, 0x02]);
    assert_eq!(bytes.len(), 5 + length);
}
