//! Nodes that are containers of a Docker Engine: the project of `deploy/compose/`, with up to five
//! nodes and a client on one network of the engine.
//!
//! Everything in a project is marked with its name: containers, network and volumes by compose's
//! labels, the table of faults, and one folder. Only marked objects are removed.

pub mod engine;
mod faults;
mod image;
mod machine;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Uid;

use self::engine::Engine;
use self::faults::{Faults, Station};
use self::machine::Container;
use crate::cleanup::{Failures, remove_folder};
use crate::command::Output;
use crate::kinds::{folder_of, is_dead_lab};
use crate::topology::{Fault, Kind, Machine, Point, Topology};
use crate::wait::wait_for;

/// The compose file, below the workspace's root.
const COMPOSE_FILE: &str = "deploy/compose/docker-compose.yml";
/// What a lab adds to it.
const LAB_FILE: &str = "deploy/compose/lab.yml";
/// Nodes of the compose file; a smaller lab starts the first of them.
pub const NODES_MAX: usize = 5;
/// The label by which compose knows its own.
const LABEL: &str = "com.docker.compose.project";
/// Last byte of the address of node 0; node i has the i-th after it.
const NODE_LAST: u8 = 11;
/// Last byte of the external client's address.
const CLIENT_LAST: u8 = 100;
/// Networks that are tried, by their third byte, unless SKEIN_NET names one.
const NETS: std::ops::RangeInclusive<u8> = 61..=76;
/// The file of the compose file's variables, in the project's folder.
const VARIABLES: &str = "variables";
/// The file of the faults in force, in the project's folder.
const FAULTS: &str = "faults";
/// What `skein-lab` says of it.
pub const OFFERS: &str = "cut and loss between any two points, one way or both (nftables by the \
                          containers' addresses); no delay; machines and daemons are killed";
/// Passes over what a project left, until it is gone.
const REMOVE_MAX: Duration = Duration::from_secs(30);

/// Who starts a daemon that was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Pid 1, as for everyone.
    Always,
    /// Nobody but [`Machine::spawn`].
    ByHand,
}

/// A project that is up.
#[derive(Debug)]
pub struct Containers {
    name: String,
    engine: Engine,
    folder: PathBuf,
    nodes: usize,
    /// What the compose file asks for, as `NAME=value`.
    variables: Vec<String>,
    /// The network's first three bytes, with dots.
    net: String,
    faults: Faults,
}

impl Containers {
    /// Builds the image and makes all containers, which are off but for the client. What was made
    /// is removed again when a step fails.
    ///
    /// # Errors
    /// With what is missing and how to get it.
    pub fn create(name: &str, folder: &Path, nodes: usize, restart: Restart) -> Result<Self> {
        ensure!(
            (1..=NODES_MAX).contains(&nodes),
            "{COMPOSE_FILE} has {NODES_MAX} nodes, not {nodes}: ask for 1 to {NODES_MAX}"
        );
        ensure!(
            Uid::effective().is_root(),
            "nodes' sockets lie in volumes, which only root may enter: run it as root, as by sudo"
        );
        let engine = Engine::find_or_start()?;
        ensure!(
            labelled(&engine, name)?.is_empty() && !folder.join(VARIABLES).exists(),
            "a project named {name} exists already: take it down first"
        );
        let made = Self::create_on(&engine, name, folder, nodes, restart);
        made.map_err(|error| match remove(name, folder) {
            Ok(()) => error.context(format!("making {name}; what was made is removed")),
            Err(also) => {
                error.context(format!("making {name}; and it could not be removed: {also}"))
            }
        })
    }

