//! Storage, recovery and clusters in one process.

mod cluster;
mod damage;
mod encoding;
mod harness;
mod members;
mod offline;
mod snapshots;
mod storage;
