//! Docker's own client against Skein: each command, with its output.

use std::fs::File;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::command::Output;
use serde_json::Value;

use lab::scenario::services::probe;

use crate::stage::Stage;

/// Goal: hands that know docker need nothing new. Method: the real client's commands.
#[test]
fn dockers_client_works_unchanged() {
    let mut stage = Stage::empty("docker", 2);
    stage.check(&[
        ("swarm init, join-token and join", swarm),
        ("version and info", version_and_info),
        ("node ls, inspect and update", nodes),
        ("network create, ls, inspect and rm", networks),
        ("service create waits until tasks run", service_create),
        ("service ls, ps and inspect", service_views),
        ("service scale and update", service_changes),
        ("service logs", service_logs),
        ("stack deploy, services and rm", stacks),
        ("service rm", service_rm),
        ("skein's own client shows the same", skein_client),
        ("events tell what happened", events),
        ("swarm leave", leave),
    ]);
}

fn docker(lab: &Lab, line: &str) -> Result<Output> {
    lab.nodes[0].docker(&line.split(' ').collect::<Vec<_>>())
}

/// The output of a command, which must hold all these words.
fn shows(lab: &Lab, line: &str, words: &[&str]) -> Result<String> {
    let text = docker(lab, line)?.ok()?;
    for word in words {
        ensure!(text.contains(word), "`docker {line}` does not show {word:?}:\n{text}");
    }
    Ok(text)
}

fn json(lab: &Lab, line: &str) -> Result<Value> {
    let text = docker(lab, line)?.ok()?;
    serde_json::from_str(&text).with_context(|| format!("reading {text}"))
}

fn swarm(lab: &mut Lab) -> Result<()> {
    lab.start_all()?;
    let before = docker(lab, "node ls")?.refused()?;
    ensure!(before.contains("This node is not a swarm manager"), "{before}");
    let address = lab.nodes[0].address;
    shows(
        lab,
        &format!("swarm init --advertise-addr {address}"),
        &["Swarm initialized: current node (", ") is now a manager.", "docker swarm join --token"],
    )?;
    let again = docker(lab, "swarm init")?.refused()?;
    ensure!(again.contains("already part of a swarm"), "{again}");
    shows(lab, "swarm join-token worker", &["SWMTKN-1-", &format!("{address}:2377")])?;
    shows(lab, "swarm join-token manager", &["SWMTKN-1-"])?;
    let token = shows(lab, "swarm join-token -q worker", &["SWMTKN-1-"])?;
    let manager = format!("{address}:2377");
    let joined = lab.nodes[1].docker(&["swarm", "join", "--token", &token, &manager])?.ok()?;
    ensure!(joined == "This node joined a swarm as a worker.", "{joined}");
    lab.wait_nodes_ready(2)
}

fn version_and_info(lab: &mut Lab) -> Result<()> {
    shows(lab, "version", &["Server:", "1.44"])?;
    shows(lab, "info", &["Swarm: active", "Is Manager: true", "Managers: 1", "Nodes: 2"])?;
    Ok(())
}

fn nodes(lab: &mut Lab) -> Result<()> {
    let listed = shows(lab, "node ls", &["node1", "node2", "Ready", "Active", "Leader"])?;
    ensure!(listed.lines().count() == 3, "{listed}");
    let inspected = json(lab, "node inspect node2")?;
    ensure!(inspected[0]["Spec"]["Role"] == "worker", "{inspected}");
    ensure!(inspected[0]["Status"]["State"] == "ready", "{inspected}");
    shows(lab, "node inspect --pretty self", &["Hostname:", "node1"])?;
    docker(lab, "node update --label-add disk=ssd --availability pause node2")?.ok()?;
    let inspected = json(lab, "node inspect node2")?;
    ensure!(inspected[0]["Spec"]["Labels"]["disk"] == "ssd", "{inspected}");
    ensure!(inspected[0]["Spec"]["Availability"] == "pause", "{inspected}");
    docker(lab, "node update --availability active --label-rm disk node2")?.ok()?;
    Ok(())
}

