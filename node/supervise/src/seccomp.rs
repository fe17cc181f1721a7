//! Which system calls a task may make: those that Docker's default profile allows a container with
//! its capabilities (moby/profiles, `seccomp/default.json`, commit 02e898b).
//!
//! That profile's rules depend on capabilities, architecture and kernel. A task here has a kernel
//! newer than any that a rule asks for, so what is left is a list of calls, more for some
//! capabilities, three that depend on an argument, and one that is answered as if the kernel did
//! not have it. As runc does, so are calls that are newer than the list, because programs have an
//! answer to ENOSYS and none to EPERM.
//!
//! Stricter than Docker: calls in the numbering of another architecture (`int 0x80`, 32-bit
//! programs) end the task, and x32 ones are refused.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

use crate::failure::Failure;
use crate::spec::Seccomp;

mod calls;

/// `clone(2)`'s flags that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID,
/// NEWNET.
const NAMESPACES: u64 = 0x7e02_0000;
/// Personalities that change no address and no layout: `PER_LINUX`, `PER_LINUX32`, both with
/// `UNAME26`, and the question for the present one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Families of sockets (linux/socket.h) up to this one may be made: among them unix, IPv4, IPv6.
const FAMILY_LOW_MAX: u64 = 11;
/// The others. Not among them: the kernel's cryptography (38), virtual machines' sockets (40), and
/// what kernels have given up.
const FAMILIES: [u64; 25] = [
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44,
    45,
];
/// The last call that the list knows of. Numbers are the same on every architecture from 424 on.
const LAST_KNOWN: c_long = 466;
/// As many newer calls are answered as absent.
const NEWER: c_long = 64;

/// Filters this process and all that it executes, for good. Sets `no_new_privs`.
pub(super) fn install(mode: Seccomp, capabilities: u64) -> Result<(), Failure> {
    match mode {
        Seccomp::Unconfined => return Ok(()),
        Seccomp::Default => {}
    }
    // Where both answer with an error, the one installed last is heard (seccomp(2)).
    [allowed(capabilities), absent(capabilities)]
        .into_iter()
        .try_for_each(|filter| apply_filter(&filter?))
        .map_err(|error| Failure::setup("restrict the system calls", number(&error)))
}

fn listed() -> impl Iterator<Item = c_long> {
    [calls::ALLOWED, calls::NEW, calls::OF_ARCHITECTURE].into_iter().flatten().copied()
}

/// What some capabilities allow in addition.
fn granted(capabilities: u64) -> impl Iterator<Item = c_long> {
    let has = move |number: u32| capabilities & 1 << number != 0;
    let of = calls::OF_CAPABILITIES.iter().filter(move |(number, _)| has(*number));
    of.flat_map(|(_, calls)| calls.iter().copied())
}

fn makes_namespaces(capabilities: u64) -> bool {
    capabilities & 1 << calls::SYS_ADMIN != 0
}

/// EPERM for all but the calls of the list.
fn allowed(capabilities: u64) -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        listed().chain(granted(capabilities)).map(|call| (call, Vec::new())).collect();
    if !makes_namespaces(capabilities) {
        rules.insert(libc::SYS_clone, vec![first(SeccompCmpOp::MaskedEq(NAMESPACES), 0)?]);
    }
    rules.insert(libc::SYS_personality, one_of(&PERSONALITIES)?);
    let mut families = one_of(&FAMILIES)?;
    families.push(first(SeccompCmpOp::Le, FAMILY_LOW_MAX)?);
    rules.insert(libc::SYS_socket, families);
    filter(rules, refused(Errno::EPERM), SeccompAction::Allow)
}

/// ENOSYS for `clone3`, whose flags are behind a pointer and cannot be looked at, and for newer
/// calls than the list knows.
fn absent(capabilities: u64) -> Result<BpfProgram, Error> {
    let newer = LAST_KNOWN + 1..=LAST_KNOWN + NEWER;
    let hidden = (!makes_namespaces(capabilities)).then_some(libc::SYS_clone3);
    let rules = newer.chain(hidden).map(|call| (call, Vec::new())).collect();
    filter(rules, SeccompAction::Allow, refused(Errno::ENOSYS))
}

fn filter(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    others: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, Error> {
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, others, matching, architecture)?.try_into()?)
}

fn one_of(values: &[u64]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|value| first(SeccompCmpOp::Eq, *value)).collect()
}

/// The first argument, of which the kernel reads the lower half, compared with `value`.
fn first(operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}

fn refused(error: Errno) -> SeccompAction {
    SeccompAction::Errno(error as u32)
}

fn number(error: &Error) -> Errno {
    match error {
        Error::Prctl(error) | Error::Seccomp(error) => Failure::number(error),
        Error::Backend(_) | Error::EmptyFilter | Error::ThreadSync(_) => Errno::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a call that is newer than the list is never answered with EPERM, and none of the list
    /// with ENOSYS.
    #[test]
    fn the_list_ends_where_newer_calls_begin() {
        assert_eq!(listed().max(), Some(LAST_KNOWN));
    }

    /// Goal: a call that is written twice, or by a wrong number, is noticed.
    #[test]
    fn no_call_is_listed_twice() {
        let mut calls: Vec<c_long> = listed().collect();
        calls.extend([libc::SYS_clone, libc::SYS_clone3, libc::SYS_personality, libc::SYS_socket]);
        calls.push(libc::SYS_chroot);
        let all = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), all);
    }

    /// Goal: what depends on a capability is allowed by it alone.
    #[test]
    fn no_call_of_a_capability_is_on_the_list() {
        let common: Vec<c_long> =
            granted(u64::MAX).filter(|call| listed().any(|listed| listed == *call)).collect();
        assert_eq!(common, [0; 0]);
    }

    /// Goal: the filters fit into a kernel (BPF_MAXINSNS).
    #[test]
    fn the_filters_compile() {
        for capabilities in [0, u64::MAX] {
            for filter in [allowed(capabilities), absent(capabilities)] {
                assert!((2..4096).contains(&filter.expect("it compiles").len()));
            }
        }
    }
}
