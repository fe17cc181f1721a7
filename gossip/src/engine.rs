//! The core: inputs and the time go in, datagrams, requests and news of the view come out.

pub mod config;
pub mod exchange;
pub mod intake;
mod membership;
pub mod outbox;
mod own;
mod projection;
mod receive;
pub mod roster;
pub mod rumours;
mod settle;
mod standings;
pub mod stats;
mod vet;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::id::NodeId;
use cluster::view::{EndpointKey, EndpointRow, Liveness, View, VtepRow};
use foca::State;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

use crate::Now;
use crate::engine::config::Config;
use crate::engine::exchange::Exchanges;
use crate::engine::intake::Waiting;
use crate::engine::membership::Membership;
use crate::engine::outbox::Outbox;
use crate::engine::own::Own;
use crate::engine::projection::Projection;
use crate::engine::roster::{Peer, Roster};
use crate::engine::rumours::Rumours;
use crate::engine::standings::Standings;
use crate::engine::stats::{MemberRow, Refused, Stats};
use crate::identity::Identity;
use crate::keyring::{Keyring, RUN_BYTES, Sender};
use crate::proof::{Author, Proof};
use crate::row::{Row, RowKey};
use crate::table::Table;

/// Tombstones and strangers are looked over this often.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(10);
/// Rows that exceeded the pushes of one step go out after this.
pub const PUSH_GAP: Duration = Duration::from_millis(1);
/// News of life and death is told at once, but not more often than this.
pub const GOSSIP_GAP: Duration = Duration::from_millis(100);
/// Copies of the announcement of a clean restart that each member is sent.
pub const RESTART_COPIES: usize = 3;

const STREAM_MEMBERSHIP: u64 = 0;
const STREAM_CHOICES: u64 = 1;
const STREAM_RUN: u64 = 2;

/// Why an exchange with a peer failed; for the log and a counter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("exchanging rows with a peer: {0}")]
pub struct SyncFailed(pub String);

/// What happens to an engine.
#[derive(Debug)]
pub enum Input {
    /// A datagram arrived. Who sent it is sealed inside.
    Datagram(Bytes),
    /// The deadline of [`Engine::next_deadline`] has passed. Calling late is safe, and noticed.
    Timer,
    /// The whole set of endpoints that run on this node, and its VTEP; the engine finds out what
    /// changed. The first set of a run supersedes the rows of earlier runs on every node, so it
    /// must not be given before running tasks have been adopted.
    Own {
        /// Endpoints; rows that name another node are ignored.
        endpoints: BTreeMap<EndpointKey, EndpointRow>,
        /// Where this node receives VXLAN.
        vtep: VtepRow,
    },
    /// The whole set of nodes of the cluster with their gossip addresses and keys, from the
    /// assignment; whether this node is in it does not matter. A node that drops out is forgotten,
    /// and one that is not in it is not heard.
    Peers(BTreeMap<NodeId, Peer>),
    /// The cluster's keys were rotated.
    Keys(Keyring),
    /// A peer posted this; answered by [`Output::SyncReply`] in the same step.
    SyncRequest {
        /// Names the request in the reply.
        token: u64,
        /// Its body.
        bytes: Bytes,
    },
    /// The outcome of an [`Output::Sync`].
    SyncAnswer {
        /// Whom it was posted to.
        peer: NodeId,
        /// The body of the answer.
        result: Result<Bytes, SyncFailed>,
    },
    /// The daemon is about to restart: peers are told to keep this node alive for a grace. The
    /// engine does nothing after it.
    Restarting,
    /// This node leaves the cluster. The engine does nothing after it.
    Leave,
}

/// What an engine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram; it may be lost.
    Send {
        /// The peer's gossip address.
        to: SocketAddr,
        /// At most [`crate::codec::DATAGRAM_BYTES_MAX`] bytes.
        bytes: Bytes,
    },
    /// Post this to a peer over a mutually authenticated stream and give the outcome back as
    /// [`Input::SyncAnswer`].
    Sync {
        /// The peer.
        peer: NodeId,
        /// Its gossip address.
        to: SocketAddr,
        /// The body.
        bytes: Bytes,
    },
    /// Answer a peer's request; an empty body means that the request was not understood.
    SyncReply {
        /// Of the request.
        token: u64,
        /// The body.
        bytes: Bytes,
    },
    /// [`Engine::view`] returns something new; at most once in a step.
    ViewChanged,
}

