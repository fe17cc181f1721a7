//! Whether the kernel supports what a node needs. It is tried in a separate namespace, because a
//! list of modules or versions only says what should work.

use std::fmt;
use std::io;

use netprog::op::{IpvsOp, NftChange, NftOp};
use netprog::plane::ipvs::{FLAG_FALLBACK, FLAG_PORT, Scheduler, VirtualKey};
use netprog::plane::{Family, Link, LinkKind, Table, TableKey};

use crate::namespace::Namespace;
use crate::spaces::{new_namespace, own_namespace};
use crate::{ipvs, link, nft};

/// What the balancer needs of nftables: concatenated keys, a dynamic map whose elements packets
/// add and delete, hashing, and a change of the destination MAC address in a bridge.
const TRIAL_TABLE: &str = "
    map slots { typeof ip daddr . meta mark : ether daddr; }
    map flows { typeof ip daddr . meta mark : ether daddr; flags dynamic,timeout; timeout 1m; }
    chain pre {
        type filter hook prerouting priority -300
        meta mark set jhash ip saddr . tcp sport mod 251 seed 0x5eed
        ether daddr set ip daddr . meta mark map @slots
        delete @flows { ip daddr . meta mark : ether daddr }
        update @flows { ip daddr . meta mark timeout 5m : ether daddr }
    }";

/// A missing requirement; `Display` states it and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Namespaces cannot be made.
    Privileges(String),
    /// No VXLAN devices.
    Vxlan(String),
    /// No bridges.
    Bridge(String),
    /// The nft program or the kernel's nftables lack something.
    Nftables(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privileges(why) => write!(
                f,
                "cannot make a network namespace ({why}): run as root, or give the daemon \
                 CAP_SYS_ADMIN and CAP_NET_ADMIN"
            ),
            Self::Vxlan(why) => write!(
                f,
                "cannot make a VXLAN device ({why}): load the kernel module vxlan (CONFIG_VXLAN)"
            ),
            Self::Bridge(why) => write!(
                f,
                "cannot make a bridge ({why}): load the kernel module bridge (CONFIG_BRIDGE)"
            ),
            Self::Nftables(why) => write!(
                f,
                "cannot use nftables in a bridge ({why}): install nftables 1.0.6 or newer, and \
                 load the kernel modules nf_tables and nf_tables_bridge \
                 (CONFIG_NF_TABLES_BRIDGE)"
            ),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Missing requirements; empty on a usable machine.
    pub missing: Vec<Missing>,
    /// As the program names itself: `1.0.6`.
    pub nft_version: Option<String>,
    /// IPVS can balance; the reason if it cannot.
    pub ipvs: Result<(), String>,
}

/// Tries everything once. Blocks for some milliseconds and leaves nothing behind.
pub fn probe() -> io::Result<Capabilities> {
    let mut found = Capabilities { missing: Vec::new(), nft_version: nft_version(), ipvs: Ok(()) };
    let entered = new_namespace().and_then(|fd| Namespace::enter("probe", fd));
    let trial = match entered {
        Ok(namespace) => namespace,
        Err(error) => {
            found.missing.push(Missing::Privileges(error.to_string()));
            return Ok(found);
        }
    };
    found.missing = trial
        .start(|inside| async move {
            let mut missing = Vec::new();
            if let Err(refusal) = link::create(&inside, "br0", &bridge(), None).await {
                missing.push(Missing::Bridge(refusal.text));
            }
            if let Err(refusal) = link::create(&inside, "vx0", &vxlan(), None).await {
                missing.push(Missing::Vxlan(refusal.text));
            }
            let socket = inside.nft.borrow().socket();
            if let Some((_, refusal)) = nft::apply(&socket, &[trial_table()]).await.pop() {
                missing.push(Missing::Nftables(refusal.text));
            }
            missing
        })?
        .wait()?;
    let host = Namespace::enter("probe", own_namespace()?)?;
    found.ipvs = match host.run(load_ipvs)? {
        Ok(()) => trial.run(try_ipvs)?,
        lacking => lacking,
    };
    Ok(found)
}

fn link_of(kind: LinkKind) -> Link {
    let alias = String::new();
    Link { kind, up: false, mtu: 1450, mac: None, master: None, alias, port: None }
}

fn bridge() -> Link {
    link_of(LinkKind::Bridge)
}

fn vxlan() -> Link {
    let vni = cluster::net::Vni::FIRST;
    let local = std::net::Ipv4Addr::LOCALHOST.into();
    link_of(LinkKind::Vxlan { vni, local, port: 4789 })
}

fn trial_table() -> NftOp {
    let key = TableKey { family: Family::Bridge, name: "skein-probe".to_owned() };
    let table =
        Table { digest: "probe".to_owned(), structure: TRIAL_TABLE.to_owned(), ..Table::default() };
    NftOp { table: key, change: NftChange::Load(table) }
}

/// `nftables v1.0.6 (Lester Gooch #5)`.
fn nft_version() -> Option<String> {
    let output = std::process::Command::new("nft").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    Some(version.to_owned())
}

/// Lets the kernel load the IPVS modules; the reason if IPVS cannot be used.
fn load_ipvs() -> Result<(), String> {
    match ipvs::Client::load() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("the kernel has no ip_vs: load the module ip_vs (CONFIG_IP_VS)".to_owned()),
        Err(refusal) => Err(refusal.text),
    }
}

/// Makes the services that a fabric would have.
fn try_ipvs() -> Result<(), String> {
    let client = ipvs::Client::open().map_err(|refusal| refusal.text)?;
    let client = client.ok_or("ip_vs works in the host's network namespace only")?;
    let services = [false, true].map(|ipv6| {
        let scheduler = Scheduler { name: "mh".to_owned(), flags: FLAG_FALLBACK | FLAG_PORT };
        IpvsOp::SetService(VirtualKey { ipv6, fwmark: 1 }, scheduler)
    });
    match client.apply(&services).into_iter().next() {
        None => Ok(()),
        Some((at, refusal)) => {
            let family = if at == 0 { "IPv4" } else { "IPv6" };
            Err(format!(
                "it refuses a service of {family} with scheduler mh ({}): load the module \
                 ip_vs_mh (CONFIG_IP_VS_MH, CONFIG_IP_VS_IPV6)",
                refusal.text
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_run_a_node() {
        let found = probe().unwrap();
        assert_eq!(found.missing, []);
        assert!(found.nft_version.is_some());
    }

    #[test]
    fn what_is_missing_comes_with_its_remedy() {
        let text = Missing::Vxlan("operation not supported".to_owned()).to_string();
        assert_eq!(
            text,
            "cannot make a VXLAN device (operation not supported): load the kernel module vxlan \
             (CONFIG_VXLAN)"
        );
    }
}
