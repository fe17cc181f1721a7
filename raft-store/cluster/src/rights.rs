//! What a task may do other than by Docker's defaults: capabilities, kernel parameters and limits
//! of processes, by their names. A manager refuses what is not known here; a node acts on the rest.

use serde::{Deserialize, Serialize};

use crate::spec::Ulimit;

/// By number (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// Docker's default set (moby `oci/caps/defaults.go`): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
/// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const DEFAULT: u64 = 0xa804_25fb;

/// Names of the capabilities that a task has by default.
pub fn default_capabilities() -> impl Iterator<Item = &'static str> {
    let named = CAPABILITIES.iter().enumerate();
    named.filter(|(bit, _)| DEFAULT & (1 << bit) != 0).map(|(_, name)| *name)
}

/// What stands for all of them.
const ALL: &str = "ALL";

/// Parameters of a task's own IPC and UTS namespaces, as runc knows them.
const OF_NAMESPACES: [&str; 9] = [
    "kernel.domainname",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];
/// Parameters that every sandbox has for its network's sake.
pub const OF_SANDBOXES: [&str; 3] =
    ["net.ipv4.conf.all.rp_filter", "net.ipv4.ip_early_demux", "net.ipv4.tcp_timestamps"];

/// Limits by Docker's names (docker/go-units `ulimit.go`).
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The capabilities of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// By number.
    pub mask: u64,
    /// Whether the task is content with those of them that its node has, as one with `ALL` is.
    pub at_most: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { mask: DEFAULT, at_most: false }
    }
}

impl Capabilities {
    /// Docker's default set with those added and dropped (moby `oci/caps/utils.go`).
    ///
    /// # Errors
    /// For the user, when a name is unknown.
    pub fn of(add: &[String], drop: &[String]) -> Result<Self, String> {
        let (adds_all, added) = read(add)?;
        let (drops_all, dropped) = read(drop)?;
        let every = (1 << CAPABILITIES.len()) - 1;
        let mask = match (adds_all, drops_all) {
            (true, _) => every & !dropped,
            (false, true) => added,
            (false, false) => DEFAULT & !dropped | added,
        };
        Ok(Self { mask, at_most: adds_all })
    }

    /// What a task gets on a node that has the capabilities `own`.
    ///
    /// # Errors
    /// The name of one that the task needs and the node does not have.
    pub fn on(self, own: u64) -> Result<u64, String> {
        let lacking = self.mask & !own & !DEFAULT;
        if self.at_most || lacking == 0 {
            return Ok(if self.at_most { self.mask & own } else { self.mask });
        }
        let first = CAPABILITIES.get(lacking.trailing_zeros() as usize).unwrap_or(&"of no name");
        Err(format!("CAP_{first}"))
    }
}

/// Whether all are named, and the others as a mask.
fn read(names: &[String]) -> Result<(bool, u64), String> {
    let (mut all, mut mask) = (false, 0);
    for name in names {
        let upper = name.trim().to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match CAPABILITIES.iter().position(|known| *known == plain) {
            Some(number) => mask |= 1 << number,
            None if plain == ALL => all = true,
            None => {
                return Err(format!(
                    "unknown capability {name:?}: give one like NET_ADMIN (capabilities(7)), or ALL"
                ));
            }
        }
    }
    Ok((all, mask))
}

/// Refuses a kernel parameter that is not the task's own, or that its network depends on.
///
/// # Errors
/// For the user.
pub fn check_sysctl(name: &str) -> Result<(), String> {
    let part = |part: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        !part.is_empty() && part.chars().all(inner)
    };
    let is_own =
        name.starts_with("net.") || name.starts_with("fs.mqueue.") || OF_NAMESPACES.contains(&name);
    if !is_own || !name.split('.').all(part) {
        return Err(format!(
            "sysctl {name:?} is not one of a task's own namespaces: use net.*, fs.mqueue.*, \
             kernel.shm*, kernel.msg*, kernel.sem or kernel.domainname"
        ));
    }
    if OF_SANDBOXES.contains(&name) {
        return Err(format!(
            "sysctl {name:?} is set by Skein for the task's network: leave it out"
        ));
    }
    let link = ["conf", "neigh"].iter().find_map(|kind| {
        let (_, rest) = name.split_once(&format!(".{kind}."))?;
        rest.split('.').next()
    });
    match link {
        None | Some("all" | "default" | "lo") => Ok(()),
        Some(link) => Err(format!(
            "sysctl {name:?}: {link} is one of Skein's own links: set it for all or default"
        )),
    }
}

