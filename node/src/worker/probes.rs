//! Whether what this host forwards for the cluster gets through: firewalls of other programs are
//! looked for, and this node's published ports are asked for by the way that calls take, from the
//! sandbox of one of its tasks. Besides, its links and routes are followed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use agent::{Facts, Input, LocalTask, Phase};
use cluster::assignment::Assignment;
use cluster::id::{ServiceId, TaskId};
use cluster::object::PublishedPort;
use cluster::spec::{Protocol, PublishMode};
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, View};
use netprog::plane::Place;
use netprog::ports::Port;
use netprog::render::{GWBRIDGE, INGRESS_LINK, published};
use netprog_linux::facts::HostFacts;
use netprog_linux::firewalls::{Blocker, Hook, blockers, legacy};
use netprog_linux::probe::{self, Answer};
use tokio::sync::{mpsc, watch};

use super::programmer::Done;
use super::underlay;
use crate::clock;
use crate::host::widest;
use crate::spaces::Sandboxes;

/// Firewalls are looked for and ports asked this often.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Ports that are asked in one round; the next round goes on with the next ones.
const PORTS_MAX: usize = 16;
/// Rounds without an answer before a port is reported: an endpoint may have gone meanwhile.
const MISSES_MAX: u32 = 2;

/// What is looked at.
pub(super) struct Sources {
    /// What is programmed.
    pub(super) done: watch::Receiver<Done>,
    /// Whose it is.
    pub(super) assignment: watch::Receiver<Option<Arc<Assignment>>>,
    /// Who can answer.
    pub(super) view: watch::Receiver<Arc<View>>,
    /// Who can ask.
    pub(super) tasks: watch::Receiver<BTreeMap<TaskId, LocalTask>>,
    /// Where they ask from.
    pub(super) sandboxes: Sandboxes,
    /// What this machine was like at the start.
    pub(super) facts: Facts,
    /// Who is told what this machine is like.
    pub(super) inbox: mpsc::Sender<Input>,
}

/// Somebody who can ask: a namespace and its address on the egress bridge.
type Asker = (OwnedFd, Ipv4Addr);

/// Looks until it is dropped; what was found last is in `found`.
pub(super) async fn run(sources: Sources, found: watch::Sender<BTreeSet<String>>) {
    let mut misses: BTreeMap<Port, u32> = BTreeMap::new();
    let mut next = 0;
    let mut mtu = sources.facts.underlay_mtu;
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let (asker, all) = (sources.asker(), sources.targets());
        let skipped = next.min(all.len());
        let (later, first) = (all.iter().take(skipped), all.iter().skip(skipped));
        let ports: Vec<Port> = first.chain(later).map(|(port, _)| *port).take(PORTS_MAX).collect();
        next = if all.len() <= PORTS_MAX { 0 } else { (next + PORTS_MAX) % all.len() };
        let host = sources.facts.gwbridge.address(1);
        let doors = sources.doors();
        let looked = tokio::task::spawn_blocking(move || {
            let machine = HostFacts::read();
            let ends = machine.iter().flat_map(|machine| callable(machine, host, &ports)).collect();
            (machine, look(doors), ask(asker, ends))
        })
        .await;
        let Ok((machine, seen, answers)) = looked else { return };
        misses.retain(|port, _| all.contains_key(port) && !answers.is_empty());
        // A reset may be a firewall's.
        let opened = answers.values().any(|answer| *answer == Some(Answer::Open));
        for (port, answer) in answers {
            let missed = misses.entry(port).or_default();
            *missed = if answer.is_some() { 0 } else { *missed + 1 };
        }
        let lost = misses.iter().filter(|(_, missed)| **missed >= MISSES_MAX);
        let lost: BTreeSet<String> =
            lost.filter_map(|(port, _)| Some(lost_line(*port, all.get(port)?))).collect();
        // Calls that come through are the better witness: the chain lets them pass by another rule.
        let proven = opened && misses.values().all(|missed| *missed == 0);
        let peers = sources.hears_peers();
        let blocks = |blocker: &&Blocker| match blocker.hook {
            Hook::Forward => !proven,
            Hook::Input => keeps_out(blocker, doors, peers),
        };
        let blocking = seen.blockers.iter().filter(blocks).map(blocker_line);
        let mut lines: BTreeSet<String> = blocking.chain(lost).chain(seen.unread).collect();
        lines.extend(sources.follow(machine, &mut mtu).await);
        found.send_if_modified(|known| take(known, lines));
    }
}

