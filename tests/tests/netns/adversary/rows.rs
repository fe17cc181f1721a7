//! An attacker has a worker's certificate, its key and the gossip keys, and forges statements of
//! another node. It runs the daemon's own gossip under the other node's id, against a puppet that
//! accepts it, and sends the resulting messages to the real nodes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster::assign::Kept;
use cluster::assignment::Assignment;
use cluster::id::NodeId;
use cluster::net::MacAddr;
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, VtepRow};
use gossip::proof::GENERATION_MAX;
use gossip::{Config, Engine, Input, Keyring, Output, Peer, ProofSecret};
use lab::Lab;
use lab::cluster::list;
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::services::{make_network, serve_client_and_echo};
use serde_json::Value;
use skein::key_file::KeyFile;
use skein::member::proof_secret;
use tests::bench::sandbox::in_namespace;

use super::{GOSSIP_PORT, SOON, post, stolen};
use crate::divergence::metric;
use crate::stage::{Stage, outside};

const NODES: usize = 3;
/// Whose certificate is stolen.
const THIEF: usize = 2;
/// Of whom lies are told.
const VICTIM: usize = 1;
/// Far above what any node of a lab comes to.
const FAR: u64 = 1 << 20;
/// How long the puppet is talked to, in virtual time: probes, pushes, and a comparison of tables.
const TALK: Duration = Duration::from_secs(15);

const CHECKS: &[Check] = &[
    ("a network is made", make_network),
    ("services run", serve_client_and_echo),
    ("every client reaches every replica", all_answer),
    ("what a thief says of another node is refused and counted", lies),
    ("every client reaches every replica still", all_answer),
    ("endpoints that come and go are told as before", changes_go_on),
    ("with a node's own key it shuts out that node, which says so", own_lies),
    ("removed and joined again that node is one as before", joins_again),
];

/// Goal: no member takes another one's traffic. Method: rows, runs and addresses of another node,
/// sealed and posted by a member, to every node.
#[test]
fn nobody_speaks_for_another_node() {
    let mut stage = Stage::cluster("forger", NODES, 1);
    stage.check(CHECKS);
}

fn all_answer(lab: &mut Lab) -> Result<()> {
    wait_all_answer(lab, 3, 3)
}

fn changes_go_on(lab: &mut Lab) -> Result<()> {
    lab.nodes[0].docker(&["service", "scale", "-d", "echo=5"])?.ok()?;
    wait_all_answer(lab, 3, 5)
}

/// What the attacker sends.
#[derive(Default)]
struct Forgeries {
    datagrams: Vec<Vec<u8>>,
    posts: Vec<Vec<u8>>,
}

/// An engine of a node that runs in no network.
struct FakeNode {
    node: NodeId,
    address: SocketAddr,
    engine: Engine,
}

impl FakeNode {
    fn new(
        assignment: &Assignment,
        node: NodeId,
        address: SocketAddr,
        generation: u64,
        secret: &ProofSecret,
    ) -> Result<Self> {
        let keys = &assignment.gossip_keys;
        let primary = keys.first().context("the assignment has no gossip key")?.id;
        let ring = Keyring::new(primary, &keys.iter().map(|key| (key.id, key.key)).collect())?;
        let cluster = assignment.cluster;
        let config = Config::lan(node, cluster, address, generation, 7, secret.clone());
        Ok(Self { node, address, engine: Engine::new(config, ring, Duration::ZERO) })
    }

    fn meet(&mut self, other: &Self, secret: &ProofSecret) -> Vec<Output> {
        let peer = Peer { address: other.address, key: Some(secret.key()) };
        self.engine.step(Input::Peers([(other.node, peer)].into()), Duration::ZERO)
    }
}

