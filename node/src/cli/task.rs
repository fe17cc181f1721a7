//! `skein task …`, and the list of tasks that others print.

use clap::Subcommand;
use serde_json::Value;

use super::http::{Client, escape};
use super::output::{ListArgs, Out, capitalise, items, text};

/// `skein task …`.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// List all tasks
    Ls(ListArgs),
    /// Print a task whole
    Inspect {
        /// Its id
        task: String,
    },
    /// Run a program in a running task; its exit status is the program's
    Exec(super::exec::ExecArgs),
}

/// Runs it.
pub async fn run(client: &Client, command: TaskCommand, out: &mut Out<'_>) -> anyhow::Result<u8> {
    match command {
        TaskCommand::Ls(args) => list(client, &serde_json::json!({}), &args, out).await?,
        TaskCommand::Inspect { task } => {
            out.json(&client.get(&format!("/tasks/{}", escape(&task))).await?)?;
        }
        TaskCommand::Exec(args) => return super::exec::run(client, args).await,
    }
    Ok(0)
}

/// Lists tasks that a filter leaves.
pub async fn list(
    client: &Client,
    filter: &Value,
    args: &ListArgs,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    let tasks = client.get(&format!("/tasks?filters={}", escape(&filter.to_string()))).await?;
    let services = client.get("/services").await?;
    let nodes = client.get("/nodes").await?;
    let name_of = |list: &Value, id: &str, pointer: &str| {
        let found = items(list).iter().find(|item| text(item, "/ID") == id);
        found.map_or_else(|| id.to_owned(), |item| text(item, pointer))
    };
    let mut sorted: Vec<Value> = items(&tasks).to_vec();
    let key =
        |task: &Value| (text(task, "/ServiceID"), task["Slot"].as_u64(), text(task, "/CreatedAt"));
    sorted.sort_by_key(key);
    let header = ["ID", "NAME", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR"];
    out.list(args, &sorted, &header, |task| {
        let slot = match text(task, "/Slot") {
            none if none.is_empty() || none == "0" => text(task, "/NodeID"),
            slot => slot,
        };
        let service = name_of(&services, &text(task, "/ServiceID"), "/Spec/Name");
        vec![
            text(task, "/ID").chars().take(12).collect(),
            format!("{service}.{slot}"),
            name_of(&nodes, &text(task, "/NodeID"), "/Description/Hostname"),
            capitalise(&text(task, "/DesiredState")),
            capitalise(&text(task, "/Status/State")),
            text(task, "/Status/Err"),
        ]
    })
}
