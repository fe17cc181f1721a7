//! The daemon: a node that is in no cluster, or a member of one, and the way between the two.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::ApiError;
use api::{InitRequest, JoinRequest};
use cluster::id::{ClusterId, NodeId};
use cluster::object::{GossipKey, ManagerInfo, NodeDescription, UnlockKey};
use cluster::request::{InitCluster, JoinNode, Request};
use cluster::spec::{Availability, ClusterSpec, Role};
use cluster::state::State;
use raft_store::Peer;
use time::OffsetDateTime;
use tokio::sync::{Mutex, RwLock, watch};

use crate::causes::chain;
use crate::clock;
use crate::config::Config;
use crate::disk;
use crate::host::Host;
use crate::identity::{DataDir, DataDirError, Identity};
use crate::key_file::KeyFileError;
use crate::member::{self, Member, MemberError, NodeFacts, Sockets};
use crate::pki::{self, Authority, Ca, Credentials, PeerIdentity, Token};
use crate::worker::shell::kept;

mod addresses;
mod join;
mod leave;
mod lock;
mod recovery;

/// Below the run directory: the generation that this boot has used and the data directory does not
/// have yet.
const GENERATION: &str = "generation";
/// How long a new member waits for its first assignment.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(20);

/// Why a daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Another one starts soon; tasks go on meanwhile.
    Restart,
    /// The machine or container stops, and with it all tasks.
    MachineStops,
}

/// The daemon's parts.
pub struct Daemon {
    /// Settings.
    pub config: Config,
    /// What the host is and offers.
    pub host: Host,
    /// The data directory.
    pub data: Arc<DataDir>,
    /// The membership, if there is one.
    pub member: RwLock<Option<Arc<Member>>>,
    /// The newest state that this node applied; empty outside a cluster.
    pub states: watch::Sender<Arc<State>>,
    exe: PathBuf,
    /// A manager whose keys are sealed, and that was not given the key yet.
    locked: AtomicBool,
    /// One change of membership at a time.
    changing: Mutex<()>,
    /// Rings when a membership begins.
    begun: watch::Sender<()>,
}

impl Daemon {
    /// A daemon in no cluster.
    #[must_use]
    pub fn new(config: Config, host: Host, data: DataDir, exe: PathBuf) -> Self {
        Self {
            config,
            host,
            data: Arc::new(data),
            member: RwLock::new(None),
            states: watch::channel(Arc::default()).0,
            exe,
            locked: AtomicBool::new(false),
            changing: Mutex::new(()),
            begun: watch::channel(()).0,
        }
    }

    /// Comes back as the member that the data directory says, if it says one. A manager that is
    /// locked waits for its key.
    pub async fn resume(&self) -> anyhow::Result<()> {
        let flags = self.address_flags();
        flags.map_err(|error| anyhow::anyhow!("{}", error.message))?;
        let loaded = match self.data.load() {
            Err(DataDirError::Keys(KeyFileError::Locked(_))) => {
                self.locked.store(true, Ordering::Release);
                tracing::warn!("this manager is locked: docker swarm unlock");
                return Ok(());
            }
            loaded => loaded?,
        };
        let Some((mut identity, credentials)) = loaded else { return Ok(()) };
        kept::check_schema(&self.data)?;
        let used = self.config.run_dir.join(GENERATION);
        let last: Option<u64> = disk::read_json(&used).ok().flatten();
        identity.generation = identity.generation.max(last.unwrap_or_default()) + 1;
        if identity.raft_id.is_none() {
            // Of a manager that became a worker, and ended before it was gone.
            self.data.forget_raft()?;
        }
        self.follow_address(&mut identity)?;
        if let Err(error) = self.data.save_identity(&identity) {
            // A full disk is no reason to stay away: the worker tries again. Until it is written
            // the run directory, which is in memory, says which generation has been used.
            disk::write_json(&used, &identity.generation)?;
            tracing::error!(%error, "the node comes back from the files that it has");
        }
        let sockets = Sockets::bind(&identity).await?;
        tracing::info!(node = %identity.node, cluster = %identity.cluster, "member of a cluster");
        self.begin(identity, &credentials, sockets).await?;
        Ok(())
    }

