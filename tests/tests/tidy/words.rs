//! Words that are not used in sources and documents, because they are old-fashioned, ambiguous or
//! not the term of GLOSSARY.md.

use std::fs;
use std::path::Path;

use crate::files::files;

/// The folders and files that are free of these words. Add a folder when it is.
const CLEAN: &[&str] = &[
    "api",
    "deploy",
    "docs",
    "gossip/examples",
    "gossip/src",
    "netprog",
    "node",
    "raft-store/cluster",
    "raft-store/src",
    "tests/lab",
    "tests/src",
    "tests/tests",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "GLOSSARY.md",
    "README.md",
];

/// Each word or phrase, and what to write instead.
const WORDS: &[(&str, &str)] = &[
    ("anew", "again"),
    ("another hand", "another program"),
    ("apiece", "each"),
    ("as yet", "yet"),
    ("bear", "carry, survive"),
    ("bears", "carries, survives"),
    ("beside", "next to"),
    ("came about", "happened, was created"),
    ("come about", "happen, be created"),
    ("comes about", "happens, is created"),
    ("hence", "so"),
    ("in vain", "without success"),
    ("is no more", "has ended"),
    ("lest", "so that … not"),
    ("likes of", "such as"),
    ("mend", "repair, correct"),
    ("mended", "repaired, corrected"),
    ("mends", "repairs, corrects"),
    ("of ours", "our"),
    ("other hands", "other programs"),
    ("the one who", "the process that, the user who"),
    ("thereof", "of it"),
    ("told apart", "distinguished"),
    ("told of", "reported, notified"),
    ("whence", "from where"),
    ("whoever", "the user who, any"),
    ("whomever", "the user whom, any"),
];

/// Text files by the end of their names.
const TEXT: &[&str] = &[".md", ".rs", ".sh", ".toml", ".yml", "Dockerfile", "Makefile"];

/// One complaint per line and word, with file and line.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.to_lowercase();
        for (word, instead) in WORDS.iter().filter(|(word, _)| contains(&line, word)) {
            let number = index + 1;
            complaints.push(format!("{path}:{number}: says {word:?}: write {instead:?}"));
        }
    }
    complaints
}

/// Whether a line has the word or phrase, not as part of a longer word or a longer name.
fn contains(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '-';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

fn is_text(path: &Path) -> bool {
    let name = path.to_string_lossy();
    TEXT.iter().any(|end| name.ends_with(end))
}

/// Goal: words that were replaced do not come back. Method: every text file of the clean folders.
#[test]
fn clean_folders_use_none_of_these_words() {
    let root = crate::root();
    let own = root.join(file!());
    let mut complaints = Vec::new();
    for clean in CLEAN.iter().map(|clean| root.join(clean)) {
        let found = if clean.is_dir() { files(&clean) } else { vec![clean] };
        for file in found.iter().filter(|file| is_text(file) && **file != own) {
            let path = file.strip_prefix(&root).unwrap_or(file).to_string_lossy();
            let text = fs::read_to_string(file).expect("a source file or document is text");
            complaints.extend(check(&path, &text));
        }
    }
    crate::report(&complaints);
}

#[test]
fn each_word_is_found_with_file_and_line() {
    for (word, _) in WORDS {
        let complaints = check("docs/a.md", &format!("One line.\nIt is {word}, as one says.\n"));
        let named = complaints.iter().filter(|one| one.starts_with("docs/a.md:2: says"));
        assert!(named.count() > 0, "{word}: {complaints:?}");
    }
    assert_eq!(check("a.rs", "//! Anew!").len(), 1);
    assert_eq!(check("a.rs", "fn changes_beside_traffic() {}").len(), 1);
}

#[test]
fn parts_of_longer_words_are_fine() {
    for text in ["bearing", "forbear", "besides", "recommended", "hence-forth", "the ones who"] {
        assert_eq!(check("a.rs", text), Vec::<String>::new());
    }
}
