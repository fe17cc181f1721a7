//! Shared by the tests of this tier: one lab of containers at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use lab::containers::{self, Containers, Restart};
use lab::kinds::folder_of;
use lab::topology::Topology as _;
use lab::{Lab, test_name};

/// Labs take turns: clusters side by side on two cores would time each other out.
static TURN: Mutex<()> = Mutex::new(());

/// The right to be the only one.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    lab::sweep_dead().expect("leftovers of dead runs can be removed");
    containers::sweep_dead().expect("containers of dead runs can be removed");
    turn
}

/// A lab of containers. No daemon runs.
pub(crate) fn lab(what: &str, nodes: usize, restart: Restart) -> Result<Lab> {
    let name = test_name(what);
    let folder = folder_of(&name);
    let containers = Containers::create(&name, &folder, nodes, restart)?;
    Lab::on(&name, &folder, Box::new(containers))
}

/// The compose project under a lab.
pub(crate) fn project(lab: &Lab) -> Result<Containers> {
    let project = Containers::attach(&lab.name, lab.folder(), lab.nodes.len())?;
    assert_eq!(project.kind(), lab.kind());
    Ok(project)
}

/// Fails with the whole chain of an error.
pub(crate) fn must<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}
