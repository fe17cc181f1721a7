//! Demo: a web front that counts votes in redis and shows which client address it saw.
//!
//! Usage: `skein-demo-vote [PORT [NAME:PORT]]`. `GET /` is a page, `GET /vote?for=cats` counts a
//! vote through the VIP, `GET /votes` counts none; both of these answer JSON. The replicas of redis
//! are independent servers: a vote lands on one of them, and the page shows the sums over all of
//! them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::demo::{Redis, end_on_sigterm, hostname};
use serde_json::json;

const CHOICES: [&str; 2] = ["cats", "dogs"];
const CONNECTIONS_MAX: usize = 64;
const REQUEST_BYTES_MAX: u64 = 8 << 10;
const CLIENT_MAX: Duration = Duration::from_secs(5);

const PAGE: &str = "<!doctype html><title>Vote</title><h1>Cats or dogs?</h1>\
<p><a href=\"/vote?for=cats\">cats</a> <a href=\"/vote?for=dogs\">dogs</a></p>";

fn main() -> Result<()> {
    end_on_sigterm()?;
    let mut words = std::env::args().skip(1);
    let port: u16 = words.next().map_or(Ok(80), |word| word.parse()).context("reading the port")?;
    let redis = words.next().unwrap_or_else(|| "redis:6379".to_owned());
    let listener = TcpListener::bind(("0.0.0.0", port)).context("listening")?;
    writeln!(std::io::stdout(), "listening on port {port}, counting in {redis}")?;
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (open, redis) = (Arc::clone(&open), redis.clone());
        std::thread::spawn(move || {
            // A client that goes away in the middle is no concern of the others.
            let _ = serve(&stream, &redis);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

fn serve(mut stream: &TcpStream, redis: &str) -> Result<()> {
    stream.set_read_timeout(Some(CLIENT_MAX))?;
    stream.set_write_timeout(Some(CLIENT_MAX))?;
    let client = stream.peer_addr()?.ip().to_string();
    let mut reader = BufReader::new(std::io::Read::take(stream, REQUEST_BYTES_MAX));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (status, kind, body) = answer(&request, &client, redis);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

/// Status line, type and body for one request line.
fn answer(request: &str, client: &str, redis: &str) -> (&'static str, &'static str, String) {
    let path = request.split(' ').nth(1).unwrap_or_default();
    let voted = match path.split_once('?') {
        None if path == "/" => return ("200 OK", "text/html", PAGE.to_owned()),
        None if path == "/votes" => None,
        Some(("/vote", query)) => match query.strip_prefix("for=") {
            Some(choice) if CHOICES.contains(&choice) => Some(choice),
            _ => {
                return ("400 Bad Request", "text/plain", "vote for=cats or for=dogs\n".to_owned());
            }
        },
        _ => return ("404 Not Found", "text/plain", "try / or /vote?for=cats\n".to_owned()),
    };
    match count(voted, redis) {
        Ok(votes) => {
            let task = hostname();
            let body = json!({"votes": votes, "client": client, "task": task, "voted": voted});
            ("200 OK", "application/json", format!("{body}\n"))
        }
        Err(error) => ("503 Service Unavailable", "text/plain", format!("{error:#}\n")),
    }
}

/// Adds a vote on the replica that the VIP leads to, then sums over all replicas.
fn count(voted: Option<&str>, name: &str) -> Result<BTreeMap<&'static str, u64>> {
    if let Some(choice) = voted {
        let mut addresses = name.to_socket_addrs().with_context(|| format!("resolving {name}"))?;
        let vip = addresses.next().with_context(|| format!("{name} has no address"))?;
        Redis::connect(vip)?.command(&["INCR", &format!("votes:{choice}")])?;
    }
    let tasks = format!("tasks.{name}");
    let mut votes: BTreeMap<&'static str, u64> = CHOICES.map(|choice| (choice, 0)).into();
    for address in tasks.to_socket_addrs().with_context(|| format!("resolving {tasks}"))? {
        // A replica that went away meanwhile took its votes with it.
        let Ok(mut redis) = Redis::connect(address) else { continue };
        for (choice, sum) in &mut votes {
            let text = redis.command(&["GET", &format!("votes:{choice}")])?;
            *sum += text.parse::<u64>().unwrap_or_default();
        }
    }
    Ok(votes)
}

#[test]
fn requests_that_are_no_votes_need_no_redis() {
    let status = |request: &str| answer(request, "c", "127.0.0.1:1").0;
    assert_eq!(status("GET / HTTP/1.1\r\n"), "200 OK");
    assert_eq!(status("GET /vote?for=mice HTTP/1.1\r\n"), "400 Bad Request");
    assert_eq!(status("GET /vote HTTP/1.1\r\n"), "404 Not Found");
    assert_eq!(status("nonsense"), "404 Not Found");
    assert_eq!(status("GET /vote?for=cats HTTP/1.1\r\n"), "503 Service Unavailable");
}
