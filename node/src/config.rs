//! The daemon's settings: flags, `SKEIN_…` variables, a TOML file, defaults, in this order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use cluster::generic::{self, GenericResource};
use serde::Deserialize;

/// TCP port of managers, Docker's.
pub const CLUSTER_PORT: u16 = 2377;
/// TCP and UDP port of gossip, Docker's.
pub const GOSSIP_PORT: u16 = 7946;
/// UDP port of VXLAN, the IANA one.
pub const DATA_PATH_PORT: u16 = 4789;

/// Which executor runs tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorChoice {
    /// The process executor (a Docker Engine is not used by this version).
    #[default]
    Auto,
    /// Supervised processes.
    Process,
    /// Containers of the node's Docker Engine.
    Docker,
}

/// Which balancer programs VIPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BalancerChoice {
    /// What this version and the kernel offer.
    #[default]
    Auto,
    /// IPVS.
    Ipvs,
    /// nftables.
    Nft,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Flags of `skein daemon`. A flag that is not given is taken from the file.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DaemonArgs {
    /// TOML file with the same keys as these flags
    #[arg(long, env = "SKEIN_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Directory of what must outlive a reboot [default: /var/lib/skein]
    #[arg(long, env = "SKEIN_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory of sockets and namespaces [default: /run/skein]
    #[arg(long, env = "SKEIN_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Where the API answers [default: unix:///run/skein/skein.sock]
    #[arg(skip)]
    #[serde(rename = "host")]
    pub hosts: Vec<String>,
    /// Address of the cluster listener of managers [default: the advertise address, port 2377]
    #[arg(long, env = "SKEIN_LISTEN_ADDR", value_name = "IP|IFACE[:PORT]")]
    pub listen_addr: Option<String>,
    /// Address, or interface, that peers reach this node at
    #[arg(long, env = "SKEIN_ADVERTISE_ADDR", value_name = "IP|IFACE")]
    pub advertise_addr: Option<String>,
    /// Address, or interface, for VXLAN [default: the advertise address]
    #[arg(long, env = "SKEIN_DATA_PATH_ADDR", value_name = "IP|IFACE")]
    pub data_path_addr: Option<String>,
    /// UDP port of VXLAN of a cluster that this node founds [default: 4789]
    #[arg(long, env = "SKEIN_DATA_PATH_PORT", value_name = "PORT")]
    pub data_path_port: Option<u16>,
    /// TCP and UDP port of gossip [default: 7946]
    #[arg(long, env = "SKEIN_GOSSIP_PORT", value_name = "PORT")]
    pub gossip_port: Option<u16>,
    /// What runs tasks [default: auto]
    #[arg(long, env = "SKEIN_EXECUTOR")]
    pub executor: Option<ExecutorChoice>,
    /// What programs VIPs [default: auto]
    #[arg(long, env = "SKEIN_LOAD_BALANCER")]
    pub load_balancer: Option<BalancerChoice>,
    /// What this node has for services to reserve [repeated or with commas; default: nothing]
    #[arg(long = "generic-resource", env = "SKEIN_GENERIC_RESOURCES", value_delimiter = ',')]
    #[arg(value_name = "KIND=COUNT|KIND=NAME")]
    pub node_generic_resources: Vec<String>,
    /// Serve /metrics here too, without TLS
    #[arg(long, env = "SKEIN_METRICS_ADDR", value_name = "IP:PORT")]
    pub metrics_addr: Option<SocketAddr>,
    /// How log lines look [default: text]
    #[arg(long, env = "SKEIN_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Stop this node's tasks when the daemon stops
    #[arg(long, env = "SKEIN_STOP_TASKS_ON_EXIT")]
    pub stop_tasks_on_exit: bool,
}

