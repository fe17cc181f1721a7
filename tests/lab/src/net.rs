//! The lab's wires: an underlay bridge in a namespace of its own, and one namespace per host.
//!
//! A wire ends on the bridge in a port that is named after the last byte of its address (`p11`);
//! machines of other kinds use the same kind of underlay with ports of the same names.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::cleanup::{Failures, remove_folder};
use crate::command::ip;

/// The underlay's bridge.
pub const BRIDGE: &str = "br0";
/// Where `ip netns` keeps its namespaces.
const NETNS_FOLDER: &str = "/run/netns";
/// Where `ip netns exec` finds files of one namespace.
const FILES_FOLDER: &str = "/etc/netns";
/// Last byte of the external client's address.
const CLIENT_LAST: u8 = 100;
/// Last byte of the address of node 0; node i has the i-th after it.
const NODE_LAST: u8 = 11;
/// Most nodes of one lab: the client's address comes after theirs.
const NODES_MAX: usize = (CLIENT_LAST - NODE_LAST) as usize;

/// One host of the lab: a network namespace with one wire to the underlay.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of the namespace, as `ip netns` knows it.
    pub namespace: String,
    /// Its address on the underlay, on device `eth0`.
    pub address: Ipv4Addr,
    /// Name of the namespace of the underlay.
    pub underlay: String,
    /// Name of its wire's end on the underlay's bridge.
    pub wire: String,
}

impl Host {
    /// The command line that runs `words` in this host's network namespace.
    #[must_use]
    pub fn line(&self, words: &[&str]) -> Vec<String> {
        let enter = ["ip", "netns", "exec", &self.namespace];
        enter.iter().chain(words).map(|word| (*word).to_owned()).collect()
    }

    /// Unplugs the host's wire from the underlay, or plugs it in again.
    ///
    /// # Errors
    /// When the wire is gone.
    pub fn set_wire(&self, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        ip(&format!("-n {} link set {} {state}", self.underlay, self.wire))?;
        Ok(())
    }
}

/// The underlay of one lab.
#[derive(Debug)]
pub(crate) struct Wires {
    pub(crate) nodes: Vec<Host>,
    pub(crate) client: Host,
}

/// Makes the namespaces of a lab: `<lab>-ul`, `<lab>-n1` … and `<lab>-cl`.
///
/// # Errors
/// When a namespace or wire cannot be made, as when one of the name exists.
pub(crate) fn make(lab: &str, nodes: usize, subnet: [u8; 3]) -> Result<Wires> {
    let wires = describe(lab, nodes, subnet)?;
    let underlay = &wires.client.underlay;
    add_namespace(underlay)?;
    ip(&format!("-n {underlay} link add {BRIDGE} type bridge"))?;
    ip(&format!("-n {underlay} link set {BRIDGE} up"))?;
    for host in wires.nodes.iter().chain([&wires.client]) {
        add_host(host)?;
    }
    for host in &wires.nodes {
        write_resolvers(&host.namespace, wires.client.address)?;
        // A machine has a default route; the client stands for the rest of the world.
        let client = wires.client.address;
        ip(&format!("-n {} route add default via {client}", host.namespace))?;
    }
    Ok(wires)
}

/// The hosts that a lab of this name has, whether they exist or not.
///
/// # Errors
/// When there are more nodes than addresses.
pub(crate) fn describe(lab: &str, nodes: usize, subnet: [u8; 3]) -> Result<Wires> {
    let [a, b, c] = subnet;
    let host = |name: String, last: u8| Host {
        namespace: format!("{lab}-{name}"),
        address: Ipv4Addr::new(a, b, c, last),
        underlay: format!("{lab}-ul"),
        wire: format!("p{last}"),
    };
    ensure!(nodes <= NODES_MAX, "{nodes} nodes, the lab has addresses for {NODES_MAX}");
    let nodes = (NODE_LAST..CLIENT_LAST).take(nodes).enumerate();
    let nodes = nodes.map(|(index, last)| host(format!("n{}", index + 1), last)).collect();
    Ok(Wires { nodes, client: host("cl".to_owned(), CLIENT_LAST) })
}

/// `ip netns exec` puts this file in the place of the machine's (ip-netns(8)): a node of the lab
/// asks the outside host for names, never the machine's own resolvers.
fn write_resolvers(namespace: &str, server: Ipv4Addr) -> Result<()> {
    let folder = Path::new(FILES_FOLDER).join(namespace);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let file = folder.join("resolv.conf");
    let text = format!("nameserver {server}\noptions timeout:1 attempts:1\n");
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

/// Makes a namespace whose loopback is up.
pub(crate) fn add_namespace(name: &str) -> Result<()> {
    ip(&format!("netns add {name}"))?;
    ip(&format!("-n {name} link set lo up"))?;
    Ok(())
}

/// Makes a host's namespace and its wire.
pub(crate) fn add_host(host: &Host) -> Result<()> {
    let Host { namespace, address, underlay, wire } = host;
    add_namespace(namespace)?;
    let peer = format!("peer name eth0 netns {namespace}");
    ip(&format!("-n {underlay} link add {wire} type veth {peer}"))?;
    ip(&format!("-n {underlay} link set {wire} master {BRIDGE} up"))?;
    ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
    ip(&format!("-n {namespace} link set eth0 up"))?;
    Ok(())
}

/// The namespaces that exist and belong to the lab whose name is `lab`.
pub(crate) fn namespaces_of(lab: &str) -> BTreeSet<String> {
    all_namespaces().into_iter().filter(|name| belongs_to(name, lab)).collect()
}

/// Whether a lab makes a namespace of this name. The name of another lab may start with its name.
fn belongs_to(namespace: &str, lab: &str) -> bool {
    let host = namespace.strip_prefix(lab).and_then(|rest| rest.strip_prefix('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    host.is_some_and(|host| {
        host == "ul" || host == "cl" || host.strip_prefix('n').is_some_and(is_number)
    })
}

/// Every named namespace of the machine.
pub(crate) fn all_namespaces() -> BTreeSet<String> {
    let entries = Path::new(NETNS_FOLDER).read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes the namespaces of a lab; what lives in them goes with them.
///
/// # Errors
/// When one stays.
pub(crate) fn remove(lab: &str) -> Result<()> {
    let mut failures = Failures::default();
    for name in namespaces_of(lab) {
        failures.note(ip(&format!("netns del {name}")));
        failures.note(remove_folder(&Path::new(FILES_FOLDER).join(&name)));
    }
    failures.result()
}

#[test]
fn a_lab_owns_its_own_namespaces_only() {
    for own in ["a-n1", "a-n12", "a-ul", "a-cl"] {
        assert!(belongs_to(own, "a"), "{own}");
    }
    for other in ["a", "a-", "a-n", "a-b-n1", "ab-n1", "a-n1-ul", "a-nx", "b-n1"] {
        assert!(!belongs_to(other, "a"), "{other}");
    }
}
