//! Patterns in the sources of COPY and ADD (Go's `path.Match`: `*`, `?`, `[…]`, `\`).

use super::files::{ContextFiles, Entry, FileKind};

/// Most paths that one pattern is followed to.
const MAX_MATCHES: usize = 1000;

/// Whether a source is a pattern.
pub(super) fn is_pattern(source: &str) -> bool {
    source.contains(['*', '?', '[', '\\'])
}

/// Paths of the context that match a pattern, ignored ones included.
pub(super) fn find(pattern: &str, files: &dyn ContextFiles) -> Vec<(String, Entry)> {
    let mut found: Vec<(String, Entry)> =
        vec![(String::new(), Entry { kind: FileKind::Folder, ignored_by: None })];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for (folder, entry) in &found {
            if entry.kind != FileKind::Folder {
                continue;
            }
            let below =
                |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if !is_pattern(part) {
                let path = below(part);
                next.extend(files.entry(&path).map(|entry| (path, entry)));
                continue;
            }
            let mut names = files.list(folder);
            names.retain(|(name, _)| matches(part, name));
            names.sort_by(|a, b| a.0.cmp(&b.0));
            next.extend(names.into_iter().map(|(name, entry)| (below(&name), entry)));
            if next.len() > MAX_MATCHES {
                next.truncate(MAX_MATCHES);
                break;
            }
        }
        found = next;
    }
    found
}

/// Whether one component matches a pattern without slashes.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and how much of the name it has taken: the only place to come back to.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, n));
            p += 1;
            continue;
        }
        if n == name.len() {
            return p == pattern.len();
        }
        match one(&pattern[p..], name[n]) {
            Some(width) => {
                p += width;
                n += 1;
            }
            None => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
}

/// How long the front of a pattern is that matches one character.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['[', ..] => {
            let close = pattern.iter().skip(2).position(|&c| c == ']')? + 2;
            let body = &pattern[1..close];
            let (negated, body) = match body {
                ['^', rest @ ..] => (true, rest),
                _ => (false, body),
            };
            let mut inside = false;
            let mut at = 0;
            while at < body.len() {
                if at + 2 < body.len() && body[at + 1] == '-' {
                    inside |= body[at] <= c && c <= body[at + 2];
                    at += 3;
                } else {
                    inside |= body[at] == c;
                    at += 1;
                }
            }
            (inside != negated).then_some(close + 1)
        }
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}
