//! The interface of scenarios to the machines that they run on: network namespaces, containers, or
//! virtual machines.
//!
//! All operations are command lines on the machine that runs the test, so that programs, their
//! input, output and exit status are handled in the same way everywhere. A topology stores its
//! state in its folder, so that another process can attach to it.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Error, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// How long a daemon may take until it answers, on a machine that is on.
const READY_MAX: Duration = Duration::from_secs(15);

/// What the machines are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Network namespaces of one kernel.
    Namespaces,
    /// Containers of a Docker Engine.
    Containers,
    /// Virtual machines: each has its own kernel and clock.
    VirtualMachines,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Namespaces, Self::VirtualMachines, Self::Containers];

    /// The word by which a command line names it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Containers => "containers",
            Self::VirtualMachines => "vm",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words = Self::ALL.map(Self::word).join(", ");
        match Self::ALL.into_iter().find(|kind| kind.word() == text) {
            Some(kind) => Ok(kind),
            None => bail!("no topology is named {text:?}: choose one of {words}"),
        }
    }
}

/// An end of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Point {
    /// A node, by its index.
    Node(usize),
    /// The external client.
    Client,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(index) => write!(f, "node{}", index + 1),
            Self::Client => f.write_str("client"),
        }
    }
}

impl FromStr for Point {
    type Err = Error;

    /// Reads `client`, or a node's number from 1 on, with or without `node` before it.
    fn from_str(text: &str) -> Result<Self> {
        if text == "client" {
            return Ok(Self::Client);
        }
        match text.strip_prefix("node").unwrap_or(text).parse::<usize>() {
            Ok(number) if number > 0 => Ok(Self::Node(number - 1)),
            _ => bail!("{text:?} is no end of the underlay: say node1, node2 … or client"),
        }
    }
}

/// What happens to frames on their way from one point to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// None arrives.
    Cut,
    /// So many of a hundred are lost.
    Loss {
        /// 1 to 100.
        percent: u8,
    },
    /// Each arrives later; with a spread wider than their distance they change places.
    Delay {
        /// Milliseconds that each one takes at least.
        ms: u32,
        /// Maximum of the random extra delay of each packet.
        spread_ms: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("cut"),
            Self::Loss { percent } => write!(f, "loss of {percent} %"),
            Self::Delay { ms, spread_ms: 0 } => write!(f, "delay of {ms} ms"),
            Self::Delay { ms, spread_ms } => {
                write!(f, "delay of {ms} to {} ms", u64::from(*ms) + u64::from(*spread_ms))
            }
        }
    }
}

/// One machine of a lab. Its daemon may be running or not; tasks may outlive it.
pub trait Machine: fmt::Debug {
    /// Its host name: `node1` for the first.
    fn name(&self) -> &str;

    /// Its address on the underlay.
    fn address(&self) -> Ipv4Addr;

    /// The command line that runs `words` on this machine, in its root and host namespace, as
    /// root: standard input and output and the exit status are those of the program.
    fn line(&self, words: &[&str]) -> Vec<String>;

    /// Where on this machine a program of this build lies (`skein`, `skein-lab-probe` …).
    ///
    /// # Errors
    /// When it was not built, or is not on the machine.
    fn program(&self, name: &str) -> Result<String>;

    /// Where on the machine that runs the test the daemon's API is reached, by a Unix socket.
    fn socket(&self) -> PathBuf;

    /// The daemon's run directory on this machine.
    fn run_dir(&self) -> PathBuf;

    /// Where on this machine the daemon's API is reached: the daemon's own default.
    fn inner_socket(&self) -> PathBuf {
        self.run_dir().join("skein.sock")
    }

    /// The machine's folder where the machine that runs the test sees the files and processes of
    /// this one; none where it does not. What no other topology can do may lean on it.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// How long it may take from [`Machine::spawn`] until the daemon answers.
    fn ready_max(&self) -> Duration {
        READY_MAX
    }

    /// The daemon's data directory on this machine.
    fn data_dir(&self) -> PathBuf;

    /// Further words for the daemon's command line, from its next start on.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn set_flags(&mut self, flags: &[&str]) -> Result<()>;

