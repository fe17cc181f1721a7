//! Tests on separate kernels what namespaces of one kernel cannot: another kernel's data path,
//! reboots, power loss. Guests are user-mode Linux, which is fast, and Debian 12's kernel 6.1 in
//! QEMU, which users run.

mod cluster;
mod machine;
mod played;
mod prototypes;
mod stage;
mod systemd;
