//! What a member says of another node counts only with that node's proof. The attacker is host 9:
//! it has the cluster's keys and a key of its own.

use super::*;
use crate::anti_entropy::{Bundle, Digest, RestartNotice, SyncRequest};
use crate::codec::{self, Body, Packet};
use crate::keyring::Sender;
use crate::proof::{Author, GENERATION_MAX, Proof, Statement};
use crate::row::{EndpointValue, Record, Row, RowKey, Version};
use foca::{Header, Member, Message};

/// The victim.
const X: u8 = 2;
/// Who is lied to.
const Y: u8 = 1;
const THIEF: u8 = 3;

fn author(host: u8, signed_by: u8) -> Author {
    Author { cluster: CLUSTER, node: node(host), secret: secret(signed_by) }
}

fn outsider() -> SocketAddr {
    (Ipv4Addr::new(203, 0, 113, 66), 7946).into()
}

/// A datagram that the thief seals, with the same run and a counter each time: receivers do not
/// care.
fn sealed(body: &Body) -> Input {
    let sender = Sender { cluster: CLUSTER, node: node(THIEF), run: [9; 16] };
    let plain = codec::encode_datagram(body).unwrap();
    Input::Datagram(keyring().seal(&sender, 0, &plain).unwrap().into())
}

fn row(version: (u64, u64), record: Record, by: &Author) -> Row {
    let version = Version { generation: version.0, counter: version.1 };
    let proof = by.prove(Statement::Row(version, &record));
    Row { version, record, proof }
}

fn endpoint_of(host: u8, task: u16) -> Record {
    Record::Endpoint(key(host, task), Some(EndpointValue::from(&endpoint(host, task, true))))
}

fn pushed(rows: Vec<Row>) -> Input {
    sealed(&Body::Rows(vec![Bundle { owner: node(X), floor: 0, rows }]))
}

fn given(owner: u8, floor: u64, rows: Vec<Row>) -> Input {
    let give = SyncRequest::Give(vec![Bundle { owner: node(owner), floor, rows }], Vec::new());
    Input::SyncRequest { token: 1, bytes: codec::encode_sync(&give).unwrap().into() }
}

fn rows_of(net: &Net, at: u8, owner: u8) -> Vec<Row> {
    net.engine(at).rows().filter(|(of, _)| *of == node(owner)).map(|(_, row)| row.clone()).collect()
}

/// What the thief can make without the key of the owner.
fn forged_rows() -> Vec<(&'static str, Row)> {
    let thief = author(X, THIEF);
    let vtep = Record::Vtep(Some(VtepRow { address: outsider().ip() }));
    let of_itself = author(THIEF, THIEF).prove(Statement::Run(9, 0));
    vec![
        ("the VTEP", row((2, 1), vtep.clone(), &thief)),
        ("the VTEP, for ever", row((u64::MAX, 0), vtep, &thief)),
        ("an endpoint", row((2, 1), endpoint_of(X, 99), &thief)),
        ("a tombstone", row((1, 99), Record::tombstone(RowKey::Endpoint(key(X, 3))), &thief)),
        ("no proof", Row { proof: Proof::default(), ..row((2, 1), endpoint_of(X, 98), &thief) }),
        (
            "a proof of another thing",
            Row { proof: of_itself, ..row((2, 1), endpoint_of(X, 97), &thief) },
        ),
    ]
}

#[test]
fn a_row_counts_only_with_its_owners_proof() {
    let mut net = Net::started(1, 3, 0.0);
    let before = rows_of(&net, Y, X);
    for (what, forged) in forged_rows() {
        for input in [pushed(vec![forged.clone()]), given(X, 0, vec![forged])] {
            let refused = net.engine(Y).stats().forged;
            net.step(Y, input);
            assert_eq!(net.engine(Y).stats().forged, refused + 1, "{what}");
        }
    }
    net.run(ms(1_000));
    assert_eq!(rows_of(&net, Y, X), before);
    // The owner is not made to outrun them either.
    let rows = forged_rows().into_iter().map(|(_, row)| row).collect();
    net.step(X, given(X, 0, rows));
    net.run(ms(1_000));
    assert_eq!(net.engine(X).members()[1].generation, 1);
    assert!((1..=3).all(|h| net.shows_all(h, 30)), "{}", net.picture());
}

