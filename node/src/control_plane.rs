//! The daemon as the HTTP API sees it.

use std::io;
use std::sync::Arc;

use agent::Phase;
use api::ApiError;
use api::{
    Consistency, ControlPlane, ExecSession, InitRequest, JoinRequest, Local, LocalNetwork,
    LocalNodeState, LogRecord, LogRequest, NativeAnswer, NativeRequest, RemoteManager,
    RestoreRequest, Snapshot, UpdateClusterRequest,
};
use async_trait::async_trait;
use bytes::Bytes;
use cluster::exec::ExecSpec;
use cluster::id::NodeId;
use cluster::object::UnlockKey;
use cluster::request::{Answer, Request, UpdateCluster};
use cluster::state::State;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::clock;
use crate::daemon::Daemon;
use crate::key_file::unlock_key_text;
use crate::manager::{Manager, rotation};
use crate::member::Member;
use crate::pki;

/// The daemon behind the API.
pub struct Plane(pub Arc<Daemon>);

impl Plane {
    async fn manager(&self) -> Result<Manager, ApiError> {
        let member = self.0.member().await?;
        member.manager().ok_or_else(|| match no_room(&member) {
            Some(line) => ApiError::unavailable(line),
            None => ApiError::not_manager(),
        })
    }

    /// A change of membership goes on to its end when its client has gone: half of one would leave
    /// a node that is neither in a cluster nor outside.
    async fn change<T, F>(&self, change: impl FnOnce(Arc<Daemon>) -> F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let changed = tokio::spawn(change(self.0.clone())).await;
        changed.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
    }

    /// The membership without waiting: `None` also while it is being changed.
    fn member_now(&self) -> Option<Arc<Member>> {
        self.0.member.try_read().ok().and_then(|member| member.clone())
    }
}

#[async_trait]
impl ControlPlane for Plane {
    async fn state(&self, consistency: Consistency) -> Result<Snapshot, ApiError> {
        let manager = self.manager().await?;
        let state = match consistency {
            Consistency::Linearizable => manager.linearizable().await?,
            Consistency::Stale => manager.newest(),
        };
        let leader = manager.raft.status().leader.map(|peer| peer.raft_id);
        let leader = state
            .nodes
            .values()
            .find(|node| node.manager.as_ref().is_some_and(|info| Some(info.raft_id) == leader));
        let leader = leader.map(|node| node.id);
        let view = self.0.member().await?.gossip.view();
        let view = view.borrow();
        let managers = state.nodes.values().filter(|node| node.manager.is_some());
        let unreachable =
            managers.map(|node| node.id).filter(|id| *id != manager.node && !view.is_alive(*id));
        let unreachable = unreachable.collect();
        Ok(Snapshot { state, leader, unreachable })
    }

    async fn request(&self, request: Request) -> Result<Answer, ApiError> {
        Ok(self.manager().await?.request(request).await?)
    }

    async fn update_cluster(&self, request: UpdateClusterRequest) -> Result<(), ApiError> {
        let manager = self.manager().await?;
        let state = manager.linearizable().await?;
        let cluster = state.cluster.clone().ok_or_else(ApiError::no_swarm)?;
        let digest = pki::ca_digest(&cluster.ca_certificate)
            .map_err(|e| ApiError::internal(crate::causes::chain(&e)))?;
        let token = |rotate: bool| rotate.then(|| pki::new_token(digest));
        let ca = request.ca.map(|wanted| rotation::change(&cluster, &wanted)).transpose()?;
        let update = UpdateCluster {
            version: request.version,
            spec: request.spec,
            worker_token: token(request.rotate_worker_token),
            manager_token: token(request.rotate_manager_token),
            unlock_key: Some(UnlockKey(rand::random())),
            rotate_unlock_key: request.rotate_unlock_key,
            ca,
        };
        manager.request(Request::UpdateCluster(Box::new(update))).await?;
        Ok(())
    }

    async fn unlock(&self, key: &str) -> Result<(), ApiError> {
        let key = key.to_owned();
        self.change(|daemon| async move { daemon.unlock(&key).await }).await
    }

    async fn unlock_key(&self) -> Result<String, ApiError> {
        let state = self.manager().await?.linearizable().await?;
        let key = state.cluster.as_ref().and_then(|cluster| cluster.unlock_key.as_ref());
        Ok(key.map(unlock_key_text).unwrap_or_default())
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError> {
        self.change(|daemon| async move { daemon.init(request).await }).await
    }

    async fn backup(&self) -> Result<BoxStream<'static, io::Result<Bytes>>, ApiError> {
        self.0.backup().await
    }

