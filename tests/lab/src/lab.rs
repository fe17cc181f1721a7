//! A lab: N machines on one underlay with a real `skein daemon` on each, an external client next to
//! them, and fault injection. A [`Topology`] provides the machines; everything else is the same for
//! every kind.
//!
//! All objects of a lab are marked with its name. Its files are in one folder, where `lab.json`
//! describes it for other processes. Dropping the lab removes everything, also after a panic;
//! [`crate::sweep`] removes the remains of killed runs.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::TEST_PREFIX;
use crate::cleanup::{Failures, remove_folder};
use crate::command::{Output, run};
use crate::kinds::{self, Record, folder_of};
use crate::node::Node;
use crate::programs::target_folder;
use crate::topology::{Fault, Kind, Point, Topology};
use crate::wait::wait_for;

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    /// Its name: the prefix of all it makes.
    pub name: String,
    /// Its nodes, in order.
    pub nodes: Vec<Node>,
    topology: Box<dyn Topology>,
    folder: PathBuf,
    kept: bool,
}

impl Lab {
    /// A lab of namespaces for one test: its name carries this process's id, so that parallel
    /// runs do not meet and a later run can tell a dead one's leftovers. No daemon runs yet.
    ///
    /// # Errors
    /// Without root, without a fresh `skein` binary, or when the kernel refuses.
    pub fn for_test(what: &str, nodes: usize) -> Result<Self> {
        let name = test_name(what);
        let folder = folder_of(&name);
        Self::new(&name, &folder, nodes)
    }

    /// A lab of namespaces with a name and a folder of the caller's choice.
    ///
    /// # Errors
    /// As [`Lab::make`].
    pub fn new(name: &str, folder: &Path, nodes: usize) -> Result<Self> {
        Self::make(Kind::Namespaces, name, folder, nodes)
    }

    /// A lab of any kind. No daemon runs yet.
    ///
    /// # Errors
    /// When a lab of this name exists, or its machines cannot be made: nothing is left of it then.
    pub fn make(kind: Kind, name: &str, folder: &Path, nodes: usize) -> Result<Self> {
        ensure!(!folder.exists(), "a lab named {name} exists already: stop it first");
        Record { name: name.to_owned(), kind, nodes }.write(folder)?;
        let made = kinds::of(kind).and_then(|of_kind| (of_kind.make)(name, folder, nodes));
        let made = made.and_then(|topology| Self::on(name, folder, topology));
        if made.is_err() {
            remove_folder(folder)?;
        }
        made.with_context(|| format!("making lab {name}"))
    }

    /// A lab on machines that were made for it and are its own from now on. No daemon runs yet.
    ///
    /// # Errors
    /// When its machines cannot be found. They are removed then.
    pub fn on(name: &str, folder: &Path, mut topology: Box<dyn Topology>) -> Result<Self> {
        let laid_out = Self::nodes_of(topology.as_ref()).and_then(|nodes| {
            let (kind, count) = (topology.kind(), nodes.len());
            Record { name: name.to_owned(), kind, nodes: count }.write(folder)?;
            Ok(nodes)
        });
        match laid_out {
            Ok(nodes) => {
                let (name, folder) = (name.to_owned(), folder.to_owned());
                Ok(Self { name, nodes, topology, folder, kept: false })
            }
            Err(error) => {
                let removed = topology.tear_down();
                Err(error.context(format!("finding the machines of {name}, removed: {removed:?}")))
            }
        }
    }

    /// A lab that another process made and kept: its nodes can be asked and broken. Dropping the
    /// value tears the lab down, too; [`Lab::keep`] lets it be.
    ///
    /// # Errors
    /// When no lab lies in this folder, or its machines are not there.
    pub fn attach(folder: &Path) -> Result<Self> {
        let Record { name, kind, nodes } = Record::read(folder)?;
        let topology = (kinds::of(kind)?.attach)(&name, folder, nodes)?;
        let nodes = Self::nodes_of(topology.as_ref())?;
        Ok(Self { name, nodes, topology, folder: folder.to_owned(), kept: false })
    }

    fn nodes_of(topology: &dyn Topology) -> Result<Vec<Node>> {
        Ok(topology.machines()?.into_iter().map(Node::new).collect())
    }