    /// Starts a membership whose identity is on disk.
    async fn begin(
        &self,
        identity: Identity,
        credentials: &Credentials,
        sockets: Sockets,
    ) -> Result<Arc<Member>, MemberError> {
        let facts = self.facts(&identity, credentials)?;
        let states = self.states.clone();
        let member =
            Member::start(&self.data, identity, credentials, sockets, facts, states).await?;
        let member = Arc::new(member);
        *self.member.write().await = Some(member.clone());
        self.begun.send_replace(());
        Ok(member)
    }

    fn facts(
        &self,
        identity: &Identity,
        credentials: &Credentials,
    ) -> Result<NodeFacts, MemberError> {
        Ok(NodeFacts {
            exe: self.exe.clone(),
            run_dir: self.config.run_dir.clone(),
            facts: self.host.facts(identity.data_path, identity.listen.port()),
            description: self.certified_description(identity, credentials)?,
        })
    }

    /// What this node says of itself.
    fn description(&self, identity: &Identity, key: &str) -> Result<NodeDescription, MemberError> {
        let gossip = SocketAddr::new(identity.advertise, identity.gossip_port);
        let proof_key = member::proof_secret(key)?.key();
        let address = identity.manager_address();
        Ok(self.host.description(gossip, identity.data_path, address, proof_key))
    }

    /// The same of a node that has its certificate.
    fn certified_description(
        &self,
        identity: &Identity,
        credentials: &Credentials,
    ) -> Result<NodeDescription, MemberError> {
        let trust = Some(pki::trust_of(credentials)?);
        Ok(NodeDescription { trust, ..self.description(identity, &credentials.key)? })
    }

    /// The membership; Docker's refusal outside a cluster.
    pub async fn member(&self) -> Result<Arc<Member>, ApiError> {
        self.member.read().await.clone().ok_or_else(ApiError::no_swarm)
    }

