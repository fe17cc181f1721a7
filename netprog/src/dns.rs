//! Names of the cluster, as one task sees them: an immutable zone and a lookup in it.
//!
//! A name is only visible on the networks of the task that asks; the ingress network has no names.
//! Answers contain only healthy tasks that are not draining and whose nodes are alive (if none of
//! these nodes is alive, no task is hidden). A known name without a record of the requested type
//! yields an empty answer and is never forwarded. Queries of a task that is only on internal
//! networks are never forwarded.

mod zone;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cluster::id::TaskId;

pub use zone::Zone;

/// Seconds for which a client may cache an answer. Short, so that clients soon find a task that
/// moved; a VIP never moves.
pub const TTL_SECONDS: u32 = 5;
const TASKS_PREFIX: &str = "tasks.";
const REVERSE_V4: &str = ".in-addr.arpa";
const REVERSE_V6: &str = ".ip6.arpa";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Without the trailing dot; case-insensitive.
    pub name: String,
    /// Record type.
    pub kind: Kind,
}

/// Record types that the cluster's names have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Ports.
    Srv,
    /// None of these: a known name has no such record.
    Other,
}

/// What the cluster knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: it is not a name of the cluster and is forwarded.
    Unknown,
    /// Nothing, and it is not forwarded: the task is only on internal networks.
    Confined,
    /// The records of the type asked for; if none, the name exists without one and is not
    /// forwarded.
    Known(Vec<Data>),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// PTR.
    Name(String),
    /// SRV, with priority and weight 0.
    Service {
        port: u16,
        /// Name of the host.
        target: String,
    },
}

/// The answer for `asker`. Addresses are in a fixed order; the caller may rotate it.
#[must_use]
pub fn answer(zone: &Zone, asker: TaskId, question: &Question) -> Answer {
    let name = question.name.trim_end_matches('.').to_ascii_lowercase();
    let found = match question.kind {
        Kind::Ptr => reverse(zone, asker, &name),
        Kind::Srv => service(zone, asker, &name),
        Kind::A => addresses(zone, asker, &name, IpAddr::is_ipv4),
        Kind::Aaaa => addresses(zone, asker, &name, IpAddr::is_ipv6),
        Kind::Other => addresses(zone, asker, &name, |_| false),
    };
    match found {
        Answer::Unknown if zone.confines(asker) => Answer::Confined,
        found => found,
    }
}

/// From the first of the asker's networks that has some.
fn addresses(zone: &Zone, asker: TaskId, name: &str, wanted: fn(&IpAddr) -> bool) -> Answer {
    let mut known = false;
    for found in zone.lookup(asker, name) {
        known = true;
        let data: Vec<Data> =
            found.iter().filter(|a| wanted(a)).map(|a| Data::Address(*a)).collect();
        if !data.is_empty() {
            return Answer::Known(data);
        }
    }
    if known { Answer::Known(Vec::new()) } else { Answer::Unknown }
}

/// Reverse queries for addresses of the asker's networks are never forwarded.
fn reverse(zone: &Zone, asker: TaskId, name: &str) -> Answer {
    let Some(address) = reversed(name) else {
        return addresses(zone, asker, name, |_| false);
    };
    match zone.name_of(asker, address) {
        Some(found) => Answer::Known(found.map(Data::Name).into_iter().collect()),
        None => Answer::Unknown,
    }
}

/// `_<port>._<protocol>.<name>`, where the port is a number or the label of a published port. A
/// service with a VIP is one host, without one each task is.
fn service(zone: &Zone, asker: TaskId, name: &str) -> Answer {
    let mut parts = name.splitn(3, '.');
    let (Some(port), Some(protocol), Some(host)) = (parts.next(), parts.next(), parts.next())
    else {
        return addresses(zone, asker, name, |_| false);
    };
    let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
        return addresses(zone, asker, name, |_| false);
    };
    let Some((number, targets)) = zone.service(asker, host, port, protocol) else {
        return addresses(zone, asker, host, |_| false);
    };
    let data = targets.iter().map(|target| Data::Service { port: number, target: target.clone() });
    Answer::Known(data.collect())
}

/// The address that a reverse name stands for (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(REVERSE_V4) {
        let mut octets = [0_u8; 4];
        let mut parts = labels.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(REVERSE_V6)?;
    let mut number = 0_u128;
    let mut count = 0;
    for label in labels.rsplit('.') {
        let digit = label.chars().next().filter(|_| label.len() == 1)?.to_digit(16)?;
        number = number << 4 | u128::from(digit);
        count += 1;
        if count > 32 {
            return None;
        }
    }
    (count == 32).then(|| Ipv6Addr::from(number).into())
}

#[cfg(test)]
mod tests;
