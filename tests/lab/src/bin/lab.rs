//! `skein-lab`: a lab for a person at a terminal and for scripts. `skein-lab help` tells all of it.
//!
//! Each call is a process of its own: a lab lies in `/var/lib/skein-lab/<name>`, and the next call
//! finds it there. Exit status 0 done, 1 refused or failed, 2 wrong usage; `exec` and `docker` have
//! that of the program.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use lab::cluster::text;
use lab::guard;
use lab::kinds::{self, TESTED_NAMES, folder_of};
use lab::scenario::Scenario;
use lab::topology::{Fault, Kind, Point};
use lab::words::{Command, Size, Wish, read};
use lab::{Lab, Node, containers, sweep, sweep_dead};
use nix::unistd::Uid;
use serde_json::Value;

/// How long a daemon may take to tell how it is: one that is paused does not.
const TELL_MAX: Duration = Duration::from_secs(2);

const HELP: &str = "\
skein-lab makes machines with real daemons on one underlay, and breaks things.

  up [--nodes N] [--managers M] [--topology KIND] [--no-cluster]
                               make a lab; 3 nodes and 1 manager unless told otherwise
  down                         remove all of it, whatever state it is in
  sweep                        remove what test runs have left that were killed; it has no name
  play SCENARIO [--topology KIND]
                               make a lab, check a scenario on it step by step, remove it
  status                       nodes, their daemons, and the faults that are there
  exec NODE|client [--] CMD…   run a program there, with this input, output and exit status
  docker NODE -- WORDS…        docker's client against the daemon of a node
  logs NODE                    all that its daemon has written
  cut A [B] [--one-way]        nothing arrives from A at B, nor back; without B: at nobody
  loss A [B] PERCENT [--one-way]
  delay A [B] MS [--spread MS] [--one-way]
                               each frame takes longer; a spread puts them out of order
  heal [A [B]]                 take the faults away: all, those of A, those between both
  kill NODE [--daemon]         lose the machine, or only its daemon by SIGKILL
  pause NODE, resume NODE      stop a daemon's time and let it go on
  stop NODE                    stop the daemon by SIGTERM; its tasks go on
  start NODE                   start the daemon, of a lost machine too
  help                         this

Every command takes --name NAME for another lab than `skein-lab`. NODE is node1 or 1, A and B are
nodes or `client`. KIND and the faults that it offers:
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let own = guard::work(&words);
    let command = match read(own.unwrap_or(&words)) {
        Ok(command) => command,
        Err(error) => return complain(&error, 2),
    };
    let makes = matches!(command.wish, Wish::Up(_) | Wish::Play(..));
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
    if command.wish == Wish::Help {
        say(&help());
        return Ok(());
    }
    ensure_root()?;
    match &command.wish {
        Wish::Sweep => return clean_up(),
        Wish::Up(size) => return up(name, size),
        Wish::Down => return down(name),
        Wish::Play(scenario, kind) => return play(name, scenario, *kind),
        _ => {}
    }
    let mut lab = attach(name)?;
    let done = change(&mut lab, &command.wish);
    let then = done.and_then(|()| show(&mut lab, &command.wish));
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
fn change(lab: &mut Lab, wish: &Wish) -> Result<()> {
    match *wish {
        Wish::Disturb { from, to, fault, one_way } => disturb(lab, from, to, fault, one_way),
        Wish::Heal(one, other) => heal(lab, one, other),
        Wish::KillMachine(index) => node(lab, index)?.kill_machine(),
        Wish::KillDaemon(index) => node(lab, index)?.kill_daemon(),
        Wish::Pause(index) => node(lab, index)?.pause(true),
        Wish::Resume(index) => node(lab, index)?.pause(false),
        Wish::Stop(index) => node(lab, index)?.stop(),
        Wish::Start(index) => node(lab, index)?.start(),
        Wish::Exec(Point::Node(index), _) | Wish::Docker(index, _) | Wish::Logs(index) => {
            node(lab, index).map(drop)
        }
        Wish::Up(_)
        | Wish::Down
        | Wish::Sweep
        | Wish::Play(..)
        | Wish::Status
        | Wish::Exec(Point::Client, _)
        | Wish::Help => Ok(()),
    }
}

/// Shows what is to be shown, and gives the program to be run, if one is.
fn show(lab: &mut Lab, wish: &Wish) -> Result<Option<Vec<String>>> {
    match wish {
        Wish::Status => say(&status(lab)?),
        Wish::Disturb { .. } | Wish::Heal(..) => say(&faults(lab)?),
        Wish::Logs(index) => say(lab.nodes[*index].log().trim_end()),
        Wish::Exec(Point::Node(index), line) => {
            return Ok(Some(lab.nodes[*index].line(&borrowed(line))));
        }
        Wish::Exec(Point::Client, line) => return Ok(Some(lab.client_line(&borrowed(line)))),
        Wish::Docker(index, line) => {
            let docker = ["docker".to_owned(), "-H".to_owned(), lab.nodes[*index].url()];
            return Ok(Some([docker.as_slice(), line].concat()));
        }
        Wish::Up(_)
        | Wish::Down
        | Wish::Sweep
        | Wish::Play(..)
        | Wish::KillMachine(_)
        | Wish::KillDaemon(_)
        | Wish::Pause(_)
        | Wish::Resume(_)
        | Wish::Stop(_)
        | Wish::Start(_)
        | Wish::Help => {}
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
