//! The scenarios: what a user may rely on, written once and run on every kind of lab.
//!
//! A scenario asks for a cluster and checks it step by step; its checks share the lab. Nothing in
//! them assumes that the files, processes or the kernel of a node are those of the machine that
//! runs the test: they go through the lab's nodes and its client.

pub mod background;
pub mod calls;
pub mod cold_restart;
pub mod dns;
pub mod fields;
pub mod ingress;
pub mod join;
pub mod node_loss;
pub mod restart;
pub mod rollout;
pub mod scale;
pub mod services;
pub mod vip;

use std::io::Write as _;

use anyhow::{Result, bail};

use crate::Lab;

/// One named check: its name states what a user may rely on.
pub type Check = (&'static str, fn(&mut Lab) -> Result<()>);

/// A scenario.
#[derive(Debug)]
pub struct Scenario {
    /// A short name.
    pub name: &'static str,
    /// How many nodes it needs.
    pub nodes: usize,
    /// How many of them, from the first on, are managers.
    pub managers: usize,
    /// What it checks, in order.
    pub checks: &'static [Check],
}

impl Scenario {
    /// All that can be played on any kind of lab.
    pub const ALL: [&'static Self; 9] = [
        &vip::SCENARIO,
        &ingress::SCENARIO,
        &dns::SCENARIO,
        &fields::SCENARIO,
        &scale::SCENARIO,
        &join::SCENARIO,
        &restart::SCENARIO,
        &node_loss::SCENARIO,
        &cold_restart::SCENARIO,
    ];

    /// Makes a cluster of a lab whose daemons do not run yet, and checks it.
    ///
    /// # Errors
    /// When the cluster cannot be created, or with the failures of all checks.
    pub fn play(&self, lab: &mut Lab) -> Result<()> {
        lab.make_cluster(self.managers)?;
        check(lab, self.checks)
    }
}

/// Runs all checks in order, also after one failed.
///
/// # Errors
/// With all complaints and the end of every daemon's log.
pub fn check(lab: &mut Lab, checks: &[Check]) -> Result<()> {
    let mut complaints = Vec::new();
    for (name, check) in checks {
        let result = check(lab);
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        let short = lab.name.splitn(3, '-').last().unwrap_or_default();
        // Not println: what a scenario has reached is to be seen while it runs.
        let _ = writeln!(std::io::stdout(), "    {short}: {name} ... {verdict}");
        complaints.extend(result.err().map(|error| format!("{name}: {error:#}")));
    }
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", lab.with_logs(&complaints))
}
