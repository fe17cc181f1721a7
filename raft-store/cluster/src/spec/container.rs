//! `ContainerSpec`: the program of a task and its surroundings.

use serde::{Deserialize, Serialize};

use super::{Extra, Labels};

/// The program of a task and its surroundings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSpec {
    /// `host` or `dir:/path` for the process executor.
    pub image: String,
    /// User labels.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// Name or number, optionally with a group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Host name; unset: the first 12 characters of the task id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// A small reaper as pid 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// A terminal; refused by the process executor, by name.
    #[serde(rename = "TTY", skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Read-only root.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Signal that asks it to stop; unset: SIGTERM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Nanoseconds from that signal to SIGKILL; unset: 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<u64>,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Lines for /etc/hosts: `IP name [alias…]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Resolver settings.
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// What it may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Privileges>,
    /// Capabilities in addition to Docker's default ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capability_add: Vec<String>,
    /// Capabilities that it is not to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capability_drop: Vec<String>,
    /// Kernel parameters of its namespaces.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub sysctls: Labels,
    /// Limits of its processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Standard input stays open, though nobody writes to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub open_stdin: bool,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ContainerSpec {
    /// The mode of the filter of system calls; empty: the default one.
    #[must_use]
    pub fn seccomp_mode(&self) -> &str {
        let seccomp = self.privileges.as_ref().and_then(|privileges| privileges.seccomp.as_ref());
        seccomp.map_or("", |seccomp| &seccomp.mode)
    }
}

/// A limit of each process (setrlimit(2)); -1 is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// Docker's name, like `nofile`.
    pub name: String,
    /// What holds; a process may raise it up to the other one.
    pub soft: i64,
    /// What it may be raised to.
    pub hard: i64,
    /// Everything else, as the client sent it.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a task may do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Privileges {
    /// The filter of system calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// Kept; what a node would have to act on is refused by name.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A filter of system calls.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Seccomp {
    /// `default` or `unconfined`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Docker's `HealthConfig`; durations in nanoseconds, 0 means the default and
/// is left out, as Docker leaves it out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `[]` inherits (nothing here), `["NONE"]` none, `["CMD", …]`, `["CMD-SHELL", "…"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between checks; default 30 s.
    #[serde(skip_serializing_if = "super::is_zero")]
    pub interval: u64,
    /// Of one check; default 30 s.
    #[serde(skip_serializing_if = "super::is_zero")]
    pub timeout: u64,
    /// Failures in a row that make it unhealthy; default 3.
    #[serde(skip_serializing_if = "super::is_zero")]
    pub retries: u64,
    /// After the start, failures do not count; default 0.
    #[serde(skip_serializing_if = "super::is_zero")]
    pub start_period: u64,
    /// Between checks in the start period; default 5 s.
    #[serde(skip_serializing_if = "super::is_zero")]
    pub start_interval: u64,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// What is mounted.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// Path of the node (bind) or name (volume).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Path in the task.
    pub target: String,
    /// Not writable.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Of a bind mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Of a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// Of a tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the node.
    Bind,
    /// A directory that Skein keeps.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// A pipe of Windows; refused by name.
    Npipe,
    /// A cluster volume; refused by name.
    Cluster,
}

/// Of a bind mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `rprivate` (unset), `private`, `rslave`, `slave`, `rshared` or `shared`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Without what is mounted below the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub non_recursive: bool,
    /// Whether a missing source is made as a directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_mountpoint: bool,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Of a volume.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// A path in it that is mounted in its place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Of a tmpfs mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// 0: the kernel's default.
    pub size_bytes: u64,
    /// Permission bits; 0: 1777.
    pub mode: u32,
    /// Everything else, as the client sent it.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Resolver settings of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsConfig {
    /// Asked for names that the cluster does not know, in place of the node's resolvers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Search list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Kept, not understood.
    #[serde(flatten)]
    pub extra: Extra,
}
