//! What this machine is and offers, found out once when the daemon starts.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use agent::Facts;
use cluster::generic::GenericResource;
use cluster::net::Subnet;
use cluster::object::{NodeDescription, ProofKey};
use netprog::local::Balancer;
use netprog_linux::facts::{self, Capabilities, HostFacts};

use crate::config::{BalancerChoice, Config, ExecutorChoice};

/// The egress bridge of every node.
const GWBRIDGE: &str = "skein_gwbridge";
/// Only in the unified hierarchy (cgroups(7)).
const CGROUP_UNIFIED: &str = "/sys/fs/cgroup/cgroup.controllers";
/// Underlay MTU where the link of the address is not found.
const MTU_DEFAULT: u32 = 1500;
/// Routes that a machine tells the cluster of, the widest first: a join and the state of every
/// manager have room for them.
const ROUTES_MAX: usize = 256;

/// What this machine is and offers.
pub struct Host {
    /// Host name.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// Name of the distribution.
    pub operating_system: String,
    /// `x86_64`.
    pub architecture: String,
    /// CPUs that the daemon may use.
    pub cpus: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// 2 where `/sys/fs/cgroup` is the unified hierarchy, else 1.
    pub cgroup_version: u8,
    /// What the kernel lacks, one line each.
    pub warnings: Vec<String>,
    /// What programs VIPs.
    pub balancer: Balancer,
    /// What its user says that it has.
    pub generic_resources: Vec<GenericResource>,
    gwbridge: Subnet,
    facts: HostFacts,
}

impl Host {
    /// Finds out, and refuses a machine that cannot do the work: each line says what is missing.
    pub fn probe(config: &Config) -> anyhow::Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            anyhow::bail!("the daemon makes namespaces and devices: run it as root");
        }
        if config.executor == ExecutorChoice::Docker {
            anyhow::bail!(
                "--executor docker is not in this version: give process, which needs no engine"
            );
        }
        let capabilities = facts::probe()?;
        if !capabilities.missing.is_empty() {
            let lines: Vec<String> = capabilities.missing.iter().map(ToString::to_string).collect();
            anyhow::bail!("this machine lacks what the data plane needs:\n{}", lines.join("\n"));
        }
        let facts = HostFacts::read()?;
        let gwbridge = facts.gwbridge_subnet(GWBRIDGE).ok_or_else(|| {
            anyhow::anyhow!(
                "no free prefix for {GWBRIDGE}: routes of this machine cover all of \
                 172.18.0.0/16 to 172.31.0.0/16"
            )
        })?;
        let balancer = choose_balancer(config.load_balancer, &capabilities)?;
        let nft = capabilities.nft_version.as_deref().unwrap_or("unknown");
        tracing::info!(nft, balancer = balancer.name(), "kernel");
        tracing::info!(%gwbridge, "egress prefix");
        let system = nix::sys::utsname::uname()?;
        let text = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
        Ok(Self {
            hostname: text(system.nodename()),
            kernel: text(system.release()),
            operating_system: distribution(),
            architecture: text(system.machine()),
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            memory_bytes: memory_bytes(),
            cgroup_version: if Path::new(CGROUP_UNIFIED).exists() { 2 } else { 1 },
            warnings: warnings(&facts).inspect(|line| tracing::warn!("{line}")).collect(),
            balancer,
            generic_resources: config.generic_resources.clone(),
            gwbridge,
            facts,
        })
    }

    /// Facts that passes over the kernel are made from.
    #[must_use]
    pub fn facts(&self, vtep: IpAddr, cluster_port: u16) -> Facts {
        let underlay_mtu = self.facts.mtu_of(vtep).unwrap_or(MTU_DEFAULT);
        let (gwbridge, balancer) = (self.gwbridge, self.balancer);
        Facts { vtep, cluster_port, underlay_mtu, gwbridge, balancer }
    }

    /// What the node says of itself. Reads links and routes as they are now, which takes a moment.
    #[must_use]
    pub fn description(
        &self,
        gossip: SocketAddr,
        vtep: IpAddr,
        manager_address: SocketAddr,
        proof_key: ProofKey,
    ) -> NodeDescription {
        let now = HostFacts::read();
        let now = now.inspect_err(|error| tracing::warn!(%error, "read links and routes"));
        let facts = now.as_ref().unwrap_or(&self.facts);
        NodeDescription {
            hostname: self.hostname.clone(),
            os: "linux".to_owned(),
            architecture: self.architecture.clone(),
            nano_cpus: u64::from(self.cpus) * 1_000_000_000,
            memory_bytes: self.memory_bytes,
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            gossip,
            vtep,
            routes: widest(&facts.routes),
            balancer: self.balancer.name().to_owned(),
            executors: vec!["process".to_owned()],
            certificate_subject: String::new(),
            schema: cluster::object::newest_schema(),
            manager_address: Some(manager_address),
            proof_key: Some(proof_key),
            trust: None,
            underlay_mtu: facts.mtu_of(vtep),
            generic_resources: self.generic_resources.clone(),
        }
    }

    /// The address of the default route; the error says what to give.
    pub fn default_address(&self) -> Result<IpAddr, String> {
        self.facts.advertise_address(None).map_err(|e| e.to_string())
    }

    /// An address of this machine, by itself or by its interface's name.
    pub fn address_of(&self, text: &str) -> Result<IpAddr, String> {
        self.facts.advertise_address(Some(text)).map_err(|e| e.to_string())
    }
}

