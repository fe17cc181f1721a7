//! Joining a cluster: trust by the token's digest, a certificate, then membership.

use std::net::SocketAddr;
use std::time::Duration;

use api::{ApiError, JoinRequest};
use bytes::Bytes;
use cluster::id::NodeId;
use cluster::spec::Role;

use super::{Addresses, Admission, Daemon, READY_LIMIT, listen_error};
use crate::causes::chain;
use crate::identity::Identity;
use crate::member::Sockets;
use crate::pki::{self, Credentials, verify};
use crate::transport::{CallError, Lane, Net};
use crate::wire::{self, JoinAnswer, JoinCall, NOT_LEADER, NotLeader};

/// How long one manager may take to admit a node.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// Referrals to the leader that are followed.
const REFERRALS_MAX: usize = 8;

impl Daemon {
    /// Joins the cluster that the token is for.
    pub async fn join(&self, request: JoinRequest) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        self.check_outside().await?;
        let admission = Admission::try_from(&request)?;
        let addresses = self.addresses(
            request.listen_addr.as_deref(),
            request.advertise_addr.as_deref(),
            request.data_path_addr.as_deref(),
        )?;
        let mut identity = self.candidate(addresses)?;
        // Bound before anybody is asked: a port that is taken must not leave a dead node behind.
        let sockets = Sockets::bind(&identity).await.map_err(listen_error)?;
        let internal = |e: pki::PkiError| ApiError::internal(chain(&e));
        let (key, csr) = pki::new_request().map_err(internal)?;
        let call = JoinCall {
            token: admission.token.to_string(),
            request: csr,
            description: (self.description(&identity, &key))
                .map_err(|e| ApiError::internal(chain(&e)))?,
            cluster_address: addresses.cluster,
            availability: admission.availability,
        };
        let answer = admitted(&admission, &call).await?;
        identity.cluster = answer.cluster;
        identity.node = answer.node;
        identity.raft_id = answer.raft_id;
        identity.managers = answer.managers;
        let sockets = match answer.role {
            Role::Manager => sockets,
            Role::Worker => sockets.without_cluster(),
        };
        let credentials = Credentials { ca: answer.ca, certificate: answer.certificate, key };
        self.data.save(&identity, &credentials).map_err(|e| ApiError::internal(e.to_string()))?;
        let member = match self.begin(identity, &credentials, sockets).await {
            Ok(member) => member,
            Err(error) => {
                self.abandon().await;
                return Err(ApiError::internal(chain(&error)));
            }
        };
        if !member.assigned(READY_LIMIT).await {
            // As Docker: the node is a member and goes on trying.
            return Err(ApiError::unavailable(
                "Timeout was reached before node joined. The attempt to join the swarm will \
                 continue in the background. Use the \"docker info\" command to see the current \
                 swarm status of your node.",
            ));
        }
        Ok(())
    }

    /// What it will be, but for what the cluster gives it. The listener of managers is bound for
    /// it, whatever the token turns out to be for.
    fn candidate(&self, addresses: Addresses) -> Result<Identity, ApiError> {
        Ok(Identity {
            cluster: cluster::id::ClusterId(0),
            node: NodeId(0),
            raft_id: Some(0),
            log_of: None,
            advertise: addresses.advertise,
            data_path: addresses.data_path,
            listen: addresses.listen,
            gossip_port: self.config.gossip_port,
            managers: Vec::new(),
            generation: 1,
            cluster_address: Some(addresses.cluster),
            flags: self.address_flags()?,
        })
    }
}

/// Asks one manager after the other, following referrals to the leader.
async fn admitted(admission: &Admission, call: &JoinCall) -> Result<JoinAnswer, ApiError> {
    let tls =
        verify::joining(admission.token.ca_digest).map_err(|e| ApiError::internal(chain(&e)))?;
    let net = Net::new(tls);
    let body = wire::encode(call).map_err(|e| ApiError::internal(e.to_string()))?;
    let mut candidates: Vec<SocketAddr> = admission.managers.clone();
    let mut last = ApiError::unavailable("no manager was asked");
    for _ in 0..REFERRALS_MAX {
        let Some(address) = candidates.first().copied() else { break };
        candidates.remove(0);
        match ask(&net, address, body.clone()).await {
            Ok(Asked::Admitted(answer)) => return Ok(*answer),
            Ok(Asked::Referred(leader)) => candidates.insert(0, leader),
            Err(Refused::Final(error)) => return Err(error),
            Err(Refused::TryNext(error)) => last = error,
        }
    }
    Err(last)
}

enum Asked {
    Admitted(Box<JoinAnswer>),
    Referred(SocketAddr),
}

enum Refused {
    Final(ApiError),
    TryNext(ApiError),
}

async fn ask(net: &Net, address: SocketAddr, body: Bytes) -> Result<Asked, Refused> {
    match net.call(address, Lane::Control, "/join", body, JOIN_LIMIT).await {
        Ok(bytes) => wire::decode(&bytes)
            .map(|answer| Asked::Admitted(Box::new(answer)))
            .map_err(|e| Refused::Final(ApiError::internal(e.to_string()))),
        Err(CallError::Refused { status: NOT_LEADER, body, .. }) => {
            let hint = wire::decode::<NotLeader>(&body).ok().and_then(|hint| hint.leader);
            hint.map(Asked::Referred).ok_or_else(|| {
                Refused::TryNext(ApiError::unavailable(format!(
                    "manager {address} knows no leader: make sure that most managers are online"
                )))
            })
        }
        Err(CallError::Refused { status, message, .. }) => {
            Err(Refused::Final(ApiError::new(status, message)))
        }
        Err(CallError::Connect { reason, .. }) if reason.contains(verify::WRONG_CA) => {
            Err(Refused::Final(ApiError::bad_request(format!(
                "manager {address} is not of the cluster that the join token is for: {}; get the \
                 token from a manager of that cluster",
                verify::WRONG_CA
            ))))
        }
        // Another manager's certificate may be valid.
        Err(CallError::Connect { reason, .. }) if reason.contains(verify::WRONG_CLOCK) => {
            Err(Refused::TryNext(ApiError::bad_request(format!(
                "manager {address}: {}, {}: set this node's clock, or that manager's, and join \
                 again",
                verify::WRONG_CLOCK,
                time::OffsetDateTime::from(crate::clock::wall())
            ))))
        }
        Err(error) => Err(Refused::TryNext(ApiError::unavailable(error.to_string()))),
    }
}
