//! Finding and ending the processes of one node: those that carry its folder in their command
//! line or among their mounts, and all their descendants. Nothing else is ever touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_for;

/// How long a process may have no command line while it becomes another program.
const EXEC_MAX: Duration = Duration::from_millis(200);

/// What is read of a command line; a node's folder stands near the beginning of those of the lab.
const COMMAND_BYTES_MAX: usize = 32 << 10;

/// What is known of one process.
#[derive(Debug, Clone, Default)]
struct Process {
    parent: i32,
    command: String,
    own_mounts: String,
}

/// Every process that belongs to `folder`, without the caller's own.
///
/// A supervisor and a holder have the folder in their command line. A task has not, but it is the
/// descendant of a supervisor; one whose supervisor died still has the folder among its mounts.
#[must_use]
pub fn of_folder(folder: &Path) -> BTreeSet<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found = choose(&processes(), &folder.to_string_lossy());
    found.remove(&own);
    found
}

/// Whether a process runs and has the folder in its command line.
#[must_use]
pub fn names(pid: i32, folder: &Path) -> bool {
    let found = read(pid, None);
    found.is_some_and(|process| has_path(&process.command, &folder.to_string_lossy()))
}

/// Sends SIGKILL to every process of `folder` until there is none.
///
/// # Errors
/// When some are still there after 10 s.
pub fn kill_all(folder: &Path) -> Result<()> {
    wait_for(Duration::from_secs(10), "the processes of a node to end", || {
        let found = of_folder(folder);
        if found.is_empty() {
            return Ok(());
        }
        for pid in &found {
            // One that ended meanwhile is what we want.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        bail!("{found:?} still run");
    })
}

/// Whether a text holds this path, or one below it.
fn has_path(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(at, _)| {
        let next = text.as_bytes().get(at + folder.len());
        next.is_none_or(|byte| b"/\0 ,:\n".contains(byte))
    })
}

fn choose(processes: &BTreeMap<i32, Process>, folder: &str) -> BTreeSet<i32> {
    let names = |text: &str| has_path(text, folder);
    let mut chosen: BTreeSet<i32> = processes
        .iter()
        .filter(|(_, process)| names(&process.command) || names(&process.own_mounts))
        .map(|(pid, _)| *pid)
        .collect();
    loop {
        let children: Vec<i32> = processes
            .iter()
            .filter(|(pid, process)| chosen.contains(&process.parent) && !chosen.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            return chosen;
        }
        chosen.extend(children);
    }
}

/// All processes of the machine that can be read; zombies are left out.
fn processes() -> BTreeMap<i32, Process> {
    let own_mounts = fs::read_link("/proc/self/ns/mnt").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter_map(|pid| Some((pid, read(pid, own_mounts.as_deref())?))).collect()
}

/// One process, unless it ended. Mounts are read where its mount namespace is not `known`.
fn read(pid: i32, known: Option<&Path>) -> Option<Process> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name in parentheses may hold spaces: the fields begin after the last one.
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let (state, parent) = (fields.next(), fields.next());
    if state == Some("Z") {
        return None;
    }
    let command = command_line(&folder);
    let is_elsewhere = fs::read_link(folder.join("ns/mnt")).ok().as_deref() != known;
    let mounts = is_elsewhere.then(|| fs::read_to_string(folder.join("mountinfo")).ok());
    Some(Process {
        parent: parent.and_then(|word| word.parse().ok()).unwrap_or_default(),
        command: String::from_utf8_lossy(&command).into_owned(),
        own_mounts: mounts.flatten().unwrap_or_default(),
    })
}

/// The command line of a process. One that is just being replaced by another program (execve(2))
/// has none for a moment: it is not taken for one that ended, or for a thread of the kernel, which
/// have no program.
fn command_line(process: &Path) -> Vec<u8> {
    let found = wait_for(EXEC_MAX, "a command line", || {
        // By one call, which sees one program: a second might go on in the next one's line.
        let mut line = vec![0; COMMAND_BYTES_MAX];
        let length = File::open(process.join("cmdline")).and_then(|mut file| file.read(&mut line));
        line.truncate(length.unwrap_or_default());
        let has_program = fs::read_link(process.join("exe")).is_ok();
        ensure!(!line.is_empty() || !has_program, "there is none");
        Ok(line)
    });
    found.unwrap_or_default()
}

#[test]
fn a_process_is_found_while_it_becomes_another_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = r#"[ $2 -gt 0 ] && exec sh -c "$0" "$0" "$1" $(($2 - 1))"#;
    let mut child = std::process::Command::new("sh")
        .args(["-c", script, script, &folder.path().to_string_lossy(), "2000"])
        .spawn()
        .expect("sh");
    let pid = i32::try_from(child.id()).expect("a pid");
    wait_for(Duration::from_secs(5), "sh to be there", || {
        ensure!(names(pid, folder.path()), "not yet");
        Ok(())
    })
    .expect("it is found");
    let mut looks = 0;
    while names(pid, folder.path()) {
        looks += 1;
    }
    // One that was overlooked would be found again.
    assert!(!names(pid, folder.path()), "look {looks} missed it");
    assert!(looks > 20, "{looks} looks");
    child.wait().expect("it ended");
}

#[test]
fn a_folder_owns_its_namers_their_descendants_and_orphans_with_its_mounts() {
    let row = |parent, command: &str, own_mounts: &str| Process {
        parent,
        command: command.to_owned(),
        own_mounts: own_mounts.to_owned(),
    };
    let processes = BTreeMap::from([
        (1, row(0, "init", "")),
        (10, row(1, "skein\0supervise\0--run-dir\0/tmp/lab/n1/run", "")),
        (11, row(10, "redis-server", "")),
        (12, row(11, "child", "")),
        (20, row(1, "orphan", "30 1 8:1 /tmp/lab/n1/run/tasks/x /run rw")),
        (30, row(1, "skein\0daemon\0--run-dir\0/tmp/lab/n10/run", "")),
        (31, row(30, "other", "")),
    ]);
    assert_eq!(choose(&processes, "/tmp/lab/n1"), BTreeSet::from([10, 11, 12, 20]));
    assert_eq!(choose(&processes, "/tmp/lab"), BTreeSet::from([10, 11, 12, 20, 30, 31]));
    assert!(choose(&processes, "/tmp/la").is_empty());
}

#[test]
fn processes_of_a_folder_end_and_others_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!("tail -f /dev/null & wait # {}/run", folder.path().display());
    let mut ours = std::process::Command::new("sh").args(["-c", &script]).spawn().expect("sh");
    let mut other =
        std::process::Command::new("tail").args(["-f", "/dev/null"]).spawn().expect("tail");
    wait_for(Duration::from_secs(5), "sh to start tail", || match of_folder(folder.path()).len() {
        2 => Ok(()),
        n => bail!("{n} processes"),
    })
    .expect("both are found");
    // The parent is ours, so it stays a zombie until it is awaited, and a zombie is not counted.
    kill_all(folder.path()).expect("they end");
    assert!(!ours.wait().expect("it ended").success());
    assert!(other.try_wait().expect("it can be asked").is_none(), "a stranger was ended");
    other.kill().expect("it runs");
    other.wait().expect("it ended");
}
