//! IPVS: services and real servers are added before the nftables marks that lead to them, and
//! removed after them.

use super::Knowledge;
use crate::op::{IpvsOp, Op};
use crate::plane::{Place, Space};

/// Adds what is missing. An existing service or weight changes only with complete knowledge:
/// before that, a remote backend that has not been heard from looks like one that drains.
pub(super) fn set(
    place: Place,
    wanted: &Space,
    there: &Space,
    knowledge: Knowledge,
    ops: &mut Vec<Op>,
) {
    if let Some(timeouts) = wanted.ipvs_timeouts
        && there.ipvs_timeouts != Some(timeouts)
    {
        ops.push(Op::new(place, IpvsOp::SetTimeouts(timeouts)));
    }
    let complete = knowledge == Knowledge::Complete;
    for (key, service) in &wanted.ipvs {
        let now = there.ipvs.get(key);
        if now.is_none_or(|now| complete && now.scheduler != service.scheduler) {
            ops.push(Op::new(place, IpvsOp::SetService(*key, service.scheduler.clone())));
        }
        for (address, weight) in &service.real {
            let there = now.and_then(|now| now.real.get(address));
            if there.is_none_or(|there| complete && there != weight) {
                ops.push(Op::new(place, IpvsOp::SetReal(*key, *address, *weight)));
            }
        }
    }
}

/// Removes what is not desired. In a fabric, IPVS belongs to Skein alone; elsewhere it does not.
pub(super) fn remove(place: Place, wanted: &Space, there: &Space, ops: &mut Vec<Op>) {
    match place {
        Place::Fabric(_) => {}
        Place::Host | Place::Sandbox(_) => return,
    }
    for (key, service) in &there.ipvs {
        let Some(wanted) = wanted.ipvs.get(key) else {
            ops.push(Op::new(place, IpvsOp::DeleteService(*key)));
            continue;
        };
        for address in service.real.keys().filter(|address| !wanted.real.contains_key(address)) {
            ops.push(Op::new(place, IpvsOp::DeleteReal(*key, *address)));
        }
    }
}
