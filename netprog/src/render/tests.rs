use cluster::net::{Addresses, Subnets};
use cluster::view::Liveness;
use expect_test::{ExpectFile, expect_file};

use super::*;
use crate::fixture::{INGRESS, REDIS, VOTE, WEB, World, node, task};
use crate::plane::element::{Element, Part};
use crate::plane::{Family, TableKey};

fn small() -> World {
    let mut world = World::new();
    world.add(1, REDIS, 1).add(2, REDIS, 2).add(3, VOTE, 1);
    world.up(1, true).up(2, true).up(3, true);
    world
}

/// The same, balanced by IPVS.
fn small_ipvs() -> World {
    let mut world = small();
    world.local.balancer = crate::local::Balancer::Ipvs;
    world
}

fn rendered(world: &World) -> Plane {
    render(&world.assignment, &world.view, &world.local)
}

fn check(place: Place, world: &World, expected: ExpectFile) {
    let plane = rendered(world);
    let space = plane.spaces.get(&place).map(ToString::to_string).unwrap_or_default();
    expected.assert_eq(&format!("{place}\n{space}"));
}

#[test]
fn a_small_cluster_renders() {
    let plane = rendered(&small());
    expect_file!["../../testdata/render/small.txt"].assert_eq(&plane.to_string());
}

/// Goal: no member leads frames of another one elsewhere. Method: rows that name other VTEPs.
#[test]
fn the_vtep_of_a_node_is_the_managers_word() {
    let before = rendered(&small());
    let mut world = small();
    let elsewhere = crate::fixture::ip("203.0.113.9");
    for row in world.view.vteps.values_mut() {
        row.address = elsewhere;
    }
    assert_eq!(rendered(&world), before);
    world.assignment.nodes.remove(&node(2));
    assert!(!rendered(&world).to_string().contains("203.0.113.9"), "nor of one that is not listed");
}

/// Goal: a backend is called at an address of the VIP's family, or not at all. Method: `redis` on a
/// network of IPv6, with one task there and one that has an IPv4 address, by each balancer.
#[test]
fn a_vip_leads_to_backends_of_its_own_family() {
    for mut world in [small(), small_ipvs()] {
        let six = |n: u16| Addresses::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n));
        let web = world.assignment.networks.get_mut(&WEB).unwrap();
        web.subnets = Subnets::V6("fd00::1/64".parse().unwrap());
        let redis = world.assignment.services.get_mut(&REDIS).unwrap();
        redis.vips.insert(WEB, six(2));
        world.assignment.tasks.get_mut(&task(1)).unwrap().attachments[0].addresses = six(0x11);
        world.up(1, true);
        let directory = Directory::new(&world.assignment, &world.view);
        let endpoints = &directory.by_service(WEB)[&REDIS];
        assert_eq!(endpoints.len(), 2);
        let service = virtual_service(crate::fixture::ip("fd00::2"), endpoints);
        let addresses: Vec<IpAddr> = service.live.iter().map(|backend| backend.address).collect();
        assert_eq!(addresses, [crate::fixture::ip("fd00::11")]);
        assert_eq!(service.open, service.live);
        // The kernel refuses a real server of another family.
        let ipvs = &rendered(&world).spaces[&Place::Fabric(WEB)].ipvs;
        let real = ipvs.iter().flat_map(|(key, entry)| entry.real.keys().map(|at| (key.ipv6, at)));
        assert!(real.filter(|(ipv6, at)| *ipv6 != at.is_ipv6()).count() == 0, "{ipvs:?}");
    }
}

