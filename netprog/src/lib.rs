//! The desired and the observed kernel state of one node, and the operations between the two.
//!
//! Pure: `render` turns an assignment and a view into a desired [`plane::Plane`], `plan` compares
//! it with the observed one, and a [`kernel::Kernel`] (the real one, or the fake of tests) applies
//! the operations. All policy is in `render`; everything after it is a plain comparison.

pub mod dns;
pub mod endpoint;
pub mod explain;
pub mod fake;
#[cfg(test)]
mod fixture;
pub mod kernel;
pub mod local;
pub mod maglev;
mod model;
pub mod op;
pub mod plan;
pub mod plane;
pub mod ports;
pub mod programmer;
pub mod render;
mod text;
