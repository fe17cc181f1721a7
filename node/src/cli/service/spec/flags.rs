//! Every flag of `service create` and `service update` that is one field of Docker's spec.

use super::forms::{self, Entry};

/// How a flag's word becomes the field's value.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// The word itself.
    Text,
    /// A whole number.
    Integer,
    /// A number from 0 to 1.
    Ratio,
    /// `1m30s`, in nanoseconds.
    Duration,
    /// `64m`, in bytes.
    Bytes,
    /// `0.5`, in billionths of a CPU.
    Cpus,
    /// On without a word, or `=true`, `=false`.
    Switch,
    /// A command line, split as a shell does.
    Words,
    /// A shell's line that is a health check.
    Check,
    /// NAME=VALUE, any number of times; on update by two flags, `…-add` and `…-rm`.
    Map,
    /// Any number of names; what is added here is taken out of the field of the opposite.
    Capabilities(&'static str),
    /// Any number of elements; on update by two flags, `…-add` and `…-rm`.
    List(Entry),
}

/// A flag of both commands.
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    /// Path of the field in Docker's spec.
    pub(super) field: &'static str,
    pub(super) form: Form,
    pub(super) help: &'static str,
}

const fn flag(name: &'static str, field: &'static str, form: Form, help: &'static str) -> Flag {
    Flag { name, short: None, field, form, help }
}

const fn short(short: char, flag: Flag) -> Flag {
    Flag { short: Some(short), ..flag }
}

use Form::{
    Bytes, Capabilities, Check, Cpus, Duration, Integer, List, Map, Ratio, Switch, Text, Words,
};

const CONSTRAINTS: &str = "TaskTemplate.Placement.Constraints";
const PREFERENCES: &str = "TaskTemplate.Placement.Preferences";
const CAP_ADD: &str = "TaskTemplate.ContainerSpec.CapabilityAdd";
const CAP_DROP: &str = "TaskTemplate.ContainerSpec.CapabilityDrop";
const GENERIC: &str = "TaskTemplate.Resources.Reservations.GenericResources";