    async fn restore(&self, request: RestoreRequest) -> Result<NodeId, ApiError> {
        self.change(|daemon| async move { daemon.restore(request).await }).await
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ApiError> {
        self.change(|daemon| async move { daemon.join(request).await }).await
    }

    async fn leave(&self, force: bool) -> Result<(), ApiError> {
        self.change(|daemon| async move { daemon.leave(force).await }).await
    }

    fn local(&self) -> Local {
        let host = &self.0.host;
        let member = self.member_now();
        let mut local = Local {
            now: clock::timestamp(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: None,
            hostname: host.hostname.clone(),
            state: LocalNodeState::Inactive,
            control_available: false,
            node_addr: None,
            remote_managers: Vec::new(),
            error: String::new(),
            kernel: host.kernel.clone(),
            operating_system: host.operating_system.clone(),
            architecture: host.architecture.clone(),
            cpus: host.cpus,
            memory_bytes: host.memory_bytes,
            cgroup_version: host.cgroup_version,
            data_dir: self.0.config.data_dir.display().to_string(),
            tasks_running: 0,
            tasks_stopped: 0,
            networks: Vec::new(),
            warnings: host.warnings.clone(),
        };
        if self.0.is_locked() {
            local.state = LocalNodeState::Locked;
        }
        if let Some(member) = member {
            describe_member(&mut local, &member);
        }
        local
    }

    fn changes(&self) -> watch::Receiver<Arc<State>> {
        self.0.states.subscribe()
    }

    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, LogRecord>, ApiError> {
        let member = self.0.member().await?;
        let state = self.state(Consistency::Linearizable).await?.state;
        Ok(crate::log_stream::gather(&member.net, &state, self.changes(), request))
    }

    async fn exec(&self, task: &str, spec: ExecSpec) -> Result<ExecSession, ApiError> {
        let member = self.0.member().await?;
        crate::exec_stream::open(&member, task, spec).await
    }

    async fn native(&self, request: NativeRequest) -> Result<NativeAnswer, ApiError> {
        let member = self.0.member().await?;
        crate::native::serve(&member, &request).await
    }

    fn metrics(&self) -> String {
        let member = self.member_now();
        crate::telemetry::metrics(member.as_deref())
    }
}

/// What an operator is told who has two managers.
const TWO_MANAGERS: &str = "WARNING: two managers: when either is lost the other has no majority, \
     and the cluster cannot be changed. Have one, or three";

/// What is told to who asks a manager whose disk is full.
fn no_room(member: &Member) -> Option<String> {
    let reason = member.without_room.borrow().clone()?;
    let line = "the disk of this manager is full, and it is none until there is room: ask another";
    Some(format!("{line} ({reason})"))
}

fn describe_member(local: &mut Local, member: &Member) {
    local.node = Some(member.identity.node);
    local.state = LocalNodeState::Active;
    let manager = member.manager();
    local.control_available = manager.is_some();
    let voters = manager.map_or(0, |manager| manager.raft.status().voters.len());
    local.warnings.extend((voters == 2).then(|| TWO_MANAGERS.to_owned()));
    local.error = no_room(member).unwrap_or_default();
    local.node_addr = Some(member.identity.advertise);
    let count = |ended: bool| {
        let tasks = member.worker.tasks.borrow();
        let counted = tasks.values().filter(|task| (task.phase == Phase::Ended) == ended).count();
        u32::try_from(counted).unwrap_or(u32::MAX)
    };
    (local.tasks_running, local.tasks_stopped) = (count(false), count(true));
    let assignment = member.worker.assignment.borrow().clone();
    let Some(assignment) = assignment else {
        local.state = LocalNodeState::Pending;
        return;
    };
    let managers = assignment
        .nodes
        .iter()
        .filter_map(|(id, node)| node.manager.map(|address| RemoteManager { node: *id, address }));
    local.remote_managers = managers.collect();
    local.networks = assignment
        .networks
        .iter()
        .map(|(id, network)| LocalNetwork {
            id: *id,
            name: network.name.clone(),
            created_at: network.created_at,
            vni: network.vni,
            subnets: network.subnets,
            internal: network.internal,
            ingress: network.ingress,
        })
        .collect();
}
