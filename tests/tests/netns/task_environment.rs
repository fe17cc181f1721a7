//! The environment of tasks as their service's spec defines it, set with the docker client: root,
//! mounts, limits and rights.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::CONVERGE_MAX;
use lab::scenario::Check;
use serde_json::{Value, json};

use crate::stage::Stage;

const CHECKS: &[Check] = &[
    ("an ordinary stack runs", ordinary_stack_runs),
    (
        "what a task wrote outlives a killed daemon, and goes with the task",
        layer_goes_with_its_task,
    ),
    ("a task that takes too much memory is reported", limits_hold),
    ("a task has the rights of its spec", rights_are_the_specs),
    ("a subpath is mounted, a volume's later mounts show", mounts_are_the_specs),
    ("what is not known is refused by name", unknown_names_are_refused),
    ("what this node does not have rejects the task by name", lacking_node_rejects),
];

/// Goal: a spec means here what it means in Docker. Method: services of one node whose tasks say
/// what they find.
#[test]
fn tasks_find_what_their_spec_says() {
    Stage::cluster("environment", 1, 1).check(CHECKS);
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

/// What a task says of its rights, in one line.
const RIGHTS: &str = "echo $(grep CapBnd /proc/self/status | cut -f2) $(ulimit -Sn):$(ulimit -Hn) \
    $(cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni) \
    $(readlink /proc/self/fd/0 | cut -c1-5); exec sleep 1000";

fn rights_are_the_specs(lab: &mut Lab) -> Result<()> {
    let words = [
        ["--name", "rights", "--cap-add", "NET_ADMIN", "--cap-drop", "CAP_CHOWN"].as_slice(),
        &["--ulimit", "nofile=512:1024", "--sysctl", "net.core.somaxconn=77"],
        &["--sysctl", "kernel.shmmni=99", "host", "bash", "-c", RIGHTS],
    ];
    lab.create_service(0, &words.concat())?;
    lab.wait_running(0, "rights", 1)?;
    wait_log(lab, "rights", "00000000a80435fa 512:1024 77 99 /dev/")?;
    let task = lab.running(0, "rights")?.remove(0);
    let line = ["bash", "-c", "ip link set lo mtu 9000 && ulimit -Hn"];
    let told = lab.nodes[0].exec(&task.id, &line)?.ok()?;
    ensure!(told.trim() == "1024", "{told}");
    lab.nodes[0].docker(&["service", "rm", "rights"])?.ok()?;
    Ok(())
}

/// Waits until a service's log has a line.
fn wait_log(lab: &Lab, service: &str, line: &str) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, &format!("{line:?} in the log of {service}"), || {
        let log = lab.nodes[0].docker(&["service", "logs", "--raw", service])?.ok()?;
        ensure!(log.lines().any(|found| found == line), "{log}");
        Ok(())
    })
}

fn service(name: &str, container: &Value) -> Value {
    let mut spec = json!({ "Image": "host" });
    for (key, value) in container.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let restart = json!({ "Condition": "none" });
    json!({ "Name": name, "TaskTemplate": { "ContainerSpec": spec, "RestartPolicy": restart } })
}

/// By the API: the client asks for a later version of it than 1.44 before it sends a subpath.
fn mounts_are_the_specs(lab: &mut Lab) -> Result<()> {
    let volume = lab.nodes[0].data_dir().join("volumes/tree");
    fs::create_dir_all(volume.join("branch"))?;
    fs::write(volume.join("branch/leaf"), "")?;
    let made = lab.nodes[0].folder()?.join("made/here");
    let container = json!({
        "Command": ["sh", "-c", "ls /leaves /made; echo end; cat; echo input ended"],
        "OpenStdin": true,
        "Mounts": [
            { "Type": "volume", "Source": "tree", "Target": "/leaves",
              "VolumeOptions": { "Subpath": "branch" } },
            { "Type": "bind", "Source": made, "Target": "/made",
              "BindOptions": { "CreateMountpoint": true, "Propagation": "rprivate" } },
        ],
    });
    lab.nodes[0].post("/services/create", &service("mounts", &container))?;
    wait_log(lab, "mounts", "leaf")?;
    wait_log(lab, "mounts", "end")?;
    ensure!(made.is_dir(), "{} was not made", made.display());
    let task = lab.wait_running(0, "mounts", 1)?.remove(0);
    ensure!(task.state == "running", "its standard input ended: {task:?}");
    lab.nodes[0].docker(&["service", "rm", "mounts"])?.ok()?;
    Ok(())
}