/// Takes over what was found and tells what is new of it.
fn take(known: &mut BTreeSet<String>, lines: BTreeSet<String>) -> bool {
    lines.difference(known).for_each(|line| tracing::warn!("{line}"));
    known.difference(&lines).for_each(|line| tracing::info!("no more: {line}"));
    let changed = *known != lines;
    *known = lines;
    changed
}

impl Sources {
    /// A task of this node that runs and has a way to the host.
    fn asker(&self) -> Option<Asker> {
        let done = self.done.borrow();
        let has_leg = |id: &TaskId| {
            let mut veths = done.desired.veths.iter();
            veths.any(|pair| pair.inner.0 == Place::Sandbox(*id) && pair.outer.0 == Place::Host)
        };
        let tasks = self.tasks.borrow();
        let mut running = tasks.iter().filter(|(_, task)| task.phase == Phase::Running);
        running.find_map(|(id, task)| match task.egress {
            Some(IpAddr::V4(address)) if has_leg(id) => {
                Some((self.sandboxes.namespace(*id)?, address))
            }
            _ => None,
        })
    }

    /// Tells what this machine is like now; what of it does not fit the networks. Without its link
    /// the underlay has no MTU: it stays what it was.
    async fn follow(&self, machine: io::Result<HostFacts>, mtu: &mut u32) -> BTreeSet<String> {
        let machine = match machine {
            Ok(machine) => machine,
            Err(error) => {
                tracing::warn!(%error, "read links and routes of this machine");
                return BTreeSet::new();
            }
        };
        let underlay_mtu = machine.mtu_of(self.facts.vtep);
        *mtu = underlay_mtu.unwrap_or(*mtu);
        let input = Input::Machine { routes: widest(&machine.routes), underlay_mtu };
        // Without a core there is nobody to tell.
        let _ = self.inbox.send(input).await;
        let assignment = self.assignment.borrow();
        let assignment = assignment.as_deref();
        assignment.map(|known| underlay::misfits(known, &machine, *mtu)).unwrap_or_default()
    }

    /// Ports on which other nodes reach this one.
    fn doors(&self) -> Doors {
        let assignment = self.assignment.borrow();
        let known = assignment.as_deref();
        let own = known.and_then(|known| known.nodes.get(&known.node));
        Doors {
            vxlan: known.map_or(0, |known| known.data_path_port),
            gossip: own.map_or(0, |own| own.gossip.port()),
        }
    }

    /// Whether gossip of another node arrives; `None` if there is no other.
    fn hears_peers(&self) -> Option<bool> {
        let assignment = self.assignment.borrow();
        let known = assignment.as_deref()?;
        let view = self.view.borrow();
        let peers = known.nodes.iter().filter(|(id, node)| **id != known.node && node.up);
        peers.map(|(id, _)| view.is_alive(*id)).reduce(|one, other| one || other)
    }

    /// TCP ports that are published here and somebody answers on.
    fn targets(&self) -> BTreeMap<Port, Target> {
        let assignment = self.assignment.borrow();
        let Some(assignment) = assignment.as_deref() else { return BTreeMap::new() };
        let published = published(&self.done.borrow().desired);
        let mut targets = by_ingress(assignment, &self.view.borrow(), &published);
        if !bridged_meet_iptables() {
            targets.extend(by_host(assignment, &self.tasks.borrow(), &published));
        }
        targets
    }
}

/// Who answers on a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    service: String,
    mode: PublishMode,
}

