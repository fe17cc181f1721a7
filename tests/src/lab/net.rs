//! The lab's wires: an underlay bridge in a namespace of its own, and one namespace per host.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::command::{Output, ip, run};

/// Where `ip netns` keeps its namespaces.
const NETNS_FOLDER: &str = "/run/netns";
/// Last byte of the external client's address.
const CLIENT_LAST: u8 = 100;
/// Last byte of the address of node 0; node i has the i-th after it.
const NODE_LAST: u8 = 11;

/// One host of the lab: a network namespace with one wire to the underlay.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of the namespace, as `ip netns` knows it.
    pub namespace: String,
    /// Its address on the underlay, on device `eth0`.
    pub address: Ipv4Addr,
    underlay: String,
    wire: String,
}

impl Host {
    /// Runs a program in this host's network namespace, for at most `seconds`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, seconds: u32, words: &[&str]) -> Result<Output> {
        let mut line = vec!["ip", "netns", "exec", &self.namespace];
        line.extend(words);
        run(seconds, &line)
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
    let underlay = format!("{lab}-ul");
    add_namespace(&underlay)?;
    ip(&format!("-n {underlay} link add br0 type bridge"))?;
    ip(&format!("-n {underlay} link set br0 up"))?;
    let [a, b, c] = subnet;
    let client = Ipv4Addr::new(a, b, c, CLIENT_LAST);
    let mut made = Vec::new();
    for index in 0..nodes {
        let last = NODE_LAST + u8::try_from(index).context("numbering the nodes")?;
        let address = Ipv4Addr::new(a, b, c, last);
        let host = add_host(&underlay, format!("{lab}-n{}", index + 1), address)?;
        // A machine has a default route; the client stands for the rest of the world.
        ip(&format!("-n {} route add default via {client}", host.namespace))?;
        made.push(host);
    }
    let client = add_host(&underlay, format!("{lab}-cl"), client)?;
    Ok(Wires { nodes: made, client })
}

fn add_namespace(name: &str) -> Result<()> {
    ip(&format!("netns add {name}"))?;
    ip(&format!("-n {name} link set lo up"))?;
    Ok(())
}

fn add_host(underlay: &str, namespace: String, address: Ipv4Addr) -> Result<Host> {
    add_namespace(&namespace)?;
    let wire = format!("p{}", address.octets()[3]);
    let peer = format!("peer name eth0 netns {namespace}");
    ip(&format!("-n {underlay} link add {wire} type veth {peer}"))?;
    ip(&format!("-n {underlay} link set {wire} master br0 up"))?;
    ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
    ip(&format!("-n {namespace} link set eth0 up"))?;
    Ok(Host { namespace, address, underlay: underlay.to_owned(), wire })
}

/// The namespaces that exist and belong to labs whose name is `lab`.
pub(crate) fn namespaces_of(lab: &str) -> BTreeSet<String> {
    let prefix = format!("{lab}-");
    all_namespaces().into_iter().filter(|name| name.starts_with(&prefix)).collect()
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
    for name in namespaces_of(lab) {
        ip(&format!("netns del {name}"))?;
    }
    Ok(())
}