/// Goal: no owner locks itself out. Method: its own key signs a generation that has no next one.
#[test]
fn a_generation_that_no_node_comes_to_is_refused_though_it_is_signed() {
    let mut net = Net::started(2, 3, 0.0);
    let owner = author(X, X);
    for generation in [GENERATION_MAX + 1, u64::MAX] {
        let input = pushed(vec![row((generation, 0), endpoint_of(X, 50), &owner)]);
        let refused = net.engine(Y).stats().forged;
        net.step(Y, input);
        assert_eq!(net.engine(Y).stats().forged, refused + 1);
    }
    assert!(net.shows_all(Y, 30));
}

/// Goal: who has a node's key shuts out that node and nobody else, and not for longer than it is
/// listed. Method: the last generation, signed with the node's own key; then the node joins again.
#[test]
fn a_thief_of_a_nodes_key_shuts_out_that_node_until_it_joins_again() {
    let mut net = Net::started(9, 3, 0.0);
    let last = row((GENERATION_MAX, u64::MAX), endpoint_of(X, 50), &author(X, X));
    net.input(Y, pushed(vec![last.clone()]));
    net.until("the node finds out", ms(1_000), |net| net.engine(X).stats().impersonated > 0);
    net.run(ms(12_000));
    assert!(rows_of(&net, Y, X).contains(&last));
    assert_eq!(net.engine(X).refused().impersonated, net.engine(X).stats().impersonated);
    for host in [Y, THIEF] {
        assert_eq!(rows_of(&net, Y, host), rows_of(&net, THIEF, host));
        assert_eq!(net.liveness(Y, host), Some(Liveness::Alive));
    }
    net.crash(X);
    net.members = vec![Y, THIEF, 4];
    [Y, THIEF].into_iter().for_each(|host| net.tell_peers(host));
    assert_eq!((rows_of(&net, Y, X), rows_of(&net, THIEF, X)), (vec![], vec![]));
    net.input(Y, pushed(vec![last]));
    assert_eq!(rows_of(&net, Y, X), [], "its key counts no more");
    net.start(4);
    net.input(4, own(4, 0..10));
    let all = |net: &Net| [Y, THIEF, 4].into_iter().all(|host| net.shows_all(host, 30));
    net.until("all rows everywhere", ms(10_000), all);
}

#[test]
fn an_old_row_that_comes_again_changes_nothing_and_is_not_verified_again() {
    let mut net = Net::started(3, 3, 0.0);
    let old = rows_of(&net, Y, X);
    net.input(X, own(X, 5..10));
    net.until("five rows less", ms(1_000), |net| (1..=3).all(|h| net.shows_all(h, 25)));
    let (learned, sent) = (net.engine(Y).stats().rows_learned, net.sent);
    net.step(Y, given(X, 0, old.clone()));
    net.step(Y, pushed(old[..3].to_vec()));
    assert_eq!(net.sent, sent, "it is not pushed on");
    let stats = net.engine(Y).stats();
    assert_eq!((stats.rows_learned, stats.forged), (learned, 0));
    assert!(net.shows_all(Y, 25));
}

#[test]
fn a_floor_that_no_row_of_the_owner_has_reached_takes_nothing_away() {
    let mut net = Net::started(4, 3, 0.0);
    for floor in [2, u64::MAX] {
        net.step(Y, given(X, floor, Vec::new()));
        assert!(net.shows_all(Y, 30), "{floor}");
    }
    // After it the owner's rows are still taken.
    net.input(X, own(X, 0..12));
    net.until("two rows more", ms(1_000), |net| (1..=3).all(|h| net.shows_all(h, 32)));
}

fn said(members: Vec<Member<crate::Identity>>, message: Message<crate::Identity>) -> Input {
    let src = crate::Identity::of_run(&author(THIEF, THIEF), 1, 0, address(THIEF));
    let dst = crate::Identity::of_run(&author(Y, Y), 1, 0, address(Y));
    let header = Header { src, src_incarnation: 0, dst, message };
    let payload = Packet { header, members }.encode().unwrap();
    sealed(&Body::Membership(vec![Digest::empty(node(THIEF))], payload))
}

