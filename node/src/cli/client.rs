//! The client's grammar: docker's, and Skein's own commands.

use std::io::Write;

use clap::{Args, Subcommand};

use super::http::Client;
use super::output::Out;
use super::{cluster, network, node, own, service, swarm, task};

/// Client commands.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Found, join and leave a cluster
    #[command(subcommand)]
    Swarm(swarm::SwarmCommand),
    /// Back up and restore a cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Manage nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Manage services
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Look at tasks, and run programs in them
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Why does a task reach a name, or not
    Explain(own::ExplainArgs),
    /// What a service waits for, and why
    Why(own::WhyArgs),
    /// Kernel operations that would run now on a node
    Plan(own::NodeArgs),
    /// Gossip members, rows and versions of a node
    Gossip(own::NodeArgs),
    /// Nodes, who is alive, who is where
    Top,
    /// Check this node and say what is wrong
    Doctor,
    /// What the daemon is and where it stands
    Info,
}

/// Which daemon.
#[derive(Debug, Clone, Args)]
pub struct HostArgs {
    /// The daemon's socket; of a daemon: where it listens, any number [default:
    /// unix:///run/skein/skein.sock]
    #[arg(
        short = 'H',
        long = "host",
        env = "SKEIN_HOST",
        global = true,
        value_name = "unix:///PATH"
    )]
    pub hosts: Vec<String>,
}

/// The default socket.
const DEFAULT_HOST: &str = "unix:///run/skein/skein.sock";

/// Runs a client command; returns the exit status.
pub async fn run(
    host: &HostArgs,
    command: ClientCommand,
    writer: &mut dyn Write,
) -> anyhow::Result<u8> {
    let client = Client::new(host.hosts.last().map_or(DEFAULT_HOST, String::as_str))?;
    let mut out = Out(writer);
    match command {
        ClientCommand::Swarm(command) => swarm::run(&client, command, &mut out).await?,
        ClientCommand::Cluster(command) => cluster::run(&client, command, &mut out).await?,
        ClientCommand::Node(command) => node::run(&client, command, &mut out).await?,
        ClientCommand::Network(command) => network::run(&client, command, &mut out).await?,
        ClientCommand::Service(command) => return service::run(&client, command, &mut out).await,
        ClientCommand::Task(command) => return task::run(&client, command, &mut out).await,
        ClientCommand::Explain(args) => own::explain(&client, &args, &mut out).await?,
        ClientCommand::Why(args) => own::why(&client, &args, &mut out).await?,
        ClientCommand::Plan(args) => own::plan(&client, &args, &mut out).await?,
        ClientCommand::Gossip(args) => own::gossip(&client, &args, &mut out).await?,
        ClientCommand::Top => own::top(&client, &mut out).await?,
        ClientCommand::Doctor => return own::doctor(&client, &mut out).await,
        ClientCommand::Info => out.json(&client.get("/info").await?)?,
    }
    Ok(0)
}
