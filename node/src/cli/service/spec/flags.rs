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
    /// Its name on `create`, where the client has a flag of the first name for itself.
    pub(super) on_create: &'static str,
    /// The rest of its field's path.
    pub(super) field: &'static str,
    pub(super) form: Form,
    pub(super) help: &'static str,
}

const fn flag(name: &'static str, field: &'static str, form: Form, help: &'static str) -> Flag {
    Flag { name, short: None, on_create: name, field, form, help }
}

const fn renamed(on_create: &'static str, flag: Flag) -> Flag {
    Flag { on_create, ..flag }
}

const fn short(short: char, flag: Flag) -> Flag {
    Flag { short: Some(short), ..flag }
}

use Form::{
    Bytes, Capabilities, Check, Cpus, Duration, Integer, List, Map, Ratio, Switch, Text, Words,
};

const CAP_ADD: &str = "TaskTemplate.ContainerSpec.CapabilityAdd";
const CAP_DROP: &str = "TaskTemplate.ContainerSpec.CapabilityDrop";

/// Every flag, and the path of its field in Docker's spec.
pub(super) fn flags() -> impl Iterator<Item = (String, &'static Flag)> {
    let of = |(group, flags): &'static (&'static str, &'static [Flag])| {
        flags.iter().map(move |flag| (format!("{group}{}", flag.field), flag))
    };
    GROUPS.iter().flat_map(of)
}

