//! Virtual machines without a lab: builds boot images, runs one program on another kernel, or runs
//! one machine in the foreground.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use lab::vm::guest::Wire;
use lab::vm::images::Images;
use lab::vm::kernel::Kernel;
use lab::vm::runner::Job;
use lab::vm::single::Single;

const USAGE: &str = "skein-vm build [qemu|current|uml]…   build images and kernels (all by default)
skein-vm test --guest qemu|current|uml [--memory MIB] [--file FILE]… [--env KEY=VALUE]…
              -- PROGRAM ARGS…     run a program of this machine on that kernel, as root
skein-vm run --name NAME --address ADDR/BITS --tap TAP [--gateway ADDR] [--dns ADDR]
             [--guest qemu|current|uml] [--memory MIB] [--folder FOLDER] [-- PROGRAM ARGS…]
                                   run one guest in the foreground, until SIGTERM or the end of
                                   the program, which is the guest's own";
/// Where guests that run in the foreground have their disks.
const FOLDER: &str = "/var/lib/skein-vm";
/// The exit status of what could not be run, as ssh has it.
const LOST: u8 = 255;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["build", kinds @ ..] => build(kinds),
        ["test", rest @ ..] => test(rest),
        ["run", rest @ ..] => read_single(rest).and_then(|single| single.run()).map(status),
        _ => {
            let _ = writeln!(std::io::stderr(), "usage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skein-vm: {error:#}");
            ExitCode::from(LOST)
        }
    }
}

fn build(kinds: &[&str]) -> Result<u8> {
    let kinds = if kinds.is_empty() { &["qemu", "uml"] } else { kinds };
    for kind in kinds {
        let images = Images::build(kind.parse()?)?;
        let _ = writeln!(std::io::stdout(), "{kind}: {images:#?}");
    }
    Ok(0)
}

fn test(words: &[&str]) -> Result<u8> {
    read_job(words)?.run().map(status)
}

fn status(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(LOST)
}

fn read_single(words: &[&str]) -> Result<Single> {
    let (mut name, mut address, mut tap) = (None, None, None);
    let (mut gateway, mut dns, mut memory_mib, mut folder) = (None, None, None, None);
    let (mut kernel, mut program) = (Kernel::Debian61, Vec::new());
    let mut rest = words;
    while let [flag, value, more @ ..] = rest {
        let shown = || format!("reading {value:?} for {flag}");
        match *flag {
            "--" => break,
            "--name" => name = Some((*value).to_owned()),
            "--address" => {
                let (own, bits) = value.split_once('/').with_context(shown)?;
                address =
                    Some((own.parse().with_context(shown)?, bits.parse().with_context(shown)?));
            }
            "--tap" => tap = Some((*value).to_owned()),
            "--gateway" => gateway = Some(value.parse().with_context(shown)?),
            "--dns" => dns = Some(value.parse().with_context(shown)?),
            "--guest" => kernel = value.parse()?,
            "--memory" => memory_mib = Some(value.parse().with_context(shown)?),
            "--folder" => folder = Some(PathBuf::from(value)),
            other => bail!("unknown flag {other:?}; usage: {USAGE}"),
        }
        rest = more;
    }
    match rest {
        [] => {}
        ["--", words @ ..] if !words.is_empty() => {
            program.extend(words.iter().map(|word| (*word).to_owned()));
        }
        _ => bail!("{rest:?} is incomplete; usage: {USAGE}"),
    }
    let name = name.context("--name is missing")?;
    let (address, prefix) = address.context("--address is missing")?;
    let wire = Wire { tap: tap.context("--tap is missing")?, address, prefix, gateway, dns };
    let folder = folder.unwrap_or_else(|| PathBuf::from(FOLDER).join(&name));
    Ok(Single { name, kernel, memory_mib, folder, wire, words: program })
}

fn read_job(words: &[&str]) -> Result<Job> {
    let mut job = Job {
        kernel: Kernel::Debian61,
        memory_mib: None,
        files: Vec::new(),
        env: Vec::new(),
        words: Vec::new(),
    };
    let mut rest = words;
    loop {
        match rest {
            ["--guest", kind, ..] => job.kernel = kind.parse()?,
            ["--memory", mib, ..] => {
                job.memory_mib = Some(mib.parse().with_context(|| format!("reading {mib:?}"))?);
            }
            ["--file", file, ..] => job.files.push(PathBuf::from(file)),
            ["--env", pair, ..] => job.env.push((*pair).to_owned()),
            ["--", program @ ..] if !program.is_empty() => {
                job.words = program.iter().map(|word| (*word).to_owned()).collect();
                return Ok(job);
            }
            _ => bail!("usage: {USAGE}"),
        }
        rest = &rest[2..];
    }
}

#[test]
fn a_job_is_read() {
    let words = "--guest uml --memory 512 --file a/b --env A=b -- t --exact x --guest";
    let words: Vec<&str> = words.split(' ').collect();
    let job = read_job(&words).expect("a job");
    assert_eq!((job.kernel, job.memory_mib), (Kernel::Uml, Some(512)));
    assert_eq!((job.files, job.env), (vec![PathBuf::from("a/b")], vec!["A=b".to_owned()]));
    assert_eq!(job.words, ["t", "--exact", "x", "--guest"]);
    for bad in [&["--guest", "uml"][..], &["--guest", "xen", "--", "t"], &["t"], &["--"]] {
        assert!(read_job(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_single_guest_is_read() {
    let words = "--name a --address 10.0.0.2/24 --tap t0 --guest uml -- sh -c --name";
    let words: Vec<&str> = words.split(' ').collect();
    let single = read_single(&words).expect("a guest");
    assert_eq!((single.name.as_str(), single.kernel), ("a", Kernel::Uml));
    assert_eq!((single.wire.prefix, single.wire.gateway), (24, None));
    assert_eq!(single.folder, PathBuf::from(FOLDER).join("a"));
    assert_eq!(single.words, ["sh", "-c", "--name"]);
    for (bad, named) in [
        ("--name a --address 10.0.0.2/24", "--tap"),
        ("--name a --address 10.0.0.2 --tap t", "10.0.0.2"),
        ("--name a --address 10.0.0.2/24 --tap t --speed 9", "--speed"),
        ("--name a --address 10.0.0.2/24 --tap t --", "incomplete"),
    ] {
        let words: Vec<&str> = bad.split(' ').collect();
        let error = format!("{:#}", read_single(&words).expect_err(bad));
        assert!(error.contains(named), "{bad}: {error}");
    }
}