/// Lets the two talk, and keeps what the first one sends.
fn overhear(
    liar: &mut FakeNode,
    puppet: &mut FakeNode,
    mut waiting: Vec<(bool, Output)>,
) -> Forgeries {
    let mut lies = Forgeries::default();
    let mut now = Duration::ZERO;
    while now < TALK {
        while let Some((by_liar, output)) = waiting.pop() {
            let (from, to) =
                if by_liar { (&mut *liar, &mut *puppet) } else { (&mut *puppet, &mut *liar) };
            match output {
                Output::Send { bytes, .. } => {
                    if by_liar {
                        lies.datagrams.push(bytes.to_vec());
                    }
                    let outputs = to.engine.step(Input::Datagram(bytes), now);
                    waiting.extend(outputs.into_iter().map(|output| (!by_liar, output)));
                }
                Output::Sync { peer, bytes, .. } => {
                    if by_liar {
                        lies.posts.push(bytes.to_vec());
                    }
                    for output in to.engine.step(Input::SyncRequest { token: 1, bytes }, now) {
                        match output {
                            Output::SyncReply { bytes, .. } => {
                                let answer = Input::SyncAnswer { peer, result: Ok(bytes) };
                                let outputs = from.engine.step(answer, now);
                                waiting.extend(outputs.into_iter().map(|output| (by_liar, output)));
                            }
                            output => waiting.push((!by_liar, output)),
                        }
                    }
                }
                Output::SyncReply { .. } | Output::ViewChanged => {}
            }
        }
        let next = [&*liar, &*puppet].map(|talker| talker.engine.next_deadline());
        now = next.into_iter().flatten().min().unwrap_or(TALK).max(now);
        for (by_liar, talker) in [(true, &mut *liar), (false, &mut *puppet)] {
            if talker.engine.next_deadline().is_some_and(|at| at <= now) {
                let outputs = talker.engine.step(Input::Timer, now);
                waiting.extend(outputs.into_iter().map(|output| (by_liar, output)));
            }
        }
    }
    lies
}

/// What a run of the first node would say to the second one that has its tasks elsewhere.
fn of_run(
    assignment: &Assignment,
    (victim, told): (NodeId, NodeId),
    outsider: SocketAddr,
    generation: u64,
    secret: &ProofSecret,
) -> Result<Forgeries> {
    let listed = |node: &NodeId| assignment.nodes.get(node).context("a node is not listed");
    let (at, to) = (listed(&victim)?.gossip, listed(&told)?.gossip);
    let mut lies = Forgeries::default();
    // Where the managers say that it is, and elsewhere.
    for address in [at, outsider] {
        let mut liar = FakeNode::new(assignment, victim, address, generation, secret)?;
        let mut puppet = FakeNode::new(assignment, told, to, 1, secret)?;
        let mut first: Vec<(bool, Output)> = Vec::new();
        first.extend(puppet.meet(&liar, secret).into_iter().map(|output| (false, output)));
        first.extend(liar.meet(&puppet, secret).into_iter().map(|output| (true, output)));
        let own = said(assignment, victim, outsider);
        first.extend(liar.engine.step(own, Duration::ZERO).into_iter().map(|o| (true, o)));
        let heard = overhear(&mut liar, &mut puppet, first);
        let believed = puppet.engine.view();
        ensure!(believed.is_alive(victim) && !believed.endpoints.is_empty(), "{believed:?}");
        lies.datagrams.extend(heard.datagrams);
        lies.posts.extend(heard.posts);
    }
    Ok(lies)
}

/// Every task of the victim is where the outsider is, and so is the victim.
fn said(assignment: &Assignment, victim: NodeId, outsider: SocketAddr) -> Input {
    let of_victim = assignment.tasks.iter().filter(|(_, task)| task.node == victim);
    let mut endpoints: BTreeMap<EndpointKey, EndpointRow> = of_victim
        .flat_map(|(id, task)| task.attachments.iter().map(|held| (*id, held.network)))
        .map(|(id, network)| {
            let key = EndpointKey { network, owner: EndpointOwner::Task(id) };
            (key, elsewhere(victim, outsider))
        })
        .collect();
    for network in assignment.networks.keys() {
        let key = EndpointKey { network: *network, owner: EndpointOwner::Node(victim) };
        endpoints.insert(key, elsewhere(victim, outsider));
    }
    Input::Own { endpoints, vtep: VtepRow { address: outsider.ip() } }
}

fn elsewhere(node: NodeId, outsider: SocketAddr) -> EndpointRow {
    EndpointRow {
        node,
        addresses: outsider.ip().into(),
        mac: MacAddr([2, 6, 6, 6, 6, 6]),
        condition: Condition::Ready,
        revision: Revision(u64::MAX),
    }
}

fn read<T: serde::de::DeserializeOwned>(lab: &Lab, file: &str) -> Result<T> {
    let path = lab.nodes[THIEF].data_dir().join(file);
    let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))
}

/// What is on the thief's disk, as gossip needs it.
fn stolen_words(lab: &Lab) -> Result<(Assignment, ProofSecret)> {
    let file = lab.nodes[THIEF].data_dir().join("certs/node.json");
    let credentials = KeyFile::at(file).load()?.context("no keys there")?;
    let kept: Kept = read(lab, "worker/assignment.json")?;
    Ok((kept.assignment(), proof_secret(&credentials.key)?))
}

/// Tells a node all of it, in datagrams and by posts.
fn tell(lab: &Lab, index: usize, tls: &Arc<rustls::ClientConfig>, lies: &Forgeries) -> Result<()> {
    let to = SocketAddr::new(lab.nodes[index].address.into(), GOSSIP_PORT);
    in_namespace(&outside(lab), || {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        for datagram in &lies.datagrams {
            socket.send_to(datagram, to)?;
        }
        Ok(())
    })?;
    for body in &lies.posts {
        post(lab, tls, to, "/gossip/sync", body)?;
    }
    Ok(())
}