/// Settings, complete and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Directory of what must outlive a reboot.
    pub data_dir: PathBuf,
    /// Directory of sockets and namespaces.
    pub run_dir: PathBuf,
    /// Unix sockets on which the API answers.
    pub sockets: Vec<PathBuf>,
    /// Address of the cluster listener, where it was given.
    pub listen_addr: Option<String>,
    /// IP address or interface.
    pub advertise_addr: Option<String>,
    /// IP address or interface.
    pub data_path_addr: Option<String>,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
    /// Port of gossip.
    pub gossip_port: u16,
    /// What runs tasks.
    pub executor: ExecutorChoice,
    /// What programs VIPs.
    pub load_balancer: BalancerChoice,
    /// What this node has for services to reserve.
    pub generic_resources: Vec<GenericResource>,
    /// Plain listener for /metrics.
    pub metrics_addr: Option<SocketAddr>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Stop tasks with the daemon.
    pub stop_tasks_on_exit: bool,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read config file {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The file is not what it should be; the parser's words name key and line.
    #[error("config file {path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        reason: String,
    },
    /// A resource that cannot be offered.
    #[error("--generic-resource {0}")]
    Resource(String),
    /// A value that cannot be used.
    #[error("{key} {value:?}: {remedy}")]
    Value {
        /// The flag.
        key: &'static str,
        /// As given.
        value: String,
        /// What to give.
        remedy: &'static str,
    },
}

impl DaemonArgs {
    /// Reads the file if one is named and fills in what is missing.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => Self::default(),
        };
        let run_dir = self.run_dir.or(file.run_dir).unwrap_or_else(|| "/run/skein".into());
        let hosts = if self.hosts.is_empty() { file.hosts } else { self.hosts };
        let sockets = if hosts.is_empty() {
            vec![run_dir.join("skein.sock")]
        } else {
            hosts.iter().map(|host| socket_path(host)).collect::<Result<_, _>>()?
        };
        let resources = if self.node_generic_resources.is_empty() {
            file.node_generic_resources
        } else {
            self.node_generic_resources
        };
        let data_path_port = self.data_path_port.or(file.data_path_port);
        Ok(Config {
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| "/var/lib/skein".into()),
            run_dir,
            sockets,
            listen_addr: self.listen_addr.or(file.listen_addr),
            advertise_addr: self.advertise_addr.or(file.advertise_addr),
            data_path_addr: self.data_path_addr.or(file.data_path_addr),
            data_path_port: data_path_port.unwrap_or(DATA_PATH_PORT),
            gossip_port: self.gossip_port.or(file.gossip_port).unwrap_or(GOSSIP_PORT),
            executor: self.executor.or(file.executor).unwrap_or_default(),
            load_balancer: self.load_balancer.or(file.load_balancer).unwrap_or_default(),
            generic_resources: generic::parse(&resources).map_err(ConfigError::Resource)?,
            metrics_addr: self.metrics_addr.or(file.metrics_addr),
            log_format: self.log_format.or(file.log_format).unwrap_or_default(),
            stop_tasks_on_exit: self.stop_tasks_on_exit || file.stop_tasks_on_exit,
        })
    }
}

fn read_file(path: &Path) -> Result<DaemonArgs, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConfigError::Read { path: path.to_owned(), reason: e.to_string() })?;
    toml::from_str(&text)
        .map_err(|e| ConfigError::Parse { path: path.to_owned(), reason: e.to_string() })
}

fn socket_path(host: &str) -> Result<PathBuf, ConfigError> {
    let path = host.strip_prefix("unix://").filter(|path| path.starts_with('/'));
    path.map(PathBuf::from).ok_or_else(|| ConfigError::Value {
        key: "--host",
        value: host.to_owned(),
        remedy: "give unix:///PATH (a TCP listener would need mutual TLS)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::NamedTempFile, DaemonArgs) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let args = DaemonArgs { config: Some(file.path().into()), ..DaemonArgs::default() };
        (file, args)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let (_file, mut args) = file("gossip-port = 1\ndata-path-port = 2\n");
        args.gossip_port = Some(3);
        let config = args.resolve().unwrap();
        assert_eq!((config.gossip_port, config.data_path_port), (3, 2));
        assert_eq!(config.run_dir, PathBuf::from("/run/skein"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let (_file, args) = file("gossip-port = 1\ngosip = 2\n");
        let error = args.resolve().unwrap_err().to_string();
        assert!(error.contains("gosip") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn bad_values_say_what_to_give() {
        let (_file, args) = file("node-generic-resources = [\"gpu=a\", \"gpu=1\"]\n");
        let error = args.resolve().unwrap_err().to_string();
        assert!(error.starts_with("--generic-resource \"gpu=1\": gpu=a is given"), "{error}");
        assert!(socket_path("tcp://0.0.0.0:1").unwrap_err().to_string().contains("unix:///PATH"));
    }
}