fn by_ingress(
    assignment: &Assignment,
    view: &View,
    published: &BTreeSet<Port>,
) -> BTreeMap<Port, Target> {
    let ingress = assignment.networks.iter().find(|(_, network)| network.ingress);
    let Some((ingress, _)) = ingress else { return BTreeMap::new() };
    let answering = assignment.tasks.iter().filter(|(task, assigned)| {
        let key = EndpointKey { network: *ingress, owner: EndpointOwner::Task(**task) };
        let ready = |row: &EndpointRow| row.condition == Condition::Ready;
        let is_ready = view.endpoints.get(&key).is_some_and(ready);
        is_ready && !assigned.draining && view.is_alive(assigned.node)
    });
    let answering: BTreeSet<ServiceId> = answering.map(|(_, task)| task.service).collect();
    let services = assignment.services.iter().filter(|(id, _)| answering.contains(id));
    services
        .flat_map(|(_, service)| {
            let ports = asked(&service.ports, PublishMode::Ingress, published);
            ports.map(|port| {
                (port, Target { service: service.name.clone(), mode: PublishMode::Ingress })
            })
        })
        .collect()
}

/// Whether bridged frames pass the host's IP hooks (br_netfilter). It then bridges what was sent to
/// the host and leads back to the same bridge, and an isolated port lets no such frame out: tasks
/// cannot call ports in mode `host` of their own node, and so say nothing of them.
fn bridged_meet_iptables() -> bool {
    let read = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    read.is_ok_and(|value| value.trim() != "0")
}

fn by_host(
    assignment: &Assignment,
    tasks: &BTreeMap<TaskId, LocalTask>,
    published: &BTreeSet<Port>,
) -> BTreeMap<Port, Target> {
    let running = tasks.iter().filter(|(_, task)| task.phase == Phase::Running);
    running
        .filter_map(|(id, _)| {
            let (known, own) = (assignment.tasks.get(id)?, assignment.own.get(id)?);
            let service = assignment.services.get(&known.service)?;
            (!known.draining).then_some((own, service.name.clone()))
        })
        .flat_map(|(own, service)| {
            let ports = asked(&own.ports, PublishMode::Host, published);
            ports.map(move |port| {
                (port, Target { service: service.clone(), mode: PublishMode::Host })
            })
        })
        .collect()
}

/// A datagram has no handshake: the user's program would get it. So only TCP is asked.
fn asked<'a>(
    ports: &'a [PublishedPort],
    mode: PublishMode,
    published: &'a BTreeSet<Port>,
) -> impl Iterator<Item = Port> + use<'a> {
    let ports = ports.iter().filter(move |p| p.mode == mode && p.protocol == Protocol::Tcp);
    ports.map(Port::from).filter(|port| published.contains(port))
}

/// Ports on which other nodes reach this one by UDP.
#[derive(Debug, Clone, Copy)]
struct Doors {
    vxlan: u16,
    gossip: u16,
}

/// Whether a chain keeps other nodes out. One that mentions neither port while gossip arrives lets
/// them in by another rule, as of a link or an address.
fn keeps_out(blocker: &Blocker, doors: Doors, hears_peers: Option<bool>) -> bool {
    match hears_peers {
        None => false,
        Some(false) => true,
        Some(true) => {
            let unmentioned = &blocker.unmentioned;
            unmentioned.contains(&doors.vxlan) && !unmentioned.contains(&doors.gossip)
        }
    }
}

/// Chains of other programs that block, and what could not be read.
#[derive(Debug, Default)]
struct Seen {
    blockers: Vec<Blocker>,
    unread: BTreeSet<String>,
}

fn look(doors: Doors) -> Seen {
    let (links, ports) = ([INGRESS_LINK, GWBRIDGE], [doors.vxlan, doors.gossip]);
    let mut seen = Seen::default();
    for read in [blockers(&links, &ports), legacy::blockers(&links, &ports)] {
        match read {
            Ok(found) => seen.blockers.extend(found),
            Err(error) => {
                seen.unread.insert(format!("chains of other programs are not known: {error}"));
            }
        }
    }
    seen
}

/// Where tasks of this node can call ports: at its end of the egress bridge, or at the address that
/// has the port. Nowhere if that is another node's, or the host's own.
fn callable(
    machine: &HostFacts,
    host: Option<IpAddr>,
    ports: &[Port],
) -> Vec<(Port, SocketAddrV4)> {
    let end = |port: &Port| {
        let IpAddr::V4(address) = port.address.or(host)? else { return None };
        let reached = machine.has(address.into()) && !address.is_loopback();
        reached.then(|| (*port, SocketAddrV4::new(address, port.number)))
    };
    ports.iter().filter_map(end).collect()
}

