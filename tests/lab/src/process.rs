//! Finds and kills the processes of one node: those with its folder in their command line or their
//! mounts, and all their descendants. No other process is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for;

/// How long processes may have no command line while they become other programs: all together.
const EXEC_MAX: Duration = Duration::from_millis(200);
/// How long killed processes may take to be gone.
const KILL_MAX: Duration = Duration::from_secs(10);

/// What is read of a command line; a node's folder stands near the beginning of those of the lab.
const COMMAND_BYTES_MAX: usize = 32 << 10;

/// What is known of one process.
#[derive(Debug, Clone, Default)]
struct Process {
    parent: i32,
    command: String,
    /// What it has mounted in a mount namespace of its own: device and root of each, one a line.
    own_roots: String,
    /// It has a program and no command line: it is becoming another program (execve(2)), or it is
    /// one that never has a line, as user-mode Linux has for each address space of its guest.
    blank: bool,
}

/// Every process that belongs to `folder`, without the caller's own. One that is just becoming
/// another program is not overlooked.
///
/// A supervisor and a holder have the folder in their command line. A task has not, but it is the
/// descendant of a supervisor; one whose supervisor died still has parts of the folder mounted. A
/// process of another program that only sees the lab's mounts does not belong to it, and neither
/// do the caller's parents: a shell may have the folder in its command line.
#[must_use]
pub fn of_folder(folder: &Path) -> BTreeSet<i32> {
    let mut processes = processes();
    let settled = wait_for(EXEC_MAX, "all command lines", || {
        let blank = processes.iter().filter(|(_, process)| process.blank).map(|(pid, _)| *pid);
        for pid in blank.collect::<Vec<_>>() {
            match read(pid, own_mounts().as_deref()) {
                Some(process) => processes.insert(pid, process),
                None => processes.remove(&pid),
            };
        }
        ensure!(!processes.values().any(|process| process.blank), "some have none");
        Ok(())
    });
    // Those that are left never have a line, so they are no lab's.
    let _ = settled;
    own(&processes, folder)
}

/// Whether a process runs and has the folder in its command line.
#[must_use]
pub fn names(pid: i32, folder: &Path) -> bool {
    let found = wait_for(EXEC_MAX, "a command line", || {
        let found = read(pid, None);
        ensure!(!found.as_ref().is_some_and(|process| process.blank), "there is none");
        Ok(found)
    });
    let found = found.ok().flatten();
    found.is_some_and(|process| has_path(&process.command, &folder.to_string_lossy()))
}

/// Sends SIGKILL to every process of `folder` until there is none.
///
/// # Errors
/// With those that are still there after 10 s.
pub fn kill_all(folder: &Path) -> Result<()> {
    wait_for(KILL_MAX, "the processes of a lab to end", || {
        let mut found = own(&processes(), folder);
        if found.is_empty() {
            // Before it is said that none is left: one may just be becoming another program.
            found = of_folder(folder);
        }
        if found.is_empty() {
            return Ok(());
        }
        for pid in &found {
            // One that ended meanwhile is what we want.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        bail!("still there: {}", found.iter().map(shown).collect::<Vec<_>>().join(", "));
    })
}

/// A process for people: its number and the name of its program.
fn shown(pid: &i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid} ({})", name.trim())
}

/// The processes of a folder among all, without the caller and those above it.
fn own(processes: &BTreeMap<i32, Process>, folder: &Path) -> BTreeSet<i32> {
    let caller = i32::try_from(std::process::id()).unwrap_or_default();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    choose(processes, folder, &on_disk(&table, folder), caller)
}

/// Whether a text holds this path, or one below it.
fn has_path(text: &str, folder: &str) -> bool {
    if folder.is_empty() {
        return false;
    }
    text.match_indices(folder).any(|(at, _)| {
        let next = text.as_bytes().get(at + folder.len());
        next.is_none_or(|byte| b"/\0 ,:\n".contains(byte))
    })
}

fn choose(
    processes: &BTreeMap<i32, Process>,
    folder: &Path,
    on_disk: &str,
    caller: i32,
) -> BTreeSet<i32> {
    let folder = folder.to_string_lossy();
    let mut above = BTreeSet::new();
    let mut next = Some(caller);
    while let Some(pid) = next.filter(|pid| above.insert(*pid)) {
        next = processes.get(&pid).map(|process| process.parent);
    }
    let mut chosen: BTreeSet<i32> = processes
        .iter()
        .filter(|(_, process)| {
            has_path(&process.command, &folder) || has_path(&process.own_roots, on_disk)
        })
        .map(|(pid, _)| *pid)
        .filter(|pid| !above.contains(pid))
        .collect();
    loop {
        let children: Vec<i32> = processes
            .iter()
            .filter(|(pid, process)| chosen.contains(&process.parent) && !chosen.contains(*pid))
            .filter(|(pid, _)| !above.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            return chosen;
        }
        chosen.extend(children);
    }
}

