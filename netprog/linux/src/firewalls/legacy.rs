//! The table `filter` of iptables-legacy, by its own program: the kernel's interface to it is a
//! binary blob that the program knows.

use std::io;
use std::process::Command;

use netprog::plane::{Family, TableKey};

use super::{Blocker, Hook};

/// Tables that were ever used in this namespace.
const TABLES: &str = "/proc/thread-self/net/ip_tables_names";
const PROGRAM: &str = "iptables-legacy-save";

/// Those chains of the calling thread's namespace that block, as [`super::blockers`].
///
/// # Errors
/// When there is a table and the program does not show it.
pub fn blockers(links: &[&str], ports: &[u16]) -> io::Result<Vec<Blocker>> {
    // A kernel without this has no such tables.
    let tables = std::fs::read_to_string(TABLES).unwrap_or_default();
    if !tables.lines().any(|table| table == "filter") {
        return Ok(Vec::new());
    }
    let unread = |why: String| {
        let text = format!("read the filter table of iptables-legacy by {PROGRAM}: {why}");
        io::Error::other(text)
    };
    let output = Command::new(PROGRAM).args(["-t", "filter"]).output();
    let output = output.map_err(|error| unread(error.to_string()))?;
    if !output.status.success() {
        return Err(unread(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(read(&String::from_utf8_lossy(&output.stdout), links, ports))
}

pub(crate) fn read(saved: &str, links: &[&str], ports: &[u16]) -> Vec<Blocker> {
    let chains: Vec<String> = {
        let declared = saved.lines().filter_map(|line| line.strip_prefix(':'));
        declared.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    let words = |line: &str| line.split([' ', ',', ':']).map(str::to_owned).collect::<Vec<_>>();
    let said: Vec<Vec<String>> =
        saved.lines().filter(|line| line.starts_with("-A")).map(words).collect();
    let names = |text: &str| said.iter().any(|rule| rule.iter().any(|word| word == text));
    let mut found = Vec::new();
    for (chain, hook) in [("INPUT", Hook::Input), ("FORWARD", Hook::Forward)] {
        let unmentioned: Vec<u16> = match hook {
            Hook::Forward if links.iter().any(|link| names(link)) => continue,
            Hook::Forward => Vec::new(),
            Hook::Input => ports.iter().copied().filter(|port| !names(&port.to_string())).collect(),
        };
        if blocks(saved, chain) && (hook == Hook::Forward || !unmentioned.is_empty()) {
            found.push(Blocker {
                hook,
                legacy: true,
                unmentioned,
                table: TableKey { family: Family::Ip, name: "filter".to_owned() },
                chain: chain.to_owned(),
                chains: chains.clone(),
            });
        }
    }
    found
}

/// By its policy, or by a last rule that asks nothing of a packet.
fn blocks(saved: &str, chain: &str) -> bool {
    let policy = saved.lines().any(|line| line.starts_with(&format!(":{chain} DROP")));
    let begin = format!("-A {chain} ");
    let last = saved.lines().rfind(|line| line.starts_with(&begin)).unwrap_or_default();
    let target = last.strip_prefix(&begin).unwrap_or_default();
    policy || target == "-j DROP" || target.starts_with("-j REJECT")
}

#[test]
fn what_the_program_saves_is_read() {
    let found = |rules: &str| {
        let saved = format!("*filter\n{rules}\nCOMMIT\n");
        let found = read(&saved, &["ing0"], &[4789, 7946]);
        found.into_iter().map(|b| (b.chain, b.unmentioned)).collect::<Vec<_>>()
    };
    let chain = |name: &str, ports: &[u16]| (name.to_owned(), ports.to_vec());
    assert_eq!(found(":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]"), []);
    assert_eq!(found(":FORWARD DROP [0:0]"), [chain("FORWARD", &[])]);
    assert_eq!(found(":FORWARD DROP [0:0]\n-A FORWARD -i ing0 -j ACCEPT"), []);
    let ends = ":FORWARD ACCEPT [0:0]\n-A FORWARD -s 192.0.2.1 -j DROP\n-A FORWARD -j REJECT \
                --reject-with icmp-port-unreachable";
    assert_eq!(found(ends), [chain("FORWARD", &[])]);
    assert_eq!(found(":FORWARD ACCEPT [0:0]\n-A FORWARD -s 192.0.2.1 -j DROP"), []);
    let input = ":INPUT DROP [0:0]\n-A INPUT -p udp -m udp --dport 7946 -j ACCEPT";
    assert_eq!(found(input), [chain("INPUT", &[4789])]);
    let both = ":INPUT DROP [0:0]\n-A INPUT -p udp -m multiport --dports 4789,7946 -j ACCEPT";
    assert_eq!(found(both), []);
}
