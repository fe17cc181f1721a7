//! Tasks of the image `host` cannot see the sockets of the daemon.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::scenario::Check;
use serde_json::Value;

use crate::stage::Stage;

/// Tells of each path whether a stream socket answers there.
const CONNECT: &str = "use IO::Socket::UNIX; \
    for (@ARGV) { print IO::Socket::UNIX->new(Peer => $_) ? \"open\" : \"closed\", \"\\n\" }";

const CHECKS: &[Check] = &[
    ("the API answers on every socket", clients_of_the_node_are_answered),
    ("no task reaches one", no_task_reaches_one),
    ("no task reaches one after a restart of the daemon", no_task_after_a_restart),
];

/// Goal: a task of the node's own files is no client of the API, and speaks to no supervisor.
/// Method: sockets in the run directory, in a separate directory and next to other files, by
/// their paths and behind a link; connected to by a task that runs across a restart.
#[test]
fn tasks_do_not_reach_the_daemons_sockets() {
    let mut stage = Stage::empty("sockets", 1);
    let hosts = wanted(&stage.lab).expect("a folder").map(|path| format!("-Hunix://{path}"));
    stage.lab.nodes[0].set_flags(&hosts.each_ref().map(String::as_str)).expect("flags");
    stage.lab.make_cluster(1).unwrap_or_else(|error| panic!("{error:#}"));
    stage.check(CHECKS);
}

fn wanted(lab: &Lab) -> Result<[String; 3]> {
    let (run, folder) = (lab.nodes[0].run_dir(), lab.nodes[0].folder()?.to_owned());
    let paths = [run.join("skein.sock"), folder.join("own/api.sock"), folder.join("api.sock")];
    Ok(paths.map(|path| path.to_string_lossy().into_owned()))
}

fn clients_of_the_node_are_answered(lab: &mut Lab) -> Result<()> {
    for path in wanted(lab)? {
        let answer = lab::http::over_unix(&PathBuf::from(path), "GET", "/_ping", &Value::Null)?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(())
}

fn no_task_reaches_one(lab: &mut Lab) -> Result<()> {
    std::os::unix::fs::symlink(lab.nodes[0].run_dir(), lab.nodes[0].folder()?.join("link"))?;
    lab.create_service(0, &["--name", "idle", "host", "sleep", "1000"])?;
    lab.wait_running(0, "idle", 1)?;
    ensure_closed(lab)
}

fn ensure_closed(lab: &Lab) -> Result<()> {
    let (node, task) = (&lab.nodes[0], lab.running(0, "idle")?);
    let task = task.first().context("no task")?;
    let mut paths = wanted(lab)?.to_vec();
    let run = node.run_dir();
    let link = node.folder()?.join("link");
    let others = [
        link.join("skein.sock"),
        run.join("hold.sock"),
        run.join(format!("tasks/{}/control.sock", task.id)),
    ];
    paths.extend(others.map(|path| path.to_string_lossy().into_owned()));
    let words: Vec<&str> = paths.iter().map(String::as_str).collect();
    let line = [["perl", "-e", CONNECT, "--"].as_slice(), &words].concat();
    let outside = node.run(10, &line)?.ok()?;
    ensure!(outside.lines().all(|line| line == "open"), "not all are there: {outside}");
    let inside = node.exec(&task.id, &line)?.ok()?;
    ensure!(inside.lines().all(|line| line == "closed"), "{paths:?}: {inside}");
    Ok(())
}

fn no_task_after_a_restart(lab: &mut Lab) -> Result<()> {
    lab.nodes[0].kill_daemon()?;
    lab.nodes[0].start()?;
    lab.wait_running(0, "idle", 1)?;
    clients_of_the_node_are_answered(lab)?;
    ensure_closed(lab)
}
