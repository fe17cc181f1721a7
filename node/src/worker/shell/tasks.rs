//! The shell's dealings with the executor.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use agent::worker::AGAIN_INTERVAL;
use agent::{Adopted, Command, Ended, Event, Health, Input, Young};
use cluster::id::TaskId;
use cluster::net::Subnet;
use futures_util::future::join_all;
use netprog_linux::Listeners;
use netprog_linux::facts::HostFacts;
use tokio::sync::mpsc;

use super::opened::Opener;
use super::{Shell, spawn};
use crate::causes::chain;
use crate::executor::{
    Error, Executor, HealthState, LaunchSpec, Launched, Phase, Sandbox, StartSpec, Supervisors,
    TaskReport,
};
use crate::logs;
use crate::worker::launch::launch_spec;

/// `SIGKILL`.
const KILL: i32 = 9;

/// A task that should have one has none: it is being found, or was lost with its directory.
const NO_SUPERVISOR: &str = "its supervisor is not known";

impl Shell {
    /// Finds the tasks that outlived the previous daemon.
    pub(super) fn adopt(&self, known: BTreeMap<TaskId, IpAddr>, gwbridge: Subnet) {
        let (supervisors, executor) = (self.supervisors.clone(), self.executor.clone());
        let (opener, inbox) = (self.opener(), self.inbox.clone());
        spawn(&self.stop, async move {
            let (mut adopted, mut found) = (BTreeMap::new(), BTreeMap::new());
            for sandbox in adopt_all(&supervisors).await {
                let Ok(id) = sandbox.task().parse::<TaskId>() else { continue };
                let Some(launched) = adopt_or_release(&*executor, &sandbox).await else {
                    continue;
                };
                let event = event_of(&launched.report());
                let egress = match known.get(&id) {
                    Some(address) => Some(*address),
                    None if matches!(event, Event::Ended(_)) => None,
                    None => address_in_kernel(&sandbox, gwbridge).await,
                };
                adopted.insert(id, Adopted { egress, event });
                opener.keep(id, &launched);
                found.insert(id, launched);
            }
            join_all(found.iter().map(|(id, launched)| open(&opener, *id, launched))).await;
            tracing::info!(tasks = adopted.len(), "tasks adopted");
            let _ = inbox.send(Input::Adopted(adopted)).await;
            // What they say before the core knows of them would be lost.
            for (id, launched) in found {
                let (supervisors, executor) = (supervisors.clone(), executor.clone());
                let (opener, inbox) = (opener.clone(), inbox.clone());
                tokio::spawn(async move {
                    follow(id, launched, &opener, (&supervisors, &*executor), &inbox).await;
                });
            }
        });
    }

    pub(super) fn command(&self, command: Command) {
        match command {
            Command::Launch(id) => self.launch(id),
            Command::Start(id) => self.start_task(id),
            Command::Stop(id) => self.stop_task(id),
            Command::Forget(id) => self.forget(id),
        }
    }

    fn stop_task(&self, id: TaskId) {
        let (launched, inbox) = (self.sandbox_of(id), self.inbox.clone());
        let executor = self.executor.clone();
        tokio::spawn(async move {
            let stopped = match launched {
                Some(sandbox) => {
                    executor.stop(&sandbox, None, None).await.map_err(|error| chain(&error))
                }
                None => Err(NO_SUPERVISOR.to_owned()),
            };
            if let Err(error) = stopped {
                tracing::warn!(task = %id, error, "stop");
                let _ = inbox.send(Input::NotDone { command: Command::Stop(id), error }).await;
            }
        });
    }

