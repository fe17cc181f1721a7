//! Backends come, go and are lost under a steady load: no request fails.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::background::Background;
use super::services::{NETWORK, make_network, probe, serve, serve_client};
use crate::cluster::{CONVERGE_MAX, text};
use crate::load::Outcome;
use crate::wait::now;
use crate::{Lab, load};

/// Requests a second, half by the VIP and half by a published port, on machines that stand it.
pub const PER_SECOND: u32 = 600;
/// Where the service is published.
const PUBLISHED: u16 = 8080;
/// From the loss of a machine until no balancer uses its tasks; a request that began meanwhile may
/// have gone there.
const PURGE_MAX: Duration = Duration::from_secs(3);
/// The node that is drained and lost.
const LEAVING: usize = 2;

/// What is done to the service while it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its tasks are replaced, each stopped before its successor starts.
    UpdateStopFirst,
    /// Its tasks are replaced, each stopped after its successor runs.
    UpdateStartFirst,
    /// From 2 tasks to 12 and back.
    Scale,
    /// A node is drained, and then used again.
    Drain,
    /// A machine is lost at once with all that runs on it, and comes back.
    Loss,
}

impl Step {
    /// All of them, in an order in which each finds what it needs.
    pub const ALL: [Self; 5] =
        [Self::UpdateStopFirst, Self::UpdateStartFirst, Self::Scale, Self::Drain, Self::Loss];
}

/// What became of the requests of some steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How often the step was taken.
    pub times: usize,
    /// Requests in all.
    pub sent: usize,
    /// Those that were not answered because their machine was lost. No other may fail.
    pub excused: usize,
}

impl Counts {
    /// Adds those of another step.
    pub fn add(&mut self, other: Self) {
        self.times += other.times;
        self.sent += other.sent;
        self.excused += other.excused;
    }
}

/// Makes the network and the services.
///
/// # Errors
/// When something is refused or does not run in time.
pub fn prepare(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client(lab)?;
    let publish = format!("published={PUBLISHED},target=7000");
    let flags = ["--replicas", "4", "--publish", &publish, "--update-delay", "0s"];
    serve(lab, "web", &flags, &[&probe(lab)?, "serve", "7000"], 4)?;
    Ok(())
}

/// Does a step under a load of so many requests a second, and tells how many there were.
///
/// # Errors
/// When a request fails that need not, or the step does not come to its end.
pub fn run(lab: &mut Lab, step: Step, per_second: u32) -> Result<Counts> {
    let loads = start(lab, per_second)?;
    let begin = now();
    let lost_at = take(lab, step).with_context(|| format!("{step:?}"))?;
    let lost_at = lost_at.map(|at| at.saturating_duration_since(begin));
    let mut counts = Counts { times: 1, ..Counts::default() };
    for load in loads {
        let outcome: Outcome = load.finish()?.ok()?.parse()?;
        let (excused, failed): (Vec<_>, Vec<_>) =
            outcome.failures.iter().partition(|failure| is_excused(failure, lost_at));
        let failed: Vec<String> = failed.into_iter().map(ToString::to_string).collect();
        ensure!(failed.is_empty(), "{step:?}: {} of {}: {failed:?}", failed.len(), outcome.sent);
        counts.sent += outcome.sent;
        counts.excused += excused.len();
    }
    Ok(counts)
}

/// A request of which nothing was heard, and that began when the machine was lost and not yet
/// avoided. Refusals and resets are never excused: a lost machine sends none.
fn is_excused(failure: &load::Failure, lost_at: Option<Duration>) -> bool {
    // The loads' clocks begin at most so much before the step's.
    let apart = Duration::from_secs(1);
    lost_at.is_some_and(|lost| {
        let window = lost.saturating_sub(apart)..lost + PURGE_MAX + apart;
        failure.how == "timeout" && window.contains(&failure.at)
    })
}

