//! User intent, in the shape of the Docker Engine API v1.44 (so that clients meet what they know).
//!
//! Fields that Skein does not act on are kept in `extra` and given back unchanged: a client that
//! reads, edits and writes a whole spec loses nothing. `null` is removed and key case is corrected
//! at the API's edge, before these types see the text. Durations are nanoseconds, as Docker's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::generic::GenericResource;

pub use crate::spec::checked::{CheckedSpec, CheckedTask};
pub(crate) use crate::spec::checked::{FailureAction, TaskTerms, UpdateOrder, UpdateTerms};
pub use crate::spec::container::{
    BindOptions, ContainerSpec, DnsConfig, HealthConfig, Mount, MountKind, Privileges, Seccomp,
    TmpfsOptions, Ulimit, VolumeOptions,
};

mod ca;
mod checked;
mod container;

/// Fields that are kept, not understood.
pub type Extra = Map<String, Value>;
/// Labels and options.
pub type Labels = BTreeMap<String, String>;

/// What a service should be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceSpec {
    /// Unique in the cluster; a DNS label.
    pub name: String,
    /// User labels.
    pub labels: Labels,
    /// What each task runs.
    pub task_template: TaskSpec,
    /// Replicated or global.
    pub mode: ServiceMode,
    /// How tasks are replaced when the spec changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// The same for going back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Networks, where an old client gives them here and not in the task template.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkTarget>,
    /// VIP or DNS round robin, and published ports.
    pub endpoint_spec: EndpointSpec,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ServiceSpec {
    /// The networks that its tasks attach to, wherever the client put them.
    #[must_use]
    pub fn network_targets(&self) -> &[NetworkTarget] {
        if self.task_template.networks.is_empty() {
            &self.networks
        } else {
            &self.task_template.networks
        }
    }
}

/// What one task is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskSpec {
    /// The program and its surroundings.
    pub container_spec: ContainerSpec,
    /// Limits and reservations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Whether and when a task that ended is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Where it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Networks it attaches to, by id or name (ids once stored).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkTarget>,
    /// What becomes of its output; none: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<Driver>,
    /// Raised to replace every task although nothing else changed.
    pub force_update: u64,
    /// Docker's runtime name; empty or `container` here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A driver and its options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Driver {
    /// Which.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub options: Labels,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How many tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// A number of replicas.
    Replicated(Replicated),
    /// One on every eligible node.
    Global(GlobalMode),
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated(Replicated { replicas: Some(1), ..Replicated::default() })
    }
}

/// The `Replicated` mode.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Replicated {
    /// Number of replicas; 1 if the client left it out (stored filled in).
    pub replicas: Option<u64>,
    /// Everything else, as the client sent it.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The `Global` mode, which has no options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GlobalMode {}

/// `UpdateConfig` and `RollbackConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateConfig {
    /// Tasks replaced at once; 0 is all.
    pub parallelism: u64,
    /// Pause between batches, in nanoseconds.
    pub delay: u64,
    /// `pause`, `continue` or `rollback`.
    pub failure_action: String,
    /// How long a new task is watched, in nanoseconds.
    pub monitor: u64,
    /// Share of failures that is borne.
    pub max_failure_ratio: f64,
    /// `stop-first` or `start-first`.
    pub order: String,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: 0,
            failure_action: "pause".to_owned(),
            monitor: 5_000_000_000,
            max_failure_ratio: 0.0,
            order: "stop-first".to_owned(),
            extra: Extra::new(),
        }
    }
}

/// One network of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkTarget {
    /// Id or name; an id once stored.
    pub target: String,
    /// Further names on this network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Driver options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: Labels,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSpec {
    /// VIP or DNS round robin.
    pub mode: ResolutionMode,
    /// Published ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How the service's name is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolutionMode {
    /// One virtual address.
    #[default]
    Vip,
    /// All task addresses.
    Dnsrr,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortConfig {
    /// A label for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port that the task listens on.
    pub target_port: u16,
    /// Port of the nodes; 0 asks for one from 30000-32767.
    pub published_port: u16,
    /// On every node, or on the task's.
    pub publish_mode: PublishMode,
    /// The address of a node that alone takes calls; empty or `0.0.0.0` for all of them.
    #[serde(rename = "HostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Transport protocol of a port.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; refused for now, by name.
    Sctp,
}

impl Protocol {
    /// As in specs and nft rules.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Where a published port answers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node.
    #[default]
    Ingress,
    /// On the task's node alone.
    Host,
}

/// Limits and reservations of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resources {
    /// The most it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
    /// What the scheduler sets aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<ResourceAmounts>,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Amounts; 0 means none given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceAmounts {
    /// CPUs times 10^9.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: u64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: u64,
    /// Processes and threads.
    #[serde(skip_serializing_if = "is_zero")]
    pub pids: u64,
    /// Counts of what nodes say they have; of reservations alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_zero(amount: &u64) -> bool {
    *amount == 0
}