    fn create_on(
        engine: &Engine,
        name: &str,
        folder: &Path,
        nodes: usize,
        restart: Restart,
    ) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        // Before the image is built, which takes longest.
        engine.compose_line()?;
        let image = image::build(engine)?;
        let net = choose_net(engine)?;
        let by_hand = if restart == Restart::ByHand { "--by-hand" } else { "" };
        let variables = [
            format!("SKEIN_IMAGE={image}"),
            format!("SKEIN_NET={net}"),
            format!("SKEIN_FIRST={by_hand}"),
        ];
        fs::write(folder.join(VARIABLES), variables.join("\n")).context("writing variables")?;
        let project = Self::attach(name, folder, nodes)?;
        let services: Vec<String> = (0..nodes).map(service).collect();
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        project.compose(&[&["up", "--no-start"], services.as_slice()].concat())?.ok()?;
        project.compose(&["up", "-d", "client"])?.ok()?;
        Ok(project)
    }

    /// A project that another process made.
    ///
    /// # Errors
    /// When none of this name is there.
    pub fn attach(name: &str, folder: &Path, nodes: usize) -> Result<Self> {
        let Some(engine) = Engine::find()? else { bail!("no Docker Engine runs") };
        let variables = fs::read_to_string(folder.join(VARIABLES))
            .with_context(|| format!("no project named {name} is up"))?;
        let variables: Vec<String> = variables.lines().map(str::to_owned).collect();
        let net = variables.iter().find_map(|line| line.strip_prefix("SKEIN_NET="));
        let net = net.context("the project's variables lack SKEIN_NET")?.to_owned();
        let faults = fs::read_to_string(folder.join(FAULTS)).unwrap_or_default();
        let faults = faults::read(&faults)?;
        let (name, folder) = (name.to_owned(), folder.to_owned());
        Ok(Self { name, engine, folder, nodes, variables, net, faults })
    }

    /// docker-compose with these words, on this project.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn compose(&self, words: &[&str]) -> Result<Output> {
        self.compose_with(&[], words)
    }

    /// docker-compose with further variables, as `NAME=value`, and these words, on this project.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn compose_with(&self, variables: &[String], words: &[&str]) -> Result<Output> {
        let root = image::workspace()?;
        let [file, lab] = [COMPOSE_FILE, LAB_FILE].map(|name| root.join(name));
        let (file, lab) = (file.to_string_lossy(), lab.to_string_lossy());
        let project = ["-f", &file, "-f", &lab, "-p", &self.name];
        let variables = [self.variables.as_slice(), variables].concat();
        self.engine.compose(&variables, &[&project, words].concat())
    }

    /// The engine that it runs on.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn container(&self, service: &str) -> Result<String> {
        let label = |key: &str, value: &str| format!("label=com.docker.compose.{key}={value}");
        let (project, service) = (label("project", &self.name), label("service", service));
        let words = ["ps", "-aq", "--no-trunc", "--filter", &project, "--filter", &service];
        let found = self.engine.docker(&words)?.ok()?;
        ensure!(!found.is_empty() && !found.contains('\n'), "containers of {service}: {found:?}");
        Ok(found)
    }

    fn address(&self, point: Point) -> Result<Ipv4Addr> {
        let last = match point {
            Point::Node(index) => NODE_LAST + u8::try_from(index)?,
            Point::Client => CLIENT_LAST,
        };
        format!("{}.{last}", self.net).parse().with_context(|| format!("network {:?}", self.net))
    }

    fn machine(&self, index: usize) -> Result<Container> {
        let name = service(index);
        let volume = format!("{}_{name}-run", self.name);
        let words = ["volume", "inspect", "--format", "{{.Mountpoint}}", &volume];
        let mountpoint = self.engine.docker(&words)?.ok()?;
        Ok(Container {
            engine: self.engine.clone(),
            address: self.address(Point::Node(index))?,
            id: self.container(&name)?,
            socket: Path::new(&mountpoint).join("skein.sock"),
            folder: self.folder.clone(),
            name,
        })
    }

    fn change_faults(&mut self, change: impl FnOnce(&mut Faults)) -> Result<()> {
        let mut faults = self.faults.clone();
        change(&mut faults);
        let station = |point| Ok(Station { address: self.address(point)? });
        let program = faults::render(&self.name, &faults, station)?;
        self.engine.run_at_engine(&["nft", "-f", "-"], &program)?.ok()?;
        let text = faults::write(&faults);
        fs::write(self.folder.join(FAULTS), text).context("writing the faults")?;
        self.faults = faults;
        Ok(())
    }
}

impl Topology for Containers {
    fn kind(&self) -> Kind {
        Kind::Containers
    }

    fn machines(&self) -> Result<Vec<Box<dyn Machine>>> {
        (0..self.nodes)
            .map(|index| Ok(Box::new(self.machine(index)?) as Box<dyn Machine>))
            .collect()
    }

