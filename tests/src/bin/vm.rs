//! Virtual machines by hand: builds what they boot from, runs one program on another kernel, runs
//! one machine in the foreground.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tests::vm::images::Images;
use tests::vm::kernel::Kernel;
use tests::vm::runner::Job;

const USAGE: &str = "skein-vm build [qemu|current|uml]…   build images and kernels (all by default)
skein-vm test --guest qemu|current|uml [--memory MIB] [--file FILE]… [--env KEY=VALUE]…
              -- PROGRAM ARGS…     run a program of this machine on that kernel, as root";
/// The exit status of what could not be run, as ssh has it.
const LOST: u8 = 255;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["build", kinds @ ..] => build(kinds),
        ["test", rest @ ..] => test(rest),
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
    let status = read_job(words)?.run()?;
    Ok(u8::try_from(status).unwrap_or(LOST))
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
