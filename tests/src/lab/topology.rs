//! What a scenario may ask of the machines that it runs on, whatever they are made of: network
//! namespaces, containers, or virtual machines with kernels of their own.
//!
//! Everything is asked by command lines of the machine that runs the test, so that programs,
//! their input, output and exit status are handled in one way everywhere. A topology keeps what it
//! must know in its folder: another process can attach to it.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use nix::sys::signal::Signal;

/// What the machines are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Network namespaces of one kernel.
    Namespaces,
    /// Containers of a Docker Engine.
    Containers,
    /// Virtual machines: each has its own kernel and clock.
    VirtualMachines,
}

/// An end of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// A node, by its index.
    Node(usize),
    /// The external client.
    Client,
}

/// What happens to frames on their way from one point to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        /// Up to so many more, drawn anew for each.
        spread_ms: u32,
    },
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

    /// The daemon's data directory on this machine.
    fn data_dir(&self) -> PathBuf;

    /// Further words for the daemon's command line, from its next start on.
    fn set_flags(&mut self, flags: &[&str]) -> Result<()>;

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
    /// When something of it goes on.
    fn power_off(&mut self) -> Result<()>;

    /// The daemon's output, of all its starts.
    fn log(&self) -> String;
}

/// A set of machines on one underlay, with an external client on it.
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
