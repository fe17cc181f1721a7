//! Deletes conntrack entries of UDP flows that no longer match a published port.
//!
//! An entry keeps the translation of its first packet, and every packet renews it: a steady stream
//! from one port never uses the changed map. An entry is right if it leads to the same target as
//! the map in the kernel does now. Any other is deleted, and the next packet creates a right one.
//! So this can be done at any time, repeatedly, and after a restart.
//! (net/netfilter/nf_conntrack_netlink.c, include/uapi/linux/netfilter/nfnetlink_conntrack.h)

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use netlink_packet_core::NLA_F_NESTED;
use netprog::op::{Kind, NftChange, Op};
use netprog::plane::element::Part;
use netprog::plane::{Family, Place, TableKey};
use netprog::render::{BOUND, GWBRIDGE, INGRESS_LINK, PUBLISHED, TABLE};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use rtnetlink::sys::Socket;

use crate::netlink::Refusal;
use crate::netlink::raw::{Attributes, Expect, Request, exchange, nested};
use crate::nft::list::{Raw, list};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// `struct nfgenmsg`: AF_INET, version, resource.
const HEADER: [u8; 4] = [2, 0, 0, 0];

/// `CTA_…`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// `CTA_TUPLE_…`.
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// `CTA_IP_V4_…`.
const SOURCE: u16 = 1;
const DESTINATION: u16 = 2;
/// `CTA_PROTO_…`.
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// `CTA_FILTER_…`, and its flag for the number of the protocol. Kernels before 5.8 give all.
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const BY_PROTOCOL: u32 = 1 << 3;

const UDP: u8 = 17;
/// The map of table `ip skein` that translates in a sandbox.
const TARGETS: &str = "targets";

/// Address and port.
type End = (Ipv4Addr, u16);

/// The namespace in which this operation may leave outdated flows.
pub(crate) fn unsettled_by(op: &Op) -> Option<Place> {
    let Kind::Nft(nft) = &op.kind else { return None };
    if nft.table != ours() {
        return None;
    }
    let may_lead_elsewhere = match &nft.change {
        NftChange::SetMapElement { map, key, .. } => {
            let here = match op.place {
                Place::Host => [PUBLISHED, BOUND].contains(&map.as_str()),
                Place::Sandbox(_) => map == TARGETS,
                Place::Fabric(_) => false,
            };
            here && key.parts().contains(&Part::Proto(UDP))
        }
        NftChange::Load(_) => op.place == Place::Host,
        NftChange::Delete | NftChange::AddElement(..) | NftChange::DeleteElement(..) => false,
    };
    may_lead_elsewhere.then_some(op.place)
}

fn ours() -> TableKey {
    TableKey { family: Family::Ip, name: TABLE.to_owned() }
}

/// Deletes every entry of the calling thread's namespace that does not match the map there.
pub(crate) fn settle(socket: &Socket, place: Place) -> Result<(), Refusal> {
    let leads = match place {
        Place::Host => Targets::of_host(socket)?,
        Place::Sandbox(_) => Targets::of_sandbox(socket)?,
        Place::Fabric(_) => return Ok(()),
    };
    let flows = flows(socket)?;
    let stale = flows.iter().filter(|flow| leads.elsewhere(flow));
    // One that is refused keeps none of the others.
    let forgotten: Vec<_> = stale.map(|flow| forget(socket, flow)).collect();
    forgotten.into_iter().collect()
}

/// The right targets of flows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Targets {
    /// By the address and port that is called; on the host perhaps by any address of its own.
    targets: BTreeMap<(Option<Ipv4Addr>, u16), End>,
    /// The host's own addresses.
    local: Vec<Ipv4Addr>,
    /// Networks of tasks that published ports lead to: address and mask.
    inside: Vec<(Ipv4Addr, Ipv4Addr)>,
}

