//! Creating the cluster and changing its spec and tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::size::{self, CLUSTER_BYTES_MAX};
use super::{ca, check_version, network, node};
use crate::draft::Draft;
use crate::ipam;
use crate::log_driver::LogDriver;
use crate::net::Subnet;
use crate::object::{Cluster, KeyTurn, UnlockKey, newest_schema};
use crate::rejection::{Code, Rejection};
use crate::request::{Answer, InitCluster, UpdateCluster};
use crate::spec::{CERTIFICATE_MS_MAX, CERTIFICATE_MS_MIN, ClusterSpec, NetworkSpec};
use crate::transaction::Object;

/// Docker's default pool.
const POOL: (IpAddr, u8) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 0)), 8);
/// Docker's default size of a subnet that is taken from a pool.
const SUBNET_SIZE: u8 = 24;
/// IANA's port for VXLAN, RFC 7348.
const DATA_PATH_PORT: u16 = 4789;
/// Docker refuses ports below and above (`--data-path-port`).
const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1024..=49151;

pub(super) fn init(draft: &mut Draft<'_>, init: &InitCluster) -> Result<Answer, Rejection> {
    if draft.state().cluster.is_some() {
        return Err(Rejection::new(
            Code::Unavailable,
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm \
             and join another one.",
        ));
    }
    let port = if init.data_path_port == 0 { DATA_PATH_PORT } else { init.data_path_port };
    if !DATA_PATH_PORTS.contains(&port) {
        return Err(Rejection::invalid(format!(
            "invalid data path port {port}: give one from {} to {}",
            DATA_PATH_PORTS.start(),
            DATA_PATH_PORTS.end()
        )));
    }
    let (pools, subnet_size) = pools(init)?;
    let cluster = Cluster {
        id: init.id,
        meta: draft.new_meta(),
        spec: with_name(&init.spec)?,
        ca_certificate: init.ca_certificate.clone(),
        ca_key: init.ca_key.clone(),
        worker_token: init.worker_token.clone(),
        manager_token: init.manager_token.clone(),
        gossip_keys: init.gossip_keys.clone(),
        address_pools: pools,
        subnet_size,
        data_path_port: port,
        removed: BTreeMap::new(),
        certificate_ms_max: 0,
        key_turn: KeyTurn::Done,
        key_made_at: draft.now(),
        schema: newest_schema(),
        unlock_key: lock(&init.spec, None, init.unlock_key.as_ref(), false)?,
        ca: None,
        ca_rotation: None,
    };
    draft.put(Object::Cluster(Arc::new(cluster)));
    // The node first: the ingress network must not overlap its routes.
    let answer = node::join(draft, &init.node)?;
    let ingress = NetworkSpec {
        name: "ingress".to_owned(),
        driver: network::DRIVER.to_owned(),
        ingress: true,
        ..NetworkSpec::default()
    };
    network::create(draft, &ingress)?;
    Ok(answer)
}

pub(super) fn update(draft: &mut Draft<'_>, update: &UpdateCluster) -> Result<Answer, Rejection> {
    let Some(cluster) = &draft.state().cluster else {
        return Err(Rejection::new(Code::Unavailable, super::NOT_A_MANAGER));
    };
    check_version("the cluster", cluster.meta.version, update.version)?;
    let mut cluster = Cluster::clone(cluster);
    cluster.certificate_ms_max = cluster.longest_certificate_ms();
    cluster.spec = with_name(&update.spec)?;
    if let Some(token) = &update.worker_token {
        cluster.worker_token.clone_from(token);
    }
    if let Some(token) = &update.manager_token {
        cluster.manager_token.clone_from(token);
    }
    let (old, fresh) = (cluster.unlock_key.take(), update.unlock_key.as_ref());
    cluster.unlock_key = lock(&cluster.spec, old, fresh, update.rotate_unlock_key)?;
    if let Some(change) = &update.ca {
        ca::change(&mut cluster, change, draft.now());
    }
    draft.put(Object::Cluster(Arc::new(cluster)));
    Ok(Answer::Done)
}

/// What managers are locked with from now on.
fn lock(
    spec: &ClusterSpec,
    old: Option<UnlockKey>,
    fresh: Option<&UnlockKey>,
    rotate: bool,
) -> Result<Option<UnlockKey>, Rejection> {
    if !spec.locks_managers() {
        return Ok(None);
    }
    match old.filter(|_| !rotate).or_else(|| fresh.cloned()) {
        Some(key) => Ok(Some(key)),
        None => Err(Rejection::invalid("no unlock key was drawn for autolock")),
    }
}

/// The cluster's one name is `default`, in Docker too.
fn with_name(spec: &ClusterSpec) -> Result<ClusterSpec, Rejection> {
    if !["", "default"].contains(&spec.name.as_str()) {
        return Err(Rejection::invalid(format!(
            "swarm spec must be named \"default\", not \"{}\"",
            spec.name
        )));
    }
    spec.check_ca()?;
    check_log_driver(spec)?;
    size::check("the spec of the cluster", spec, CLUSTER_BYTES_MAX)?;
    let expiry = spec.certificate_ms();
    if !(CERTIFICATE_MS_MIN..=CERTIFICATE_MS_MAX).contains(&expiry) {
        return Err(Rejection::invalid(format!(
            "certificate expiry of {} s: give at least 1h, and 10 years at most",
            expiry / 1000
        )));
    }
    Ok(ClusterSpec { name: "default".to_owned(), ..spec.clone() })
}

/// Nobody is warned of an option without effect here: it is refused.
fn check_log_driver(spec: &ClusterSpec) -> Result<(), Rejection> {
    let wrong = |reason: &dyn fmt::Display| format!("TaskDefaults.LogDriver: {reason}");
    let driver = spec.log_driver().map_err(|error| Rejection::invalid(wrong(&error)))?;
    let Some(driver) = driver else { return Ok(()) };
    let checked = LogDriver::check(&driver)
        .map_err(|rejection| Rejection::new(rejection.code, wrong(&rejection)))?;
    match checked.warnings.first() {
        None => Ok(()),
        Some(warning) => Err(Rejection::new(Code::Unimplemented, wrong(warning))),
    }
}

fn pools(init: &InitCluster) -> Result<(Vec<Subnet>, u8), Rejection> {
    let size = if init.subnet_size == 0 { SUBNET_SIZE } else { init.subnet_size };
    let mut pools = init.address_pools.clone();
    if pools.is_empty() {
        let (address, length) = POOL;
        pools.extend(Subnet::holding(address, length).ok());
    }
    for (at, pool) in pools.iter().enumerate() {
        let IpNet::V4(_) = pool.net() else {
            return Err(Rejection::new(
                Code::Unimplemented,
                format!(
                    "address pool {pool} is IPv6, which is not supported yet: give an IPv4 one"
                ),
            ));
        };
        if !(pool.prefix_len()..=ipam::PREFIX_LEN_MAX).contains(&size) {
            return Err(Rejection::invalid(format!(
                "invalid mask length {size} for address pool {pool}: give one from {} to {}",
                pool.prefix_len(),
                ipam::PREFIX_LEN_MAX
            )));
        }
        if let Some(other) = pools[..at].iter().find(|other| other.overlaps(pool)) {
            return Err(Rejection::invalid(format!(
                "address pool {pool} overlaps address pool {other}: leave one out"
            )));
        }
    }
    Ok((pools, size))
}
