//! Packets through what netprog renders: two nodes with real kernels' namespaces, an outside client
//! on their underlay, and servers that say whom they see. Needs root. The same paths are walked
//! with IPVS by the tests of `ipvs.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "what cannot be set up fails the test"
)]

use netprog::local::Balancer;

/// What balances in these tests.
const BALANCER: Balancer = Balancer::Nft;

#[path = "datapath/bounds.rs"]
mod bounds;
#[path = "datapath/changes.rs"]
mod changes;
#[path = "datapath/flows.rs"]
mod flows;
#[path = "datapath/lab.rs"]
mod lab;
#[path = "datapath/memory.rs"]
mod memory;
#[path = "datapath/paths.rs"]
mod paths;
#[path = "datapath/published.rs"]
mod published;
#[path = "datapath/talk.rs"]
mod talk;
