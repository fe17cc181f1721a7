//! The agent of a virtual machine, and its client.
//!
//! `skein-lab-agent serve [ADDR:PORT]`: in the guest; the default address is on the kernel command
//! line.
//! `skein-lab-agent call NETNS ADDR:PORT [--env KEY=VALUE]… -- WORDS…`: runs a program of the guest
//! with this one's streams and gives its exit status. NETNS is the namespace to connect from, `-`
//! the caller's own.
//! `skein-lab-agent forward NETNS ADDR:PORT SOCKET PATH`: serves SOCKET of this machine by the Unix
//! socket PATH of the guest.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use lab::vm::agent::{PORT, Request, client, serve};

const USAGE: &str = "serve [ADDR:PORT] | call NETNS ADDR:PORT [--env KEY=VALUE]… -- WORDS… | \
    forward NETNS ADDR:PORT SOCKET PATH";
/// The exit status of what could not be run, as ssh has it.
const LOST: u8 = 255;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skein-lab-agent: {error:#}");
            ExitCode::from(LOST)
        }
    }
}

fn run(words: &[String]) -> Result<u8> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve"] => listen(&own_address()?)?,
        ["serve", address] => listen(address)?,
        ["call", namespace, to, rest @ ..] => {
            let request = read_call(rest)?;
            let stream = client::connect(name(namespace), read(to)?)?;
            let status = client::call(&stream, &request)?;
            return Ok(u8::try_from(status).unwrap_or(LOST));
        }
        ["forward", namespace, to, socket, path] => {
            client::forward(name(namespace), read(to)?, Path::new(socket), path)?;
        }
        _ => bail!("usage: {USAGE}"),
    }
    Ok(0)
}

fn listen(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("binding {address}"))?;
    serve::serve(&listener)
}

/// The guest's address by the kernel's command line.
fn own_address() -> Result<String> {
    let text = std::fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    let word = text.split_whitespace().find_map(|word| word.strip_prefix("skein.address="));
    let address = word.and_then(|word| word.split('/').next());
    let address = address.context("the kernel's command line has no skein.address")?;
    Ok(format!("{address}:{PORT}"))
}

fn name(namespace: &str) -> Option<&str> {
    (namespace != "-").then_some(namespace)
}

fn read(address: &str) -> Result<SocketAddr> {
    address.parse().with_context(|| format!("reading {address:?} as ADDR:PORT"))
}

fn read_call(words: &[&str]) -> Result<Request> {
    let mut env = BTreeMap::new();
    let mut rest = words;
    while let ["--env", pair, more @ ..] = rest {
        let (key, value) = pair.split_once('=').with_context(|| format!("{pair:?} has no ="))?;
        env.insert(key.to_owned(), value.to_owned());
        rest = more;
    }
    let ["--", program @ ..] = rest else { bail!("usage: {USAGE}") };
    Ok(Request::Run { words: program.iter().map(|word| (*word).to_owned()).collect(), env })
}

#[test]
fn a_call_has_variables_and_words() {
    let request = read_call(&["--env", "A=b=c", "--", "sh", "-c", "--"]).expect("a call");
    let words = ["sh", "-c", "--"].map(str::to_owned).to_vec();
    let env = BTreeMap::from([("A".to_owned(), "b=c".to_owned())]);
    assert_eq!(request, Request::Run { words, env });
    assert!(read_call(&["sh"]).is_err());
    assert!(read_call(&["--env", "A", "--", "sh"]).is_err());
}
