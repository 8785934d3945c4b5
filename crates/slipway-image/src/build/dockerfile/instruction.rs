//! From logical lines to typed instructions.

use slipway_types::build::Span;

use super::ast::{Instruction, InstructionKind, Onbuild, Stage, Word};
use super::flags::Flags;
use super::heredoc::{Marker, markers};
use super::lines::Sink;
use super::logical::{Logical, Text};
use super::reader::Reader;
use super::suggest::nearest;
use super::values::is_stage_name;
use crate::build::words::{self, ExpandErrorKind};

/// Every instruction's name.
pub(super) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What one logical line is.
pub(super) enum Item {
    Stage(Stage),
    Instruction(Instruction),
    /// Something wrong, already reported.
    Nothing,
}

/// Reads instruction after instruction.
pub(super) struct Parser<'t> {
    pub(super) reader: Reader<'t>,
    pub(super) sink: Sink<'t>,
    last_keyword: &'static str,
}

/// Whether ONBUILD may defer an instruction.
pub(super) fn may_be_trigger(kind: &InstructionKind) -> bool {
    !matches!(kind, InstructionKind::Onbuild(_) | InstructionKind::Maintainer(_))
}

impl<'t> Parser<'t> {
    pub(super) fn new(reader: Reader<'t>, sink: Sink<'t>) -> Self {
        Self { reader, sink, last_keyword: "" }
    }

    pub(super) fn next_item(&mut self) -> Option<Item> {
        let logical = self.reader.instruction()?;
        if let Some(span) = logical.blank_line {
            self.sink.warning(
                "empty-continuation",
                span,
                "a blank line inside a continued instruction",
                "remove it; or, if the instruction ends before it, remove the continuation character there"
                    .to_owned(),
            );
        }
        let whole = logical.whole();
        let (keyword, arguments) = whole.split_first();
        let Some(name) = known(keyword.as_str()) else {
            self.unknown(keyword, &logical);
            return Some(Item::Nothing);
        };
        self.last_keyword = name;
        let span = whole.span();
        let line = self.sink.index.line(span.start);
        if name == "FROM" {
            return Some(match self.from(arguments, span, line, whole.as_str()) {
                Some(stage) => Item::Stage(stage),
                None => Item::Nothing,
            });
        }
        let kind = self.kind(name, keyword, arguments);
        let span = Span { start: span.start, end: self.reader.end().max(span.end) };
        let text = whole.as_str().to_owned();
        let instruction = |kind| Instruction { span, line, keyword: keyword.word(), text, kind };
        Some(kind.map_or(Item::Nothing, |kind| Item::Instruction(instruction(kind))))
    }

    /// The typed form of an instruction; nothing, and diagnostics, when it has none.
    fn kind(
        &mut self,
        name: &'static str,
        keyword: Text<'_>,
        arguments: Text<'_>,
    ) -> Option<InstructionKind> {
        if arguments.is_empty() {
            self.sink.error(
                "missing-argument",
                keyword.span(),
                format!("{name} needs {}", wants(name)),
                Some(format!("for example: `{}`", example(name))),
            );
            return None;
        }
        let (mut flags, rest) = Flags::take(name, arguments, self.reader.escape);
        let kind = match name {
            "RUN" => self.run(&mut flags, rest),
            "COPY" | "ADD" => self.copy(name, &mut flags, rest),
            "HEALTHCHECK" => self.healthcheck(&mut flags, rest),
            "ONBUILD" => self.onbuild(rest),
            _ => self.plain(name, rest),
        };
        flags.finish(&mut self.sink);
        if rest.is_empty() && kind.is_none() {
            let message = format!("{name} needs {}", wants(name));
            self.sink.error("missing-argument", keyword.span(), message, None);
        }
        kind
    }

    /// Reads the bodies of the heredocs of a text.
    pub(super) fn heredocs(&mut self, text: Text<'_>) -> Vec<super::ast::Heredoc> {
        let found: Vec<Marker> = markers(text);
        found.iter().map(|marker| self.reader.heredoc(marker, &mut self.sink)).collect()
    }

    /// Complains about a word whose quotes or substitutions are wrong.
    pub(super) fn check_word(&mut self, word: &Word) {
        let Err(error) = words::validate(&word.text, self.reader.escape) else { return };
        // Where nothing was joined or unquoted, the place inside the word is known too.
        let span = if word.span.end - word.span.start == word.text.len() {
            Span { start: word.span.start + error.span.start, end: word.span.start + error.span.end }
        } else {
            word.span
        };
        let hint = match &error.kind {
            ExpandErrorKind::UnclosedQuote(quote) => {
                Some(format!("close it, or write `{}{quote}` for the character itself", self.reader.escape))
            }
            ExpandErrorKind::UnsupportedModifier(_) | ExpandErrorKind::BadSubstitution => Some(
                "supported are ${NAME}, ${NAME:-word}, ${NAME:+word}, ${NAME:?word} (also without `:`), \
                 ${NAME#pattern}, ${NAME%pattern} and ${NAME/pattern/replacement}"
                    .to_owned(),
            ),
            _ => None,
        };
        self.sink.error("invalid-expansion", span, error.to_string(), hint);
    }