/// Which ports of the host answer; nothing where nobody can ask.
fn ask(asker: Option<Asker>, ends: Vec<(Port, SocketAddrV4)>) -> BTreeMap<Port, Option<Answer>> {
    let Some((namespace, source)) = asker else { return BTreeMap::new() };
    let (ports, ends): (Vec<Port>, Vec<SocketAddrV4>) = ends.into_iter().unzip();
    let number = u32::try_from(clock::monotonic().as_secs() % u64::from(u32::MAX));
    let number = number.unwrap_or_default().wrapping_mul(PORTS_MAX as u32);
    match probe::answers(namespace, source, ends, number) {
        Ok(answers) => ports.into_iter().zip(answers).collect(),
        Err(error) => {
            // The task has ended meanwhile.
            tracing::debug!(%error, "ask published ports");
            BTreeMap::new()
        }
    }
}

fn lost_line(port: Port, target: &Target) -> String {
    let way = match target.mode {
        PublishMode::Ingress => {
            format!("between {GWBRIDGE} and {INGRESS_LINK}, or on the way to the service's")
        }
        PublishMode::Host => format!("on their way back to {GWBRIDGE}"),
    };
    format!(
        "{port} of service {} does not answer through this node: calls from its own tasks are lost \
         {way}. Look at `nft list ruleset`, and at `iptables-legacy -S` where \
         /proc/net/ip_tables_names lists a table",
        target.service
    )
}

fn blocker_line(blocker: &Blocker) -> String {
    let Blocker { table, chain, .. } = blocker;
    let family = table.family.name();
    let of = if blocker.legacy { "iptables-legacy's table" } else { "table" };
    if blocker.hook == Hook::Input {
        let ports: Vec<String> = blocker.unmentioned.iter().map(u16::to_string).collect();
        let ports = ports.join(" and ");
        return format!(
            "chain {chain} of {of} {family} {} drops what it does not accept, and no rule mentions \
             UDP port {ports}: packets of other nodes are lost. Let them in: {}",
            table.name,
            let_in(blocker)
        );
    }
    format!(
        "chain {chain} of {of} {family} {} drops what this host forwards, and names neither \
         {INGRESS_LINK} nor {GWBRIDGE}: published ports and the way out of tasks are blocked. Let \
         both through: {}",
        table.name,
        remedy(blocker)
    )
}

/// What lets other nodes in, in the words of the program whose chain it is.
fn let_in(blocker: &Blocker) -> String {
    let has = |name: &str| blocker.chains.iter().any(|chain| chain == name);
    let Blocker { table, chain, legacy, .. } = blocker;
    let each = |say: &dyn Fn(&u16) -> String| {
        blocker.unmentioned.iter().map(say).collect::<Vec<_>>().join("; ")
    };
    if table.name == "firewalld" {
        let ports = each(&|port| format!("firewall-cmd --permanent --add-port={port}/udp"));
        return format!("{ports}; firewall-cmd --reload");
    }
    if has("ufw-user-input") {
        return each(&|port| format!("ufw allow {port}/udp"));
    }
    if *legacy || (table.name == "filter" && chain == "INPUT") {
        let program = iptables(blocker);
        return each(&|port| format!("{program} -I INPUT -p udp --dport {port} -j ACCEPT"));
    }
    let family = table.family.name();
    each(&|port| format!("nft insert rule {family} {} {chain} udp dport {port} accept", table.name))
}

fn iptables(blocker: &Blocker) -> &'static str {
    match (blocker.legacy, blocker.table.family.name()) {
        (true, _) => "iptables-legacy",
        (false, "ip6") => "ip6tables",
        (false, _) => "iptables",
    }
}

