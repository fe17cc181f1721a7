//! `skein cluster …`: what Docker has no command for.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use cluster::assignment::{AssignedNode, Assignment};
use cluster::id::NodeId;
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::json;

use super::http::Client;
use super::output::Out;
use crate::backup;
use crate::disk;
use crate::identity::DataDir;

/// A backup holds the CA's key: only its owner reads it.
const FILE_MODE: u32 = 0o600;

/// `skein cluster …`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Write the cluster's state to a file, while it runs
    Backup {
        /// The file; it must not exist, and is as secret as a manager's disk
        file: PathBuf,
    },
    /// Check a backup and print what it is of; asks no daemon
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Make this node the only manager of the cluster that a backup holds
    Restore(RestoreArgs),
    /// Wipe the log of a manager that is damaged or gone, so that its daemon gets everything from
    /// the other managers; the daemon must not run
    Rejoin {
        /// The daemon's data directory
        #[arg(long, default_value = "/var/lib/skein")]
        data_dir: PathBuf,
    },
}

/// Flags of `cluster restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// IP or interface that peers reach this node at: the one of a manager that they know
    #[arg(long, default_value = "")]
    advertise_addr: String,
    /// Where to listen
    #[arg(long, default_value = "")]
    listen_addr: String,
    /// IP or interface for VXLAN
    #[arg(long, default_value = "")]
    data_path_addr: String,
    /// The file
    file: PathBuf,
}

/// Runs it.
pub async fn run(
    client: &Client,
    command: ClusterCommand,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Backup { file } => {
            let head = write_backup(client, &file).await?;
            out.line(format!(
                "Backup of cluster {} at revision {} written: {} services, {} networks.",
                head.cluster, head.revision.0, head.services, head.networks
            ))
        }
        ClusterCommand::Inspect { file } => {
            out.json(&serde_json::to_value(backup::inspect(&file)?)?)
        }
        ClusterCommand::Rejoin { data_dir } => rejoin(&data_dir, out),
        ClusterCommand::Restore(args) => restore(client, args, out).await,
    }
}

/// Writes to a file of another name, checks that, and renames it: a broken transfer leaves no
/// backup.
async fn write_backup(client: &Client, file: &Path) -> anyhow::Result<backup::Head> {
    anyhow::ensure!(!file.exists(), "{} exists: give another name", file.display());
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let written = receive(client, &unfinished).await.and_then(|()| {
        let head = backup::inspect(&unfinished)?;
        std::fs::rename(&unfinished, file)?;
        Ok(head)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    written.with_context(|| format!("write backup {}", file.display()))
}

async fn receive(client: &Client, path: &Path) -> anyhow::Result<()> {
    let response = client.send(Method::GET, "/skein/v1/backup", None).await?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            file.write_all(&data)?;
        }
    }
    file.sync_all()?;
    Ok(())
}

fn rejoin(path: &Path, out: &mut Out<'_>) -> anyhow::Result<()> {
    let node = path.join("node.json");
    anyhow::ensure!(node.exists(), "{} is not there: give the daemon's --data-dir", node.display());
    let data = DataDir::open(path)?;
    let Some(identity) = data.identity()? else {
        anyhow::bail!("{} belongs to a node of no cluster", path.display())
    };
    anyhow::ensure!(
        identity.raft_id.is_some(),
        "node {} is a worker: it has no log",
        identity.node
    );
    let assignment: Option<Assignment> = disk::read_json(&data.worker().join("assignment.json"))?;
    let is_other =
        |(id, node): (&NodeId, &AssignedNode)| node.manager.is_some() && *id != identity.node;
    if let Some(assignment) = assignment {
        anyhow::ensure!(
            assignment.nodes.iter().any(is_other),
            "node {} is the only manager, and nobody else has the log: restore a backup",
            identity.node
        );
    }
    data.give_up_log(&identity)?;
    out.line("Log and snapshots removed. Start the daemon: the other managers give it everything.")
}

async fn restore(client: &Client, args: RestoreArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let path = std::path::absolute(&args.file)?;
    let body = json!({
        "Path": path,
        "AdvertiseAddr": args.advertise_addr,
        "ListenAddr": args.listen_addr,
        "DataPathAddr": args.data_path_addr,
    });
    let node = client.post("/skein/v1/restore", &body).await?;
    let node = node.as_str().unwrap_or_default();
    out.line(format!("Cluster restored: current node ({node}) is its only manager."))
}
