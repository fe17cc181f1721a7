//! The kinds of labs, and the description of a lab in its folder. Topologies are
//! registered in one place: [`of`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::TEST_PREFIX;
use crate::cleanup::{Failures, remove_folder};
use crate::containers::{self, Containers, Restart};
use crate::namespaces::{self, Namespaces};
use crate::net;
use crate::topology::{Kind, Topology};
use crate::vm;
use crate::vm::kernel::Kernel;
use crate::vm::topology::VirtualMachines;

/// Where labs lie: a place that every task sees, and short enough for the paths of sockets.
pub const FOLDER: &str = "/var/lib/skein-lab";
/// The names of the labs that tests of `skein-lab` make, which is for people: it gives no name of
/// a test's. The prefix of the second starts with that of the first.
pub const TESTED_NAMES: [&str; 3] = ["labtest", "labtest-n1", "refused-lab"];
/// The file of a lab's folder that says what lab it is.
const RECORD_FILE: &str = "lab.json";

/// Makes or finds the machines of a lab by name, folder and number of nodes.
type Door = fn(&str, &Path, usize) -> Result<Box<dyn Topology>>;

/// How the machines of one kind are made, found again and removed.
#[derive(Debug)]
pub struct OfKind {
    /// Makes them in an existing folder; cleans up after itself where it fails.
    pub make: Door,
    /// Finds those that another process made.
    pub attach: Door,
    /// Removes whatever is left of them by name and folder. Where nothing is, or what machines of
    /// this kind need is not on this machine, it does nothing.
    pub sweep: fn(&str, &Path) -> Result<()>,
    /// The faults of the underlay and of machines that it offers, for people.
    pub offers: &'static str,
}

/// What is known of a kind.
///
/// # Errors
/// Never today; a kind may come to need what a machine lacks.
pub fn of(kind: Kind) -> Result<OfKind> {
    match kind {
        Kind::Namespaces => Ok(OfKind {
            make: |name, folder, nodes| Ok(Box::new(Namespaces::make(name, folder, nodes)?)),
            attach: |name, folder, nodes| Ok(Box::new(Namespaces::attach(name, folder, nodes)?)),
            sweep: namespaces::sweep,
            offers: namespaces::OFFERS,
        }),
        Kind::VirtualMachines => Ok(OfKind {
            make: |name, folder, nodes| {
                let kernel = Kernel::of_user()?;
                Ok(Box::new(VirtualMachines::make(name, folder, nodes, kernel)?))
            },
            attach: |name, folder, nodes| {
                Ok(Box::new(VirtualMachines::attach(name, folder, nodes)?))
            },
            sweep: vm::topology::sweep,
            offers: vm::topology::OFFERS,
        }),
        Kind::Containers => Ok(OfKind {
            make: |name, folder, nodes| {
                // As on machines of any other kind, nobody starts a daemon that ended by himself.
                Ok(Box::new(Containers::create(name, folder, nodes, Restart::ByHand)?))
            },
            attach: |name, folder, nodes| Ok(Box::new(Containers::attach(name, folder, nodes)?)),
            sweep: containers::remove,
            offers: containers::OFFERS,
        }),
    }
}

/// The folder of a lab.
#[must_use]
pub fn folder_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The names of all labs that have a folder.
#[must_use]
pub fn all() -> Vec<String> {
    let entries = Path::new(FOLDER).read_dir().into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a lab's folder tells any process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The lab's name.
    pub name: String,
    /// What its machines are made of.
    pub kind: Kind,
    /// How many nodes it has.
    pub nodes: usize,
}

impl Record {
    /// Writes it into a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join(RECORD_FILE);
        let text = serde_json::to_string(self).context("writing a record as JSON")?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Reads that of a folder.
    ///
    /// # Errors
    /// When no lab lies there.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD_FILE);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("no lab runs here: reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }
}

/// Ends and removes a lab by name and folder. Doing it twice, or for a lab that does not exist,
/// changes nothing.
///
/// # Errors
/// With all that stays; what could be removed is gone.
pub fn sweep(name: &str, folder: &Path) -> Result<()> {
    let kinds = match Record::read(folder) {
        Ok(record) => vec![of(record.kind)?],
        // It may be of any kind then: each finds its own by name.
        Err(_no_record) => Kind::ALL.into_iter().filter_map(|kind| of(kind).ok()).collect(),
    };
    let mut failures = Failures::default();
    for of_kind in &kinds {
        failures.note((of_kind.sweep)(name, folder));
    }
    failures.note(remove_folder(folder));
    failures.result().with_context(|| format!("lab {name} is not gone, run this again"))
}

/// Removes the labs of test runs whose process has ended.
///
/// # Errors
/// When something of one stays.
pub fn sweep_dead() -> Result<()> {
    let mut labs: Vec<String> = all().into_iter().filter(|name| is_dead_lab(name)).collect();
    for namespace in net::all_namespaces().into_iter().filter(|name| is_dead_lab(name)) {
        if let Some((lab, _host)) = namespace.rsplit_once('-') {
            labs.push(lab.to_owned());
        }
    }
    let mut failures = Failures::default();
    for lab in labs {
        failures.note(sweep(&lab, &folder_of(&lab)));
    }
    failures.result()
}

/// Whether this is the name of a test's lab whose process has ended.
pub(crate) fn is_dead_lab(name: &str) -> bool {
    let mut words = name.splitn(3, '-');
    let (prefix, pid) = (words.next(), words.next().and_then(|word| word.parse::<u32>().ok()));
    let alive = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
    prefix == Some(TEST_PREFIX) && words.next().is_some() && pid.is_some_and(|pid| !alive(pid))
}

#[test]
fn a_record_is_found_again_and_a_folder_without_one_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = format!("{:#}", Record::read(folder.path()).expect_err("nothing is there"));
    assert!(error.contains("no lab runs here"), "{error}");
    let record = Record { name: "a".to_owned(), kind: Kind::Namespaces, nodes: 3 };
    record.write(folder.path()).expect("written");
    assert_eq!(Record::read(folder.path()).expect("read"), record);
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