/// What lets our links through, in the words of the program whose chain it is.
fn remedy(blocker: &Blocker) -> String {
    let has = |name: &str| blocker.chains.iter().any(|chain| chain == name);
    let rules = |insert: &str| {
        let links = [INGRESS_LINK, GWBRIDGE].iter();
        let each = links.flat_map(|link| ["-i", "-o"].map(|way| format!("{insert} {way} {link}")));
        each.map(|rule| format!("{rule} -j ACCEPT")).collect::<Vec<_>>().join("; ")
    };
    let iptables = iptables(blocker);
    if blocker.table.name == "firewalld" {
        return format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={INGRESS_LINK} \
             --add-interface={GWBRIDGE} && firewall-cmd --reload"
        );
    }
    if has("ufw-user-forward") {
        return format!(
            "ufw route allow in on {INGRESS_LINK}; ufw route allow out on {INGRESS_LINK}; ufw \
             route allow in on {GWBRIDGE}; ufw route allow out on {GWBRIDGE}"
        );
    }
    if has("DOCKER-USER") {
        return rules(&format!("{iptables} -I DOCKER-USER"));
    }
    if blocker.table.name == "filter" && blocker.chain == "FORWARD" {
        return rules(&format!("{iptables} -I FORWARD"));
    }
    let insert = format!(
        "nft insert rule {} {} {}",
        blocker.table.family.name(),
        blocker.table.name,
        blocker.chain
    );
    let links = format!("{{ {INGRESS_LINK}, {GWBRIDGE} }} accept");
    format!("{insert} iifname '{links}'; {insert} oifname '{links}'")
}

#[cfg(test)]
mod tests {
    use netprog::plane::{Family, TableKey};

    use super::*;

    #[test]
    fn the_remedy_is_in_the_words_of_the_firewall() {
        let of = |family, table: &str, chain: &str, chains: &[&str]| Blocker {
            hook: Hook::Forward,
            legacy: false,
            unmentioned: Vec::new(),
            table: TableKey { family, name: table.to_owned() },
            chain: chain.to_owned(),
            chains: chains.iter().map(|name| (*name).to_owned()).collect(),
        };
        let table = [
            (
                of(Family::Ip, "filter", "FORWARD", &["DOCKER-USER"]),
                "iptables -I DOCKER-USER -i ing0",
            ),
            (of(Family::Ip, "filter", "FORWARD", &["ufw-user-forward"]), "ufw route allow in on"),
            (of(Family::Ip, "filter", "FORWARD", &[]), "iptables -I FORWARD -i ing0 -j ACCEPT; "),
            (of(Family::Inet, "firewalld", "filter_FORWARD", &[]), "--zone=trusted"),
            (of(Family::Inet, "fw", "forward", &[]), "nft insert rule inet fw forward iifname '{"),
        ];
        for (blocker, words) in table {
            assert!(remedy(&blocker).contains(words), "{}", remedy(&blocker));
            let legacy = Blocker { legacy: true, ..blocker };
            if legacy.table.name == "filter" && legacy.chains.is_empty() {
                assert!(remedy(&legacy).starts_with("iptables-legacy -I FORWARD -i ing0"));
            }
        }
    }

    /// Goal: a chain is reported only where other nodes are kept out, and never by one that hears
    /// them by a rule that names no port.
    #[test]
    fn other_nodes_are_kept_out_where_only_gossip_is_let_in() {
        let doors = Doors { vxlan: 4789, gossip: 7946 };
        let of = |unmentioned: &[u16]| Blocker {
            hook: Hook::Input,
            legacy: false,
            unmentioned: unmentioned.to_vec(),
            table: TableKey { family: Family::Inet, name: "fw".to_owned() },
            chain: "input".to_owned(),
            chains: Vec::new(),
        };
        let (both, vxlan) = (of(&[4789, 7946]), of(&[4789]));
        for (blocker, hears, told) in [
            (&both, None, false),
            (&both, Some(true), false),
            (&both, Some(false), true),
            (&vxlan, Some(true), true),
            (&vxlan, Some(false), true),
            (&of(&[7946]), Some(true), false),
        ] {
            assert_eq!(keeps_out(blocker, doors, hears), told, "{blocker:?} {hears:?}");
        }
        assert_eq!(let_in(&vxlan), "nft insert rule inet fw input udp dport 4789 accept");
        let ufw = Blocker { chains: vec!["ufw-user-input".to_owned()], ..vxlan };
        assert_eq!(let_in(&ufw), "ufw allow 4789/udp");
    }
}
