//! Virtual services and real servers.

use super::{Model, Refused};
use crate::op::IpvsOp;
use crate::plane::Place;
use crate::plane::ipvs::{Timeouts, VirtualEntry};

/// Schedulers of a kernel with all modules of IPVS (net/netfilter/ipvs/Kconfig).
const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos"];

impl Model {
    /// A service keeps its real servers when its scheduler changes; they are removed with it.
    pub(super) fn change_ipvs(&mut self, place: Place, op: &IpvsOp) -> Refused {
        match op {
            IpvsOp::SetService(key, scheduler) => {
                if !SCHEDULERS.contains(&scheduler.name.as_str()) {
                    return Err(format!("no scheduler {}", scheduler.name));
                }
                let services = &mut self.space(place)?.ipvs;
                let fresh =
                    || VirtualEntry { scheduler: scheduler.clone(), real: Default::default() };
                services.entry(*key).or_insert_with(fresh).scheduler = scheduler.clone();
                Ok(())
            }
            IpvsOp::DeleteService(key) => self.gone(place, |space| {
                space.ipvs.remove(key);
            }),
            IpvsOp::SetReal(key, address, weight) => {
                if address.is_ipv6() != key.ipv6 {
                    return Err(format!("{address} is of another family than {key}"));
                }
                let service = self.space(place)?.ipvs.get_mut(key);
                let service = service.ok_or_else(|| format!("no virtual service {key}"))?;
                service.real.insert(*address, *weight);
                Ok(())
            }
            IpvsOp::DeleteReal(key, address) => self.gone(place, |space| {
                if let Some(service) = space.ipvs.get_mut(key) {
                    service.real.remove(address);
                }
            }),
            IpvsOp::SetTimeouts(timeouts) => {
                let other = (*timeouts != Timeouts::KERNEL).then_some(*timeouts);
                self.space(place)?.ipvs_timeouts = other;
                Ok(())
            }
        }
    }
}
