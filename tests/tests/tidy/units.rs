//! The systemd unit's capabilities are those that the code needs: tasks get Docker's default set,
//! the daemon a few more.

use std::collections::BTreeSet;
use std::fs;

/// What the daemon and its helpers need beside what they hand on to tasks
/// (deploy/systemd/README.md says for what).
const OWN: [&str; 4] = ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_RESOURCE"];
/// Names by bit, from include/uapi/linux/capability.h.
const NAMES: [&str; 32] = [
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
];

/// The capabilities that a unit keeps.
fn of_unit(unit: &str) -> BTreeSet<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let words = lines.flat_map(str::split_whitespace);
    words.map(|word| word.trim_start_matches("CAP_").to_owned()).collect()
}

/// The capabilities that the code gives to a task by default: the mask named `DEFAULT`.
fn of_tasks(source: &str) -> Option<BTreeSet<String>> {
    let line = source.lines().find(|line| line.contains("const DEFAULT: u64 = 0x"))?;
    let digits = line.split("0x").nth(1)?.trim_end_matches(';').replace('_', "");
    let mask = u64::from_str_radix(&digits, 16).ok()?;
    let names = NAMES.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
    Some(names.map(|(_, name)| (*name).to_owned()).collect())
}

/// Goal: a unit with too few capabilities breaks nodes, one with too many is a hole nobody wanted.
/// Method: the unit's set is compared with the code's mask.
#[test]
fn the_unit_keeps_what_the_code_needs_and_no_more() {
    let read = |path: &str| fs::read_to_string(crate::root().join(path)).expect("it is there");
    let unit = of_unit(&read("deploy/systemd/skein.service"));
    let mut needed = of_tasks(&read("raft-store/cluster/src/rights.rs")).expect("a mask");
    needed.extend(OWN.map(str::to_owned));
    assert_eq!(unit, needed);
}

#[test]
fn masks_and_units_are_read() {
    let source = "const DEFAULT: u64 = 0x8000_0021;\n";
    let expected = ["CHOWN", "KILL", "SETFCAP"].map(str::to_owned);
    assert_eq!(of_tasks(source).expect("a mask"), BTreeSet::from(expected.clone()));
    let unit = "CapabilityBoundingSet=CAP_KILL CAP_CHOWN\nCapabilityBoundingSet=CAP_SETFCAP\n";
    assert_eq!(of_unit(unit), BTreeSet::from(expected));
    assert!(of_tasks("").is_none());
}
