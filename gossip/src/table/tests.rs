//! Laws: tables that took the same rows and floors hold the same, in any order and any number of
//! times, and an exchange makes two tables equal.

use super::*;
use crate::anti_entropy::{self, Known, Question, Standing};
use crate::proof::Proof;
use crate::row::{EndpointValue, Record};
use cluster::id::{NetworkId, TaskId};
use cluster::net::{Addresses, MacAddr};
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner};
use proptest::prelude::*;

const START: Now = Now::ZERO;

#[derive(Debug, Clone)]
enum Fact {
    Row(NodeId, Row),
    Floor(NodeId, u64),
}

fn take(table: &mut Table, fact: &Fact) {
    match fact {
        Fact::Row(owner, row) => {
            let foreseen = table.foresee(*owner, row);
            assert_eq!(table.merge(*owner, row.clone(), START), foreseen);
        }
        Fact::Floor(owner, generation) => {
            table.raise(*owner, *generation);
        }
    }
}

fn table(facts: &[Fact]) -> Table {
    let mut table = Table::default();
    facts.iter().for_each(|fact| take(&mut table, fact));
    table
}

/// All that can be observed of a table.
fn content(table: &Table) -> Vec<(Digest, Vec<Row>)> {
    let rows = |owner| table.rows_of(owner).cloned().collect();
    table.owners().map(|owner| (table.digest(owner), rows(owner))).collect()
}

fn arb_row(versions: std::ops::Range<u64>) -> impl Strategy<Value = Row> {
    (1_u64..4, versions, 0_u128..4, proptest::option::of(0_u32..3)).prop_map(
        |(generation, counter, task, value)| {
            let owner = EndpointOwner::Task(TaskId(task));
            let key = EndpointKey { network: NetworkId(1), owner };
            let value = value.map(|address| EndpointValue {
                addresses: Addresses::V4(address.into()),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                condition: Condition::Ready,
                revision: Revision(1),
            });
            let version = Version { generation, counter };
            Row { version, record: Record::Endpoint(key, value), proof: Proof::default() }
        },
    )
}

fn arb_facts() -> impl Strategy<Value = Vec<Fact>> {
    let owner = (1_u128..3).prop_map(NodeId);
    let fact = (owner, arb_row(0..6), 0_u64..12).prop_map(|(owner, row, floor)| match floor {
        0..4 => Fact::Floor(owner, floor),
        _ => Fact::Row(owner, row),
    });
    proptest::collection::vec(fact, 0..24)
}

/// One correct owner's writes: versions are unique, and a floor stands for all before it.
fn arb_history() -> impl Strategy<Value = Vec<Row>> {
    proptest::collection::vec(arb_row(0..1), 0..40).prop_map(|mut rows| {
        rows.sort_by_key(|row| row.version);
        for (counter, row) in (1..).zip(rows.iter_mut()) {
            row.version.counter = counter;
        }
        rows
    })
}

proptest! {
    #[test]
    fn merge_is_commutative_and_idempotent(
        facts in arb_facts(),
        order in any::<proptest::sample::Index>(),
    ) {
        let mut other = facts.clone();
        if !other.is_empty() {
            let at = order.index(other.len());
            other.rotate_left(at);
            other.reverse();
        }
        let once = table(&facts);
        other.extend(facts.iter().cloned());
        // A floor that came twice, or in between, leaves no trace but itself.
        prop_assert_eq!(content(&table(&other)), content(&once));
    }

    #[test]
    fn merge_is_associative(left in arb_facts(), middle in arb_facts(), right in arb_facts()) {
        let all = [left.clone(), middle.clone(), right.clone()].concat();
        // (left, middle) joined first, then right; against left joined with (middle, right).
        let mut first = table(&[left.clone(), middle.clone()].concat());
        right.iter().for_each(|fact| take(&mut first, fact));
        let mut second = table(&[middle, right].concat());
        left.iter().for_each(|fact| take(&mut second, fact));
        prop_assert_eq!(content(&first), content(&second));
        prop_assert_eq!(content(&first), content(&table(&all)));
    }

    #[test]
    fn digests_count_what_is_there(facts in arb_facts()) {
        let table = table(&facts);
        for owner in table.owners() {
            let digest = table.digest(owner);
            let live: Vec<&Row> = table.rows_of(owner).filter(|r| r.record.is_live()).collect();
            let hash = live.iter().fold(0, |hash, row| hash ^ codec::row_hash(row));
            prop_assert_eq!((digest.live as usize, digest.hash), (live.len(), hash));
            prop_assert!(table.rows_of(owner).all(|row| row.version <= digest.last));
            prop_assert!(table.rows_of(owner).all(|row| row.version.generation >= digest.floor));
        }
    }

    #[test]
    fn an_exchange_makes_tables_agree(
        history in arb_history(),
        left_has: Vec<bool>,
        right_has: Vec<bool>,
        left_floor: bool,
    ) {
        let owner = NodeId(1);
        let part = |has: &[bool]| {
            let mut table = Table::default();
            for (at, row) in history.iter().enumerate() {
                if has.get(at).copied().unwrap_or(false) {
                    table.merge(owner, row.clone(), START);
                }
            }
            table
        };
        let (mut left, mut right) = (part(&left_has), part(&right_has));
        if left_floor {
            history.iter().for_each(|row| { left.merge(owner, row.clone(), START); });
            left.raise(owner, history.last().map_or(0, |row| row.version.generation));
        }
        let standing = Standing::default();
        let known = |table: &Table| vec![Known { digest: table.digest(owner), standing }];
        let buckets = left.buckets().differing(right.buckets().hashes()).into_iter().collect();
        let question = Question { buckets, known: known(&left), after: None };
        let found = anti_entropy::answer(&right, &known(&right), &question);
        for bundle in found.bundles {
            bundle.rows.into_iter().for_each(|row| { left.merge(owner, row, START); });
            left.raise(owner, bundle.floor);
        }
        let digests = found.known.into_iter().map(|known| known.digest);
        let (give, _) = anti_entropy::deltas(&left, digests);
        for bundle in give {
            bundle.rows.into_iter().for_each(|row| { right.merge(owner, row, START); });
            right.raise(owner, bundle.floor);
        }
        prop_assert!(left.digest(owner).agrees(&right.digest(owner)));
        prop_assert_eq!(left.buckets(), right.buckets());
        let live = |table: &Table| -> Vec<Row> {
            table.rows_of(owner).filter(|row| row.record.is_live()).cloned().collect()
        };
        prop_assert_eq!(live(&left), live(&right));
    }
}

