//! One node: from `swarm init` to an answer through a VIP, and back to nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::text;
use serde_json::Value;

use lab::command::run;
use lab::process;
use lab::scenario::calls::{CALLS, ask, ensure_all_answer, wait_all_answer};
use lab::scenario::services::{
    NETWORK, make_network, probe, remove_services, serve, serve_client, serve_echo,
};

use crate::stage::Stage;

const SOON: Duration = Duration::from_secs(15);
/// By then logs of two tasks more have come: each takes a second or two, delays that double aside.
const FOLLOW_SECONDS: u32 = 60;

/// Goal: the whole path works on one node. Method: real services, removed at the end.
#[test]
fn one_node_serves_and_cleans_up() {
    let mut stage = Stage::cluster("single", 1, 1);
    stage.check(&[
        ("the balancer is what this kernel has", balancer_is_chosen),
        ("a network is made", make_network),
        ("the VIP reaches every local backend", vip_reaches_backends),
        ("skein task exec runs in the sandbox", exec_enters_the_sandbox),
        ("logs come back through the API", logs_are_readable),
        ("the next task is ready while it waits, and followed logs go on with it", logs_go_on),
        ("a health check gates VIP and DNS", health_gates),
        ("a task that is killed is replaced", killed_task_is_replaced),
        ("a crash loop leaves a short history", crash_loop_is_bounded),
        ("health, readiness and metrics answer", telemetry_answers),
        ("what is not built says so", unbuilt_parts_answer_501),
        ("secrets and configs are empty lists", secrets_are_empty),
        ("all is gone after removal", removal_leaves_nothing),
    ]);
}

/// `auto`, the default. A daemon that found IPVS has had its module loaded.
fn balancer_is_chosen(lab: &mut Lab) -> Result<()> {
    let (log, has_ipvs) = (lab.nodes[0].log(), Path::new("/proc/net/ip_vs").exists());
    let chosen = if has_ipvs { "balancer=\"ipvs\"" } else { "balancer=\"nft\"" };
    ensure!(log.contains(chosen), "{chosen} was expected: {log}");
    let says_why = log.contains("IPVS cannot be used") && log.contains("ip_vs");
    ensure!(has_ipvs || says_why, "it does not say why: {log}");
    Ok(())
}

fn vip_reaches_backends(lab: &mut Lab) -> Result<()> {
    let backends = serve_echo(lab, 3)?;
    let client = &serve_client(lab)?[0];
    wait_all_answer(lab, 1, 3)?;
    for protocol in ["tcp", "udp"] {
        let told = ask(lab, client, protocol, "echo:7000", CALLS)?;
        ensure_all_answer(&told, &backends)?;
        let own = client.address(NETWORK)?.to_string();
        ensure!(told.iter().all(|told| told.client == own), "{protocol}: {told:?}, not {own}");
    }
    Ok(())
}

fn exec_enters_the_sandbox(lab: &mut Lab) -> Result<()> {
    let client = &lab.running(0, "client")?[0];
    let own = client.address(NETWORK)?.to_string();
    let shown = lab.nodes[0].exec(&client.id, &["ip", "-4", "addr", "show", "eth0"])?.ok()?;
    ensure!(shown.contains(&own), "{shown}");
    let resolvers = lab.nodes[0].exec(&client.id, &["cat", "/etc/resolv.conf"])?.ok()?;
    ensure!(resolvers.contains("nameserver 127.0.0.11"), "{resolvers}");
    let failed = lab.nodes[0].exec(&client.id, &["sh", "-c", "exit 7"])?;
    ensure!(failed.status == 7, "the command's exit status is lost: {failed}");
    Ok(())
}

fn logs_are_readable(lab: &mut Lab) -> Result<()> {
    let script = "echo to-stdout; echo to-stderr >&2; exec tail -f /dev/null";
    serve(lab, "talker", &["--stop-signal", "KILL"], &["sh", "-c", script], 1)?;
    lab.wait_for(SOON, "both lines in the logs", || {
        let output = lab.nodes[0].docker(&["service", "logs", "talker"])?;
        let stdout = output.ok()?;
        ensure!(stdout.contains("to-stdout"), "{output}");
        ensure!(output.stderr.contains("to-stderr"), "{output}");
        Ok(())
    })?;
    lab.nodes[0].skein(&["service", "logs", "talker"])?.ok()?;
    Ok(())
}

