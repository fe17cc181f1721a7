//! The command line of `skein-lab`, parsed into an action. Pure; an error is one line that names
//! the invalid word and the remedy.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

use crate::TEST_PREFIX;
use crate::topology::{Fault, Kind, Point};

/// The name of a lab that was given none.
pub const DEFAULT_NAME: &str = "skein-lab";
/// Longest name: paths of sockets below the lab's folder have to fit into 107 bytes (unix(7)).
const NAME_BYTES_MAX: usize = 24;
const DEFAULT_NODES: usize = 3;
/// Most nodes: the underlay has addresses for so many.
const NODES_MAX: usize = 89;

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Which lab.
    pub name: String,
    /// What to do with it.
    pub action: Action,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make it.
    Up(Size),
    /// Remove it.
    Down,
    /// Remove the remains of test runs that have ended.
    Sweep,
    /// Make a lab of this kind, play the scenario of this name on it, and remove it.
    Play(String, Kind),
    /// Show it.
    Status,
    /// Run a program on a node or the client.
    Exec(Point, Vec<String>),
    /// Run docker's client against a node.
    Docker(usize, Vec<String>),
    /// Show a daemon's log.
    Logs(usize),
    /// Put a fault between a point and another one, or all others.
    Disturb {
        /// From where.
        from: Point,
        /// To where; every other point where none is named.
        to: Option<Point>,
        /// What.
        fault: Fault,
        /// In this direction only.
        one_way: bool,
    },
    /// Remove faults: all, those of a point, or those between two points.
    Heal(Option<Point>, Option<Point>),
    /// Lose a machine.
    KillMachine(usize),
    /// Kill a daemon by SIGKILL.
    KillDaemon(usize),
    /// Suspend a daemon (SIGSTOP).
    Pause(usize),
    /// Resume it.
    Resume(usize),
    /// Stop a daemon by SIGTERM.
    Stop(usize),
    /// Switch a machine on and start its daemon.
    Start(usize),
    /// Print the usage.
    Help,
}

/// The size and kind of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// What its machines are made of.
    pub kind: Kind,
    /// How many nodes.
    pub nodes: usize,
    /// How many of them are managers; none where the daemons are to form no cluster.
    pub managers: usize,
}

/// The options of a command in addition to `--name`: (option, whether it has a value).
fn options_of(command: &str) -> Result<&'static [(&'static str, bool)]> {
    const UP: &[(&str, bool)] =
        &[("--nodes", true), ("--managers", true), ("--topology", true), ("--no-cluster", false)];
    Ok(match command {
        "up" => UP,
        "play" => &[("--topology", true)],
        "cut" | "loss" => &[("--one-way", false)],
        "delay" => &[("--one-way", false), ("--spread", true)],
        "kill" => &[("--daemon", false)],
        "down" | "sweep" | "status" | "exec" | "docker" | "logs" | "heal" | "pause" | "resume"
        | "stop" | "start" | "help" => &[],
        _ => bail!("no command {command:?}: `skein-lab help` lists them"),
    })
}

/// Options with their values, and all other words.
#[derive(Debug, Default)]
struct Sorted<'a> {
    options: BTreeMap<&'a str, &'a str>,
    rest: Vec<&'a str>,
}

/// Sorts the words after a command. Where a program's own words follow, options end at the first
/// word that is not an option.
fn sort<'a>(command: &str, words: &[&'a str]) -> Result<Sorted<'a>> {
    let known = options_of(command)?;
    let ends_early = ["exec", "docker"].contains(&command);
    let mut sorted = Sorted::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "--" || !word.starts_with("--") {
            sorted.rest.push(word);
            if ends_early {
                sorted.rest.extend(words.by_ref());
            }
            continue;
        }
        let found = known.iter().chain([&("--name", true)]).find(|(name, _)| name == word);
        let Some((_, has_value)) = found else {
            bail!("{command} has no option {word}: see `skein-lab help`");
        };
        let value = if *has_value {
            words.next().copied().with_context(|| format!("{word} needs a value after it"))?
        } else {
            ""
        };
        ensure!(sorted.options.insert(word, value).is_none(), "{word} is said twice: say it once");
    }
    Ok(sorted)
}

