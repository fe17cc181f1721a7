//! Goal: an answer makes a whole assignment or none, and a refusal names the part. Method: the
//! answer that a leader gives for a small state, changed in one place.

use super::*;
use crate::assign::{Parts, assignment_for};
use crate::fixture::{attachment, new, small_state, task, transaction};
use crate::state::State;
use crate::transaction::Object;

const NODE: NodeId = NodeId(2);
const NETWORK: PartId = PartId::Network(NetworkId(3));

/// Weak, and of all bytes.
fn hash(bytes: &[u8]) -> [u8; 32] {
    let sum =
        bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&sum.to_be_bytes());
    hash
}

/// The node has a task on one network.
fn state() -> State {
    let mut state = small_state();
    let mut placed = task(7, 5, vec![attachment(3, "10.0.1.3")]);
    placed.node = Some(NODE);
    let entry = transaction(vec![new(Object::Task(Arc::new(placed)))]);
    assert_eq!(state.apply(Revision(2), &entry), crate::apply::Outcome::Applied);
    state
}

fn told(have: &BTreeSet<Digest>) -> Told {
    let mut parts = Parts::new(hash);
    parts.follow(&state());
    parts.tell(NODE, have).unwrap()
}

fn listed(told: &mut Told, part: PartId) -> &mut Listed {
    told.parts.iter_mut().find(|listed| listed.part == part).unwrap()
}

/// Gives a part other bytes, and the digest of them.
fn rewrite(told: &mut Told, part: PartId, from: &str, to: &str) {
    let listed = listed(told, part);
    let text = String::from_utf8(listed.bytes.take().unwrap().to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    let bytes = text.replacen(from, to, 1).into_bytes();
    listed.digest = Digest(hash(&bytes));
    listed.bytes = Some(bytes.into());
}

#[test]
fn an_answer_that_is_not_right_is_refused() {
    let held = Held::next(None, NODE, told(&BTreeSet::new()), hash).unwrap();
    assert_eq!(*held.assignment, assignment_for(&state(), NODE).unwrap());
    assert_eq!(held.assignment.networks.len(), 1);
    let refused = |change: &dyn Fn(&mut Told)| {
        let mut told = told(&BTreeSet::new());
        change(&mut told);
        Held::next(Some(&held), NODE, told, hash).unwrap_err().to_string()
    };
    let id = NetworkId(3);
    let error =
        refused(&|told| listed(told, PartId::Common).bytes = Some(Bytes::from_static(b"{}")));
    assert!(error.starts_with("the common part has the digest"), "{error}");
    let error = refused(&|told| listed(told, NETWORK).digest = Digest([9; 32]));
    assert!(error.starts_with(&format!("the part of network {id} has the digest")), "{error}");
    let error = refused(&|told| {
        *listed(told, PartId::Own) =
            Listed { part: PartId::Own, digest: Digest([9; 32]), bytes: None };
    });
    assert_eq!(error, "the node's own part is listed, was not sent, and is not here");
    let error = refused(&|told| told.parts.retain(|listed| listed.part != NETWORK));
    assert_eq!(error, format!("the part of network {id} is not listed"));
    let addresses = r#"{"v4":"10.0.1.3"}"#;
    for other in ["{}", r#"{"v4":null,"v6":"fd00::3"}"#, r#"{"v6":"fd00:0::3"}"#] {
        let error = refused(&|told| rewrite(told, NETWORK, addresses, other));
        assert_eq!(error, format!("read the part of network {id}"), "{other}");
    }
    let both = r#"{"v4":"10.0.1.3","v6":"fd00::3"}"#;
    let error = refused(&|told| rewrite(told, PartId::Own, addresses, both));
    assert!(error.starts_with(&format!("network {id} has addresses of both IPv4 and")), "{error}");
    let subnets = r#"{"v4":"10.0.1.1/24"}"#;
    for other in ["{}", r#"{"v4":"10.0.1.1"}"#, r#"{"v6":"10.0.1.1/24"}"#] {
        let error = refused(&|told| rewrite(told, NETWORK, subnets, other));
        assert_eq!(error, format!("read the part of network {id}"), "{other}");
    }
    let both = r#"{"v4":"10.0.1.1/24","v6":"fd00::1/64"}"#;
    let error = refused(&|told| rewrite(told, NETWORK, subnets, both));
    assert!(error.starts_with(&format!("network {id} has addresses of both IPv4 and")), "{error}");
    let error = refused(&|told| told.parts.push(told.parts[0].clone()));
    assert_eq!(error, "the common part is listed twice");
    let error = refused(&|told| {
        let part = PartId::Network(NetworkId(4));
        told.parts.push(Listed { part, ..told.parts[0].clone() });
    });
    let other = NetworkId(4);
    assert!(error.starts_with(&format!("the part of network {other} is listed, and")), "{error}");
    let error = refused(&|told| rewrite(told, PartId::Common, "{", "["));
    assert_eq!(error, "read the common part");
    let own = |id: NodeId| format!("\"node\":\"{id}\"");
    let error = refused(&|told| rewrite(told, PartId::Own, &own(NODE), &own(NodeId(3))));
    assert_eq!(error, "the node's own part is another one's");
    let id_of = |id: NetworkId| format!("\"id\":\"{id}\"");
    let error = refused(&|told| rewrite(told, NETWORK, &id_of(id), &id_of(other)));
    assert_eq!(error, format!("the part of network {id} is another one's"));
    let error = refused(&|told| told.revision = Revision(1));
    assert_eq!(error, "an assignment of revision 1 after one of 2");
}

/// Goal: what is on disk is not sent again.
#[test]
fn what_was_kept_lacks_nothing() {
    let before = Held::next(None, NODE, told(&BTreeSet::new()), hash).unwrap();
    let kept = Held::restore(NODE, before.kept(), hash).unwrap();
    let told = told(&kept.digests());
    assert!(told.parts.iter().all(|listed| listed.bytes.is_none()));
    let held = Held::next(Some(&kept), NODE, told, hash).unwrap();
    assert_eq!(held.digest, before.digest);
}
