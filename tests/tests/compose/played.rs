//! Scenarios for every kind of lab, run on three of the project's five containers: those that
//! depend most on the properties of containers. `skein-lab play` runs the others.

use lab::containers::Restart;
use lab::scenario::{Scenario, dns, node_loss, restart};

use crate::stage::{lab, must, turn};

fn play(scenario: &Scenario) {
    let _turn = turn();
    // The scenarios start by themselves what they have killed.
    let mut lab = must(lab(scenario.name, scenario.nodes, Restart::ByHand));
    must(scenario.play(&mut lab));
}

#[test]
fn dns_resolves_names_in_every_form() {
    play(&dns::SCENARIO);
}

#[test]
fn restart_loses_no_packet() {
    play(&restart::SCENARIO);
}

#[test]
fn node_loss_is_made_good() {
    play(&node_loss::SCENARIO);
}
