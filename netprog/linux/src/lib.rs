//! The real kernel for netprog: route netlink, nftables, IPVS, namespaces, and the DNS server.
//!
//! This crate contains no policy: one operation becomes one kernel request. Each namespace is
//! entered once, by a dedicated thread, because `setns` applies to one thread; everything that must
//! happen inside it is a job for that thread.

mod bulk;
mod conntrack;
pub mod dns_server;
pub mod drift;
pub mod facts;
pub mod firewalls;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod generic;
pub mod holders;
mod ipvs;
pub mod kernel;
mod link;
mod listeners;
mod message;
pub mod namespace;
mod netlink;
mod nft;
mod observe;
pub mod probe;
mod route;
pub mod sock_diag;
pub mod spaces;
mod sysctl;

pub use kernel::LinuxKernel;
pub use listeners::Listeners;
pub use spaces::{HeldSpaces, Spaces};