impl Targets {
    fn of_host(socket: &Socket) -> Result<Self, Refusal> {
        let elements = list(socket, &ours(), PUBLISHED)?;
        let bound = list(socket, &ours(), BOUND)?;
        let targets = elements.iter().filter_map(published);
        let targets = targets.chain(bound.iter().filter_map(target)).collect();
        let mut leads = Self { targets, ..Self::default() };
        for link in getifaddrs()? {
            let v4 = |storage: Option<nix::sys::socket::SockaddrStorage>| {
                storage.and_then(|storage| Some(storage.as_sockaddr_in()?.ip()))
            };
            let Some(address) = v4(link.address) else { continue };
            leads.local.push(address);
            if [GWBRIDGE, INGRESS_LINK].contains(&link.interface_name.as_str()) {
                leads.inside.extend(v4(link.netmask).map(|mask| (address, mask)));
            }
        }
        Ok(leads)
    }

    fn of_sandbox(socket: &Socket) -> Result<Self, Refusal> {
        let targets = list(socket, &ours(), TARGETS)?.iter().filter_map(target).collect();
        Ok(Self { targets, ..Self::default() })
    }

    fn elsewhere(&self, flow: &Flow) -> bool {
        let (address, port) = flow.called;
        if let Some(target) = self.targets.get(&(Some(address), port)) {
            return flow.answers != *target;
        }
        if !address.is_loopback() && !self.local.contains(&address) {
            return false;
        }
        match self.targets.get(&(None, port)) {
            Some(target) => flow.answers != *target,
            // Nothing is published there: who else translates leads into networks of its own.
            None => flow.answers.0 != address && self.is_inside(flow.answers.0),
        }
    }

    fn is_inside(&self, address: Ipv4Addr) -> bool {
        let bits = address.to_bits();
        self.inside.iter().any(|(own, mask)| (own.to_bits() ^ bits) & mask.to_bits() == 0)
    }
}

/// A flow as its first packet made it.
pub(crate) struct Flow {
    /// Whom its caller calls.
    pub(crate) called: End,
    /// Who answers.
    pub(crate) answers: End,
    /// What names it to the kernel.
    name: Attributes,
}

fn flows(socket: &Socket) -> Result<Vec<Flow>, Refusal> {
    let protocol = Attributes::default().bytes(NUMBER, &[UDP]);
    let tuple = Attributes::default().nest(TUPLE_PROTOCOL, &protocol);
    let filter = Attributes::default().u32(FILTER_ORIGINAL, BY_PROTOCOL).u32(FILTER_REPLY, 0);
    let attributes = Attributes::default().nest(ORIGINAL, &tuple).nest(FILTER, &filter);
    let request = Request { kind: GET, header: &HEADER, attributes: &attributes };
    match exchange(socket, &request, Expect::Dump) {
        // The kernel has no nf_conntrack_netlink: flows end by their own age there.
        Err(refusal) if refusal.is(Errno::EINVAL) || refusal.is(Errno::EOPNOTSUPP) => {
            tracing::warn!(error = %refusal, "this kernel does not list connections");
            Ok(Vec::new())
        }
        other => Ok(other?.iter().filter_map(|message| flow(message)).collect()),
    }
}

