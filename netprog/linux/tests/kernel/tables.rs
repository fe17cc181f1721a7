//! nftables: loaded whole, changed by elements, read back as written.

use cluster::net::MacAddr;
use netprog::kernel::Kernel;
use netprog::op::{NftChange, Op};
use netprog::plane::element::{Element, Part};
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

fn vip(n: u8) -> Part {
    Part::V4([10, 0, 0, n].into())
}

/// `02:42:0a:00:00:<n>`.
fn mac(n: u8) -> Element {
    Element::of([Part::Mac(MacAddr([2, 0x42, 10, 0, 0, n]))])
}

fn live(of: u8, n: u8) -> Element {
    Element::of([vip(of), mac(n).parts()[0].clone()])
}

fn slot_key(n: u32) -> Element {
    Element::of([vip(15), Part::Mark(n)])
}

fn table() -> Table {
    let slot = |n| (slot_key(n), mac((5 + n % 3).to_le_bytes()[0]));
    let ports = Element::of([Part::Proto(6), Part::Port(80)]);
    let target = Element::of([Part::V4([10, 0, 0, 5].into()), Part::Port(8080)]);
    Table {
        digest: "d1".to_owned(),
        structure: BALANCER.to_owned(),
        sets: [
            ("vips".to_owned(), [Element::of([vip(15)])].into()),
            ("live".to_owned(), [live(15, 5), live(15, 6)].into()),
        ]
        .into(),
        maps: [
            ("slots".to_owned(), (0..251).map(slot).collect()),
            ("ports".to_owned(), [(ports, target)].into()),
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

fn slot(n: u32, old: Option<u8>, new: Option<u8>) -> Op {
    let change = NftChange::SetMapElement {
        map: "slots".to_owned(),
        key: slot_key(n),
        old: old.map(mac),
        new: new.map(mac),
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
fn a_table_that_is_gone_can_be_deleted_with_others() {
    let mut world = World::furnished();
    let other = TableKey { family: Family::Bridge, name: "skein-la".to_owned() };
    world.done(&[
        Op::nft(FABRIC, other, NftChange::Load(Table::default())),
        Op::nft(FABRIC, key(), NftChange::Delete),
    ]);
    let gone = Op::nft(FABRIC, key(), NftChange::DeleteElement("live".to_owned(), live(1, 5)));
    assert!(world.refused(gone).contains("No such file or directory"));
}

#[test]
fn elements_change_one_by_one() {
    let mut world = World::furnished();
    let mut table = table();
    let add = |n| Op::nft(FABRIC, key(), NftChange::AddElement("live".to_owned(), live(15, n)));
    let delete =
        |n| Op::nft(FABRIC, key(), NftChange::DeleteElement("live".to_owned(), live(15, n)));
    world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
    for _twice in 0..2 {
        world.done(&[add(7), delete(5)]);
    }
    world.done(&[slot(0, Some(5), Some(7)), slot(1, Some(6), None), slot(2, None, None)]);
    // What is to be replaced or removed may have gone by itself.
    world.done(&[slot(1, Some(6), Some(5)), slot(250, Some(6), None), slot(250, Some(6), None)]);
    let set = table.sets.get_mut("live").unwrap();
    set.remove(&live(15, 5));
    set.insert(live(15, 7));
    let map = table.maps.get_mut("slots").unwrap();
    map.insert(slot_key(0), mac(7));
    map.insert(slot_key(1), mac(5));
    map.remove(&slot_key(250));
    holds(&mut world, &table);
}

#[test]
fn a_bad_line_is_named_and_the_others_are_done() {
    let mut world = World::furnished();
    let mut table = table();
    world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
    let add = |element| Op::nft(FABRIC, key(), NftChange::AddElement("live".to_owned(), element));
    let ops = [
        add(live(16, 5)),
        add(Element::of([vip(15), Part::Iface("nonsense".to_owned())])),
        add(live(17, 5)),
        Op::nft(FABRIC, key(), NftChange::AddElement("nix".to_owned(), live(1, 5))),
        slot(3, None, Some(10)),
        add(live(18, 5)),
    ];
    let failed = world.kernel.apply(&ops);
    assert_eq!(failed.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 3, 4], "{failed:?}");
    let set = table.sets.get_mut("live").unwrap();
    set.extend([live(16, 5), live(17, 5), live(18, 5)]);
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
    let element = live(16, 5);
    world.done(&[Op::nft(
        FABRIC,
        key(),
        NftChange::AddElement("live".to_owned(), element.clone()),
    )]);
    table.sets.get_mut("live").unwrap().insert(element);
    world.restart();
    holds(&mut world, &table);
}

/// Changes of elements by other programs are seen although we applied nothing in between.
#[test]
fn elements_changed_by_others_are_seen() {
    let mut world = World::furnished();
    let mut table = table();
    world.done(&[Op::nft(FABRIC, key(), NftChange::Load(table.clone()))]);
    holds(&mut world, &table);
    let element = live(15, 5);
    world.run(FABRIC, &format!("nft delete element bridge skein-lb live {{ {element} }}"));
    table.sets.get_mut("live").unwrap().remove(&element);
    holds(&mut world, &table);
}

#[test]
fn tables_of_others_are_not_seen() {
    let mut world = World::furnished();
    let other = TableKey { family: Family::Inet, name: "filter".to_owned() };
    world.done(&[Op::nft(FABRIC, other, NftChange::Load(Table::default()))]);
    assert_eq!(world.seen(FABRIC).nft, [].into());
}