/// Parses a command line.
///
/// # Errors
/// With one line that names the invalid word.
pub fn read(words: &[&str]) -> Result<Command> {
    let Some((command, words)) = words.split_first() else {
        bail!("no command: `skein-lab help` lists them");
    };
    let Sorted { options, rest } = sort(command, words)?;
    let name = options.get("--name").copied().unwrap_or(DEFAULT_NAME);
    check_name(name)?;
    let has = |option: &str| options.contains_key(option);
    let action = match (*command, rest.as_slice()) {
        ("up", []) => Action::Up(size(&options)?),
        ("down", []) => Action::Down,
        ("sweep", []) => {
            ensure!(!has("--name"), "sweep is about the labs of all test runs: leave out --name");
            Action::Sweep
        }
        ("play", [scenario]) => Action::Play((*scenario).to_owned(), kind(&options)?),
        ("status", []) => Action::Status,
        ("help", []) => Action::Help,
        ("exec", [at, "--", words @ ..] | [at, words @ ..]) if is_program(words) => {
            Action::Exec(at.parse()?, owned(words))
        }
        ("docker", [at, "--", words @ ..] | [at, words @ ..]) if is_program(words) => {
            Action::Docker(node(at)?, owned(words))
        }
        ("logs", [at]) => Action::Logs(node(at)?),
        ("cut", [from, to @ ..]) if to.len() < 2 => {
            disturb(from, to, Fault::Cut, has("--one-way"))?
        }
        ("loss", [from, to @ .., percent]) if to.len() < 2 => {
            let percent = number("PERCENT", percent, 1, 100)?;
            disturb(from, to, Fault::Loss { percent }, has("--one-way"))?
        }
        ("delay", [from, to @ .., ms]) if to.len() < 2 => {
            let most = crate::faults::DELAY_MS_MAX;
            let spread = options.get("--spread").copied().unwrap_or("0");
            let spread_ms = number("--spread", spread, 0, most)?;
            let ms = number("MS", ms, 0, most)?;
            disturb(from, to, Fault::Delay { ms, spread_ms }, has("--one-way"))?
        }
        ("heal", []) => Action::Heal(None, None),
        ("heal", [one]) => Action::Heal(Some(one.parse()?), None),
        ("heal", [one, other]) => Action::Heal(Some(one.parse()?), Some(other.parse()?)),
        ("kill", [at]) if has("--daemon") => Action::KillDaemon(node(at)?),
        ("kill", [at]) => Action::KillMachine(node(at)?),
        ("pause", [at]) => Action::Pause(node(at)?),
        ("resume", [at]) => Action::Resume(node(at)?),
        ("stop", [at]) => Action::Stop(node(at)?),
        ("start", [at]) => Action::Start(node(at)?),
        (_, []) => bail!("{command} needs more words: see `skein-lab help`"),
        (_, rest) => {
            bail!("{command} does not understand {:?}: see `skein-lab help`", rest.join(" "))
        }
    };
    Ok(Command { name: name.to_owned(), action })
}

/// Whether these are a program's words: its name is first.
fn is_program(words: &[&str]) -> bool {
    words.first().is_some_and(|first| *first != "--")
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn disturb(from: &str, to: &[&str], fault: Fault, one_way: bool) -> Result<Action> {
    let to = to.first().map(|to| to.parse()).transpose()?;
    Ok(Action::Disturb { from: from.parse()?, to, fault, one_way })
}

fn node(text: &str) -> Result<usize> {
    match text.parse()? {
        Point::Node(index) => Ok(index),
        Point::Client => bail!("the client runs no daemon: name a node"),
    }
}

fn number<T>(what: &str, text: &str, least: T, most: T) -> Result<T>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match text.parse() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => bail!("{what} {text:?}: say a number from {least} to {most}"),
    }
}

fn kind(options: &BTreeMap<&str, &str>) -> Result<Kind> {
    options.get("--topology").map_or(Ok(Kind::Namespaces), |word| word.parse())
}

fn size(options: &BTreeMap<&str, &str>) -> Result<Size> {
    let kind = kind(options)?;
    let nodes = match options.get("--nodes") {
        Some(text) => number("--nodes", text, 1, NODES_MAX)?,
        None => DEFAULT_NODES,
    };
    let managers = match (options.get("--managers"), options.contains_key("--no-cluster")) {
        (Some(_), true) => {
            bail!("--managers and --no-cluster: without a cluster nobody manages it")
        }
        (Some(text), false) => number("--managers", text, 1, nodes)?,
        (None, no_cluster) => usize::from(!no_cluster),
    };
    Ok(Size { kind, nodes, managers })
}

