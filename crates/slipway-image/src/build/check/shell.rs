//! Reads a shell script just well enough to see which simple commands it has. What it is unsure of it marks so.

use std::collections::BTreeSet;

/// Longest script that is read.
const MAX_SCRIPT: usize = 64 << 10;
const MAX_COMMANDS: usize = 2000;

/// A script's simple commands, in order.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) commands: Vec<Simple>,
    /// The script could not be read to its end: it may do anything.
    pub(super) unclear: bool,
}

/// A simple command.
#[derive(Debug, Default)]
pub(super) struct Simple {
    pub(super) words: Vec<ShellWord>,
    /// Files that output goes to.
    pub(super) outputs: Vec<ShellWord>,
    /// It may not run at all, or may fail without harm.
    pub(super) guarded: bool,
    /// How deep in subshells it stands.
    pub(super) subshell: usize,
    /// It reads its input from a pipe.
    pub(super) piped: bool,
}

/// A word of a command.
#[derive(Clone, Debug)]
pub(super) struct ShellWord {
    /// Its value; none where it hangs on something that is not known (a variable, a pattern, another command).
    pub(super) value: Option<String>,
    /// Bytes of the script.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Reads a script. `lookup` gives the values of variables that are known.
pub(super) fn read(script: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Script {
    if script.len() > MAX_SCRIPT {
        return Script { commands: Vec::new(), unclear: true };
    }
    let mut reader = Reader {
        text: script,
        bytes: script.as_bytes(),
        at: 0,
        lookup,
        assigned: BTreeSet::new(),
        script: Script::default(),
        list: Vec::new(),
        current: Simple::default(),
        blocks: 0,
        subshell: 0,
        heredocs: Vec::new(),
    };
    reader.run();
    reader.script
}

struct Reader<'s> {
    text: &'s str,
    bytes: &'s [u8],
    at: usize,
    lookup: &'s dyn Fn(&str) -> Option<String>,
    /// Variables that the script itself sets.
    assigned: BTreeSet<String>,
    script: Script,
    /// Commands of the current list of `&&` and `||`, with the operator before each.
    list: Vec<(usize, Joint)>,
    current: Simple,
    /// Open `if`, `while`, `for` and `case`.
    blocks: usize,
    subshell: usize,
    /// Delimiters of heredocs whose bodies start on the next line, and whether tabs are stripped.
    heredocs: Vec<(String, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Joint {
    First,
    And,
    Or,
    Pipe,
}

impl Reader<'_> {
    fn run(&mut self) {
        let mut joint = Joint::First;
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            match rest {
                [b' ' | b'\t' | b'\r', ..] => self.at += 1,
                [b'\\', b'\n', ..] => self.at += 2,
                [b'#', ..] => self.at += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()),
                [b'\n', ..] => {
                    self.at += 1;
                    self.end_list(joint);
                    joint = Joint::First;
                    self.skip_heredocs();
                }
                [b'&', b'&', ..] => joint = self.operator(2, joint, Joint::And),
                [b'|', b'|', ..] => joint = self.operator(2, joint, Joint::Or),
                [b'&', b'>', ..] => self.redirect(),
                [b'|', b'&', ..] => joint = self.operator(2, joint, Joint::Pipe),
                [b'|', ..] => joint = self.operator(1, joint, Joint::Pipe),
                [b';' | b'&', ..] => {
                    self.at += 1;
                    self.end_list(joint);
                    joint = Joint::First;
                }
                [b'(', ..] => {
                    self.at += 1;
                    // A function: its body runs who knows when.
                    if !self.current.words.is_empty() {
                        self.script.unclear = true;
                        return;
                    }
                    self.subshell += 1;
                    self.script.unclear |= self.subshell > 16;
                }
                [b')', ..] => {
                    self.at += 1;
                    self.end_list(joint);
                    joint = Joint::First;
                    self.subshell = self.subshell.saturating_sub(1);
                }
                [b'<' | b'>', ..] => self.redirect(),
                _ => self.word(),
            }
            if self.script.unclear {
                break;
            }
        }
        self.end_list(joint);
        self.script.unclear |= self.blocks > 0;
    }

    fn operator(&mut self, width: usize, before: Joint, after: Joint) -> Joint {
        self.at += width;
        self.end_command(before);
        after
    }

