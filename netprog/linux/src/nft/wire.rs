//! Netfilter netlink: requests and dumps of nf_tables
//! (include/uapi/linux/netfilter/nf_tables.h).

use netprog::plane::Family;
use nix::errno::Errno;
use rtnetlink::sys::Socket;

use crate::netlink::Refusal;
use crate::netlink::raw::{Attributes, Expect, Request, be32, exchange, nested};

const SUBSYSTEM: u16 = 10 << 8;
pub(crate) const GET_TABLE: u16 = SUBSYSTEM | 1;
pub(crate) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(crate) const GET_RULE: u16 = SUBSYSTEM | 7;
pub(crate) const GET_SET: u16 = SUBSYSTEM | 10;
pub(crate) const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
/// `NFTA_TABLE_NAME`.
pub(crate) const TABLE_NAME: u16 = 1;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const GENERATION_ID: u16 = 1;
/// `struct nfgenmsg`: family, version, resource.
const GENERIC_HEADER_BYTES: usize = 4;

/// Address family numbers of netfilter (include/uapi/linux/netfilter.h).
pub(crate) fn number(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    }
}

/// One message of a dump, without its netlink header.
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    pub(crate) fn family(&self) -> Option<Family> {
        let first = *self.0.first()?;
        [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge]
            .into_iter()
            .find(|family| number(*family) == first)
    }

    pub(crate) fn attributes(&self) -> impl Iterator<Item = (u16, &[u8])> {
        nested(self.0.get(GENERIC_HEADER_BYTES..).unwrap_or_default())
    }
}

pub(crate) fn dump(
    socket: &Socket,
    kind: u16,
    family: u8,
    names: &[(u16, &str)],
) -> Result<Vec<Message>, Refusal> {
    match ask(socket, (kind, family), names, Expect::Dump) {
        // The set or table went away between two requests.
        Err(refusal) if refusal.is(Errno::ENOENT) => Ok(Vec::new()),
        other => other,
    }
}

/// The number of the last transaction of the namespace: as long as it stays, no table, rule or
/// static element has changed. What packets add to dynamic sets does not count.
pub(super) fn generation(socket: &Socket) -> Result<u32, Refusal> {
    let found = ask(socket, (GET_GENERATION, 0), &[], Expect::Answer)?;
    let id = found.iter().flat_map(Message::attributes).find(|(kind, _)| *kind == GENERATION_ID);
    id.and_then(|(_, value)| be32(value))
        .ok_or_else(|| Refusal::other("nf_tables gave no generation"))
}

fn ask(
    socket: &Socket,
    (kind, family): (u16, u8),
    names: &[(u16, &str)],
    expect: Expect,
) -> Result<Vec<Message>, Refusal> {
    let mut attributes = Attributes::default();
    for (kind, name) in names {
        attributes = attributes.text(*kind, name);
    }
    let request = Request { kind, header: &[family, 0, 0, 0], attributes: &attributes };
    Ok(exchange(socket, &request, expect)?.into_iter().map(Message).collect())
}
