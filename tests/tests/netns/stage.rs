//! Shared by the tests of this tier: one lab of namespaces at a time.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lab::scenario::{self, Check, Scenario};
use lab::{Lab, sweep_dead};

/// Labs take turns: clusters side by side on two cores would time each other out.
static TURN: Mutex<()> = Mutex::new(());

/// A lab and the right to be the only one.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// A lab without a running daemon.
    pub(crate) fn empty(what: &str, nodes: usize) -> Self {
        let turn = turn();
        sweep_dead().expect("leftovers of dead runs can be removed");
        let lab = Lab::for_test(what, nodes).unwrap_or_else(|error| panic!("{error:#}"));
        Self { lab, _turn: turn }
    }

    /// A lab whose nodes form a cluster; the first `managers` are managers.
    pub(crate) fn cluster(what: &str, nodes: usize, managers: usize) -> Self {
        let mut stage = Self::empty(what, nodes);
        stage.lab.make_cluster(managers).unwrap_or_else(|error| panic!("{error:#}"));
        stage
    }

    /// Runs all checks in order, also after one failed, and fails with all complaints.
    pub(crate) fn check(&mut self, checks: &[Check]) {
        scenario::check(&mut self.lab, checks).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// The right to be the only one.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The namespace of the host outside the cluster.
pub(crate) fn outside(lab: &Lab) -> PathBuf {
    Path::new("/run/netns").join(format!("{}-cl", lab.name))
}

/// The namespace of a node's machine.
pub(crate) fn on_node(lab: &Lab, node: usize) -> PathBuf {
    Path::new("/run/netns").join(format!("{}-n{}", lab.name, node + 1))
}

/// Plays a scenario on a lab of its own.
pub(crate) fn play(scenario: &Scenario) {
    let mut stage = Stage::empty(scenario.name, scenario.nodes);
    scenario.play(&mut stage.lab).unwrap_or_else(|error| panic!("{error:#}"));
}
