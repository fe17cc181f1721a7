//! `skein network …`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::http::{Client, escape};
use super::output::{ListArgs, Out, items, text};

/// `skein network …`.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Create an overlay network
    Create(CreateArgs),
    /// List networks
    Ls(ListArgs),
    /// Print networks whole
    Inspect {
        /// Ids or names
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Remove networks
    Rm {
        /// Ids or names
        #[arg(required = true)]
        networks: Vec<String>,
    },
}

/// Flags of `network create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Prefix; chosen from the pools unless given
    #[arg(long)]
    subnet: Option<String>,
    /// Address of the bridge
    #[arg(long)]
    gateway: Option<String>,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// Docker's word; overlay is the only driver
    #[arg(short, long, default_value = "overlay")]
    driver: String,
    /// NAME=VALUE
    #[arg(short, long)]
    opt: Vec<String>,
    /// NAME=VALUE
    #[arg(long)]
    label: Vec<String>,
    name: String,
}

/// `NAME=VALUE` pairs.
pub fn pairs(texts: &[String]) -> BTreeMap<&str, &str> {
    texts.iter().map(|text| text.split_once('=').unwrap_or((text, ""))).collect()
}

/// Runs it.
pub async fn run(
    client: &Client,
    command: NetworkCommand,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    match command {
        NetworkCommand::Create(args) => create(client, args, out).await,
        NetworkCommand::Ls(list) => {
            let networks = client.get("/networks").await?;
            let header = ["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNET"];
            out.list(&list, items(&networks), &header, |network| {
                let id: String = text(network, "/Id").chars().take(12).collect();
                vec![
                    id,
                    text(network, "/Name"),
                    text(network, "/Driver"),
                    text(network, "/Scope"),
                    subnets(network),
                ]
            })
        }
        NetworkCommand::Inspect { networks } => {
            let mut found = Vec::new();
            for network in networks {
                found.push(client.get(&format!("/networks/{}", escape(&network))).await?);
            }
            out.json(&Value::Array(found))
        }
        NetworkCommand::Rm { networks } => {
            for network in networks {
                client.delete(&format!("/networks/{}", escape(&network))).await?;
                out.line(network)?;
            }
            Ok(())
        }
    }
}

/// Of each family that the network has, IPv4 first.
fn subnets(network: &Value) -> String {
    let pools = network.pointer("/IPAM/Config").map_or(&[][..], items);
    pools.iter().map(|pool| text(pool, "/Subnet")).collect::<Vec<_>>().join(" ")
}

async fn create(client: &Client, args: CreateArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut pool = serde_json::Map::new();
    if let Some(subnet) = args.subnet {
        pool.insert("Subnet".to_owned(), json!(subnet));
    }
    if let Some(gateway) = args.gateway {
        pool.insert("Gateway".to_owned(), json!(gateway));
    }
    let config = if pool.is_empty() { json!([]) } else { json!([pool]) };
    let body = json!({
        "Name": args.name,
        "Driver": args.driver,
        "Internal": args.internal,
        "IPAM": { "Config": config },
        "Options": pairs(&args.opt),
        "Labels": pairs(&args.label),
    });
    let created = client.post("/networks/create", &body).await?;
    out.line(text(&created, "/Id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_subnets_of_a_network_are_listed() {
        let pools = |config| subnets(&json!({"IPAM": {"Config": config}}));
        assert_eq!(pools(json!([])), "");
        let four = json!({"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"});
        assert_eq!(pools(json!([four])), "10.0.1.0/24");
        assert_eq!(pools(json!([four, {"Subnet": "fd00::/64"}])), "10.0.1.0/24 fd00::/64");
    }
}
