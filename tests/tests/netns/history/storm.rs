//! What happens to the cluster in the meantime: a manager is killed every one to three seconds, and
//! one change after the other is requested until it has happened.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::cluster::text;
use lab::wait::{Pace, now};
use lab::{Lab, Node};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use self::rotation::Rotation;
use super::{CANDIDATE, LEAVER, MANAGERS};
use crate::roles::voters;

mod rotation;

/// Between two kills, in milliseconds.
const PAUSE_MS: (u64, u64) = (1_000, 3_000);
/// A change that takes longer failed.
const CHANGE_MAX: Duration = Duration::from_secs(90);
const DAYS_AHEAD: u32 = 60;

/// Requests a change, or what is left of it; an error until it has happened.
type Change = fn(&mut Storm<'_>) -> Result<()>;

const CHANGES: &[(&str, Change)] = &[
    ("a manager's clock went 60 days ahead", clock_ahead),
    ("a worker was promoted", promote),
    ("the CA was rotated", rotation::rotate),
    ("a worker was removed, the key of gossip turned, and it joined again", remove),
    ("a manager was demoted", demote),
];

pub(super) struct Storm<'a> {
    lab: &'a mut Lab,
    choices: StdRng,
    kills: usize,
    /// A manager that was not the last to be killed.
    asked: usize,
    /// Whose clock is to be set.
    ahead: Option<usize>,
    /// The id under which a worker is to be removed, and the key of gossip that it knows.
    leaving: Option<(String, String)>,
    rotating: Option<Rotation>,
    /// Of the CA that was there before.
    old_token: Option<String>,
    /// How often a worker joined while the CA was being rotated.
    joined_meanwhile: usize,
}

impl<'a> Storm<'a> {
    pub(super) fn new(lab: &'a mut Lab, seed: u64) -> Self {
        let choices = StdRng::seed_from_u64(seed);
        Self {
            lab,
            choices,
            kills: 0,
            asked: 0,
            ahead: None,
            leaving: None,
            rotating: None,
            old_token: None,
            joined_meanwhile: 0,
        }
    }

    /// Runs for a time, and until each change has happened; what was started is completed. What
    /// happened, for people.
    pub(super) fn run(mut self, length: Duration) -> Result<String> {
        let begin = now();
        let (mut done, mut slowest) = (0, (Duration::ZERO, ""));
        for (what, change) in CHANGES.iter().cycle() {
            let since = now();
            loop {
                self.kill_one()?;
                self.pause();
                let Err(error) = change(&mut self) else { break };
                if since.elapsed() > CHANGE_MAX {
                    bail!("timed out waiting until {what}: {error:#}");
                }
            }
            done += 1;
            slowest = slowest.max((since.elapsed(), what));
            if done >= CHANGES.len() && begin.elapsed() >= length {
                break;
            }
        }
        let seconds = begin.elapsed().as_secs();
        let (joined, took) = (self.joined_meanwhile, slowest.0.as_secs());
        Ok(format!(
            "{} kills and {done} changes in {seconds} s, {joined} joins while the CA was rotated; \
             it took {took} s until {}",
            self.kills, slowest.1
        ))
    }

    fn pause(&mut self) {
        let ms = self.choices.random_range(PAUSE_MS.0..=PAUSE_MS.1);
        Pace::new(Duration::from_millis(ms)).wait();
    }

    /// Kills a random manager's daemon and starts it again. None may have ended by itself.
    fn kill_one(&mut self) -> Result<()> {
        let chosen = self.choices.random_range(0..MANAGERS);
        for node in &mut self.lab.nodes {
            ensure!(node.is_running()?, "a daemon ended by itself\n{}", node.log_tail());
        }
        let node = &mut self.lab.nodes[chosen];
        node.kill_daemon()?;
        node.spawn()?;
        self.kills += 1;
        self.asked = (chosen + 1) % MANAGERS;
        Ok(())
    }

    fn asked(&self) -> &Node {
        &self.lab.nodes[self.asked]
    }

    /// Whether the candidate is a manager, as the asked one and it say.
    fn candidate_is(&self, manager: bool) -> Result<()> {
        let candidate = &self.lab.nodes[CANDIDATE];
        let listed = self.asked().get(&format!("/nodes/{}", candidate.cluster_id()?))?;
        let reached = text(&listed["ManagerStatus"]["Reachability"]) == "reachable";
        ensure!(reached == manager, "{listed}");
        let count = voters(self.asked())?.len();
        ensure!(count == MANAGERS + usize::from(manager), "{count} vote");
        let info = candidate.get("/info")?["Swarm"].clone();
        ensure!(info["ControlAvailable"] == manager, "it says {info}");
        Ok(())
    }

