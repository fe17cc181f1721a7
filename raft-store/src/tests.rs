//! Storage, recovery and clusters in one process.

mod cluster;
mod encoding;
mod harness;
mod members;
mod snapshots;
mod storage;