fn row(generation: u64, counter: u64, task: u128) -> Row {
    let owner = EndpointOwner::Task(TaskId(task));
    let key = EndpointKey { network: NetworkId(1), owner };
    let value = EndpointValue {
        addresses: Addresses::V4([10, 0, 0, task as u8].into()),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        condition: Condition::Ready,
        revision: Revision(1),
    };
    let version = Version { generation, counter };
    Row { version, record: Record::Endpoint(key, Some(value)), proof: Proof::default() }
}

#[test]
fn rows_below_the_floor_vanish_and_stay_away() {
    let owner = NodeId(1);
    let mut table = Table::default();
    table.merge(owner, row(1, 1, 1), START);
    table.merge(owner, row(1, 2, 2), START);
    table.merge(owner, row(2, 1, 2), START);
    assert_eq!(table.raise(owner, 2), [row(1, 1, 1).record.key()]);
    assert_eq!(table.merge(owner, row(1, 1, 1), START), Merged::Superseded);
    assert_eq!(table.raise(owner, 1), []);
    assert_eq!(table.rows_of(owner).collect::<Vec<_>>(), [&row(2, 1, 2)]);
}

#[test]
fn tombstones_expire_at_the_horizon_and_do_not_count() {
    let owner = NodeId(1);
    let mut table = Table::default();
    table.merge(owner, row(1, 1, 1), START);
    let record = Record::tombstone(row(1, 1, 1).record.key());
    let version = Version { generation: 1, counter: 2 };
    let dead = Row { version, record, proof: Proof::default() };
    table.merge(owner, dead, Now::from_secs(5));
    let before = table.digest(owner);
    assert_eq!((before.live, table.sizes()), (0, (0, 1)));
    table.expire(Now::from_secs(14), Now::from_secs(10));
    assert_eq!(table.sizes(), (0, 1));
    assert_eq!(table.merge(owner, row(1, 1, 1), Now::from_secs(14)), Merged::Known);
    table.expire(Now::from_secs(15), Now::from_secs(10));
    assert_eq!(table.sizes(), (0, 0));
    assert_eq!(table.digest(owner), before);
}

#[test]
fn only_later_rows_are_sent_to_who_holds_the_earlier_ones() {
    let owner = NodeId(1);
    let mut table = Table::default();
    (1..=4).for_each(|n| {
        table.merge(owner, row(1, n, n.into()), START);
    });
    let mut behind = Table::default();
    (1..=2).for_each(|n| {
        behind.merge(owner, row(1, n, n.into()), START);
    });
    let sent = |theirs: &Table| -> Vec<u64> {
        let bundle = table.delta(&theirs.digest(owner)).unwrap();
        bundle.rows.iter().map(|row| row.version.counter).collect()
    };
    assert_eq!(sent(&behind), [3, 4]);
    let mut holed = behind.clone();
    holed.merge(owner, row(1, 4, 4), START);
    assert_eq!(sent(&holed), [1, 2, 3, 4]);
    assert_eq!(sent(&Table::default()), [1, 2, 3, 4]);
    assert!(table.delta(&table.digest(owner)).is_none());
    assert!(behind.delta(&table.digest(owner)).is_some(), "it may hold what the other lacks");
}

#[test]
fn an_owner_cannot_fill_the_memory() {
    let owner = NodeId(1);
    let mut table = Table::default();
    for n in 0..ROWS_PER_OWNER_MAX as u64 {
        assert_eq!(table.merge(owner, row(1, n, n.into()), START), Merged::News);
    }
    let more = ROWS_PER_OWNER_MAX as u64;
    assert_eq!(table.merge(owner, row(1, more, more.into()), START), Merged::Full);
    assert_eq!(table.merge(owner, row(1, more, 3), START), Merged::News);
    assert_eq!(table.sizes(), (ROWS_PER_OWNER_MAX, 0));
}
