//! What becomes of a task whose supervisor has died.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::layout::{LOG, STATUS};
use crate::protocol::{Exit, Phase, TaskReport};
use crate::status::{self, Launch, Status, process_ticks};
use crate::sys;
use crate::{clock, detach, logs};

/// How often it is asked whether the task's first process is gone.
const GONE_INTERVAL: Duration = Duration::from_millis(10);
/// How long that may take.
const GONE_LIMIT: Duration = Duration::from_secs(10);
/// How much of a supervisor's last line becomes part of the task's error.
const LAST_WORDS_CHARACTERS_MAX: usize = 500;
/// `SIGKILL`.
const KILL: i32 = 9;

/// Makes sure that no process of the task is left and returns how it ended, which is recorded if
/// the supervisor has not done so itself.
pub(crate) fn conclude(launch: &Launch, task_dir: &Path) -> io::Result<TaskReport> {
    let known = status::read::<Status>(task_dir, STATUS).ok();
    let (started_at, dns_port) = match known {
        Some(Status { report, pid_ticks }) => match report.phase {
            Phase::Exited(_) => return Ok(report),
            Phase::Running { pid, started_at } => {
                end_process(pid, pid_ticks)?;
                (Some(started_at), report.dns_port)
            }
            Phase::Prepared | Phase::Starting => (None, report.dns_port),
        },
        None => (None, 0),
    };
    let exit = Exit {
        code: 128 + KILL,
        signal: Some(KILL),
        error: Some(format!("supervisor lost: {}", last_words(task_dir))),
        out_of_memory: false,
        started_at,
        finished_at: clock::wall(),
    };
    let report = TaskReport { phase: Phase::Exited(exit), health: None, dns_port };
    let status = Status { report: report.clone(), pid_ticks: None };
    status::write_durably(task_dir, STATUS, &status)?;
    let directory = logs::directory(&launch.data_dir, &launch.spec.task);
    if directory.exists() {
        logs::mark_ended(&directory)?;
    }
    Ok(report)
}

/// What the supervisor wrote last, where it had something to say.
fn last_words(task_dir: &Path) -> String {
    let text = fs::read(task_dir.join(LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    match text.lines().last() {
        Some(line) => line.chars().take(LAST_WORDS_CHARACTERS_MAX).collect(),
        None => "it was killed, and the task with it".to_owned(),
    }
}

/// The kernel kills the task's first process with its supervisor, and all others with that; but a
/// task may have undone the first.
fn end_process(pid: i32, ticks: Option<u64>) -> io::Result<()> {
    let deadline = clock::monotonic() + GONE_LIMIT;
    while ticks.is_some() && process_ticks(pid) == ticks {
        // It may end between the look and the signal.
        let _ = sys::kill(pid, KILL);
        if clock::monotonic() > deadline {
            let text = format!("process {pid} is still there after {GONE_LIMIT:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        detach::pause(GONE_INTERVAL);
    }
    Ok(())
}
