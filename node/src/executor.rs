//! Runs tasks on this node: what to run is a [`LaunchSpec`], where is a [`Sandbox`]. The executor
//! [`process`] runs them as processes.

use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use cluster::exec::ExecSpec;
use futures_util::stream::BoxStream;
use supervise::logs::LogLine;
use tokio::sync::watch;

use crate::logs::Query;
use exec::Exec;

mod error;
pub mod exec;
pub mod process;
pub mod sandbox;

pub use error::Error;
pub use sandbox::{Sandbox, Supervisors};
pub use supervise::limits_supported;
pub use supervise::protocol::{Exit, HealthReport, HealthState, Phase, TaskReport};
pub use supervise::spec::{
    DnsConfig, HOSTNAME_CHARACTERS, HealthCheck, HostEntry, LaunchSpec, Limits, LogLimits, LogSink,
    Mount, MountSource, Output, Probe, Propagation, Rights, Root, Seccomp, StartSpec, StopPolicy,
    parse_signal,
};

/// Runs tasks in sandboxes that it is given, each for one task and of its id.
///
/// Whatever becomes of the daemon, which has no chance to say so:
///
/// 1. a task that was launched is found again by [`adopt`](Executor::adopt), until it is forgotten;
/// 2. a task runs at most once in its sandbox, ever: neither a second launch or start, nor one by
///    another daemon, nor one after its end or after it was forgotten has an effect;
/// 3. how it ended is found as often as it is asked for, until it is forgotten; of one whose end
///    nobody could see, it is that it was lost.
///
/// `node/tests/executor/contract.rs` holds an implementation to it.
#[async_trait]
pub trait Executor: fmt::Debug + Send + Sync {
    /// Finds the task that was launched in a sandbox. `None` when none was, or it was forgotten.
    ///
    /// # Errors
    /// When that cannot be told now.
    async fn adopt(&self, sandbox: &Sandbox) -> io::Result<Option<Launched>>;

    /// Gets ready to run `spec`, which is of the sandbox's task.
    ///
    /// # Errors
    /// [`Error::Rejected`] when this node can never run it; [`Error::AlreadyLaunched`] when
    /// [`adopt`](Executor::adopt) finds it. After any other error it may be tried again.
    async fn launch(&self, spec: LaunchSpec, sandbox: &Sandbox) -> Result<Launched, Error>;

    /// Runs the task: its sandbox is wired.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has been started or has ended.
    async fn start(&self, sandbox: &Sandbox, start: StartSpec) -> Result<(), Error>;

    /// Sends `signal`, and SIGKILL to all processes of the task after `grace`; `None` is what the
    /// launch spec says. Returns when the signal has been sent. A task that has ended is no error,
    /// and one that has not begun ends.
    ///
    /// # Errors
    /// When it cannot be reached.
    async fn stop(
        &self,
        sandbox: &Sandbox,
        signal: Option<i32>,
        grace: Option<Duration>,
    ) -> Result<(), Error>;

    /// Runs a further program in the task, in its namespaces and root and within its limits, with
    /// its capabilities and system calls, and never with more than these. Returns when it starts;
    /// one that cannot be executed has ended then. It ends with the task, and when nobody reads its
    /// output any more, as when the daemon ends.
    ///
    /// # Errors
    /// [`Error::Rejected`] when `spec` names no program; [`Error::Refused`] when the task does not
    /// run, or as many programs run in it or on the node as may
    /// ([`EXECS_PER_TASK_MAX`](exec::EXECS_PER_TASK_MAX), [`EXECS_MAX`](exec::EXECS_MAX)).
    async fn exec(&self, sandbox: &Sandbox, spec: ExecSpec) -> Result<Exec, Error>;

    /// The lines that a task has written, forgotten or not.
    fn logs(&self, task: &str, query: Query) -> BoxStream<'static, io::Result<LogLine>>;

    /// Removes everything of a task that has ended or was never started, but not its logs and its
    /// sandbox. Doing it twice is no error.
    ///
    /// # Errors
    /// [`Error::Refused`] while the task runs; [`Error::Remove`] when something stays, after which
    /// it can be tried again.
    async fn forget(&self, sandbox: &Sandbox) -> Result<(), Error>;
}

/// A task that has been launched. Clones are the same task; dropping all of them leaves it alone.
#[derive(Debug, Clone)]
pub struct Launched {
    /// Where.
    pub sandbox: Sandbox,
    /// What it is to run.
    pub spec: LaunchSpec,
    /// What is known of it. The sender goes away when nothing can change any more.
    pub reports: watch::Receiver<TaskReport>,
}

impl Launched {
    /// What is known now.
    #[must_use]
    pub fn report(&self) -> TaskReport {
        self.reports.borrow().clone()
    }
}