/// Whether and when a task that ended is replaced. `None` means Docker's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// Default `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<RestartCondition>,
    /// Pause before the replacement in nanoseconds; default 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<u64>,
    /// Replacements within the window; 0 or absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// The window in nanoseconds; 0 or absent: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// When a task that ended is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never.
    None,
    /// When it failed.
    OnFailure,
    /// Always.
    #[default]
    Any,
}

/// Where a task may run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Placement {
    /// `node.role==worker` and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// What tasks are spread over first, in order of weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<Preference>,
    /// The most replicas on one node; 0 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_replicas: u64,
    /// What the program runs on; none: anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One preference. Spreading is the only kind that there is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Preference {
    /// Evenly over the values of a label.
    pub spread: Spread,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Evenly over the values of a label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Spread {
    /// `node.labels.NAME` or `engine.labels.NAME`.
    pub spread_descriptor: String,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a program runs on. What is empty is any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// `x86_64`, or `amd64`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// `linux`.
    #[serde(rename = "OS", skip_serializing_if = "String::is_empty")]
    pub os: String,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a network should be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSpec {
    /// Unique in the cluster.
    pub name: String,
    /// User labels.
    pub labels: Labels,
    /// `overlay`.
    pub driver: String,
    /// No way out.
    pub internal: bool,
    /// Standalone containers may attach.
    pub attachable: bool,
    /// The cluster's one ingress network.
    pub ingress: bool,
    /// Dual stack; refused for now, by name.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Driver options.
    pub options: Labels,
    /// Address management.
    #[serde(rename = "IPAM")]
    pub ipam: IpamConfig,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `IPAM` of a network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// `default`.
    pub driver: String,
    /// Driver options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: Labels,
    /// Pools; none: a subnet is chosen.
    pub config: Vec<IpamPool>,
}

/// One pool, as text until it is decided on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamPool {
    /// Prefix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// Part of the prefix to give out from.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// Gateway address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a node should be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeSpec {
    /// Optional name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// User labels.
    pub labels: Labels,
    /// Manager or worker.
    pub role: Role,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Votes in Raft, serves the API, and runs tasks.
    Manager,
}

impl Role {
    /// As in specs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps what it has.
    Pause,
    /// Its tasks move away.
    Drain,
}

/// What the cluster should be (`Spec` of `GET /swarm`). Unset means Docker's default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterSpec {
    /// `default`.
    pub name: String,
    /// User labels.
    pub labels: Labels,
    /// Task history.
    pub orchestration: Orchestration,
    /// `Raft`, `Dispatcher`, `EncryptionConfig`, `TaskDefaults`: kept, not acted on; and
    /// `CAConfig`.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How long a node's certificate is good for unless the spec says otherwise, as Docker's: 90 days.
const CERTIFICATE_MS: u64 = 90 * 24 * 60 * 60 * 1000;
/// How long after its end a certificate still identifies a node that the state lists: 30 days.
pub const CERTIFICATE_GRACE_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// The shortest life of a certificate, as Docker's: an hour.
pub(crate) const CERTIFICATE_MS_MIN: u64 = 60 * 60 * 1000;
/// The longest: removed nodes are remembered for as long.
pub(crate) const CERTIFICATE_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

impl ClusterSpec {
    /// What becomes of the output of tasks whose service does not say: `TaskDefaults.LogDriver`.
    ///
    /// # Errors
    /// When it is none.
    pub fn log_driver(&self) -> serde_json::Result<Option<Driver>> {
        let defaults =
            self.extra.get("TaskDefaults").and_then(|defaults| defaults.get("LogDriver"));
        let driver: Option<Driver> = defaults.map(Driver::deserialize).transpose()?;
        Ok(driver.filter(|driver| *driver != Driver::default()))
    }

    /// How long a node's certificate is good for: `CAConfig.NodeCertExpiry`, nanoseconds.
    #[must_use]
    pub fn certificate_ms(&self) -> u64 {
        let given = self.extra.get("CAConfig").and_then(|ca| ca["NodeCertExpiry"].as_u64());
        given.filter(|ns| *ns > 0).map_or(CERTIFICATE_MS, |ns| ns / 1_000_000)
    }

    /// Whether managers are to be locked: `EncryptionConfig.AutoLockManagers`.
    #[must_use]
    pub fn locks_managers(&self) -> bool {
        self.extra.get("EncryptionConfig").is_some_and(|c| c["AutoLockManagers"] == true)
    }

    /// Has managers locked from the start, as `swarm init --autolock` says it.
    pub fn lock_managers(&mut self) {
        let locked = serde_json::json!({ "AutoLockManagers": true });
        self.extra.insert("EncryptionConfig".to_owned(), locked);
    }
}

/// `Orchestration` of the cluster's spec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Orchestration {
    /// Ended tasks that are kept for each slot; Docker's default is 5.
    pub task_history_retention_limit: Option<u64>,
}
