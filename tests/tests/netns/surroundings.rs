//! What a service's spec says about the surroundings of its tasks, by docker's own client: its
//! root, mounts, limits and rights.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::CONVERGE_MAX;
use lab::scenario::Check;

use crate::stage::Stage;

const CHECKS: &[Check] = &[
    ("an ordinary stack runs", ordinary_stack_runs),
    (
        "what a task wrote outlives a killed daemon, and goes with the task",
        layer_goes_with_its_task,
    ),
    ("a task that takes too much memory is told of", limits_hold),
];

/// Goal: a spec means here what it means in Docker. Method: services of one node whose tasks say
/// what they find.
#[test]
fn tasks_find_what_their_spec_says() {
    Stage::cluster("surroundings", 1, 1).check(CHECKS);
}

/// A stack of five services as people write them: data in a volume, a configuration file, a
/// program that writes where it likes, a read-only one, and one with limits.
const STACK: &str = r#"
services:
  db:
    image: host
    command: ["sh", "-c", "echo kept > /srv/db/data/file && exec sleep 1000"]
    volumes: ["data:/srv/db/data"]
  web:
    image: host
    command: ["sh", "-c", "grep -q port /etc/web/conf.d/web.conf && exec sleep 1000"]
    volumes: ["FOLDER/web.conf:/etc/web/conf.d/web.conf:ro"]
  writer:
    image: host
    command:
      - sh
      - -c
      - mkdir -p /var/cache/app /opt/app && echo ok > /etc/app.conf && exec sleep 1000
  locked:
    image: host
    read_only: true
    command: ["sh", "-c", "touch /opt/x || exec sleep 1000"]
    tmpfs: ["/opt/scratch"]
  limited:
    image: host
    command: ["sleep", "1000"]
    deploy:
      resources:
        limits: { cpus: "0.5", memory: 64M, pids: 50 }
volumes:
  data: {}
"#;

fn ordinary_stack_runs(lab: &mut Lab) -> Result<()> {
    let folder = lab.nodes[0].folder()?.to_owned();
    fs::write(folder.join("web.conf"), "port 80\n")?;
    let file = folder.join("stack.yaml");
    fs::write(&file, STACK.replace("FOLDER", &folder.to_string_lossy()))?;
    let path = file.to_string_lossy().into_owned();
    lab.nodes[0].docker(&["stack", "deploy", "--detach=true", "-c", &path, "shop"])?.ok()?;
    for service in ["db", "web", "writer", "locked", "limited"] {
        lab.wait_running(0, &format!("shop_{service}"), 1)?;
    }
    for made in ["/srv/db", "/etc/web/conf.d", "/opt/app", "/etc/app.conf", "/opt/scratch"] {
        ensure!(!Path::new(made).exists(), "{made} is on the node");
    }
    Ok(())
}

fn layer_goes_with_its_task(lab: &mut Lab) -> Result<()> {
    let first = lab.wait_running(0, "shop_writer", 1)?.remove(0);
    let layer = lab.nodes[0].data_dir().join("layers").join(&first.id);
    ensure!(layer.join("upper/etc/app.conf").exists(), "no layer at {}", layer.display());
    lab.nodes[0].exec(&first.id, &["sh", "-c", "echo later > /etc/app.conf"])?.ok()?;
    lab.nodes[0].kill_daemon()?;
    lab.nodes[0].start()?;
    lab.wait_running(0, "shop_writer", 1)?;
    let told = lab.nodes[0].exec(&first.id, &["cat", "/etc/app.conf"])?.ok()?;
    ensure!(told.trim() == "later", "{told}");
    lab.nodes[0].docker(&["stack", "rm", "shop"])?.ok()?;
    lab.wait_for(CONVERGE_MAX, "no layer and no group of a task is left", || {
        let data = lab.nodes[0].data_dir();
        for left in ["layers", "work"] {
            let names: Vec<_> = fs::read_dir(data.join(left))?.flatten().collect();
            ensure!(names.is_empty(), "{left}: {names:?}");
        }
        Ok(())
    })
}

fn limits_hold(lab: &mut Lab) -> Result<()> {
    let line = ["perl", "-e", "my $text = 'x' x (300 << 20); print length $text"];
    let words = ["--name", "large", "--limit-memory", "32M", "--restart-condition", "none", "host"];
    lab.create_service(0, &[words.as_slice(), &line].concat())?;
    lab.wait_for(CONVERGE_MAX, "the task to be killed", || {
        let tasks = lab.all_tasks(0, "large")?;
        let task = tasks.first().context("no task")?;
        let told = task.state == "failed" && task.message.contains("137");
        ensure!(told, "{} {}", task.state, task.message);
        Ok(())
    })?;
    lab.nodes[0].docker(&["service", "rm", "large"])?.ok()?;
    Ok(())
}
