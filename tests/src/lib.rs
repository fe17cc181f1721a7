//! What tests and measurements of the whole share beyond a lab of real daemons: the simulator, and
//! the figures of the first vertical.

pub mod bench;
pub mod sim;
