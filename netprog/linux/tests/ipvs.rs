//! The IPVS balancer on a kernel that has IPVS, as root: the fake kernel is held equal to the real
//! one, `ipvsadm` sees what was meant, and packets walk every path that they walk with nft. The
//! tier `vm` runs this on the kernels that Skein is meant for; nothing here is left out where a
//! kernel lacks IPVS, it fails.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "what cannot be set up fails the test"
)]

use netprog::local::Balancer;

/// What balances in these tests.
const BALANCER: Balancer = Balancer::Ipvs;

#[path = "datapath/bounds.rs"]
mod bounds;
#[path = "datapath/changes.rs"]
mod changes;
#[path = "ipvs/conformance.rs"]
mod conformance;
#[path = "datapath/flows.rs"]
mod flows;
#[path = "datapath/lab.rs"]
mod lab;
#[path = "datapath/paths.rs"]
mod paths;
#[path = "datapath/published.rs"]
mod published;
#[path = "ipvs/services.rs"]
mod services;
#[path = "datapath/talk.rs"]
mod talk;
