//! nftables: loaded whole, changed by elements, read back as written.

use netprog::kernel::Kernel;
use netprog::op::{NftChange, Op};
use netprog::plane::{Family, Plane, Space, Table, TableKey};

use super::world::{FABRIC, World};

/// The balancer of the data path's prototype.
const BALANCER: &str = r#"
set vips { typeof ip daddr; }
set live { typeof ip daddr . ether daddr; }
map slots { typeof ip daddr . meta mark : ether daddr; }
map flows {
    typeof ip daddr . meta mark : ether daddr
    flags dynamic,timeout
    timeout 15m
    size 65536
}
map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
chain pre {
    type filter hook prerouting priority -300
    iifname "vx0" accept
    ip daddr @vips meta l4proto tcp goto balance
}
chain balance {
    meta mark set jhash ip saddr . tcp sport . tcp dport mod 0xffffffff seed 0x5eed
    ether daddr set ip daddr . meta mark map @flows
    ip daddr . ether daddr @live update @flows { ip daddr . meta mark : ether daddr } accept
    meta mark set jhash ip saddr . tcp sport mod 251 seed 0x5eed
    ether daddr set ip daddr . meta mark map @slots
    meta mark set jhash ip saddr . tcp sport . tcp dport mod 0xffffffff seed 0x5eed
    add @flows { ip daddr . meta mark : ether daddr }
}"#;

fn key() -> TableKey {
    TableKey { family: Family::Bridge, name: "skein-lb".to_owned() }
}

fn table() -> Table {
    let set = |elements: &[&str]| elements.iter().map(|&e| e.to_owned()).collect();
    let slot = |n: u32| (format!("10.0.0.15 . {n}"), format!("02:42:0a:00:00:0{}", 5 + n % 3));
    Table {
        digest: "d1".to_owned(),
        structure: BALANCER.to_owned(),
        sets: [
            ("vips".to_owned(), set(&["10.0.0.15"])),
            (
                "live".to_owned(),
                set(&["10.0.0.15 . 02:42:0a:00:00:05", "10.0.0.15 . 02:42:0a:00:00:06"]),
            ),
        ]
        .into(),
        maps: [
            ("slots".to_owned(), (0..251).map(slot).collect()),
            ("ports".to_owned(), [("tcp . 80".to_owned(), "10.0.0.5 . 8080".to_owned())].into()),
        ]
        .into(),
    }
}

fn desired(table: &Table) -> Plane {
    let mut space = Space::default();
    space.nft.insert(key(), table.clone());
    Plane { spaces: [(FABRIC, space)].into(), ..Plane::default() }
}

/// What observing gives: no structure.
fn observed(mut table: Table) -> Table {
    table.structure.clear();
    table
}

#[track_caller]
fn holds(world: &mut World, table: &Table) {
    let seen = world.see(FABRIC, &desired(table)).nft.remove(&key());
    assert_eq!(seen, Some(observed(table.clone())));
}

fn slot(n: u32, old: Option<&str>, new: Option<&str>) -> Op {
    let change = NftChange::SetMapElement {
        map: "slots".to_owned(),
        key: format!("10.0.0.15 . {n}"),
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
    };
    Op::nft(FABRIC, key(), change)
}

#[test]
fn a_table_reads_back_as_it_was_written() {
    let mut world = World::furnished();
    let mut table = table();
    for digest in ["d1", "d2"] {
        table.digest = digest.to_owned();
        world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
        holds(&mut world, &table);
    }
    for _twice in 0..2 {
        world.done(&[Op::nft(FABRIC, key(), NftChange::Delete)]);
        assert_eq!(world.seen(FABRIC).nft, [].into());
    }
}

/// nft suggests another table by a similar name, and says so in other words.
#[test]
fn a_table_that_is_gone_can_be_deleted_beside_others() {
    let mut world = World::furnished();
    let other = TableKey { family: Family::Bridge, name: "skein-la".to_owned() };
    world.done(&[
        Op::nft(FABRIC, other, NftChange::Load(Table::default())),
        Op::nft(FABRIC, key(), NftChange::Delete),
    ]);
    let gone =
        Op::nft(FABRIC, key(), NftChange::DeleteElement("live".to_owned(), "10.0.0.1".to_owned()));
    assert!(world.refused(gone).contains("No such file or directory"));
}

