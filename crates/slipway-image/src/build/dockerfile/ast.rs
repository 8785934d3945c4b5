//! The tree that [`parse`](super::parse) makes of a Dockerfile.
//!
//! Every text that Docker expands later is kept as a [`Word`]: raw, with its quotes and variables, ready for
//! [`words::expand`](crate::build::words::expand). Strings of a JSON form are decoded first, as Docker does.

use std::time::Duration;

use slipway_types::build::Span;

/// A piece of the Dockerfile's text: as read, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The text: continuations joined, flags and JSON strings unquoted, everything else raw.
    pub text: String,
    /// Bytes of the source that it comes from, quotes and continuations included.
    pub span: Span,
}

impl Word {
    /// Whether it holds a `$`, so that its value is known only when variables are.
    pub fn has_variable(&self) -> bool {
        self.text.contains('$')
    }
}

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Parser directives at its top.
    pub directives: Directives,
    /// ARG instructions before the first FROM, in order.
    pub globals: Vec<GlobalArg>,
    /// Stages, in order.
    pub stages: Vec<Stage>,
}

/// Parser directives: `# syntax=`, `# escape=`, `# check=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// The frontend that the file asks for; Slipway has one only and ignores it.
    pub syntax: Option<Word>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// What `# check=` says.
    pub check: CheckDirective,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: CheckDirective::default() }
    }
}

/// `# check=skip=rule,rule;error=true`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckDirective {
    /// Rules to skip, as written.
    pub skip: Vec<String>,
    /// `skip=all`.
    pub skip_all: bool,
    /// `error=true`: warnings of the checks stop the build.
    pub error: bool,
}

/// One ARG instruction before the first FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalArg {
    /// The whole instruction.
    pub span: Span,
    /// 1-based line where it starts.
    pub line: u32,
    /// Its arguments.
    pub args: Vec<Arg>,
}

/// One stage: FROM and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The whole FROM instruction.
    pub span: Span,
    /// 1-based line of FROM.
    pub line: u32,
    /// FROM on one line, as written.
    pub text: String,
    /// `--platform=`.
    pub platform: Option<Word>,
    /// Base: an image reference, the name of an earlier stage, or `scratch`.
    pub image: Word,
    /// Name after AS, in lower case.
    pub name: Option<Word>,
    /// Instructions, in order.
    pub instructions: Vec<Instruction>,
}

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The whole instruction, heredoc bodies included.
    pub span: Span,
    /// 1-based line where it starts.
    pub line: u32,
    /// The instruction's name, as written.
    pub keyword: Word,
    /// As written, continuations joined, without heredoc bodies.
    pub text: String,
    /// What it is.
    pub kind: InstructionKind,
}

/// What an instruction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    /// `RUN`.
    Run(Run),
    /// `COPY`.
    Copy(Copy),
    /// `ADD`.
    Add(Copy),
    /// `ENV`, at least one pair.
    Env(Vec<KeyValue>),
    /// `ARG`, at least one.
    Arg(Vec<Arg>),
    /// `LABEL`, at least one pair.
    Label(Vec<KeyValue>),
    /// `WORKDIR`.
    Workdir(Word),
    /// `USER`.
    User(Word),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `CMD`.
    Cmd(Command),
    /// `EXPOSE`; each word may expand to several, see [`parse_ports`](super::parse_ports).
    Expose(Vec<Word>),
    /// `VOLUME`.
    Volume(Vec<Word>),
    /// `STOPSIGNAL`.
    StopSignal(Word),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `SHELL`: program and arguments that shell forms are appended to.
    Shell(Vec<Word>),
    /// `ONBUILD`.
    Onbuild(Onbuild),
    /// `MAINTAINER`.
    Maintainer(Word),
}

/// A command in shell or exec form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// One text for the shell of the SHELL instruction. Variables are the shell's business.
    Shell(Word),
    /// Program and arguments, not expanded.
    Exec(Vec<Word>),
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command, without flags; for heredocs the line with their `<<NAME` markers.
    pub command: Command,
    /// Heredocs of the line, in order. Only a shell form has any.
    pub heredocs: Vec<Heredoc>,
    /// `--network=`.
    pub network: RunNetwork,
    /// `--mount=`, in order.
    pub mounts: Vec<Mount>,
}

/// What RUN hands to the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunProgram {
    /// Arguments, executed as they are.
    Exec(Vec<String>),
    /// A text that is appended to the words of SHELL.
    Shell(String),
    /// A script that names its own interpreter in a `#!` line: put it into an executable file and run that.
    Script {
        /// The heredoc's name; a name for the file.
        name: String,
        /// The script.
        content: String,
    },
}