/// All of them, in the order in which help shows them.
#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    short('e', flag("env", "TaskTemplate.ContainerSpec.Env", List(forms::ENV), "NAME=VALUE; NAME alone takes the value it has here")),
    short('l', flag("label", "Labels", Map, "NAME=VALUE")),
    flag("container-label", "TaskTemplate.ContainerSpec.Labels", Map, "NAME=VALUE, of each task"),
    flag("network", "TaskTemplate.Networks", List(forms::NETWORK), "Networks to attach to: NAME, or name=NAME,alias=ALIAS"),
    short('p', flag("publish", "EndpointSpec.Ports", List(forms::PORT), "[PUBLISHED:]TARGET[/PROTOCOL], or published=…,target=…,protocol=…,mode=…")),
    flag("endpoint-mode", "EndpointSpec.Mode", Text, "vip or dnsrr"),
    flag("mount", "TaskTemplate.ContainerSpec.Mounts", List(forms::MOUNT), "type=bind|volume|tmpfs,source=…,target=…[,readonly]"),
    short('u', flag("user", "TaskTemplate.ContainerSpec.User", Text, "NAME or UID[:GID]")),
    flag("group", "TaskTemplate.ContainerSpec.Groups", List(forms::WORD), "Further groups of the user"),
    short('w', flag("workdir", "TaskTemplate.ContainerSpec.Dir", Text, "Working directory")),
    flag("entrypoint", "TaskTemplate.ContainerSpec.Command", Words, "Program and first arguments, before those of the command line"),
    flag("hostname", "TaskTemplate.ContainerSpec.Hostname", Text, "Host name of each task"),
    flag("host", "TaskTemplate.ContainerSpec.Hosts", List(forms::HOST), "NAME:ADDRESS, in /etc/hosts"),
    flag("dns", "TaskTemplate.ContainerSpec.DNSConfig.Nameservers", List(forms::WORD), "Resolvers for names outside the cluster"),
    flag("dns-search", "TaskTemplate.ContainerSpec.DNSConfig.Search", List(forms::WORD), "Search domains"),
    flag("dns-option", "TaskTemplate.ContainerSpec.DNSConfig.Options", List(forms::WORD), "Options of resolv.conf"),
    flag("read-only", "TaskTemplate.ContainerSpec.ReadOnly", Switch, "Mount the root read-only"),
    flag("init", "TaskTemplate.ContainerSpec.Init", Switch, "A small reaper as pid 1, which is there unless =false"),
    flag("cap-add", CAP_ADD, Capabilities(CAP_DROP), "Capabilities that the task has, like NET_ADMIN"),
    flag("cap-drop", CAP_DROP, Capabilities(CAP_ADD), "Capabilities that the task lacks, or ALL"),
    flag("no-new-privileges", "TaskTemplate.ContainerSpec.Privileges.NoNewPrivileges", Switch, "Programs gain no rights by setuid files"),
    flag("seccomp", "TaskTemplate.ContainerSpec.Privileges.Seccomp.Mode", Text, "default or unconfined"),
    flag("apparmor", "TaskTemplate.ContainerSpec.Privileges.AppArmor.Mode", Text, "default or disabled"),
    flag("sysctl", "TaskTemplate.ContainerSpec.Sysctls", Map, "NAME=VALUE"),
    flag("ulimit", "TaskTemplate.ContainerSpec.Ulimits", List(forms::ULIMIT), "NAME=SOFT[:HARD]"),
    flag("stop-signal", "TaskTemplate.ContainerSpec.StopSignal", Text, "Signal that stops a task"),
    flag("stop-grace-period", "TaskTemplate.ContainerSpec.StopGracePeriod", Duration, "From the stop signal to SIGKILL, like 10s"),
    flag("health-cmd", "TaskTemplate.ContainerSpec.Healthcheck.Test", Check, "Shell line; status 0 is healthy"),
    flag("health-interval", "TaskTemplate.ContainerSpec.Healthcheck.Interval", Duration, "Between health checks, like 5s"),
    flag("health-timeout", "TaskTemplate.ContainerSpec.Healthcheck.Timeout", Duration, "A check that takes longer fails"),
    flag("health-retries", "TaskTemplate.ContainerSpec.Healthcheck.Retries", Integer, "Failures in a row that make a task unhealthy"),
    flag("health-start-period", "TaskTemplate.ContainerSpec.Healthcheck.StartPeriod", Duration, "For so long after its start failures do not count"),
    flag("health-start-interval", "TaskTemplate.ContainerSpec.Healthcheck.StartInterval", Duration, "Between health checks in that period"),
    flag("limit-cpu", "TaskTemplate.Resources.Limits.NanoCPUs", Cpus, "CPUs that a task may use, like 0.5"),
    flag("limit-memory", "TaskTemplate.Resources.Limits.MemoryBytes", Bytes, "Memory that a task may use, like 64m"),
    flag("limit-pids", "TaskTemplate.Resources.Limits.Pids", Integer, "Processes that a task may have"),
    flag("reserve-cpu", "TaskTemplate.Resources.Reservations.NanoCPUs", Cpus, "CPUs that a node keeps for a task"),
    flag("reserve-memory", "TaskTemplate.Resources.Reservations.MemoryBytes", Bytes, "Memory that a node keeps for a task"),
    flag("generic-resource", GENERIC, List(forms::GENERIC), "KIND=NUMBER"),
    flag("constraint", CONSTRAINTS, List(forms::WORD), "node.role==worker and the like"),
    flag("placement-pref", PREFERENCES, List(forms::PREFERENCE), "spread=node.labels.NAME"),
    flag("replicas-max-per-node", "TaskTemplate.Placement.MaxReplicas", Integer, "Tasks of the service on one node"),
    flag("log-driver", "TaskTemplate.LogDriver.Name", Text, "Where logs go"),
    flag("log-opt", "TaskTemplate.LogDriver.Options", Map, "NAME=VALUE"),
    flag("restart-condition", "TaskTemplate.RestartPolicy.Condition", Text, "none, on-failure or any"),
    flag("restart-delay", "TaskTemplate.RestartPolicy.Delay", Duration, "Before a task is replaced, like 5s"),
    flag("restart-max-attempts", "TaskTemplate.RestartPolicy.MaxAttempts", Integer, "Restarts of a slot within the window"),
    flag("restart-window", "TaskTemplate.RestartPolicy.Window", Duration, "For so long restarts count"),
    flag("update-parallelism", "UpdateConfig.Parallelism", Integer, "Tasks replaced at once; 0: all"),
    flag("update-delay", "UpdateConfig.Delay", Duration, "Between two of them"),
    flag("update-failure-action", "UpdateConfig.FailureAction", Text, "pause, continue or rollback"),
    flag("update-monitor", "UpdateConfig.Monitor", Duration, "A replaced task is watched for so long"),
    flag("update-max-failure-ratio", "UpdateConfig.MaxFailureRatio", Ratio, "Failures that an update tolerates, 0 to 1"),
    flag("update-order", "UpdateConfig.Order", Text, "stop-first or start-first"),
    flag("rollback-parallelism", "RollbackConfig.Parallelism", Integer, "Tasks put back at once; 0: all"),
    flag("rollback-delay", "RollbackConfig.Delay", Duration, "Between two of them"),
    flag("rollback-failure-action", "RollbackConfig.FailureAction", Text, "pause or continue"),
    flag("rollback-monitor", "RollbackConfig.Monitor", Duration, "A task that was put back is watched for so long"),
    flag("rollback-max-failure-ratio", "RollbackConfig.MaxFailureRatio", Ratio, "Failures that a rollback tolerates, 0 to 1"),
    flag("rollback-order", "RollbackConfig.Order", Text, "stop-first or start-first"),
];