/// Goal: the rule that rewrites near callers of published ports, which is one of IPv4, loads
/// whatever subnets the ingress network has. Method: the host's table with each choice of them.
#[test]
fn the_source_rule_names_subnets_of_ipv4_alone() {
    let (v4, v6) = ("10.9.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap());
    for (subnets, named) in [
        (Subnets::V4(v4), ", 10.9.0.0/24 }"),
        (Subnets::V6(v6), "/16 }"),
        (Subnets::Both(v4, v6), ", 10.9.0.0/24 }"),
    ] {
        let mut world = small();
        world.assignment.networks.get_mut(&INGRESS).unwrap().subnets = subnets;
        let ip = TableKey { family: Family::Ip, name: TABLE.to_owned() };
        let structure = rendered(&world).spaces[&Place::Host].nft[&ip].structure.clone();
        let rule = structure.lines().find(|line| line.contains("ip saddr {")).unwrap();
        assert!(rule.contains(named) && !rule.contains("fd00"), "{rule}");
    }
}

#[test]
fn structures_are_as_proven() {
    // Each was loaded into a kernel and used by packets; the text is kept so that a change of it
    // is a decision.
    let plane = rendered(&small());
    let ip = TableKey { family: Family::Ip, name: TABLE.to_owned() };
    let bridge = TableKey { family: Family::Bridge, name: TABLE.to_owned() };
    let structure = |place, key: &TableKey| plane.spaces[&place].nft[key].structure.clone();
    expect_file!["../../testdata/render/host.nft"].assert_eq(&structure(Place::Host, &ip));
    let ingress = structure(Place::Fabric(INGRESS), &bridge);
    expect_file!["../../testdata/render/ingress.nft"].assert_eq(&ingress);
    let web = structure(Place::Fabric(WEB), &bridge);
    expect_file!["../../testdata/render/overlay.nft"].assert_eq(&web);
    let sandbox = structure(Place::Sandbox(task(3)), &ip);
    expect_file!["../../testdata/render/sandbox.nft"].assert_eq(&sandbox);
    let cluster_ports = structure(Place::Host, &cluster_ports::key());
    expect_file!["../../testdata/render/cluster_ports.nft"].assert_eq(&cluster_ports);
    let of_web = structure(Place::Fabric(WEB), &senders::key());
    expect_file!["../../testdata/render/senders.nft"].assert_eq(&of_web);
    let of_host = structure(Place::Host, &senders::key());
    expect_file!["../../testdata/render/senders_host.nft"].assert_eq(&of_host);
    let of_six = senders::empty(false, Some("vx0")).structure;
    expect_file!["../../testdata/render/senders6.nft"].assert_eq(&of_six);
}

/// Goal: while an update changes the port that tasks listen on, a task made before it is called
/// on its own.
#[test]
fn a_published_port_leads_to_where_the_task_listens() {
    let mut world = small();
    let services = &mut world.assignment.services;
    services.get_mut(&VOTE).unwrap().ports[0].target = 8080;
    world.add(4, VOTE, 1);
    let plane = rendered(&world);
    let table = TableKey { family: Family::Ip, name: TABLE.to_owned() };
    let targets = |n| {
        let targets = &plane.spaces[&Place::Sandbox(task(n))].nft[&table].maps["targets"];
        targets
            .iter()
            .map(|(key, to)| (key.to_string(), to.to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(targets(3)["10.0.0.5 . tcp . 10001"], "172.18.0.13 . 80");
    assert_eq!(targets(4)["10.0.0.5 . tcp . 10001"], "172.18.0.14 . 8080");
    // A port that the task was not made with leads nowhere in it.
    world.assignment.services.get_mut(&VOTE).unwrap().ports[0].published = 3001;
    let plane = rendered(&world);
    assert!(plane.spaces[&Place::Sandbox(task(3))].nft[&table].maps["targets"].is_empty());
}

/// Elements of the host's table of the cluster's own ports.
fn cluster_ports_set(world: &World, set: &str) -> Vec<String> {
    rendered(world).spaces[&Place::Host].nft[&cluster_ports::key()].sets[set]
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn vxlan_is_taken_from_the_nodes_that_are_known() {
    type Change = fn(&mut World);
    let table: &[(&str, Change, &[&str])] = &[
        ("as listed", |_| {}, &["192.168.50.2", "192.168.50.3"]),
        (
            "down, but a member",
            |w| {
                w.assignment.nodes.get_mut(&node(2)).unwrap().up = false;
                w.view.liveness.insert(node(2), Liveness::Down);
            },
            &["192.168.50.2", "192.168.50.3"],
        ),
        (
            "removed, but its row is still there",
            |w| drop(w.assignment.nodes.remove(&node(3))),
            &["192.168.50.2"],
        ),
        (
            "of the other family",
            |w| w.assignment.nodes.get_mut(&node(3)).unwrap().vtep = crate::fixture::ip("fd00::3"),
            &["192.168.50.2"],
        ),
    ];
    for (name, change, vteps) in table {
        let mut world = small();
        change(&mut world);
        assert_eq!(cluster_ports_set(&world, "vteps"), *vteps, "{name}");
    }
}

#[test]
fn tasks_are_kept_from_the_ports_that_nodes_use() {
    let mut world = small();
    world.local.cluster_port = 2400;
    let other = world.assignment.nodes.get_mut(&node(2)).unwrap();
    other.gossip = "[fd00::2]:7000".parse().unwrap();
    other.manager = "203.0.113.2:2377".parse().ok();
    assert_eq!(cluster_ports_set(&world, "own"), ["tcp . 2400", "tcp . 7946", "udp . 7946"]);
    let of_other = |set| {
        let mut ports = cluster_ports_set(&world, set);
        ports.retain(|port| !port.contains(".50.1 ") && !port.contains(".50.3 "));
        ports
    };
    assert_eq!(
        of_other("members"),
        [
            "192.168.50.2 . tcp . 2377",
            "192.168.50.2 . tcp . 7000",
            "192.168.50.2 . udp . 7000",
            "203.0.113.2 . tcp . 2377"
        ]
    );
    assert_eq!(
        of_other("members6"),
        ["fd00::2 . tcp . 2377", "fd00::2 . tcp . 7000", "fd00::2 . udp . 7000"]
    );
}

/// The VIP of a service that is removed, or draining tasks, is still answered as.
#[test]
fn a_task_sends_as_itself_and_as_its_vip() {
    let mut world = small();
    world.assignment.services.get_mut(&VOTE).unwrap().name.clear();
    world.assignment.tasks.get_mut(&task(3)).unwrap().draining = true;
    let plane = rendered(&world);
    let table = &plane.spaces[&Place::Fabric(WEB)].nft[&senders::key()];
    let of_task = |set: &str| {
        let port = format!("\"{}\" . ", outer(task(3)));
        let all = table.sets[set].iter().map(ToString::to_string);
        all.filter_map(|e| e.strip_prefix(&port).map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(
        of_task("senders"),
        ["02:42:0a:00:01:0d . 10.0.1.3", "02:42:0a:00:01:0d . 10.0.1.13"]
    );
    // A VIP is the bridge's to answer ARP for.
    assert_eq!(of_task("owners"), ["02:42:0a:00:01:0d . 10.0.1.13"]);
}

fn balanced(world: &World) -> (Vec<String>, std::collections::BTreeSet<String>) {
    let key = TableKey { family: Family::Bridge, name: TABLE.to_owned() };
    let plane = rendered(world);
    let table = &plane.spaces[&Place::Fabric(WEB)].nft[&key];
    let of_redis = |element: &Element| element.parts()[0] == Part::V4([10, 0, 1, 2].into());
    let live = table.sets["live"].iter().filter(|live| of_redis(live));
    let slots = table.maps["slots"].iter().filter(|(key, _)| of_redis(key));
    let macs = slots.map(|(_, mac)| mac.to_string()[12..].to_owned());
    (live.map(ToString::to_string).collect(), macs.collect())
}

#[test]
fn who_is_live_and_who_has_slots() {
    type Change = fn(&mut World);
    let table: &[(&str, Change, usize, &[&str])] = &[
        ("both up", |_| {}, 2, &["01:0b", "01:0c"]),
        (
            "one unhealthy",
            |w| {
                w.up(2, false);
            },
            2,
            &["01:0b"],
        ),
        ("one not up", |w| w.view.endpoints.retain(|k, _| k.owner != owner(2)), 1, &["01:0b"]),
        (
            "one draining",
            |w| w.assignment.tasks.get_mut(&task(2)).unwrap().draining = true,
            2,
            &["01:0b"],
        ),
        ("one suspect", |w| suspect(w, 2), 2, &["01:0b"]),
        (
            "the other unhealthy and this one suspect: hidden is better than none",
            |w| {
                w.up(1, false);
                suspect(w, 2);
            },
            2,
            &["01:0c"],
        ),
        ("all gone", |w| w.view.endpoints.clear(), 0, &[]),
    ];
    for (name, change, live, slots) in table {
        let mut world = small();
        change(&mut world);
        let (is_live, has_slots) = balanced(&world);
        assert_eq!(is_live.len(), *live, "{name}: {is_live:?}");
        let has_slots: Vec<&str> = has_slots.iter().map(String::as_str).collect();
        assert_eq!(has_slots, *slots, "{name}");
    }
}

fn owner(n: u8) -> cluster::view::EndpointOwner {
    cluster::view::EndpointOwner::Task(task(n))
}

fn suspect(world: &mut World, n: u8) {
    world.view.liveness.insert(node(n), Liveness::Suspect);
}

#[test]
fn a_hidden_nodes_entries_stay() {
    let mut world = small();
    let before = rendered(&world).spaces[&Place::Fabric(WEB)].clone();
    world.view.liveness.insert(node(2), Liveness::Down);
    let after = rendered(&world).spaces[&Place::Fabric(WEB)].clone();
    assert_eq!((before.fdb, before.neighbours), (after.fdb, after.neighbours));
}

#[test]
fn an_internal_network_has_no_way_out() {
    let mut world = small();
    world.assignment.networks.get_mut(&WEB).unwrap().internal = true;
    let plane = rendered(&world);
    let space = &plane.spaces[&Place::Sandbox(task(1))];
    assert_eq!(space.links.keys().collect::<Vec<_>>(), ["eth0"]);
    assert!(space.routes.is_empty());
    // One that publishes a port is reached through the leg, so it keeps it.
    assert_eq!(plane.spaces[&Place::Sandbox(task(3))].links.len(), 3);
}

#[test]
fn ipvs_takes_a_network_and_the_way_back_stays_in_the_bridge() {
    let world = small_ipvs();
    check(Place::Fabric(WEB), &world, expect_file!["../../testdata/render/web_ipvs.txt"]);
    check(Place::Fabric(INGRESS), &world, expect_file!["../../testdata/render/ingress_ipvs.txt"]);
    let plane = rendered(&world);
    let key = |family| TableKey { family, name: TABLE.to_owned() };
    let structure = |place, key| plane.spaces[&place].nft[&key].structure.clone();
    let marks = structure(Place::Fabric(WEB), key(Family::Ip));
    expect_file!["../../testdata/render/marks.nft"].assert_eq(&marks);
    let returns = structure(Place::Fabric(INGRESS), key(Family::Bridge));
    expect_file!["../../testdata/render/returns.nft"].assert_eq(&returns);
    // Sandboxes and the host do not know what balances.
    for place in [Place::Host, Place::Sandbox(task(3))] {
        assert_eq!(plane.spaces[&place], rendered(&small()).spaces[&place]);
    }
}

#[test]
fn weights_are_those_of_open_and_live() {
    let mut world = small_ipvs();
    world.assignment.tasks.get_mut(&task(2)).unwrap().draining = true;
    let plane = rendered(&world);
    let services = &plane.spaces[&Place::Fabric(WEB)].ipvs;
    let of_redis = services.iter().find(|(key, _)| key.fwmark == 0x0a00_0102).unwrap().1;
    let real: Vec<_> = of_redis.real.iter().map(|(a, w)| (a.to_string(), *w)).collect();
    assert_eq!(real, [("10.0.1.11".to_owned(), 1), ("10.0.1.12".to_owned(), 0)]);
}

#[test]
fn mtu_follows_the_underlay_and_its_family() {
    let mut world = small();
    world.local.underlay_mtu = 9000;
    world.assignment.networks.get_mut(&WEB).unwrap().underlay_mtu = Some(1400);
    let plane = rendered(&world);
    let mtu = |place, link: &str| plane.spaces[&place].links[link].mtu;
    assert_eq!(mtu(Place::Sandbox(task(3)), "eth0"), 1350);
    assert_eq!(mtu(Place::Sandbox(task(3)), "eth1"), 8950);
    assert_eq!(mtu(Place::Sandbox(task(3)), "eth2"), 8950);
    world.local.vtep = crate::fixture::ip("fd00::1");
    let plane = rendered(&world);
    assert_eq!(plane.spaces[&Place::Sandbox(task(3))].links["eth1"].mtu, 8930);
}

/// Goal: all nodes of a network send what the smallest underlay takes. Method: a peer with less.
#[test]
fn the_least_mtu_of_all_nodes_counts() {
    let mut world = small();
    let mtu = |world: &World, link: &str| {
        let plane = rendered(world);
        plane.spaces[&Place::Sandbox(task(3))].links[link].mtu
    };
    let said = |world: &mut World, of: u8, mtu| {
        world.assignment.nodes.get_mut(&node(of)).unwrap().underlay_mtu = Some(mtu);
    };
    said(&mut world, 2, 1380);
    said(&mut world, 3, 9000);
    assert_eq!((mtu(&world, "eth0"), mtu(&world, "eth2")), (1330, 1330));
    // What this node said of itself earlier is older than what it sees.
    said(&mut world, 1, 1200);
    assert_eq!(mtu(&world, "eth0"), 1330);
    world.local.underlay_mtu = 1300;
    assert_eq!(mtu(&world, "eth0"), 1250);
    world.assignment.networks.get_mut(&WEB).unwrap().underlay_mtu = Some(1500);
    assert_eq!(mtu(&world, "eth0"), 1450, "the user's word counts");
}

#[test]
fn names_fit_the_kernel() {
    let plane = rendered(&small());
    for space in plane.spaces.values() {
        for name in space.links.keys() {
            assert!(name.len() <= 15, "{name}");
        }
    }
}

#[test]
fn a_task_without_a_network_has_only_the_way_out() {
    let mut world = World::new();
    world.add(1, REDIS, 1);
    world.assignment.tasks.get_mut(&task(1)).unwrap().attachments.clear();
    check(Place::Sandbox(task(1)), &world, expect_file!["../../testdata/render/alone.txt"]);
}

/// Goal: what every sandbox is given cannot be asked for otherwise by a service. Method: all
/// parameters of the sandboxes of a cluster, but for those of their links, which nobody may name.
#[test]
fn a_service_may_not_set_what_a_sandbox_is_given() {
    let plane = rendered(&small());
    let sandboxes = plane.spaces.iter().filter(|(place, _)| matches!(place, Place::Sandbox(_)));
    let names = sandboxes.flat_map(|(_, space)| space.sysctls.keys());
    let mut refused = std::collections::BTreeSet::new();
    for name in names.map(|name| name.replace('/', ".")) {
        let error = cluster::rights::check_sysctl(&name).expect_err(&name);
        refused.extend(error.contains("set by Skein").then_some(name));
    }
    assert!(refused.iter().eq(cluster::rights::OF_SANDBOXES), "{refused:?}");
}
