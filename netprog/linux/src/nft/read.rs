//! Tables, their comments, and the elements of named sets and maps, by netfilter netlink
//! (include/uapi/linux/netfilter/nf_tables.h).

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::{
    ErrorBuffer, ErrorMessage, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator, Parseable,
};
use netprog::plane::{Family, TABLE_PREFIX, Table, TableKey};
use nix::errno::Errno;
use rtnetlink::sys::Socket;

use super::Names;
use super::element::Type;
use crate::netlink::{
    DUMP_INTERRUPTED, NETLINK_HEADER_BYTES, Refusal, encode, next_sequence, refused,
};

const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_SET: u16 = SUBSYSTEM | 10;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
/// `struct nfgenmsg`: family, version, resource.
const GENERIC_HEADER_BYTES: usize = 4;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;

const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
/// `NFTNL_UDATA_TABLE_COMMENT` of libnftnl.
const USERDATA_COMMENT: u8 = 0;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_KEY_TYPE: u16 = 4;
const SET_DATA_TYPE: u16 = 6;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// Room for one datagram of a dump; the kernel fills at most 32 KiB (`netlink_dump`).
const RECEIVE_BYTES: usize = 64 * 1024;
/// A dump that changed under way is read again, at most so often.
const DUMP_ATTEMPTS_MAX: u32 = 8;

/// Reads our tables, and of each the elements of the sets and maps named for it. A table that
/// lacks one of them has been tampered with and is reported with an empty digest, so that it is
/// loaded anew. Other sets are never listed: they may be large and change by every packet.
pub(crate) fn read(
    socket: &Socket,
    named: &BTreeMap<TableKey, Names>,
) -> Result<BTreeMap<TableKey, Table>, Refusal> {
    let mut found = BTreeMap::new();
    for (key, digest) in tables(socket)? {
        let mut table = Table { digest, ..Table::default() };
        if let Some(names) = named.get(&key)
            && !elements(socket, &key, names, &mut table)?
        {
            table.digest.clear();
        }
        found.insert(key, table);
    }
    Ok(found)
}

fn tables(socket: &Socket) -> Result<Vec<(TableKey, String)>, Refusal> {
    let mut found = Vec::new();
    for message in dump(socket, GET_TABLE, 0, &[])? {
        let Some(family) = message.family() else { continue };
        let mut name = None;
        let mut digest = String::new();
        for (kind, value) in message.attributes() {
            match kind {
                TABLE_NAME => name = Some(text(value)),
                TABLE_USERDATA => digest = comment(value).unwrap_or_default(),
                _ => {}
            }
        }
        if let Some(name) = name.filter(|name| name.starts_with(TABLE_PREFIX)) {
            found.push((TableKey { family, name }, digest));
        }
    }
    Ok(found)
}

/// User data is a row of type, length, value.
fn comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == USERDATA_COMMENT {
            return Some(text(value));
        }
        userdata = rest.get(usize::from(*length)..)?;
    }
    None
}

/// Fills in the elements; false if a set or map is missing.
fn elements(
    socket: &Socket,
    key: &TableKey,
    names: &Names,
    table: &mut Table,
) -> Result<bool, Refusal> {
    if names.sets.is_empty() && names.maps.is_empty() {
        return Ok(true);
    }
    let types = types(socket, key)?;
    for name in &names.sets {
        let Some((Some(kind), _)) = types.get(name) else { return Ok(false) };
        let found = list(socket, key, name)?;
        let keys: Option<BTreeSet<String>> =
            found.iter().map(|(bytes, _)| kind.text(bytes)).collect();
        let Some(keys) = keys else { return Ok(false) };
        table.sets.insert(name.clone(), keys);
    }
    for name in &names.maps {
        let Some((Some(kind), Some(value))) = types.get(name) else { return Ok(false) };
        let found = list(socket, key, name)?;
        let pairs: Option<BTreeMap<String, String>> = found
            .iter()
            .map(|(bytes, data)| Some((kind.text(bytes)?, value.text(data)?)))
            .collect();
        let Some(pairs) = pairs else { return Ok(false) };
        table.maps.insert(name.clone(), pairs);
    }
    Ok(true)
}

type KeyAndValue = (Option<Type>, Option<Type>);

