//! Two daemons in a cluster with very many endpoints: how long it takes until all are in both
//! kernels, how late changes are there then, and what it costs.
//!
//! Stand-ins say that the endpoints run on them, as other daemons would. Whether an endpoint is
//! there is asked of the kernel.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cluster::id::{NetworkId, TaskId};
use lab::Lab;
use lab::command::run;
use lab::namespaces::daemon_pid;
use lab::wait::{Pace, now, wait_for};

use super::slots::fabric;
use super::stand_in::{Said, StandIn};

/// Real daemons: a manager and a worker.
const DAEMONS: usize = 2;
/// Rows of one stand-in: gossip takes 65,536 of a node.
const ROWS_EACH: usize = 50_000;
/// Between two looks into the kernels.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// Limit of one command.
const COMMAND_SECONDS: u32 = 30;
/// Task ids of the endpoints that come and go.
const CHANGING: u128 = 1 << 64;

/// A cluster whose kernels hold so many endpoints of other nodes.
#[derive(Debug)]
pub struct Stage {
    /// The lab.
    pub lab: Lab,
    crowd: Vec<StandIn>,
    changing: StandIn,
    networks: Vec<Overlay>,
    said: Vec<Said>,
    count: usize,
}

/// A network of the crowd.
#[derive(Debug)]
struct Overlay {
    id: NetworkId,
    second: u8,
    kernels: Vec<PathBuf>,
    device: String,
}

/// What a daemon has used since it started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Time of all its threads.
    pub cpu: Duration,
    /// Resident memory in MiB.
    pub mib: u64,
}

impl Stage {
    /// Makes the cluster, with no rows yet but its own.
    ///
    /// # Errors
    /// When a step fails.
    pub fn new(what: &str, count: usize) -> Result<Self> {
        let crowds = count.div_ceil(ROWS_EACH);
        let mut lab = Lab::for_test(what, DAEMONS + crowds + 1)?;
        lab.make_cluster(1)?;
        let mut networks = Vec::new();
        for index in 0..crowds {
            networks.push(overlay(&lab, index)?);
        }
        let name = lab.name.clone();
        let mut others = Vec::new();
        for (index, node) in lab.nodes.iter_mut().enumerate().skip(DAEMONS) {
            let namespace = PathBuf::from(format!("/run/netns/{name}-n{}", index + 1));
            others.push(StandIn::start(node, &namespace)?);
        }
        let changing = others.pop().context("no stand-in")?;
        Ok(Self { lab, crowd: others, changing, networks, said: Vec::new(), count })
    }

    /// All endpoints are said at once; gives how long it took until both kernels held them all.
    ///
    /// # Errors
    /// When they do not within `limit`.
    pub fn fill(&mut self, limit: Duration) -> Result<Duration> {
        let begin = now();
        let mut left = self.count;
        for (index, member) in self.crowd.iter().enumerate() {
            let some = left.min(ROWS_EACH);
            left -= some;
            let network = &self.networks[index];
            let said: Vec<Said> =
                (0..some).map(|n| network.said(n, (index * ROWS_EACH + n) as u128 + 1)).collect();
            member.say(&said)?;
        }
        let wanted: Vec<usize> = (0..self.crowd.len())
            .map(|index| (self.count - index * ROWS_EACH).min(ROWS_EACH))
            .collect();
        wait_for(limit, "both kernels to hold all endpoints", || {
            for (network, wanted) in self.networks.iter().zip(&wanted) {
                for kernel in &network.kernels {
                    let held = network.count(kernel)?;
                    ensure!(held >= *wanted, "{held} of {wanted}");
                }
            }
            Ok(())
        })?;
        Ok(begin.elapsed())
    }

    /// One endpoint comes, and nobody waits for it.
    ///
    /// # Errors
    /// When it cannot be said.
    pub fn say(&mut self) -> Result<()> {
        self.said.push(self.next());
        self.changing.say(&self.said)
    }

    /// One endpoint comes; gives how long it took until both kernels held it.
    ///
    /// # Errors
    /// When they do not within `limit`.
    pub fn change(&mut self, limit: Duration) -> Result<Duration> {
        let said = self.next();
        self.said.push(said);
        let begin = now();
        self.changing.say(&self.said)?;
        self.until_held(said, begin, limit)?;
        Ok(begin.elapsed())
    }

