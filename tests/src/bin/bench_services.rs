//! How many lists of services a manager answers a second: a cluster of one node in a namespace, so
//! many services without a task, and clients that each ask again as soon as they are answered.
//!
//! `skein-bench-services [SERVICES [CLIENTS]]`: 2,000 and 16 unless told otherwise; prints a
//! Markdown table.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::http::over_unix;
use lab::wait::now;
use lab::{Lab, sweep_dead};
use serde_json::{Value, json};

const SERVICES: usize = 2_000;
const CLIENTS: usize = 16;
/// Clients that create the services.
const CREATORS: usize = 8;
const LASTS: Duration = Duration::from_secs(10);
/// What the docker CLI, docker-py and a client of Skein ask for.
const PATHS: [&str; 4] = [
    "/services",
    "/services?status=true",
    "/services?insertDefaults=true",
    "/services?consistency=stale",
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |word: &String| word.parse().with_context(|| format!("{word:?} is no number"));
    let (services, clients) = match words.as_slice() {
        [] => (SERVICES, CLIENTS),
        [services] => (number(services)?, CLIENTS),
        [services, clients] => (number(services)?, number(clients)?),
        _ => bail!("usage: skein-bench-services [SERVICES [CLIENTS]]"),
    };
    sweep_dead()?;
    let mut lab = Lab::for_test("bench-services", 1)?;
    lab.make_cluster(1)?;
    let url = lab.nodes[0].url();
    let socket = Path::new(url.strip_prefix("unix://").context("the socket is of another kind")?);
    at_once(CREATORS, |creator| {
        (creator..services).step_by(CREATORS).try_for_each(|number| create(socket, number))
    })?;
    let mut out = std::io::stdout();
    writeln!(out, "{services} services, {clients} clients\n")?;
    writeln!(out, "| GET | answers/s | bytes of one |\n|---|---|---|")?;
    for path in PATHS {
        let (rate, bytes) = measure(socket, path, clients, services)?;
        writeln!(out, "| `{path}` | {rate:.0} | {bytes} |")?;
    }
    Ok(())
}

fn create(socket: &Path, number: usize) -> Result<()> {
    let spec = json!({
        "Name": format!("service-{number}"),
        "Labels": {"number": number.to_string()},
        "TaskTemplate": {"ContainerSpec": {
            "Image": "host", "Command": ["sleep"], "Args": ["1d"], "Env": ["ROLE=bench"],
        }},
        "Mode": {"Replicated": {"Replicas": 0}},
    });
    over_unix(socket, "POST", "/services/create", &spec)?.json().map(drop)
}

/// Answers a second to all clients, and the length of one.
fn measure(socket: &Path, path: &str, clients: usize, services: usize) -> Result<(f64, usize)> {
    let whole: Value = serde_json::from_slice(Client::new(socket)?.get(path)?)?;
    ensure!(whole.as_array().map(Vec::len) == Some(services), "{path} does not list all services");
    let begin = now();
    let counts = at_once(clients, |_| {
        let mut client = Client::new(socket)?;
        let (mut count, mut bytes) = (0_u32, 0);
        while begin.elapsed() < LASTS {
            bytes = client.get(path)?.len();
            count += 1;
        }
        Ok((count, bytes))
    })?;
    let total: u32 = counts.iter().map(|(count, _)| count).sum();
    let bytes = counts.first().map_or(0, |(_, bytes)| *bytes);
    Ok((f64::from(total) / begin.elapsed().as_secs_f64(), bytes))
}

/// What so many threads return, or the first failure.
fn at_once<T: Send>(count: usize, one: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let one = &one;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || one(index))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect()
    })
}

/// A connection that is kept for further requests.
struct Client {
    stream: BufReader<UnixStream>,
    body: Vec<u8>,
}

impl Client {
    fn new(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connecting to the daemon")?;
        Ok(Self { stream: BufReader::new(stream), body: Vec::new() })
    }

    /// The body of an answer that says how long it is.
    fn get(&mut self, path: &str) -> Result<&[u8]> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: skein\r\n\r\n");
        self.stream.get_mut().write_all(head.as_bytes())?;
        let mut length = None;
        for index in 0.. {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "the daemon closed the connection");
            let line = line.trim_end().to_ascii_lowercase();
            ensure!(index > 0 || line == "http/1.1 200 ok", "GET {path}: {line}");
            match line.split_once(": ") {
                Some(("content-length", value)) => length = Some(value.parse()?),
                None if line.is_empty() => break,
                _ => {}
            }
        }
        self.body.resize(length.context("the answer does not say how long it is")?, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok(&self.body)
    }
}