    fn end_command(&mut self, joint: Joint) {
        let mut command = std::mem::take(&mut self.current);
        if command.words.is_empty() && command.outputs.is_empty() {
            return;
        }
        command.guarded |= self.blocks > 0;
        command.subshell = self.subshell;
        command.piped = joint == Joint::Pipe;
        self.script.unclear |= self.script.commands.len() >= MAX_COMMANDS;
        self.list.push((self.script.commands.len(), joint));
        self.script.commands.push(command);
    }

    /// Ends a list: what stands behind a test or `||`, or before `||`, is guarded.
    fn end_list(&mut self, joint: Joint) {
        self.end_command(joint);
        let list = std::mem::take(&mut self.list);
        let mut after_test = false;
        let last_or = list.iter().rposition(|&(_, joint)| joint == Joint::Or).unwrap_or(0);
        for (position, &(index, joint)) in list.iter().enumerate() {
            after_test |= joint == Joint::Or;
            let command = &mut self.script.commands[index];
            command.guarded |= after_test || position < last_or;
            let first = command.words.first().and_then(|word| word.value.as_deref());
            after_test |= matches!(first, Some("[" | "[[" | "test" | "grep" | "!" | "which" | "command"));
        }
    }

    /// A word, a keyword or an assignment.
    fn word(&mut self) {
        let word = self.read_word();
        if word.start == word.end {
            return;
        }
        let raw = &self.text[word.start..word.end];
        if self.current.words.is_empty() {
            match raw {
                "if" | "while" | "until" | "for" | "case" | "select" => {
                    self.blocks += 1;
                    if matches!(raw, "for" | "select" | "case") {
                        // The rest of the line is no command.
                        self.current.guarded = true;
                        self.current.words.push(word);
                    }
                    return;
                }
                "fi" | "done" | "esac" => {
                    self.blocks = self.blocks.saturating_sub(1);
                    return;
                }
                "then" | "else" | "elif" | "do" | "{" | "}" => return,
                "!" => {
                    self.current.guarded = true;
                    return;
                }
                "function" => {
                    self.script.unclear = true;
                    return;
                }
                _ => {}
            }
        }
        if let Some((name, _)) = raw.split_once('=')
            && is_name(name)
        {
            self.assigned.insert(name.to_owned());
        }
        let first = self.current.words.first().and_then(|word| word.value.as_deref());
        if matches!(first, Some("read" | "for" | "export" | "local" | "unset" | "getopts")) && is_name(raw) {
            self.assigned.insert(raw.to_owned());
        }
        self.current.words.push(word);
    }

