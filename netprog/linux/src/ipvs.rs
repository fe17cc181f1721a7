//! IPVS by generic netlink: virtual services by firewall mark with real servers by direct routing.
//!
//! The kernel needs one request per change; there are no batches or transactions.

pub(crate) mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;

use netprog::op::IpvsOp;
use netprog::plane::ipvs::{Scheduler, Timeouts, VirtualEntry, VirtualKey};
use nix::errno::Errno;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_GENERIC;

use crate::generic;
use crate::netlink::raw::{Attributes, Expect, Request, exchange};
use crate::netlink::{self, Refusal};

/// As generic netlink knows it.
const FAMILY: &str = "IPVS";

/// A client for the IPVS of one namespace.
pub(crate) struct Client {
    socket: Socket,
    family: u16,
}

impl Client {
    /// In the calling thread's namespace; `None` if IPVS is not loaded.
    pub(crate) fn open() -> Result<Option<Self>, Refusal> {
        let socket = netlink::open(NETLINK_GENERIC)?;
        let family = generic::find(&socket, FAMILY)?;
        Ok(family.map(|family| Self { socket, family }))
    }

    /// The same, but lets the kernel load IPVS if it can.
    pub(crate) fn load() -> Result<Option<Self>, Refusal> {
        let socket = netlink::open(NETLINK_GENERIC)?;
        let family = generic::load(&socket, FAMILY)?;
        Ok(family.map(|family| Self { socket, family }))
    }

    /// Applies operations in order and returns what failed, by index. Removing
    /// something that does not exist succeeds.
    pub(crate) fn apply(&self, ops: &[IpvsOp]) -> Vec<(usize, Refusal)> {
        let results = ops.iter().map(|op| self.apply_one(op));
        results.enumerate().filter_map(|(at, result)| Some((at, result.err()?))).collect()
    }

    fn apply_one(&self, op: &IpvsOp) -> Result<(), Refusal> {
        match op {
            IpvsOp::SetService(key, scheduler) => self.set_service(*key, scheduler),
            IpvsOp::DeleteService(key) => {
                gone(self.change(wire::DELETE_SERVICE, &wire::named(*key)))
            }
            IpvsOp::SetReal(key, address, weight) => self.set_real(*key, *address, *weight),
            IpvsOp::DeleteReal(key, address) => {
                gone(self.change(wire::DELETE_REAL, &wire::real_named(*key, *address)))
            }
            IpvsOp::SetTimeouts(timeouts) => {
                self.change(wire::SET_CONFIG, &wire::timeouts(*timeouts))
            }
        }
    }

    fn set_service(&self, key: VirtualKey, scheduler: &Scheduler) -> Result<(), Refusal> {
        let service = wire::service(key, scheduler);
        match self.change(wire::NEW_SERVICE, &service) {
            Err(refusal) if refusal.is(Errno::EEXIST) => self.change(wire::SET_SERVICE, &service),
            other => other,
        }
    }

    fn set_real(&self, key: VirtualKey, address: IpAddr, weight: u32) -> Result<(), Refusal> {
        let real = wire::real(key, address, weight);
        match self.change(wire::NEW_REAL, &real) {
            Err(refusal) if refusal.is(Errno::EEXIST) => self.change(wire::SET_REAL, &real),
            other => other,
        }
    }

    /// Every service by mark with its real servers.
    pub(crate) fn read(&self) -> Result<BTreeMap<VirtualKey, VirtualEntry>, Refusal> {
        let mut found = BTreeMap::new();
        for message in self.dump(wire::GET_SERVICE, &Attributes::default())? {
            let Some((key, scheduler)) = wire::read_service(&message) else { continue };
            let reals = self.dump(wire::GET_REAL, &wire::named(key))?;
            let real = reals.iter().filter_map(|m| wire::read_real(m, key.ipv6)).collect();
            found.insert(key, VirtualEntry { scheduler, real });
        }
        Ok(found)
    }

    /// The namespace's timeouts, where they are not the kernel's own.
    pub(crate) fn read_timeouts(&self) -> Result<Option<Timeouts>, Refusal> {
        let asked = Attributes::default();
        let answer = self.exchange(wire::GET_CONFIG, &asked, Expect::Answer)?;
        let found = answer.iter().find_map(|message| wire::read_timeouts(message));
        Ok(found.filter(|found| *found != Timeouts::KERNEL))
    }

    fn change(&self, command: u8, attributes: &Attributes) -> Result<(), Refusal> {
        self.exchange(command, attributes, Expect::Done).map(|_| ())
    }

    fn dump(&self, command: u8, attributes: &Attributes) -> Result<Vec<Vec<u8>>, Refusal> {
        self.exchange(command, attributes, Expect::Dump)
    }

    fn exchange(
        &self,
        command: u8,
        attributes: &Attributes,
        expect: Expect,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let header = [command, wire::VERSION, 0, 0];
        let request = Request { kind: self.family, header: &header, attributes };
        exchange(&self.socket, &request, expect)
    }
}

/// A service that is not there is ESRCH, a real server ENOENT (net/netfilter/ipvs/ip_vs_ctl.c).
fn gone(result: Result<(), Refusal>) -> Result<(), Refusal> {
    match result {
        Err(refusal) if refusal.is(Errno::ESRCH) || refusal.is(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Refuses operations on a kernel without IPVS.
pub(crate) fn absent(count: usize) -> Vec<(usize, Refusal)> {
    let refusal = Refusal::other("this kernel has no IPVS: load the module ip_vs (CONFIG_IP_VS)");
    (0..count).map(|at| (at, refusal.clone())).collect()
}
