//! The scenarios of every kind of lab, on containers: three of the project's five nodes.

use tests::containers::Restart;
use tests::scenario::{Scenario, cold_restart, dns, ingress, join, node_loss, restart, scale, vip};

use crate::stage::{lab, must, turn};

fn play(scenario: &Scenario) {
    let _turn = turn();
    // The scenarios start by themselves what they have killed.
    let mut lab = must(lab(scenario.name, scenario.nodes, Restart::ByHand));
    must(scenario.play(&mut lab));
}

#[test]
fn vip_reaches_every_replica_from_every_node() {
    play(&vip::SCENARIO);
}

#[test]
fn ingress_answers_on_every_node() {
    play(&ingress::SCENARIO);
}

#[test]
fn dns_resolves_names_in_every_form() {
    play(&dns::SCENARIO);
}

#[test]
fn scale_lets_backends_come_and_go() {
    play(&scale::SCENARIO);
}

#[test]
fn join_makes_three_managers_one_cluster() {
    play(&join::SCENARIO);
}

#[test]
fn restart_loses_no_packet() {
    play(&restart::SCENARIO);
}

#[test]
fn node_loss_is_made_good() {
    play(&node_loss::SCENARIO);
}

#[test]
fn cold_restart_finds_what_was_agreed() {
    play(&cold_restart::SCENARIO);
}