/// A name is part of namespaces', devices' and folders' names.
fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_lowercase());
    ensure!(
        fits,
        "--name {name:?}: say up to {NAME_BYTES_MAX} small letters, digits and -, a letter first"
    );
    let taken = name.split('-').next() == Some(TEST_PREFIX);
    ensure!(!taken, "--name {name:?}: names with {TEST_PREFIX}- are those of tests, take another");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(line: &str) -> Result<Action> {
        read(&line.split_whitespace().collect::<Vec<_>>()).map(|command| command.action)
    }

    fn said(words: &[&str]) -> Vec<String> {
        owned(words)
    }

    #[test]
    fn commands_are_understood() {
        let (one, two) = (Point::Node(0), Point::Node(1));
        let size = |nodes, managers| Size { kind: Kind::Namespaces, nodes, managers };
        let disturb = |to, fault, one_way| Action::Disturb { from: one, to, fault, one_way };
        let delay = Fault::Delay { ms: 20, spread_ms: 5 };
        for (line, expected) in [
            ("up", Action::Up(size(3, 1))),
            ("up --nodes 5 --managers 3", Action::Up(size(5, 3))),
            ("up --no-cluster --name a", Action::Up(size(3, 0))),
            ("up --topology vm", Action::Up(Size { kind: Kind::VirtualMachines, ..size(3, 1) })),
            ("down", Action::Down),
            ("sweep", Action::Sweep),
            ("play vip", Action::Play("vip".to_owned(), Kind::Namespaces)),
            ("play vip --topology vm", Action::Play("vip".to_owned(), Kind::VirtualMachines)),
            ("status", Action::Status),
            ("exec node1 -- ls -l", Action::Exec(one, said(&["ls", "-l"]))),
            ("exec 2 ls --name x", Action::Exec(two, said(&["ls", "--name", "x"]))),
            ("exec client -- sh -- x", Action::Exec(Point::Client, said(&["sh", "--", "x"]))),
            ("docker node1 -- node ls", Action::Docker(0, said(&["node", "ls"]))),
            ("logs 2", Action::Logs(1)),
            ("cut node1 node2", disturb(Some(two), Fault::Cut, false)),
            ("cut 1 client --one-way", disturb(Some(Point::Client), Fault::Cut, true)),
            ("cut node1", disturb(None, Fault::Cut, false)),
            ("loss 1 2 30", disturb(Some(two), Fault::Loss { percent: 30 }, false)),
            ("delay 1 2 20 --spread 5", disturb(Some(two), delay, false)),
            ("heal", Action::Heal(None, None)),
            ("heal 1", Action::Heal(Some(one), None)),
            ("heal 1 2", Action::Heal(Some(one), Some(two))),
            ("kill 1", Action::KillMachine(0)),
            ("kill --daemon 1", Action::KillDaemon(0)),
            ("pause 1", Action::Pause(0)),
            ("resume 1", Action::Resume(0)),
            ("stop 1", Action::Stop(0)),
            ("start 1", Action::Start(0)),
            ("help", Action::Help),
        ] {
            assert_eq!(action(line).expect(line), expected, "{line}");
        }
        let named = read(&["exec", "--name", "a", "1", "true"]).expect("understood");
        assert_eq!(named.name, "a");
    }

    #[test]
    fn what_is_not_understood_is_named_in_one_line() {
        for (line, named) in [
            ("", "no command"),
            ("fly", "\"fly\""),
            ("up now", "\"now\""),
            ("up --nodes", "--nodes needs"),
            ("up --nodes many", "\"many\": say a number from 1 to 89"),
            ("up --nodes 90", "\"90\""),
            ("up --nodes 2 --managers 3", "from 1 to 2"),
            ("up --managers 1 --no-cluster", "--no-cluster"),
            ("up --topology mars", "\"mars\""),
            ("up --name A", "\"A\""),
            ("up --name a_b", "\"a_b\""),
            ("up --name skl-1-a", "those of tests"),
            ("up --name aaaaaaaaaaaaaaaaaaaaaaaaa", "up to 24"),
            ("down --nodes 3", "--nodes"),
            ("sweep now", "\"now\""),
            ("sweep --name a", "leave out --name"),
            ("play", "needs more words"),
            ("cut 1 2 --one-way --one-way", "twice"),
            ("exec node1", "\"node1\""),
            ("exec node1 --", "\"node1 --\""),
            ("exec node0 ls", "\"node0\""),
            ("docker client -- ps", "the client"),
            ("cut", "needs more words"),
            ("cut 1 2 3", "\"1 2 3\""),
            ("loss 1 2 0", "PERCENT \"0\""),
            ("loss 1 2 101", "PERCENT \"101\""),
            ("delay 1 2 fast", "MS \"fast\""),
            ("delay 1 2 1 --spread 60001", "--spread \"60001\""),
            ("kill client", "the client"),
        ] {
            let error = action(line).expect_err(line).to_string();
            assert!(error.contains(named) && error.lines().count() == 1, "{line}: {error}");
        }
    }
}
