//! The texts of the files in /etc that every task gets for itself.

use std::fmt::Write;
use std::net::IpAddr;

use crate::spec::{DnsConfig, HostEntry};

/// The address at which every sandbox asks for names.
pub(crate) const NAME_SERVER: &str = "127.0.0.11";

/// What Docker writes first (libnetwork `etchosts`).
const COMMON_HOSTS: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// /etc/hosts: the common lines, the extra ones, then the task's own addresses.
pub(crate) fn hosts(hostname: &str, extra: &[HostEntry], own: &[IpAddr]) -> String {
    let mut text = COMMON_HOSTS.to_owned();
    for entry in extra {
        push_line(&mut text, entry.address, &entry.names.join(" "));
    }
    for address in own {
        push_line(&mut text, *address, hostname);
    }
    text
}

fn push_line(text: &mut String, address: IpAddr, names: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{address}\t{names}");
}

/// /etc/resolv.conf: the task's own search list and options, else those of the host's file, as
/// Docker does (libnetwork `resolvconf`).
pub(crate) fn resolv_conf(dns: &DnsConfig, host: &str) -> String {
    let mut text = format!("nameserver {NAME_SERVER}\n");
    let search = if dns.search.is_empty() { host_search(host) } else { dns.search.clone() };
    // Docker's way to say that there is none.
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let mut options = if dns.options.is_empty() { host_options(host) } else { dns.options.clone() };
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let _ = writeln!(text, "options {}", options.join(" "));
    text
}

/// The last line with one counts (resolv.conf(5)).
fn host_search(host: &str) -> Vec<String> {
    let lines = values(host, &["search", "domain"]);
    lines.last().cloned().unwrap_or_default()
}

/// All lines count.
fn host_options(host: &str) -> Vec<String> {
    values(host, &["options"]).concat()
}

/// The words after these keywords, which begin their lines.
fn values(host: &str, keywords: &[&str]) -> Vec<Vec<String>> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let is_wanted = words.next().is_some_and(|word| keywords.contains(&word));
        is_wanted.then(|| words.map(str::to_owned).collect())
    };
    host.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests;