    fn unknown(&mut self, keyword: Text<'_>, logical: &Logical) {
        let word = keyword.as_str();
        let mut shown: String = word.chars().take(40).collect();
        if shown.len() < word.len() {
            shown.push('…');
        }
        let shell_word = word.starts_with(['&', '|', '-', ';', '/', '.'])
            || [
                "pip", "pip3", "python", "python3", "apt-get", "apt", "cd", "mkdir", "rm", "echo", "curl",
                "npm",
            ]
            .contains(&word);
        let hint = match nearest(word, &KEYWORDS) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if shell_word && self.last_keyword == "RUN" => Some(format!(
                "to continue the RUN before it, end that line with `{}`; for a command of its own write `RUN {}`",
                self.reader.escape,
                first_chars(logical.whole().as_str()),
            )),
            None if shell_word => Some(format!("write `RUN {}`", first_chars(logical.whole().as_str()))),
            None => Some(format!("an instruction is one of {}", KEYWORDS.join(", "))),
        };
        self.sink.error(
            "unknown-instruction",
            keyword.span(),
            format!("unknown instruction `{shown}`"),
            hint,
        );
    }

    fn from(&mut self, arguments: Text<'_>, span: Span, line: u32, text: &str) -> Option<Stage> {
        let (mut flags, rest) = Flags::take("FROM", arguments, self.reader.escape);
        let platform = flags.value("platform", &mut self.sink);
        flags.finish(&mut self.sink);
        let words = rest.split_space();
        let Some(image) = words.first().map(Text::word) else {
            let hint = "for example: `FROM python:3.12-slim`".to_owned();
            self.sink.error("missing-argument", span, "FROM needs an image", hint);
            return None;
        };
        self.check_word(&image);
        let name = match words[1..] {
            [] => None,
            [as_word, name] if as_word.as_str().eq_ignore_ascii_case("as") => {
                let lower = name.as_str().to_lowercase();
                if !is_stage_name(&lower) {
                    self.sink.error(
                        "invalid-stage-name",
                        name.span(),
                        format!("`{}` cannot name a stage", name.as_str()),
                        "a stage name starts with a letter and goes on with letters, digits, `-`, `_` and `.`"
                            .to_owned(),
                    );
                }
                Some(Word { text: lower, span: name.span() })
            }
            _ => {
                self.sink.error(
                    "invalid-from",
                    rest.span(),
                    "FROM takes an image, and a stage name after AS",
                    "write `FROM image:tag` or `FROM image:tag AS name`".to_owned(),
                );
                None
            }
        };
        Some(Stage { span, line, text: text.to_owned(), platform, image, name, instructions: Vec::new() })
    }

    fn onbuild(&mut self, arguments: Text<'_>) -> Option<InstructionKind> {
        let (keyword, rest) = arguments.split_first();
        let Some(name) = known(keyword.as_str()) else {
            let hint = nearest(keyword.as_str(), &KEYWORDS).map(|near| format!("did you mean `{near}`?"));
            let message = format!("unknown instruction `{}` after ONBUILD", keyword.as_str());
            self.sink.error("unknown-instruction", keyword.span(), message, hint);
            return None;
        };
        if matches!(name, "ONBUILD" | "FROM" | "MAINTAINER") {
            let message = format!("{name} cannot be deferred with ONBUILD");
            self.sink.error("invalid-onbuild", keyword.span(), message, None);
            return None;
        }
        let heredocs_start = self.reader.end();
        let kind = self.kind(name, keyword, rest)?;
        let span = arguments.span();
        let end = self.reader.end().max(span.end);
        let bodies = if end > heredocs_start { self.reader.between(heredocs_start, end) } else { "" };
        let trigger = format!("{}{bodies}", arguments.as_str());
        let instruction = Box::new(Instruction {
            span: Span { start: span.start, end },
            line: self.sink.index.line(span.start),
            keyword: keyword.word(),
            text: arguments.as_str().to_owned(),
            kind,
        });
        Some(InstructionKind::Onbuild(Onbuild { trigger, instruction }))
    }
}

fn known(word: &str) -> Option<&'static str> {
    KEYWORDS.iter().copied().find(|keyword| keyword.eq_ignore_ascii_case(word))
}

fn first_chars(text: &str) -> String {
    let text = text.trim_start_matches(['&', '|', ' ']);
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn wants(name: &str) -> &'static str {
    match name {
        "COPY" | "ADD" => "at least one source and a destination",
        "ENV" | "LABEL" => "a name and a value",
        "ARG" => "a name",
        "CMD" | "ENTRYPOINT" | "RUN" => "a command",
        "EXPOSE" => "a port",
        "HEALTHCHECK" => "NONE, or CMD and a command",
        "ONBUILD" => "an instruction",
        "SHELL" => "a JSON array: the shell and its arguments",
        "STOPSIGNAL" => "a signal",
        "USER" => "a user",
        "VOLUME" | "WORKDIR" => "a path",
        _ => "an argument",
    }
}

pub(super) fn example(name: &str) -> &'static str {
    match name {
        "ADD" => "ADD data.tar.gz /data/",
        "ARG" => "ARG VERSION=1.0",
        "CMD" => "CMD [\"python\", \"app.py\"]",
        "COPY" => "COPY requirements.txt ./",
        "ENTRYPOINT" => "ENTRYPOINT [\"python\", \"app.py\"]",
        "ENV" => "ENV NAME=value",
        "EXPOSE" => "EXPOSE 8080",
        "HEALTHCHECK" => "HEALTHCHECK CMD curl -f http://localhost/ || exit 1",
        "LABEL" => "LABEL version=\"1.0\"",
        "ONBUILD" => "ONBUILD COPY . /app",
        "RUN" => "RUN pip install -r requirements.txt",
        "SHELL" => "SHELL [\"/bin/bash\", \"-c\"]",
        "STOPSIGNAL" => "STOPSIGNAL SIGTERM",
        "USER" => "USER 1000",
        "VOLUME" => "VOLUME /data",
        "WORKDIR" => "WORKDIR /app",
        _ => "LABEL maintainer=\"name@example.com\"",
    }
}
