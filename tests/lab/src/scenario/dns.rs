//! Names inside a sandbox, each form of them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use super::Scenario;
use super::background::{Background, until_input_ends};
use super::calls::ask;
use super::services::{NETWORK, hostname, make_network, probe, serve, serve_client};
use crate::Lab;
use crate::cluster::{CONVERGE_MAX, Task};

/// Goal: every form of a name resolves, and only where it may. Method: dig in a real sandbox.
pub const SCENARIO: Scenario = Scenario {
    name: "dns",
    nodes: 2,
    managers: 1,
    checks: &[
        ("networks are made", make_networks),
        ("services start", start),
        ("a service's name is its VIP", service_name),
        ("tasks.<service> is every task", tasks_name),
        ("a task's own names are its address", task_names),
        ("an alias is the VIP", alias),
        ("<name>.<network> is the VIP", network_suffix),
        ("a service without VIP is its tasks", dnsrr),
        ("an address has a name", reverse),
        ("a known name without such a record is empty", empty_not_forwarded),
        ("names of other networks stay unknown", other_network),
        ("TCP answers too", over_tcp),
        ("a task may serve port 53 itself", own_port_53),
        ("names follow scaling", follow_scaling),
        ("other names are asked of the host's resolvers", forwarding),
    ],
};

fn make_networks(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", "apart"])?.ok()?;
    Ok(())
}

fn start(lab: &mut Lab) -> Result<()> {
    let probe = probe(lab)?;
    let program = [probe.as_str(), "serve", "7000"];
    let words = ["--name", "echo", "--network", "name=vote,alias=mirror", "--replicas", "2"];
    lab.create_service(0, &[&words, ["host"].as_slice(), &program].concat())?;
    lab.wait_running(0, "echo", 2)?;
    serve(lab, "round", &["--replicas", "2", "--endpoint-mode", "dnsrr"], &program, 2)?;
    let apart = ["--name", "hidden", "--network", "apart", "host"];
    lab.create_service(0, &[&apart, program.as_slice()].concat())?;
    lab.wait_running(0, "hidden", 1)?;
    serve_client(lab)?;
    Ok(())
}

