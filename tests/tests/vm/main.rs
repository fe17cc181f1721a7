//! Proves on kernels of their own what namespaces of one kernel cannot: another kernel's data
//! path, reboots, the loss of power. Guests are user-mode Linux, which is quick, and Debian 12's
//! kernel 6.1 in QEMU, which is what users have.

mod cluster;
mod machine;
mod played;
mod prototypes;
mod stage;
mod systemd;
