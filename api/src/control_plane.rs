//! The interface that the API needs from the daemon. `node` implements it; tests use a small fake.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster::exec::{ExecInput, ExecOutput, ExecSpec};
use cluster::id::{NetworkId, NodeId, ServiceId, TaskId};
use cluster::net::{Subnet, Subnets, Vni};
use cluster::request::{Answer, Request};
use cluster::spec::{Availability, ClusterSpec};
use cluster::state::State;
use cluster::time::{Revision, Timestamp};
use futures_util::stream::BoxStream;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::error::ApiError;

/// The daemon, as the API sees it.
#[async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    /// The replicated state. Called on managers only; without quorum a linearizable read is 503.
    async fn state(&self, consistency: Consistency) -> Result<Snapshot, ApiError>;

    /// Lets the leader decide and commit a request, from any manager.
    async fn request(&self, request: Request) -> Result<Answer, ApiError>;

    /// Changes the cluster's spec; creates new join tokens if they are rotated.
    async fn update_cluster(&self, request: UpdateClusterRequest) -> Result<(), ApiError>;

    /// Opens the keys of a manager that is locked.
    async fn unlock(&self, key: &str) -> Result<(), ApiError>;

    /// The cluster's unlock key as text; empty if managers are not locked.
    async fn unlock_key(&self) -> Result<String, ApiError>;

    /// Makes a new cluster with this node as its manager.
    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError>;

    /// The state of the cluster as a backup, piece by piece, including all secrets.
    async fn backup(&self) -> Result<BoxStream<'static, io::Result<Bytes>>, ApiError>;

    /// Makes this node the only manager of the cluster that a backup holds.
    async fn restore(&self, request: RestoreRequest) -> Result<NodeId, ApiError>;

    /// Joins a cluster; returns once this node has its certificate and its role.
    async fn join(&self, request: JoinRequest) -> Result<(), ApiError>;

    /// Leaves the cluster; with `force` even if that costs the quorum or the last manager.
    async fn leave(&self, force: bool) -> Result<(), ApiError>;

    /// What this node knows about itself, without network access.
    fn local(&self) -> Local;

    /// The newest applied state of this node, for events. Empty outside a cluster.
    fn changes(&self) -> watch::Receiver<Arc<State>>;

    /// Lines of tasks on any node, oldest first per task; ends unless `follow`.
    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, LogRecord>, ApiError>;

    /// Runs a program in a task, which is named as by users: of this node, or on a manager of any.
    async fn exec(&self, task: &str, spec: ExecSpec) -> Result<ExecSession, ApiError>;

    /// Skein's own resources, answered by this node.
    async fn native(&self, request: NativeRequest) -> Result<NativeAnswer, ApiError>;

    /// Metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// How current a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Includes every write that was answered before the read started.
    Linearizable,
    /// What this manager has applied; works without quorum.
    Stale,
}

/// The replicated state and the leader.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub state: Arc<State>,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// Managers that this node cannot reach now.
    pub unreachable: Vec<NodeId>,
}

/// `POST /swarm/init`, zero values of clients turned into `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct InitRequest {
    /// Where to listen, as typed; `None` also for the docker CLI's default `0.0.0.0:2377`.
    pub listen_addr: Option<String>,
    /// IP or interface, optionally with a port.
    pub advertise_addr: Option<String>,
    /// IP or interface for VXLAN.
    pub data_path_addr: Option<String>,
    /// UDP port of VXLAN.
    pub data_path_port: Option<u16>,
    /// Pools to take subnets from; empty: the default.
    pub default_addr_pool: Vec<Subnet>,
    /// Prefix length of a taken subnet.
    pub subnet_size: Option<u8>,
    /// Create a one-manager cluster from this node's disk.
    pub force_new_cluster: bool,
    /// Intent for the cluster.
    pub spec: ClusterSpec,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

/// `POST /skein/v1/restore`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// The backup, a file that the daemon can read; from `/` on.
    pub path: String,
    /// Where to listen, as typed.
    pub listen_addr: Option<String>,
    /// IP or interface, optionally with a port.
    pub advertise_addr: Option<String>,
    /// IP or interface for VXLAN.
    pub data_path_addr: Option<String>,
}

