//! The API as clients see it: routes and wire shapes over a real replicated state, and the real
//! docker CLI against a served router.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use cluster::id::ID_CHARS;

mod cli;
mod client;
mod fake;
mod lists;
mod routes;
mod workload;

/// Puts `<id 1>`, `<id 2>` … for ids, so that goldens do not depend on how ids are drawn. The CLI
/// also prints their first twelve characters.
fn without_ids(text: &str) -> String {
    let is_digit = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase();
    let mut ids: Vec<&str> = Vec::new();
    for word in text.split(|c| !is_digit(c)).filter(|word| word.len() == ID_CHARS) {
        if !ids.contains(&word) {
            ids.push(word);
        }
    }
    let mut shown = text.to_owned();
    for (index, id) in ids.iter().enumerate() {
        let label = format!("<id {}>", index + 1);
        shown = shown.replace(id, &label).replace(&id[..SHORT_ID_CHARS], &label);
    }
    shown
}

/// Characters of an id that the CLI's tables show.
const SHORT_ID_CHARS: usize = 12;
