//! `Swarm`, `ClusterInfo` and `SwarmSpec` of the Engine API.

use std::collections::BTreeMap;

use cluster::object::{CaDigest, Cluster, Node};
use cluster::spec::ClusterSpec;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::certificate::parse_certificate;
use super::{Version, rfc3339};
use crate::error::ApiError;

/// `TLSInfo`: whom the nodes trust.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TlsInfo {
    trust_root: String,
    cert_issuer_subject: String,
    cert_issuer_public_key: String,
}

impl TlsInfo {
    /// Of the cluster: the CA that is trusted, and the one that signs, which is to be trusted next.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let rotation = cluster.ca_rotation.as_ref();
        let issuer = rotation.map_or(&cluster.ca_certificate, |new| &new.certificate);
        Self::new(cluster.ca_certificate.clone(), Some(issuer))
    }

    /// Of a node, as it says; where no CA was ever rotated there is but one.
    pub(crate) fn of_node(cluster: &Cluster, node: &Node) -> Self {
        let rotation = cluster.ca_rotation.as_ref();
        let (old, new) = (&cluster.ca_certificate, rotation.map(|new| (new.to, &new.certificate)));
        let Some(present) = rotation.map(|new| new.from).or(cluster.ca) else {
            return Self::of(cluster);
        };
        let known: BTreeMap<CaDigest, &String> = new.into_iter().chain([(present, old)]).collect();
        let Some(trust) = &node.description.trust else { return Self::default() };
        // One that the state has forgotten cannot be shown, and the rest would not be the truth.
        let roots = trust.roots.iter().map(|root| known.get(root).map(|root| root.as_str()));
        let roots: Option<String> = roots.collect();
        Self::new(roots.unwrap_or_default(), known.get(&trust.issuer).copied())
    }

    /// A CA's certificate is self-signed, so its subject is the issuer of all others.
    fn new(trust_root: String, issuer: Option<&String>) -> Self {
        let (cert_issuer_subject, cert_issuer_public_key) = issuer
            .and_then(|issuer| parse_certificate(issuer))
            .map(|parts| (parts.subject, parts.public_key))
            .unwrap_or_default();
        Self { trust_root, cert_issuer_subject, cert_issuer_public_key }
    }
}

/// `ClusterInfo`, and with tokens `Swarm`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ClusterView {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    spec: Value,
    #[serde(rename = "TLSInfo")]
    tls_info: TlsInfo,
    root_rotation_in_progress: bool,
    default_addr_pool: Vec<String>,
    subnet_size: u8,
    data_path_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_tokens: Option<JoinTokens>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct JoinTokens {
    worker: String,
    manager: String,
}

/// `GET /swarm`: with the join tokens.
pub(crate) fn swarm(cluster: &Cluster) -> ClusterView {
    let tokens =
        JoinTokens { worker: cluster.worker_token.clone(), manager: cluster.manager_token.clone() };
    ClusterView { join_tokens: Some(tokens), ..cluster_info(cluster) }
}

/// `Swarm.Cluster` of `GET /info`: without them.
pub(crate) fn cluster_info(cluster: &Cluster) -> ClusterView {
    ClusterView {
        id: cluster.id.to_string(),
        version: cluster.meta.into(),
        created_at: rfc3339(cluster.meta.created_at),
        updated_at: rfc3339(cluster.meta.updated_at),
        spec: spec_with_defaults(&cluster.spec),
        tls_info: TlsInfo::of(cluster),
        root_rotation_in_progress: cluster.ca_rotation.is_some(),
        default_addr_pool: cluster.address_pools.iter().map(ToString::to_string).collect(),
        subnet_size: cluster.subnet_size,
        data_path_port: cluster.data_path_port,
        join_tokens: None,
    }
}

/// The spec with Docker's defaults where it is unset or zero, since clients print what they read.
fn spec_with_defaults(spec: &ClusterSpec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    fill(&mut value, &default_spec());
    // Zero is a limit that users set, so only an absent one is the default.
    let history = spec.orchestration.task_history_retention_limit.unwrap_or(DEFAULT_TASK_HISTORY);
    value["Orchestration"] = json!({ "TaskHistoryRetentionLimit": history });
    // What older versions kept and never acted on.
    if let Some(ca) = value.get_mut("CAConfig").and_then(Value::as_object_mut) {
        for ignored in ["SigningCACert", "SigningCAKey", "ExternalCAs"] {
            ca.remove(ignored);
        }
    }
    value
}

/// Docker's defaults (swarmkit `defaultClusterObject`, as `docker info` prints them).
fn default_spec() -> Value {
    json!({
        "Name": "default",
        "Labels": {},
        "Raft": {
            "SnapshotInterval": 10_000,
            "KeepOldSnapshots": 0,
            "LogEntriesForSlowFollowers": 500,
            "ElectionTick": 10,
            "HeartbeatTick": 1,
        },
        "Dispatcher": { "HeartbeatPeriod": 5_000_000_000_u64 },
        "CAConfig": { "NodeCertExpiry": 7_776_000_000_000_000_u64 },
        "TaskDefaults": {},
        "EncryptionConfig": { "AutoLockManagers": false },
    })
}

/// Settings of swarmkit's own Raft and dispatcher: Skein's are fixed, and shown as these. Of the
/// defaults of tasks there is the log driver alone.
const FIXED: [&str; 3] = ["Raft", "Dispatcher", "TaskDefaults"];

/// Refuses what a cluster is asked for and would not do.
pub(crate) fn check_fixed(spec: &ClusterSpec) -> Result<(), ApiError> {
    let defaults = default_spec();
    for part in FIXED {
        let given = spec.extra.get(part).and_then(Value::as_object);
        for (name, value) in given.into_iter().flatten() {
            if (part, name.as_str()) == ("TaskDefaults", "LogDriver") {
                continue;
            }
            let default = &defaults[part][name];
            if !is_unset(value) && value != default && !is_empty_object(value) {
                let at =
                    if default.is_null() { String::new() } else { format!(", or at {default}") };
                return Err(ApiError::not_implemented(format!(
                    "{part}.{name} {value} is not supported by Skein: leave it out{at}"
                )));
            }
        }
    }
    Ok(())
}

fn is_empty_object(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

/// Docker's default for ended tasks kept per slot.
const DEFAULT_TASK_HISTORY: u64 = 5;

fn fill(value: &mut Value, default: &Value) {
    let Value::Object(defaults) = default else {
        if is_unset(value) {
            *value = default.clone();
        }
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if let Value::Object(map) = value {
        for (key, default) in defaults {
            fill(map.entry(key).or_insert(Value::Null), default);
        }
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}
