//! The simulator: five nodes in one thread and in virtual time, all choices from one seed.
//!
//! Real are the cores: the gossip engine, the agent, the leader's end of sessions, `decide`, `plan`
//! and `apply` of the cluster, and netprog's programmer over its fake kernel. Modelled are
//! their shells: Raft by its contract (one state that a leader without a place changes), sessions,
//! the executor, gossip's datagrams and streams, disks, machines.
//!
//! Where members change, nodes are promoted, demoted, removed and joined too. Real are then also
//! what has Raft's members follow the state, the turn of gossip's key, and the managers' copies of
//! the state with their comparison.
//!
//! A run has three parts: workload and faults together, then calm, then the oracle, which wants to
//! find everywhere what the state says. The seed draws which kinds of faults a run has and how
//! hard they strike (swarm testing), so that a rare pair of faults is not drowned by the others.
//!
//! Deliberately absent: Raft itself (raft-store's tests), real kernels (the namespace tier).

mod executor;
mod faults;
mod host;
mod managers;
mod members;
mod network;
mod oracle;
mod pass;
mod raft;
mod session;
mod trust;
mod workload;
mod world;

use std::fmt;
use std::time::Duration;

use world::World;

/// Nodes of a run.
pub const NODES: u8 = 5;
/// How long workload and faults last.
const STORM: Duration = Duration::from_secs(25);
/// After this much calm everything must be as the state says. The longest wait in it is the
/// restart delay of a task that crashed again and again (a minute).
const CALM_LIMIT: Duration = Duration::from_secs(90);
/// What the storm did may come out this much later: a lease that was not renewed ends in calm, and
/// what was right until then is wrong for a moment.
const AFTERMATH: Duration = Duration::from_millis(3_500);
/// How often the oracle looks in calm.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What is right must stay right for this long.
const STEADY: Duration = Duration::from_secs(3);
/// By then every node has said what it is like, unless something breaks at once.
const SETTLED: Duration = Duration::from_secs(1);
/// A run with more events than this does not end by itself.
const EVENTS_MAX: u64 = 2_000_000;

/// A bug that is planted to prove that the oracle sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// None.
    Nothing,
    /// Node 2 never programs the entries of one remote endpoint.
    SkippedEntry,
    /// Node 3 does not hear that its view changed.
    LostDoorbell,
    /// Node 1 goes on announcing tasks that ended.
    KeptRow,
    /// Every node takes out what a node runs that it suspects.
    SuspicionPurges,
    /// Node 4 takes releases for granted that the leader never gave, and reports them as ended.
    EarlyEnd,
    /// Node 2 applies entries with another name of a network.
    OtherName,
    /// Node 3 keeps the keys of gossip that it had first.
    KeptKey,
    /// The key of gossip does not turn.
    NoTurn,
    /// Who was removed is told the new key.
    ToldThief,
    /// A node that is to be no manager goes on voting.
    KeptVote,
    /// Node 3 launches a task before the disk has its assignment and its address.
    LateWrite,
    /// Nodes say what they are like when the cluster is young, and never again.
    SaidOnce,
    /// The leader does not know from where it is reported to, and records that.
    NoAddress,
    /// The leader counts the silence of nodes for a time in which it has no majority.
    CountedSilence,
}

/// Whether a run changes who is a member and a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// One manager and four workers throughout.
    Fixed,
    /// Three managers and two workers at first.
    Changing,
}

impl Members {
    /// What the command that replays a run says of it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fixed => "",
            Self::Changing => " --members",
        }
    }
}

/// A run that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// What the seed drew.
    pub swarm: String,
    /// Virtual time that passed.
    pub took: Duration,
    /// Events served.
    pub events: u64,
    /// Passes over kernels.
    pub passes: u64,
    /// The state's last revision.
    pub revision: u64,
    /// Tasks that ran at the end.
    pub tasks: usize,
    /// Managers that were added and taken out.
    pub moved: u64,
    /// Turns of the key of gossip.
    pub turns: u64,
    /// Comparisons of two managers' states that found them equal.
    pub compared: u64,
    /// Hash of all events: two runs of one seed have the same.
    pub trace: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} events, {} passes, revision {}, {} tasks, {} managers moved, {} keys \
             turned, {} states compared, {:.1} s; {}",
            self.seed,
            self.events,
            self.passes,
            self.revision,
            self.tasks,
            self.moved,
            self.turns,
            self.compared,
            self.took.as_secs_f64(),
            self.swarm
        )
    }
}

/// A run in which something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Whether members changed.
    pub members: Members,
    /// What the seed drew.
    pub swarm: String,
    /// When, in virtual time.
    pub at: Duration,
    /// What is wrong.
    pub complaints: Vec<String>,
    /// Faults and requests before it.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, word) = (self.seed, self.members.word());
        writeln!(f, "seed {seed} failed: cargo run -p tests --bin sim -- {seed}{word}")?;
        writeln!(f, "drawn: {}", self.swarm)?;
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "at {:.3} s:", self.at.as_secs_f64())?;
        for complaint in &self.complaints {
            writeln!(f, "  {complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Runs one seed.
///
/// # Errors
/// What the oracle found, with the story of the run.
pub fn run(seed: u64, members: Members, plant: PlantedBug) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(seed, members, plant);
    match storm_and_calm(&mut world) {
        Ok(()) => Ok(world.summary()),
        Err(complaints) => Err(Box::new(world.failure(complaints))),
    }
}

fn storm_and_calm(world: &mut World) -> Result<(), Vec<String>> {
    world.begin();
    world.run_until(STORM)?;
    world.calm_down();
    let limit = world.now + CALM_LIMIT;
    world.run_until(world.now + AFTERMATH)?;
    let mut right_since = None;
    loop {
        world.run_until(world.now + LOOK_INTERVAL)?;
        let complaints = world.complaints();
        if complaints.is_empty() {
            let since = *right_since.get_or_insert(world.now);
            if world.now >= since + STEADY {
                return Ok(());
            }
        } else if right_since.is_some() || world.now >= limit {
            return Err(complaints);
        }
    }
}
