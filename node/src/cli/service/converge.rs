//! Waiting until a service is as its spec says, with progress for people.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::http::{Client, escape};
use crate::cli::output::{Out, items, text};

/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Looks in a row that must be good, so that a task that ends at once is not called running.
const GOOD_LOOKS: u32 = 5;

/// Waits; status 1 if an update paused. Prints a line whenever the count changes.
pub(super) async fn wait(
    client: &Client,
    id: &str,
    detach: bool,
    out: &mut Out<'_>,
) -> anyhow::Result<u8> {
    if detach {
        return Ok(0);
    }
    let mut shown = String::new();
    let mut good = 0;
    loop {
        let service = client.get(&format!("/services/{id}")).await?;
        let state = text(&service, "/UpdateStatus/State");
        if state == "paused" || state == "rollback_paused" {
            out.line(format!(
                "service update paused: {}",
                text(&service, "/UpdateStatus/Message")
            ))?;
            return Ok(1);
        }
        let (running, wanted, trouble) = progress(client, id).await?;
        let line = format!("{running} of {wanted} tasks run{trouble}");
        if line != shown {
            out.line(&line)?;
            shown = line;
        }
        good = if running >= wanted && state != "updating" { good + 1 } else { 0 };
        if good >= GOOD_LOOKS {
            out.line("verify: service converged")?;
            return Ok(0);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Tasks that run, tasks that should, and the newest reason why one does not.
async fn progress(client: &Client, id: &str) -> anyhow::Result<(usize, usize, String)> {
    let filter = json!({ "service": [id], "_up-to-date": ["true"] }).to_string();
    let tasks = client.get(&format!("/tasks?filters={}", escape(&filter))).await?;
    let listed = client.get("/services?status=true").await?;
    let own = items(&listed).iter().find(|service| text(service, "/ID") == id);
    let wanted = own.and_then(|s| s.pointer("/ServiceStatus/DesiredTasks"));
    let wanted = wanted.and_then(Value::as_u64).unwrap_or(0);
    let is = |task: &&Value, state: &str| {
        text(task, "/Status/State") == state && text(task, "/DesiredState") == "running"
    };
    let running = items(&tasks).iter().filter(|task| is(task, "running")).count();
    let mut troubled: Vec<&Value> =
        items(&tasks).iter().filter(|task| !text(task, "/Status/Err").is_empty()).collect();
    troubled.sort_by_key(|task| text(task, "/UpdatedAt"));
    let trouble = troubled.last().map(|task| format!(" ({})", text(task, "/Status/Err")));
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    Ok((running, wanted, trouble.unwrap_or_default()))
}
