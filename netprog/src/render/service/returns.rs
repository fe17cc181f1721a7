//! The return path of calls to published ports, in the bridge of the ingress fabric: a reply that
//! leaves a sandbox as `VIP:<ingress port>` is sent to the MAC of `ing0` on the node that the port
//! belongs to. It is the same for both balancers, and always done in the bridge, so that no fabric
//! has to forward.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::net::MacAddr;

use crate::plane::Table;
use crate::plane::element::{Element, Part};

/// Fragmented packets in flight at the same time.
const FRAGMENTS_MAX: u32 = 65_536;

/// Fragments after the first carry no ports: they follow the first.
pub(super) const FRAGMENTS: Fragments = Fragments {
    later: "  ip frag-off & 0x1fff != 0 ether daddr set ip saddr . ip daddr . ip id map \
            @fragments accept\n",
    first: "  ip frag-off & 0x2000 != 0 update @fragments \
            { ip saddr . ip daddr . ip id : ether daddr }\n",
};

/// Statements of a chain that chooses the destination MAC by ports.
pub(super) struct Fragments {
    /// Before the ports are matched.
    pub(super) later: &'static str,
    /// After the destination was chosen.
    pub(super) first: &'static str,
}

/// The map in which the first fragment records its destination.
pub(super) fn fragments_map() -> String {
    format!(
        "map fragments {{ typeof ip saddr . ip daddr . ip id : ether daddr; \
         flags dynamic,timeout; timeout 10s; size {FRAGMENTS_MAX}; }}\n"
    )
}

/// Declaration of the map from VIP and ingress port to a node's `ing0`.
pub(super) const MAP: &str = "map returns { type ipv4_addr . inet_service : ether_addr; }\n";

/// The chain that redirects replies.
pub(super) fn chain() -> String {
    let Fragments { later, first } = FRAGMENTS;
    format!(
        "chain from-vip {{
{later}  meta l4proto {{ tcp, udp }} ether daddr set ip saddr . th sport map @returns
{first}}}
"
    )
}

/// Fills the map.
pub(super) fn fill(returns: &BTreeMap<(IpAddr, u16), MacAddr>, table: &mut Table) {
    let element = |((vip, port), mac): (&(IpAddr, u16), &MacAddr)| {
        (Element::of([(*vip).into(), Part::Port(*port)]), Element::of([Part::Mac(*mac)]))
    };
    table.maps.insert("returns".to_owned(), returns.iter().map(element).collect());
}
