//! The shell's dealings with the executor.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent::worker::AGAIN_INTERVAL;
use agent::{Adopted, Command, Ended, Event, Health, Input, Young};
use cluster::id::TaskId;
use cluster::net::Subnet;
use netprog_linux::Listeners;
use netprog_linux::dns_server::{DnsServer, Forwarder};
use netprog_linux::facts::HostFacts;
use tokio::sync::mpsc;

use super::{Handle, Shell, hold, spawn};
use crate::clock;
use crate::daemon::chain;
use crate::executor::process::{Error, ProcessExecutor};
use crate::executor::{HealthState, LaunchSpec, Phase, StartSpec, TaskReport};
use crate::worker::launch::launch_spec;

/// A task that should have one has none: it is being found, or was lost with its directory.
const NO_SUPERVISOR: &str = "its supervisor is not known";

impl Shell {
    /// Finds the tasks that outlived the previous daemon.
    pub(super) fn adopt(&self, known: BTreeMap<TaskId, IpAddr>, gwbridge: Subnet) {
        let (executor, handles) = (self.executor.clone(), self.handles.clone());
        let inbox = self.inbox.clone();
        spawn(&self.stop, async move {
            let (mut adopted, mut found) = (BTreeMap::new(), BTreeMap::new());
            for handle in adopt_all(&executor).await {
                let Ok(id) = handle.task().parse::<TaskId>() else { continue };
                let event = event_of(&handle.report());
                let egress = match known.get(&id) {
                    Some(address) => Some(*address),
                    None if matches!(event, Event::Ended(_)) => None,
                    None => address_in_kernel(&handle, gwbridge).await,
                };
                adopted.insert(id, Adopted { egress, event });
                found.insert(id, handle);
            }
            tracing::info!(tasks = adopted.len(), "tasks adopted");
            hold(&handles).extend(found.clone());
            let _ = inbox.send(Input::Adopted(adopted)).await;
            // What they say before the core knows of them would be lost.
            for (id, handle) in found {
                let (executor, inbox) = (executor.clone(), inbox.clone());
                tokio::spawn(async move { follow(id, handle, &executor, &inbox).await });
            }
        });
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Launch(id) => self.launch(id),
            Command::Start(id) => self.start_task(id),
            Command::Stop(id) => self.stop_task(id),
            Command::Forget(id) => self.forget(id),
        }
    }

    fn stop_task(&self, id: TaskId) {
        let (handle, inbox) = (self.handles().get(&id).cloned(), self.inbox.clone());
        tokio::spawn(async move {
            let stopped = match handle {
                Some(handle) => handle.stop(None, None).await.map_err(|error| chain(&error)),
                None => Err(NO_SUPERVISOR.to_owned()),
            };
            if let Err(error) = stopped {
                tracing::warn!(task = %id, error, "stop");
                let _ = inbox.send(Input::NotDone { command: Command::Stop(id), error }).await;
            }
        });
    }

    fn forget(&self, id: TaskId) {
        let known = self.handles().remove(&id);
        let (executor, inbox) = (self.executor.clone(), self.inbox.clone());
        let kept: BTreeSet<String> =
            self.agent.worker().tasks().keys().map(ToString::to_string).collect();
        tokio::spawn(async move {
            if let Err(error) = release(&executor, id, known).await {
                tracing::warn!(task = %id, error, "forget");
                let _ = inbox.send(Input::NotDone { command: Command::Forget(id), error }).await;
            }
            let pruned = tokio::task::spawn_blocking(move || executor.prune_logs(&kept));
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
        let (executor, inbox, handles) =
            (self.executor.clone(), self.inbox.clone(), self.handles.clone());
        tokio::spawn(async move {
            let launched = match launch_spec(id, &own) {
                Ok(spec) => launch(&executor, spec).await,
                Err(reason) => Err(Error::Rejected { reason }),
            };
            match launched {
                Ok(handle) => {
                    hold(&handles).insert(id, handle.clone());
                    follow(id, handle, &executor, &inbox).await;
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
        let addresses = attachments.iter().map(|attachment| attachment.address).collect();
        let (handle, inbox) = (self.handles().get(&id).cloned(), self.inbox.clone());
        tokio::spawn(async move {
            let input = match handle {
                Some(handle) => match handle.start(StartSpec { addresses }).await {
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

    /// A namespace and a DNS server for every sandbox that exists, none for those that are gone.
    pub(super) async fn open_sandboxes(&mut self) {
        let sandboxes = self.agent.worker().local();
        let gone: Vec<TaskId> =
            self.dns.keys().filter(|id| !sandboxes.contains_key(id)).copied().collect();
        for id in gone {
            self.dns.remove(&id);
            self.sandboxes.remove(id);
        }
        for id in sandboxes.keys() {
            if self.dns.contains_key(id) {
                continue;
            }
            let handle = self.handles().get(id).cloned();
            let Some(handle) = handle else { continue };
            if let Err(error) = self.open_sandbox(*id, &handle).await {
                let error = chain(&*error);
                tracing::warn!(task = %id, error, "open a sandbox");
            }
        }
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

    async fn open_sandbox(
        &mut self,
        id: TaskId,
        handle: &Handle,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let fds = handle.fds().await?;
        let (udp, tcp) = (fds.dns_udp.into(), fds.dns_tcp.into());
        let names = self.names.clone();
        let own = &handle.spec().dns.nameservers;
        let forwarder = if own.is_empty() {
            self.forwarder.clone()
        } else {
            let clock = Arc::new(clock::monotonic);
            Arc::new(Forwarder::within(fds.netns.try_clone()?, own, clock))
        };
        let server = DnsServer::start(id, udp, tcp, names, forwarder)?;
        self.dns.insert(id, server);
        self.sandboxes.insert(id, fds.netns);
        Ok(())
    }
}

/// All that run. Until they are known nothing is launched, and none counts as lost.
async fn adopt_all(executor: &ProcessExecutor) -> Vec<Handle> {
    loop {
        match executor.adopt_all().await {
            Ok(handles) => return handles,
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

/// Makes a task's sandbox, or finds the one that an earlier try has made.
async fn launch(executor: &ProcessExecutor, spec: LaunchSpec) -> Result<Handle, Error> {
    let task = spec.task.clone();
    match executor.launch(spec).await {
        Err(already @ Error::AlreadyLaunched { .. }) => match executor.adopt(&task).await {
            Ok(found) => found.ok_or(already),
            Err(source) => Err(Error::Supervisor { task, source }),
        },
        launched => launched,
    }
}

/// Removes what is left of a task that ended, known or not.
async fn release(
    executor: &ProcessExecutor,
    id: TaskId,
    known: Option<Handle>,
) -> Result<(), String> {
    let found = match known {
        Some(handle) => Some(handle),
        None => executor.adopt(&id.to_string()).await.map_err(|error| chain(&error))?,
    };
    let Some(handle) = found else { return Ok(()) };
    match handle.release().await {
        // Its report was late, or lost: it runs although it counts as ended.
        Err(Error::Refused { .. }) => {
            handle.kill().await.map_err(|error| chain(&error))?;
            Err("it still ran and has been killed".to_owned())
        }
        released => released.map_err(|error| chain(&error)),
    }
}

/// The address that a sandbox has on `skein_gwbridge`. None where it was not wired yet.
async fn address_in_kernel(handle: &Handle, gwbridge: Subnet) -> Option<IpAddr> {
    let read = async {
        let namespace = handle.fds().await.map_err(std::io::Error::other)?.netns;
        let read = tokio::task::spawn_blocking(move || HostFacts::read_in(namespace)).await;
        read.map_err(std::io::Error::other).flatten()
    };
    match read.await {
        Ok(facts) => facts.address_in(gwbridge),
        Err(error) => {
            tracing::error!(task = handle.task(), %error, "read the address of a task");
            None
        }
    }
}

/// Passes on every change of a task's report until it ended or was released.
async fn follow(
    id: TaskId,
    handle: Handle,
    executor: &ProcessExecutor,
    inbox: &mpsc::Sender<Input>,
) {
    let mut handle = handle;
    while pass_on(id, &handle, inbox).await {
        // Its supervisor is gone, and how it ended could not be recorded.
        handle = loop {
            tokio::time::sleep(AGAIN_INTERVAL).await;
            match executor.adopt(handle.task()).await {
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

/// Whether more is to be said of a task when nothing more comes from its handle.
async fn pass_on(id: TaskId, handle: &Handle, inbox: &mpsc::Sender<Input>) -> bool {
    let mut reports = handle.watch();
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
