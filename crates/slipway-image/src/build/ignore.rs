//! `.dockerignore`: which files of the context a build does not see.
//!
//! The rules are those of Docker (`moby/patternmatcher`): patterns are cleaned like paths, `*` and `?` stay within
//! one component, `**` spans any number of them, `[…]` is a class, `\` escapes; a leading `/` means nothing; `!`
//! takes files back; the last pattern that matches a path or one of its parents decides.

mod matcher;
#[cfg(test)]
mod tests;

use matcher::Matcher;

/// Longest `.dockerignore` in bytes.
pub const MAX_TEXT: usize = 1 << 20;
const MAX_PATTERNS: usize = 10_000;

/// Why a text is no `.dockerignore`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A pattern has bad syntax.
    #[error("line {line}: `{pattern}` is not a pattern: {reason}")]
    InvalidPattern {
        /// 1-based line.
        line: u32,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file is too long.
    #[error("the file has more than {MAX_TEXT} bytes or {MAX_PATTERNS} patterns")]
    TooLong,
}

/// One pattern of a `.dockerignore`.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As written, without white space around it.
    pub text: String,
    /// 1-based line.
    pub line: u32,
    /// Whether it takes files back (`!`).
    pub negated: bool,
    matcher: Matcher,
}

/// A compiled `.dockerignore`. The default ignores nothing.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

impl Ignore {
    /// Compiles a `.dockerignore`.
    ///
    /// # Errors
    /// The first pattern with bad syntax, or a file beyond the limits.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        if text.len() > MAX_TEXT {
            return Err(IgnoreError::TooLong);
        }
        let mut patterns = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line_number = number as u32 + 1;
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let (negated, body) = match trimmed.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, trimmed),
            };
            let invalid = |reason| IgnoreError::InvalidPattern {
                line: line_number,
                pattern: trimmed.to_owned(),
                reason,
            };
            if body.is_empty() {
                return Err(invalid("`!` needs a pattern behind it"));
            }
            let matcher = Matcher::new(&clean(body)).map_err(invalid)?;
            patterns.push(Pattern { text: trimmed.to_owned(), line: line_number, negated, matcher });
            if patterns.len() > MAX_PATTERNS {
                return Err(IgnoreError::TooLong);
            }
        }
        Ok(Self { patterns })
    }

    /// Compiles patterns that are given one by one, as `--exclude` has them.
    ///
    /// # Errors
    /// The first pattern with bad syntax.
    pub fn from_patterns<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, IgnoreError> {
        let mut all = Self::default();
        for pattern in patterns {
            // A comment only in a file.
            let escaped = if pattern.starts_with('#') { format!("\\{pattern}") } else { pattern.to_owned() };
            all.patterns.append(&mut Self::parse(&escaped)?.patterns);
        }
        Ok(all)
    }

    /// Whether it has no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path is ignored.
    ///
    /// `path` is relative to the context, slash-separated, without `.` and `..`; the root is the empty path and never
    /// ignored.
    pub fn is_ignored(&self, path: &str) -> bool {
        self.deciding(path).is_some_and(|at| !self.patterns[at].negated)
    }

    /// The pattern that makes a path ignored, if it is.
    pub fn ignored_by(&self, path: &str) -> Option<&Pattern> {
        self.deciding(path).map(|at| &self.patterns[at]).filter(|pattern| !pattern.negated)
    }

    /// Whether a walker may leave out a folder and all inside: it is ignored, and no later `!` pattern can match
    /// anything below it.
    pub fn may_skip_folder(&self, path: &str) -> bool {
        let Some(at) = self.deciding(path).filter(|&at| !self.patterns[at].negated) else {
            return false;
        };
        !self.patterns[at + 1..]
            .iter()
            .any(|pattern| pattern.negated && pattern.matcher.can_match_below(path))
    }

    /// The last pattern that matches the path or one of its parents.
    fn deciding(&self, path: &str) -> Option<usize> {
        if path.is_empty() || path == "." {
            return None;
        }
        self.patterns.iter().rposition(|pattern| pattern.matcher.matches_path_or_parent(path))
    }
}

/// A pattern as Go's `path.Clean` leaves it, without one leading slash.
fn clean(pattern: &str) -> String {
    let rooted = pattern.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}