    /// What its machines are made of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.topology.kind()
    }

    /// The lab's own folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts every daemon that does not run and waits until all answer.
    ///
    /// # Errors
    /// When one does not.
    pub fn start_all(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if !node.is_running()? {
                node.spawn()?;
            }
        }
        self.nodes.iter_mut().try_for_each(Node::wait_ready)
    }

    /// Where a program of this build lies on every node.
    ///
    /// # Errors
    /// When it was not built, or is not there.
    pub fn program(&self, name: &str) -> Result<String> {
        self.nodes.first().context("a lab without nodes")?.program(name)
    }

    /// The external client's address.
    #[must_use]
    pub fn client_address(&self) -> Ipv4Addr {
        self.topology.client_address()
    }

    /// The command line that runs `words` on the external client.
    #[must_use]
    pub fn client_line(&self, words: &[&str]) -> Vec<String> {
        self.topology.client_line(words)
    }

    /// Where a program of this build lies on the external client.
    ///
    /// # Errors
    /// When it was not built, or is not there.
    pub fn client_program(&self, name: &str) -> Result<String> {
        self.topology.client_program(name)
    }

    /// Runs a program on the external client, for at most `seconds`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn client_run(&self, seconds: u32, words: &[&str]) -> Result<Output> {
        run(seconds, &self.client_line(words))
    }

    /// Every end of the underlay: the nodes, then the client.
    pub fn points(&self) -> impl Iterator<Item = Point> + use<> {
        (0..self.nodes.len()).map(Point::Node).chain([Point::Client])
    }

    /// Disturbs the underlay from one point to another, one way, in place of any fault that was
    /// there.
    ///
    /// # Errors
    /// When a point is not in the lab, or its topology does not offer the fault.
    pub fn disturb(&mut self, from: Point, to: Point, fault: Fault) -> Result<()> {
        self.check_pair(from, to)?;
        self.topology.disturb(from, to, fault)
    }

    /// Takes away all faults between two points, both ways.
    ///
    /// # Errors
    /// When a point is not in the lab, or a fault stays.
    pub fn heal(&mut self, one: Point, other: Point) -> Result<()> {
        self.check_pair(one, other)?;
        self.topology.heal(one, other)
    }

    /// The faults that are there now: (from, to, fault), one way each.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn faults(&self) -> Result<Vec<(Point, Point, Fault)>> {
        self.topology.faults()
    }

    /// Cuts a point from every other one, both ways.
    ///
    /// # Errors
    /// As [`Lab::disturb`].
    pub fn cut_off(&mut self, point: Point) -> Result<()> {
        for other in self.points().filter(|other| *other != point) {
            self.disturb(point, other, Fault::Cut)?;
            self.disturb(other, point, Fault::Cut)?;
        }
        Ok(())
    }

    /// Takes away all faults between a point and every other one.
    ///
    /// # Errors
    /// As [`Lab::heal`].
    pub fn rejoin(&mut self, point: Point) -> Result<()> {
        let others = self.points().filter(|other| *other != point);
        others.into_iter().try_for_each(|other| self.heal(point, other))
    }

    fn check_pair(&self, one: Point, other: Point) -> Result<()> {
        for point in [one, other] {
            let count = self.nodes.len();
            let known = self.points().any(|known| known == point);
            ensure!(known, "{point} is not there: the lab has {count} nodes and the client");
        }
        ensure!(one != other, "{one} has no underlay to itself: name two ends");
        Ok(())
    }

    /// These complaints with the end of every daemon's log. Each is named again behind the logs: of
    /// a long output often nothing but the end is kept.
    #[must_use]
    pub fn with_logs(&self, complaints: &[String]) -> String {
        let logs: String = self.nodes.iter().map(Node::log_tail).collect();
        let names: Vec<_> = complaints.iter().filter_map(|told| told.lines().next()).collect();
        format!("{}\n{logs}\n{}", complaints.join("\n"), names.join("\n"))
    }

    /// As [`wait_for`]; a failure shows the end of every daemon's log too.
    ///
    /// # Errors
    /// When the condition does not hold in time.
    pub fn wait_for<T>(
        &self,
        limit: Duration,
        what: &str,
        look: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        wait_for(limit, what, look)
            .map_err(|error| anyhow::anyhow!("{}", self.with_logs(&[format!("{error:#}")])))
    }

    /// Lets everything run on when this value is dropped. [`crate::sweep`] ends it later.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Ends and removes everything of the lab.
    fn tear_down(&mut self) -> Result<()> {
        let mut failures = Failures::default();
        self.nodes.iter().for_each(|node| failures.note(save_log(node, &self.name)));
        failures.note(self.topology.tear_down());
        failures.note(remove_folder(&self.folder));
        failures.result()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let result = self.tear_down();
        // A second panic while one unwinds would abort and hide the first one's words.
        if !std::thread::panicking() {
            assert!(result.is_ok(), "lab {} leaves something behind: {result:?}", self.name);
        }
    }
}

/// Keeps a daemon's log in the target folder, so that a failed run can be analysed later. The file
/// is named after the lab without the process id: a later run overwrites it.
fn save_log(node: &Node, lab: &str) -> Result<()> {
    let folder = target_folder()?.join("lab-logs");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let what = lab.splitn(3, '-').last().unwrap_or(lab);
    let to = folder.join(format!("{what}-{}.log", node.name));
    fs::write(&to, node.log()).with_context(|| format!("writing {}", to.display()))
}

/// The name of a lab of this process: [`crate::sweep_dead`] finds it when the process has ended.
#[must_use]
pub fn test_name(what: &str) -> String {
    format!("{TEST_PREFIX}-{}-{what}", std::process::id())
}
