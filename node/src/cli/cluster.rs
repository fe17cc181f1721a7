//! `skein cluster …`: what Docker has no command for.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use cluster::assign::Kept;
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

/// Writes to a file of another name, checks that, and gives it its name: a broken transfer leaves
/// no backup, and no file is overwritten.
async fn write_backup(client: &Client, file: &Path) -> anyhow::Result<backup::Head> {
    let failed = || format!("write backup {}", file.display());
    anyhow::ensure!(!file.exists(), "{} exists: give another name", file.display());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // Only its owner reads it: it holds the CA's key.
    let mut unfinished =
        tempfile::Builder::new().suffix(".unfinished").tempfile_in(folder).with_context(failed)?;
    receive(client, unfinished.as_file_mut()).await.with_context(failed)?;
    let head = backup::inspect(unfinished.path()).with_context(failed)?;
    unfinished.persist_noclobber(file).with_context(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(failed)?;
    Ok(head)
}

async fn receive(client: &Client, file: &mut File) -> anyhow::Result<()> {
    let response = client.send(Method::GET, "/skein/v1/backup", None).await?;
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
    let assigned = data.worker().join("assignment.json");
    let kept: Option<Kept> = disk::read_json(&assigned)?;
    let assignment = kept.map(|kept| kept.assignment());
    let assignment = assignment.with_context(|| {
        format!(
            "{} is not there, and nothing else tells who has the log too: if other managers run, \
             remove {} and join this node again",
            assigned.display(),
            path.display()
        )
    })?;
    check_others(&assignment, identity.node)?;
    data.give_up_log(&identity)?;
    out.line("Log and snapshots removed. Start the daemon: the other managers give it everything.")
}

/// The log is removed only where a majority gives it back.
fn check_others(assignment: &Assignment, own: NodeId) -> anyhow::Result<()> {
    let is_other = |(id, node): &(&NodeId, &AssignedNode)| node.manager.is_some() && **id != own;
    let others: Vec<&NodeId> = assignment.nodes.iter().filter(is_other).map(|n| n.0).collect();
    match others.as_slice() {
        [] => anyhow::bail!(
            "node {own} is the only manager, and nobody else has the log: restore a backup"
        ),
        [other] => anyhow::bail!(
            "the only other manager, {other}, is no majority, and cannot give this one the log: \
             let it go on alone by `docker swarm init --force-new-cluster` there, then remove this \
             data directory and join this node again"
        ),
        _majority => Ok(()),
    }
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

#[test]
fn a_log_is_wiped_only_where_a_majority_has_it() {
    let state = crate::fixture::cluster();
    let mut assignment = cluster::assignment_for(&state, NodeId(1)).expect("a member's");
    let own = assignment.node;
    let manager = |address: &str| AssignedNode {
        manager: Some(address.parse().unwrap()),
        ..assignment.nodes[&own].clone()
    };
    let (second, third) = (manager("192.0.2.2:2377"), manager("192.0.2.3:2377"));
    let alone = check_others(&assignment, own).unwrap_err().to_string();
    assert!(alone.contains("the only manager"), "{alone}");
    assignment.nodes.insert(NodeId(72), second);
    let two = check_others(&assignment, own).unwrap_err().to_string();
    assert!(two.contains("--force-new-cluster"), "{two}");
    assignment.nodes.insert(NodeId(73), third);
    check_others(&assignment, own).unwrap();
}
