//! Operations as lines of an nft script.

use std::fmt::Write;

use netprog::op::Op;
use netprog::plane::{Table, TableKey};

use super::reference::DECLARATION;

/// Elements on one line: long lines cost nft more than many lines.
const ELEMENTS_PER_LINE: usize = 256;

/// The script of these operations; operations that are not nft's add nothing.
pub(super) fn transaction(ops: &[Op]) -> String {
    let mut script = String::new();
    for op in ops {
        // Writing to a string cannot fail.
        let _infallible = line(&mut script, op);
    }
    script
}

fn line(script: &mut String, op: &Op) -> std::fmt::Result {
    match op {
        Op::LoadTable(_, key, table) => load(script, key, table),
        Op::DeleteTable(_, key) => writeln!(script, "delete table {}", Name(key)),
        Op::AddElement(_, key, set, element) => change(script, "add", (key, set), element),
        Op::DeleteElement(_, key, set, element) => change(script, "delete", (key, set), element),
        Op::SetMapElement { table, map, key, old, new, .. } => {
            if old.is_some() {
                change(script, "delete", (table, map), key)?;
            }
            match new {
                Some(new) => change(script, "add", (table, map), &format!("{key} : {new}")),
                None => Ok(()),
            }
        }
        shared_op!() | single_op!() | entry_op!() | ipvs_op!() => Ok(()),
    }
}

/// Adds elements to sets.
pub(super) fn elements(all: &[(TableKey, &str, String)]) -> String {
    let mut script = String::new();
    for (table, set, element) in all {
        // Writing to a string cannot fail.
        let _infallible = change(&mut script, "add", (table, set), element);
    }
    script
}

struct Name<'a>(&'a TableKey);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0.family.name(), self.0.name)
    }
}

fn change(
    script: &mut String,
    verb: &str,
    (table, set): (&TableKey, &str),
    element: &str,
) -> std::fmt::Result {
    writeln!(script, "{verb} element {} {set} {{ {element} }}", Name(table))
}

/// `add` makes the `delete` possible where there is no such table yet; all three are one
/// transaction, so packets meet the old table or the new one, never none.
fn load(script: &mut String, key: &TableKey, table: &Table) -> std::fmt::Result {
    let name = Name(key);
    writeln!(script, "add table {name}\ndelete table {name}\ntable {name} {{")?;
    writeln!(script, "comment \"{}\"\n{DECLARATION}\n{}\n}}", table.digest, table.structure)?;
    for (set, elements) in &table.sets {
        let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
        for some in elements.chunks(ELEMENTS_PER_LINE) {
            change(script, "add", (key, set), &some.join(", "))?;
        }
    }
    for (map, elements) in &table.maps {
        let elements: Vec<String> =
            elements.iter().map(|(key, value)| format!("{key} : {value}")).collect();
        for some in elements.chunks(ELEMENTS_PER_LINE) {
            change(script, "add", (key, map), &some.join(", "))?;
        }
    }
    Ok(())
}
