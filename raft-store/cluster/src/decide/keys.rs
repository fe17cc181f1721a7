//! Turning the key that seals gossip, so that no live member ever meets a datagram that it cannot
//! open: the new key is spread first, seals when all have it, and the old one is forgotten when
//! all seal with the new one. Who was removed is out of gossip from then on.

use std::sync::Arc;

use crate::draft::Draft;
use crate::object::{Cluster, GossipKey, KeyTurn};
use crate::rejection::{Code, Rejection};
use crate::request::{Answer, KeyStep};
use crate::transaction::Object;

/// Keys of a cluster at one time: the one that seals, and its successor or predecessor.
const KEYS_MAX: usize = 3;

/// A step that does not fit where the turn is changes nothing: another leader was faster.
pub(super) fn turn(draft: &mut Draft<'_>, step: &KeyStep) -> Result<Answer, Rejection> {
    let Some(cluster) = &draft.state().cluster else {
        return Err(Rejection::new(Code::Unavailable, super::NOT_A_MANAGER));
    };
    let now = draft.now();
    let mut cluster = Cluster::clone(cluster);
    match (step, cluster.key_turn) {
        (KeyStep::Spread { key }, KeyTurn::Done) => {
            let id = free_id(&cluster.gossip_keys);
            let at = cluster.gossip_keys.len().min(1);
            cluster.gossip_keys.insert(at, GossipKey { id, key: *key });
            cluster.gossip_keys.truncate(KEYS_MAX);
            cluster.key_turn = KeyTurn::Spreads;
            // After each removal, whatever the clocks of two leaders say: none knows this one.
            let removed = cluster.removed.values().max().map_or(now, |at| at.plus_ms(1));
            cluster.key_made_at = now.max(removed);
        }
        (KeyStep::Seal, KeyTurn::Spreads) => {
            if cluster.gossip_keys.len() > 1 {
                cluster.gossip_keys.swap(0, 1);
            }
            cluster.key_turn = KeyTurn::Seals;
        }
        (KeyStep::Forget, KeyTurn::Seals) => {
            cluster.gossip_keys.truncate(1);
            cluster.key_turn = KeyTurn::Done;
        }
        (KeyStep::Spread { .. } | KeyStep::Seal | KeyStep::Forget, _) => return Ok(Answer::Done),
    }
    draft.put(Object::Cluster(Arc::new(cluster)));
    Ok(Answer::Done)
}

/// The id after the newest one, from the start again after the last.
fn free_id(keys: &[GossipKey]) -> u8 {
    let newest = keys.first().map_or(0, |key| key.id);
    let ids = (1..=u8::MAX).map(|step| newest.wrapping_add(step));
    let mut free = ids.filter(|id| *id != 0 && keys.iter().all(|key| key.id != *id));
    free.next().unwrap_or(1)
}

#[test]
fn ids_go_round_and_skip_those_in_use() {
    let key = |id| GossipKey { id, key: [0; 32] };
    for (used, expected) in [
        (vec![], 1),
        (vec![1], 2),
        (vec![1, 2], 3),
        (vec![255], 1),
        (vec![254, 255], 1),
        (vec![255, 1], 2),
    ] {
        let keys: Vec<GossipKey> = used.iter().map(|id| key(*id)).collect();
        assert_eq!(free_id(&keys), expected, "{used:?}");
    }
}