/// Gossip of one node.
pub struct Engine {
    config: Config,
    author: Author,
    keyring: Keyring,
    sender: Sender,
    sealed: u64, // datagrams so far: the next one's nonce
    membership: Membership,
    roster: Roster,
    table: Table,
    standings: Standings,
    noted_as: (u64, u32), // our age in it
    own: Own,
    outbox: Outbox,
    rumours: Rumours,
    exchanges: Exchanges,
    projection: Projection,
    choices: StdRng,
    proven: BTreeMap<NodeId, Identity>, // the latest run of each node that proved it
    elsewhere: BTreeMap<NodeId, Identity>, // runs of listed nodes at addresses that are not theirs
    intake: VecDeque<Waiting>,
    intake_at: Option<Now>,
    shown_at: Now,              // when news of the view last went out
    shown_since: Now,           // when the oldest of that news arrived
    unshown_since: Option<Now>, // when the oldest arrived that may be news and is not shown
    restarting: BTreeMap<NodeId, (u64, Now, Proof)>, // generation that ended, end of the grace
    ended: BTreeMap<NodeId, u64>, // generations whose grace is over: their notices count no more
    suspects: BTreeSet<NodeId>, // members that foca suspects
    stale: BTreeSet<NodeId>,    // opinions to be formed again, though foca's did not change
    alone: bool,
    quiet: bool,
    join_at: Now,
    nag_at: Option<Now>,
    sweep_at: Now,
    push_at: Option<Now>,
    news: u64,        // rows, runs and whole sets that were learned
    gossip_at: Now,   // not before
    gossip_due: bool, // there is news since it was last told
    stats: Stats,
    out: Vec<Output>,
}

impl Engine {
    /// An engine that knows only itself. It is silent until it is told its peers or hears one.
    #[must_use]
    pub fn new(config: Config, keyring: Keyring, now: Now) -> Self {
        let Config { cluster, node, address, .. } = config;
        let author = Author { cluster, node, secret: config.secret.clone() };
        let own = Peer { address, key: Some(config.secret.key()) };
        let mut run = [0; RUN_BYTES];
        let (count, random) = run.split_at_mut(8);
        count.copy_from_slice(&config.generation.to_be_bytes());
        StdRng::from_seed(config.stream(STREAM_RUN)).fill_bytes(random);
        let mut engine = Self {
            membership: Membership::new(&config, author.clone(), STREAM_MEMBERSHIP),
            roster: Roster::new(node, own),
            table: Table::default(),
            standings: Standings::default(),
            noted_as: (0, 0),
            own: Own::new(author.clone(), config.generation),
            outbox: Outbox::default(),
            rumours: Rumours::default(),
            exchanges: Exchanges::default(),
            projection: Projection::default(),
            choices: StdRng::from_seed(config.stream(STREAM_CHOICES)),
            proven: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            intake: VecDeque::new(),
            intake_at: None,
            shown_at: now,
            shown_since: now,
            unshown_since: None,
            restarting: BTreeMap::new(),
            ended: BTreeMap::new(),
            suspects: BTreeSet::new(),
            stale: BTreeSet::new(),
            alone: true,
            quiet: false,
            join_at: now,
            nag_at: None,
            sweep_at: now + SWEEP_PERIOD,
            push_at: None,
            news: 0,
            gossip_at: now,
            gossip_due: false,
            stats: Stats::default(),
            out: Vec::new(),
            config,
            author,
            keyring,
            sender: Sender { cluster, node, run },
            sealed: 0,
        };
        engine.exchanges.next = now;
        engine.projection.liveness(node, Some(Liveness::Alive));
        engine
    }

