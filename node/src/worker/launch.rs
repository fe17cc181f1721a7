//! From a container spec to what the process executor runs, or the reason why it cannot.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cluster::assignment::OwnTask;
use cluster::id::TaskId;
use cluster::log_driver::{Files, LogDriver, Sink};
use cluster::rights::Capabilities;
use cluster::spec::{ContainerSpec, HealthConfig, Mount, MountKind, ResourceAmounts};

use crate::executor::{
    DnsConfig, HealthCheck, HostEntry, LaunchSpec, Limits, LogLimits, LogSink, MountSource, Output,
    Probe, Propagation, Rights, Root, Seccomp, StopPolicy, parse_signal,
};

mod journal;

/// Labels that Docker's tasks carry, as environment for programs that ask.
const SERVICE_NAME: &str = "SKEIN_SERVICE_NAME";
const TASK_ID: &str = "SKEIN_TASK_ID";
/// Where the journal takes its own form (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// What to run; the error is shown in the task's status.
pub fn launch_spec(id: TaskId, own: &OwnTask) -> Result<LaunchSpec, String> {
    let container = &own.spec.container_spec;
    let root = root_of(&container.image)?;
    let argv = [container.command.clone(), container.args.clone()].concat();
    let mut spec = LaunchSpec::new(id.to_string(), root, argv);
    spec.env = [
        vec![format!("{SERVICE_NAME}={}", own.service_name), format!("{TASK_ID}={id}")],
        container.env.clone(),
    ]
    .concat();
    spec.dir = given(&container.dir);
    spec.user = given(&container.user);
    spec.groups.clone_from(&container.groups);
    spec.hostname = given(&container.hostname);
    spec.mounts = container.mounts.iter().map(mount).collect::<Result<_, _>>()?;
    spec.stop = stop_policy(container)?;
    spec.health = container.healthcheck.as_ref().map(health).transpose()?.flatten();
    spec.init = container.init.unwrap_or(false);
    spec.read_only = container.read_only;
    spec.rights = Rights {
        capabilities: Capabilities::of(&container.capability_add, &container.capability_drop)?,
        seccomp: seccomp(container.seccomp_mode())?,
        ulimits: container.ulimits.clone(),
    };
    spec.sysctls.clone_from(&container.sysctls);
    spec.open_stdin = container.open_stdin;
    spec.hosts = container.hosts.iter().map(|line| host_entry(line)).collect::<Result<_, _>>()?;
    if let Some(dns) = &container.dns_config {
        spec.dns = resolver_settings(dns)?;
    }
    let limits = own.spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    spec.limits = limits.map(limits_of).unwrap_or_default();
    match LogDriver::of(&own.spec) {
        LogDriver::None => spec.output = Output::Dropped,
        LogDriver::Files(files) => spec.log = log_limits(files),
        LogDriver::Sent { sink, cache } => {
            match cache {
                Some(files) => spec.log = log_limits(files),
                None => spec.output = Output::Dropped,
            }
            spec.sink = Some(match sink {
                Sink::Syslog(syslog) => LogSink::Syslog(syslog),
                Sink::Journald(told) => LogSink::Journald {
                    socket: PathBuf::from(JOURNAL),
                    fields: journal::fields(&told, id, own),
                },
            });
        }
    }
    if container.tty {
        return Err("the process executor has no terminals: leave out --tty".to_owned());
    }
    match spec.refusal() {
        Some(reason) => Err(reason),
        None => Ok(spec),
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `host` and `dir:/path`; the docker CLI writes `host` as `host:latest`.
fn root_of(image: &str) -> Result<Root, String> {
    let plain = image.strip_suffix(":latest").unwrap_or(image);
    if plain == "host" {
        return Ok(Root::Host);
    }
    match plain.strip_prefix("dir:") {
        Some(path) if path.starts_with('/') => Ok(Root::Directory(PathBuf::from(path))),
        Some(path) => Err(format!("image dir:{path}: give an absolute path, like dir:/srv/app")),
        None => Err(format!(
            "no container engine on this node to run image {image}: the process executor takes \
             `host` (this node's file system) or `dir:/path`"
        )),
    }
}

fn stop_policy(container: &ContainerSpec) -> Result<StopPolicy, String> {
    let defaults = LaunchSpec::new("x", Root::Host, Vec::new()).stop;
    let signal = match container.stop_signal.as_str() {
        "" => defaults.signal,
        name => parse_signal(name)
            .ok_or_else(|| format!("stop signal {name:?} is unknown: give one like SIGTERM"))?,
    };
    let grace = container.stop_grace_period.map_or(defaults.grace, Duration::from_nanos);
    Ok(StopPolicy { signal, grace })
}

fn health(config: &HealthConfig) -> Result<Option<HealthCheck>, String> {
    let Some(probe) = Probe::parse(&config.test)? else { return Ok(None) };
    let mut check = HealthCheck::new(probe);
    let set = |target: &mut Duration, nanos: u64| {
        if nanos > 0 {
            *target = Duration::from_nanos(nanos);
        }
    };
    set(&mut check.interval, config.interval);
    set(&mut check.timeout, config.timeout);
    set(&mut check.start_period, config.start_period);
    set(&mut check.start_interval, config.start_interval);
    if config.retries > 0 {
        check.retries = u32::try_from(config.retries).unwrap_or(u32::MAX);
    }
    Ok(Some(check))
}

fn mount(mount: &Mount) -> Result<crate::executor::Mount, String> {
    let source = match mount.kind {
        MountKind::Bind => {
            let options = mount.bind_options.clone().unwrap_or_default();
            MountSource::Bind {
                path: PathBuf::from(&mount.source),
                create: options.create_mountpoint,
                alone: options.non_recursive,
                propagation: propagation(&options.propagation)?,
            }
        }
        MountKind::Volume => {
            let options = mount.volume_options.clone().unwrap_or_default();
            MountSource::Volume { name: mount.source.clone(), subpath: options.subpath }
        }
        MountKind::Tmpfs => {
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            MountSource::Tmpfs {
                size_bytes: (options.size_bytes > 0).then_some(options.size_bytes),
                mode: (options.mode > 0).then_some(options.mode),
            }
        }
        MountKind::Npipe | MountKind::Cluster => {
            let target = &mount.target;
            return Err(format!("mount {target}: only bind, volume and tmpfs mounts are known"));
        }
    };
    Ok(crate::executor::Mount { target: mount.target.clone(), source, read_only: mount.read_only })
}

/// Docker's words; the mounts below a source are treated as it is.
fn propagation(mode: &str) -> Result<Propagation, String> {
    match mode {
        "" | "private" | "rprivate" => Ok(Propagation::Private),
        "slave" | "rslave" => Ok(Propagation::Slave),
        "shared" | "rshared" => Ok(Propagation::Shared),
        mode => Err(format!("propagation {mode} is unknown: use rprivate, rslave or rshared")),
    }
}

fn seccomp(mode: &str) -> Result<Seccomp, String> {
    match mode {
        "" | "default" => Ok(Seccomp::Default),
        "unconfined" => Ok(Seccomp::Unconfined),
        mode => Err(format!("seccomp mode {mode} is not supported: use default or unconfined")),
    }
}

/// Docker's `IP name [alias…]`.
fn host_entry(line: &str) -> Result<HostEntry, String> {
    let mut words = line.split_whitespace();
    let address: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
    let names: Vec<String> = words.map(str::to_owned).collect();
    match address {
        Some(address) if !names.is_empty() => Ok(HostEntry { address, names }),
        _malformed => Err(format!("host entry {line:?}: give an address and a name")),
    }
}

fn resolver_settings(dns: &cluster::spec::DnsConfig) -> Result<DnsConfig, String> {
    let address =
        |text: &String| text.parse().map_err(|error| format!("name server {text:?}: {error}"));
    let nameservers = dns.nameservers.iter().map(address).collect::<Result<_, _>>()?;
    Ok(DnsConfig { nameservers, search: dns.search.clone(), options: dns.options.clone() })
}

fn limits_of(amounts: &ResourceAmounts) -> Limits {
    let positive = |amount: u64| (amount > 0).then_some(amount);
    Limits {
        memory_bytes: positive(amounts.memory_bytes),
        nano_cpus: positive(amounts.nano_cpus),
        pids: positive(amounts.pids),
    }
}

/// A log is at least two files, so that one that is full leaves something to read: who wants one
/// gets two of half its size.
fn log_limits(files: Files) -> LogLimits {
    let defaults = LogLimits::default();
    let file_bytes_max = files.file_bytes_max.unwrap_or(defaults.file_bytes_max);
    match files.files_max.unwrap_or(defaults.files_max) {
        1 => LogLimits { file_bytes_max: file_bytes_max / 2, files_max: 2 },
        files_max => LogLimits { file_bytes_max, files_max },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::object::TaskState;
    use cluster::spec::{Driver, TaskSpec};

    pub(super) fn own(edit: impl FnOnce(&mut ContainerSpec)) -> OwnTask {
        let mut spec = TaskSpec::default();
        spec.container_spec.image = "host:latest".to_owned();
        spec.container_spec.command = vec!["/bin/true".to_owned()];
        edit(&mut spec.container_spec);
        OwnTask {
            spec,
            desired: TaskState::Running,
            observed: TaskState::Assigned,
            start_after: None,
            name: String::new(),
            service_name: "s".to_owned(),
            service_labels: std::collections::BTreeMap::new(),
            ports: vec![],
        }
    }

    #[test]
    fn the_command_and_its_surroundings_are_taken_over() {
        let spec = launch_spec(
            TaskId(1),
            &own(|c| {
                c.args = vec!["-x".to_owned()];
                c.stop_signal = "SIGQUIT".to_owned();
                c.hosts = vec!["10.0.0.9 db primary".to_owned()];
            }),
        )
        .unwrap();
        assert_eq!(spec.argv, ["/bin/true", "-x"]);
        assert_eq!(spec.stop.signal, 3);
        assert_eq!(spec.hosts[0].names, ["db", "primary"]);
    }

    #[test]
    fn a_log_is_as_large_as_its_service_wants() {
        let limits = |driver: &str, options: &[(&str, &str)]| {
            let mut own = own(|_| {});
            let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            let options = options.iter().map(pair).collect();
            let driver = Driver { name: driver.to_owned(), options, ..Driver::default() };
            own.spec.log_driver = Some(driver);
            let spec = launch_spec(TaskId(1), &own).unwrap();
            (spec.output == Output::Kept, spec.log.file_bytes_max, spec.log.files_max)
        };
        assert_eq!(limits("json-file", &[]), (true, 10 << 20, 3));
        assert_eq!(limits("json-file", &[("max-size", "8k"), ("max-file", "5")]), (true, 8000, 5));
        assert_eq!(limits("json-file", &[("max-size", "8k")]), (true, 4000, 2));
        assert_eq!(limits("local", &[]), (true, 20_000_000, 5));
        assert!(!limits("none", &[]).0);
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        type Edit = fn(&mut ContainerSpec);
        let table: [(Edit, &str); 5] = [
            (|c| c.image = "nginx:latest".into(), "no container engine on this node"),
            (|c| c.image = "dir:srv".into(), "give an absolute path"),
            (|c| c.command.clear(), "no default command"),
            (|c| c.stop_signal = "SIGFOO".into(), "stop signal \"SIGFOO\" is unknown"),
            (|c| c.tty = true, "no terminals"),
        ];
        for (edit, expected) in table {
            let reason = launch_spec(TaskId(1), &own(edit)).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
