//! What the tests above the crates share: the lab, which runs real daemons in network namespaces
//! of one machine, and what a scenario needs to talk to them.

pub mod bench;
pub mod demo;
pub mod lab;
pub mod sim;
pub mod vm;
