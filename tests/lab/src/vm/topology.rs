//! Machines with kernels of their own: guests on an underlay like that of the namespace lab, with
//! TAPs as their wires.
//!
//! All guests boot when the topology is made, side by side; their daemons are started one by one
//! afterwards. What another process must know to attach lies in the lab's folder: `vm.json`, and
//! for each guest its disk, console and monitor's pid. The processes of a lab (monitors, and
//! forwarders of the daemons' sockets) carry its folder in their command lines.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::guest::{Guest, Wire};
use super::images::Images;
use super::kernel::Kernel;
use super::machine::VirtualMachine;
use super::{host, wires};
use crate::cleanup::{Failures, remove_folder};
use crate::faults::{End, Underlay};
use crate::net::{self, Host, Wires};
use crate::process;
use crate::topology::{Fault, Kind, Machine, Point, Topology};

/// The underlay's first three bytes.
const SUBNET: [u8; 3] = [192, 168, 50];
/// The file that tells what the guests boot from.
const IMAGES_FILE: &str = "vm.json";
/// The faults that this topology offers, for people.
pub const OFFERS: &str = "cut, loss, delay and reorder between any two ends, one way or both; \
    kill and pause of a daemon, loss of a machine (its monitor is killed; its disk keeps what had \
    reached it), reboot, another time on its clock";

/// The guests of one lab.
#[derive(Debug)]
pub struct VirtualMachines {
    name: String,
    folder: PathBuf,
    wires: Wires,
    images: Images,
    underlay: Underlay,
}

impl VirtualMachines {
    /// Makes them in a folder and boots them all. No daemon runs yet.
    ///
    /// # Errors
    /// When this machine lacks what it takes, when namespaces of this name exist, or a guest does
    /// not boot: what was made is removed then.
    pub fn make(name: &str, folder: &Path, nodes: usize, kernel: Kernel) -> Result<Self> {
        host::check_tap()?;
        let images = Images::build(kernel)?;
        host::check_room(nodes, images.memory_mib(), folder)?;
        let there = net::namespaces_of(name);
        ensure!(there.is_empty(), "a lab named {name} exists already, stop it first: {there:?}");
        let made = Self::make_all(name, folder, nodes, images);
        made.map_err(|error| {
            let swept = sweep(name, folder);
            error.context(format!("making virtual machines, swept: {swept:?}"))
        })
    }

    fn make_all(name: &str, folder: &Path, nodes: usize, images: Images) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let text = serde_json::to_string(&images).context("writing images as JSON")?;
        fs::write(folder.join(IMAGES_FILE), text).context("keeping what guests boot from")?;
        let wires = wires::make(name, nodes, SUBNET)?;
        let made = Self::laid_out(name, folder, wires, images);
        let guests = made.guests()?;
        for guest in &guests {
            guest.install()?;
            guest.monitor.start()?;
        }
        for guest in &guests {
            guest.monitor.wait_boot()?;
        }
        Ok(made)
    }

    /// Finds those that another process made.
    ///
    /// # Errors
    /// When they are not there.
    pub fn attach(name: &str, folder: &Path, nodes: usize) -> Result<Self> {
        let path = folder.join(IMAGES_FILE);
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("no virtual machines: {}", path.display()))?;
        let images = serde_json::from_str(&text).context("reading what guests boot from")?;
        let wires = net::describe(name, nodes, SUBNET)?;
        let there = net::namespaces_of(name);
        for namespace in [&wires.client.underlay, &wires.client.namespace] {
            ensure!(
                there.contains(namespace),
                "{namespace} is gone: stop lab {name} and create it again"
            );
        }
        Ok(Self::laid_out(name, folder, wires, images))
    }

    fn laid_out(name: &str, folder: &Path, wires: Wires, images: Images) -> Self {
        let end =
            |point, host: &Host| End { point, wire: host.wire.clone(), address: host.address };
        let nodes = wires.nodes.iter().enumerate();
        let ends = nodes.map(|(index, host)| end(Point::Node(index), host));
        let ends = ends.chain([end(Point::Client, &wires.client)]).collect();
        let underlay = Underlay::new(&wires.client.underlay, folder, ends);
        Self { name: name.to_owned(), folder: folder.to_owned(), wires, images, underlay }
    }

    /// The guests, in order: what only virtual machines can do is asked of them.
    ///
    /// # Errors
    /// When a program of this build is missing.
    pub fn guests(&self) -> Result<Vec<VirtualMachine>> {
        let hosts = self.wires.nodes.iter().enumerate();
        hosts.map(|(index, host)| self.guest(index, host)).collect()
    }

    fn guest(&self, index: usize, host: &Host) -> Result<VirtualMachine> {
        let number = index + 1;
        let client = Some(self.wires.client.address);
        let guest = Guest {
            name: format!("node{number}"),
            folder: self.folder.join(format!("n{number}")),
            boot: self.images.boot.clone(),
            accel: self.images.accel,
            root: self.images.root.clone(),
            programs: self.images.programs.clone(),
            memory_mib: self.images.memory_mib(),
            // The client stands for the rest of the world, its resolvers included.
            wire: Wire {
                tap: host.wire.clone(),
                address: host.address,
                prefix: wires::PREFIX,
                gateway: client,
                dns: client,
            },
            init: None,
        };
        VirtualMachine::new(guest, &host.underlay)
    }
}

impl Topology for VirtualMachines {
    fn kind(&self) -> Kind {
        Kind::VirtualMachines
    }

    fn machines(&self) -> Result<Vec<Box<dyn Machine>>> {
        let boxed = |guest| Box::new(guest) as Box<dyn Machine>;
        Ok(self.guests()?.into_iter().map(boxed).collect())
    }

    fn client_address(&self) -> Ipv4Addr {
        self.wires.client.address
    }

    fn client_line(&self, words: &[&str]) -> Vec<String> {
        self.wires.client.line(words)
    }

    fn disturb(&mut self, from: Point, to: Point, fault: Fault) -> Result<()> {
        self.underlay.disturb(from, to, fault)
    }

    fn heal(&mut self, one: Point, other: Point) -> Result<()> {
        self.underlay.heal(one, other)
    }

    fn faults(&self) -> Result<Vec<(Point, Point, Fault)>> {
        self.underlay.faults()
    }

    fn tear_down(&mut self) -> Result<()> {
        let mut failures = Failures::default();
        failures.note(sweep(&self.name, &self.folder));
        failures.note(remove_folder(&self.folder));
        failures.result()
    }
}

/// Ends the processes of a lab and removes its namespaces, the TAPs with them. Where nothing of it
/// is left, nothing is done.
///
/// # Errors
/// When something of it stays.
pub fn sweep(name: &str, folder: &Path) -> Result<()> {
    let mut failures = Failures::default();
    failures.note(process::kill_all(folder));
    failures.note(net::remove(name));
    failures.result()
}