    /// Another program than this build's as the daemon, from its next start on; none: this build's.
    ///
    /// # Errors
    /// Where that is not offered.
    fn set_daemon(&mut self, program: Option<&Path>) -> Result<()> {
        bail!("{} cannot run {program:?} as its daemon", self.name())
    }

    /// Sets the daemon's wall clock ahead of the machine's, from its next start on; its monotonic
    /// one is left alone.
    ///
    /// # Errors
    /// Where that is not offered.
    fn set_days_ahead(&mut self, days: u32) -> Result<()> {
        bail!("{} cannot set a daemon's clock {days} days ahead", self.name())
    }

    /// Switches the machine on, if it is off, and starts the daemon without waiting for it.
    ///
    /// # Errors
    /// When a daemon runs already or the machine does not start.
    fn spawn(&mut self) -> Result<()>;

    /// Whether the daemon runs; false as well where the machine is off.
    ///
    /// # Errors
    /// When that cannot be told.
    fn is_running(&mut self) -> Result<bool>;

    /// Sends a signal to the daemon, and to nothing else.
    ///
    /// # Errors
    /// When no daemon runs.
    fn signal(&mut self, signal: Signal) -> Result<()>;

    /// The loss of the whole machine: at once, so that nothing on it can say good-bye. Its data
    /// directory keeps what had reached the disk. [`Machine::spawn`] brings it back.
    ///
    /// # Errors
    /// When a part of it keeps running.
    fn power_off(&mut self) -> Result<()>;

    /// The daemon's output, of all its starts.
    fn log(&self) -> String;
}

/// A set of machines on one underlay, with an external client on it. The client stands for the rest
/// of the world: it is every machine's default route and its only resolver.
pub trait Topology: fmt::Debug {
    /// What the machines are made of.
    fn kind(&self) -> Kind;

    /// Machines in order, each its own from now on.
    ///
    /// # Errors
    /// When they cannot be found.
    fn machines(&self) -> Result<Vec<Box<dyn Machine>>>;

    /// The external client's address.
    fn client_address(&self) -> Ipv4Addr;

    /// The command line that runs `words` on the external client.
    fn client_line(&self, words: &[&str]) -> Vec<String>;

    /// Where on the external client a program of this build lies.
    ///
    /// # Errors
    /// When it was not built, or is not there.
    fn client_program(&self, name: &str) -> Result<String> {
        Ok(crate::program(name)?.to_string_lossy().into_owned())
    }

    /// The faults between points that are there now: (from, to, fault), one way each.
    ///
    /// # Errors
    /// When that cannot be told.
    fn faults(&self) -> Result<Vec<(Point, Point, Fault)>> {
        Ok(Vec::new())
    }

    /// Disturbs the underlay from one point to another, one way, in place of any fault that was
    /// there.
    ///
    /// # Errors
    /// When this topology does not offer the fault; it says which ones it offers.
    fn disturb(&mut self, from: Point, to: Point, fault: Fault) -> Result<()>;

    /// Takes away all faults between two points, both ways.
    ///
    /// # Errors
    /// When one stays.
    fn heal(&mut self, one: Point, other: Point) -> Result<()>;

    /// Ends and removes everything of the topology. Doing it twice changes nothing.
    ///
    /// # Errors
    /// With all that could not be removed.
    fn tear_down(&mut self) -> Result<()>;
}

#[test]
fn words_of_a_command_line_are_read_and_shown() {
    for kind in Kind::ALL {
        assert_eq!(kind.word().parse::<Kind>().expect("its own word"), kind);
    }
    for (text, point) in [("node1", Point::Node(0)), ("12", Point::Node(11))] {
        assert_eq!(text.parse::<Point>().expect("a node"), point);
    }
    assert_eq!("client".parse::<Point>().expect("the client"), Point::Client);
    assert_eq!(Point::Node(0).to_string(), "node1");
    for text in ["", "node0", "node-1", "nodes", "clients"] {
        let error = text.parse::<Point>().expect_err("no point").to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
    assert!("docker".parse::<Kind>().expect_err("no kind").to_string().contains("containers"));
    assert_eq!(Fault::Delay { ms: 20, spread_ms: 5 }.to_string(), "delay of 20 to 25 ms");
}
