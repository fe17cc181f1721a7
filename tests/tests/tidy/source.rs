//! A small reader of Rust source: blanks out what is not code, and measures functions.

/// The same text, line by line and byte by byte, with comments, strings and character literals
/// replaced by spaces: what is left can be searched for words and braces.
pub(crate) fn blank_non_code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_non_code(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            let blank = |byte: &u8| if *byte == b'\n' { b'\n' } else { b' ' };
            out.extend(bytes[at..end].iter().map(blank));
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` itself when none starts there.
fn end_of_non_code(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    } else if rest.starts_with(b"/*") {
        at + rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |to| to + 2)
    } else if rest[0] == b'"' {
        at + quoted(rest, b'"')
    } else if rest[0] == b'r' && !after_word {
        raw_string(rest).map_or(at, |length| at + length)
    } else if rest.starts_with(b"br") && !after_word {
        raw_string(&rest[1..]).map_or(at, |length| at + 1 + length)
    } else if rest[0] == b'\'' && is_character(rest) {
        at + quoted(rest, b'\'')
    } else {
        at
    }
}

/// Length of a literal with escapes, both quotes included.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of `r"…"` or `r#"…"#`, if `rest` starts with one.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let body = &rest[2 + hashes..];
    let to = body.windows(end.len()).position(|window| window == end)?;
    Some(2 + hashes + to + end.len())
}

/// Tells a character literal from a lifetime.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(first) if first.is_ascii() => rest.get(2) == Some(&b'\''),
        Some(_) => true,
        None => false,
    }
}

/// A function's name, the line on which it starts and its lines of code: blank lines and lines of
/// comment are not counted, as in clippy's `too_many_lines`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Every function with a body, nested ones too.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word =
            at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        if let Some((from, to)) = body(bytes, at) {
            let inner = code[from + 1..to].lines();
            let lines = inner.filter(|line| !line.trim().is_empty()).count();
            found.push(Function { name, line: 1 + code[..at].matches('\n').count(), lines });
        }
    }
    found
}

/// The positions of the braces of the body of the function whose `fn` is at `at`.
fn body(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut brackets = 0_i32;
    let mut open = None;
    for (index, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if brackets == 0 => return None,
            b'{' if brackets == 0 => {
                open = Some(index);
                break;
            }
            _ => {}
        }
    }
    let open = open?;
    let mut depth = 0_i32;
    for (index, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return Some((open, index));
        }
    }
    None
}

#[test]
fn comments_and_literals_are_blanked_and_lines_kept() {
    let text = concat!(
        "let a = \"fn x() {\"; // fn y\n",
        "let b = '{'; let c: &'static str = r#\"}\"\"#;\n",
        "/* {\n */ d\n",
    );
    let code = blank_non_code(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!code.contains('{') && !code.contains('}') && !code.contains("fn"), "{code}");
    assert!(code.contains("let c: &'static str =") && code.contains(" d"), "{code}");
}

#[test]
fn functions_are_found_and_measured() {
    let text = concat!(
        "trait T { fn no_body(&self) -> [u8; 4]; }\n",
        "pub fn long(a: [u8; 2]) {\n    a;\n\n    // why\n    if a { b }\n}\n",
        "fn outer() {\n    fn inner() {\n        c;\n    }\n}\n",
    );
    let found = functions(&blank_non_code(text));
    let expected = [("long", 2, 2), ("outer", 8, 3), ("inner", 9, 1)]
        .map(|(name, line, lines)| Function { name: name.to_owned(), line, lines });
    assert_eq!(found, expected);
}
