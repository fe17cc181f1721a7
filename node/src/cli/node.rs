//! `skein node …`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::http::{Client, escape};
use super::output::{ListArgs, Out, capitalise, items, text};
use super::task;

/// `skein node …`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    Ls(ListArgs),
    /// Print nodes whole
    Inspect {
        /// Ids or names; `self` is this node
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Change a node
    Update(UpdateArgs),
    /// List tasks of a node
    Ps {
        /// Id or name
        #[arg(default_value = "self")]
        node: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Make workers managers
    Promote {
        /// Ids or names
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Make managers workers
    Demote {
        /// Ids or names
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Forget nodes
    Rm {
        /// Although they are up
        #[arg(short, long)]
        force: bool,
        /// Ids or names
        #[arg(required = true)]
        nodes: Vec<String>,
    },
}

/// Flags of `node update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// active, pause or drain
    #[arg(long)]
    availability: Option<String>,
    /// worker or manager
    #[arg(long)]
    role: Option<String>,
    /// NAME=VALUE
    #[arg(long)]
    label_add: Vec<String>,
    /// NAME
    #[arg(long)]
    label_rm: Vec<String>,
    /// Id or name
    node: String,
}

/// Runs it.
pub async fn run(client: &Client, command: NodeCommand, out: &mut Out<'_>) -> anyhow::Result<()> {
    match command {
        NodeCommand::Ls(list) => ls(client, &list, out).await,
        NodeCommand::Inspect { nodes } => {
            let mut found = Vec::new();
            for node in nodes {
                found.push(get(client, &node).await?);
            }
            out.json(&Value::Array(found))
        }
        NodeCommand::Update(args) => update(client, args, out).await,
        NodeCommand::Ps { node, list } => {
            let id = text(&get(client, &node).await?, "/ID");
            task::list(client, &json!({"node": [id]}), &list, out).await
        }
        NodeCommand::Promote { nodes } => set_role(client, nodes, "manager", out).await,
        NodeCommand::Demote { nodes } => set_role(client, nodes, "worker", out).await,
        NodeCommand::Rm { force, nodes } => {
            for node in nodes {
                let force = if force { "?force=1" } else { "" };
                client.delete(&format!("/nodes/{}{force}", escape(&node))).await?;
                out.line(node)?;
            }
            Ok(())
        }
    }
}

async fn get(client: &Client, node: &str) -> anyhow::Result<Value> {
    let id = match node {
        "self" => text(&client.get("/info").await?, "/Swarm/NodeID"),
        other => other.to_owned(),
    };
    client.get(&format!("/nodes/{}", escape(&id))).await
}

async fn ls(client: &Client, list: &ListArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let nodes = client.get("/nodes").await?;
    let own = text(&client.get("/info").await?, "/Swarm/NodeID");
    let header = ["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ADDRESS"];
    out.list(list, items(&nodes), &header, |node| {
        let id = text(node, "/ID");
        let mark = if id == own { " *" } else { "" };
        let leader = node.pointer("/ManagerStatus/Leader") == Some(&json!(true));
        let manager = if leader {
            "Leader".to_owned()
        } else {
            capitalise(&text(node, "/ManagerStatus/Reachability"))
        };
        vec![
            format!("{id}{mark}"),
            text(node, "/Description/Hostname"),
            capitalise(&text(node, "/Status/State")),
            capitalise(&text(node, "/Spec/Availability")),
            manager,
            text(node, "/Status/Addr"),
        ]
    })
}

/// A node that has the role is left as it is.
async fn set_role(
    client: &Client,
    nodes: Vec<String>,
    role: &str,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    for name in nodes {
        let node = get(client, &name).await?;
        let mut spec = node["Spec"].clone();
        spec["Role"] = json!(role);
        put(client, &node, &spec).await?;
        out.line(name)?;
    }
    Ok(())
}

async fn put(client: &Client, node: &Value, spec: &Value) -> anyhow::Result<()> {
    let (id, version) = (text(node, "/ID"), text(node, "/Version/Index"));
    client.post(&format!("/nodes/{id}/update?version={version}"), spec).await?;
    Ok(())
}

async fn update(client: &Client, args: UpdateArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let node = get(client, &args.node).await?;
    let mut spec = node["Spec"].clone();
    if let Some(availability) = args.availability {
        spec["Availability"] = json!(availability);
    }
    if let Some(role) = args.role {
        spec["Role"] = json!(role);
    }
    if !spec["Labels"].is_object() {
        spec["Labels"] = json!({});
    }
    for label in &args.label_add {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        spec["Labels"][name] = json!(value);
    }
    if let Some(labels) = spec["Labels"].as_object_mut() {
        labels.retain(|name, _| !args.label_rm.contains(name));
    }
    put(client, &node, &spec).await?;
    out.line(args.node)
}