/// Its first run, and those after restart delays.
fn logs_go_on(lab: &mut Lab) -> Result<()> {
    let program = ["host", "sh", "-c", "echo run; sleep 1"];
    let flags = [["--name", "looper", "--restart-delay", "1s"].as_slice(), &program].concat();
    lab.create_service(0, &flags)?;
    lab.wait_for(SOON, "a task that is ready and waits", || {
        let tasks = lab.nodes[0].get("/tasks")?;
        let tasks = tasks.as_array().context("no list")?;
        let waits =
            |task: &Value| task["DesiredState"] == "ready" && task["Status"]["State"] == "ready";
        ensure!(tasks.iter().any(waits), "{tasks:?}");
        Ok(())
    })?;
    let before = lab.all_tasks(0, "looper")?.len() - 1;
    let url = lab.nodes[0].url();
    // The one that waited when it began, and one that was made later; `grep` ends with the last.
    let runs = before + 2;
    let follow =
        format!("docker -H {url} service logs --follow --raw looper | grep --max-count={runs} run");
    let told = run(FOLLOW_SECONDS, &["sh", "-c", &follow])?.ok()?;
    ensure!(told.matches("run").count() == runs, "{before} runs before, then: {told}");
    lab.nodes[0].docker(&["service", "rm", "looper"])?.ok()?;
    Ok(())
}

/// A task whose check fails takes no calls and has no name; once it passes, it has both.
fn health_gates(lab: &mut Lab) -> Result<()> {
    let check = ["--health-cmd", "test -e /tmp/good", "--health-interval", "100ms"];
    let patience = ["--health-start-period", "60s", "--name", "checked", "--network", NETWORK];
    let program = ["host", &probe(lab)?, "serve", "7000"];
    lab.create_service(0, &[check.as_slice(), &patience, &program].concat())?;
    let started = lab.wait_for(SOON, "the program to run, unchecked", || {
        let task = lab.all_tasks(0, "checked")?.into_iter().next().context("no task")?;
        ensure!(task.state == "starting" && task.pid > 0, "{task:?}");
        Ok(task)
    })?;
    lab.wait_for(SOON, "skein why to name the check", || {
        let told = lab.nodes[0].skein(&["why", "checked"])?.ok()?;
        let line = format!("checked.1.{} starting: node node1 has yet to start it", started.id);
        ensure!(told.contains(&line) && told.contains("(waiting for its health check"), "{told}");
        Ok(())
    })?;
    let client = &lab.running(0, "client")?[0];
    let named = lab.in_task(client, &["dig", "+short", "+tries=1", "tasks.checked"])?.ok()?;
    ensure!(!named.contains("10."), "it has a name before its check passed: {named}");
    let early = ask(lab, client, "tcp", "checked:7000", 1);
    ensure!(early.is_err(), "it is called before its check passed: {early:?}");
    lab.nodes[0].exec(&started.id, &["touch", "/tmp/good"])?.ok()?;
    lab.wait_running(0, "checked", 1)?;
    lab.wait_for(SOON, "the healthy task to answer", || {
        ask(lab, client, "tcp", "checked:7000", 1)
    })?;
    let named = lab.in_task(client, &["dig", "+short", "+tries=1", "tasks.checked"])?.ok()?;
    ensure!(named == started.address(NETWORK)?.to_string(), "{named:?}");
    lab.nodes[0].docker(&["service", "rm", "checked"])?.ok()?;
    Ok(())
}

fn killed_task_is_replaced(lab: &mut Lab) -> Result<()> {
    let before = lab.running(0, "echo")?;
    let victim = &before[0];
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(victim.pid)?),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    let after = lab.wait_for(SOON, "a new task in the slot", || {
        let after = lab.running(0, "echo")?;
        ensure!(after.len() == 3 && after.iter().all(|task| task.id != victim.id), "{after:?}");
        Ok(after)
    })?;
    let slots: Vec<_> = after.iter().map(|task| task.slot).collect();
    ensure!(slots == [1, 2, 3], "slots are {slots:?}");
    let old = lab.all_tasks(0, "echo")?.into_iter().find(|task| task.id == victim.id);
    let state = old.map(|task| task.state);
    ensure!(state.as_deref() == Some("failed"), "the killed task is {state:?}");
    let client = &lab.running(0, "client")?[0];
    lab.wait_for(SOON, "the new backend to answer", || {
        ensure_all_answer(&ask(lab, client, "tcp", "echo:7000", CALLS)?, &after)
    })
}

