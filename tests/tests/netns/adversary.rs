//! Access that must be denied is denied: to a host without a certificate, to the holder of a
//! worker's token or of a stolen worker's certificate, and to removed nodes, against real daemons.
//! The calls are made with the daemon's own client, from a host outside the cluster.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::Lab;
use lab::cluster::{list, text};
use lab::scenario::Check;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use skein::key_file::KeyFile;
use skein::pki::{self, Credentials, Tls, Token, verify};
use skein::transport::access::{Callers, ROUTES};
use skein::transport::{CallError, Lane, Net};
use skein::wire::{self, JoinAnswer};
use tests::bench::sandbox::in_namespace;

use crate::stage::{Stage, outside};

mod flood;
mod rows;

const MANAGERS: usize = 4;
const WORKER: usize = 4;
pub(crate) const CLUSTER_PORT: u16 = 2377;
const GOSSIP_PORT: u16 = 7946;
const CALL_MAX: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(20);
/// More than a daemon may open by the usual soft limit.
const IDLE_CONNECTIONS: usize = 1100;
/// What such a flood may add to a daemon's log.
const LINES_MAX: usize = 20;

const CHECKS: &[Check] = &[
    ("a host without a certificate is let into nothing", nobody),
    ("a join is short, or it is not read", long_join),
    ("a worker's token makes a new worker, whichever node it names", token_of_a_worker),
    ("idle connections keep no member out and fill no log", idle_connections),
    ("a stolen worker's certificate opens no manager's route", stolen_worker),
    ("a worker that was removed is out at once", removed_worker),
    ("a manager whose key is stolen is removed while it runs", removed_running_manager),
    ("a manager that is lost is removed, and is out at once", removed_manager),
];

/// Goal: every route is for whom the table names, on every listener. Method: all of them, as each
/// kind of caller.
#[test]
fn strangers_get_nothing() {
    let mut stage = Stage::cluster("adversary", 5, MANAGERS);
    stage.check(CHECKS);
}

/// Posts to a node from the host outside the cluster; gives the status and the answer.
pub(crate) fn post(
    lab: &Lab,
    tls: &std::sync::Arc<rustls::ClientConfig>,
    to: SocketAddr,
    path: &str,
    body: &[u8],
) -> Result<(u16, Vec<u8>)> {
    in_namespace(&outside(lab), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (net, body) = (Net::new(tls.clone()), body.to_vec().into());
            match net.call(to, Lane::Control, path, body, CALL_MAX).await {
                Ok(answer) => Ok((200, answer.to_vec())),
                Err(CallError::Refused { status, body, .. }) => Ok((status, body.to_vec())),
                Err(error) => Err(error).with_context(|| format!("calling {path} of {to}")),
            }
        })
    })
}

fn port_of(path: &str) -> u16 {
    let node = path.starts_with("/gossip/") || path.starts_with("/node/");
    if node { GOSSIP_PORT } else { CLUSTER_PORT }
}

/// Calls every route of the first node with an invalid body, and compares the statuses.
/// `allowed` says which routes let the caller in; its call then fails for its body.
pub(crate) fn call_all(
    lab: &Lab,
    tls: &std::sync::Arc<rustls::ClientConfig>,
    refused: u16,
    allowed: impl Fn(Callers) -> bool,
) -> Result<()> {
    for (route, callers) in ROUTES {
        let path = route.replace("{class}", "append");
        // It acts without a body.
        if path == "/session/leave" && allowed(callers) {
            continue;
        }
        let to = SocketAddr::new(lab.nodes[0].address.into(), port_of(&path));
        let (status, said) = post(lab, tls, to, &path, b"nothing")?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let expected = match callers {
            Callers::Anyone => status == 400,
            callers if allowed(callers) => ![401, 403, 410].contains(&status),
            Callers::Members | Callers::Managers => status == refused,
        };
        ensure!(expected, "{path} answers {status}: {said}");
    }
    Ok(())
}

