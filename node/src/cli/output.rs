//! What the client prints: tables for people, JSON for programs.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::Value;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON object a line, as the API gives it.
    Json,
}

/// Flags of every list.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Where everything goes; tests read it back.
pub struct Out<'a>(pub &'a mut dyn Write);

impl Out<'_> {
    /// One line.
    pub fn line(&mut self, text: impl AsRef<str>) -> anyhow::Result<()> {
        writeln!(self.0, "{}", text.as_ref())?;
        Ok(())
    }

    /// A value, indented.
    pub fn json(&mut self, value: &Value) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// A list: ids, JSON lines, or columns.
    pub fn list(
        &mut self,
        args: &ListArgs,
        items: &[Value],
        header: &[&str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> anyhow::Result<()> {
        if args.quiet {
            return items.iter().try_for_each(|item| {
                let id = [text(item, "/ID"), text(item, "/Id")].concat();
                self.line(id)
            });
        }
        match args.format {
            Format::Json => items.iter().try_for_each(|item| self.line(item.to_string())),
            Format::Table => {
                let rows: Vec<Vec<String>> = items.iter().map(row).collect();
                self.table(header, &rows)
            }
        }
    }

    /// Columns, three spaces apart, as docker's.
    pub fn table(&mut self, header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
        let cells = |n: usize| {
            let column = rows.iter().filter_map(move |row| row.get(n));
            column.map(|cell| cell.chars().count())
        };
        let widths: Vec<usize> = header
            .iter()
            .enumerate()
            .map(|(n, title)| cells(n).chain([title.len()]).max().unwrap_or_default())
            .collect();
        let first: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
        for row in std::iter::once(&first).chain(rows) {
            let padded: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            self.line(padded.join("   ").trim_end())?;
        }
        Ok(())
    }
}

/// Text at a JSON pointer; numbers as text; empty if absent.
#[must_use]
pub fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(flag)) => flag.to_string(),
        _absent => String::new(),
    }
}

/// Items of an array, none if it is absent.
#[must_use]
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// First letter in upper case.
pub fn capitalise(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_columns_ids_or_json() {
        let list = [json!({"ID": "a1", "Name": "web"}), json!({"Id": "b", "Name": "db"})];
        let print = |quiet, format| {
            let mut bytes = Vec::new();
            Out(&mut bytes)
                .list(&ListArgs { quiet, format }, &list, &["ID", "NAME"], |item| {
                    vec![[text(item, "/ID"), text(item, "/Id")].concat(), text(item, "/Name")]
                })
                .unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(print(false, Format::Table), "ID   NAME\na1   web\nb    db\n");
        assert_eq!(print(true, Format::Table), "a1\nb\n");
        assert_eq!(print(false, Format::Json).lines().count(), 2);
    }
}