/// What the cluster does not know of this machine.
fn warnings(facts: &HostFacts) -> impl Iterator<Item = String> {
    let count = facts.routes.len();
    let line = format!(
        "this machine has {count} routes and tells the cluster of the {ROUTES_MAX} widest: give \
         subnets of networks that overlap none of the others"
    );
    (count > ROUTES_MAX).then_some(line).into_iter()
}

/// The widest of a machine's routes, as many as it tells of.
#[must_use]
pub fn widest(routes: &[Subnet]) -> Vec<Subnet> {
    let mut routes = routes.to_vec();
    routes.sort_by_key(|route| (route.prefix_len(), *route));
    routes.truncate(ROUTES_MAX);
    routes
}

fn choose_balancer(
    choice: BalancerChoice,
    capabilities: &Capabilities,
) -> anyhow::Result<Balancer> {
    match (choice, &capabilities.ipvs) {
        (BalancerChoice::Nft, _) => Ok(Balancer::Nft),
        (BalancerChoice::Auto | BalancerChoice::Ipvs, Ok(())) => Ok(Balancer::Ipvs),
        (BalancerChoice::Auto, Err(reason)) => {
            tracing::info!(%reason, "IPVS cannot be used, nft balances");
            Ok(Balancer::Nft)
        }
        (BalancerChoice::Ipvs, Err(reason)) => {
            anyhow::bail!("--load-balancer ipvs: {reason}; or give nft or auto")
        }
    }
}

fn distribution() -> String {
    let text = std::fs::read_to_string(Path::new("/etc/os-release")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// `MemTotal` of /proc/meminfo, 0 if it cannot be read.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[test]
fn of_many_routes_the_widest_are_told() {
    let mut routes: Vec<Subnet> =
        (0..=255).map(|n| format!("10.1.{n}.0/24").parse().expect("a prefix")).collect();
    assert_eq!(widest(&routes).len(), ROUTES_MAX);
    routes.push("192.168.0.0/16".parse().expect("a prefix"));
    let facts = HostFacts { routes: routes.clone(), ..HostFacts::default() };
    assert!(warnings(&facts).next().is_some_and(|line| line.contains("257 routes")));
    let told = widest(&routes);
    assert_eq!((told.len(), told[0], told[1]), (ROUTES_MAX, routes[256], routes[0]));
}