    fn forget(&self, id: TaskId) {
        let known = self.launched().remove(&id).map(|known| known.launched.sandbox);
        let (supervisors, executor) = (self.supervisors.clone(), self.executor.clone());
        let (logs, inbox) = (self.logs.clone(), self.inbox.clone());
        let kept: BTreeSet<String> =
            self.agent.worker().tasks().keys().map(ToString::to_string).collect();
        tokio::spawn(async move {
            if let Err(error) = release(&supervisors, &*executor, id, known).await {
                tracing::warn!(task = %id, error, "forget");
                let _ = inbox.send(Input::NotDone { command: Command::Forget(id), error }).await;
            }
            let pruned = tokio::task::spawn_blocking(move || logs::prune(&logs, &kept));
            if let Ok(Err(error)) = pruned.await {
                tracing::warn!(%error, "remove logs of tasks that are gone");
            }
        });
    }

    fn launch(&self, id: TaskId) {
        let own = self
            .agent
            .worker()
            .assignment()
            .and_then(|assignment| assignment.own.get(&id))
            .cloned();
        let Some(own) = own else { return };
        let (supervisors, executor) = (self.supervisors.clone(), self.executor.clone());
        let (opener, inbox) = (self.opener(), self.inbox.clone());
        tokio::spawn(async move {
            let launched = match launch_spec(id, &own) {
                Ok(spec) => launch(&supervisors, &*executor, spec).await,
                Err(reason) => Err(Error::Rejected { reason }),
            };
            match launched {
                Ok(launched) => {
                    opener.keep(id, &launched);
                    // The core hears of the sandbox once it is open.
                    if let Err(error) = opener.open(id, &launched).await {
                        let (command, error) = (Command::Launch(id), chain(&*error));
                        tracing::warn!(task = %id, error, "open a sandbox");
                        let _ = inbox.send(Input::NotDone { command, error }).await;
                        return;
                    }
                    follow(id, launched, &opener, (&supervisors, &*executor), &inbox).await;
                }
                Err(error) => {
                    let _ = inbox.send(not_done(Command::Launch(id), &error)).await;
                }
            }
        });
    }

    fn start_task(&self, id: TaskId) {
        let attachments = self.agent.worker().assignment().and_then(|a| a.tasks.get(&id));
        let attachments = attachments.map(|task| task.attachments.as_slice()).unwrap_or_default();
        let addresses =
            attachments.iter().flat_map(|attachment| attachment.addresses.iter()).collect();
        let (launched, inbox) = (self.sandbox_of(id), self.inbox.clone());
        let executor = self.executor.clone();
        tokio::spawn(async move {
            let start = StartSpec { addresses };
            let input = match launched {
                Some(sandbox) => match executor.start(&sandbox, start).await {
                    // It was started, or has ended: its report says so.
                    Ok(()) | Err(Error::Refused { .. }) => return,
                    Err(error) => not_done(Command::Start(id), &error),
                },
                None => {
                    Input::NotDone { command: Command::Start(id), error: NO_SUPERVISOR.to_owned() }
                }
            };
            let _ = inbox.send(input).await;
        });
    }

    fn sandbox_of(&self, id: TaskId) -> Option<Sandbox> {
        self.launched().get(&id).map(|known| known.launched.sandbox.clone())
    }

    /// Looks into the sandboxes of young tasks for what listens.
    pub(super) fn look_for_listeners(&self, young: Young) {
        let sandboxes = self.sandboxes.clone();
        let look = move || {
            let listens = |(id, ports): &(TaskId, BTreeSet<_>)| {
                let Ok(Some(namespace)) = sandboxes.open(*id) else { return false };
                match Listeners::read(namespace) {
                    Ok(found) => found.cover(ports),
                    Err(error) => {
                        tracing::debug!(task = %id, %error, "look for what listens");
                        false
                    }
                }
            };
            young.into_iter().filter(listens).map(|(id, _)| id).collect::<Vec<_>>()
        };
        self.call(async move {
            Input::Listening(tokio::task::spawn_blocking(look).await.unwrap_or_default())
        });
    }
}

