//! A lab: N hosts in network namespaces of this machine, joined by an underlay bridge, with a
//! real `skein daemon` on each, an external client beside them, and means to break things.
//!
//! Everything of a lab carries its name: namespaces (`<name>-n1` …) and one folder. Dropping the
//! lab removes it all, after a panic too; [`sweep`] removes what a killed run left. Only processes
//! that the lab started, and their descendants, are ever signalled.

pub mod cluster;
pub mod command;
pub mod http;
pub mod net;
pub mod node;
pub mod process;
pub mod topology;
pub mod wait;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

pub use self::net::Host;
pub use self::node::Node;
use self::wait::wait_for;

/// The underlay's first three bytes.
const SUBNET: [u8; 3] = [192, 168, 50];
/// First word of the names of labs that tests make; the pid follows.
const TEST_PREFIX: &str = "skl";

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    /// Its name: the prefix of all it makes.
    pub name: String,
    /// Its nodes, in order.
    pub nodes: Vec<Node>,
    /// A host outside the cluster.
    pub client: Host,
    folder: PathBuf,
    kept: bool,
}

impl Lab {
    /// A lab for one test: its name carries this process's id, so that parallel runs do not meet
    /// and a later run can tell a dead one's leftovers. No daemon runs yet.
    ///
    /// # Errors
    /// Without root, without a fresh `skein` binary, or when the kernel refuses.
    pub fn for_test(what: &str, nodes: usize) -> Result<Self> {
        let name = format!("{TEST_PREFIX}-{}-{what}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        Self::new(&name, &folder, nodes)
    }

    /// A lab with a name and a folder of the caller's choice.
    ///
    /// # Errors
    /// As [`Lab::for_test`], and when a lab of this name exists.
    pub fn new(name: &str, folder: &Path, nodes: usize) -> Result<Self> {
        if !Uid::effective().is_root() {
            bail!("the lab makes network namespaces, which needs root: run it as root");
        }
        skein_binary()?;
        if !net::namespaces_of(name).is_empty() || folder.exists() {
            bail!("a lab named {name} exists already: stop it first");
        }
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let made = net::make(name, nodes, SUBNET).and_then(|wires| Self::lay_out(wires, folder));
        match made {
            Ok((nodes, client)) => {
                let folder = folder.to_owned();
                Ok(Self { name: name.to_owned(), nodes, client, folder, kept: false })
            }
            Err(error) => {
                let swept = sweep(name, folder);
                Err(error.context(format!("making lab {name}, swept: {swept:?}")))
            }
        }
    }

    /// A lab that another process made and kept: its nodes can be asked and broken, but their
    /// daemons are not this process's children. Dropping the value tears the lab down, too;
    /// [`Lab::keep`] lets it be.
    ///
    /// # Errors
    /// When no lab of this name runs.
    pub fn attach(name: &str, folder: &Path, nodes: usize) -> Result<Self> {
        if net::namespaces_of(name).is_empty() {
            bail!("no lab named {name} runs");
        }
        let wires = net::describe(name, nodes, SUBNET)?;
        let (nodes, client) = Self::lay_out(wires, folder)?;
        Ok(Self { name: name.to_owned(), nodes, client, folder: folder.to_owned(), kept: false })
    }

    fn lay_out(wires: net::Wires, folder: &Path) -> Result<(Vec<Node>, Host)> {
        let binary = skein_binary()?;
        let hosts = wires.nodes.into_iter().enumerate();
        let nodes = hosts.map(|(index, host)| {
            let number = index + 1;
            let folder = folder.join(format!("n{number}"));
            Node::new(format!("node{number}"), host, folder, binary.clone())
        });
        Ok((nodes.collect::<Result<_>>()?, wires.client))
    }

    /// Starts every daemon that does not run and waits until all answer.
    ///
    /// # Errors
    /// When one does not.
    pub fn start_all(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.daemon_pid().is_none()) {
            node.spawn()?;
        }
        self.nodes.iter_mut().try_for_each(Node::wait_ready)
    }

    /// As [`wait::wait_for`]; a failure shows the end of every daemon's log too.
    ///
    /// # Errors
    /// When the condition does not hold in time.
    pub fn wait_for<T>(
        &self,
        limit: Duration,
        what: &str,
        look: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let logs = || self.nodes.iter().map(Node::log_tail).collect::<String>();
        wait_for(limit, what, look).map_err(|error| anyhow::anyhow!("{error:#}\n{}", logs()))
    }

    /// Lets everything run on when this value is dropped. [`sweep`] ends it later.
    pub fn keep(mut self) {
        self.kept = true;
        self.nodes.iter_mut().for_each(Node::forget);
    }

