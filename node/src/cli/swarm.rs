//! `skein swarm …`.

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use self::settings::{CaArgs, UnlockKeyArgs, UpdateArgs};
use super::http::Client;
use super::output::{Out, text};

mod settings;

/// `skein swarm …`.
#[derive(Debug, Subcommand)]
pub enum SwarmCommand {
    /// Found a cluster with this node as its manager
    Init(InitArgs),
    /// Join a cluster
    Join(JoinArgs),
    /// Leave the cluster
    Leave {
        /// Although this node is a manager, or nobody records it
        #[arg(short, long)]
        force: bool,
    },
    /// Print how another node joins
    JoinToken(TokenArgs),
    /// Print the cluster's CA certificate, or put another CA in its place
    Ca(CaArgs),
    /// Give a manager that was restarted the key of its disk
    Unlock,
    /// Print the key that managers need when they start
    UnlockKey(UnlockKeyArgs),
    /// Change the cluster's settings
    Update(UpdateArgs),
}

/// Addresses of a member.
#[derive(Debug, Args)]
pub struct AddressArgs {
    /// IP or interface that peers reach this node at
    #[arg(long, default_value = "")]
    advertise_addr: String,
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// IP or interface for VXLAN
    #[arg(long, default_value = "")]
    data_path_addr: String,
    /// active, pause or drain
    #[arg(long, default_value = "active")]
    availability: String,
}

/// Flags of `swarm init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    addresses: AddressArgs,
    /// UDP port of VXLAN
    #[arg(long, default_value_t = 0)]
    data_path_port: u16,
    /// Pools that subnets are taken from
    #[arg(long)]
    default_addr_pool: Vec<String>,
    /// Prefix length of a taken subnet
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u8,
    /// Go on with what this manager has on disk, without the other managers, which are lost
    #[arg(long)]
    force_new_cluster: bool,
}

/// Flags of `swarm join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    #[command(flatten)]
    addresses: AddressArgs,
    /// What `swarm join-token` printed
    #[arg(long)]
    token: String,
    /// A manager
    #[arg(value_name = "HOST:PORT", required = true)]
    managers: Vec<String>,
}

/// Roles that have a token.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TokenRole {
    /// Runs tasks.
    Worker,
    /// Votes in Raft.
    Manager,
}

/// Flags of `swarm join-token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    role: TokenRole,
    /// Print the token only
    #[arg(short, long)]
    quiet: bool,
    /// Make a new one; the old one admits nobody any more
    #[arg(long)]
    rotate: bool,
}

/// Runs it.
pub async fn run(client: &Client, command: SwarmCommand, out: &mut Out<'_>) -> anyhow::Result<()> {
    match command {
        SwarmCommand::Init(args) => init(client, args, out).await,
        SwarmCommand::Join(args) => join(client, args, out).await,
        SwarmCommand::Leave { force } => {
            let path = if force { "/swarm/leave?force=1" } else { "/swarm/leave" };
            client.post(path, &json!({})).await?;
            out.line("Node left the swarm.")
        }
        SwarmCommand::JoinToken(args) => join_token(client, args, out).await,
        SwarmCommand::Ca(args) => settings::ca(client, args, out).await,
        SwarmCommand::Unlock => settings::unlock(client).await,
        SwarmCommand::UnlockKey(args) => settings::unlock_key(client, args, out).await,
        SwarmCommand::Update(args) => settings::update(client, args, out).await,
    }
}

async fn init(client: &Client, args: InitArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let body = json!({
        "ListenAddr": args.addresses.listen_addr,
        "AdvertiseAddr": args.addresses.advertise_addr,
        "DataPathAddr": args.addresses.data_path_addr,
        "DataPathPort": args.data_path_port,
        "DefaultAddrPool": args.default_addr_pool,
        "SubnetSize": args.default_addr_pool_mask_length,
        "Availability": args.addresses.availability,
        "ForceNewCluster": args.force_new_cluster,
        "Spec": {},
    });
    let node = client.post("/swarm/init", &body).await?;
    let node = node.as_str().unwrap_or_default();
    out.line(format!("Swarm initialized: current node ({node}) is now a manager.\n"))?;
    out.line("To add a worker to this swarm, run the following command:\n")?;
    print_command(client, TokenRole::Worker, out).await?;
    out.line("\nTo add a manager, run 'skein swarm join-token manager' and follow its words.")
}

async fn join(client: &Client, args: JoinArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let body = json!({
        "ListenAddr": args.addresses.listen_addr,
        "AdvertiseAddr": args.addresses.advertise_addr,
        "DataPathAddr": args.addresses.data_path_addr,
        "Availability": args.addresses.availability,
        "RemoteAddrs": args.managers,
        "JoinToken": args.token,
    });
    client.post("/swarm/join", &body).await?;
    let info = client.get("/info").await?;
    let manager = info.pointer("/Swarm/ControlAvailable") == Some(&json!(true));
    let role = if manager { "manager" } else { "worker" };
    out.line(format!("This node joined a swarm as a {role}."))
}

async fn join_token(client: &Client, args: TokenArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    if args.rotate {
        let swarm = client.get("/swarm").await?;
        let flag = match args.role {
            TokenRole::Worker => "rotateWorkerToken",
            TokenRole::Manager => "rotateManagerToken",
        };
        let version = text(&swarm, "/Version/Index");
        client.post(&format!("/swarm/update?version={version}&{flag}=1"), &swarm["Spec"]).await?;
    }
    if args.quiet {
        return out.line(token(client, args.role).await?);
    }
    let name = match args.role {
        TokenRole::Worker => "worker",
        TokenRole::Manager => "manager",
    };
    out.line(format!("To add a {name} to this swarm, run the following command:\n"))?;
    print_command(client, args.role, out).await
}

async fn token(client: &Client, role: TokenRole) -> anyhow::Result<String> {
    let swarm = client.get("/swarm").await?;
    let pointer = match role {
        TokenRole::Worker => "/JoinTokens/Worker",
        TokenRole::Manager => "/JoinTokens/Manager",
    };
    match text(&swarm, pointer) {
        token if token.is_empty() => bail!("the manager gave no token"),
        token => Ok(token),
    }
}

async fn print_command(client: &Client, role: TokenRole, out: &mut Out<'_>) -> anyhow::Result<()> {
    let token = token(client, role).await?;
    let info = client.get("/info").await?;
    let node = client.get(&format!("/nodes/{}", text(&info, "/Swarm/NodeID"))).await?;
    let address = text(&node, "/ManagerStatus/Addr");
    out.line(format!("    skein swarm join --token {token} {address}"))
}
