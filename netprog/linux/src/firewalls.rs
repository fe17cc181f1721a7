//! Chains of other programs that drop what this host forwards or takes in and they do not know: of
//! nftables, so also of iptables-nft, and of iptables-legacy.

use std::io;

pub mod legacy;

use netprog::plane::{Family, TABLE_PREFIX, TableKey};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use crate::netlink::raw::{be32, nested, text};
use crate::netlink::{self, Refusal};
use crate::nft::read::set;
use crate::nft::wire::{
    GET_CHAIN, GET_ELEMENTS, GET_RULE, GET_SET, Message, TABLE_NAME, dump, number,
};

/// `NF_INET_LOCAL_IN` and `NF_INET_FORWARD`.
const LOCAL_IN: u32 = 1;
const FORWARD: u32 = 2;
/// `NF_DROP`.
const DROP: u32 = 0;
/// Attributes of chains, rules, their expressions and sets (linux/netfilter/nf_tables.h).
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const LIST_SET: u16 = 2;

/// `NFTA_DATA_VALUE` with a port, as a comparison and a set's element have it.
const PORT_VALUE: [u8; 4] = [6, 0, 1, 0];

/// Which packets a chain sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Those to the host itself.
    Input,
    /// Those that it forwards.
    Forward,
}

/// A chain that drops what it does not accept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocker {
    /// Of which packets.
    pub hook: Hook,
    /// Whether it is of iptables-legacy, which `nft` does not show.
    pub legacy: bool,
    /// UDP ports that no rule or set of its table mentions, of a chain at [`Hook::Input`].
    pub unmentioned: Vec<u16>,
    pub table: TableKey,
    /// Its name.
    pub chain: String,
    /// The other chains of the table: by them the program that made it is known.
    pub chains: Vec<String>,
}

/// The chains in the calling thread's namespace that block: of forwarded packets where no rule or
/// set of their table names one of these links, and of packets to the host where not all of these
/// UDP ports are mentioned. Blocks.
///
/// # Errors
/// When the kernel does not tell.
pub fn blockers(links: &[&str], ports: &[u16]) -> io::Result<Vec<Blocker>> {
    read(links, ports).map_err(|refusal| io::Error::other(refusal.text))
}

fn read(links: &[&str], ports: &[u16]) -> Result<Vec<Blocker>, Refusal> {
    let socket = netlink::open(NETLINK_NETFILTER)?;
    let chains: Vec<Chain> = dump(&socket, GET_CHAIN, 0, &[])?.iter().filter_map(chain).collect();
    let mut found = Vec::new();
    for chain in &chains {
        let Some(hook) = chain.hook else { continue };
        let table = &chain.table;
        let bridged = table.family == Family::Bridge;
        if bridged || table.name.starts_with(TABLE_PREFIX) {
            continue;
        }
        if !(chain.drops || ends_by_a_drop(&socket, chain)?) {
            continue;
        }
        let said = said(&socket, table)?;
        let unmentioned = match hook {
            Hook::Forward if said.iter().any(|message| names(message, links)) => continue,
            Hook::Forward => Vec::new(),
            Hook::Input => {
                let mentioned = |port: &u16| said.iter().any(|message| mentions(message, *port));
                ports.iter().copied().filter(|port| !mentioned(port)).collect()
            }
        };
        if hook == Hook::Forward || !unmentioned.is_empty() {
            let others = chains.iter().filter(|other| other.table == *table);
            let chains = others.map(|other| other.name.clone()).collect();
            let (table, chain) = (table.clone(), chain.name.clone());
            found.push(Blocker { hook, legacy: false, unmentioned, table, chain, chains });
        }
    }
    Ok(found)
}

struct Chain {
    table: TableKey,
    name: String,
    hook: Option<Hook>,
    drops: bool,
}

fn chain(message: &Message) -> Option<Chain> {
    let (mut table, mut name, mut hook, mut drops) = (None, None, None, false);
    for (kind, value) in message.attributes() {
        match kind {
            TABLE_NAME => table = Some(text(value)),
            CHAIN_NAME => name = Some(text(value)),
            CHAIN_HOOK => {
                let number = nested(value).find(|(kind, _)| *kind == HOOK_NUMBER);
                hook = match number.and_then(|(_, number)| be32(number)) {
                    Some(LOCAL_IN) => Some(Hook::Input),
                    Some(FORWARD) => Some(Hook::Forward),
                    _ => None,
                };
            }
            CHAIN_POLICY => drops = be32(value) == Some(DROP),
            _ => {}
        }
    }
    let table = TableKey { family: message.family()?, name: table? };
    Some(Chain { table, name: name?, hook, drops })
}

/// Whether the last rule of a chain drops or rejects whatever comes to it.
fn ends_by_a_drop(socket: &Socket, chain: &Chain) -> Result<bool, Refusal> {
    let Chain { table, name, .. } = chain;
    let of = [(TABLE_NAME, table.name.as_str()), (RULE_CHAIN, name.as_str())];
    let rules = dump(socket, GET_RULE, number(table.family), &of)?;
    Ok(rules.last().is_some_and(drops_all))
}

/// Whether a rule asks nothing of a packet and drops or rejects it.
pub(crate) fn drops_all(rule: &Message) -> bool {
    let lists = rule.attributes().filter(|(kind, _)| *kind == RULE_EXPRESSIONS);
    let mut ends = false;
    for (_, expression) in lists.flat_map(|(_, list)| nested(list)) {
        let part = |wanted| nested(expression).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
        match part(EXPRESSION_NAME).map(text).as_deref() {
            Some("counter" | "log") => {}
            Some("reject") => ends = true,
            Some("immediate") => {
                let data = part(EXPRESSION_DATA).unwrap_or_default();
                ends = at(data, &[IMMEDIATE_DATA, DATA_VERDICT, VERDICT_CODE]).and_then(be32)
                    == Some(DROP);
            }
            _ => return false,
        }
    }
    ends
}

/// The value at the end of a path of nested attributes.
fn at<'a>(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, wanted| {
        nested(bytes).find(|(kind, _)| kind == wanted).map(|(_, value)| value)
    })
}

/// All rules, sets and elements of a table.
fn said(socket: &Socket, table: &TableKey) -> Result<Vec<Message>, Refusal> {
    let family = number(table.family);
    let of_table = [(TABLE_NAME, table.name.as_str())];
    let mut said = dump(socket, GET_RULE, family, &of_table)?;
    for message in dump(socket, GET_SET, family, &of_table)? {
        let (name, _) = set(&message);
        let of_set = [of_table[0], (LIST_SET, name.as_str())];
        said.extend(dump(socket, GET_ELEMENTS, family, &of_set)?);
    }
    Ok(said)
}

/// Whether one of these links is named: an operator has thought of them.
fn names(message: &Message, links: &[&str]) -> bool {
    links.iter().any(|link| holds(message, link.as_bytes()))
}

/// Whether a port is mentioned: as nft compares it, or as a range of one by the extension of
/// iptables (`struct xt_udp`, linux/netfilter/xt_tcpudp.h).
fn mentions(message: &Message, port: u16) -> bool {
    let compared = [PORT_VALUE.as_slice(), &port.to_be_bytes()].concat();
    let range = [port.to_ne_bytes(), port.to_ne_bytes()].concat();
    holds(message, &compared) || holds(message, &range)
}

fn holds(message: &Message, bytes: &[u8]) -> bool {
    message.0.windows(bytes.len()).any(|window| window == bytes)
}
