//! A control plane of one process: the real state and the real decisions, without Raft. Its one
//! worker believes that every task it is given runs at once.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use api::{
    ApiError, Consistency, ControlPlane, ExecSession, InitRequest, JoinRequest, Local,
    LocalNodeState, LogRecord, LogRequest, LogSelector, LogStream, NativeAnswer, NativeRequest,
    NativeTopic, RemoteManager, RequestedCa, RestoreRequest, Snapshot, UpdateClusterRequest,
};
use async_trait::async_trait;
use bytes::Bytes;
use cluster::State;
use cluster::apply::Outcome;
use cluster::decide::decide;
use cluster::exec::ExecSpec;
use cluster::id::{ClusterId, NodeId};
use cluster::object::{
    CaDigest, CaRotation, ManagerInfo, NodeDescription, NodeState, Task, TaskState, TaskStatus,
    Trust,
};
use cluster::request::{Answer, CaChange, InitCluster, JoinNode, Request, UpdateCluster};
use cluster::spec::{ClusterSpec, Role};
use cluster::time::{Revision, Timestamp};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::json;
use tokio::sync::watch;

/// 2025-11-23T20:22:29Z.
pub(crate) const NOW: Timestamp = Timestamp(1_763_929_349_000);
const NODE: NodeId = NodeId(u128::MAX / 3);
const MANAGER: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 2377);

pub(crate) struct Fake {
    inner: Mutex<Inner>,
    changes: watch::Sender<Arc<State>>,
}

struct Inner {
    state: State,
    has_quorum: bool,
    seed: u128,
    local: Local,
}

impl Fake {
    /// A node of no cluster.
    pub(crate) fn outside() -> Arc<Self> {
        let inner = Inner { state: State::default(), has_quorum: true, seed: 1, local: local() };
        Arc::new(Self { inner: Mutex::new(inner), changes: watch::Sender::new(Arc::default()) })
    }

    /// The only manager of a new cluster.
    pub(crate) async fn manager() -> Arc<Self> {
        let fake = Self::outside();
        fake.init(InitRequest {
            listen_addr: None,
            advertise_addr: None,
            data_path_addr: None,
            data_path_port: None,
            default_addr_pool: Vec::new(),
            subnet_size: None,
            force_new_cluster: false,
            spec: ClusterSpec::default(),
            availability: cluster::spec::Availability::Active,
        })
        .await
        .unwrap();
        fake
    }

    /// Changes what the node says of itself.
    pub(crate) fn with_local(&self, change: impl FnOnce(&mut Local)) {
        change(&mut self.locked().local);
    }

    /// Has the node say whom it trusts.
    pub(crate) fn describe(&self, trust: Trust) {
        let node = self.locked().state.nodes[&NODE].clone();
        let description = NodeDescription { trust: Some(trust), ..node.description.clone() };
        let request = Request::DescribeNode { id: NODE, description: Box::new(description) };
        self.commit(&request).unwrap();
    }

    /// From now on reads that must be linearizable fail.
    pub(crate) fn lose_quorum(&self) {
        self.locked().has_quorum = false;
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn commit(&self, request: &Request) -> Result<Answer, ApiError> {
        let mut inner = self.locked();
        let answer = inner.commit(request)?;
        inner.work();
        self.changes.send_replace(Arc::new(inner.state.clone()));
        Ok(answer)
    }
}

impl Inner {
    fn commit(&mut self, request: &Request) -> Result<Answer, ApiError> {
        self.seed += 1;
        let decision = decide(&self.state, request, self.seed, NOW)?;
        let revision = Revision(self.state.revision.0 + 1);
        match self.state.apply(revision, &decision.transaction) {
            Outcome::Applied => Ok(decision.answer),
            Outcome::Rejected(conflict) => Err(ApiError::conflict(conflict.to_string())),
        }
    }

