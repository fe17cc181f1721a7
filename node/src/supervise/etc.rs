//! The texts of the files in /etc that every task gets for itself.

use std::fmt::Write;
use std::net::IpAddr;

use crate::executor::{DnsConfig, HostEntry};

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

/// /etc/resolv.conf.
pub(crate) fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = format!("nameserver {NAME_SERVER}\n");
    if !dns.search.is_empty() {
        let _ = writeln!(text, "search {}", dns.search.join(" "));
    }
    let mut options = dns.options.clone();
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let _ = writeln!(text, "options {}", options.join(" "));
    text
}

#[cfg(test)]
mod tests;
