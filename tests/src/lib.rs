//! What the tests above the crates share: the lab, which runs real daemons in network namespaces
//! of one machine or in containers, and what a scenario needs to talk to them.

pub mod bench;
pub mod containers;
pub mod demo;
pub mod lab;
pub mod sim;
