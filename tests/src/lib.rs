//! What the tests above the crates share: the lab, which runs real daemons on machines of several
//! kinds, and the scenarios that are played on each of them.

pub mod bench;
pub mod containers;
pub mod demo;
pub mod lab;
pub mod scenario;
pub mod sim;
pub mod vm;
