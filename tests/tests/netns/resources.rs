//! Generic resources: what nodes offer is assigned to tasks, each name once.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, list, text};
use lab::scenario::Check;
use serde_json::json;

use crate::stage::Stage;

const CHECKS: &[Check] = &[
    ("nodes tell what they have", nodes_tell),
    ("each task has one of its own and is told which", each_has_its_own),
    ("a task that finds none waits, and runs once its service asks for none", one_waits),
];

/// Goal: a reservation means here what it means in Docker. Method: docker's client asks for more
/// than two nodes have, and tasks tell what they were given.
#[test]
fn generic_resources_are_given_once() {
    let mut stage = Stage::empty("resources", 2);
    let offers = [["gpu=u1,gpu=u2", "ssd=3"].as_slice(), &["gpu=u3"]];
    for (node, offers) in stage.lab.nodes.iter_mut().zip(offers) {
        let flags: Vec<&str> = offers.iter().flat_map(|o| ["--generic-resource", o]).collect();
        node.set_flags(&flags).expect("flags are kept");
    }
    stage.lab.make_cluster(1).unwrap_or_else(|error| panic!("{error:#}"));
    stage.check(CHECKS);
}

fn nodes_tell(lab: &mut Lab) -> Result<()> {
    let nodes = lab.nodes[0].get("/nodes")?;
    let name = lab.nodes[0].name.clone();
    let own = |node: &&serde_json::Value| node["Description"]["Hostname"] == json!(name);
    let node = list(&nodes).find(own).context("the first node")?;
    let told = &node["Description"]["Resources"]["GenericResources"];
    let expected = json!([
        { "NamedResourceSpec": { "Kind": "gpu", "Value": "u1" } },
        { "NamedResourceSpec": { "Kind": "gpu", "Value": "u2" } },
        { "DiscreteResourceSpec": { "Kind": "ssd", "Value": 3 } },
    ]);
    ensure!(*told == expected, "{told}");
    Ok(())
}

fn each_has_its_own(lab: &mut Lab) -> Result<()> {
    let flags = ["--name", "cuda", "--replicas", "3", "--generic-resource", "gpu=1", "host"];
    lab.create_service(0, &[flags.as_slice(), &["sleep", "1d"]].concat())?;
    let mut given = BTreeSet::new();
    for task in lab.wait_running(0, "cuda", 3)? {
        let line = "tr '\\0' '\\n' < /proc/1/environ | grep ^DOCKER_RESOURCE_";
        let told = lab.in_task(&task, &["sh", "-c", line])?.ok()?;
        let shown = lab.nodes[0].get(&format!("/tasks/{}", task.id))?;
        let shown = &shown["AssignedGenericResources"][0]["NamedResourceSpec"];
        let expected = format!("DOCKER_RESOURCE_GPU={}", text(&shown["Value"]));
        ensure!(told.trim() == expected, "{told:?} is not {expected:?}");
        given.insert(text(&shown["Value"]));
    }
    ensure!(given == ["u1", "u2", "u3"].map(str::to_owned).into(), "{given:?}");
    Ok(())
}

fn one_waits(lab: &mut Lab) -> Result<()> {
    lab.nodes[0].docker(&["service", "scale", "--detach", "cuda=4"])?.ok()?;
    lab.wait_for(CONVERGE_MAX, "a task that waits", || {
        let tasks = lab.all_tasks(0, "cuda")?;
        let why = "no suitable node (insufficient resources on 2 nodes)";
        let waits = |task: &&lab::cluster::Task| task.state == "pending" && task.message == why;
        ensure!(tasks.iter().filter(waits).count() == 1, "{tasks:?}");
        Ok(())
    })?;
    let line = ["service", "update", "--generic-resource-rm", "gpu", "--update-parallelism", "0"];
    lab.nodes[0].skein(&[line.as_slice(), &["--detach", "cuda"]].concat())?.ok()?;
    for task in lab.wait_running(0, "cuda", 4)? {
        let shown = lab.nodes[0].get(&format!("/tasks/{}", task.id))?;
        ensure!(shown.get("AssignedGenericResources").is_none(), "{shown}");
    }
    Ok(())
}
