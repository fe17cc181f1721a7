//! FDB and neighbour entries, many to a send with one acknowledgement.
//!
//! The kernel handles a send message by message: it acknowledges what asks for it and answers every
//! message that fails, with its sequence number (`netlink_rcv_skb`), so asking only the last one
//! for an acknowledgement loses no failure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netprog::op::EntryOp;
use netprog::plane::{FdbKey, FdbTable};
use nix::errno::Errno;
use rtnetlink::sys::Socket;

use crate::drift::own::Outcome;
use crate::link::index;
use crate::namespace::Inside;
use crate::netlink::{Refusal, next_sequence, refused};

/// Messages of one send: beyond some 256 nothing is gained, and every answer must fit the socket's
/// receive buffer even if all of them fail.
pub(crate) const BATCH_MAX: usize = 256;
/// Room for one datagram of answers.
const RECEIVE_BYTES: usize = 64 * 1024;

fn device(op: &EntryOp) -> &str {
    match op {
        EntryOp::SetFdb(key, _) | EntryOp::DeleteFdb(key) => &key.device,
        EntryOp::SetNeighbour(device, ..) | EntryOp::DeleteNeighbour(device, _) => device,
    }
}

fn outcome(op: &EntryOp, ifindex: u32) -> Outcome {
    match op {
        EntryOp::SetFdb(key, vtep) => Outcome::Fdb(ifindex, key.mac, *vtep),
        EntryOp::DeleteFdb(key) => Outcome::NoFdb(ifindex, key.mac),
        EntryOp::SetNeighbour(_, address, mac) => Outcome::Neighbour(ifindex, *address, *mac),
        EntryOp::DeleteNeighbour(_, address) => Outcome::NoNeighbour(ifindex, *address),
    }
}

/// Entries are permanent and written with replace: exclusive creation fails on the leftover of
/// an earlier run and then keeps the wrong destination.
fn message(op: &EntryOp, ifindex: u32) -> (RouteNetlinkMessage, u16) {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    match op {
        EntryOp::SetFdb(key, destination) => {
            fdb_header(&mut message, key);
            if let Some(vtep) = destination {
                let vtep = NeighbourAddress::from(*vtep);
                message.attributes.push(NeighbourAttribute::Destination(vtep));
            }
        }
        EntryOp::DeleteFdb(key) => fdb_header(&mut message, key),
        EntryOp::SetNeighbour(_, address, mac) => {
            neighbour_header(&mut message, *address);
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        }
        EntryOp::DeleteNeighbour(_, address) => neighbour_header(&mut message, *address),
    }
    if op.deletes() {
        (RouteNetlinkMessage::DelNeighbour(message), 0)
    } else {
        (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }
}

fn fdb_header(message: &mut NeighbourMessage, key: &FdbKey) {
    message.header.family = AddressFamily::Bridge;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(key.mac.0.to_vec()));
    match key.table {
        FdbTable::Device => message.header.flags = NeighbourFlags::Own,
        FdbTable::Bridge => {
            // In a bridge's table permanent means local to the bridge itself; static is NOARP
            // (`fdb_add_entry` in net/bridge/br_fdb.c).
            message.header.flags = NeighbourFlags::Controller;
            message.header.state = NeighbourState::Noarp;
        }
    }
}

fn neighbour_header(message: &mut NeighbourMessage, address: IpAddr) {
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let address = NeighbourAddress::from(address);
    message.attributes.push(NeighbourAttribute::Destination(address));
}

/// Applies entries in order and returns what failed, by index. Deleting what is gone succeeds.
pub(crate) fn apply(inside: &Inside, entries: &[EntryOp]) -> Vec<(usize, Refusal)> {
    let mut failed = Vec::new();
    let mut devices = BTreeMap::new();
    let mut messages = Vec::with_capacity(entries.len());
    let mut outcomes = BTreeSet::new();
    for (at, entry) in entries.iter().enumerate() {
        let device = device(entry);
        match devices.entry(device).or_insert_with(|| index(device)) {
            Ok(ifindex) => {
                messages.push((at, message(entry, *ifindex)));
                outcomes.insert(outcome(entry, *ifindex));
            }
            // With its link the entry is gone as well.
            Err(_gone) if entry.deletes() => {}
            Err(refusal) => failed.push((at, refusal.clone())),
        }
    }
    inside.own.borrow_mut().entries = outcomes;
    for batch in messages.chunks(BATCH_MAX) {
        match send(&inside.bulk, batch) {
            Ok(refusals) => failed.extend(
                refusals
                    .into_iter()
                    .filter(|(at, refusal)| !(entries[*at].deletes() && is_gone(refusal))),
            ),
            Err(refusal) => failed.extend(batch.iter().map(|(at, _)| (*at, refusal.clone()))),
        }
    }
    failed.sort_by_key(|(at, _)| *at);
    failed
}

/// EOPNOTSUPP: the device has left its bridge and its entries of the bridge's table with it.
fn is_gone(refusal: &Refusal) -> bool {
    [Errno::ENOENT, Errno::ENODEV, Errno::EOPNOTSUPP].into_iter().any(|errno| refusal.is(errno))
}

type Message = (usize, (RouteNetlinkMessage, u16));

/// Sends one batch and reads answers until the last message's.
fn send(socket: &Socket, batch: &[Message]) -> Result<Vec<(usize, Refusal)>, Refusal> {
    let mut bytes = Vec::new();
    let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    let first = next_sequence(count);
    for (offset, (_, (message, flags))) in (0..count).zip(batch) {
        let mut message = NetlinkMessage::from(message.clone());
        let acknowledge = if offset + 1 == count { NLM_F_ACK } else { 0 };
        message.header.flags = NLM_F_REQUEST | flags | acknowledge;
        message.header.sequence_number = first.wrapping_add(offset);
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }
    socket.send(&bytes, 0)?;
    let mut refused = Vec::new();
    loop {
        let mut answers = Vec::with_capacity(RECEIVE_BYTES);
        socket.recv(&mut answers, 0)?;
        if take(&answers, first, count, &mut refused)? {
            return Ok(refused
                .into_iter()
                .filter_map(|(offset, refusal)| Some((batch.get(offset)?.0, refusal)))
                .collect());
        }
    }
}

/// Takes a datagram of answers to `count` messages from number `first` on: the refusals, by place
/// in the batch. Says whether the last message's answer is in it.
pub(crate) fn take(
    datagram: &[u8],
    first: u32,
    count: u32,
    refused: &mut Vec<(usize, Refusal)>,
) -> Result<bool, Refusal> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let (sequence, length, refusal) = answer(rest)?;
        // An answer to something else has another number.
        let offset = sequence.wrapping_sub(first);
        if offset < count {
            refused.extend(refusal.map(|refusal| (offset as usize, refusal)));
        }
        if offset.wrapping_add(1) == count {
            return Ok(true);
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(false)
}

/// Sequence number, aligned length and refusal of the first answer in a buffer.
fn answer(bytes: &[u8]) -> Result<(u32, usize, Option<Refusal>), Refusal> {
    let unreadable = |error| Refusal::other(format!("unreadable netlink answer: {error}"));
    let length = NetlinkBuffer::new_checked(&bytes).map_err(unreadable)?.length() as usize;
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map_err(unreadable)?;
    let refusal = match &message.payload {
        NetlinkPayload::Error(error) => refused(error).err(),
        _ => None,
    };
    Ok((message.header.sequence_number, length.next_multiple_of(4), refusal))
}