/// All that run. Until they are known nothing is launched, and none counts as lost.
async fn adopt_all(supervisors: &Supervisors) -> Vec<Sandbox> {
    loop {
        match supervisors.adopt_all().await {
            Ok(sandboxes) => return sandboxes,
            Err(error) => tracing::error!(%error, "find tasks that run"),
        }
        tokio::time::sleep(AGAIN_INTERVAL).await;
    }
}

/// What a failure means for the task: its end, or another try.
fn not_done(command: Command, error: &Error) -> Input {
    let reason = chain(error);
    let (Command::Launch(id) | Command::Start(id) | Command::Stop(id) | Command::Forget(id)) =
        command;
    if error.may_pass() {
        tracing::warn!(task = %id, error = reason, "{command:?} is tried again");
        Input::NotDone { command, error: reason }
    } else {
        Input::Task(id, Event::Ended(Ended::rejected(reason)))
    }
}

/// Makes a task's sandbox and launches it there, or finds what an earlier try has made.
async fn launch(
    supervisors: &Supervisors,
    executor: &dyn Executor,
    spec: LaunchSpec,
) -> Result<Launched, Error> {
    let lost = |source| Error::Supervisor { task: spec.task.clone(), source };
    let sandbox = match supervisors.make(&spec.task).await {
        Err(already @ Error::AlreadyLaunched { .. }) => {
            supervisors.adopt(&spec.task).await.map_err(lost)?.ok_or(already)?
        }
        made => made?,
    };
    if let Some(launched) = executor.adopt(&sandbox).await.map_err(lost)? {
        return Ok(launched);
    }
    let launched = executor.launch(spec, &sandbox).await;
    if let Err(Error::Rejected { .. }) = &launched
        && let Err(error) = sandbox.release().await
    {
        tracing::warn!(task = sandbox.task(), error = chain(&error), "release a sandbox");
    }
    launched
}

/// The task in a sandbox that outlived the previous daemon. One in which nothing was launched is of
/// no use: the task is launched in a new one.
async fn adopt_or_release(executor: &dyn Executor, sandbox: &Sandbox) -> Option<Launched> {
    let task = sandbox.task();
    match executor.adopt(sandbox).await {
        Ok(Some(launched)) => return Some(launched),
        Ok(None) => {
            if let Err(error) = sandbox.release().await {
                tracing::warn!(task, error = chain(&error), "release a sandbox");
            }
        }
        Err(error) => tracing::error!(task, %error, "a task cannot be adopted"),
    }
    None
}

/// Removes what is left of a task that ended, known or not.
async fn release(
    supervisors: &Supervisors,
    executor: &dyn Executor,
    id: TaskId,
    known: Option<Sandbox>,
) -> Result<(), String> {
    let found = match known {
        Some(sandbox) => Some(sandbox),
        None => supervisors.adopt(&id.to_string()).await.map_err(|error| chain(&error))?,
    };
    let Some(sandbox) = found else { return Ok(()) };
    let released = match executor.forget(&sandbox).await {
        Ok(()) => sandbox.release().await,
        refused => refused,
    };
    match released {
        // Its report was late, or lost: it runs although it counts as ended.
        Err(Error::Refused { .. }) => {
            let killed = executor.stop(&sandbox, Some(KILL), Some(Duration::ZERO)).await;
            killed.map_err(|error| chain(&error))?;
            Err("it still ran and has been killed".to_owned())
        }
        released => released.map_err(|error| chain(&error)),
    }
}

/// The address that a sandbox has on `skein_gwbridge`. None where it was not wired yet.
async fn address_in_kernel(sandbox: &Sandbox, gwbridge: Subnet) -> Option<IpAddr> {
    let read = async {
        let namespace = sandbox.fds().await.map_err(std::io::Error::other)?.netns;
        let read = tokio::task::spawn_blocking(move || HostFacts::read_in(namespace)).await;
        read.map_err(std::io::Error::other).flatten()
    };
    match read.await {
        Ok(facts) => facts.address_in(gwbridge),
        Err(error) => {
            tracing::error!(task = sandbox.task(), %error, "read the address of a task");
            None
        }
    }
}

