//! `skein-lab`: labs for interactive use and for scripts. `skein-lab help` describes all commands.
//!
//! Each call is a separate process: the state of a lab is in `/var/lib/skein-lab/<name>`, where the
//! next call finds it. The exit status is 0 on success, 1 if refused or failed, 2 for wrong usage;
//! `exec` and `docker` return the exit status of the program.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use lab::arguments::{Action, Command, Size, read};
use lab::cluster::text;
use lab::guard;
use lab::kinds::{self, TESTED_NAMES, folder_of};
use lab::scenario::Scenario;
use lab::topology::{Fault, Kind, Point};
use lab::{Lab, Node, containers, sweep, sweep_dead};
use nix::unistd::Uid;
use serde_json::Value;

/// How long a daemon may take to report its status; a paused daemon does not answer.
const TELL_MAX: Duration = Duration::from_secs(2);

const HELP: &str = "\
skein-lab creates machines with real daemons on one underlay, and injects faults.

  up [--nodes N] [--managers M] [--topology KIND] [--no-cluster]
                               create a lab; default: 3 nodes, 1 manager
  down                         remove the lab, in any state
  sweep                        remove the remains of killed test runs; takes no --name
  play SCENARIO [--topology KIND]
                               create a lab, run a scenario on it, remove it
  status                       nodes, their daemons, and active faults
  exec NODE|client [--] CMD…   run a program there; input, output and exit status are passed on
  docker NODE -- WORDS…        run the docker client against the daemon of a node
  logs NODE                    print the log of its daemon
  cut A [B] [--one-way]        block all traffic between A and B; without B: between A and all
  loss A [B] PERCENT [--one-way]
  delay A [B] MS [--spread MS] [--one-way]
                               delay each frame; a spread also reorders frames
  heal [A [B]]                 remove faults: all, those of A, or those between A and B
  kill NODE [--daemon]         kill the machine, or only its daemon (SIGKILL)
  pause NODE, resume NODE      suspend a daemon (SIGSTOP) and resume it
  stop NODE                    stop the daemon with SIGTERM; its tasks keep running
  start NODE                   start the daemon, also on a killed machine
  help                         print this text

Every command accepts --name NAME for a lab other than `skein-lab`. NODE is node1 or 1; A and B are
nodes or `client`. KIND, and the faults that it supports:
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let own = guard::work(&words);
    let command = match read(own.unwrap_or(&words)) {
        Ok(command) => command,
        Err(error) => return complain(&error, 2),
    };
    let makes = matches!(command.action, Action::Up(_) | Action::Play(..));
    let done = if makes && own.is_none() {
        may_make(&command.name).and_then(|()| guard::run("skein-lab", &command.name, &words))
    } else {
        act(&command).map(|()| ExitCode::SUCCESS)
    };
    done.unwrap_or_else(|error| complain(&error, 1))
}