/// One that has ended meanwhile is as good as deleted.
fn forget(socket: &Socket, flow: &Flow) -> Result<(), Refusal> {
    let request = Request { kind: DELETE, header: &HEADER, attributes: &flow.name };
    match exchange(socket, &request, Expect::Done) {
        Err(refusal) if refusal.is(Errno::ENOENT) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// A flow of UDP over IPv4.
pub(crate) fn flow(message: &[u8]) -> Option<Flow> {
    let attributes = message.get(HEADER.len()..)?;
    let original = value(attributes, ORIGINAL)?;
    let protocol = value(value(original, TUPLE_PROTOCOL)?, NUMBER)?;
    if protocol != [UDP] {
        return None;
    }
    let mut name = Attributes::default().bytes(ORIGINAL | NLA_F_NESTED, original);
    for kind in [ID, ZONE] {
        if let Some(value) = value(attributes, kind) {
            name = name.bytes(kind, value);
        }
    }
    let called = end(original, DESTINATION, DESTINATION_PORT)?;
    let answers = end(value(attributes, REPLY)?, SOURCE, SOURCE_PORT)?;
    Some(Flow { called, answers, name })
}

fn end(tuple: &[u8], address: u16, port: u16) -> Option<End> {
    let address: [u8; 4] = value(value(tuple, TUPLE_ADDRESSES)?, address)?.try_into().ok()?;
    let port: [u8; 2] = value(value(tuple, TUPLE_PROTOCOL)?, port)?.try_into().ok()?;
    Some((address.into(), u16::from_be_bytes(port)))
}

fn value(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    nested(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Of `published`: protocol, port → address, port; each in a register of four bytes.
fn published((key, data): &Raw) -> Option<((Option<Ipv4Addr>, u16), End)> {
    let [UDP, _, _, _, high, low, ..] = key.as_slice() else { return None };
    Some(((None, u16::from_be_bytes([*high, *low])), translated(data)?))
}

/// Of `targets` and `bound`: address, protocol, port → address, port.
fn target((key, data): &Raw) -> Option<((Option<Ipv4Addr>, u16), End)> {
    let [a, b, c, d, UDP, _, _, _, high, low, ..] = key.as_slice() else { return None };
    let called = Some(Ipv4Addr::new(*a, *b, *c, *d));
    Some(((called, u16::from_be_bytes([*high, *low])), translated(data)?))
}

fn translated(data: &[u8]) -> Option<End> {
    let [a, b, c, d, high, low, ..] = data else { return None };
    Some((Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> End {
        let end: std::net::SocketAddrV4 = text.parse().unwrap();
        (*end.ip(), end.port())
    }

    fn flow(called: &str, answers: &str) -> Flow {
        Flow { called: end(called), answers: end(answers), name: Attributes::default() }
    }

    #[test]
    fn a_flow_that_leads_elsewhere_than_the_map_is_told() {
        let leads = Targets {
            targets: [
                ((None, 3000), end("10.0.0.5:10001")),
                ((Some([192, 168, 50, 1].into()), 3002), end("10.0.0.6:10001")),
            ]
            .into(),
            local: vec![[192, 168, 50, 1].into(), [172, 18, 0, 1].into()],
            inside: vec![([172, 18, 0, 1].into(), [255, 255, 0, 0].into())],
        };
        let table = [
            ("192.168.50.1:3000", "10.0.0.5:10001", false, "it leads where the map does"),
            ("192.168.50.1:3000", "192.168.50.1:3000", true, "it is from before"),
            ("127.0.0.1:3000", "172.18.0.9:80", true, "it was in mode host"),
            ("192.168.50.1:3001", "172.18.0.9:80", true, "it is no longer published"),
            ("192.168.50.1:3001", "192.168.50.1:3001", false, "a program of the host has it"),
            ("192.168.50.1:3001", "172.17.0.2:80", false, "another program translates it"),
            ("192.168.50.1:3002", "10.0.0.6:10001", false, "it leads where its address does"),
            ("192.168.50.1:3002", "10.0.0.5:10001", true, "its address leads elsewhere now"),
            ("127.0.0.1:3002", "172.18.0.9:80", true, "another address has the port"),
            ("172.18.0.1:53", "172.18.0.1:53", false, "a program of the host itself"),
            ("203.0.113.9:3000", "203.0.113.9:3000", false, "it goes out"),
        ];
        for (called, answers, elsewhere, why) in table {
            assert_eq!(leads.elsewhere(&flow(called, answers)), elsewhere, "{why}");
        }
    }

    #[test]
    fn in_a_sandbox_the_target_decides() {
        let key = (Some(Ipv4Addr::new(10, 0, 0, 5)), 10_001);
        let leads = Targets { targets: [(key, end("172.18.0.9:81"))].into(), ..Targets::default() };
        assert!(leads.elsewhere(&flow("10.0.0.5:10001", "172.18.0.9:80")));
        assert!(!leads.elsewhere(&flow("10.0.0.5:10001", "172.18.0.9:81")));
        assert!(!leads.elsewhere(&flow("10.0.0.5:10002", "172.18.0.9:80")));
    }
}