fn lies(lab: &mut Lab) -> Result<()> {
    let (assignment, secret) = stolen_words(lab)?;
    let victim: NodeId = lab.nodes[VICTIM].cluster_id()?.parse()?;
    let outsider = SocketAddr::new(lab.client_address().into(), GOSSIP_PORT);
    let tls = stolen(lab, THIEF)?;
    // A greater one the thief's own gossip would not take.
    for generation in [FAR, GENERATION_MAX] {
        for index in 0..NODES {
            // To the victim itself what was made for another one is told.
            let told = if index == VICTIM { THIEF } else { index };
            let told: NodeId = lab.nodes[told].cluster_id()?.parse()?;
            let lies = of_run(&assignment, (victim, told), outsider, generation, &secret)?;
            ensure!(!lies.posts.is_empty() && lies.datagrams.len() > 10, "nothing was said");
            tell(lab, index, &tls, &lies)?;
        }
    }
    for index in 0..NODES {
        lab.wait_for(SOON, "all lies to be refused", || is_unimpressed(lab, index, outsider))?;
    }
    Ok(())
}

/// The thief of this node's key says the last word of it: no later generation counts.
fn own_lies(lab: &mut Lab) -> Result<()> {
    let (assignment, secret) = stolen_words(lab)?;
    let robbed: NodeId = lab.nodes[THIEF].cluster_id()?.parse()?;
    let told: NodeId = lab.nodes[VICTIM].cluster_id()?.parse()?;
    let outsider = SocketAddr::new(lab.client_address().into(), GOSSIP_PORT);
    let tls = stolen(lab, THIEF)?;
    let lies = of_run(&assignment, (robbed, told), outsider, GENERATION_MAX, &secret)?;
    for index in 0..NODES {
        tell(lab, index, &tls, &lies)?;
    }
    let line = "another program has this node's key";
    lab.wait_for(SOON, "the node to find out", || {
        ensure!(lab.nodes[THIEF].log().contains(line), "it has not");
        Ok(())
    })?;
    let counted = metric(lab, THIEF, "skein_gossip_impersonated_total")?;
    ensure!(counted > 0, "it counted nothing");
    for index in [0, VICTIM] {
        let logged = lab.nodes[index].log().contains(line);
        ensure!(!logged && metric(lab, index, "skein_gossip_impersonated_total")? == 0);
    }
    Ok(())
}

fn joins_again(lab: &mut Lab) -> Result<()> {
    let id = lab.nodes[THIEF].cluster_id()?;
    lab.nodes[THIEF].docker(&["swarm", "leave"])?.ok()?;
    lab.nodes[0].docker(&["node", "rm", "--force", &id])?.ok()?;
    lab.join(THIEF, "worker")?;
    lab.wait_nodes_ready(NODES)?;
    wait_all_answer(lab, 3, 5)
}

/// Nothing of what was said is held, it was counted, and all members are where they were.
fn is_unimpressed(lab: &Lab, index: usize, outsider: SocketAddr) -> Result<()> {
    let told = lab.nodes[index].get("/skein/v1/gossip")?;
    let name = &lab.nodes[index].name;
    let rows: Vec<&Value> = list(&told["rows"]).collect();
    ensure!(rows.len() >= NODES, "{name} holds {rows:?}");
    for row in rows {
        let generation = row["version"]["generation"].as_u64().context("a generation")?;
        ensure!(generation < FAR, "{name} holds {row}");
        let said = row.to_string();
        ensure!(!said.contains(&outsider.ip().to_string()), "{name} holds {said}");
    }
    let members: Vec<&Value> = list(&told["members"]).collect();
    ensure!(members.len() == NODES, "{name} knows {members:?}");
    for member in members {
        let said = member.to_string();
        let elsewhere = said.contains(&outsider.ip().to_string());
        ensure!(!elsewhere && said.contains("liveness: Alive"), "{name} knows {said}");
    }
    let forged = told["stats"]["forged"].as_u64().context("a count of forgeries")?;
    ensure!(forged > 0, "{name} counted nothing: {}", told["stats"]);
    let metrics = lab.nodes[index].get("/metrics")?;
    let metrics = metrics.as_str().context("metrics are text")?;
    let counted = metrics.lines().find(|line| line.starts_with("skein_gossip_forged_total "));
    ensure!(counted.is_some_and(|line| !line.ends_with(" 0")), "{name} tells {counted:?}");
    Ok(())
}
