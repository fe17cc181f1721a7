//! Proves the data path on a real kernel with real daemons and real redis, in network namespaces
//! of this machine. Needs root; without it every scenario fails and says so.
//!
//! Each scenario builds a lab, and its checks share it: a check states what a user may rely on.

mod bad_input;
mod cold_restart;
mod dns;
mod docker_cli;
mod ingress;
mod join;
mod node_loss;
mod restart;
mod scale;
mod single_node;
mod stage;
mod vip;
