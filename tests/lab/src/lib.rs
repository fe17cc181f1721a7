//! Labs of real daemons: machines of several kinds on one underlay, fault injection, the scenarios
//! that run on each kind, and the programs of the demo and the tests. The crate links none of the
//! daemon's crates: it runs `skein`, as a user does.

mod cleanup;
mod lab;
mod programs;

pub mod arguments;
pub mod cluster;
pub mod command;
pub mod containers;
pub mod demo;
pub mod faults;
pub mod guard;
pub mod http;
pub mod kinds;
pub mod load;
pub mod namespaces;
pub mod net;
pub mod node;
pub mod process;
pub mod scenario;
pub mod topology;
pub mod vm;
pub mod wait;

pub use self::kinds::{sweep, sweep_dead};
pub use self::lab::{Lab, test_name};
pub use self::node::Node;
pub use self::programs::{checkout, program, target_folder};

/// First word of the names of labs that tests make; the pid follows.
pub(crate) const TEST_PREFIX: &str = "skl";
