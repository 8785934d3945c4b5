mod corpus;
mod instructions;
mod lines;
mod run;

use super::*;

/// Parses one stage whose FROM is added.
fn stage(body: &str) -> (Stage, Vec<Diagnostic>) {
    let mut parsed = parse(&format!("FROM base:1\n{body}"));
    (parsed.dockerfile.stages.remove(0), parsed.diagnostics)
}

/// The only instruction of a stage that has nothing wrong.
fn one(body: &str) -> InstructionKind {
    let (mut stage, diagnostics) = stage(body);
    assert_eq!(diagnostics, [], "{body}");
    assert_eq!(stage.instructions.len(), 1, "{body}");
    stage.instructions.remove(0).kind
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

fn shell(command: &Command) -> &str {
    match command {
        Command::Shell(word) => &word.text,
        Command::Exec(words) => panic!("exec form {words:?}"),
    }
}

fn exec(command: &Command) -> Vec<&str> {
    match command {
        Command::Exec(words) => texts(words),
        Command::Shell(word) => panic!("shell form {word:?}"),
    }
}

fn codes(text: &str) -> Vec<String> {
    parse(text).diagnostics.into_iter().map(|d| format!("{}:{}:{}", d.code, d.line, d.column)).collect()
}

macro_rules! only {
    ($body:expr, $variant:ident) => {
        match one($body) {
            InstructionKind::$variant(inner) => inner,
            other => panic!("{other:?}"),
        }
    };
}

use only;