fn types(socket: &Socket, key: &TableKey) -> Result<BTreeMap<String, KeyAndValue>, Refusal> {
    let mut found = BTreeMap::new();
    for message in dump(socket, GET_SET, number(key.family), &[(SET_TABLE, &key.name)])? {
        let mut name = String::new();
        let mut types = (None, None);
        for (kind, value) in message.attributes() {
            match kind {
                SET_NAME => name = text(value),
                SET_KEY_TYPE => types.0 = be32(value).and_then(Type::from_number),
                SET_DATA_TYPE => types.1 = be32(value).and_then(Type::from_number),
                _ => {}
            }
        }
        found.insert(name, types);
    }
    Ok(found)
}

/// Key and, in maps, value of an element, as the kernel keeps them.
type Raw = (Vec<u8>, Vec<u8>);

fn list(socket: &Socket, key: &TableKey, set: &str) -> Result<Vec<Raw>, Refusal> {
    let names = [(LIST_TABLE, key.name.as_str()), (LIST_SET, set)];
    let mut found = Vec::new();
    for message in dump(socket, GET_ELEMENTS, number(key.family), &names)? {
        for (kind, value) in message.attributes() {
            if kind == LIST_ELEMENTS {
                for (_, element) in nested(value) {
                    let part = |wanted| {
                        let data = nested(element).find(|(kind, _)| *kind == wanted);
                        let value = data.and_then(|(_, data)| {
                            nested(data).find(|(kind, _)| *kind == DATA_VALUE)
                        });
                        value.map(|(_, value)| value.to_vec()).unwrap_or_default()
                    };
                    found.push((part(ELEMENT_KEY), part(ELEMENT_DATA)));
                }
            }
        }
    }
    Ok(found)
}

/// Address family numbers of netfilter (include/uapi/linux/netfilter.h).
fn number(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn nested(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).filter_map(Result::ok).map(|nla| {
        // The buffer's own accessor borrows from the copy that the iterator gives.
        let length = nla.value_length();
        let inner: &[u8] = nla.into_inner();
        (kind(inner), inner.get(4..4 + length).unwrap_or_default())
    })
}

fn kind(attribute: &[u8]) -> u16 {
    match attribute {
        [_, _, low, high, ..] => {
            u16::from_ne_bytes([*low, *high]) & netlink_packet_core::NLA_TYPE_MASK
        }
        _ => 0,
    }
}

/// One message of a dump, without its netlink header.
struct Message(Vec<u8>);

impl Message {
    fn family(&self) -> Option<Family> {
        let first = *self.0.first()?;
        [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge]
            .into_iter()
            .find(|family| number(*family) == first)
    }

    fn attributes(&self) -> impl Iterator<Item = (u16, &[u8])> {
        nested(self.0.get(GENERIC_HEADER_BYTES..).unwrap_or_default())
    }
}

fn dump(
    socket: &Socket,
    kind: u16,
    family: u8,
    names: &[(u16, &str)],
) -> Result<Vec<Message>, Refusal> {
    for _attempt in 0..DUMP_ATTEMPTS_MAX {
        match dump_once(socket, next_sequence(1), (kind, family), names) {
            // The set or table went away between two requests.
            Err(refusal) if refusal.is(Errno::ENOENT) => return Ok(Vec::new()),
            Err(refusal) if refusal.is(Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Refusal::other(format!("tables changed {DUMP_ATTEMPTS_MAX} times while they were read")))
}

fn dump_once(
    socket: &Socket,
    sequence: u32,
    (kind, family): (u16, u8),
    names: &[(u16, &str)],
) -> Result<Vec<Message>, Refusal> {
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    socket.send(&encode(sequence, kind, flags, &[family, 0, 0, 0], names), 0)?;
    let mut found = Vec::new();
    let mut interrupted = false;
    loop {
        let mut answers = Vec::with_capacity(RECEIVE_BYTES);
        socket.recv(&mut answers, 0)?;
        let mut rest = answers.as_slice();
        while !rest.is_empty() {
            let unreadable =
                |error| Refusal::other(format!("unreadable netfilter answer: {error}"));
            let message = NetlinkBuffer::new_checked(&rest).map_err(unreadable)?;
            let length = message.length() as usize;
            let payload = rest.get(NETLINK_HEADER_BYTES..length).unwrap_or_default();
            interrupted |= message.flags() & DUMP_INTERRUPTED != 0;
            if message.sequence_number() == sequence {
                match message.message_type() {
                    MESSAGE_DONE if interrupted => return Err(Errno::EINTR.into()),
                    MESSAGE_DONE => return Ok(found),
                    MESSAGE_ERROR => {
                        let error = ErrorBuffer::new_checked(&payload)
                            .and_then(|buffer| ErrorMessage::parse(&buffer))
                            .map_err(unreadable)?;
                        refused(&error)?;
                    }
                    _ => found.push(Message(payload.to_vec())),
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