    /// Ends and removes everything of the lab.
    ///
    /// # Errors
    /// With all that could not be removed.
    fn tear_down(&mut self) -> Result<()> {
        let mut problems = Vec::new();
        for node in &mut self.nodes {
            problems.extend(node.kill_processes().err());
            let copied = save_log(node, &self.name);
            problems.extend(copied.err());
        }
        problems.extend(sweep(&self.name, &self.folder).err());
        if problems.is_empty() { Ok(()) } else { bail!("{problems:?}") }
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

/// Keeps a daemon's log beside the build, so that a failed run can be read afterwards. The file
/// is named after the lab without the process id: a later run overwrites it.
fn save_log(node: &Node, lab: &str) -> Result<()> {
    if !node.log_path().exists() {
        return Ok(());
    }
    let folder = target_folder()?.join("lab-logs");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let what = lab.splitn(3, '-').last().unwrap_or(lab);
    let to = folder.join(format!("{what}-{}.log", node.name));
    fs::copy(node.log_path(), &to).with_context(|| format!("writing {}", to.display()))?;
    Ok(())
}

/// Ends the processes of a lab, then removes its namespaces and its folder. Doing it twice, or for
/// a lab that does not exist, changes nothing.
///
/// # Errors
/// When something of it stays.
pub fn sweep(name: &str, folder: &Path) -> Result<()> {
    process::kill_all(folder)?;
    net::remove(name)?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

/// Removes the labs of test runs whose process is no more.
///
/// # Errors
/// When something of one stays.
pub fn sweep_dead() -> Result<()> {
    let temporary = std::env::temp_dir();
    let folders = temporary.read_dir().into_iter().flatten().flatten();
    let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut labs: Vec<String> = names.filter(|name| is_dead_lab(name)).collect();
    for namespace in net::all_namespaces().into_iter().filter(|name| is_dead_lab(name)) {
        if let Some((lab, _host)) = namespace.rsplit_once('-') {
            labs.push(lab.to_owned());
        }
    }
    labs.iter().try_for_each(|lab| sweep(lab, &temporary.join(lab)))
}

/// Whether this is the name of a test's lab whose process has ended.
pub(crate) fn is_dead_lab(name: &str) -> bool {
    let mut words = name.splitn(3, '-');
    let (prefix, pid) = (words.next(), words.next().and_then(|word| word.parse::<u32>().ok()));
    let alive = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
    prefix == Some(TEST_PREFIX) && words.next().is_some() && pid.is_some_and(|pid| !alive(pid))
}

/// The folder of the build that this program belongs to: `target/debug` or `target/release`.
///
/// # Errors
/// When this program does not lie in one.
pub fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut folder = own.parent().context("this program has no folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("deps has no parent")?;
    }
    Ok(folder.to_owned())
}

/// A program of the same build as this one.
///
/// # Errors
/// When it was not built, or its sources are newer than it.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = target_folder()?.join(name);
    let Ok(built) = fs::metadata(&path).and_then(|data| data.modified()) else {
        bail!("{} is missing: run make build first", path.display());
    };
    // Cargo writes beside each program which sources it was built from.
    let list = fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    if let Some(newer) = newer_source(&list, built) {
        let path = path.display();
        bail!("{path} is older than {}: run make build first", newer.display());
    }
    Ok(path)
}

fn skein_binary() -> Result<PathBuf> {
    program("skein")
}

/// The first source in a dep-info list (`target: source source …`) that changed after `built`.
fn newer_source(list: &str, built: SystemTime) -> Option<PathBuf> {
    let sources = list.split_once(": ").map(|(_, sources)| sources).unwrap_or_default();
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    sources
        .split_whitespace()
        .map(PathBuf::from)
        .find(|path| changed(path).is_some_and(|time| time > built))
}

#[test]
fn only_labs_of_ended_processes_are_dead() {
    let own = std::process::id();
    assert!(!is_dead_lab(&format!("skl-{own}-vip-n1")));
    // Linux numbers processes below 2^22.
    assert!(is_dead_lab("skl-4194305-vip-n1"));
    for other in ["skl-demo-n1", "skein-demo-n1", "skl", "skl-4194305", "eth-4194305-x"] {
        assert!(!is_dead_lab(other), "{other}");
    }
}

#[test]
fn a_source_newer_than_its_program_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("main.rs");
    fs::write(&source, "").expect("written");
    let list = format!("target/debug/x: {}", source.display());
    assert_eq!(newer_source(&list, SystemTime::UNIX_EPOCH), Some(source.clone()));
    let later = fs::metadata(&source).and_then(|data| data.modified()).expect("a time");
    assert_eq!(newer_source(&list, later + Duration::from_secs(1)), None);
    assert_eq!(newer_source("", SystemTime::UNIX_EPOCH), None);
}
