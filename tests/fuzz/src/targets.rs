//! Which targets there are.

use std::path::Path;
use std::sync::OnceLock;

use cluster::codec::TRANSACTION_BYTES_MAX;
use gossip::codec::SYNC_BYTES_MAX;
use raft_store::MESSAGE_BYTES_MAX;
use tempfile::TempDir;

/// What a target may take whatever its input is: the code's own tables, buffers and small values.
const SMALL: usize = 4 << 20;
/// A decoder may make a list as long as its limit before it finds that the input is over; a law
/// decodes several times, and the readers of files hold pieces besides.
const TRANSACTION: usize = TRANSACTION_BYTES_MAX + SMALL;
const RAFT: usize = MESSAGE_BYTES_MAX + SMALL;
/// hickory-server makes a list for as many questions as a message's header says, of 16 bits, before
/// it reads them; one takes some 170 bytes.
const QUESTIONS: usize = 65_536 * 170 + SMALL;
const SYNC: usize = SYNC_BYTES_MAX + SMALL;

/// A decoder with its laws.
pub struct Target {
    /// Its name, which is that of its program.
    pub name: &'static str,
    /// The most memory that it may take in addition to what grows with the input.
    pub limit: usize,
    /// Decodes any bytes, and says whether there was something to decode.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that decode, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Where targets that read files put them.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| TempDir::new().expect("there is a folder for temporary files")).path()
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "cluster_request",
        limit: TRANSACTION,
        run: cluster::fuzzing::request,
        seeds: cluster::fuzzing::request_seeds,
    },
    Target {
        name: "cluster_snapshot",
        limit: TRANSACTION,
        run: cluster::fuzzing::snapshot,
        seeds: cluster::fuzzing::snapshot_seeds,
    },
    Target {
        name: "cluster_text",
        limit: SMALL,
        run: cluster::fuzzing::text,
        seeds: cluster::fuzzing::text_seeds,
    },
    Target {
        name: "cluster_transaction",
        limit: TRANSACTION,
        run: cluster::fuzzing::transaction,
        seeds: cluster::fuzzing::transaction_seeds,
    },
    Target {
        name: "raft_mark",
        limit: SMALL,
        run: |bytes| raft_store::fuzzing::mark(folder(), bytes),
        seeds: || raft_store::fuzzing::mark_seeds(folder()),
    },
    Target {
        name: "raft_message",
        limit: RAFT,
        run: raft_store::fuzzing::message,
        seeds: raft_store::fuzzing::message_seeds,
    },
    Target {
        name: "raft_row",
        limit: RAFT,
        run: raft_store::fuzzing::row,
        seeds: raft_store::fuzzing::row_seeds,
    },
    Target {
        name: "raft_snapshot_file",
        limit: RAFT,
        run: |bytes| raft_store::fuzzing::snapshot_file(folder(), bytes),
        seeds: || raft_store::fuzzing::snapshot_file_seeds(folder()),
    },
    Target {
        name: "gossip_datagram",
        limit: SMALL,
        run: gossip::fuzzing::datagram,
        seeds: gossip::fuzzing::datagram_seeds,
    },
    Target {
        name: "gossip_engine",
        limit: SYNC,
        run: gossip::fuzzing::engine,
        seeds: gossip::fuzzing::engine_seeds,
    },
    Target {
        name: "gossip_sync",
        limit: SYNC,
        run: gossip::fuzzing::sync,
        seeds: gossip::fuzzing::sync_seeds,
    },
    Target {
        name: "netlink",
        limit: SMALL,
        run: netprog_linux::fuzzing::netlink,
        seeds: netprog_linux::fuzzing::netlink_seeds,
    },
    Target {
        name: "dns_answer",
        limit: SMALL,
        run: netprog_linux::fuzzing::dns_answer,
        seeds: netprog_linux::fuzzing::dns_answer_seeds,
    },
    Target {
        name: "dns_question",
        limit: QUESTIONS,
        run: netprog_linux::fuzzing::dns_question,
        seeds: netprog_linux::fuzzing::dns_question_seeds,
    },
    Target {
        name: "node_message",
        limit: SMALL,
        run: skein::fuzzing::message,
        seeds: skein::fuzzing::message_seeds,
    },
    Target {
        name: "node_socket",
        limit: SMALL,
        run: supervise::fuzzing::socket,
        seeds: supervise::fuzzing::socket_seeds,
    },
    Target {
        name: "node_file",
        limit: SMALL,
        run: skein::fuzzing::file,
        seeds: skein::fuzzing::file_seeds,
    },
    Target {
        name: "node_key_file",
        limit: SMALL,
        run: |bytes| skein::fuzzing::key_file(folder(), bytes),
        seeds: || skein::fuzzing::key_file_seeds(folder()),
    },
    Target {
        name: "node_log",
        limit: SMALL,
        run: |bytes| skein::fuzzing::log(folder(), bytes),
        seeds: skein::fuzzing::log_seeds,
    },
    Target {
        name: "node_backup",
        limit: TRANSACTION,
        run: |bytes| skein::fuzzing::backup_file(folder(), bytes),
        seeds: skein::fuzzing::backup_seeds,
    },
    Target {
        name: "node_certificate",
        limit: SMALL,
        run: skein::fuzzing::certificate,
        seeds: skein::fuzzing::certificate_seeds,
    },
    Target {
        name: "api_body",
        limit: SMALL,
        run: api::fuzzing::body,
        seeds: api::fuzzing::body_seeds,
    },
    Target {
        name: "api_request",
        limit: SMALL,
        run: api::fuzzing::request,
        seeds: api::fuzzing::request_seeds,
    },
    Target {
        name: "api_text",
        limit: SMALL,
        run: api::fuzzing::text,
        seeds: api::fuzzing::text_seeds,
    },
];
