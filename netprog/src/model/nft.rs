//! Tables of nftables with their elements.

use super::{Model, Refused};
use crate::op::{NftChange, NftOp};
use crate::plane::{Place, TABLE_PREFIX, Table, TableKey};

impl Model {
    pub(super) fn change_nft(&mut self, place: Place, op: &NftOp) -> Refused {
        let key = &op.table;
        match &op.change {
            NftChange::Load(table) => {
                if !key.name.starts_with(TABLE_PREFIX) {
                    return Err(format!("table {} is not ours", key.name));
                }
                self.space(place)?.nft.insert(key.clone(), table.clone());
                Ok(())
            }
            NftChange::Delete => self.gone(place, |space| {
                space.nft.remove(key);
            }),
            NftChange::AddElement(set, element) => {
                let elements = self.table(place, key)?.sets.get_mut(set);
                elements.ok_or_else(|| no_set(key, set))?.insert(element.clone());
                Ok(())
            }
            NftChange::DeleteElement(set, element) => {
                let elements = self.table(place, key)?.sets.get_mut(set);
                elements.ok_or_else(|| no_set(key, set))?.remove(element);
                Ok(())
            }
            NftChange::SetMapElement { map, key: element, old, new } => {
                let elements = self.table(place, key)?.maps.get_mut(map);
                let elements = elements.ok_or_else(|| no_set(key, map))?;
                if old.is_some() {
                    elements.remove(element);
                }
                let Some(new) = new else { return Ok(()) };
                if elements.get(element).is_some_and(|there| there != new) {
                    return Err(format!("map {map} has another value for {element}"));
                }
                elements.insert(element.clone(), new.clone());
                Ok(())
            }
        }
    }

    fn table(&mut self, place: Place, key: &TableKey) -> Result<&mut Table, String> {
        let space = self.space(place)?;
        space.nft.get_mut(key).ok_or_else(|| format!("there is no table {}", key.name))
    }
}

fn no_set(key: &TableKey, set: &str) -> String {
    format!("table {} has no set or map {set}", key.name)
}