#[test]
fn elements_change_one_by_one() {
    let mut world = World::furnished();
    let mut table = table();
    let live = |mac: &str| format!("10.0.0.15 . {mac}");
    let add = |mac| Op::nft(FABRIC, key(), NftChange::AddElement("live".to_owned(), live(mac)));
    let delete =
        |mac| Op::nft(FABRIC, key(), NftChange::DeleteElement("live".to_owned(), live(mac)));
    world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
    for _twice in 0..2 {
        world.done(&[add("02:42:0a:00:00:07"), delete("02:42:0a:00:00:05")]);
    }
    world.done(&[
        slot(0, Some("02:42:0a:00:00:05"), Some("02:42:0a:00:00:07")),
        slot(1, Some("02:42:0a:00:00:06"), None),
        slot(2, None, None),
    ]);
    // What is to be replaced or removed may have gone by itself.
    world.done(&[
        slot(1, Some("02:42:0a:00:00:06"), Some("02:42:0a:00:00:05")),
        slot(250, Some("02:42:0a:00:00:06"), None),
        slot(250, Some("02:42:0a:00:00:06"), None),
    ]);
    let set = table.sets.get_mut("live").unwrap();
    set.remove(&live("02:42:0a:00:00:05"));
    set.insert(live("02:42:0a:00:00:07"));
    let map = table.maps.get_mut("slots").unwrap();
    map.insert("10.0.0.15 . 0".to_owned(), "02:42:0a:00:00:07".to_owned());
    map.insert("10.0.0.15 . 1".to_owned(), "02:42:0a:00:00:05".to_owned());
    map.remove("10.0.0.15 . 250");
    holds(&mut world, &table);
}

#[test]
fn a_bad_line_is_named_and_the_others_are_done() {
    let mut world = World::furnished();
    let mut table = table();
    world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
    let add = |element: &str| {
        Op::nft(FABRIC, key(), NftChange::AddElement("live".to_owned(), element.to_owned()))
    };
    let ops = [
        add("10.0.0.16 . 02:42:0a:00:00:05"),
        add("nonsense"),
        add("10.0.0.17 . 02:42:0a:00:00:05"),
        Op::nft(FABRIC, key(), NftChange::AddElement("nix".to_owned(), "10.0.0.1".to_owned())),
        slot(3, None, Some("02:42:0a:00:00:0a")),
        add("10.0.0.18 . 02:42:0a:00:00:05"),
    ];
    let failed = world.kernel.apply(&ops);
    assert_eq!(failed.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 3, 4], "{failed:?}");
    let set = table.sets.get_mut("live").unwrap();
    for vip in ["10.0.0.16", "10.0.0.17", "10.0.0.18"] {
        set.insert(format!("{vip} . 02:42:0a:00:00:05"));
    }
    holds(&mut world, &table);
}

#[test]
fn a_table_that_lost_a_set_is_reported_as_altered() {
    let mut world = World::furnished();
    let table = table();
    world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
    let mut more = table.clone();
    more.sets.insert("missing".to_owned(), [].into());
    let seen = world.see(FABRIC, &desired(&more)).nft.remove(&key()).unwrap();
    assert_eq!(seen.digest, "");
}

/// Goal: a change by another program is seen whenever it came: before the table was first read, and
/// while the daemon was down. Method: each kind of change, which leaves the comment as it is, read
/// by the programmer that loaded the table and by one that knows nothing.
#[test]
fn a_table_that_was_changed_is_reported_as_altered() {
    let lines = [
        "nft flush chain bridge skein-lb pre",
        "nft add rule bridge skein-lb pre accept",
        "nft add chain bridge skein-lb more",
        "nft add table bridge skein-lb { flags dormant; }",
        "nft add set bridge skein-lb more { type ipv4_addr; }",
        "nft flush set bridge skein-lb reference",
    ];
    for line in lines {
        for is_seen_before in [true, false] {
            let mut world = World::furnished();
            let table = table();
            world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
            if is_seen_before {
                holds(&mut world, &table);
            }
            world.run(FABRIC, line);
            for is_restarted in [false, true] {
                if is_restarted {
                    world.restart();
                }
                let seen = world.see(FABRIC, &desired(&table)).nft.remove(&key()).unwrap();
                assert_eq!(seen.digest, "", "{line}");
            }
            world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
            holds(&mut world, &table);
            world.restart();
            holds(&mut world, &table);
        }
    }
}

/// Goal: a table is what was loaded though its elements changed and packets filled its other sets.
#[test]
fn a_table_whose_elements_changed_is_not_altered() {
    let mut world = World::furnished();
    let mut table = table();
    world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
    let element = "10.0.0.16 . 02:42:0a:00:00:05".to_owned();
    world.done(&[Op::nft(
        FABRIC,
        key(),
        NftChange::AddElement("live".to_owned(), element.clone()),
    )]);
    table.sets.get_mut("live").unwrap().insert(element);
    world.restart();
    holds(&mut world, &table);
}

/// What others do to elements is seen although nothing of ours was applied in between.
#[test]
fn elements_changed_by_others_are_seen() {
    let mut world = World::furnished();
    let mut table = table();
    world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
    holds(&mut world, &table);
    let element = "10.0.0.15 . 02:42:0a:00:00:05";
    world.run(FABRIC, &format!("nft delete element bridge skein-lb live {{ {element} }}"));
    table.sets.get_mut("live").unwrap().remove(element);
    holds(&mut world, &table);
}

#[test]
fn tables_of_others_are_not_seen() {
    let mut world = World::furnished();
    let other = TableKey { family: Family::Inet, name: "filter".to_owned() };
    world.done(&[Op::nft(FABRIC, other, NftChange::Load(Table::default()))]);
    assert_eq!(world.seen(FABRIC).nft, [].into());
}