    /// What the worker would report next.
    fn work(&mut self) {
        const REPORTS_MAX: usize = 8;
        for _report in 0..REPORTS_MAX {
            let statuses: Vec<_> = self
                .state
                .tasks
                .values()
                .filter_map(|task| Some((task.id, next_status(task)?)))
                .collect();
            if statuses.is_empty() {
                return;
            }
            self.commit(&Request::ReportTasks { node: NODE, statuses }).unwrap();
        }
    }
}

fn next_status(task: &Task) -> Option<TaskStatus> {
    let (state, message) = match task.desired {
        wanted if wanted > TaskState::Running => (TaskState::Shutdown, "stopped"),
        _ => (TaskState::Running, "started"),
    };
    let due = task.node == Some(NODE) && task.status.state < state;
    due.then(|| TaskStatus {
        state,
        at: NOW,
        message: message.to_owned(),
        error: String::new(),
        pid: Some(4711),
        exit_code: (state == TaskState::Shutdown).then_some(0),
        healthy: true,
    })
}

fn local() -> Local {
    Local {
        now: NOW,
        version: "0.1.0".to_owned(),
        node: None,
        hostname: "alpha".to_owned(),
        state: LocalNodeState::Inactive,
        control_available: false,
        node_addr: None,
        remote_managers: Vec::new(),
        error: String::new(),
        kernel: "6.18.0".to_owned(),
        operating_system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        architecture: "x86_64".to_owned(),
        cpus: 2,
        cgroup_version: 2,
        memory_bytes: 4 << 30,
        data_dir: "/var/lib/skein".to_owned(),
        tasks_running: 0,
        tasks_stopped: 0,
        networks: Vec::new(),
        warnings: Vec::new(),
    }
}

fn first_node() -> JoinNode {
    JoinNode {
        id: NODE,
        key: None,
        role: Role::Manager,
        availability: cluster::spec::Availability::Active,
        description: NodeDescription {
            hostname: "alpha".to_owned(),
            os: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            nano_cpus: 2_000_000_000,
            memory_bytes: 4 << 30,
            engine_version: "0.1.0".to_owned(),
            gossip: SocketAddr::new(MANAGER.ip(), 7946),
            vtep: MANAGER.ip(),
            routes: Vec::new(),
            balancer: "nft".to_owned(),
            executors: vec!["process".to_owned()],
            certificate_subject: String::new(),
            schema: cluster::object::newest_schema(),
            manager_address: None,
            proof_key: None,
            trust: None,
            underlay_mtu: None,
            generic_resources: Vec::new(),
        },
        manager: Some(ManagerInfo { raft_id: 1, address: MANAGER }),
    }
}

/// Whatever is wanted, the example CA is to take the first one's place.
fn rotation(wanted: RequestedCa) -> CaRotation {
    let own = match wanted {
        RequestedCa::New => "SWMTKN-1-ca2",
        RequestedCa::Own { .. } => "SWMTKN-1-own",
    };
    CaRotation {
        certificate: include_str!("ca2.pem").to_owned(),
        key: "key2".to_owned(),
        cross_signed: String::new(),
        from: CaDigest([1; 32]),
        to: CaDigest([2; 32]),
        worker_token: format!("{own}-worker"),
        manager_token: format!("{own}-manager"),
        begun_at: Timestamp(0),
    }
}

#[async_trait]
impl ControlPlane for Fake {
    async fn state(&self, consistency: Consistency) -> Result<Snapshot, ApiError> {
        let inner = self.locked();
        if consistency == Consistency::Linearizable && !inner.has_quorum {
            return Err(ApiError::unavailable("no quorum: 1 of 3 managers is reachable"));
        }
        let state = self.changes.borrow().clone();
        Ok(Snapshot { state, leader: Some(NODE), unreachable: Vec::new() })
    }

    async fn request(&self, request: Request) -> Result<Answer, ApiError> {
        self.commit(&request)
    }

    async fn update_cluster(&self, request: UpdateClusterRequest) -> Result<(), ApiError> {
        self.commit(&Request::UpdateCluster(Box::new(UpdateCluster {
            version: request.version,
            spec: request.spec,
            worker_token: request.rotate_worker_token.then(|| "SWMTKN-1-ca-worker2".to_owned()),
            manager_token: request.rotate_manager_token.then(|| "SWMTKN-1-ca-manager2".to_owned()),
            unlock_key: Some(cluster::object::UnlockKey([7; 32])),
            rotate_unlock_key: false,
            ca: request.ca.map(|wanted| CaChange::Rotate(Box::new(rotation(wanted)))),
        })))
        .map(drop)
    }

    async fn unlock(&self, _key: &str) -> Result<(), ApiError> {
        Err(match self.local().state {
            LocalNodeState::Inactive => ApiError::not_member(),
            _member => ApiError::conflict("swarm is not locked"),
        })
    }