    /// Founds a cluster with this node as its manager.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError> {
        let _changing = self.changing.lock().await;
        if request.force_new_cluster {
            return self.go_on_alone(&request).await;
        }
        self.check_outside().await?;
        let addresses = self.addresses(
            request.listen_addr.as_deref(),
            request.advertise_addr.as_deref(),
            request.data_path_addr.as_deref(),
        )?;
        let cluster = ClusterId(rand::random());
        let raft_id: u64 = rand::random();
        let identity = Identity {
            cluster,
            node: NodeId(rand::random()),
            raft_id: Some(raft_id),
            log_of: None,
            advertise: addresses.advertise,
            data_path: addresses.data_path,
            listen: addresses.listen,
            gossip_port: self.config.gossip_port,
            managers: vec![addresses.cluster],
            generation: 1,
            cluster_address: Some(addresses.cluster),
            flags: self.address_flags()?,
        };
        let now = OffsetDateTime::from(clock::wall());
        let internal = |e: pki::PkiError| ApiError::internal(chain(&e));
        let ca = pki::new_ca(cluster, now).map_err(internal)?;
        let authority = Authority::alone(ca.clone());
        let credentials =
            own_credentials(&authority, &identity, now, &request.spec).map_err(internal)?;
        let sockets = Sockets::bind(&identity).await.map_err(listen_error)?;
        self.data.save(&identity, &credentials).map_err(|e| ApiError::internal(e.to_string()))?;
        let founded = self.found(&identity, &credentials, sockets, &ca, &request).await;
        if let Err(error) = founded {
            // Nothing is half-founded: the node is as it was before.
            self.abandon().await;
            return Err(error);
        }
        Ok(identity.node)
    }

    async fn found(
        &self,
        identity: &Identity,
        credentials: &Credentials,
        sockets: Sockets,
        ca: &Ca,
        request: &InitRequest,
    ) -> Result<(), ApiError> {
        let member = self
            .begin(identity.clone(), credentials, sockets)
            .await
            .map_err(|e| ApiError::internal(chain(&e)))?;
        let (Some(manager), Some(raft_id)) = (member.manager(), identity.raft_id) else {
            return Err(ApiError::internal("a founder is a manager"));
        };
        let address = identity.manager_address();
        let peer = Peer { raft_id, address: address.to_string() };
        let initialised = manager.raft.initialize(peer).await;
        initialised.map_err(|e| ApiError::internal(e.to_string()))?;
        let digest = pki::ca_digest(&ca.certificate).map_err(|e| ApiError::internal(chain(&e)))?;
        let key = pki::certificate_der(&credentials.certificate)
            .and_then(|own| pki::PeerCertificate::read(&own))
            .map_err(|e| ApiError::internal(chain(&e)))?
            .key;
        let founding = InitCluster {
            id: identity.cluster,
            spec: request.spec.clone(),
            ca_certificate: ca.certificate.clone(),
            ca_key: ca.key.clone(),
            worker_token: pki::new_token(digest),
            manager_token: pki::new_token(digest),
            gossip_keys: vec![GossipKey { id: 1, key: rand::random() }],
            address_pools: request.default_addr_pool.clone(),
            subnet_size: request.subnet_size.unwrap_or(0),
            data_path_port: request.data_path_port.unwrap_or(self.config.data_path_port),
            unlock_key: Some(UnlockKey(rand::random())),
            node: JoinNode {
                id: identity.node,
                key: Some(key),
                role: Role::Manager,
                availability: request.availability,
                description: (self.certified_description(identity, credentials))
                    .map_err(|e| ApiError::internal(chain(&e)))?,
                manager: Some(ManagerInfo { raft_id, address }),
            },
        };
        manager.request(Request::InitCluster(Box::new(founding))).await?;
        if !member.assigned(READY_LIMIT).await {
            return Err(ApiError::unavailable("the founded cluster gave this node no assignment"));
        }
        Ok(())
    }

    /// Takes back a membership that was not reached.
    async fn abandon(&self) {
        if let Some(member) = self.member.write().await.take() {
            member.leave().await;
        }
        if let Err(error) = self.data.forget() {
            tracing::error!(%error, "forget a membership that was not reached");
        }
    }

    /// Ends with the reason when this member cannot go on: its disk failed.
    pub async fn broken(&self) -> String {
        let mut members = self.begun.subscribe();
        loop {
            let member = self.member.read().await.clone();
            let broken = async {
                match member {
                    Some(member) if !member.is_stopping() => member.broken().await,
                    _none => std::future::pending().await,
                }
            };
            tokio::select! {
                reason = broken => {
                    if self.member.read().await.as_ref().is_some_and(|m| !m.is_stopping()) {
                        return reason;
                    }
                }
                _ = members.changed() => {}
            }
        }
    }

    /// Stops cleanly: peers are told whether this is a restart. Then tasks go on, unless they are
    /// to stop.
    pub async fn shutdown(&self, ending: Ending) {
        let Some(member) = self.member.write().await.take() else { return };
        if self.config.stop_tasks_on_exit {
            member.worker.stop_tasks().await;
        }
        match ending {
            Ending::Restart if !self.config.stop_tasks_on_exit => member.restart().await,
            Ending::Restart | Ending::MachineStops => member.go_down().await,
        }
    }
}

fn own_credentials(
    authority: &Authority,
    identity: &Identity,
    now: OffsetDateTime,
    spec: &ClusterSpec,
) -> Result<Credentials, pki::PkiError> {
    let (key, request) = pki::new_request()?;
    let (cluster, node) = (identity.cluster, identity.node);
    let owner = PeerIdentity { cluster, node, role: Role::Manager };
    let life = Duration::from_millis(spec.certificate_ms());
    let certificate = authority.sign(&request, owner, now, life)?;
    Ok(Credentials { ca: authority.roots().to_owned(), certificate, key })
}

fn listen_error(error: MemberError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

/// Addresses of a member, decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    advertise: IpAddr,
    data_path: IpAddr,
    /// Where the cluster listener is bound.
    listen: SocketAddr,
    /// Where peers reach it.
    cluster: SocketAddr,
}

/// What a join needs besides its addresses.
pub(crate) struct Admission {
    token: Token,
    managers: Vec<SocketAddr>,
    availability: Availability,
}

impl TryFrom<&JoinRequest> for Admission {
    type Error = ApiError;
    fn try_from(request: &JoinRequest) -> Result<Self, ApiError> {
        let token: Token = request
            .join_token
            .parse()
            .map_err(|e: pki::TokenError| ApiError::bad_request(e.to_string()))?;
        let managers = addresses::managers(&request.remote_addrs)?;
        Ok(Self { token, managers, availability: request.availability })
    }
}
