//! The demo: nodes on this machine, redis behind a VIP, and a web front on every node.
//!
//! `skein-demo up [--nodes N] [--managers M] [--topology KIND]` starts it and shows it, `status`
//! shows it again, `down` removes it. It is an ordinary lab: inject faults with `skein-lab --name
//! skein-demo …`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lab::arguments::{self, Action, Size};
use lab::cluster::{CONVERGE_MAX, Task, text as text_of};
use lab::guard;
use lab::kinds::folder_of;
use lab::topology::Kind;
use lab::wait::{now, wait_for};
use lab::{Lab, sweep, target_folder};
use nix::unistd::Uid;
use serde_json::Value;

const NAME: &str = "skein-demo";
const NETWORK: &str = "vote";
const FRONT_PORT: u16 = 3000;
/// Calls that the worker has to have made before the spread is shown.
const CALLS_SHOWN: u64 = 100;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let Some(["up", options @ ..]) = guard::work(&words) {
        return end(read_options(options).and_then(|size| up(&size)));
    }
    let result = match words.as_slice() {
        ["up", options @ ..] => match read_options(options) {
            Ok(_understood) => {
                let made = may_make().and_then(|()| guard::run("skein-demo", NAME, &words));
                return made.unwrap_or_else(|error| end(Err(error)));
            }
            Err(error) => return usage(&format!("{error:#}")),
        },
        ["status"] => attach().and_then(|lab| {
            let shown = show(&lab);
            lab.keep();
            shown
        }),
        ["down"] => down(),
        other => return usage(&format!("{:?} is not understood", other.join(" "))),
    };
    end(result)
}

fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skein-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    let kinds = Kind::ALL.map(Kind::word).join("|");
    let usage = format!("up [--nodes N] [--managers M] [--topology {kinds}] | status | down");
    let _ = writeln!(std::io::stderr(), "skein-demo: {problem}; usage: skein-demo {usage}");
    ExitCode::from(2)
}

/// What the cluster is to be: the same words as those of `skein-lab up`.
fn read_options(words: &[&str]) -> Result<Size> {
    match arguments::read(&[&["up", "--name", NAME], words].concat())?.action {
        Action::Up(size) if size.managers > 0 => Ok(size),
        _ => bail!("the demo is a cluster: {:?} is not understood", words.join(" ")),
    }
}

fn say(text: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn title(text: &str) {
    say(&format!("\n== {text}"));
}

fn may_make() -> Result<()> {
    ensure!(Uid::effective().is_root(), "the demo needs root: run it as root, as by sudo");
    ensure!(
        !folder_of(NAME).exists(),
        "the demo is up already: `skein-demo status` shows it, `make demo-down` stops it"
    );
    Ok(())
}

fn up(size: &Size) -> Result<()> {
    let folder = folder_of(NAME);
    let Size { nodes, kind, managers } = *size;
    let what = format!("make {nodes} machines ({kind})");
    let mut lab = step(&what, || Lab::make(kind, NAME, &folder, nodes))?;
    let result = bring_up(&mut lab, managers).and_then(|()| show(&lab));
    let (farewell, further) = (farewell(&lab), further(&lab));
    // A demo that failed half-way is left for a look too: `down` removes it.
    lab.keep();
    result.map_err(|error| anyhow!("the demo did not come up: {error:#}\n{further}"))?;
    title("It all keeps running. Look around:");
    say(&farewell);
    Ok(())
}

/// Does one step of many and says what it is and how long it took.
fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begin = now();
    say(&format!("== {what}"));
    let done = work()?;
    say(&format!("== done in {:.1?}: {what}", begin.elapsed()));
    Ok(done)
}

fn bring_up(lab: &mut Lab, managers: usize) -> Result<()> {
    step("start a daemon on each", || lab.start_all())?;
    let what = format!("make a cluster of them, {managers} of them managers");
    step(&what, || lab.make_cluster(managers))?;
    step("start redis, a worker and a web front", || serve(lab))
}

