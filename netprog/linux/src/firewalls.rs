//! Chains of other programs that drop what this host forwards and they do not know: of nftables, so
//! also of iptables-nft. Those of iptables-legacy cannot be read here.

use std::io;

use netprog::plane::{Family, TABLE_PREFIX, TableKey};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use crate::netlink::raw::{be32, nested, text};
use crate::netlink::{self, Refusal};
use crate::nft::read::{TABLE_NAME, set};
use crate::nft::wire::{GET_CHAIN, GET_ELEMENTS, GET_RULE, GET_SET, Message, dump, number};

/// `NF_INET_FORWARD`.
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

/// A chain that drops what it does not accept of what the host forwards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocker {
    /// Its table.
    pub table: TableKey,
    /// Its name.
    pub chain: String,
    /// The other chains of the table: by them the program that made it is known.
    pub chains: Vec<String>,
}

/// The chains in the calling thread's namespace that block, where no rule or set of their table
/// names one of these links. Blocks.
///
/// # Errors
/// When the kernel does not tell.
pub fn blockers(links: &[&str]) -> io::Result<Vec<Blocker>> {
    read(links).map_err(|refusal| io::Error::other(refusal.text))
}

fn read(links: &[&str]) -> Result<Vec<Blocker>, Refusal> {
    let socket = netlink::open(NETLINK_NETFILTER)?;
    let chains: Vec<Chain> = dump(&socket, GET_CHAIN, 0, &[])?.iter().filter_map(chain).collect();
    let mut found = Vec::new();
    for chain in chains.iter().filter(|chain| chain.forwards) {
        let table = &chain.table;
        let bridged = table.family == Family::Bridge;
        if bridged || table.name.starts_with(TABLE_PREFIX) {
            continue;
        }
        let blocks = chain.drops || ends_by_a_drop(&socket, chain)?;
        if blocks && !names(&socket, table, links)? {
            let others = chains.iter().filter(|other| other.table == *table);
            let chains = others.map(|other| other.name.clone()).collect();
            found.push(Blocker { table: table.clone(), chain: chain.name.clone(), chains });
        }
    }
    Ok(found)
}

struct Chain {
    table: TableKey,
    name: String,
    forwards: bool,
    drops: bool,
}

fn chain(message: &Message) -> Option<Chain> {
    let (mut table, mut name, mut forwards, mut drops) = (None, None, false, false);
    for (kind, value) in message.attributes() {
        match kind {
            TABLE_NAME => table = Some(text(value)),
            CHAIN_NAME => name = Some(text(value)),
            CHAIN_HOOK => {
                let hook = nested(value).find(|(kind, _)| *kind == HOOK_NUMBER);
                forwards = hook.and_then(|(_, number)| be32(number)) == Some(FORWARD);
            }
            CHAIN_POLICY => drops = be32(value) == Some(DROP),
            _ => {}
        }
    }
    let table = TableKey { family: message.family()?, name: table? };
    Some(Chain { table, name: name?, forwards, drops })
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

/// Whether a rule or a set of a table names one of these links: an operator has thought of them.
fn names(socket: &Socket, table: &TableKey, links: &[&str]) -> Result<bool, Refusal> {
    let family = number(table.family);
    let of_table = [(TABLE_NAME, table.name.as_str())];
    let mut said = dump(socket, GET_RULE, family, &of_table)?;
    for message in dump(socket, GET_SET, family, &of_table)? {
        let (name, _) = set(&message);
        let of_set = [of_table[0], (LIST_SET, name.as_str())];
        said.extend(dump(socket, GET_ELEMENTS, family, &of_set)?);
    }
    let named = |message: &Message, link: &str| {
        message.0.windows(link.len()).any(|window| window == link.as_bytes())
    };
    Ok(said.iter().any(|message| links.iter().any(|link| named(message, link))))
}
