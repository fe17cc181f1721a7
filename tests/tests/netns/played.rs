//! The scenarios of every kind of lab, on namespaces.

use lab::scenario::{cold_restart, dns, fields, ingress, join, node_loss, restart, scale, vip};

use crate::stage::play;

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
fn fields_of_a_spec_take_effect() {
    play(&fields::SCENARIO);
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
