//! `--chmod`: octal numbers, and letters as the `chmod` command has them.

/// Why a mode cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// Letters that `chmod` does not know.
    #[error("`{0}` is not a symbolic mode such as `u=rwX,go=rX`")]
    Symbolic(String),
    /// No octal number up to 7777.
    #[error("`{0}` is not an octal mode such as 755")]
    Malformed(String),
}

/// What is done with the mode of each file that is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModeChange {
    /// The same for all.
    Octal(u32),
    /// Changes of each file's own mode, in order.
    Symbolic(Vec<Clause>),
}

/// One operator with its letters: the `go-w` of `u+x,go-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Permission, set-id and sticky bits of those that it is about.
    who: u32,
    operator: char,
    letters: String,
}

impl ModeChange {
    /// The new mode of a file that has `mode`.
    pub(crate) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(octal) => *octal,
            Self::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let mut bits = 0;
        for letter in self.letters.chars() {
            bits |= match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                // For folders, and for what somebody may execute already.
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                // The bits that another class has now.
                'u' => spread(mode >> 6),
                'g' => spread(mode >> 3),
                'o' => spread(mode),
                _ => 0,
            };
        }
        let bits = bits & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => {
                // As `chmod` has it, a folder keeps set-id bits that are not named.
                let kept = if is_dir { self.who & 0o6000 } else { 0 };
                (mode & !(self.who & !kept)) | bits
            }
        }
    }
}

fn spread(class: u32) -> u32 {
    (class & 7) * 0o111
}

/// Reads a mode.
pub(crate) fn parse_mode(text: &str) -> Result<ModeChange, ModeError> {
    if text.contains(['+', '-', '=']) {
        return clauses(text).map(ModeChange::Symbolic).ok_or_else(|| ModeError::Symbolic(text.to_owned()));
    }
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let valid = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|&mode| valid && mode <= 0o7777)
        .map(ModeChange::Octal)
        .ok_or_else(|| ModeError::Malformed(text.to_owned()))
}

fn clauses(text: &str) -> Option<Vec<Clause>> {
    let mut clauses = Vec::new();
    for part in text.split(',') {
        let at = part.find(['+', '-', '='])?;
        let mut who = 0;
        for class in part[..at].chars() {
            who |= match class {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        // Nobody named means everybody: a build has no umask.
        let who = if at == 0 { 0o7777 } else { who };
        let mut rest = &part[at..];
        while let Some(operator) = rest.chars().next() {
            let letters = &rest[1..];
            let end = letters.find(['+', '-', '=']).unwrap_or(letters.len());
            let letters = &letters[..end];
            let copies = letters.contains(['u', 'g', 'o']);
            if letters.contains(|c| !"rwxXstugo".contains(c)) || (copies && letters.len() > 1) {
                return None;
            }
            clauses.push(Clause { who, operator, letters: letters.to_owned() });
            rest = &rest[1 + end..];
        }
    }
    Some(clauses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_modes() {
        for (text, mode) in [("755", 0o755), ("0644", 0o644), ("4755", 0o4755), ("0", 0)] {
            assert_eq!(parse_mode(text), Ok(ModeChange::Octal(mode)));
        }
        for bad in ["", "8", "77777", "rwx", "z+x", "u+q", "u", "u+x,", "u=ug", "u+x go-w"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }

    /// What `chmod` of coreutils makes of the same modes (with umask 0).
    #[test]
    fn letters_change_the_mode_that_is_there() {
        for (text, before, file, dir) in [
            ("u+x", 0o644, 0o744, 0o744),
            ("+x", 0o644, 0o755, 0o755),
            ("u+x,go-w", 0o666, 0o744, 0o744),
            ("a=r", 0o777, 0o444, 0o444),
            ("a=r,u+w", 0o777, 0o644, 0o644),
            ("u=rwX,go=rX", 0o600, 0o644, 0o755),
            ("u=rwX,go=rX", 0o700, 0o755, 0o755),
            ("go=", 0o777, 0o700, 0o700),
            ("g=u,o=g", 0o740, 0o777, 0o777),
            ("u+s", 0o755, 0o4755, 0o4755),
            ("+t", 0o755, 0o1755, 0o1755),
            ("u+w-x+r", 0o311, 0o611, 0o611),
            ("a-x+X", 0o755, 0o644, 0o755),
        ] {
            let change = parse_mode(text).unwrap();
            assert_eq!(change.apply(before, false), file, "{text} of a file");
            assert_eq!(change.apply(before, true), dir, "{text} of a folder");
        }
    }
}