/// What to do where the demo failed.
fn further(lab: &Lab) -> String {
    let (own, url) = (shown_program("skein"), lab.nodes[0].url());
    let tool = shown_program("skein-lab");
    format!(
        "Look further with `{own} -H {url} doctor` and `{tool} logs node1 --name {NAME}` (all its \
         files are in {}), then run `make demo-down`",
        lab.folder().display()
    )
}

/// A program of this build, as it is to be typed.
fn shown_program(name: &str) -> String {
    let path = target_folder().map(|folder| folder.join(name).to_string_lossy().into_owned());
    let path = path.unwrap_or_else(|_| name.to_owned());
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

fn attach() -> Result<Lab> {
    let folder = folder_of(NAME);
    ensure!(folder.exists(), "the demo is not up: run `make demo`");
    Lab::attach(&folder)
}

fn down() -> Result<()> {
    sweep(NAME, &folder_of(NAME))?;
    say("The demo is gone: its machines, their processes and files.");
    Ok(())
}

fn serve(lab: &Lab) -> Result<()> {
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", NETWORK])?.ok()?;
    let (worker, vote) = (lab.program("skein-demo-worker")?, lab.program("skein-demo-vote")?);
    let redis = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""];
    let common = ["--network", NETWORK, "--name"];
    let create = |words: &[&[&str]]| lab.create_service(0, &words.concat());
    create(&[&common, &["redis", "--replicas", "3", "host"], &redis])?;
    lab.wait_running(0, "redis", 3)?;
    create(&[&common, &["worker", "host", &worker, "redis:6379"]])?;
    let publish = format!("{FRONT_PORT}:80");
    create(&[&common, &["vote", "-p", &publish, "host", &vote]])?;
    lab.wait_running(0, "worker", 1)?;
    lab.wait_running(0, "vote", 1)?;
    Ok(())
}

fn show(lab: &Lab) -> Result<()> {
    title("The nodes (docker node ls)");
    say(&lab.nodes[0].docker(&["node", "ls"])?.ok()?);
    title("The tasks");
    say(&tasks_table(lab)?);
    let worker = lab.wait_running(0, "worker", 1)?.remove(0);
    title("What the worker resolves in its sandbox");
    say(&names(lab, &worker)?);
    title("Which replica answered the worker's calls to the VIP");
    say(&spread(lab)?);
    title("The path of one packet (skein explain)");
    let words = ["explain", &worker.id, "redis", "6379"];
    say(&lab.nodes[worker.node].skein(&words)?.ok()?);
    title(&format!("A vote through port {FRONT_PORT} of each node, from outside"));
    say(&votes(lab)?);
    Ok(())
}

fn tasks_table(lab: &Lab) -> Result<String> {
    let mut table =
        format!("{:<10} {:<7} {:<9} {:<13} {}", "TASK", "NODE", "STATE", "ADDRESS", "PID");
    for service in ["redis", "worker", "vote"] {
        for task in lab.running(0, service)? {
            let (slot, node, address) = (task.slot, task.node + 1, task.address(NETWORK)?);
            let name = format!("{service}.{slot}");
            let place = format!("node{node}");
            let state = &task.state;
            write!(table, "\n{name:<10} {place:<7} {state:<9} {address:<13} {}", task.pid)?;
        }
    }
    Ok(table)
}

fn names(lab: &Lab, worker: &Task) -> Result<String> {
    let mut text = String::new();
    for name in ["redis", "tasks.redis"] {
        let words = ["getent", "ahostsv4", name];
        let output = lab.nodes[worker.node].exec(&worker.id, &words)?.ok()?;
        let mut addresses: Vec<_> =
            output.lines().filter_map(|line| line.split(' ').next()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let kind = if name == "redis" { "the VIP" } else { "the tasks" };
        writeln!(text, "{name:<12} {}  ({kind})", addresses.join(" "))?;
    }
    Ok(text.trim_end().to_owned())
}

/// Reads the worker's newest report: calls by replica address.
fn read_report(line: &str) -> BTreeMap<String, u64> {
    let words = line.split(' ').filter_map(|word| word.split_once('='));
    let counted = words.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?)));
    counted.collect()
}

