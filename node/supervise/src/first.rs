//! Pid 1 of a container that is a node of the cluster: it runs the daemon, passes the container's
//! stop on to it, and reaps what supervisors and tasks leave behind.
//!
//! The daemon may end without its tasks, and here as anywhere they must not end with it: a daemon
//! that was killed is started again next to them. One that ended by itself, as when the machine
//! lacks something, ends the container with its status: that is for the container's own restart
//! policy to judge.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{execv, setsid};

use crate::detach;
use crate::notes::note;
use crate::sys::{self, Ended, Forked};

/// What the program is called with to be pid 1.
pub(super) const MODE: &str = "first";
/// Leaves a daemon that ended as it is, whatever ended it, until SIGHUP starts the next one.
const BY_HAND: &str = "--by-hand";
/// Further words for the daemon, one a line, read at each of its starts; it need not exist.
const FLAGS: &str = "/etc/skein/flags";
/// The program itself, whatever becomes of its file.
const OWN: &str = "/proc/self/exe";
/// Whose words these are, in the log that the daemon's are in, too.
const OWN_NAME: &str = "skein first";
/// The kernel's parameters.
const PARAMETERS: &str = "/proc/sys";
/// Between the end of a daemon that was killed and the next one's start: short of a node's lease
/// (`LEASE`, raft-store/leader/src/dispatcher.rs), after which its tasks are replaced. systemd's
/// own default.
const START_AGAIN: Duration = Duration::from_millis(100);

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// Tells a daemon that its machine stops (node/src/app.rs).
const SIGPWR: i32 = 30;

/// Starts the program again with `words` (`daemon …`) and looks after it, as pid 1. Returns when
/// the container is to end.
pub(super) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<OsString> = words.collect();
    let by_hand = words.first().is_some_and(|word| word == BY_HAND);
    if by_hand {
        words.remove(0);
    }
    if std::process::id() != 1 {
        note("skein first is for pid 1 of a container: use skein daemon");
        return ExitCode::FAILURE;
    }
    if let Err(error) = open_parameters() {
        note(&format!("make {PARAMETERS} writable: {}", sys::words(error)));
        return ExitCode::FAILURE;
    }
    sys::block_all_signals();
    let mut first = First { words, by_hand, daemon: None, stopping: false };
    let status = first.start().and_then(|()| first.look_after());
    status.unwrap_or_else(|error| {
        note(&format!("fork the daemon: {}", sys::words(error)));
        ExitCode::FAILURE
    })
}

/// Container engines cover the kernel's parameters with a read-only mount. A node sets those of the
/// network namespaces that it makes.
fn open_parameters() -> nix::Result<()> {
    if !statvfs(PARAMETERS)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let writable = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID;
    let flags = writable | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(None::<&str>, PARAMETERS, None::<&str>, flags, None::<&str>)
}

struct First {
    words: Vec<OsString>,
    by_hand: bool,
    daemon: Option<i32>,
    stopping: bool,
}

impl First {
    fn start(&mut self) -> nix::Result<()> {
        match sys::fork()? {
            Forked::Parent(pid) => {
                note(&format!("{OWN_NAME}: the daemon is started as process {pid}"));
                self.daemon = Some(pid.as_raw());
            }
            Forked::Child => {
                let Err(error) = become_daemon(&self.words);
                note(&format!("exec {OWN}: {}", sys::words(error)));
                sys::exit_now(1);
            }
        }
        Ok(())
    }

    fn look_after(&mut self) -> nix::Result<ExitCode> {
        loop {
            let signal = sys::next_signal();
            // A daemon that has ended counts as such before the signal: they come in any order.
            while let Some((pid, ended)) = sys::reap(-1) {
                if self.daemon != Some(pid) {
                    continue;
                }
                self.daemon = None;
                match after(ended, self.by_hand, self.stopping) {
                    After::End(code) => return Ok(ExitCode::from(code)),
                    After::Wait => {
                        note(&format!("{OWN_NAME}: the daemon {ended}; SIGHUP starts it"))
                    }
                    After::StartAgain => {
                        note(&format!("{OWN_NAME}: the daemon {ended}; it is started again"));
                        detach::pause(START_AGAIN);
                        self.start()?;
                    }
                }
            }
            match (signal, self.daemon) {
                (SIGHUP, None) => self.start()?,
                (SIGTERM | SIGINT, None) => return Ok(ExitCode::SUCCESS),
                (SIGTERM | SIGINT, Some(daemon)) => {
                    self.stopping = true;
                    // The container ends, and all that runs in it: no restart. A daemon that ended
                    // just now is found in the next round.
                    let _ = sys::kill(daemon, SIGPWR);
                }
                _ => {}
            }
        }
    }
}

fn become_daemon(words: &[OsString]) -> nix::Result<Infallible> {
    sys::reset_signals();
    setsid()?;
    let further = further_words(Path::new(FLAGS));
    let words = words.iter().cloned().chain(further.into_iter().map(OsString::from));
    let words: Result<Vec<CString>, _> = std::iter::once(OsString::from("skein"))
        .chain(words)
        .map(|word| CString::new(word.into_vec()))
        .collect();
    let own = CString::new(OWN).map_err(|_nul| Errno::EINVAL)?;
    execv(&own, &words.map_err(|_nul| Errno::EINVAL)?)
}

fn further_words(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What to do when the daemon has ended.
#[derive(Debug, PartialEq, Eq)]
enum After {
    End(u8),
    Wait,
    StartAgain,
}

fn after(ended: Ended, by_hand: bool, stopping: bool) -> After {
    match ended {
        Ended::Code(code) if stopping => After::End(u8::try_from(code).unwrap_or(u8::MAX)),
        Ended::Signal(_) if stopping => After::End(0),
        Ended::Code(_) | Ended::Signal(_) if by_hand => After::Wait,
        Ended::Code(code) => After::End(u8::try_from(code).unwrap_or(u8::MAX)),
        Ended::Signal(_) => After::StartAgain,
    }
}

#[test]
fn a_killed_daemon_is_started_again_and_one_that_refuses_ends_the_container() {
    let (killed, refused) = (Ended::Signal(9), Ended::Code(1));
    assert_eq!(after(killed, false, false), After::StartAgain);
    assert_eq!(after(refused, false, false), After::End(1));
    for ended in [killed, refused] {
        assert_eq!(after(ended, true, false), After::Wait);
    }
    for by_hand in [false, true] {
        assert_eq!(after(Ended::Code(0), by_hand, true), After::End(0));
        assert_eq!(after(killed, by_hand, true), After::End(0));
    }
}

#[test]
fn further_words_are_lines_and_need_not_exist() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flags");
    assert!(further_words(&path).is_empty());
    fs::write(&path, "--gossip-port\n7000\n\n").expect("written");
    assert_eq!(further_words(&path), ["--gossip-port", "7000"]);
}
