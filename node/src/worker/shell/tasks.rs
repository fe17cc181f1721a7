//! The shell's dealings with the executor.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cluster::id::TaskId;
use cluster::net::Subnet;
use netprog_linux::dns_server::DnsServer;
use netprog_linux::facts::HostFacts;

use super::{Adopted, Command, Event, Handle, Input, Shell};
use crate::executor::{HealthState, Phase, StartSpec, TaskReport};
use crate::worker::launch::launch_spec;
use crate::worker::{Ended, Health};

impl Shell {
    /// Finds the tasks that outlived the previous daemon.
    pub(super) async fn adopt(&mut self) {
        let known = self.kept.egress();
        let mut adopted = BTreeMap::new();
        let handles = self.executor.adopt_all().await.unwrap_or_else(|error| {
            tracing::error!(%error, "find tasks that run");
            Vec::new()
        });
        for handle in handles {
            let Ok(id) = handle.task().parse::<TaskId>() else { continue };
            let event = event_of(&handle.report());
            let egress = match known.get(&id) {
                Some(address) => Some(*address),
                None if matches!(event, Event::Ended(_)) => None,
                None => address_in_kernel(&handle, self.facts.gwbridge).await,
            };
            adopted.insert(id, Adopted { egress, event });
            self.follow(id, handle);
        }
        tracing::info!(tasks = adopted.len(), "tasks adopted");
        self.step(Input::Adopted(adopted)).await;
    }

    pub(super) fn carry_out(&mut self, command: Command) {
        match command {
            Command::Launch(id) => self.launch(id),
            Command::Start(id) => self.start_task(id),
            Command::Stop(id) => self.with_handle(id, |handle| {
                tokio::spawn(async move {
                    if let Err(error) = handle.stop(None, None).await {
                        tracing::warn!(task = handle.task(), %error, "stop");
                    }
                });
            }),
            Command::Forget(id) => {
                let known = self.handles().remove(&id);
                let executor = self.executor.clone();
                let kept: BTreeSet<String> =
                    self.worker.tasks().keys().map(ToString::to_string).collect();
                tokio::spawn(async move {
                    if let Some(handle) = known
                        && let Err(error) = handle.release().await
                    {
                        tracing::warn!(task = handle.task(), %error, "forget");
                    }
                    let pruned = tokio::task::spawn_blocking(move || executor.prune_logs(&kept));
                    if let Ok(Err(error)) = pruned.await {
                        tracing::warn!(%error, "remove logs of tasks that are gone");
                    }
                });
            }
        }
    }

    fn with_handle(&self, id: TaskId, f: impl FnOnce(Handle)) {
        if let Some(handle) = self.handles().get(&id).cloned() {
            f(handle);
        }
    }

    fn launch(&self, id: TaskId) {
        let own = self.worker.assignment().and_then(|assignment| assignment.own.get(&id)).cloned();
        let Some(own) = own else { return };
        let (executor, inbox, handles) =
            (self.executor.clone(), self.inbox.clone(), self.handles.clone());
        tokio::spawn(async move {
            let launched = match launch_spec(id, &own) {
                Ok(spec) => executor.launch(spec).await.map_err(|e| e.to_string()),
                Err(reason) => Err(reason),
            };
            match launched {
                Ok(handle) => {
                    handles
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .insert(id, handle.clone());
                    follow(id, handle, inbox).await;
                }
                Err(reason) => {
                    let event = Event::Ended(Ended::rejected(reason));
                    let _ = inbox.send(Input::Task(id, event)).await;
                }
            }
        });
    }

    fn follow(&self, id: TaskId, handle: Handle) {
        self.handles().insert(id, handle.clone());
        tokio::spawn(follow(id, handle, self.inbox.clone()));
    }

    fn start_task(&self, id: TaskId) {
        let attachments = self.worker.assignment().and_then(|a| a.tasks.get(&id));
        let attachments = attachments.map(|task| task.attachments.as_slice()).unwrap_or_default();
        let addresses = attachments.iter().map(|attachment| attachment.address).collect();
        let inbox = self.inbox.clone();
        self.with_handle(id, |handle| {
            tokio::spawn(async move {
                if let Err(error) = handle.start(StartSpec { addresses }).await {
                    let event = Event::Ended(Ended::rejected(error.to_string()));
                    let _ = inbox.send(Input::Task(id, event)).await;
                }
            });
        });
    }

    /// A namespace and a DNS server for every sandbox that exists, none for those that are gone.
    pub(super) async fn open_sandboxes(&mut self) {
        let sandboxes = self.worker.local();
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
                let error = crate::daemon::chain(&*error);
                tracing::warn!(task = %id, error, "open a sandbox");
            }
        }
    }

    async fn open_sandbox(
        &mut self,
        id: TaskId,
        handle: &Handle,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let fds = handle.fds().await?;
        let (udp, tcp) = (fds.dns_udp.into(), fds.dns_tcp.into());
        let names = self.names.clone();
        let server = DnsServer::start(id, udp, tcp, names, self.forwarder.clone())?;
        self.dns.insert(id, server);
        self.sandboxes.insert(id, fds.netns);
        Ok(())
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

/// Passes on every change of a task's report until it ended.
async fn follow(id: TaskId, handle: Handle, inbox: tokio::sync::mpsc::Sender<Input>) {
    let mut reports = handle.watch();
    loop {
        let event = event_of(&reports.borrow_and_update().clone());
        let ended = matches!(event, Event::Ended(_));
        if inbox.send(Input::Task(id, event)).await.is_err() || ended {
            return;
        }
        if reports.changed().await.is_err() {
            return;
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
                None | Some(HealthState::Healthy) => Health::Healthy,
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
