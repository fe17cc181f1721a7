//! Operations as lines of an nft script.

use std::fmt::{Display, Write};

use netprog::op::{NftChange, NftOp};
use netprog::plane::element::Element;
use netprog::plane::{Table, TableKey};

use super::reference::DECLARATION;

/// Elements on one line: long lines cost nft more than many lines.
const ELEMENTS_PER_LINE: usize = 256;

/// The script of these operations.
pub(super) fn transaction(ops: &[NftOp]) -> String {
    let mut script = String::new();
    for op in ops {
        // Writing to a string cannot fail.
        let _infallible = line(&mut script, op);
    }
    script
}

fn line(script: &mut String, op: &NftOp) -> std::fmt::Result {
    let table = &op.table;
    match &op.change {
        NftChange::Load(content) => load(script, table, content),
        NftChange::Delete => writeln!(script, "delete table {table}"),
        NftChange::AddElement(set, element) => change(script, "add", (table, set), element),
        NftChange::DeleteElement(set, element) => change(script, "delete", (table, set), element),
        NftChange::SetMapElement { map, key, old, new } => {
            if old.is_some() {
                change(script, "delete", (table, map), key)?;
            }
            match new {
                Some(new) => change(script, "add", (table, map), format_args!("{key} : {new}")),
                None => Ok(()),
            }
        }
    }
}

/// Adds elements to sets.
pub(super) fn elements(all: &[(TableKey, &str, Element)]) -> String {
    let mut script = String::new();
    for (table, set, element) in all {
        // Writing to a string cannot fail.
        let _infallible = change(&mut script, "add", (table, set), element);
    }
    script
}

fn change(
    script: &mut String,
    verb: &str,
    (table, set): (&TableKey, &str),
    element: impl Display,
) -> std::fmt::Result {
    writeln!(script, "{verb} element {table} {set} {{ {element} }}")
}

/// `add` makes the `delete` possible where there is no such table yet; all three are one
/// transaction, so packets meet the old table or the new one, never none.
fn load(script: &mut String, key: &TableKey, table: &Table) -> std::fmt::Result {
    writeln!(script, "add table {key}\ndelete table {key}\ntable {key} {{")?;
    writeln!(script, "comment \"{}\"\n{DECLARATION}\n{}\n}}", table.digest, table.structure)?;
    for (set, elements) in &table.sets {
        let elements: Vec<String> = elements.iter().map(Element::to_string).collect();
        for some in elements.chunks(ELEMENTS_PER_LINE) {
            change(script, "add", (key, set), some.join(", "))?;
        }
    }
    for (map, elements) in &table.maps {
        let elements: Vec<String> =
            elements.iter().map(|(key, value)| format!("{key} : {value}")).collect();
        for some in elements.chunks(ELEMENTS_PER_LINE) {
            change(script, "add", (key, map), some.join(", "))?;
        }
    }
    Ok(())
}