/// Refuses a limit that is unknown or contradicts itself.
///
/// # Errors
/// For the user.
pub fn check_ulimit(ulimit: &Ulimit) -> Result<(), String> {
    let Ulimit { name, soft, hard, .. } = ulimit;
    if !ULIMITS.contains(&name.as_str()) {
        return Err(format!("invalid ulimit type: {name:?}: give one of {}", ULIMITS.join(", ")));
    }
    let least = soft.min(hard);
    if *least < -1 {
        return Err(format!("ulimit {name}: {least} is no limit: give a number, or -1 for none"));
    }
    // None is more than any.
    if *hard != -1 && (*soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {name} has {soft} > {hard}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Moby's own table (`oci/caps/utils_test.go`), by mask.
    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        const ALL: u64 = 0x1ff_ffff_ffff;
        type Row = (&'static [&'static str], &'static [&'static str], u64);
        let table: [Row; 9] = [
            (&[], &[], DEFAULT),
            (&["NET_ADMIN"], &[], DEFAULT | 1 << 12),
            (&["cap_net_admin", "CAP_SYSLOG"], &[], DEFAULT | 1 << 12 | 1 << 34),
            (&[], &["CAP_CHOWN", "mknod"], DEFAULT & !1 & !(1 << 27)),
            (&[], &["ALL"], 0),
            (&["CHOWN"], &["all"], 1),
            (&["ALL"], &[], ALL),
            (&["ALL"], &["SYS_ADMIN"], ALL & !(1 << 21)),
            (&["CHOWN"], &["CHOWN"], DEFAULT),
        ];
        for (add, drop, mask) in table {
            let set = Capabilities::of(&names(add), &names(drop)).unwrap();
            assert_eq!(set.mask, mask, "{add:?} {drop:?}");
        }
        let error = Capabilities::of(&names(&["CAP_FLY"]), &[]).unwrap_err();
        assert!(error.contains("unknown capability \"CAP_FLY\""), "{error}");
        assert!(Capabilities::of(&[], &names(&[""])).is_err());
    }

    #[test]
    fn a_node_without_a_capability_says_which() {
        let of = |add: &[&str]| Capabilities::of(&names(add), &[]).unwrap();
        let own = DEFAULT | 1 << 12;
        assert_eq!(of(&["NET_ADMIN"]).on(own), Ok(own));
        assert_eq!(of(&["SYS_TIME"]).on(own), Err("CAP_SYS_TIME".to_owned()));
        assert_eq!(of(&["ALL"]).on(own), Ok(own));
    }

    #[test]
    fn sysctls_are_those_of_a_tasks_namespaces() {
        for name in [
            "net.core.somaxconn",
            "net.ipv4.conf.all.forwarding",
            "net.ipv4.conf.default.rp_filter",
            "net.ipv6.conf.lo.disable_ipv6",
            "kernel.shmmax",
            "kernel.sem",
            "fs.mqueue.msg_max",
        ] {
            assert_eq!(check_sysctl(name), Ok(()), "{name}");
        }
        for name in [
            "vm.swappiness",
            "kernel.hostname",
            "kernel.core_pattern",
            "fs.file-max",
            "net",
            "net..x",
            "net.../../kernel/core_pattern",
            "net.ipv4/../../kernel.core_pattern",
            "net.ipv4.tcp_timestamps",
            "net.ipv4.conf.eth0.rp_filter",
            "net.ipv4.neigh.eth1.mcast_solicit",
            "",
        ] {
            let error = check_sysctl(name).unwrap_err();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn limits_are_dockers() {
        let check = |name: &str, soft, hard| {
            check_ulimit(&Ulimit { name: name.to_owned(), soft, hard, ..Ulimit::default() })
        };
        for (soft, hard) in [(1, 2), (2, 2), (0, 0), (5, -1), (-1, -1)] {
            assert_eq!(check("nofile", soft, hard), Ok(()), "{soft} {hard}");
        }
        for (soft, hard) in [(2, 1), (-1, 5), (-2, 5), (1, -7)] {
            assert!(check("nofile", soft, hard).is_err(), "{soft} {hard}");
        }
        assert!(check("files", 1, 1).unwrap_err().contains("invalid ulimit type: \"files\""));
    }
}
