//! Virtual machines: guests with their own kernels. They boot from images made of Debian packages
//! and are attached to the lab's underlay with TAPs.
//!
//! [`images`] builds what they boot from, once; [`guest`] says how one is started; [`monitor`]
//! starts, finds and ends it; [`agent`] runs programs in it. [`topology`] is a lab of them,
//! [`runner`] runs one program on a kernel of choice, [`single`] one guest in the foreground.
//! deploy/vm/README.md is the user documentation.

pub mod accel;
pub mod agent;
pub mod cache;
pub mod debian;
pub mod disk;
pub mod guest;
pub mod host;
pub mod images;
pub mod kernel;
pub mod machine;
pub mod monitor;
pub mod root;
pub mod runner;
pub mod single;
pub mod topology;
pub mod wires;
