//! Arguments of the instructions.

use super::ast::{Arg, Command, Copy, Healthcheck, InstructionKind, KeyValue, Run, RunNetwork, Source, Word};
use super::flags::Flags;
use super::instruction::{Parser, example};
use super::json::{self, Json};
use super::logical::Text;
use super::mount;
use super::values::{is_signal, parse_duration, parse_ports};

impl Parser<'_> {
    /// Instructions that take no flags.
    pub(super) fn plain(&mut self, name: &'static str, text: Text<'_>) -> Option<InstructionKind> {
        if text.is_empty() {
            return None;
        }
        Some(match name {
            "ENV" => InstructionKind::Env(self.pairs(name, text)?),
            "LABEL" => InstructionKind::Label(self.pairs(name, text)?),
            "ARG" => InstructionKind::Arg(self.args(text)?),
            "CMD" => InstructionKind::Cmd(self.command(name, text)?),
            "ENTRYPOINT" => InstructionKind::Entrypoint(self.command(name, text)?),
            "EXPOSE" => InstructionKind::Expose(self.expose(text)),
            "VOLUME" => InstructionKind::Volume(self.volume(text)?),
            "SHELL" => InstructionKind::Shell(self.shell(text)?),
            "STOPSIGNAL" => {
                let signal = self.checked(text);
                if !signal.has_variable() && !is_signal(&signal.text) {
                    let message = format!("`{}` is not a signal", signal.text);
                    let hint = "write a name such as SIGTERM, or a number".to_owned();
                    self.sink.error("invalid-signal", signal.span, message, hint);
                }
                InstructionKind::StopSignal(signal)
            }
            "USER" => InstructionKind::User(self.checked(text)),
            "WORKDIR" => InstructionKind::Workdir(self.checked(text)),
            _ => InstructionKind::Maintainer(text.word()),
        })
    }

    fn checked(&mut self, text: Text<'_>) -> Word {
        let word = text.word();
        self.check_word(&word);
        word
    }

    /// `RUN`.
    pub(super) fn run(&mut self, flags: &mut Flags, text: Text<'_>) -> Option<InstructionKind> {
        let network = match flags.value("network", &mut self.sink) {
            None => RunNetwork::Default,
            Some(word) => match word.text.as_str() {
                "default" => RunNetwork::Default,
                "none" => RunNetwork::None,
                "host" => RunNetwork::Host,
                other => {
                    let message = format!("`{other}` is not a network of RUN");
                    let hint = "write default, none or host".to_owned();
                    self.sink.error("invalid-flag", word.span, message, hint);
                    RunNetwork::Default
                }
            },
        };
        if let Some(word) = flags.value("security", &mut self.sink)
            && word.text != "sandbox"
        {
            let message = format!("Slipway does not support `RUN --security={}`", word.text);
            let hint = "every RUN executes in a sandbox; remove the flag".to_owned();
            self.sink.error("unsupported-flag", word.span, message, hint);
        }
        flags.unsupported("device", "remove the flag; use devices when the container runs", &mut self.sink);
        let mounts = flags
            .values("mount", &mut self.sink)
            .iter()
            .filter_map(|value| mount::parse(value, &mut self.sink))
            .collect();
        if text.is_empty() {
            return None;
        }
        let command = self.command("RUN", text)?;
        let heredocs = match command {
            Command::Shell(_) => self.heredocs(text),
            Command::Exec(_) => Vec::new(),
        };
        Some(InstructionKind::Run(Run { command, heredocs, network, mounts }))
    }

    /// `COPY` and `ADD`.
    pub(super) fn copy(
        &mut self,
        name: &'static str,
        flags: &mut Flags,
        text: Text<'_>,
    ) -> Option<InstructionKind> {
        let sink = &mut self.sink;
        let is_add = name == "ADD";
        let from = if is_add { None } else { flags.value("from", sink) };
        let chown = flags.value("chown", sink);
        let chmod = flags.value("chmod", sink);
        let link = flags.switch("link", sink);
        let checksum = if is_add { flags.value("checksum", sink) } else { None };
        let exclude = flags.values("exclude", sink);
        let parents = !is_add && flags.switch("parents", sink);
        flags.unsupported("keep-git-dir", "clone with `RUN git clone` instead", sink);
        flags.unsupported("unpack", "ADD unpacks local tar files; use COPY to keep them packed", sink);
        if let Some(from) = from.as_ref().filter(|from| from.has_variable()) {
            sink.error(
                "invalid-flag",
                from.span,
                "`--from` cannot hold a variable",
                "name a stage: `FROM …$VERSION AS tools`, then `--from=tools`".to_owned(),
            );
        }
        for word in [&chown, &chmod, &checksum].into_iter().flatten().chain(&exclude) {
            self.check_word(word);
        }
        if text.is_empty() {
            return None;
        }
        let words = match json::read(text) {
            Json::Strings(words) => words.into_iter().map(Source::Path).collect(),
            Json::NotStrings => {
                self.not_strings(name, text);
                return None;
            }
            Json::Other { looks_like_one } => {
                if looks_like_one {
                    self.invalid_json(name, text);
                }
                self.copy_words(text)
            }
        };
        let mut sources: Vec<Source> = words;
        let destination = match sources.pop() {
            Some(Source::Path(word)) if !sources.is_empty() => word,
            Some(Source::Heredoc(heredoc)) => {
                let message = format!("a heredoc cannot be the destination of {name}");
                let hint = format!("write `{name} <<{} /path/of/the/file`", heredoc.name);
                self.sink.error("invalid-heredoc", heredoc.span, message, hint);
                return None;
            }
            _ => {
                let message = format!("{name} needs at least one source and a destination");
                let hint = format!("for example: `{}`", example(name));
                self.sink.error("missing-argument", text.span(), message, hint);
                return None;
            }
        };
        for source in &sources {
            if let Source::Path(word) = source {
                self.check_word(word);
            }
        }
        self.check_word(&destination);
        let copy = Copy { from, chown, chmod, link, parents, exclude, checksum, sources, destination };
        Some(if is_add { InstructionKind::Add(copy) } else { InstructionKind::Copy(copy) })
    }

    /// Sources and destination between white space; `<<NAME` markers become heredocs.
    fn copy_words(&mut self, text: Text<'_>) -> Vec<Source> {
        let heredocs = self.heredocs(text);
        let mut sources: Vec<(usize, Source)> = text
            .split_space()
            .iter()
            .map(|word| (word.span(), word.word()))
            .filter(|(span, _)| {
                !heredocs.iter().any(|doc| span.start >= doc.span.start && span.end <= doc.span.end)
            })
            .map(|(span, word)| (span.start, Source::Path(word)))
            .collect();
        sources.extend(heredocs.into_iter().map(|doc| (doc.span.start, Source::Heredoc(doc))));
        sources.sort_by_key(|&(start, _)| start);
        sources.into_iter().map(|(_, source)| source).collect()
    }

    /// A command in exec form if it is a JSON array of strings, else in shell form.
    fn command(&mut self, name: &str, text: Text<'_>) -> Option<Command> {
        match json::read(text) {
            Json::Strings(words) if words.is_empty() && name == "RUN" => {
                self.sink.error("missing-argument", text.span(), "RUN needs a command", None);
                None
            }
            Json::Strings(words) => Some(Command::Exec(words)),
            Json::NotStrings => {
                self.not_strings(name, text);
                None
            }
            Json::Other { looks_like_one } => {
                if looks_like_one {
                    self.invalid_json(name, text);
                }
                Some(Command::Shell(text.word()))
            }
        }
    }

    fn not_strings(&mut self, name: &str, text: Text<'_>) {
        let message = format!("the JSON form of {name} holds strings only");
        let hint = "put every element in double quotes".to_owned();
        self.sink.error("exec-form-not-strings", text.span(), message, hint);
    }

    fn invalid_json(&mut self, name: &str, text: Text<'_>) {
        let message =
            format!("the arguments of {name} look like JSON but are not, and are read as plain text");
        let hint = if text.as_str().contains('\'') {
            "JSON strings have double quotes: `[\"a\", \"b\"]`"
        } else {
            "JSON wants double quotes, commas between the strings and nothing behind the bracket: `[\"a\", \"b\"]`"
        };
        self.sink.warning("exec-form-invalid", text.span(), message, hint.to_owned());
    }

    /// `NAME=value …`, or the old `NAME value`.
    fn pairs(&mut self, name: &str, text: Text<'_>) -> Option<Vec<KeyValue>> {
        let words = text.split_quoted(self.reader.escape);
        let first = words.first()?;
        if !first.as_str().contains('=') {
            let (key, value) = text.split_first();
            if value.is_empty() {
                let message = format!("{name} `{}` has no value", key.as_str());
                let hint = format!("write `{name} {}=value`", key.as_str());
                self.sink.error("missing-argument", key.span(), message, hint);
                return None;
            }
            let pair = KeyValue { key: self.checked(key), value: self.checked(value), legacy: true };
            return Some(vec![pair]);
        }
        let mut pairs = Vec::new();
        for word in words {
            match word.as_str().find('=') {
                Some(0) => {
                    let message = format!("{name} has a value without a name");
                    self.sink.error("missing-argument", word.span(), message, None);
                }
                Some(split) => {
                    let value = self.value(word, split);
                    pairs.push(KeyValue { key: self.checked(word.slice(0..split)), value, legacy: false });
                }
                None => {
                    let message = format!("`{}` has no `=`", word.as_str());
                    let hint = match pairs.last() {
                        Some(KeyValue { key, value, .. }) if !value.text.contains(['"', '\'']) => format!(
                            "a value with spaces needs quotes: `{}=\"{} {}\"`",
                            key.text,
                            value.text,
                            word.as_str()
                        ),
                        _ => format!("write `{name} NAME=value`; a value with spaces needs quotes"),
                    };
                    self.sink.error("missing-equals", word.span(), message, hint);
                }
            }
        }
        (!pairs.is_empty()).then_some(pairs)
    }

    /// What follows the `=` at `split`.
    fn value(&mut self, word: Text<'_>, split: usize) -> Word {
        let length = word.as_str().len();
        let value = word.slice(split + 1..length);
        if value.is_empty() {
            let end = word.span().end;
            return Word { text: String::new(), span: slipway_types::build::Span { start: end, end } };
        }
        self.checked(value)
    }

    fn args(&mut self, text: Text<'_>) -> Option<Vec<Arg>> {
        let mut args = Vec::new();
        for word in text.split_quoted(self.reader.escape) {
            let split = word.as_str().find('=');
            let name = word.slice(0..split.unwrap_or(word.as_str().len()));
            if name.is_empty() {
                self.sink.error("missing-argument", word.span(), "ARG has a value without a name", None);
                continue;
            }
            let default = split.map(|split| self.value(word, split));
            args.push(Arg { name: name.word(), default });
        }
        (!args.is_empty()).then_some(args)
    }

    fn expose(&mut self, text: Text<'_>) -> Vec<Word> {
        let words: Vec<Word> = text.split_space().iter().map(Text::word).collect();
        for word in &words {
            self.check_word(word);
            if word.text.contains(['$', '"', '\'', self.reader.escape]) {
                continue;
            }
            if let Err(error) = parse_ports(&word.text) {
                let hint = match word.text.rsplit_once(':') {
                    Some((_, port)) => format!(
                        "EXPOSE names ports inside only: `EXPOSE {port}`; publish with `slipway run -p {}`",
                        word.text
                    ),
                    None => "for example: `EXPOSE 8080`, `EXPOSE 53/udp`, `EXPOSE 8000-8002`".to_owned(),
                };
                self.sink.error("invalid-port", word.span, error.to_string(), hint);
            }
        }
        words
    }

    fn volume(&mut self, text: Text<'_>) -> Option<Vec<Word>> {
        let words = match json::read(text) {
            Json::Strings(words) => words,
            Json::NotStrings => {
                self.not_strings("VOLUME", text);
                return None;
            }
            Json::Other { looks_like_one } => {
                if looks_like_one {
                    self.invalid_json("VOLUME", text);
                }
                text.split_space().iter().map(Text::word).collect()
            }
        };
        for word in &words {
            self.check_word(word);
        }
        if words.is_empty() || words.iter().any(|word| word.text.trim().is_empty()) {
            self.sink.error("missing-argument", text.span(), "VOLUME needs a path", None);
            return None;
        }
        Some(words)
    }

    fn shell(&mut self, text: Text<'_>) -> Option<Vec<Word>> {
        match json::read(text) {
            Json::Strings(words) if !words.is_empty() => Some(words),
            Json::Strings(_) => {
                self.sink.error("missing-argument", text.span(), "SHELL needs a shell", None);
                None
            }
            Json::NotStrings => {
                self.not_strings("SHELL", text);
                None
            }
            Json::Other { .. } => {
                let words: Vec<String> =
                    text.split_space().iter().map(|word| format!("{:?}", word.as_str())).collect();
                let hint = format!("write `SHELL [{}]`", words.join(", "));
                self.sink.error("exec-form-invalid", text.span(), "SHELL takes a JSON array", hint);
                None
            }
        }
    }

    /// `HEALTHCHECK`.
    pub(super) fn healthcheck(&mut self, flags: &mut Flags, text: Text<'_>) -> Option<InstructionKind> {
        let mut duration = |name| {
            let word = flags.value(name, &mut self.sink)?;
            match parse_duration(&word.text) {
                Some(duration) if duration.is_zero() || duration.as_nanos() >= 1_000_000 => Some(duration),
                _ => {
                    let message = format!("`{}` is not a duration of at least 1ms", word.text);
                    let hint = "write a number and a unit, such as `30s`, `1m30s` or `500ms`".to_owned();
                    self.sink.error("invalid-duration", word.span, message, hint);
                    None
                }
            }
        };
        let interval = duration("interval");
        let timeout = duration("timeout");
        let start_period = duration("start-period");
        let start_interval = duration("start-interval");
        let retries = flags.value("retries", &mut self.sink).and_then(|word| {
            let retries = word.text.parse::<u32>().ok().filter(|&retries| retries <= i32::MAX as u32);
            if retries.is_none() {
                let message = format!("`{}` is not a number of retries", word.text);
                self.sink.error("invalid-retries", word.span, message, None);
            }
            retries
        });
        if text.is_empty() {
            return None;
        }
        let (kind, rest) = text.split_first();
        let check = match kind.as_str().to_ascii_uppercase().as_str() {
            "NONE" if rest.is_empty() => Healthcheck::None,
            "NONE" => {
                let message = "HEALTHCHECK NONE takes no arguments";
                self.sink.error("too-many-arguments", rest.span(), message, None);
                return None;
            }
            "CMD" if !rest.is_empty() => {
                let command = self.command("HEALTHCHECK", rest)?;
                if matches!(&command, Command::Exec(words) if words.is_empty()) {
                    let message = "HEALTHCHECK CMD needs a command";
                    self.sink.error("missing-argument", rest.span(), message, None);
                    return None;
                }
                Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries }
            }
            "CMD" => {
                self.sink.error("missing-argument", kind.span(), "HEALTHCHECK CMD needs a command", None);
                return None;
            }
            _ => {
                let message = format!("HEALTHCHECK has CMD or NONE, not `{}`", kind.as_str());
                let hint = format!("write `HEALTHCHECK CMD {}`", text.as_str());
                self.sink.error("invalid-healthcheck", kind.span(), message, hint);
                return None;
            }
        };
        Some(InstructionKind::Healthcheck(check))
    }
}