    /// So many endpoints come, one every `period`; gives how late the last of them was there.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub fn churn(&mut self, changes: usize, period: Duration, limit: Duration) -> Result<Duration> {
        let mut pace = Pace::new(period);
        let mut last = None;
        for _ in 0..changes {
            let said = self.next();
            self.said.push(said);
            self.changing.say(&self.said)?;
            last = Some(said);
            pace.wait();
        }
        let begin = now();
        self.until_held(last.context("no change")?, begin, limit)?;
        Ok(begin.elapsed())
    }

    /// What a real daemon has used.
    ///
    /// # Errors
    /// When it does not run.
    pub fn cost(&self, daemon: usize) -> Result<Cost> {
        let pid = daemon_pid(self.lab.nodes[daemon].folder()?)?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        // Fields 14 and 15 of proc_pid_stat(5), in USER_HZ, which is 100 on Linux.
        let cpu = Duration::from_millis((ticks(11) + ticks(12)) * 10);
        Ok(Cost { cpu, mib: kib.context("no VmRSS")? >> 10 })
    }

    fn next(&self) -> Said {
        let n = self.said.len();
        self.networks[0].said(ROWS_EACH + n, CHANGING + n as u128)
    }

    fn until_held(&self, said: Said, begin: Instant, limit: Duration) -> Result<()> {
        let network = &self.networks[0];
        for kernel in &network.kernels {
            let mut pace = Pace::new(LOOK_PERIOD);
            while !network.holds(kernel, said.address)? {
                if begin.elapsed() > limit {
                    bail!("{} is not in {} after {limit:?}", said.address, kernel.display());
                }
                pace.wait();
            }
        }
        Ok(())
    }
}

impl Overlay {
    fn said(&self, n: usize, task: u128) -> Said {
        // Behind the addresses that the network gives to tasks and VIPs of the lab.
        let n = u16::try_from(n + 256).unwrap_or(u16::MAX);
        let [third, fourth] = n.to_be_bytes();
        let address = Ipv4Addr::new(10, self.second, third, fourth);
        Said { network: self.id, task: TaskId(task), address }
    }

    fn count(&self, kernel: &std::path::Path) -> Result<usize> {
        let net = format!("--net={}", kernel.display());
        let words = ["nsenter", &net, "ip", "neigh", "show", "dev", &self.device];
        Ok(run(COMMAND_SECONDS, &words)?.ok()?.lines().filter(|l| l.contains("PERMANENT")).count())
    }

    fn holds(&self, kernel: &std::path::Path, address: Ipv4Addr) -> Result<bool> {
        let (net, address) = (format!("--net={}", kernel.display()), address.to_string());
        let words = ["nsenter", &net, "ip", "neigh", "get", &address, "dev", &self.device];
        let said = run(COMMAND_SECONDS, &words)?;
        Ok(said.ok().is_ok_and(|text| text.contains("PERMANENT")))
    }
}

/// A network in which both daemons take part.
fn overlay(lab: &Lab, index: usize) -> Result<Overlay> {
    let (name, second) = (format!("crowd{index}"), 100 + u8::try_from(index)?);
    let subnet = format!("10.{second}.0.0/16");
    let words = ["network", "create", "-d", "overlay", "--subnet", &subnet, &name];
    let id = lab.nodes[0].docker(&words)?.ok()?;
    let (probe, service) = (lab.program("skein-lab-probe")?, format!("here{index}"));
    let words = ["--name", &service, "--network", &name, "--mode", "global", "host", &probe];
    let words: Vec<&str> = words.into_iter().chain(["serve", "7000"]).collect();
    lab.create_service(0, &words)?;
    lab.wait_running(0, &service, lab.nodes.len())?;
    let kernels: Result<Vec<PathBuf>> =
        (0..DAEMONS).map(|node| fabric(&lab.nodes[node], id.trim())).collect();
    let kernels = kernels?;
    let net = format!("--net={}", kernels[0].display());
    let links =
        run(COMMAND_SECONDS, &["nsenter", &net, "ip", "-o", "link", "show", "type", "vxlan"])?;
    let links = links.ok()?;
    let device = links.split([':', '@']).nth(1).context("no VXLAN device")?.trim().to_owned();
    Ok(Overlay { id: id.trim().parse()?, second, kernels, device })
}