    /// Takes one input. `now` never goes back.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Output> {
        if self.quiet {
            return Vec::new();
        }
        let last = matches!(input, Input::Restarting | Input::Leave);
        match input {
            Input::Datagram(bytes) => self.receive(&bytes, now),
            Input::Timer => self.run_timers(now),
            Input::Own { endpoints, vtep } => {
                let changed = self.own.assert(&mut self.table, &endpoints, vtep, now);
                self.publish(&changed);
            }
            Input::Peers(peers) => {
                let membership = &self.membership;
                let gone = self.roster.set(peers, |node| membership.active(node).is_some());
                for node in gone {
                    self.forget(node);
                }
                let roster = &self.roster;
                let stays = |id: &Identity| {
                    roster.get(id.node).is_some_and(|peer| peer.address == id.address)
                };
                self.proven.retain(|_, identity| stays(identity));
                self.elsewhere.retain(|_, identity| !stays(identity));
                self.exchanges.look = true;
                self.join(now);
            }
            Input::Keys(keyring) => self.keyring = keyring,
            Input::SyncRequest { token, bytes } => self.answer(token, &bytes, now),
            Input::SyncAnswer { peer, result } => self.answered(peer, result, now),
            Input::Restarting => self.announce_restart(),
            Input::Leave => self.membership.leave(),
        }
        self.take_in(now);
        self.settle(now);
        self.quiet = last;
        std::mem::take(&mut self.out)
    }

    /// When to call with [`Input::Timer`]; `None` after [`Input::Restarting`] and
    /// [`Input::Leave`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Now> {
        if self.quiet {
            return None;
        }
        let graces = self.restarting.values().map(|(_, until, _)| *until).min();
        let gossip_at = self.gossip_due.then_some(self.gossip_at);
        let membership = self.membership.next_deadline();
        [membership, self.nag_at, self.push_at, self.intake_at, graces, gossip_at]
            .into_iter()
            .flatten()
            .chain([self.join_at, self.sweep_at, self.exchanges.next_deadline()])
            .min()
    }

    /// What the data plane may use; shared, never changed once handed out.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.projection.view()
    }

    /// Since when something waits that arrived and may change the view.
    #[must_use]
    pub fn unshown_since(&self) -> Option<Now> {
        self.unshown_since
    }

    /// When the oldest news arrived of those that the last change of the view brought.
    #[must_use]
    pub fn shown_since(&self) -> Now {
        self.shown_since
    }

    /// Nodes that run at addresses that the managers do not know, and may have moved there.
    pub fn elsewhere(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
        self.elsewhere.iter().map(|(node, identity)| (*node, identity.address))
    }

    /// Every member that is known, this node included, by node.
    #[must_use]
    pub fn members(&self) -> Vec<MemberRow> {
        let own = self.membership.identity();
        let view = self.projection.view();
        let row = |identity: &Identity, incarnation| MemberRow {
            node: identity.node,
            address: identity.address,
            generation: identity.generation,
            renewals: identity.renewals,
            incarnation,
            liveness: view.liveness.get(&identity.node).copied().unwrap_or(Liveness::Down),
            restarting: self.restarting.contains_key(&identity.node),
        };
        let others = (self.membership.members())
            .filter(|m| m.id().node != own.node)
            .map(|m| row(m.id(), m.incarnation()));
        let mut rows: Vec<MemberRow> = std::iter::once(row(&own, 0)).chain(others).collect();
        rows.sort_by_key(|row| row.node);
        rows
    }

    /// The table: rows and tombstones of all owners, by owner and key.
    pub fn rows(&self) -> impl Iterator<Item = (NodeId, &Row)> {
        self.table.owners().flat_map(|owner| self.table.rows_of(owner).map(move |row| (owner, row)))
    }

    /// Ids of the keys in use, the one that seals first.
    #[must_use]
    pub fn keys(&self) -> Vec<u8> {
        self.keyring.ids().collect()
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (rows, tombstones) = self.table.sizes();
        Stats {
            pushes_overflowed: self.outbox.overflowed,
            membership_errors: self.membership.errors,
            starvation: self.membership.health(),
            rows,
            tombstones,
            intake: self.intake.len(),
            push_queue: self.outbox.len(),
            ..self.stats
        }
    }

    /// The counters that tell of an attack; cheaper than all of them.
    #[must_use]
    pub fn refused(&self) -> Refused {
        let Stats { forged, unlisted, impersonated, .. } = self.stats;
        Refused { forged, unlisted, impersonated }
    }

    /// Whether and how SWIM knows a node: what probes say, and an announced restart over it.
    fn opinion(&mut self, node: NodeId, now: Now) -> Option<Liveness> {
        // Our own former selves are members, too, to foca.
        if node == self.config.node {
            return Some(Liveness::Alive);
        }
        let member = self.membership.member(node);
        if let Some((generation, until, _)) = self.restarting.get(&node) {
            if now < *until && member.is_none_or(|m| m.id().generation <= *generation) {
                return Some(Liveness::Alive);
            }
            self.ended.insert(node, *generation);
            self.restarting.remove(&node);
        }
        Some(match self.membership.member(node)?.state() {
            State::Alive => Liveness::Alive,
            State::Suspect => Liveness::Suspect,
            State::Down => Liveness::Down,
        })
    }

    /// Queues rows of our own.
    fn publish(&mut self, keys: &[RowKey]) {
        let own = self.config.node;
        for key in keys {
            self.outbox.push(own, *key, None);
            self.projection.row(&self.table, own, *key);
        }
    }

    fn forget(&mut self, node: NodeId) {
        for key in self.table.forget(node) {
            self.projection.row(&self.table, node, key);
        }
        self.membership.forget(node);
        self.exchanges.forget(node);
        self.rumours.forget(node);
        self.restarting.remove(&node);
        self.ended.remove(&node);
        self.proven.remove(&node);
        self.elsewhere.remove(&node);
        self.stale.insert(node);
    }
}
