//! The systemd unit's capabilities are those that the code needs: tasks get Docker's default set,
//! the daemon a few more.

use std::collections::BTreeSet;
use std::fs;

use cluster::rights::default_capabilities;

/// Capabilities of the daemon and its helpers, in addition to those of tasks
/// (deploy/systemd/README.md says for what).
const OWN: [&str; 4] = ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_RESOURCE"];
/// The capabilities that a unit keeps.
fn of_unit(unit: &str) -> BTreeSet<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let words = lines.flat_map(str::split_whitespace);
    words.map(|word| word.trim_start_matches("CAP_").to_owned()).collect()
}

/// Goal: a unit with too few capabilities breaks nodes, one with too many is a hole nobody wanted.
/// Method: the unit's set is compared with the code's.
#[test]
fn the_unit_keeps_what_the_code_needs_and_no_more() {
    let read = |path: &str| fs::read_to_string(crate::root().join(path)).expect("it is there");
    let unit = of_unit(&read("deploy/systemd/skein.service"));
    let needed: BTreeSet<String> = default_capabilities().chain(OWN).map(str::to_owned).collect();
    assert_eq!(unit, needed);
}

#[test]
fn units_are_read() {
    let expected = ["CHOWN", "KILL", "SETFCAP"].map(str::to_owned);
    let unit = "CapabilityBoundingSet=CAP_KILL CAP_CHOWN\nCapabilityBoundingSet=CAP_SETFCAP\n";
    assert_eq!(of_unit(unit), BTreeSet::from(expected));
}
