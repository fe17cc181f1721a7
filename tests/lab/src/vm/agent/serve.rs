//! The agent's end: what runs in the guest.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::frame::{FRAME_BYTES_MAX, Frame};
use super::{Reply, Request, read_line, splice, watch, write_line};

/// Where programs are looked for, those of this build included.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/skein";

/// Answers requests, each in a thread of its own, until the listener fails.
///
/// # Errors
/// When no further connection can be accepted.
pub fn serve(listener: &TcpListener) -> Result<()> {
    for stream in listener.incoming() {
        let stream = stream.context("awaiting a connection")?;
        std::thread::spawn(move || {
            if let Err(error) = answer(&stream) {
                // The console: the client may be gone.
                let _ = writeln!(std::io::stderr(), "skein-lab-agent: {error:#}");
            }
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn answer(stream: &TcpStream) -> Result<()> {
    watch(stream)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    match read_line(&mut reader)? {
        Request::Run { words, env } => match start(&words, &env) {
            Ok(child) => {
                write_line(&mut &*stream, &Reply::Done)?;
                carry(child, reader, stream)
            }
            Err(error) => refuse(stream, &error),
        },
        Request::Connect { path } => {
            match UnixStream::connect(&path).with_context(|| format!("opening {path}")) {
                Ok(unix) => {
                    write_line(&mut &*stream, &Reply::Done)?;
                    splice(stream, reader.buffer(), &unix)
                }
                Err(error) => refuse(stream, &error),
            }
        }
    }
}

fn refuse(mut stream: &TcpStream, error: &anyhow::Error) -> Result<()> {
    write_line(&mut stream, &Reply::Refused { why: format!("{error:#}") })
}

fn start(words: &[String], env: &BTreeMap<String, String>) -> Result<Child> {
    let Some((program, rest)) = words.split_first() else { bail!("no program is named") };
    // The search for the program takes the path that the program gets.
    Command::new(program)
        .args(rest)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/var/empty")
        .envs(env)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))
}

/// Carries a program's streams until it has ended and they have.
fn carry(mut child: Child, reader: BufReader<TcpStream>, stream: &TcpStream) -> Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id())?);
    // None once the program was awaited: its number may be another's then.
    let running = Arc::new(Mutex::new(Some(group)));
    let to = Arc::new(Mutex::new(stream.try_clone()?));
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let watched = Arc::clone(&running);
    std::thread::spawn(move || {
        // It ends only when the connection does.
        let _ = feed(reader, input);
        if let Some(group) = *watched.lock().unwrap_or_else(PoisonError::into_inner) {
            // One that ended meanwhile is what we want.
            let _ = killpg(group, Signal::SIGKILL);
        }
    });
    let outputs = output.map(|output| pump(output, Arc::clone(&to), Frame::Output));
    let errors = errors.map(|errors| pump(errors, Arc::clone(&to), Frame::Error));
    for pump in [outputs, errors].into_iter().flatten() {
        // Where the client is gone nothing can be sent; the program is awaited all the same.
        let _ = pump.join();
    }
    let status = child.wait().context("awaiting the program")?;
    *running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    Frame::Ended(code).write(&mut *to)
}

/// Gives the program its input. Ends with an error when the connection does.
fn feed(mut from: BufReader<TcpStream>, mut input: Option<impl Write>) -> Result<()> {
    loop {
        match Frame::read(&mut from)? {
            Some(Frame::Input(bytes)) => {
                // A program that does not read its input is not our problem.
                let _ = input.as_mut().map(|input| input.write_all(&bytes));
            }
            Some(Frame::InputEnd) => drop(input.take()),
            Some(other) => bail!("{other:?} came from a client"),
            None => bail!("the connection ended"),
        }
    }
}

fn pump(
    mut from: impl Read + Send + 'static,
    to: Arc<Mutex<TcpStream>>,
    frame: fn(Vec<u8>) -> Frame,
) -> std::thread::JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            let length = from.read(&mut buffer).context("reading a program's output")?;
            if length == 0 {
                return Ok(());
            }
            let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
            frame(buffer[..length].to_vec()).write(&mut *to)?;
        }
    })
}
