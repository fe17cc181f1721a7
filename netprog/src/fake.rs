//! A kernel in memory, for tests and simulation. Kernel tests check that it behaves like the real
//! one.

use std::collections::{BTreeMap, BTreeSet};

use cluster::id::TaskId;

use crate::kernel::{Kernel, KernelError};
use crate::model::{Model, sysctl_link};
use crate::op::{Kind, Op};
use crate::plan::is_optional_sysctl;
use crate::plane::{ALIAS_PREFIX, Link, Place, Plane, Space, TABLE_PREFIX, Table};

/// The value of a sysctl that was never set.
const SYSCTL_DEFAULT: &str = "0";

/// A kernel in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeKernel {
    model: Model,
    /// Whether it lacks the optional sysctls.
    bare: bool,
    applied: u64,
    faults: BTreeSet<u64>,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeKernel {
    /// With an empty host namespace.
    #[must_use]
    pub fn new() -> Self {
        let mut model = Model::default();
        model.plane.spaces.insert(Place::Host, Space::default());
        Self { model, bare: false, applied: 0, faults: BTreeSet::new() }
    }

    /// One that has none of the optional sysctls.
    #[must_use]
    pub fn bare() -> Self {
        Self { bare: true, ..Self::new() }
    }

    /// Creates a sandbox, as a supervisor does.
    pub fn create_sandbox(&mut self, task: TaskId) {
        self.model.plane.spaces.entry(Place::Sandbox(task)).or_default();
    }

    /// Removes a sandbox and its veths, as the end of its last process does.
    pub fn delete_sandbox(&mut self, task: TaskId) {
        self.model.drop_space(Place::Sandbox(task));
    }

    /// Adds a link that another program made.
    pub fn add_link(&mut self, place: Place, name: &str, link: Link) {
        self.model.plane.spaces.entry(place).or_default().links.insert(name.to_owned(), link);
    }

    /// Applies an operation as another program would, unknown to the programmer.
    pub fn interfere(&mut self, op: &Op) -> Result<(), KernelError> {
        self.model.apply(op).map_err(|reason| refused(op, reason))
    }

    /// Makes operation number `n` from now (0 is the next) fail without effect.
    pub fn fail(&mut self, n: u64) {
        self.faults.insert(self.applied.saturating_add(n));
    }

    /// Its complete state, ours or not.
    #[must_use]
    pub fn contents(&self) -> &Plane {
        &self.model.plane
    }

    fn apply_one(&mut self, op: &Op) -> Result<(), String> {
        let number = self.applied;
        self.applied += 1;
        if self.faults.remove(&number) {
            return Err("injected fault".to_owned());
        }
        if let Kind::Sysctl(sysctl) = &op.kind
            && self.bare
            && is_optional_sysctl(&sysctl.name)
        {
            return Ok(());
        }
        self.model.apply(op)
    }

    fn sysctls(&self, space: &Space, wanted: &Space) -> BTreeMap<String, String> {
        let exists = |name: &&String| match sysctl_link(name) {
            Some(link) => space.links.contains_key(link),
            None => !(self.bare && is_optional_sysctl(name)),
        };
        let value = |name: &String| {
            space.sysctls.get(name).cloned().unwrap_or_else(|| SYSCTL_DEFAULT.to_owned())
        };
        wanted.sysctls.keys().filter(exists).map(|name| (name.clone(), value(name))).collect()
    }
}

fn refused(op: &Op, reason: String) -> KernelError {
    KernelError { activity: op.to_string(), reason, errno: 0 }
}

impl Kernel for FakeKernel {
    fn read(
        &mut self,
        desired: &Plane,
        only: Option<&BTreeSet<Place>>,
    ) -> Result<Plane, KernelError> {
        let none = Space::default();
        let mut plane = Plane::default();
        let asked = |place: &Place| only.is_none_or(|only| only.contains(place));
        for (place, space) in self.model.plane.spaces.iter().filter(|(place, _)| asked(place)) {
            let wanted = desired.spaces.get(place).unwrap_or(&none);
            let mut seen = space.clone();
            if *place == Place::Host {
                only_ours(&mut seen, wanted);
            }
            seen.sysctls = self.sysctls(space, wanted);
            seen.nft = space
                .nft
                .iter()
                .filter(|(key, _)| key.name.starts_with(TABLE_PREFIX))
                .map(|(key, table)| (key.clone(), observed(table, wanted.nft.get(key))))
                .collect();
            plane.spaces.insert(*place, seen);
        }
        Ok(plane)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<(usize, KernelError)> {
        let mut failed = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            if let Err(reason) = self.apply_one(op) {
                failed.push((at, refused(op, reason)));
            }
        }
        failed
    }
}

/// Of the host's namespace only links with our mark or a name that we want are read, and what is
/// on them: a veth pair that was made a moment before a crash is not marked yet.
fn only_ours(space: &mut Space, wanted: &Space) {
    space.links.retain(|name, link| {
        link.alias.starts_with(ALIAS_PREFIX) || wanted.links.contains_key(name)
    });
    let links = &space.links;
    let ours = |name: &String| links.contains_key(name);
    space.addresses.retain(|(link, _)| ours(link));
    space.routes.retain(|route| ours(&route.device));
    space.fdb.retain(|key, _| ours(&key.device));
    space.neighbours.retain(|(device, _), _| ours(device));
}

/// A table shows its digest and the elements of the requested sets. If it lacks one of these sets
/// it has been tampered with, and its digest is empty.
fn observed(table: &Table, wanted: Option<&Table>) -> Table {
    let mut seen = Table { digest: table.digest.clone(), ..Table::default() };
    let Some(wanted) = wanted else { return seen };
    for name in wanted.sets.keys() {
        match table.sets.get(name) {
            Some(elements) => {
                seen.sets.insert(name.clone(), elements.clone());
            }
            None => seen.digest.clear(),
        }
    }
    for name in wanted.maps.keys() {
        match table.maps.get(name) {
            Some(elements) => {
                seen.maps.insert(name.clone(), elements.clone());
            }
            None => seen.digest.clear(),
        }
    }
    seen
}
