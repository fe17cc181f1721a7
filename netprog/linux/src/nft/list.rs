//! The elements of one set or map.

use netprog::plane::TableKey;
use rtnetlink::sys::Socket;

use super::wire::{GET_ELEMENTS, Message, dump, number};
use crate::netlink::Refusal;
use crate::netlink::raw::nested;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// Key and, in maps, value of an element, as the kernel keeps them.
pub(crate) type Raw = (Vec<u8>, Vec<u8>);

pub(crate) fn list(socket: &Socket, key: &TableKey, set: &str) -> Result<Vec<Raw>, Refusal> {
    let names = [(LIST_TABLE, key.name.as_str()), (LIST_SET, set)];
    let messages = dump(socket, GET_ELEMENTS, number(key.family), &names)?;
    Ok(messages.iter().flat_map(raw).collect())
}

/// The elements in one message of a dump.
pub(crate) fn raw(message: &Message) -> Vec<Raw> {
    let part = |element, wanted| {
        let data = nested(element).find(|(kind, _)| *kind == wanted);
        let value = data.and_then(|(_, data)| nested(data).find(|(kind, _)| *kind == DATA_VALUE));
        value.map(|(_, value)| value.to_vec()).unwrap_or_default()
    };
    let lists = message.attributes().filter(|(kind, _)| *kind == LIST_ELEMENTS);
    let elements = lists.flat_map(|(_, list)| nested(list)).map(|(_, element)| element);
    elements.map(|element| (part(element, ELEMENT_KEY), part(element, ELEMENT_DATA))).collect()
}