    fn client_address(&self) -> Ipv4Addr {
        // The network's address was checked when the project was made.
        self.address(Point::Client).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    fn client_line(&self, words: &[&str]) -> Vec<String> {
        // Compose's name for the only container of a service differs between its versions.
        let id = self.container("client").unwrap_or_else(|_| "client".to_owned());
        self.engine.docker_line(&[&["exec", "-i", id.as_str()], words].concat())
    }

    fn client_program(&self, name: &str) -> Result<String> {
        machine::place_of(name)
    }

    fn faults(&self) -> Result<Vec<(Point, Point, Fault)>> {
        Ok(self.faults.iter().map(|(&(from, to), &fault)| (from, to, fault)).collect())
    }

    fn disturb(&mut self, from: Point, to: Point, fault: Fault) -> Result<()> {
        self.change_faults(|faults| {
            faults.insert((from, to), fault);
        })
    }

    fn heal(&mut self, one: Point, other: Point) -> Result<()> {
        self.change_faults(|faults| {
            faults
                .retain(|&(from, to), _| (from, to) != (one, other) && (to, from) != (one, other));
        })
    }

    fn tear_down(&mut self) -> Result<()> {
        remove(&self.name, &self.folder)
    }
}

/// The compose file's name of a node.
fn service(index: usize) -> String {
    format!("node{}", index + 1)
}

/// A network that nothing uses: the one that SKEIN_NET names (`192.168.61`), else the first free
/// one.
fn choose_net(engine: &Engine) -> Result<String> {
    let networks = engine.docker(&["network", "ls", "-q"])?.ok()?;
    let mut words =
        vec!["network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"];
    words.extend(networks.lines());
    let mut taken = engine.docker(&words)?.ok()?;
    taken += &engine.run_at_engine(&["ip", "route"], "")?.ok()?;
    let is_taken = |net: &str| is_used(&taken, net);
    if let Some(given) = std::env::var_os("SKEIN_NET") {
        let given = given.to_string_lossy().into_owned();
        let valid = format!("{given}.0").parse::<Ipv4Addr>().is_ok();
        ensure!(valid, "SKEIN_NET {given:?}: give the first three bytes of a network, 192.168.61");
        ensure!(!is_taken(&given), "SKEIN_NET {given}: {given}.0/24 is in use here; give another");
        return Ok(given);
    }
    let mut nets = NETS.map(|third| format!("192.168.{third}"));
    nets.find(|net| !is_taken(net)).with_context(|| {
        format!("192.168.{NETS:?}.0/24 are all in use: name a free one, SKEIN_NET=10.9.8")
    })
}

/// Whether a text of prefixes has one that starts with these three bytes.
fn is_used(prefixes: &str, net: &str) -> bool {
    let dotted = format!("{net}.");
    prefixes.split_whitespace().any(|word| word.starts_with(&dotted))
}

/// What the engine has of a project: `docker` words that remove each.
fn labelled(engine: &Engine, project: &str) -> Result<Vec<Vec<String>>> {
    let filter = format!("label={LABEL}={project}");
    let kinds: [(&[&str], &[&str]); 3] = [
        (&["ps", "-aq"], &["rm", "--force", "--volumes"]),
        (&["network", "ls", "-q"], &["network", "rm"]),
        (&["volume", "ls", "-q"], &["volume", "rm", "--force"]),
    ];
    let mut found = Vec::new();
    for (list, remove) in kinds {
        let names = engine.docker(&[list, &["--filter", &filter]].concat())?.ok()?;
        if !names.is_empty() {
            let words = remove.iter().copied().chain(names.lines());
            found.push(words.map(str::to_owned).collect());
        }
    }
    Ok(found)
}

/// Removes everything of a project, whatever state it is in; twice is as once. Found by compose's
/// labels, not by its file: that works for a project that is half made or of another version of
/// the file. A private engine that is left without a container is ended.
///
/// # Errors
/// With what stays.
pub fn remove(name: &str, folder: &Path) -> Result<()> {
    let mut failures = Failures::default();
    failures.note(remove_from_engine(name));
    failures.note(remove_folder(folder));
    failures.result()
}

fn remove_from_engine(name: &str) -> Result<()> {
    if let Some(engine) = Engine::find()? {
        let what = format!("everything of {name} to be removed");
        wait_for(REMOVE_MAX, &what, || {
            let mut left = Vec::new();
            for words in labelled(&engine, name)? {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                left.extend(engine.docker(&words)?.ok().err());
            }
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })?;
        engine.run_at_engine(&["nft", "-f", "-"], &faults::remove(name))?.ok()?;
        engine.stop_if_unused()?;
    }
    Ok(())
}

/// Removes the projects of test runs whose process has ended.
///
/// # Errors
/// When something of one stays.
pub fn sweep_dead() -> Result<()> {
    let Some(engine) = Engine::find()? else { return Ok(()) };
    let mut names = BTreeSet::new();
    let label = format!("{{{{.Label \"{LABEL}\"}}}}");
    for list in [&["ps", "-a"] as &[&str], &["network", "ls"], &["volume", "ls"]] {
        let text = engine.docker(&[list, &["--format", &label]].concat())?.ok()?;
        names.extend(text.lines().map(str::to_owned));
    }
    let mut failures = Failures::default();
    for name in names.iter().filter(|name| is_dead_lab(name)) {
        failures.note(remove(name, &folder_of(name)));
    }
    failures.result()
}

#[test]
fn a_network_in_use_is_seen_by_its_first_bytes() {
    let prefixes = "192.168.6.0/24 10.0.0.0/8\ndefault via 192.168.61.1";
    for (net, used) in [("192.168.6", true), ("192.168.61", true), ("192.168.60", false)] {
        assert_eq!(is_used(prefixes, net), used, "{net}");
    }
}