/// All of them, in the order in which help shows them, by the path that their fields begin with.
#[rustfmt::skip]
static GROUPS: [(&str, &[Flag]); 11] = [
    ("", &[
        short('l', flag("label", "Labels", Map, "NAME=VALUE")),
    ]),
    ("EndpointSpec.", &[
        short('p', flag("publish", "Ports", List(forms::PORT), "[PUBLISHED:]TARGET[/PROTOCOL]")),
        flag("endpoint-mode", "Mode", Text, "vip or dnsrr"),
    ]),
    ("TaskTemplate.ContainerSpec.", &[
        short('e', flag("env", "Env", List(forms::ENV), "NAME=VALUE; or NAME, for its value here")),
        flag("container-label", "Labels", Map, "NAME=VALUE, of each task"),
        flag("mount", "Mounts", List(forms::MOUNT), "type=bind|volume|tmpfs,source=…,target=…"),
        short('u', flag("user", "User", Text, "NAME or UID[:GID]")),
        flag("group", "Groups", List(forms::WORD), "Further groups of the user"),
        short('w', flag("workdir", "Dir", Text, "Working directory")),
        flag("entrypoint", "Command", Words, "Program and first arguments"),
        flag("hostname", "Hostname", Text, "Host name of each task"),
        renamed("add-host", flag("host", "Hosts", List(forms::HOST), "NAME:ADDRESS")),
        flag("dns", "DNSConfig.Nameservers", List(forms::WORD), "Resolvers for other names"),
        flag("dns-search", "DNSConfig.Search", List(forms::WORD), "Search domains"),
        flag("dns-option", "DNSConfig.Options", List(forms::WORD), "Options of resolv.conf"),
        flag("interactive", "OpenStdin", Switch, "Standard input is an open pipe"),
        flag("read-only", "ReadOnly", Switch, "Mount the root read-only"),
        flag("init", "Init", Switch, "A small reaper as pid 1, which is there unless =false"),
        flag("cap-drop", "CapabilityDrop", Capabilities(CAP_ADD), "Those it lacks, or ALL"),
        flag("cap-add", "CapabilityAdd", Capabilities(CAP_DROP), "Those it has, like NET_ADMIN"),
        flag("no-new-privileges", "Privileges.NoNewPrivileges", Switch, "Setuid gives no rights"),
        flag("seccomp", "Privileges.Seccomp.Mode", Text, "default or unconfined"),
        flag("apparmor", "Privileges.AppArmor.Mode", Text, "default or disabled"),
        flag("sysctl", "Sysctls", Map, "NAME=VALUE"),
        flag("ulimit", "Ulimits", List(forms::ULIMIT), "NAME=SOFT[:HARD]"),
        flag("stop-signal", "StopSignal", Text, "Signal that stops a task"),
        flag("stop-grace-period", "StopGracePeriod", Duration, "Until SIGKILL follows, like 10s"),
    ]),
    ("TaskTemplate.ContainerSpec.Healthcheck.", &[
        flag("health-cmd", "Test", Check, "Shell line; status 0 is healthy"),
        flag("health-interval", "Interval", Duration, "Between health checks, like 5s"),
        flag("health-timeout", "Timeout", Duration, "A check that takes longer fails"),
        flag("health-retries", "Retries", Integer, "Failures in a row that make a task unhealthy"),
        flag("health-start-period", "StartPeriod", Duration, "Failures at first do not count"),
        flag("health-start-interval", "StartInterval", Duration, "Between checks at first"),
    ]),
    ("TaskTemplate.", &[
        flag("network", "Networks", List(forms::NETWORK), "NAME, or name=NAME,alias=ALIAS"),
        flag("log-driver", "LogDriver.Name", Text, "Where logs go"),
        flag("log-opt", "LogDriver.Options", Map, "NAME=VALUE"),
    ]),
    ("TaskTemplate.Resources.Limits.", &[
        flag("limit-cpu", "NanoCPUs", Cpus, "CPUs that a task may use, like 0.5"),
        flag("limit-memory", "MemoryBytes", Bytes, "What a task may use, like 64m"),
        flag("limit-pids", "Pids", Integer, "Processes that a task may have"),
    ]),
    ("TaskTemplate.Resources.Reservations.", &[
        flag("reserve-cpu", "NanoCPUs", Cpus, "CPUs that a node keeps for a task"),
        flag("reserve-memory", "MemoryBytes", Bytes, "Memory that a node keeps for a task"),
        flag("generic-resource", "GenericResources", List(forms::GENERIC), "KIND=NUMBER"),
    ]),
    ("TaskTemplate.Placement.", &[
        flag("constraint", "Constraints", List(forms::WORD), "node.role==worker and the like"),
        flag("platform", "Platforms", List(forms::PLATFORM), "OS/ARCHITECTURE of its image"),
        flag("placement-pref", "Preferences", List(forms::PREFERENCE), "spread=node.labels.NAME"),
        flag("replicas-max-per-node", "MaxReplicas", Integer, "Tasks of the service on one node"),
    ]),
    ("TaskTemplate.RestartPolicy.", &[
        flag("restart-condition", "Condition", Text, "none, on-failure or any"),
        flag("restart-delay", "Delay", Duration, "Before a task is replaced, like 5s"),
        flag("restart-max-attempts", "MaxAttempts", Integer, "Restarts within the window"),
        flag("restart-window", "Window", Duration, "For so long restarts count"),
    ]),
    ("UpdateConfig.", &[
        flag("update-parallelism", "Parallelism", Integer, "Tasks replaced at once; 0: all"),
        flag("update-delay", "Delay", Duration, "Between two of them"),
        flag("update-failure-action", "FailureAction", Text, "pause, continue or rollback"),
        flag("update-monitor", "Monitor", Duration, "A replaced task is watched for so long"),
        flag("update-max-failure-ratio", "MaxFailureRatio", Ratio, "What it tolerates, 0 to 1"),
        flag("update-order", "Order", Text, "stop-first or start-first"),
    ]),
    ("RollbackConfig.", &[
        flag("rollback-parallelism", "Parallelism", Integer, "Tasks put back at once; 0: all"),
        flag("rollback-delay", "Delay", Duration, "Between two of them"),
        flag("rollback-failure-action", "FailureAction", Text, "pause or continue"),
        flag("rollback-monitor", "Monitor", Duration, "A task put back is watched for so long"),
        flag("rollback-max-failure-ratio", "MaxFailureRatio", Ratio, "What it tolerates, 0 to 1"),
        flag("rollback-order", "Order", Text, "stop-first or start-first"),
    ]),
];
