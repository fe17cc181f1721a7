//! Proves the data path on a real kernel with real daemons and real redis, in network namespaces
//! of this machine. Needs root; without it every scenario fails and says so.
//!
//! Each scenario builds a lab, and its checks share it: a check states what a user may rely on.
//! Those that run on every kind of lab are in `tests/lab/src/scenario/`; here are, in addition,
//! those that are about one kernel or about docker's own client.

mod address;
mod adversary;
mod autolock;
mod bad_input;
mod ca;
mod command;
mod damage;
mod disk;
mod divergence;
mod docker_cli;
mod execs;
mod faults;
mod firewalls;
mod history;
mod host_ip;
mod interference;
mod isolation;
mod leader_loss;
mod log_servers;
mod machine;
mod memory;
mod places;
mod played;
mod ports;
mod recovery;
mod resources;
mod roles;
mod rollout;
mod rows;
mod single_node;
mod sockets;
mod stage;
mod task_environment;
mod underlay;
mod versions;
mod why;