fn networks(lab: &mut Lab) -> Result<()> {
    docker(lab, "network create -d overlay --subnet 10.77.0.0/24 --label team=a front")?.ok()?;
    docker(lab, "network create -d overlay spare")?.ok()?;
    shows(lab, "network ls", &["front", "spare", "ingress", "overlay", "swarm"])?;
    let inspected = json(lab, "network inspect front")?;
    ensure!(inspected[0]["IPAM"]["Config"][0]["Subnet"] == "10.77.0.0/24", "{inspected}");
    ensure!(inspected[0]["Labels"]["team"] == "a", "{inspected}");
    let filtered = shows(lab, "network ls --filter label=team=a -q", &[])?;
    ensure!(filtered.lines().count() == 1, "{filtered}");
    shows(lab, "network rm spare", &["spare"])?;
    let gone = docker(lab, "network inspect spare")?;
    ensure!(gone.status == 1, "{gone}");
    Ok(())
}

fn service_create(lab: &mut Lab) -> Result<()> {
    // Not detached: the client polls until the service has converged.
    let line = format!(
        "service create --quiet --name web --network front -p 8080:80 --replicas 2 host {} \
         serve 80",
        probe(lab)?
    );
    let id = docker(lab, &line)?.ok()?;
    ensure!(id.len() == 25, "{id:?} is no id");
    ensure!(lab.running(0, "web")?.len() == 2, "the client did not wait");
    Ok(())
}

fn service_views(lab: &mut Lab) -> Result<()> {
    shows(lab, "service ls", &["web", "replicated", "2/2", "host:latest", "*:8080->80/tcp"])?;
    let listed = shows(lab, "service ps web", &["web.1", "web.2", "Running", "node"])?;
    ensure!(listed.lines().count() == 3, "{listed}");
    let inspected = json(lab, "service inspect web")?;
    ensure!(inspected[0]["Spec"]["Mode"]["Replicated"]["Replicas"] == 2, "{inspected}");
    shows(lab, "service inspect --pretty web", &["Name:", "web", "Replicas:", "Networks: front"])?;
    shows(lab, "node ps node1", &["web."])?;
    let verbose = docker(lab, "network inspect -v front")?.ok()?;
    ensure!(verbose.contains("\"web\""), "{verbose}");
    Ok(())
}