/// `POST /swarm/join`, zero values of clients turned into `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Where to listen, as typed; `None` also for the docker CLI's default `0.0.0.0:2377`.
    pub listen_addr: Option<String>,
    /// IP or interface, optionally with a port.
    pub advertise_addr: Option<String>,
    /// IP or interface for VXLAN.
    pub data_path_addr: Option<String>,
    /// Managers to ask, as typed; at least one.
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-1-…`.
    pub join_token: String,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

/// `POST /swarm/update`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateClusterRequest {
    /// The version that the client read.
    pub version: Revision,
    /// What the cluster should be.
    pub spec: ClusterSpec,
    /// Create a new token for workers and invalidate the old one.
    pub rotate_worker_token: bool,
    /// The same for managers.
    pub rotate_manager_token: bool,
    /// Create a new unlock key; managers seal their keys under it.
    pub rotate_unlock_key: bool,
    /// The CA that replaces the cluster's CA.
    pub ca: Option<RequestedCa>,
}

/// The new CA in a rotation.
#[derive(Clone, PartialEq, Eq)]
pub enum RequestedCa {
    /// A generated one.
    New,
    /// The user's.
    Own {
        /// Certificate, as given.
        certificate: String,
        /// Private key, as given.
        key: String,
    },
}

/// Without the key.
impl std::fmt::Debug for RequestedCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New => f.write_str("New"),
            Self::Own { certificate, .. } => f.debug_tuple("Own").field(certificate).finish(),
        }
    }
}

/// Docker's `LocalNodeState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalNodeState {
    /// In no cluster.
    Inactive,
    /// Joining.
    Pending,
    /// A member.
    Active,
    /// A member that cannot work; see the error.
    Error,
    /// A manager that waits for its unlock key.
    Locked,
}

impl LocalNodeState {
    /// Docker's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// What a node knows about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// The clock of this node when it was asked.
    pub now: Timestamp,
    /// Skein's version.
    pub version: String,
    /// Its id in the cluster.
    pub node: Option<NodeId>,
    /// Host name.
    pub hostname: String,
    /// Its membership.
    pub state: LocalNodeState,
    /// Whether it is a manager.
    pub control_available: bool,
    /// Address that peers reach it at.
    pub node_addr: Option<IpAddr>,
    /// Managers that it knows, itself among them.
    pub remote_managers: Vec<RemoteManager>,
    /// What is wrong, empty if nothing.
    pub error: String,
    /// Kernel release.
    pub kernel: String,
    /// Name of the distribution.
    pub operating_system: String,
    /// `x86_64`.
    pub architecture: String,
    /// CPUs that it may use.
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Which of the kernel's two cgroup interfaces tasks are limited by.
    pub cgroup_version: u8,
    /// Data directory.
    pub data_dir: String,
    /// Tasks that run here.
    pub tasks_running: u32,
    /// Tasks that ended here and are still kept.
    pub tasks_stopped: u32,
    /// Networks present here.
    pub networks: Vec<LocalNetwork>,
    /// Capabilities that the kernel lacks, one line each.
    pub warnings: Vec<String>,
}

/// A manager as a node knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteManager {
    /// Its id.
    pub node: NodeId,
    /// Its cluster listener.
    pub address: SocketAddr,
}

/// A network that is present on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNetwork {
    pub id: NetworkId,
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its VXLAN id.
    pub vni: Vni,
    /// Its prefixes, with the bridge's addresses.
    pub subnets: Subnets,
    /// Without access to the outside.
    pub internal: bool,
    /// The cluster's ingress network.
    pub ingress: bool,
}

/// Which lines are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Whose.
    pub selector: LogSelector,
    /// Only so many from the end, per task; `None`: all.
    pub tail: Option<u64>,
    /// Only lines since this time.
    pub since: Option<Timestamp>,
    /// Continue with new lines.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
}

/// Whose lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSelector {
    /// All tasks of a service that are still known.
    Service(ServiceId),
    /// One task.
    Task(TaskId),
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Node that the task runs on.
    pub node: NodeId,
    /// Service of the task.
    pub service: ServiceId,
    pub task: TaskId,
    /// Where it was written.
    pub stream: LogStream,
    /// When it was written.
    pub time: Timestamp,
    /// The line without its newline; any bytes.
    pub text: Bytes,
}

/// A program that runs in a task. It is killed when `output` is dropped.
#[derive(Debug)]
pub struct ExecSession {
    /// What is said to it; when this is dropped, its input ends.
    pub input: mpsc::Sender<ExecInput>,
    /// What it says, up to its end. While nobody reads, it waits.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// A request for one of Skein's own resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeRequest {
    /// Which.
    pub topic: NativeTopic,
    /// Query parameters as given.
    pub query: BTreeMap<String, String>,
}

/// Skein's own resources under `/skein/v1/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeTopic {
    /// Whether A reaches B, hop by hop.
    Explain,
    /// The kernel operations that would run now.
    Plan,
    /// Nodes, networks, and the tasks on them.
    Topology,
    /// Members, rows, versions.
    Gossip,
    /// Desired, observed, drift.
    Dataplane,
    /// Which node has which revision in its kernel.
    Receipts,
    /// What a service waits for.
    Why,
    /// A core printed as a table; the word after `debug/`.
    Debug(String),
}

/// Answer to a native request.
#[derive(Debug, Clone, PartialEq)]
pub enum NativeAnswer {
    /// `application/json`.
    Json(Value),
    /// `text/plain`.
    Text(String),
}
