//! YAML with places: documents are read one by one, so that a broken one does not hide the others.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

use super::{Finding, Severity};

/// Most nodes of one document, aliases included.
const MAX_NODES: usize = 200_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 100;

/// One document of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its root.
    pub root: Node,
}

/// A node and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A scalar that was quoted, or is a block.
    Text(String),
    /// A scalar that was not.
    Plain(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file; a key that occurs twice is in it once, with its last value.
    Map(Vec<Entry>),
}

/// One entry of a map.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Line of the key.
    pub line: usize,
    /// Column of the key.
    pub column: usize,
    /// The value.
    pub value: Node,
}

impl Document {
    /// `kind`; empty where it is missing.
    pub fn kind(&self) -> &str {
        self.root.text_at(&["kind"]).unwrap_or_default()
    }

    /// `metadata.name`; empty where it is missing.
    pub fn name(&self) -> &str {
        self.root.text_at(&["metadata", "name"]).unwrap_or_default()
    }
}

impl Node {
    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The entry with a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value at a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) | Kind::Plain(text) => Some(text),
            _ => None,
        }
    }

    /// The text of the scalar at a path.
    pub fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.text()
    }

    /// Whether it is nothing: `key:` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The node as JSON, with scalars as Kubernetes reads them.
    pub fn json(&self) -> Value {
        match &self.kind {
            Kind::Text(text) => text.as_str().into(),
            Kind::Plain(_) if self.is_null() => Value::Null,
            Kind::Plain(text) => match text.as_str() {
                "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "y" | "Y" | "on" | "On" | "ON" => {
                    true.into()
                }
                "false" | "False" | "FALSE" | "no" | "No" | "NO" | "n" | "N" | "off" | "Off" | "OFF" => {
                    false.into()
                }
                other => other.parse::<i64>().map(Value::from).unwrap_or_else(|_| float(other)),
            },
            Kind::List(items) => items.iter().map(Node::json).collect(),
            Kind::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.json())).collect::<Map<_, _>>())
            }
        }
    }
}

fn float(text: &str) -> Value {
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'))
        && text.bytes().any(|b| b.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if numeric => {
            serde_json::Number::from_f64(number).map_or_else(|| text.into(), Value::Number)
        }
        _ => text.into(),
    }
}

/// All documents that could be read, with findings about those that could not.
pub(super) fn read(text: &str, findings: &mut Vec<Finding>) -> Vec<Document> {
    let mut documents = Vec::new();
    for (first_line, part) in parts(text) {
        let cleaned = without_tabs(&part, first_line, findings);
        match parse(&cleaned, first_line, findings) {
            // What `kubectl get -o yaml` writes: one document with all objects.
            Ok(Some(root)) if root.text_at(&["kind"]) == Some("List") => {
                documents.extend(
                    root.get("items")
                        .map_or(&[][..], Node::items)
                        .iter()
                        .cloned()
                        .map(|root| Document { root }),
                );
            }
            Ok(Some(root)) => documents.push(Document { root }),
            Ok(None) => {}
            Err(finding) => findings.push(finding),
        }
    }
    documents
}

/// The documents of a file, each with the line before its first. A `---` at the beginning of a line ends whatever is
/// open, even a block of text, so lines tell.
fn parts(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(0, String::new())];
    for (at, line) in text.lines().enumerate() {
        let marks = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if marks {
            parts.push((at, String::new()));
        }
        let (_, part) = parts.last_mut().expect("it begins with one");
        if marks {
            // Spaces in place of the mark keep the columns of what follows it.
            part.push_str("   ");
            part.push_str(&line[3..]);
        } else if line != "..." {
            part.push_str(line);
        }
        part.push('\n');
    }
    parts.retain(|(_, part)| {
        part.lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        })
    });
    parts
}