impl Run {
    /// What is executed: heredocs are put back behind their line, or run as a script where the line is nothing but one.
    pub fn program(&self) -> RunProgram {
        let word = match &self.command {
            Command::Exec(words) => {
                return RunProgram::Exec(words.iter().map(|word| word.text.clone()).collect());
            }
            Command::Shell(word) => word,
        };
        if let Some(first) = self.heredocs.first()
            && first.span == word.span
        {
            let content = first.text().replace("\r\n", "\n");
            return if content.starts_with("#!") {
                RunProgram::Script { name: first.name.clone(), content }
            } else {
                RunProgram::Shell(content)
            };
        }
        let mut text = word.text.clone();
        for heredoc in &self.heredocs {
            text.push('\n');
            text.push_str(&heredoc.content.replace("\r\n", "\n"));
            text.push_str(&heredoc.name);
        }
        if !self.heredocs.is_empty() {
            text.push('\n');
        }
        RunProgram::Shell(text)
    }
}

/// `RUN --network=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunNetwork {
    /// The build's own.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// `RUN --mount=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The flag's value.
    pub span: Span,
    /// What is mounted.
    pub kind: MountKind,
}

/// What `RUN --mount=` mounts. Texts may hold variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind {
        /// Stage or image; the context when absent. Holds no variable.
        from: Option<String>,
        /// Path there; its root when absent.
        source: Option<String>,
        /// Path inside, relative to WORKDIR; `.` when none was given.
        target: String,
        /// Whether writes are allowed (and discarded).
        writable: bool,
    },
    /// A folder that builds share and no layer holds.
    Cache {
        /// Name of the folder; the target when absent.
        id: Option<String>,
        /// Path inside, relative to WORKDIR.
        target: String,
        /// Stage or image whose files it starts with. Holds no variable.
        from: Option<String>,
        /// Path there.
        source: Option<String>,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// Whether writes are refused.
        read_only: bool,
        /// Mode and owner of a new folder.
        owner: Ownership,
    },
    /// Memory.
    Tmpfs {
        /// Path inside, relative to WORKDIR.
        target: String,
        /// Most bytes.
        size: Option<u64>,
    },
    /// A secret file or variable of the caller.
    Secret {
        /// Its name.
        id: Option<String>,
        /// Path inside; `/run/secrets/<id>` when neither this nor `env` is given.
        target: Option<String>,
        /// Variable that holds it.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the file.
        owner: Ownership,
    },
    /// The caller's SSH agent.
    Ssh {
        /// Its name; `default` when absent.
        id: Option<String>,
        /// Path of the socket inside; `/run/buildkit/ssh_agent.<n>` when absent.
        target: Option<String>,
        /// Whether the step fails without it.
        required: bool,
    },
}

/// Mode and owner that a mount asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Any number.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One, the others wait.
    Locked,
}

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// Its delimiter, unquoted. For COPY also the file's name.
    pub name: String,
    /// Lines between marker and delimiter, as in the source, each with its line end.
    pub content: String,
    /// Whether the builder expands variables in it (COPY and ADD): the delimiter was not quoted.
    pub expand: bool,
    /// `<<-`: leading tabs do not count.
    pub strip_tabs: bool,
    /// The `<<NAME` marker.
    pub span: Span,
    /// The content.
    pub body: Span,
}

impl Heredoc {
    /// The content, without leading tabs where `<<-` asks for that.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// `--from=`: stage name or number, or image; COPY only. Holds no variable.
    pub from: Option<Word>,
    /// `--chown=`: `user[:group]`.
    pub chown: Option<Word>,
    /// `--chmod=`: octal or symbolic.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`: folders above the sources are kept; COPY only.
    pub parents: bool,
    /// `--exclude=`: patterns of what is left out.
    pub exclude: Vec<Word>,
    /// `--checksum=`: digest of what a URL gives; ADD only.
    pub checksum: Option<Word>,
    /// What to copy, in order; at least one.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: Word,
}

/// A source of COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path or a pattern; for ADD also a URL.
    Path(Word),
    /// A file given inline.
    Heredoc(Heredoc),
}

/// One pair of ENV or LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Name, raw.
    pub key: Word,
    /// Value, raw.
    pub value: Word,
    /// The old form without `=`.
    pub legacy: bool,
}

/// One argument of ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Name.
    pub name: Word,
    /// Default, raw.
    pub default: Option<Word>,
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// Switches off what the base image has.
    None,
    /// Runs a command now and then.
    Check {
        /// The command.
        command: Command,
        /// Time between two runs.
        interval: Option<Duration>,
        /// Time for one run.
        timeout: Option<Duration>,
        /// Time after the start in which failures do not count.
        start_period: Option<Duration>,
        /// Time between two runs in the start period.
        start_interval: Option<Duration>,
        /// Failures in a row that make a container unhealthy; 0 inherits.
        retries: Option<u32>,
    },
}

/// `ONBUILD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The instruction as the image configuration keeps it, heredocs included; see
    /// [`parse_trigger`](super::parse_trigger).
    pub trigger: String,
    /// The same, parsed.
    pub instruction: Box<Instruction>,
}