fn service_changes(lab: &mut Lab) -> Result<()> {
    docker(lab, "service scale web=3")?.ok()?;
    ensure!(lab.running(0, "web")?.len() == 3, "the client did not wait");
    docker(lab, "service update --quiet --env-add A=b --label-add tier=1 web")?.ok()?;
    let inspected = json(lab, "service inspect web")?;
    ensure!(
        inspected[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"][0] == "A=b",
        "{inspected}"
    );
    ensure!(inspected[0]["UpdateStatus"]["State"] == "completed", "{inspected}");
    shows(lab, "service ps web", &["Shutdown"])?;
    shows(lab, "service ls --filter label=tier=1", &["web"])?;
    Ok(())
}

fn service_logs(lab: &mut Lab) -> Result<()> {
    let words = ["--name", "talker", "--mode", "global", "host", "sh", "-c"];
    let script = ["echo hello from $HOSTNAME; exec tail -f /dev/null"];
    lab.create_service(0, &[words.as_slice(), &script].concat())?;
    lab.wait_running(0, "talker", 2)?;
    lab.wait_for(lab::cluster::CONVERGE_MAX, "lines of both tasks", || {
        let text = shows(lab, "service logs talker", &["hello from", "@node1", "@node2"])?;
        ensure!(text.lines().count() == 2, "{text}");
        Ok(())
    })
}

fn stacks(lab: &mut Lab) -> Result<()> {
    let file = lab.nodes[0].folder()?.join("stack.yaml");
    let probe = probe(lab)?;
    let text = format!(
        "version: '3.8'\nservices:\n  api:\n    image: host\n\
         \x20   command: ['{probe}', serve, '80']\n\
         \x20   networks: [inner]\n    deploy:\n      replicas: 2\nnetworks:\n  inner: {{}}\n"
    );
    std::fs::write(&file, text)?;
    let path = file.to_string_lossy();
    lab.nodes[0].docker(&["stack", "deploy", "--detach=true", "-c", &path, "shop"])?.ok()?;
    lab.wait_running(0, "shop_api", 2)?;
    shows(lab, "stack ls", &["shop"])?;
    shows(lab, "stack services shop", &["shop_api", "2/2"])?;
    shows(lab, "stack ps shop", &["shop_api.1", "Running"])?;
    docker(lab, "stack rm shop")?.ok()?;
    let left = shows(lab, "network ls", &[])?;
    ensure!(!left.contains("shop_inner"), "{left}");
    Ok(())
}

fn service_rm(lab: &mut Lab) -> Result<()> {
    shows(lab, "service rm web talker", &["web", "talker"])?;
    let listed = shows(lab, "service ls -q", &[])?;
    ensure!(listed.is_empty(), "{listed}");
    // As `stack rm` does it: the network goes although tasks are still stopping.
    docker(lab, "network rm front")?.ok()?;
    Ok(())
}

fn skein_client(lab: &mut Lab) -> Result<()> {
    let skein = |line: &str| lab.nodes[0].skein(&line.split(' ').collect::<Vec<_>>());
    skein("network create -d overlay back")?.ok()?;
    let program = probe(lab)?;
    skein(&format!("service create -d --name api --network back host {program} serve 80"))?.ok()?;
    lab.wait_running(0, "api", 1)?;
    for (line, word) in [
        ("node ls", "node2"),
        ("network ls", "back"),
        ("service ls", "api"),
        ("service ps api", "api.1"),
        ("swarm join-token -q worker", "SWMTKN-1-"),
    ] {
        let text = skein(line)?.ok()?;
        ensure!(text.contains(word), "`skein {line}` does not show {word:?}:\n{text}");
    }
    let listed = skein("service ls --format json")?.ok()?;
    let listed: Value = serde_json::from_str(&listed).context("one service is one JSON line")?;
    ensure!(listed["Spec"]["Name"] == "api", "{listed}");
    let usage = skein("service frobnicate")?;
    ensure!(usage.status == 2, "wrong usage is status 2: {usage}");
    skein("service rm api")?.ok()?;
    skein("network rm back")?.ok()?;
    Ok(())
}

fn events(lab: &mut Lab) -> Result<()> {
    let file = lab.nodes[0].folder()?.join("events");
    let mut child = Command::new("docker")
        .args(["-H", &lab.nodes[0].url(), "events", "--filter", "type=service"])
        .stdout(File::create(&file)?)
        .spawn()?;
    // Until the stream is open nothing is told: create and remove until something is.
    let told = lab.wait_for(lab::cluster::CONVERGE_MAX, "events of a service", || {
        lab.create_service(0, &["--name", "brief", "--replicas", "0", "host", "true"])?;
        docker(lab, "service rm brief")?.ok()?;
        let text = std::fs::read_to_string(&file)?;
        let both = text.contains("service create") && text.contains("service remove");
        ensure!(both && text.contains("name=brief"), "{text:?}");
        Ok(())
    });
    child.kill()?;
    child.wait()?;
    told
}

fn leave(lab: &mut Lab) -> Result<()> {
    let left = lab.nodes[1].docker(&["swarm", "leave"])?.ok()?;
    ensure!(left == "Node left the swarm.", "{left}");
    let refused = docker(lab, "swarm leave")?.refused()?;
    ensure!(refused.contains("You are attempting to leave the swarm"), "{refused}");
    docker(lab, "swarm leave --force")?.ok()?;
    shows(lab, "info", &["Swarm: inactive"])?;
    Ok(())
}