fn spread(lab: &Lab) -> Result<String> {
    let replicas = lab.running(0, "redis")?;
    let report = wait_for(CONVERGE_MAX, "the worker's report", || {
        let words = ["service", "logs", "--raw", "--tail", "1", "worker"];
        let logs = lab.nodes[0].docker(&words)?.ok()?;
        let report = read_report(logs.lines().last().unwrap_or_default());
        let calls: u64 = report.values().sum();
        ensure!(calls >= CALLS_SHOWN, "{calls} calls so far");
        Ok(report)
    })?;
    let total: u64 = report.values().sum();
    let mut text = String::new();
    for task in &replicas {
        let address = task.address(NETWORK)?.to_string();
        let calls = report.get(&address).copied().unwrap_or_default();
        let (slot, node, percent) = (task.slot, task.node + 1, calls * 100 / total);
        let bar = "#".repeat(usize::try_from(percent / 2)?);
        writeln!(
            text,
            "redis.{slot} on node{node} {address:<13} {calls:>5}  {percent:>2} % {bar}"
        )?;
    }
    let errors = report.get("errors").copied().unwrap_or_default();
    write!(text, "failed calls: {errors}")?;
    Ok(text)
}

fn votes(lab: &Lab) -> Result<String> {
    let mut text = format!("calling from {}\n", lab.client_address());
    for (index, node) in lab.nodes.iter().enumerate() {
        let choice = if index == 1 { "dogs" } else { "cats" };
        let url = format!("http://{}:{FRONT_PORT}/vote?for={choice}", node.address);
        let answer = wait_for(CONVERGE_MAX, "the front to answer", || {
            lab.client_run(10, &["curl", "-sSf", "--max-time", "5", &url])?.ok()
        })?;
        let answer: Value = serde_json::from_str(&answer).context("reading the front's answer")?;
        let (client, votes) = (text_of(&answer["client"]), &answer["votes"]);
        writeln!(text, "{url}: votes {votes}, the task saw client {client}")?;
        let own = lab.client_address().to_string();
        ensure!(client == own, "the task saw {client:?} for the client");
    }
    Ok(text.trim_end().to_owned())
}

fn farewell(lab: &Lab) -> String {
    let (url, tool) = (lab.nodes[0].url(), shown_program("skein-lab"));
    let front = format!("{}:{FRONT_PORT}/vote?for=cats", lab.nodes[0].address);
    let vote = lab.client_line(&["curl", "-s", &front]).join(" ");
    format!(
        "  docker -H {url} service ls\n  \
           docker -H {url} service logs -f worker\n  \
           docker -H {url} service scale redis=5\n  \
           {vote}\n  \
           {tool} status --name {NAME}    and `help`: cut, lose, see logs\n  \
           make demo-down     stops it; nothing stays behind"
    )
}

#[test]
fn a_report_of_the_worker_is_read() {
    let report = read_report("vip=10.0.1.2 10.0.1.3=12 10.0.1.4=7 errors=0");
    let expected = [("10.0.1.3", 12), ("10.0.1.4", 7), ("errors", 0)];
    assert_eq!(report, expected.map(|(key, value)| (key.to_owned(), value)).into());
}

#[test]
fn options_are_those_of_a_lab() {
    let vm = ["--topology", "vm", "--managers", "3"];
    let expected = Size { kind: Kind::VirtualMachines, nodes: 3, managers: 3 };
    assert_eq!(read_options(&vm).expect("understood"), expected);
    let expected = Size { kind: Kind::Namespaces, nodes: 3, managers: 1 };
    assert_eq!(read_options(&[]).expect("understood"), expected);
    for wrong in [["--managers", "4"].as_slice(), &["--topology", "mars"], &["--no-cluster"]] {
        assert!(read_options(wrong).is_err(), "{wrong:?}");
    }
}
