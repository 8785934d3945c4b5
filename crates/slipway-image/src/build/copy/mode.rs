//! `--chmod`: octal numbers, and letters as the `chmod` command has them.

const OPERATORS: [char; 3] = ['+', '-', '='];

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

/// One operator with what stands behind it: the `go-w` of `u+x,go-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Permission, set-id and sticky bits of those that it is about.
    who: u32,
    operator: Operator,
    what: Vec<Permission>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Read,
    Write,
    Execute,
    /// Execution for folders, and for what somebody may execute already.
    ExecuteIfAny,
    SetId,
    Sticky,
    /// The bits that another class has now.
    Like(Class),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    User,
    Group,
    Others,
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
        let bits = self.what.iter().fold(0, |bits, one| bits | one.bits(mode, is_dir)) & self.who;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => {
                // As `chmod` has it, a folder keeps set-id bits that are not named.
                let kept = if is_dir { self.who & 0o6000 } else { 0 };
                (mode & !(self.who & !kept)) | bits
            }
        }
    }
}

impl Operator {
    fn read(letter: char) -> Option<Self> {
        match letter {
            '+' => Some(Self::Add),
            '-' => Some(Self::Remove),
            '=' => Some(Self::Set),
            _ => None,
        }
    }
}

impl Permission {
    fn read(letter: char) -> Option<Self> {
        match letter {
            'r' => Some(Self::Read),
            'w' => Some(Self::Write),
            'x' => Some(Self::Execute),
            'X' => Some(Self::ExecuteIfAny),
            's' => Some(Self::SetId),
            't' => Some(Self::Sticky),
            'u' => Some(Self::Like(Class::User)),
            'g' => Some(Self::Like(Class::Group)),
            'o' => Some(Self::Like(Class::Others)),
            _ => None,
        }
    }

    /// Its bits for everybody, of something that has `mode`.
    fn bits(self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Read => 0o444,
            Self::Write => 0o222,
            Self::Execute => 0o111,
            Self::ExecuteIfAny if is_dir || mode & 0o111 != 0 => 0o111,
            Self::ExecuteIfAny => 0,
            Self::SetId => 0o6000,
            Self::Sticky => 0o1000,
            Self::Like(Class::User) => spread(mode >> 6),
            Self::Like(Class::Group) => spread(mode >> 3),
            Self::Like(Class::Others) => spread(mode),
        }
    }
}

/// The bits of one class, for all three.
fn spread(class: u32) -> u32 {
    (class & 7) * 0o111
}

/// Reads a mode.
pub(crate) fn parse_mode(text: &str) -> Result<ModeChange, ModeError> {
    if text.contains(OPERATORS) {
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
        let (classes, mut rest) = part.split_at(part.find(OPERATORS)?);
        let who = if classes.is_empty() {
            // Nobody named means everybody: a build has no umask.
            0o7777
        } else {
            classes.chars().try_fold(0, |who, class| Some(who | bits_of(class)?))?
        };
        while let Some(operator) = rest.chars().next() {
            let letters = &rest[operator.len_utf8()..];
            let (letters, more) = letters.split_at(letters.find(OPERATORS).unwrap_or(letters.len()));
            let what: Vec<Permission> = letters.chars().map(Permission::read).collect::<Option<_>>()?;
            // Another class stands alone.
            if what.len() > 1 && what.iter().any(|one| matches!(one, Permission::Like(_))) {
                return None;
            }
            clauses.push(Clause { who, operator: Operator::read(operator)?, what });
            rest = more;
        }
    }
    Some(clauses)
}

/// The bits that changes for a class may touch.
fn bits_of(class: char) -> Option<u32> {
    match class {
        'u' => Some(0o4700),
        'g' => Some(0o2070),
        'o' => Some(0o1007),
        'a' => Some(0o7777),
        _ => None,
    }
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