fn own_mounts() -> Option<PathBuf> {
    fs::read_link("/proc/self/ns/mnt").ok()
}

/// All processes of the machine that can be read; zombies are left out.
fn processes() -> BTreeMap<i32, Process> {
    let own_mounts = own_mounts();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter_map(|pid| Some((pid, read(pid, own_mounts.as_deref())?))).collect()
}

/// Device and root of a mount table's mounts (proc_pid_mountinfo(5), fields 3 and 4): of a bind,
/// what is bound. Where it is mounted says nothing: mounts spread to strangers
/// (mount_namespaces(7)).
fn roots(table: &str) -> String {
    let pairs = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        Some(format!("{} {}", fields.next()?, fields.next()?))
    });
    pairs.collect::<Vec<_>>().join("\n")
}

/// The folder as [`roots`] names one that is bound, by this process's mount table.
fn on_disk(table: &str, folder: &Path) -> String {
    let mounts = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').take(5).collect();
        let [_, _, device, root, point] = fields[..] else { return None };
        let below = folder.strip_prefix(point).ok()?;
        Some((point.len(), format!("{device} {}", Path::new(root).join(below).display())))
    });
    // Of two at one place the later one covers the other.
    let innermost = mounts.max_by_key(|(length, _)| *length);
    innermost.map(|(_, path)| path.trim_end_matches('/').to_owned()).unwrap_or_default()
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
    // By one call, which sees one program: a second might go on in the next one's line.
    let mut line = vec![0; COMMAND_BYTES_MAX];
    let length = File::open(folder.join("cmdline")).and_then(|mut file| file.read(&mut line));
    line.truncate(length.unwrap_or_default());
    // A thread of the kernel has no program.
    let blank = line.is_empty() && fs::read_link(folder.join("exe")).is_ok();
    let is_elsewhere = fs::read_link(folder.join("ns/mnt")).ok().as_deref() != known;
    let mounts = is_elsewhere.then(|| fs::read_to_string(folder.join("mountinfo")).ok());
    let mounts = mounts.flatten().unwrap_or_default();
    Some(Process {
        parent: parent.and_then(|word| word.parse().ok()).unwrap_or_default(),
        command: String::from_utf8_lossy(&line).into_owned(),
        own_roots: roots(&mounts),
        blank,
    })
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
    let row = |parent, command: &str, mounts: &str| Process {
        parent,
        command: command.to_owned(),
        own_roots: roots(mounts),
        blank: false,
    };
    let processes = BTreeMap::from([
        (1, row(0, "init", "")),
        (10, row(1, "skein\0supervise\0--run-dir\0/tmp/lab/n1/run", "")),
        (11, row(10, "redis-server", "")),
        (12, row(11, "child", "")),
        (20, row(1, "orphan", "30 1 8:1 /in/lab/n1/run/tasks/x /run rw")),
        (30, row(1, "skein\0daemon\0--run-dir\0/tmp/lab/n10/run", "")),
        (31, row(30, "other", "")),
        (21, row(1, "stranger", "30 1 8:2 /in/lab/n1/run/tasks/x /run rw")),
        (40, row(1, "stranger", "31 1 0:9 / /tmp/lab/n1/mounted rw")),
        (50, row(1, "sh\0-c\0skein-lab down; ls /tmp/lab/n1", "")),
        (51, row(50, "skein-lab\0down", "")),
        (52, row(51, "ip", "")),
    ]);
    let table = "20 1 8:1 / / rw\n21 20 8:1 /in /tmp rw\n";
    let choose = |folder: &str, caller| {
        let folder = Path::new(folder);
        choose(&processes, folder, &on_disk(table, folder), caller)
    };
    let chosen = |folder| choose(folder, 51);
    assert_eq!(chosen("/tmp/lab/n1"), BTreeSet::from([10, 11, 12, 20]));
    assert_eq!(chosen("/tmp/lab"), BTreeSet::from([10, 11, 12, 20, 30, 31]));
    assert!(chosen("/tmp/la").is_empty());
    // Any other process that names the folder belongs to it, with its descendants.
    assert!(choose("/tmp/lab/n1", 99).is_superset(&BTreeSet::from([50, 51, 52])));
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