/// Goal: nobody gives a node another address, or a run that its real one loses against. Method: a
/// member says so of it, with every proof that it can make, and with the proof of the real run.
#[test]
fn a_run_counts_only_with_its_nodes_proof_and_where_the_managers_say_that_it_is() {
    let mut net = Net::started(5, 3, 0.0);
    let real = crate::Identity::of_run(&author(X, X), 1, 0, address(X));
    let by_thief =
        |generation| crate::Identity::of_run(&author(X, THIEF), generation, 0, address(X));
    let table = [
        ("a later run", by_thief(2)),
        ("the last run", by_thief(u64::MAX)),
        ("a renewal of the real run", crate::Identity { renewals: u32::MAX, ..real }),
        ("another address", crate::Identity { address: outsider(), ..real }),
        ("another address of a later run", crate::Identity { address: outsider(), ..by_thief(2) }),
    ];
    for (what, identity) in table {
        let refusals = |net: &Net| {
            let stats = net.engine(Y).stats();
            stats.forged + stats.unlisted
        };
        let refused = refusals(&net);
        for member in [Member::alive(identity), Member::down(identity)] {
            net.input(Y, said(vec![member], Message::Gossip));
        }
        assert_eq!(refusals(&net), refused + 2, "{what}");
        let members = net.engine(Y).members();
        assert_eq!((members[1].address, members[1].generation), (address(X), 1), "{what}");
        assert_eq!(net.liveness(Y, X), Some(Liveness::Alive), "{what}");
    }
    net.run(ms(3_000));
    assert!((1..=3).all(|h| net.shows_all(h, 30)), "{}", net.picture());
    // Of a packet with a forged member nothing is taken, and nothing more is verified.
    let refused = net.engine(Y).stats().forged;
    let members = [by_thief(2), by_thief(3), real].map(Member::down);
    net.input(Y, said(members.to_vec(), Message::Gossip));
    assert_eq!(net.engine(Y).stats().forged, refused + 1);
    assert_eq!(net.liveness(Y, X), Some(Liveness::Alive));
    // What the thief is asked to do for others it must not have done to strangers.
    let target = crate::Identity { address: outsider(), ..real };
    let sent = net.sent;
    net.input(Y, said(Vec::new(), Message::PingReq { target, probe_number: 1 }));
    assert_eq!(net.sent, sent);
}

/// Goal: a node that has moved is found, and nobody sends others after it.
#[test]
fn a_new_run_at_another_address_is_noted_and_not_heard() {
    let mut net = Net::started(5, 3, 0.0);
    let at = |run: crate::Identity| crate::Identity { address: outsider(), ..run };
    let real = |generation| crate::Identity::of_run(&author(X, X), generation, 0, address(X));
    let forged = crate::Identity::of_run(&author(X, THIEF), 9, 0, address(X));
    let elsewhere = |net: &Net| net.engine(Y).elsewhere().collect::<Vec<_>>();
    // The run that is heard where it should be, and one that is not the node's.
    for nothing in [real(1), real(0), forged] {
        net.input(Y, said(vec![Member::alive(at(nothing))], Message::Gossip));
        assert_eq!(elsewhere(&net), []);
    }
    net.input(Y, said(vec![Member::alive(at(real(2)))], Message::Gossip));
    assert_eq!(elsewhere(&net), [(node(X), outsider())]);
    let members = net.engine(Y).members();
    assert_eq!((members[1].address, members[1].generation), (address(X), 1));
    assert_eq!(net.liveness(Y, X), Some(Liveness::Alive));
}

/// Goal: nobody keeps a node alive by its own words of before. Method: its real notice, again after
/// the grace; and one in an exchange that names a node twice, or is forged.
#[test]
fn a_restart_that_is_over_does_not_begin_again() {
    let mut net = Net::started(7, 3, 0.0);
    let proof = author(X, X).prove(Statement::Restart(1));
    let notice = RestartNotice { node: node(X), generation: 1, grace_ms: 2_000, proof };
    net.crash(X);
    net.input(Y, sealed(&Body::Restarting(notice)));
    net.run(ms(1_500));
    assert_eq!(net.liveness(Y, X), Some(Liveness::Alive));
    net.run(ms(5_000));
    assert_eq!(net.liveness(Y, X), Some(Liveness::Down));
    net.input(Y, sealed(&Body::Restarting(notice)));
    assert_eq!(net.liveness(Y, X), Some(Liveness::Down));
}