    /// `>file`, `>&1`, `<file`, `<<EOF`; `read_word` has taken the number before it.
    fn redirect(&mut self) {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(b"<<") && !rest.starts_with(b"<<<") {
            self.at += 2;
            let strip = self.bytes.get(self.at) == Some(&b'-');
            self.at += usize::from(strip);
            self.skip_blanks();
            let word = self.read_word();
            let raw: String =
                self.text[word.start..word.end].chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
            if !raw.is_empty() {
                self.heredocs.push((raw, strip));
            }
            return;
        }
        let output = rest.contains(&b'>') && !rest.starts_with(b"<");
        self.at += rest.iter().take_while(|byte| matches!(byte, b'<' | b'>' | b'&' | b'|')).count();
        if self.bytes[self.at - 1] == b'&' {
            // `>&1` duplicates a descriptor.
            self.at += self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit() || **b == b'-').count();
            return;
        }
        self.skip_blanks();
        let word = self.read_word();
        if output && word.end > word.start {
            self.current.outputs.push(word);
        }
    }

    fn skip_blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn skip_heredocs(&mut self) {
        for (delimiter, strip) in std::mem::take(&mut self.heredocs) {
            while self.at < self.bytes.len() {
                let rest = &self.text[self.at..];
                let line = rest.split_inclusive('\n').next().unwrap_or(rest);
                self.at += line.len();
                let mut line = line.trim_end_matches(['\r', '\n']);
                if strip {
                    line = line.trim_start_matches('\t');
                }
                if line == delimiter {
                    break;
                }
            }
        }
    }

    /// Reads a word and its value, up to a blank or an operator that is not quoted. Empty where there is none.
    fn read_word(&mut self) -> ShellWord {
        let start = self.at;
        let mut value = Some(String::new());
        let mut plain = true;
        while let Some(c) = self.text[self.at..].chars().next() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' => break,
                '<' | '>' => {
                    // Digits directly before a redirection name a descriptor and are no word.
                    let digits = self.at > start && self.bytes[start..self.at].iter().all(u8::is_ascii_digit);
                    if digits {
                        self.redirect();
                        return ShellWord { value: None, start: self.at, end: self.at };
                    }
                    break;
                }
                '\'' => {
                    plain = false;
                    let body = self.at + 1;
                    let length = self.text[body..].find('\'');
                    self.script.unclear |= length.is_none();
                    let end = body + length.unwrap_or(self.text.len() - body);
                    append(&mut value, &self.text[body..end]);
                    self.at = (end + 1).min(self.text.len());
                }
                '"' => {
                    plain = false;
                    self.at += 1;
                    self.double_quoted(&mut value);
                }
                '\\' => {
                    plain = false;
                    self.at += 1;
                    if let Some(c) = self.text[self.at..].chars().next() {
                        if c != '\n' {
                            append(&mut value, c.encode_utf8(&mut [0; 4]));
                        }
                        self.at += c.len_utf8();
                    }
                }
                '$' => self.dollar(&mut value),
                '`' => {
                    value = None;
                    let body = self.at + 1;
                    let length = self.text[body..].find('`');
                    self.script.unclear |= length.is_none();
                    self.at = length.map_or(self.text.len(), |length| body + length + 1);
                }
                _ => {
                    let first = self.at == start;
                    if matches!(c, '*' | '?' | '{') || (c == '[' && !first) || (c == '~' && first) {
                        value = None;
                    }
                    append(&mut value, c.encode_utf8(&mut [0; 4]));
                    self.at += c.len_utf8();
                }
            }
            if self.script.unclear {
                break;
            }
        }
        // An operator where a word was expected: step over it, or the reader would stand still.
        if self.at == start && plain {
            self.at += self.text[self.at..].chars().next().map_or(0, char::len_utf8);
            return ShellWord { value: None, start: self.at, end: self.at };
        }
        ShellWord { value, start, end: self.at }
    }

    fn double_quoted(&mut self, value: &mut Option<String>) {
        while let Some(c) = self.text[self.at..].chars().next() {
            match c {
                '"' => {
                    self.at += 1;
                    return;
                }
                '$' => self.dollar(value),
                '`' => {
                    *value = None;
                    self.at += 1;
                }
                '\\' => {
                    self.at += 1;
                    if let Some(c) = self.text[self.at..].chars().next() {
                        if !matches!(c, '"' | '$' | '`' | '\\' | '\n') {
                            append(value, "\\");
                        }
                        if c != '\n' {
                            append(value, c.encode_utf8(&mut [0; 4]));
                        }
                        self.at += c.len_utf8();
                    }
                }
                _ => {
                    append(value, c.encode_utf8(&mut [0; 4]));
                    self.at += c.len_utf8();
                }
            }
        }
        self.script.unclear = true;
    }

    /// `$NAME`, `${NAME}`; anything else after `$` has no known value.
    fn dollar(&mut self, value: &mut Option<String>) {
        self.at += 1;
        let rest = &self.text[self.at..];
        let braces = rest.starts_with('{');
        let name_start = usize::from(braces);
        let length =
            rest[name_start..].bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let name = &rest[name_start..name_start + length];
        let closed = !braces || rest[name_start + length..].starts_with('}');
        if is_name(name) && closed {
            self.at += name_start + length + usize::from(braces);
            let known = if self.assigned.contains(name) { None } else { (self.lookup)(name) };
            match (value.as_mut(), known) {
                (Some(text), Some(known)) => text.push_str(&known),
                _ => *value = None,
            }
            return;
        }
        match rest.bytes().next() {
            Some(open @ (b'{' | b'(')) => {
                *value = None;
                self.at += balanced(rest.as_bytes(), open).unwrap_or(rest.len());
                self.script.unclear |= balanced(rest.as_bytes(), open).is_none();
            }
            Some(c) if c.is_ascii_digit() || b"@*#?-$!".contains(&c) => {
                *value = None;
                self.at += 1;
            }
            _ => append(value, "$"),
        }
    }
}

/// How long a bracketed text is, brackets and quotes inside it counted.
fn balanced(bytes: &[u8], open: u8) -> Option<usize> {
    let close = if open == b'{' { b'}' } else { b')' };
    let mut depth = 0usize;
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(q) if byte == q => quote = None,
            Some(b'"') | None if byte == b'\\' => at += 1,
            Some(_) => {}
            None if byte == b'\'' || byte == b'"' => quote = Some(byte),
            None if byte == open => depth += 1,
            None if byte == close => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            None => {}
        }
        at += 1;
    }
    None
}

fn append(value: &mut Option<String>, text: &str) {
    if let Some(value) = value {
        value.push_str(text);
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