    async fn unlock_key(&self) -> Result<String, ApiError> {
        let key = self.locked().state.cluster.as_ref().and_then(|c| c.unlock_key.clone());
        Ok(key.map(|key| format!("SWMKEY-1-{}", key.0[0])).unwrap_or_default())
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError> {
        self.commit(&Request::InitCluster(Box::new(InitCluster {
            id: ClusterId(u128::MAX / 5),
            spec: request.spec,
            ca_certificate: include_str!("ca.pem").to_owned(),
            ca_key: "key".to_owned(),
            worker_token: "SWMTKN-1-ca-worker".to_owned(),
            manager_token: "SWMTKN-1-ca-manager".to_owned(),
            gossip_keys: Vec::new(),
            address_pools: request.default_addr_pool,
            subnet_size: request.subnet_size.unwrap_or(0),
            data_path_port: request.data_path_port.unwrap_or(0),
            unlock_key: None,
            node: first_node(),
        })))?;
        self.commit(&Request::SetNodeState {
            id: NODE,
            state: NodeState::Ready,
            message: String::new(),
            address: MANAGER.ip().to_string(),
        })?;
        self.with_local(|local| {
            local.node = Some(NODE);
            local.state = LocalNodeState::Active;
            local.control_available = true;
            local.node_addr = Some(MANAGER.ip());
            local.remote_managers = vec![RemoteManager { node: NODE, address: MANAGER }];
        });
        Ok(NODE)
    }

    async fn backup(&self) -> Result<BoxStream<'static, std::io::Result<Bytes>>, ApiError> {
        let pieces = ["piece one, ", "piece two"].map(|piece| Ok(Bytes::from(piece)));
        Ok(Box::pin(futures_util::stream::iter(pieces)))
    }

    async fn restore(&self, request: RestoreRequest) -> Result<NodeId, ApiError> {
        Err(ApiError::bad_request(format!("read backup {}", request.path)))
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ApiError> {
        Err(ApiError::unavailable(format!("cannot reach {}", request.remote_addrs.join(", "))))
    }

    async fn leave(&self, force: bool) -> Result<(), ApiError> {
        if !force {
            return Err(ApiError::unavailable(
                "You are attempting to leave the swarm on a node that is participating as a \
                 manager.",
            ));
        }
        let mut inner = self.locked();
        inner.state = State::default();
        inner.local = local();
        Ok(())
    }

    fn local(&self) -> Local {
        self.locked().local.clone()
    }

    fn changes(&self) -> watch::Receiver<Arc<State>> {
        self.changes.subscribe()
    }

    /// One line of each task, on either stream.
    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, LogRecord>, ApiError> {
        let state = self.locked().state.clone();
        let record = |task: &Task, stream| LogRecord {
            node: NODE,
            service: task.service,
            task: task.id,
            stream,
            time: NOW,
            text: Bytes::from(format!("hello from slot {:?}", task.slot)),
        };
        let mut records = Vec::new();
        for task in state.tasks.values() {
            let selected = match request.selector {
                LogSelector::Service(service) => task.service == service,
                LogSelector::Task(id) => task.id == id,
            };
            if selected && request.stdout {
                records.push(record(task, LogStream::Stdout));
            }
            if selected && request.stderr {
                records.push(record(task, LogStream::Stderr));
            }
        }
        Ok(stream::iter(records).boxed())
    }

    async fn exec(&self, _task: &str, _spec: ExecSpec) -> Result<ExecSession, ApiError> {
        Err(ApiError::not_implemented("this fake runs nothing"))
    }

    async fn native(&self, request: NativeRequest) -> Result<NativeAnswer, ApiError> {
        match request.topic {
            NativeTopic::Debug(topic) if topic == "state" => {
                Ok(NativeAnswer::Text("state\n".into()))
            }
            NativeTopic::Debug(topic) => {
                Err(ApiError::not_found(format!("debug topic {topic} not found")))
            }
            topic => Ok(NativeAnswer::Json(json!({
                "topic": format!("{topic:?}"),
                "query": request.query,
            }))),
        }
    }

    fn metrics(&self) -> String {
        "skein_revision 7\n".to_owned()
    }
}