    /// Lets the leaver be outside, and the cluster no longer know it under this id.
    fn put_out(&self, id: &str) -> Result<()> {
        let leaver = &self.lab.nodes[LEAVER];
        if leaver.cluster_id()? == id {
            leaver.docker(&["swarm", "leave"])?.ok()?;
        }
        let listed = self.asked().request("GET", &format!("/nodes/{id}"), &Value::Null)?;
        match listed.status {
            200 => self.asked().docker(&["node", "rm", "--force", id])?.ok().map(drop),
            404 => Ok(()),
            _ => bail!("{}", listed.text()),
        }
    }

    /// Lets the leaver be a worker, by the token that is told now.
    fn take_in(&self) -> Result<()> {
        if self.lab.nodes[LEAVER].cluster_id()?.is_empty() {
            self.lab.join(LEAVER, "worker")?;
        }
        let id = self.lab.nodes[LEAVER].cluster_id()?;
        let listed = self.asked().get(&format!("/nodes/{id}"))?;
        ensure!(text(&listed["Status"]["State"]) == "ready", "{listed}");
        Ok(())
    }

    /// The leaver, which is outside, is not let in by the token of the CA before.
    fn old_token_is_refused(&mut self) -> Result<()> {
        let Some(token) = &self.old_token else { return Ok(()) };
        let leaver = &self.lab.nodes[LEAVER];
        ensure!(leaver.cluster_id()?.is_empty(), "the token of the old CA opened the cluster");
        let manager = format!("{}:2377", self.asked().address);
        let refused = leaver.docker(&["swarm", "join", "--token", token, &manager])?.refused()?;
        ensure!(refused.contains("not of the cluster that the join token is for"), "{refused}");
        self.old_token = None;
        Ok(())
    }

    /// The keys of gossip as the asked manager was told them.
    fn gossip_keys(&self) -> Result<String> {
        let assignment = text(&self.asked().get("/skein/v1/debug/assignment")?);
        let (_, rest) = assignment.split_once("gossip_keys: [\n").context("no keys")?;
        let (keys, _) = rest.split_once("\n    ],\n").context("no end of the keys")?;
        Ok(keys.to_owned())
    }
}

fn promote(storm: &mut Storm<'_>) -> Result<()> {
    let id = storm.lab.nodes[CANDIDATE].cluster_id()?;
    storm.asked().docker(&["node", "promote", &id])?.ok()?;
    storm.candidate_is(true)
}

fn demote(storm: &mut Storm<'_>) -> Result<()> {
    let id = storm.lab.nodes[CANDIDATE].cluster_id()?;
    storm.asked().docker(&["node", "demote", &id])?.ok()?;
    storm.candidate_is(false)
}

/// Clocks of managers may differ by more than a certificate is good for yet.
fn clock_ahead(storm: &mut Storm<'_>) -> Result<()> {
    let chosen = match storm.ahead {
        Some(chosen) => chosen,
        None => {
            // The first one admits: a joiner goes by its own clock.
            let chosen = storm.choices.random_range(1..MANAGERS);
            let node = &mut storm.lab.nodes[chosen];
            node.set_days_ahead(DAYS_AHEAD)?;
            node.kill_daemon()?;
            node.spawn()?;
            *storm.ahead.insert(chosen)
        }
    };
    let date = storm.lab.nodes[chosen].get("/info")?["SystemTime"].clone();
    let elsewhere = storm.lab.nodes[(chosen + 1) % MANAGERS].get("/info")?["SystemTime"].clone();
    ensure!(
        date != Value::Null && text(&date)[..7] != text(&elsewhere)[..7],
        "{date} is {elsewhere}"
    );
    storm.lab.nodes[chosen].get("/nodes").map(drop)
}

fn remove(storm: &mut Storm<'_>) -> Result<()> {
    let (left, key) = match storm.leaving.clone() {
        Some(leaving) => leaving,
        None => {
            let keys = storm.gossip_keys()?;
            ensure!(keys.matches("GossipKey {").count() == 1, "the key is being turned: {keys}");
            let id = storm.lab.nodes[LEAVER].cluster_id()?;
            storm.leaving.insert((id, keys)).clone()
        }
    };
    storm.put_out(&left)?;
    let keys = storm.gossip_keys()?;
    let turned = keys.matches("GossipKey {").count() == 1 && keys != key;
    ensure!(turned, "the key that node {left} knew is in use");
    storm.old_token_is_refused()?;
    storm.take_in()?;
    storm.leaving = None;
    Ok(())
}