fn crash_loop_is_bounded(lab: &mut Lab) -> Result<()> {
    lab.nodes[0].docker(&["swarm", "update", "--task-history-limit", "2"])?.ok()?;
    let flags = ["--name", "crash", "--restart-delay", "50ms", "host", "sh", "-c", "exit 3"];
    lab.create_service(0, &flags)?;
    let mut seen = std::collections::BTreeSet::new();
    // The delay doubles: the fifth attempt comes 0.75 s after the first one's end.
    lab.wait_for(SOON, "five attempts, and a short history", || {
        let tasks = lab.all_tasks(0, "crash")?;
        let count = tasks.len();
        seen.extend(tasks.into_iter().map(|task| task.id));
        ensure!(seen.len() >= 5, "{} attempts", seen.len());
        // Docker counts the one that runs or waits among them.
        ensure!(count == 2, "{count} tasks are kept");
        Ok(())
    })?;
    let failed = lab.all_tasks(0, "crash")?;
    let told = failed.iter().any(|task| task.message.contains("non-zero exit (3)"));
    ensure!(told, "no task tells its exit status: {failed:?}");
    lab.nodes[0].docker(&["swarm", "update", "--task-history-limit", "5"])?.ok()?;
    lab.nodes[0].docker(&["service", "rm", "crash"])?.ok()?;
    Ok(())
}

fn telemetry_answers(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    node.get("/healthz")?;
    node.get("/readyz")?;
    let metrics = text(&node.get("/metrics")?);
    for counted in [
        "skein_commit_seconds_count ",
        "skein_batch_requests_count ",
        "skein_realized_seconds_count ",
        "skein_call_seconds_count{path=\"/session/report\"} ",
        "skein_pass_seconds_count{read=\"all\"} ",
        "skein_operations_total{kind=\"nft\"} ",
        "skein_operations_total{kind=\"link\"} ",
    ] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(counted));
        let value: u64 = value.with_context(|| format!("no {counted}in {metrics}"))?.parse()?;
        ensure!(value > 0, "{counted}is 0");
    }
    node.get("/skein/v1/openapi.json")?;
    Ok(())
}

fn unbuilt_parts_answer_501(lab: &mut Lab) -> Result<()> {
    for (method, path) in [("POST", "/images/create"), ("POST", "/build"), ("GET", "/exec/x/json")]
    {
        let answer = lab.nodes[0].request(method, path, &Value::Null)?;
        let message = answer.message();
        ensure!(answer.status == 501 && !message.is_empty(), "{method} {path}: {answer:?}");
    }
    Ok(())
}

fn secrets_are_empty(lab: &mut Lab) -> Result<()> {
    for path in ["/secrets", "/configs"] {
        let answer = lab.nodes[0].get(path)?;
        ensure!(answer == Value::Array(Vec::new()), "{path}: {answer}");
    }
    Ok(())
}

fn removal_leaves_nothing(lab: &mut Lab) -> Result<()> {
    let client = lab.running(0, "client")?[0].clone();
    ensure!(lab.in_task(&client, &["true"])?.status == 0, "the client's namespaces are there");
    remove_services(lab, &["echo", "client", "talker"])?;
    lab.nodes[0].docker(&["network", "rm", NETWORK])?.ok()?;
    lab.wait_for(SOON, "processes and devices to go", || {
        let namespaces = lab.nodes[0].run_dir().join("netns");
        let entries = namespaces.read_dir().into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // The ingress network stays, it is part of the cluster.
        let left: Vec<_> = names.filter(|name| name.starts_with("sandbox-")).collect();
        ensure!(left.is_empty(), "namespaces {left:?} are left");
        // The daemon and its holder.
        let processes = process::of_folder(lab.nodes[0].folder()?).len();
        ensure!(processes <= 2, "{processes} processes are left");
        Ok(())
    })
}