fn without_certificate(lab: &Lab) -> Result<std::sync::Arc<rustls::ClientConfig>> {
    let token = lab.nodes[0].docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
    Ok(verify::joining(token.parse::<Token>()?.ca_digest)?)
}

fn nobody(lab: &mut Lab) -> Result<()> {
    call_all(lab, &without_certificate(lab)?, 401, |_callers| false)
}

fn long_join(lab: &mut Lab) -> Result<()> {
    let to = SocketAddr::new(lab.nodes[0].address.into(), CLUSTER_PORT);
    let (status, said) = post(lab, &without_certificate(lab)?, to, "/join", &[b'x'; 20 << 10])?;
    ensure!(status == 413, "{status}: {}", String::from_utf8_lossy(&said));
    Ok(())
}

/// The certificate and key that lie on a node's disk.
pub(crate) fn stolen(lab: &Lab, index: usize) -> Result<std::sync::Arc<rustls::ClientConfig>> {
    let file = lab.nodes[index].data_dir().join("certs/node.json");
    let credentials = KeyFile::at(file).load()?.context("no keys there")?;
    Ok(Tls::new(&credentials)?.client)
}

/// Joins as a program of one's own may: with a manager's id and Raft id in the call.
fn token_of_a_worker(lab: &mut Lab) -> Result<()> {
    let token = lab.nodes[0].docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
    let manager = lab.nodes[1].cluster_id()?;
    let described = lab.nodes[0].get(&format!("/nodes/{manager}"))?;
    let (key, request) = pki::new_request()?;
    let address = lab.client_address();
    let call = json!({
        "token": token, "request": request, "node": manager, "raft_id": 1, "role": "manager",
        "cluster_address": SocketAddr::new(address.into(), CLUSTER_PORT),
        "availability": "pause",
        "description": {
            "hostname": "outsider", "os": "linux", "architecture": "x86_64", "nano_cpus": 1,
            "memory_bytes": 1, "engine_version": "0", "gossip": format!("{address}:{GOSSIP_PORT}"),
            "vtep": address, "routes": [], "balancer": "nft", "executors": [],
        },
    });
    let to = SocketAddr::new(lab.nodes[0].address.into(), CLUSTER_PORT);
    let body = wire::encode(&call)?;
    let (status, said) = post(lab, &without_certificate(lab)?, to, "/join", &body)?;
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&said));
    let answer: JoinAnswer = wire::decode(&said)?;
    ensure!(answer.node.to_string() != manager, "it was given the identity of a manager");
    ensure!(answer.role == cluster::spec::Role::Worker && answer.raft_id.is_none(), "{answer:?}");
    let after = lab.nodes[0].get(&format!("/nodes/{manager}"))?;
    for part in ["Spec", "Description", "ManagerStatus"] {
        ensure!(after[part] == described[part], "{part} of a manager has changed: {after}");
    }
    let credentials = Credentials { ca: answer.ca, certificate: answer.certificate, key };
    let tls = Tls::new(&credentials)?.client;
    call_all(lab, &tls, 403, |callers| callers == Callers::Members)?;
    let id = answer.node.to_string();
    lab.nodes[0].docker(&["node", "rm", "--force", &id])?.ok()?;
    call_all(lab, &tls, 410, |_callers| false)
}

fn idle_connections(lab: &mut Lab) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let address = IpAddr::from(lab.nodes[0].address);
    let lines = |lab: &Lab| lab.nodes[0].log().lines().count();
    let before = lines(lab);
    let idle: Vec<TcpStream> = in_namespace(&outside(lab), || {
        let connect = |_| Ok(TcpStream::connect((address, CLUSTER_PORT))?);
        (0..IDLE_CONNECTIONS).map(connect).collect()
    })?;
    // A member comes back with new connections, and a new one joins.
    lab.nodes[WORKER].kill_daemon()?;
    lab.nodes[WORKER].start()?;
    lab.wait_nodes_ready(5)?;
    lab.nodes[1].docker(&["network", "create", "-d", "overlay", "meanwhile"])?.ok()?;
    let told = post(lab, &without_certificate(lab)?, (address, CLUSTER_PORT).into(), "/join", b"")?;
    ensure!(told.0 == 400, "a joiner is told {told:?}");
    let more = lines(lab).saturating_sub(before);
    ensure!(more <= LINES_MAX, "{more} lines were logged");
    drop(idle);
    Ok(())
}