fn unknown_names_are_refused(lab: &mut Lab) -> Result<()> {
    let mount = |kind: &str, options: Value| {
        json!({ "Mounts": [{ "Type": kind, "Source": "/v", "Target": "/m", options["of"].as_str()
            .unwrap_or_default(): options["is"] }] })
    };
    let bind = |options: Value| mount("bind", json!({ "of": "BindOptions", "is": options }));
    let volume = |options: Value| mount("volume", json!({ "of": "VolumeOptions", "is": options }));
    let nfs = json!({ "DriverConfig": { "Name": "local", "Options": { "type": "nfs" } } });
    let table = [
        (json!({ "CapabilityAdd": ["FLY"] }), "FLY"),
        (json!({ "CapabilityDrop": ["CAP_FLY"] }), "CAP_FLY"),
        (json!({ "Sysctls": { "vm.swappiness": "1" } }), "vm.swappiness"),
        (json!({ "Sysctls": { "net.ipv4.tcp_timestamps": "0" } }), "net.ipv4.tcp_timestamps"),
        (json!({ "Ulimits": [{ "Name": "files", "Soft": 1, "Hard": 1 }] }), "files"),
        (json!({ "Ulimits": [{ "Name": "nofile", "Soft": 2, "Hard": 1 }] }), "nofile"),
        (bind(json!({ "Propagation": "wide" })), "wide"),
        (volume(json!({ "Subpath": "../other" })), "../other"),
        (volume(json!({ "DriverConfig": { "Name": "nfs" } })), "DriverConfig.Name"),
        (volume(nfs), "DriverConfig.Options"),
        (json!({ "Privileges": { "Seccomp": { "Mode": "custom", "Profile": "e30=" } } }), "custom"),
        (json!({ "TTY": true }), "TTY"),
    ];
    for (container, told) in table {
        let spec = service("refused", &container);
        let answer = lab.nodes[0].request("POST", "/services/create", &spec)?;
        let message = answer.text();
        let refused = [400, 501].contains(&answer.status) && message.contains(told);
        ensure!(refused, "{container}: {answer:?}");
    }
    Ok(())
}

fn lacking_node_rejects(lab: &mut Lab) -> Result<()> {
    let folder = lab.nodes[0].folder()?.to_owned();
    let line = json!(["true"]);
    let shared = json!({ "Command": line, "Mounts": [{ "Type": "bind", "Source": folder,
        "Target": "/m", "BindOptions": { "Propagation": "rshared" } }] });
    let missing = json!({ "Command": line, "Mounts": [{ "Type": "volume", "Source": "tree",
        "Target": "/m", "VolumeOptions": { "Subpath": "root" } }] });
    let unknown = json!({ "Command": line, "Sysctls": { "net.core.no_such_thing": "1" } });
    for (name, container, told) in [
        ("shared", shared, "which is not a shared mount"),
        ("missing", missing, "subpath \"root\" of volume tree does not exist"),
        ("unknown", unknown, "set sysctl net.core.no_such_thing"),
    ] {
        lab.nodes[0].post("/services/create", &service(name, &container))?;
        lab.wait_for(CONVERGE_MAX, "the task to tell what is wrong", || {
            let tasks = lab.all_tasks(0, name)?;
            let task = tasks.first().context("no task")?;
            let told = ["failed", "rejected"].contains(&task.state.as_str())
                && task.message.contains(told);
            ensure!(told, "{} {}", task.state, task.message);
            Ok(())
        })?;
        lab.nodes[0].docker(&["service", "rm", name])?.ok()?;
    }
    Ok(())
}
