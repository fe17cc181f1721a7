//! Runs tasks on this node. What to run is a [`LaunchSpec`]; the [`process`] executor runs it as
//! a supervised process of its own.

pub mod process;

pub use supervise::limits_supported;
pub use supervise::protocol::{Exit, HealthReport, HealthState, Phase, TaskReport};
pub use supervise::spec::{
    DnsConfig, HOSTNAME_CHARACTERS, HealthCheck, HostEntry, LaunchSpec, Limits, LogLimits, LogSink,
    Mount, MountSource, Output, Probe, Propagation, Rights, Root, Seccomp, StartSpec, StopPolicy,
    parse_signal,
};
