//! The real kernel behind netprog: route netlink, nftables, namespaces, and the DNS server's
//! sockets.
//!
//! No policy lives here: one operation becomes one kernel request. A namespace is entered once, by
//! a thread of its own, because `setns` is per thread; everything that must happen inside it is a
//! job for that thread.

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
