//! Dockerfiles: text in, a tree and diagnostics out. Parsing never fails.
//!
//! The language is Docker's (<https://docs.docker.com/reference/dockerfile/>), with the details of BuildKit's
//! `frontend/dockerfile/parser`. What Slipway does not carry out is an error with a hint, never ignored.
//!
//! Codes of the diagnostics made here: `file-too-large`, `no-instructions`, `no-stage`, `unknown-instruction`,
//! `missing-argument`, `too-many-arguments`, `missing-equals`, `invalid-from`, `invalid-stage-name`, `unknown-flag`,
//! `invalid-flag`, `duplicate-flag`, `unsupported-flag`, `invalid-mount`, `unsupported-mount`,
//! `unterminated-heredoc`, `invalid-heredoc`, `exec-form-invalid`, `exec-form-not-strings`, `empty-continuation`,
//! `invalid-directive`, `duplicate-directive`, `invalid-duration`, `invalid-retries`, `invalid-healthcheck`,
//! `invalid-port`, `invalid-signal`, `invalid-onbuild`, `invalid-expansion`.

mod arguments;
mod ast;
mod flags;
mod heredoc;
mod instruction;
mod json;
mod lines;
mod logical;
mod mount;
mod reader;
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
mod values;

pub use ast::{
    Arg, CheckDirective, Command, Copy, Directives, Dockerfile, GlobalArg, Healthcheck, Heredoc, Instruction,
    InstructionKind, KeyValue, Mount, MountKind, Onbuild, Ownership, Run, RunNetwork, RunProgram, Sharing,
    Source, Stage, Word,
};
pub use lines::LineIndex;
pub use values::{InvalidPort, parse_ports};

use slipway_types::build::{Diagnostic, Severity, Span};

use instruction::{Item, Parser};
use lines::Sink;
use reader::Reader;

/// Longest Dockerfile in bytes.
pub const MAX_TEXT: usize = 2 << 20;
/// Most stages of a Dockerfile.
pub const MAX_STAGES: usize = 1000;
/// Most instructions of a Dockerfile, stages and global ARGs included.
pub const MAX_INSTRUCTIONS: usize = 10_000;

/// What parsing gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The tree. Instructions with errors are left out of it where they cannot be represented.
    pub dockerfile: Dockerfile,
    /// What is wrong, in the order of the text; at most a few hundred.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether something is wrong that a build cannot go on with.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Reads a Dockerfile.
pub fn parse(text: &str) -> Parsed {
    let mut sink = Sink::new(text);
    let mut dockerfile =
        Dockerfile { directives: Directives::default(), globals: Vec::new(), stages: Vec::new() };
    if text.len() > MAX_TEXT {
        let message = format!("the Dockerfile has {} bytes; the limit is {MAX_TEXT}", text.len());
        sink.error("file-too-large", Span::default(), message, None);
        return Parsed { dockerfile, diagnostics: sink.found };
    }
    let mut reader = Reader::new(text);
    dockerfile.directives = reader.directives(&mut sink);
    let mut parser = Parser::new(reader, sink);
    let mut homeless = false;
    let mut count = 0;
    while let Some(item) = parser.next_item() {
        count += 1;
        if count > MAX_INSTRUCTIONS || dockerfile.stages.len() > MAX_STAGES {
            let message = format!(
                "the Dockerfile has more than {MAX_INSTRUCTIONS} instructions or {MAX_STAGES} stages; the rest is not read"
            );
            parser.sink.error("file-too-large", Span::default(), message, None);
            break;
        }
        match item {
            Item::Stage(stage) => dockerfile.stages.push(stage),
            Item::Instruction(instruction) => match (dockerfile.stages.last_mut(), instruction.kind) {
                (Some(stage), kind) => stage.instructions.push(Instruction { kind, ..instruction }),
                (None, InstructionKind::Arg(args)) => {
                    dockerfile.globals.push(GlobalArg {
                        span: instruction.span,
                        line: instruction.line,
                        args,
                    });
                }
                (None, _) if homeless => {}
                (None, _) => {
                    homeless = true;
                    parser.sink.error(
                        "no-stage",
                        instruction.keyword.span,
                        format!("{} stands before the first FROM", instruction.keyword.text.to_uppercase()),
                        "only ARG may stand there; begin with `FROM image:tag`".to_owned(),
                    );
                }
            },
            Item::Nothing => {}
        }
    }
    let mut sink = parser.sink;
    if dockerfile.stages.is_empty() && !sink.has_errors() {
        let (code, message) = match dockerfile.globals.is_empty() {
            true => ("no-instructions", "the Dockerfile has no instructions"),
            false => ("no-stage", "the Dockerfile has no FROM"),
        };
        sink.error(code, Span::default(), message, "begin with `FROM image:tag`".to_owned());
    }
    sink.found.sort_by_key(|diagnostic| diagnostic.span.start);
    Parsed { dockerfile, diagnostics: sink.found }
}

/// Reads one ONBUILD trigger as an image configuration keeps it. Spans and lines count in the trigger's own text.
///
/// # Errors
/// What is wrong with it, never empty.
pub fn parse_trigger(text: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let mut sink = Sink::new(text);
    if text.len() > MAX_TEXT {
        sink.error("file-too-large", Span::default(), "the ONBUILD trigger is too long", None);
        return Err(sink.found);
    }
    let mut parser = Parser::new(Reader::new(text), sink);
    let first = parser.next_item();
    let more = parser.next_item().is_some();
    let mut sink = parser.sink;
    match first {
        Some(Item::Instruction(instruction)) if !more && !sink.has_errors() => {
            if !instruction::may_be_trigger(&instruction.kind) {
                let message = format!("{} cannot be an ONBUILD trigger", instruction.keyword.text);
                sink.error("invalid-onbuild", instruction.keyword.span, message, None);
                return Err(sink.found);
            }
            Ok(instruction)
        }
        _ => {
            if !sink.has_errors() {
                let span = Span { start: 0, end: text.len() };
                sink.error("invalid-onbuild", span, "an ONBUILD trigger is one instruction", None);
            }
            Err(sink.found)
        }
    }
}