#[test]
fn a_false_death_is_refuted_as_ever() {
    let mut net = Net::started(6, 3, 0.0);
    let real = crate::Identity::of_run(&author(X, X), 1, 0, address(X));
    net.input(Y, said(vec![Member::down(real)], Message::Gossip));
    assert_eq!(net.liveness(Y, X), Some(Liveness::Down));
    net.until("it is alive again", ms(1_000), |net| {
        [Y, 3].iter().all(|h| net.liveness(*h, X) == Some(Liveness::Alive))
    });
    assert_eq!(net.engine(X).stats().rejoins, 1);
    assert_eq!(net.engine(Y).members()[1].renewals, 1);
}

#[test]
fn a_restart_counts_only_if_the_node_itself_announced_it() {
    let mut net = Net::started(7, 3, 0.0);
    net.crash(X);
    net.run(ms(5_000));
    let by_thief = author(X, THIEF).prove(Statement::Restart(1));
    for generation in [1, 2] {
        let notice = RestartNotice { node: node(X), generation, grace_ms: 30_000, proof: by_thief };
        net.input(Y, sealed(&Body::Restarting(notice)));
        assert_eq!(net.liveness(Y, X), Some(Liveness::Down));
    }
}

/// Goal: who loads a large table serves others meanwhile. Method: no step verifies more than its
/// share, whatever the length of the message.
#[test]
fn a_long_message_is_taken_in_step_by_step() {
    use crate::engine::intake::VERIFIED_MAX;
    let mut net = Net::started(8, 3, 0.0);
    let owner = author(X, X);
    let count = 3 * VERIFIED_MAX as u64;
    let rows = (1..=count).map(|n| row((1, 1_000 + n), endpoint_of(X, 100 + n as u16), &owner));
    let learned = net.engine(Y).stats().rows_learned;
    net.step(Y, given(X, 0, rows.collect()));
    let now = net.engine(Y).stats();
    assert_eq!((now.rows_learned - learned, now.intake), (VERIFIED_MAX as u64, 1));
    assert_eq!(net.engine(Y).next_deadline(), Some(net.now));
    let end = net.now;
    while net.engine(Y).stats().intake > 0 && net.advance(end) {}
    assert_eq!(net.engine(Y).stats().rows_learned - learned, count);
    // One that holds a forged row is dropped from there on.
    let mut rows = vec![row((1, 5_000), endpoint_of(X, 5_000), &author(X, THIEF))];
    rows.push(row((1, 5_001), endpoint_of(X, 5_001), &owner));
    net.step(Y, given(X, 0, rows));
    assert_eq!(net.engine(Y).stats().rows_learned - learned, count);
}

/// Goal: how late a change is counts from when it arrived. Method: a daemon that has no time for a
/// long message that it was given.
#[test]
fn what_waits_to_be_verified_is_told_from_its_arrival_on() {
    use crate::engine::intake::VERIFIED_MAX;
    let mut net = Net::started(9, 3, 0.0);
    assert_eq!(net.engine(Y).unshown_since(), None, "all is shown");
    let owner = author(X, X);
    let count = 3 * VERIFIED_MAX as u64;
    let rows = (1..=count).map(|n| row((1, 1_000 + n), endpoint_of(X, 100 + n as u16), &owner));
    let arrived = net.now;
    net.step(Y, given(X, 0, rows.collect()));
    assert_eq!(net.engine(Y).unshown_since(), Some(arrived));
    net.now += ms(7_000);
    let before = net.engine(Y).view().endpoints.len();
    net.step(Y, Input::Timer);
    let engine = net.engine(Y);
    assert!(engine.view().endpoints.len() > before, "a part was taken in");
    assert_eq!((engine.shown_since(), engine.unshown_since()), (arrived, Some(arrived)));
    let end = net.now;
    while net.engine(Y).stats().intake > 0 && net.advance(end) {}
    let engine = net.engine(Y);
    assert_eq!((engine.shown_since(), engine.unshown_since()), (arrived, None));
}
