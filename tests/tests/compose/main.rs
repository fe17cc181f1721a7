//! Real containers on a real Docker Engine, by the compose file that users get: a cluster of three
//! managers and two workers does there what it does on machines. Needs root; see
//! deploy/compose/README.md.

mod bad_input;
mod nodes;
mod stage;
mod traffic;

use crate::stage::Stage;

/// Goal: the compose project is a whole cluster, survives what a cluster must survive, and leaves
/// nothing. Method: docker's client and the probe, from a container outside the cluster.
#[test]
fn a_project_of_five_containers_is_a_cluster() {
    let mut stage = Stage::new("compose");
    stage.check(&[
        ("a cluster of 3 managers and 2 workers is made", nodes::make),
        ("every node is well", nodes::are_well),
        ("services start on all nodes", traffic::start),
        ("a VIP answers from the tasks of all nodes", traffic::vip),
        ("a published port answers on every node and keeps the client", traffic::published),
        ("a killed daemon's tasks and connections go on", nodes::kill_daemon),
        ("a cut is one way, and heals", nodes::cut),
    ]);
    stage.compose(&["restart", nodes::RESTARTED_NAME]);
    stage.check(&[
        ("a restart by compose keeps a node's identity", nodes::is_same),
        ("a lost container's tasks move, and it comes back", nodes::lose),
    ]);
    bad_input::check(&stage.topology);
    stage.leaves_nothing();
}