/// Whether a task's sandbox is open, if it is to be.
async fn open(opener: &Opener, id: TaskId, launched: &Launched) -> bool {
    match opener.open(id, launched).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(task = %id, error = chain(&*error), "open a sandbox");
            false
        }
    }
}

/// Opens a task's sandbox, however often that fails.
async fn keep_opening(opener: &Opener, id: TaskId, launched: &Launched) {
    while !open(opener, id, launched).await {
        tokio::time::sleep(AGAIN_INTERVAL).await;
    }
}

/// Passes on every change of a task's report until it ended or was released. The sandbox of one
/// that was adopted may not be open yet.
async fn follow(
    id: TaskId,
    launched: Launched,
    opener: &Opener,
    (supervisors, executor): (&Supervisors, &dyn Executor),
    inbox: &mpsc::Sender<Input>,
) {
    let mut launched = launched;
    loop {
        let opening = async {
            keep_opening(opener, id, &launched).await;
            std::future::pending().await
        };
        let is_open_ended = tokio::select! {
            is_open_ended = pass_on(id, &launched, inbox) => is_open_ended,
            is_open_ended = opening => is_open_ended,
        };
        if !is_open_ended {
            return;
        }
        // Its supervisor is gone, and how it ended could not be recorded.
        launched = loop {
            tokio::time::sleep(AGAIN_INTERVAL).await;
            match find(supervisors, executor, id).await {
                Ok(Some(found)) => break found,
                Ok(None) => {
                    let ended = Event::Ended(Ended::lost());
                    let _stopped = inbox.send(Input::Task(id, ended)).await;
                    return;
                }
                Err(error) => tracing::warn!(task = %id, %error, "find out how a task ended"),
            }
        };
    }
}

async fn find(
    supervisors: &Supervisors,
    executor: &dyn Executor,
    id: TaskId,
) -> io::Result<Option<Launched>> {
    match supervisors.adopt(&id.to_string()).await? {
        Some(sandbox) => executor.adopt(&sandbox).await,
        None => Ok(None),
    }
}

/// Whether more is to be said of a task when nothing more comes from its reports.
async fn pass_on(id: TaskId, launched: &Launched, inbox: &mpsc::Sender<Input>) -> bool {
    let mut reports = launched.reports.clone();
    loop {
        let event = event_of(&reports.borrow_and_update().clone());
        let ended = matches!(event, Event::Ended(_));
        if inbox.send(Input::Task(id, event)).await.is_err() || ended {
            return false;
        }
        if reports.changed().await.is_err() {
            return true;
        }
    }
}

fn event_of(report: &TaskReport) -> Event {
    let (dns_udp_port, dns_tcp_port) = (report.dns_port, report.dns_port);
    match &report.phase {
        Phase::Prepared => Event::Prepared { dns_udp_port, dns_tcp_port },
        Phase::Starting => Event::Starting { dns_udp_port, dns_tcp_port },
        Phase::Running { pid, .. } => {
            let state = report.health.as_ref().map(|health| health.state);
            let health = match state {
                None => Health::Unchecked,
                Some(HealthState::Healthy) => Health::Healthy,
                Some(HealthState::Starting) => Health::Starting,
                Some(HealthState::Unhealthy) => Health::Unhealthy,
            };
            let told = report.health.as_ref().filter(|_| health != Health::Healthy);
            Event::Running {
                dns_udp_port,
                dns_tcp_port,
                pid: u32::try_from(*pid).unwrap_or_default(),
                health,
                detail: told.map(|health| health.output.clone()).unwrap_or_default(),
            }
        }
        Phase::Exited(exit) => Event::Ended(Ended {
            exit_code: Some(exit.code),
            error: exit.error.clone().unwrap_or_default(),
            rejected: false,
        }),
    }
}