/// Reports tabs in indentation and takes two spaces in their place, so that more than the first mistake is found.
fn without_tabs(text: &str, first_line: usize, findings: &mut Vec<Finding>) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for (at, line) in text.lines().enumerate() {
        let end = line.find(|c: char| c != ' ' && c != '\t').unwrap_or(line.len());
        let (indent, rest) = line.split_at(end);
        if let (Some(column), false) = (indent.find('\t'), rest.is_empty()) {
            findings.push(Finding {
                line: first_line + at + 1,
                column: column + 1,
                severity: Severity::Error,
                code: "tab",
                message: "the line is indented with a tab, which YAML does not allow".to_owned(),
                fix: "indent with two spaces for each level".to_owned(),
            });
        }
        cleaned.push_str(&indent.replace('\t', "  "));
        cleaned.push_str(rest);
        cleaned.push('\n');
    }
    cleaned
}

fn syntax(line: usize, column: usize, message: String, fix: &str) -> Finding {
    Finding { line, column, severity: Severity::Error, code: "yaml", message, fix: fix.to_owned() }
}

fn parse(text: &str, first_line: usize, findings: &mut Vec<Finding>) -> Result<Option<Node>, Finding> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        first_line,
        nodes: 0,
        anchors: BTreeMap::new(),
        findings,
    };
    loop {
        let Some((event, span)) = reader.next()? else { return Ok(None) };
        match event {
            Event::StreamStart | Event::DocumentStart(_) => {}
            Event::StreamEnd | Event::DocumentEnd => return Ok(None),
            other => return reader.node(other, span, 0).map(Some),
        }
    }
}

struct Reader<'a, 'f> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    first_line: usize,
    nodes: usize,
    anchors: BTreeMap<usize, (Node, usize)>,
    findings: &'f mut Vec<Finding>,
}

impl<'a> Reader<'a, '_> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Finding> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                let (line, column) = self.place(error.marker().line(), error.marker().col());
                let fix = "check the indentation of this line and of the one above, and quote texts that hold `: `, `#` or begin with a sign";
                Err(syntax(line, column, format!("this is no YAML: {}", error.info()), fix))
            }
        }
    }

    fn place(&self, line: usize, column: usize) -> (usize, usize) {
        (self.first_line + line, column + 1)
    }

    fn count(&mut self, more: usize, line: usize, column: usize) -> Result<(), Finding> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} values, aliases included");
            return Err(syntax(line, column, message, "split it"));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Finding> {
        let (line, column) = self.place(span.start.line(), span.start.col());
        let before = self.nodes;
        self.count(1, line, column)?;
        if depth > MAX_DEPTH {
            return Err(syntax(line, column, format!("it is nested more than {MAX_DEPTH} deep"), "split it"));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.suffix != "str");
                let text = text.into_owned();
                (if plain { Kind::Plain(text) } else { Kind::Text(text) }, anchor)
            }
            Event::SequenceStart(anchor, _) => (Kind::List(self.list(depth)?), anchor),
            Event::MappingStart(anchor, _) => (Kind::Map(self.map(depth)?), anchor),
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(syntax(
                        line,
                        column,
                        "the alias names no anchor".to_owned(),
                        "define it before",
                    ));
                };
                self.count(size, line, column)?;
                return Ok(node);
            }
            _ => return Err(syntax(line, column, "the document ends here".to_owned(), "complete it")),
        };
        let node = Node { line, column, kind };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Finding> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, span, depth + 1)?);
        }
        Ok(items)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Finding> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let Some((event, span)) = self.next()? else { break };
            let value = self.node(event, span, depth + 1)?;
            let Some(text) = key.text() else {
                let message = "a key must be a text".to_owned();
                return Err(syntax(key.line, key.column, message, "write `name: value`"));
            };
            let entry = Entry { key: text.to_owned(), line: key.line, column: key.column, value };
            match entries.iter_mut().find(|known| known.key == entry.key) {
                Some(known) => {
                    self.findings.push(Finding {
                        line: entry.line,
                        column: entry.column,
                        severity: Severity::Error,
                        code: "duplicate-key",
                        message: format!("`{}` is there already, in line {}", entry.key, known.line),
                        fix: "remove one of the two; of two values only the last counts, and strict readers refuse both"
                            .to_owned(),
                    });
                    *known = entry;
                }
                None => entries.push(entry),
            }
        }
        Ok(entries)
    }
}