/// One load by the VIP from a task, and one by the published port of another node.
fn start(lab: &Lab, per_second: u32) -> Result<[Background; 2]> {
    let (probe, rate) = (probe(lab)?, (per_second / 2).to_string());
    let clients = lab.running(0, "client")?;
    let client = clients.iter().find(|task| task.node == 0).context("no client on node1")?;
    let vip = format!("{}:7000", lab.vip(0, "web", NETWORK)?);
    let published = format!("{}:{PUBLISHED}", lab.nodes[1].address);
    let by_vip = Background::start(&lab.task_line(client, &[&probe, "load", &vip, &rate])?)?;
    let by_port = lab.nodes[0].line(&[&probe, "load", &published, &rate]);
    let by_port = Background::start(&by_port)?;
    by_vip.wait_said("loading", 1)?;
    by_port.wait_said("loading", 1)?;
    Ok([by_vip, by_port])
}

/// Gives the moment in which a machine was lost.
fn take(lab: &mut Lab, step: Step) -> Result<Option<std::time::Instant>> {
    let docker = |lab: &Lab, words: &[&str]| lab.nodes[0].docker(words)?.ok();
    match step {
        Step::UpdateStopFirst => update(lab, "stop-first")?,
        Step::UpdateStartFirst => update(lab, "start-first")?,
        Step::Scale => {
            for replicas in [2, 12, 2, 4] {
                docker(lab, &["service", "scale", "-d", &format!("web={replicas}")])?;
                lab.wait_running(0, "web", replicas)?;
                ended(lab)?;
            }
        }
        Step::Drain => {
            occupied(lab)?;
            for availability in ["drain", "active"] {
                let name = lab.nodes[LEAVING].name.clone();
                docker(lab, &["node", "update", "--availability", availability, &name])?;
                if availability == "drain" {
                    moved(lab)?;
                }
                ended(lab)?;
            }
        }
        Step::Loss => return lose(lab).map(Some),
    }
    Ok(None)
}

fn update(lab: &Lab, order: &str) -> Result<()> {
    let force = ["service", "update", "-d", "--force", "--update-order", order, "web"];
    let before = text(&lab.nodes[0].get("/services/web")?["UpdateStatus"]["StartedAt"]);
    lab.nodes[0].docker(&force)?.ok()?;
    lab.wait_for(CONVERGE_MAX * 2, "the update to complete", || {
        let status = lab.nodes[0].get("/services/web")?["UpdateStatus"].clone();
        let (state, started) = (text(&status["State"]), text(&status["StartedAt"]));
        ensure!(state == "completed" && started != before, "it is {state:?}");
        Ok(())
    })?;
    ended(lab)
}

/// Waits until every task that is to stop has stopped: it stops when no balancer uses it.
fn ended(lab: &Lab) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, "stopping tasks to end", || {
        let tasks = lab.all_tasks(0, "web")?;
        let open = tasks.iter().filter(|task| task.desired != "running" && task.state == "running");
        let open: Vec<_> = open.map(|task| (&task.id, task.node)).collect();
        ensure!(open.is_empty(), "{open:?} run");
        Ok(())
    })
}

fn moved(lab: &Lab) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, "the tasks to run on other nodes", || {
        let running = lab.running(0, "web")?;
        let away = running.iter().all(|task| task.node != LEAVING);
        ensure!(running.len() == 4 && away, "{running:?}");
        Ok(())
    })
}

/// A node without a task of the service would be left without a sound.
fn occupied(lab: &Lab) -> Result<()> {
    let running = lab.running(0, "web")?;
    let there = running.iter().any(|task| task.node == LEAVING);
    ensure!(there, "no task is on {}: {running:?}", lab.nodes[LEAVING].name);
    Ok(())
}

fn lose(lab: &mut Lab) -> Result<std::time::Instant> {
    // Tasks that were drained away are not brought back by themselves.
    update(lab, "start-first")?;
    occupied(lab)?;
    lab.nodes[LEAVING].kill_machine()?;
    let lost = now();
    moved(lab)?;
    lab.nodes[LEAVING].start()?;
    lab.wait_nodes_ready(lab.nodes.len())?;
    Ok(lost)
}
