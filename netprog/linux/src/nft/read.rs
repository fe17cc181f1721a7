//! Tables, their comments, and the elements of named sets and maps.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use netprog::plane::element::Element;
use netprog::plane::{TABLE_PREFIX, Table, TableKey};
use rtnetlink::sys::Socket;

use super::Names;
use super::element::Type;
use super::list::list;
use super::reference::is_as_loaded;
use super::wire::{GET_SET, GET_TABLE, Message, TABLE_NAME, dump, generation, number};
use crate::netlink::Refusal;
use crate::netlink::raw::{be32, text};

const TABLE_USERDATA: u16 = 6;
/// `NFTNL_UDATA_TABLE_COMMENT` of libnftnl.
const USERDATA_COMMENT: u8 = 0;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_KEY_TYPE: u16 = 4;
const SET_DATA_TYPE: u16 = 6;

/// Reads the nftables of one namespace, and keeps what it read until the kernel reports a
/// new generation.
pub(crate) struct Reader {
    socket: Rc<Socket>,
    last: Option<Last>,
}

struct Last {
    generation: u32,
    named: BTreeMap<TableKey, Names>,
    tables: BTreeMap<TableKey, Table>,
}

impl Reader {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket: Rc::new(socket), last: None }
    }

    /// For [`super::apply`], which reads back what it loads.
    pub(crate) fn socket(&self) -> Rc<Socket> {
        self.socket.clone()
    }

    /// Reads our tables, and of each the elements of the sets and maps named for it. A table that
    /// lacks one of them, or is not what was loaded, has been tampered with and is reported with an
    /// empty digest, so that it is loaded again. Other sets are never listed:
    /// they may be large and change with every packet.
    pub(crate) fn read(
        &mut self,
        named: &BTreeMap<TableKey, Names>,
    ) -> Result<BTreeMap<TableKey, Table>, Refusal> {
        let before = generation(&self.socket)?;
        if let Some(last) = &self.last
            && last.generation == before
            && last.named == *named
        {
            return Ok(last.tables.clone());
        }
        let tables = self.read_tables(named)?;
        // What changed while it was read may be in it by half: the next call reads again.
        self.last = (generation(&self.socket)? == before).then(|| Last {
            generation: before,
            named: named.clone(),
            tables: tables.clone(),
        });
        Ok(tables)
    }

    fn read_tables(
        &self,
        named: &BTreeMap<TableKey, Names>,
    ) -> Result<BTreeMap<TableKey, Table>, Refusal> {
        let mut found = BTreeMap::new();
        for (key, digest) in tables(&self.socket)? {
            let mut table = Table { digest, ..Table::default() };
            let whole = match named.get(&key) {
                Some(names) => elements(&self.socket, &key, names, &mut table)?,
                None => true,
            };
            if !whole || !is_as_loaded(&self.socket, &key)? {
                table.digest.clear();
            }
            found.insert(key, table);
        }
        Ok(found)
    }
}

fn tables(socket: &Socket) -> Result<Vec<(TableKey, String)>, Refusal> {
    Ok(dump(socket, GET_TABLE, 0, &[])?.iter().filter_map(table).collect())
}

/// A table that Skein made, with its comment.
pub(crate) fn table(message: &Message) -> Option<(TableKey, String)> {
    let family = message.family()?;
    let mut name = None;
    let mut digest = String::new();
    for (kind, value) in message.attributes() {
        match kind {
            TABLE_NAME => name = Some(text(value)),
            TABLE_USERDATA => digest = comment(value).unwrap_or_default(),
            _ => {}
        }
    }
    let name = name.filter(|name| name.starts_with(TABLE_PREFIX))?;
    Some((TableKey { family, name }, digest))
}

/// User data is a sequence of type, length, value.
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
        let keys: Option<BTreeSet<Element>> =
            found.iter().map(|(bytes, _)| kind.read(bytes)).collect();
        let Some(keys) = keys else { return Ok(false) };
        table.sets.insert(name.clone(), keys);
    }
    for name in &names.maps {
        let Some((Some(kind), Some(value))) = types.get(name) else { return Ok(false) };
        let found = list(socket, key, name)?;
        let pairs: Option<BTreeMap<Element, Element>> = found
            .iter()
            .map(|(bytes, data)| Some((kind.read(bytes)?, value.read(data)?)))
            .collect();
        let Some(pairs) = pairs else { return Ok(false) };
        table.maps.insert(name.clone(), pairs);
    }
    Ok(true)
}

pub(crate) type KeyAndValue = (Option<Type>, Option<Type>);

fn types(socket: &Socket, key: &TableKey) -> Result<BTreeMap<String, KeyAndValue>, Refusal> {
    let mut found = BTreeMap::new();
    for message in dump(socket, GET_SET, number(key.family), &[(SET_TABLE, &key.name)])? {
        let (name, types) = set(&message);
        found.insert(name, types);
    }
    Ok(found)
}

/// The name of a set or map and the types of its elements.
pub(crate) fn set(message: &Message) -> (String, KeyAndValue) {
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
    (name, types)
}
