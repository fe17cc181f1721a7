//! Whether the kernel can do what a node needs, found out by doing it in a namespace of its own:
//! a list of modules or versions would only say what should work.

use std::fmt;
use std::io;

use netprog::op::Op;
use netprog::plane::{Family, Link, LinkKind, Place, Table, TableKey};

use crate::namespace::Namespace;
use crate::netlink::{self, Refusal};
use crate::spaces::{new_namespace, own_namespace};
use crate::{link, nft};
use rtnetlink::sys::protocols::NETLINK_GENERIC;

/// Generic netlink's controller and its request for a family by name
/// (include/uapi/linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
const IPVS_FAMILY: &str = "IPVS";

/// What the balancer needs of nftables: concatenated keys, a dynamic map, hashing, and a change
/// of the destination MAC address in a bridge.
const TRIAL_TABLE: &str = "
    map slots { typeof ip daddr . meta mark : ether daddr; }
    map flows { typeof ip daddr . meta mark : ether daddr; flags dynamic,timeout; timeout 1m; }
    chain pre {
        type filter hook prerouting priority -300
        meta mark set jhash ip saddr . tcp sport mod 251 seed 0x5eed
        ether daddr set ip daddr . meta mark map @slots
        add @flows { ip daddr . meta mark : ether daddr }
    }";

/// Something that a node cannot do without; `Display` names it and the remedy.
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// What a node cannot do without; empty on a usable machine.
    pub missing: Vec<Missing>,
    /// As the program names itself: `1.0.6`.
    pub nft_version: Option<String>,
    /// IPVS is there.
    pub ip_vs: bool,
}

/// Tries everything once. Blocks for some milliseconds and leaves nothing behind.
pub fn probe() -> io::Result<Capabilities> {
    let mut found = Capabilities { nft_version: nft_version(), ..Capabilities::default() };
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
            if let Some((_, refusal)) = nft::apply(&[trial_table()]).await.pop() {
                missing.push(Missing::Nftables(refusal.text));
            }
            missing
        })?
        .wait()?;
    let host = Namespace::enter("probe", own_namespace()?)?;
    found.ip_vs = host.run(has_ipvs)?;
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

fn trial_table() -> Op {
    let key = TableKey { family: Family::Bridge, name: "skein-probe".to_owned() };
    let table =
        Table { digest: "probe".to_owned(), structure: TRIAL_TABLE.to_owned(), ..Table::default() };
    Op::LoadTable(Place::Host, key, table)
}

/// `nftables v1.0.6 (Lester Gooch #5)`.
fn nft_version() -> Option<String> {
    let output = std::process::Command::new("nft").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    Some(version.to_owned())
}

/// Whether generic netlink has the IPVS family; asking loads the module where there is one.
fn has_ipvs() -> bool {
    match ask_for_family(IPVS_FAMILY) {
        Ok(answer) => answer,
        Err(refusal) => {
            tracing::debug!(error = %refusal, "ask for the IPVS family");
            false
        }
    }
}

fn ask_for_family(name: &str) -> Result<bool, Refusal> {
    let socket = netlink::open(NETLINK_GENERIC)?;
    let sequence = netlink::next_sequence(1);
    let message = netlink::encode(
        sequence,
        CONTROLLER,
        netlink_packet_core::NLM_F_REQUEST,
        &[GET_FAMILY, 1, 0, 0],
        &[(FAMILY_NAME, name)],
    );
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    Ok(kind == Some(CONTROLLER))
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
    fn families_are_told_apart() {
        assert!(ask_for_family("nlctrl").unwrap());
        assert!(!ask_for_family("skein-nix").unwrap());
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