fn complain(error: &Error, status: u8) -> ExitCode {
    // Nobody to tell is no reason for another status.
    let _ = writeln!(std::io::stderr(), "skein-lab: {error:#}");
    ExitCode::from(status)
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn act(command: &Command) -> Result<()> {
    let name = command.name.as_str();
    if command.action == Action::Help {
        say(&help());
        return Ok(());
    }
    ensure_root()?;
    match &command.action {
        Action::Sweep => return clean_up(),
        Action::Up(size) => return up(name, size),
        Action::Down => return down(name),
        Action::Play(scenario, kind) => return play(name, scenario, *kind),
        _ => {}
    }
    let mut lab = attach(name)?;
    let done = change(&mut lab, &command.action);
    let then = done.and_then(|()| show(&mut lab, &command.action));
    lab.keep();
    // In the place of this program, so that input, signals and status are the other one's.
    match then? {
        Some(line) => Err(std::process::Command::new(&line[0]).args(&line[1..]).exec())
            .with_context(|| format!("running {}", line.join(" "))),
        None => Ok(()),
    }
}

fn ensure_root() -> Result<()> {
    ensure!(Uid::effective().is_root(), "a lab needs root: run it as root, as by sudo");
    Ok(())
}

/// Whether a lab of this name can be made.
fn may_make(name: &str) -> Result<()> {
    ensure_root()?;
    ensure!(
        !folder_of(name).exists(),
        "lab {name} is there already: `skein-lab status` shows it, `skein-lab down` removes it \
         (with --name {name})"
    );
    Ok(())
}

fn play(name: &str, scenario: &str, kind: Kind) -> Result<()> {
    let known = Scenario::ALL.iter().find(|known| known.name == scenario);
    let all = || Scenario::ALL.map(|known| known.name).join(", ");
    let known = known.with_context(|| format!("no scenario {scenario:?}: there are {}", all()))?;
    let mut lab = Lab::make(kind, name, &folder_of(name), known.nodes)?;
    known.play(&mut lab)
}

fn up(name: &str, size: &Size) -> Result<()> {
    let folder = folder_of(name);
    // A lab that fails half-way is dropped, which removes it.
    let mut lab = Lab::make(size.kind, name, &folder, size.nodes)?;
    if size.managers > 0 {
        lab.make_cluster(size.managers)?;
    } else {
        lab.start_all()?;
    }
    say(&status(&mut lab)?);
    lab.keep();
    Ok(())
}

fn down(name: &str) -> Result<()> {
    let folder = folder_of(name);
    sweep(name, &folder)?;
    say(&format!("Nothing of lab {name} is left."));
    Ok(())
}

/// Removes what test runs have left that ended before they could.
fn clean_up() -> Result<()> {
    sweep_dead()?;
    containers::sweep_dead()?;
    for name in TESTED_NAMES {
        sweep(name, &folder_of(name))?;
    }
    say("Nothing of ended test runs is left.");
    Ok(())
}

fn attach(name: &str) -> Result<Lab> {
    let folder = folder_of(name);
    if !folder.exists() {
        let others = kinds::all();
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        bail!("no lab {name}: `skein-lab up --name {name}` makes it (there are: {others})");
    }
    let hint = || format!("lab {name} is not whole: `skein-lab down --name {name}` removes it");
    Lab::attach(&folder).with_context(hint)
}

fn node(lab: &mut Lab, index: usize) -> Result<&mut Node> {
    let count = lab.nodes.len();
    let found = lab.nodes.get_mut(index);
    found.with_context(|| format!("node{} is not there: the lab has {count} nodes", index + 1))
}

/// Does what changes the lab.
fn change(lab: &mut Lab, action: &Action) -> Result<()> {
    match *action {
        Action::Disturb { from, to, fault, one_way } => disturb(lab, from, to, fault, one_way),
        Action::Heal(one, other) => heal(lab, one, other),
        Action::KillMachine(index) => node(lab, index)?.kill_machine(),
        Action::KillDaemon(index) => node(lab, index)?.kill_daemon(),
        Action::Pause(index) => node(lab, index)?.pause(true),
        Action::Resume(index) => node(lab, index)?.pause(false),
        Action::Stop(index) => node(lab, index)?.stop(),
        Action::Start(index) => node(lab, index)?.start(),
        Action::Exec(Point::Node(index), _) | Action::Docker(index, _) | Action::Logs(index) => {
            node(lab, index).map(drop)
        }
        Action::Up(_)
        | Action::Down
        | Action::Sweep
        | Action::Play(..)
        | Action::Status
        | Action::Exec(Point::Client, _)
        | Action::Help => Ok(()),
    }
}

/// Shows what is to be shown, and gives the program to be run, if one is.
fn show(lab: &mut Lab, action: &Action) -> Result<Option<Vec<String>>> {
    match action {
        Action::Status => say(&status(lab)?),
        Action::Disturb { .. } | Action::Heal(..) => say(&faults(lab)?),
        Action::Logs(index) => say(lab.nodes[*index].log().trim_end()),
        Action::Exec(Point::Node(index), line) => {
            return Ok(Some(lab.nodes[*index].line(&borrowed(line))));
        }
        Action::Exec(Point::Client, line) => return Ok(Some(lab.client_line(&borrowed(line)))),
        Action::Docker(index, line) => {
            let docker = ["docker".to_owned(), "-H".to_owned(), lab.nodes[*index].url()];
            return Ok(Some([docker.as_slice(), line].concat()));
        }
        Action::Up(_)
        | Action::Down
        | Action::Sweep
        | Action::Play(..)
        | Action::KillMachine(_)
        | Action::KillDaemon(_)
        | Action::Pause(_)
        | Action::Resume(_)
        | Action::Stop(_)
        | Action::Start(_)
        | Action::Help => {}
    }
    Ok(None)
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn disturb(
    lab: &mut Lab,
    from: Point,
    to: Option<Point>,
    fault: Fault,
    one_way: bool,
) -> Result<()> {
    let others: Vec<Point> = match to {
        Some(to) => vec![to],
        None => lab.points().filter(|point| *point != from).collect(),
    };
    for other in others {
        lab.disturb(from, other, fault)?;
        if !one_way {
            lab.disturb(other, from, fault)?;
        }
    }
    Ok(())
}

fn heal(lab: &mut Lab, one: Option<Point>, other: Option<Point>) -> Result<()> {
    match (one, other) {
        (Some(one), Some(other)) => lab.heal(one, other),
        (Some(one), None) | (None, Some(one)) => lab.rejoin(one),
        (None, None) => {
            let faults = lab.faults()?;
            faults.into_iter().try_for_each(|(from, to, _)| lab.heal(from, to))
        }
    }
}

fn status(lab: &mut Lab) -> Result<String> {
    let kind = lab.kind();
    let mut lines = vec![format!("lab {}: {kind}, in {}", lab.name, lab.folder().display())];
    let row = |name: &str, address: String, state: &str, host: &str| {
        format!("{name:<8} {address:<15} {state:<22} {host}").trim_end().to_owned()
    };
    lines.push(row("NODE", "ADDRESS".to_owned(), "DAEMON", "docker -H"));
    for node in &mut lab.nodes {
        let state = daemon(node)?;
        lines.push(row(&node.name, node.address.to_string(), &state, &node.url()));
    }
    lines.push(row("client", lab.client_address().to_string(), "", ""));
    lines.push(faults(lab)?);
    lines.push(format!("offers: {}", kinds::of(kind)?.offers));
    Ok(lines.join("\n"))
}

fn faults(lab: &Lab) -> Result<String> {
    let faults = lab.faults()?;
    if faults.is_empty() {
        return Ok("no faults".to_owned());
    }
    let listed = faults.iter().map(|(from, to, fault)| format!("fault: {from} to {to}: {fault}"));
    Ok(listed.collect::<Vec<_>>().join("\n"))
}

/// How a daemon is, in a word or two.
fn daemon(node: &mut Node) -> Result<String> {
    if !node.is_running()? {
        return Ok("does not run".to_owned());
    }
    let told = node.request_within(TELL_MAX, "GET", "/info", &Value::Null);
    let Ok(info) = told.and_then(|answer| answer.json()) else {
        return Ok("does not answer".to_owned());
    };
    let swarm = &info["Swarm"];
    Ok(match (text(&swarm["LocalNodeState"]).as_str(), swarm["ControlAvailable"] == true) {
        ("active", true) => "manager".to_owned(),
        ("active", false) => "worker".to_owned(),
        (state, _) => format!("cluster: {state}"),
    })
}

fn help() -> String {
    let offers = |kind: Kind| match kinds::of(kind) {
        Ok(of_kind) => format!("  {kind}: {}", of_kind.offers),
        Err(error) => format!("  {kind}: {error:#}"),
    };
    format!("{HELP}{}", Kind::ALL.map(offers).join("\n"))
}
