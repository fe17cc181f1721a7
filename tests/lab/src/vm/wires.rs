//! The guests' underlay: the one of the namespace lab, with a TAP as each node's wire in place of
//! a namespace. The bridge has an address of its own, by which the machine that runs the test
//! speaks with the guests' agents: links between guests can be cut without cutting that.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::command::ip;
use crate::net::{self, Host, Wires};

/// Last byte of the bridge's address.
const BRIDGE_LAST: u8 = 1;
/// Bits of the underlay's prefix.
pub const PREFIX: u8 = 24;

/// Makes the underlay `<lab>-ul` with a TAP for each node, and the client `<lab>-cl`.
///
/// # Errors
/// When a namespace or a TAP cannot be made.
pub(super) fn make(lab: &str, nodes: usize, subnet: [u8; 3]) -> Result<Wires> {
    let wires = net::describe(lab, nodes, subnet)?;
    let underlay = &wires.client.underlay;
    let [a, b, c] = subnet;
    let bridge = Ipv4Addr::new(a, b, c, BRIDGE_LAST);
    net::add_namespace(underlay)?;
    ip(&format!("-n {underlay} link add br0 type bridge"))?;
    ip(&format!("-n {underlay} addr add {bridge}/{PREFIX} dev br0"))?;
    ip(&format!("-n {underlay} link set br0 up"))?;
    net::add_host(&wires.client)?;
    for host in &wires.nodes {
        add_tap(host)?;
    }
    Ok(wires)
}

fn add_tap(host: &Host) -> Result<()> {
    let Host { underlay, wire, .. } = host;
    ip(&format!("-n {underlay} tuntap add dev {wire} mode tap"))?;
    ip(&format!("-n {underlay} link set {wire} master br0 up"))?;
    Ok(())
}