/// What dig answers from a task, one record a line.
fn dig(lab: &Lab, from: &Task, words: &[&str]) -> Result<BTreeSet<String>> {
    let mut line = vec!["dig", "+short", "+tries=1", "+time=3"];
    line.extend(words);
    let text = lab.in_task(from, &line)?.ok()?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Asks from a task on every node, and expects these addresses.
fn expect(lab: &Lab, words: &[&str], expected: &[String]) -> Result<()> {
    let expected: BTreeSet<String> = expected.iter().cloned().collect();
    for client in lab.running(0, "client")? {
        lab.wait_for(CONVERGE_MAX, "the name", || {
            let found = dig(lab, &client, words)?;
            ensure!(found == expected, "{words:?} is {found:?}, not {expected:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn vip(lab: &Lab) -> Result<Vec<String>> {
    Ok(vec![lab.vip(0, "echo", NETWORK)?.to_string()])
}

fn addresses(lab: &Lab, service: &str) -> Result<Vec<String>> {
    let tasks = lab.running(0, service)?;
    tasks.iter().map(|task| Ok(task.address(NETWORK)?.to_string())).collect()
}

fn service_name(lab: &mut Lab) -> Result<()> {
    expect(lab, &["echo"], &vip(lab)?)?;
    // Names are compared without regard to case (RFC 4343).
    expect(lab, &["ECHO"], &vip(lab)?)
}

fn tasks_name(lab: &mut Lab) -> Result<()> {
    expect(lab, &["tasks.echo"], &addresses(lab, "echo")?)
}

fn task_names(lab: &mut Lab) -> Result<()> {
    for task in lab.running(0, "echo")? {
        let address = [task.address(NETWORK)?.to_string()];
        expect(lab, &[&format!("echo.{}.{}", task.slot, task.id)], &address)?;
        expect(lab, &[&format!("task{}.echo", task.slot)], &address)?;
    }
    Ok(())
}

fn alias(lab: &mut Lab) -> Result<()> {
    expect(lab, &["mirror"], &vip(lab)?)
}

fn network_suffix(lab: &mut Lab) -> Result<()> {
    expect(lab, &["echo.vote"], &vip(lab)?)
}

fn dnsrr(lab: &mut Lab) -> Result<()> {
    expect(lab, &["round"], &addresses(lab, "round")?)
}

fn reverse(lab: &mut Lab) -> Result<()> {
    let client = &lab.running(0, "client")?[0];
    for task in lab.running(0, "echo")? {
        let address = task.address(NETWORK)?.to_string();
        let names = dig(lab, client, &["-x", &address])?;
        let expected = format!("echo.{}.{}", task.slot, task.id);
        ensure!(names.iter().any(|name| name.starts_with(&expected)), "{address} is {names:?}");
    }
    Ok(())
}

fn empty_not_forwarded(lab: &mut Lab) -> Result<()> {
    let client = &lab.running(0, "client")?[0];
    let answer = lab.in_task(client, &["dig", "+tries=1", "+time=3", "echo", "AAAA"])?.ok()?;
    ensure!(answer.contains("status: NOERROR") && answer.contains("ANSWER: 0"), "{answer}");
    Ok(())
}

fn other_network(lab: &mut Lab) -> Result<()> {
    let client = &lab.running(0, "client")?[0];
    let answer = lab.in_task(client, &["dig", "+short", "+tries=1", "+time=3", "hidden"])?;
    ensure!(!answer.stdout.contains("10."), "a name leaked: {answer}");
    let hidden = &lab.running(0, "hidden")?[0];
    let own = dig(lab, hidden, &["hidden"])?;
    ensure!(own.len() == 1, "its own network does not know it: {own:?}");
    let across = lab.in_task(hidden, &["dig", "+short", "+tries=1", "+time=3", "echo"])?;
    ensure!(!across.stdout.contains("10."), "a name leaked: {across}");
    Ok(())
}

fn over_tcp(lab: &mut Lab) -> Result<()> {
    expect(lab, &["+tcp", "tasks.echo"], &addresses(lab, "echo")?)
}

fn own_port_53(lab: &mut Lab) -> Result<()> {
    let server = &serve(lab, "resolver", &[], &[&probe(lab)?, "serve", "53"], 1)?[0];
    let client = &lab.running(0, "client")?[0];
    lab.wait_for(CONVERGE_MAX, "the task on port 53", || {
        let told = ask(lab, client, "udp", "resolver:53", 1)?;
        let first = told.first().context("an answer")?;
        ensure!(first.server == hostname(server), "{first:?}");
        Ok(())
    })?;
    let inside = dig(lab, server, &["echo"])?;
    ensure!(inside == vip(lab)?.into_iter().collect(), "in its own sandbox: {inside:?}");
    Ok(())
}

fn follow_scaling(lab: &mut Lab) -> Result<()> {
    for replicas in [3, 1] {
        let scale = format!("echo={replicas}");
        lab.nodes[0].docker(&["service", "scale", "-d", &scale])?.ok()?;
        lab.wait_running(0, "echo", replicas)?;
        expect(lab, &["tasks.echo"], &addresses(lab, "echo")?)?;
    }
    Ok(())
}

fn forwarding(lab: &mut Lab) -> Result<()> {
    let unanswered = lab.running(0, "client")?.remove(0);
    let before = lab.in_task(&unanswered, &["dig", "+tries=1", "+time=10", "far.example"])?.ok()?;
    ensure!(before.contains("status: SERVFAIL"), "nobody can know: {before}");
    // Every node has the outside host as its resolver.
    let address = format!("{}:53", lab.client_address());
    let server = [&lab.client_program("skein-lab-probe")?, "names", &address];
    let outside = Background::start(&lab.client_line(&until_input_ends("TERM", &server)))?;
    expect(lab, &["www.example"], &["203.0.113.9".to_owned()])?;
    expect(lab, &["+tcp", "www.example"], &["203.0.113.9".to_owned()])?;
    // A name of the cluster is never asked outside, though it would be answered there.
    expect(lab, &["echo"], &vip(lab)?)?;
    expect(lab, &["echo", "AAAA"], &[])?;
    outside.finish()?;
    Ok(())
}
