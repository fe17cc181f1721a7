//! Rules of the text itself: lengths, forbidden words, no paths of one machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{blank_non_code, functions};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// The one place that may wait between two looks at a condition.
const WAITS: &str = "tests/lab/src/wait.rs";

/// Folders without source of this project; the last two are published crates with changes.
const SKIPPED: &[&str] = &["target", ".git", "base2histogram", "foca"];

/// Every complaint about one Rust file. `path` is relative to the workspace's root.
fn check_rust(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain =
        |line: usize, what: String| complaints.push(format!("{path}:{line}: {what}"));
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        complain(1, format!("{lines} lines, {FILE_LINES_MAX} are allowed"));
    }
    if path.ends_with("/mod.rs") {
        complain(1, "is named mod.rs: write foo.rs next to foo/".to_owned());
    }
    for (index, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            complain(index + 1, format!("{columns} columns, {COLUMNS_MAX} are allowed"));
        }
    }
    let code = blank_non_code(text);
    for function in functions(&code) {
        if function.lines > FUNCTION_LINES_MAX {
            let (name, lines) = (&function.name, function.lines);
            let what = format!("{name} has {lines} lines, {FUNCTION_LINES_MAX} are allowed");
            complain(function.line, what);
        }
    }
    let is_test = path.starts_with("tests/") || path.ends_with("tests.rs");
    for (index, line) in code.lines().enumerate() {
        if line.replace(' ', "").contains("#[ignore") {
            complain(index + 1, "ignores a test: fix it or remove it".to_owned());
        }
        if is_test && path != WAITS && line.contains("sleep(") {
            complain(index + 1, "sleeps in a test: wait for a condition".to_owned());
        }
    }
    complaints
}

/// Complaints about text of any kind: a path that exists on one machine only.
fn check_any(path: &str, text: &str, checkout: &str) -> Vec<String> {
    let homes = [["/ho", "me/"].concat(), ["/ro", "ot/"].concat(), checkout.to_owned()];
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for home in homes.iter().filter(|home| home.len() > 1 && names(line, home)) {
            complaints.push(format!("{path}:{}: names this machine's path {home}", index + 1));
        }
    }
    complaints
}

/// Whether a line has an absolute path, and not one that merely goes on with the same names.
fn names(line: &str, home: &str) -> bool {
    let goes_on = |before: char| before.is_alphanumeric() || "._-}".contains(before);
    line.match_indices(home).any(|(at, _)| !line[..at].ends_with(goes_on))
}

/// All files under `folder`, sorted, without what is built or belongs to git.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace is readable") {
            let path = entry.expect("an entry of a folder is readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if SKIPPED.contains(&name.as_str()) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Goal: the style rules that can be counted hold. Method: every text file of the workspace.
#[test]
fn files_keep_the_style_rules() {
    let root = crate::root();
    let checkout = root.to_string_lossy().into_owned();
    let mut complaints = Vec::new();
    let mut rust = 0;
    for file in files(&root) {
        let path = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(&file) else { continue };
        complaints.extend(check_any(&path, &text, &checkout));
        if path.ends_with(".rs") {
            rust += 1;
            complaints.extend(check_rust(&path, &text));
        }
    }
    assert!(rust > 10, "the workspace has source files, found {rust}");
    crate::report(&complaints);
}

#[test]
fn each_rule_can_fail() {
    let long_line = format!("// {}\n", "x".repeat(COLUMNS_MAX));
    let long_file = "//\n".repeat(FILE_LINES_MAX + 1);
    let long_function = format!("fn f() {{\n{}}}\n", "a();\n".repeat(FUNCTION_LINES_MAX + 1));
    for (path, text, words) in [
        ("a/src/b.rs", long_line.as_str(), "columns"),
        ("a/src/b.rs", long_file.as_str(), "601 lines"),
        ("a/src/b.rs", long_function.as_str(), "f has 71 lines"),
        ("a/src/b/mod.rs", "", "named mod.rs"),
        ("a/src/b.rs", "#[test]\n#[ignore]\nfn f() {}", "ignores"),
        ("a/src/tests.rs", "fn f() { tokio::time::sleep(t).await }", "sleeps"),
        ("tests/src/b.rs", "fn f() { thread::sleep(t) }", "sleeps"),
    ] {
        let complaints = check_rust(path, text);
        assert_eq!(complaints.len(), 1, "{path}: {complaints:?}");
        assert!(complaints[0].contains(words), "{complaints:?}");
    }
    let checkout = "/somewhere/skein";
    assert_eq!(check_any("README.md", "in /somewhere/skein/target\n", checkout).len(), 1);
}

#[test]
fn good_text_passes() {
    let text = "//! Says why.\nfn f() {\n    run(\"sleep(1)\"); // sleep(2)\n}\n";
    assert_eq!(check_rust("tests/src/b.rs", text), Vec::<String>::new());
    assert_eq!(check_rust(WAITS, "fn f() { thread::sleep(t) }"), Vec::<String>::new());
    for text in ["in /var/lib/skein\n", "in node/src/root/table.rs\n"] {
        assert_eq!(check_any("README.md", text, "/somewhere"), Vec::<String>::new());
    }
}
