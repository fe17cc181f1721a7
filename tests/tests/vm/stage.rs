//! Shared by the tests of this tier: one lab of guests at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use lab::kinds::folder_of;
use lab::vm::kernel::Kernel;
use lab::vm::machine::VirtualMachine;
use lab::vm::topology::VirtualMachines;
use lab::{Lab, sweep_dead, test_name};

/// Labs take turns: guests side by side on two cores would time each other out.
static TURN: Mutex<()> = Mutex::new(());

/// The right to be the only one.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    sweep_dead().expect("leftovers of dead runs can be removed");
    turn
}

/// A lab of guests that have booted; no daemon runs.
pub(crate) fn lab(what: &str, kernel: Kernel, nodes: usize) -> Result<Lab> {
    let name = test_name(&format!("{what}-{kernel}"));
    let folder = folder_of(&name);
    let machines = VirtualMachines::make(&name, &folder, nodes, kernel)?;
    Lab::on(&name, &folder, Box::new(machines))
}

/// The guest under a node of a lab.
pub(crate) fn guest(lab: &Lab, index: usize) -> Result<VirtualMachine> {
    let machines = VirtualMachines::attach(&lab.name, lab.folder(), lab.nodes.len())?;
    match machines.guests()?.into_iter().nth(index) {
        Some(guest) => Ok(guest),
        None => bail!("the lab has no node {index}"),
    }
}

/// Fails with the whole chain of an error.
pub(crate) fn must<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}