fn stolen_worker(lab: &mut Lab) -> Result<()> {
    let tls = stolen(lab, WORKER)?;
    call_all(lab, &tls, 403, |callers| callers == Callers::Members)
}

pub(crate) fn wait_down(lab: &Lab, id: &str) -> Result<()> {
    lab.wait_for(SOON, "the node to be listed as down", || {
        let state = text(&lab.nodes[0].get(&format!("/nodes/{id}"))?["Status"]["State"]);
        ensure!(state == "down", "it is {state}");
        Ok(())
    })
}

fn removed_worker(lab: &mut Lab) -> Result<()> {
    let (id, tls) = (lab.nodes[WORKER].cluster_id()?, stolen(lab, WORKER)?);
    // Another node was removed before: its turn of the key may be under way.
    let before = lab.wait_for(SOON, "one key of gossip", || one_key(lab))?;
    // It runs, and goes on to call.
    lab.nodes[0].docker(&["node", "rm", "--force", &id])?.ok()?;
    call_all(lab, &tls, 410, |_callers| false)?;
    lab.wait_for(SOON, "another key of gossip", || {
        let now = one_key(lab)?;
        ensure!(now != before, "{now} seals still");
        Ok(())
    })?;
    // With it the members hear each other, as before.
    lab.wait_nodes_ready(MANAGERS)
}

/// The key that seals gossip, where all managers know that one and no other.
fn one_key(lab: &Lab) -> Result<Value> {
    let keys = |node: &lab::Node| Ok(node.get("/skein/v1/gossip")?["keys"].clone());
    let keys: Vec<Value> = lab.nodes[..MANAGERS].iter().map(keys).collect::<Result<_>>()?;
    let is_one = list(&keys[0]).count() == 1 && keys.iter().all(|other| *other == keys[0]);
    ensure!(is_one, "{keys:?}");
    Ok(keys[0].clone())
}

/// An attacker with its key keeps the node ready by sending reports: it need not be down.
fn removed_running_manager(lab: &mut Lab) -> Result<()> {
    let (id, tls) = (lab.nodes[3].cluster_id()?, stolen(lab, 3)?);
    lab.nodes[0].docker(&["node", "rm", "--force", &id])?.ok()?;
    call_all(lab, &tls, 410, |_callers| false)?;
    voters_are(lab, 3)?;
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", "without"])?.ok()?;
    Ok(())
}

fn removed_manager(lab: &mut Lab) -> Result<()> {
    let (id, tls) = (lab.nodes[2].cluster_id()?, stolen(lab, 2)?);
    let refused = lab.nodes[0].docker(&["node", "rm", &id])?.refused()?;
    ensure!(refused.contains("demoted to worker before removal"), "{refused}");
    lab.nodes[2].kill_machine()?;
    wait_down(lab, &id)?;
    lab.nodes[0].docker(&["node", "rm", "--force", &id])?.ok()?;
    call_all(lab, &tls, 410, |_callers| false)?;
    let nodes = lab.nodes[0].get("/nodes")?;
    ensure!(list(&nodes).count() == 2, "{nodes}");
    voters_are(lab, 2)?;
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", "after"])?.ok()?;
    Ok(())
}

/// Waits until Raft has so many voters: two that are left go on when one more is lost only if they
/// are all that count.
fn voters_are(lab: &Lab, count: usize) -> Result<()> {
    lab.wait_for(SOON, &format!("{count} voters"), || {
        let told = lab.nodes[0].get("/skein/v1/debug/raft")?;
        let voters = list(&told["voters"]).count();
        match voters == count {
            true => Ok(()),
            false => bail!("{}", Value::to_string(&told)),
        }
    })
}
