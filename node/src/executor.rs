//! Runs tasks on this node. What to run is a [`LaunchSpec`]; the [`process`] executor runs it as
//! a supervised process of its own.

pub(crate) mod cgroup;
pub mod process;
mod spec;

pub use cgroup::limits_supported;
pub use spec::{
    DnsConfig, HOSTNAME_CHARACTERS, HealthCheck, HostEntry, LaunchSpec, Limits, LogLimits, LogSink,
    Mount, MountSource, Output, Probe, Propagation, Rights, Root, STOP_GRACE_DEFAULT,
    STOP_SIGNAL_DEFAULT, Seccomp, StartSpec, StopPolicy, TASK_ID_BYTES_MAX, is_file_name,
    parse_signal,
};

pub use crate::supervise::{Exit, HealthReport, HealthState, Phase, TaskReport};
