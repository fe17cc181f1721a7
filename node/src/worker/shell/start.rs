//! How a worker's shell and what works next to it are started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use agent::{Agent, Config, Facts, Input, Report};
use cluster::id::{NodeId, TaskId};
use cluster::net::Subnet;
use cluster::object::NodeDescription;
use netprog_linux::dns_server::Forwarder;
use netprog_linux::facts::RESOLV_CONF;
use netprog_linux::kernel::LinuxKernel;
use supervise::layout::LOGS;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::kept::Kept;
use super::{AllLaunched, Shell, Told, WorkerHandle, moment, spawn};
use crate::clock;
use crate::disk;
use crate::executor::Supervisors;
use crate::executor::process::ProcessExecutor;
use crate::gossip_io::Gossip;
use crate::identity::{DataDir, Identity};
use crate::member::office::Office;
use crate::spaces::{NodeSpaces, Sandboxes};
use crate::transport::Net;
use crate::worker::names::Names;
use crate::worker::probes;
use crate::worker::programmer::{self, Done, Order};
use crate::worker::session::{Known, Session};
use crate::worker::unseen::Unseen;

/// Inputs that wait for the core.
pub(super) const QUEUE: usize = 1024;

/// What the node offers to a worker, found out once at start.
#[derive(Clone)]
pub struct NodeFacts {
    /// This binary.
    pub exe: PathBuf,
    /// Run directory.
    pub run_dir: PathBuf,
    /// Facts of the kernel and the underlay.
    pub facts: Facts,
    /// What the node says of itself.
    pub description: NodeDescription,
}

/// The rest of the member, as a worker uses it.
pub struct MemberHandles {
    /// Gossip.
    pub gossip: Gossip,
    /// Connections to peers.
    pub net: Net,
    /// This node's own manager, while it is one.
    pub office: watch::Receiver<Option<Office>>,
}

/// A worker that has not begun.
pub struct Begin {
    shell: Shell,
    inputs: mpsc::Receiver<Input>,
    ended: watch::Sender<Option<Report>>,
    egress: BTreeMap<TaskId, IpAddr>,
    gwbridge: Subnet,
}

impl Begin {
    /// Has the worker work. When this returns, what is on disk is in force.
    pub async fn begin(self) {
        let Self { mut shell, inputs, ended, egress, gwbridge } = self;
        shell.step(Input::Tick).await;
        shell.adopt(egress, gwbridge);
        tokio::spawn(async move {
            let last = shell.run(inputs).await;
            ended.send_replace(Some(last));
        });
    }
}

impl Shell {
    /// Makes a worker, with all that works next to it; it asks nobody before [`Begin::begin`].
    pub async fn prepare(
        data: &DataDir,
        identity: &Identity,
        facts: NodeFacts,
        handles: MemberHandles,
        stop: &CancellationToken,
    ) -> anyhow::Result<(WorkerHandle, Begin)> {
        let dir = data.worker();
        disk::private_dir(&dir)?;
        let NodeFacts { exe, run_dir, facts, description } = facts;
        let supervisors = Supervisors::new(&exe, &run_dir, data.path())?;
        let executor = Arc::new(ProcessExecutor::new(&exe, data.path())?);
        let sandboxes = Sandboxes::default();
        let kernel = kernel(exe, run_dir, sandboxes.clone()).await?;
        let is_closed = Arc::new(AtomicBool::new(false));
        let told = Told::new(&identity.managers);
        let kept = Kept::new(data, identity, is_closed.clone());
        let on_disk = kept.found();
        if let Some(held) = &on_disk.assignment {
            tracing::info!(revision = held.assignment.revision.0, "last assignment read from disk");
        }
        let (egress, gwbridge) = (on_disk.egress.clone(), facts.gwbridge);
        let config = Config { node: identity.node, facts: facts.clone(), description, on_disk };
        let (inbox, inputs) = mpsc::channel(QUEUE);
        let (orders, ordered) = mpsc::channel(1);
        let (gossip, session) = open_session(identity.node, handles, &told);
        let shell = Self {
            agent: Agent::new(config, moment()),
            supervisors,
            executor,
            launched: AllLaunched::default(),
            logs: data.path().join(LOGS),
            sandboxes,
            dns: BTreeMap::new(),
            names: Arc::new(Names::new(told.assignment.subscribe(), gossip.view())),
            forwarder: forwarder(),
            gossip,
            inbox,
            orders,
            session,
            told,
            kept: Arc::new(Mutex::new(kept)),
            is_closed,
            drift: kernel.doorbell(),
            untaken: Unseen::default(),
            stop: stop.clone(),
        };
        let (ended_writer, ended) = watch::channel(None);
        let handle = shell.open(kernel, ordered, facts, (dir, ended));
        Ok((handle, Begin { shell, inputs, ended: ended_writer, egress, gwbridge }))
    }

    /// Starts what works next to the shell, and what the rest of the daemon asks.
    fn open(
        &self,
        kernel: LinuxKernel<NodeSpaces>,
        orders: mpsc::Receiver<Order>,
        facts: Facts,
        (dir, ended): (PathBuf, watch::Receiver<Option<Report>>),
    ) -> WorkerHandle {
        let balancer = facts.balancer;
        let (asks, asked) = mpsc::channel(QUEUE);
        let (done_writer, done) = watch::channel(Done::default());
        let inbox = self.inbox.clone();
        let channels = programmer::Channels { orders, asks: asked, done: done_writer, inbox };
        spawn(&self.stop, programmer::run(kernel, channels));
        let (found, probed) = watch::channel(BTreeSet::new());
        let looks = probes::Sources {
            done: done.clone(),
            assignment: self.told.assignment.subscribe(),
            view: self.gossip.view(),
            tasks: self.told.tasks.subscribe(),
            sandboxes: self.sandboxes.clone(),
            facts,
            inbox: self.inbox.clone(),
        };
        spawn(&self.stop, probes::run(looks, found));
        WorkerHandle {
            assignment: self.told.assignment.subscribe(),
            told: self.told.of_manager.subscribe(),
            done,
            tasks: self.told.tasks.subscribe(),
            supervisors: self.supervisors.clone(),
            executor: self.executor.clone(),
            balancer,
            dir,
            probed,
            lateness: self.told.lateness.subscribe(),
            inbox: self.inbox.clone(),
            asks,
            ended,
            session: self.session.clone(),
            untaken: self.untaken.clone(),
            gossip: self.gossip.clone(),
        }
    }
}

fn open_session(node: NodeId, handles: MemberHandles, told: &Told) -> (Gossip, Session) {
    let MemberHandles { gossip, net, office } = handles;
    let (managers, assignment) = (told.managers.subscribe(), told.assignment.subscribe());
    let known = Known { managers, assignment, office, gossip: gossip.clone() };
    (gossip, Session::new(node, net, known))
}

/// Asks whom the host asks.
fn forwarder() -> Arc<Forwarder> {
    Arc::new(Forwarder::following(Path::new(RESOLV_CONF), Arc::new(clock::monotonic)))
}

/// The holder is started and asked synchronously.
async fn kernel(
    exe: PathBuf,
    run_dir: PathBuf,
    sandboxes: Sandboxes,
) -> anyhow::Result<LinuxKernel<NodeSpaces>> {
    let start = move || NodeSpaces::start(&exe, &run_dir, sandboxes);
    Ok(LinuxKernel::new(tokio::task::spawn_blocking(start).await??))
}
