//! What well-known commands read and make.

mod fetch;
mod install;

use self::fetch::{copies, curl, git, unpacks, wget};
use self::install::{apt, conda, node, pip};
use super::shell::{ShellWord, Simple};

/// What one simple command does, as far as the checks care.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Files that it opens at once: without them it fails.
    pub(super) reads: Vec<Read>,
    /// What it makes.
    pub(super) makes: Makes,
    /// Where it goes (`cd`).
    pub(super) goes: Option<Goes>,
    /// A script that it runs (`sh -c`), by the number of its word.
    pub(super) script: Option<usize>,
    /// What it does with Debian packages.
    pub(super) apt: Option<Apt>,
}

/// A file that a command opens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// Path, as written.
    pub(super) path: String,
    /// Number of the word that names it; none where the command itself implies the file.
    pub(super) word: Option<usize>,
    /// Whether another path may be written in the command instead.
    pub(super) is_replaceable: bool,
}

/// What a command makes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Makes {
    /// Nothing that a later command would name.
    #[default]
    Nothing,
    /// These files and folders, and anything inside.
    Paths(Vec<String>),
    /// Anything, anywhere.
    Anything,
}

/// Where `cd` goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Goes {
    To(String),
    Somewhere,
}

/// What a command does with Debian packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apt {
    /// Fetches the package lists.
    Update,
    /// Installs by name; `assumes_yes` when it asks no question.
    Install { assumes_yes: bool },
}

/// Programs that make no file that a later command would name by a relative path.
const HARMLESS: [&str; 79] = [
    "[",
    "[[",
    ":",
    "adduser",
    "addgroup",
    "add-apt-repository",
    "alias",
    "apk",
    "apt-key",
    "apt-mark",
    "case",
    "chgrp",
    "chmod",
    "chown",
    "chpasswd",
    "corepack",
    "cat",
    "date",
    "debconf-set-selections",
    "dnf",
    "dpkg",
    "dpkg-reconfigure",
    "du",
    "echo",
    "env",
    "exit",
    "export",
    "false",
    "find",
    "for",
    "gem",
    "getent",
    "grep",
    "groupadd",
    "groupmod",
    "hash",
    "head",
    "id",
    "ldconfig",
    "locale-gen",
    "ls",
    "md5sum",
    "microdnf",
    "mkdir",
    "nproc",
    "nvidia-smi",
    "passwd",
    "pipx",
    "printf",
    "pwd",
    "rm",
    "rmdir",
    "rpm",
    "sed",
    "select",
    "set",
    "sha256sum",
    "shopt",
    "sleep",
    "sort",
    "stat",
    "strip",
    "sync",
    "tail",
    "test",
    "trap",
    "true",
    "type",
    "ulimit",
    "umask",
    "uname",
    "unset",
    "update-alternatives",
    "update-ca-certificates",
    "update-locale",
    "useradd",
    "usermod",
    "wc",
    "yum",
];

/// Says what a command does.
pub(super) fn effect(command: &Simple) -> Effect {
    let mut effect = program(command);
    for output in &command.outputs {
        match &output.value {
            Some(path) if path.starts_with("/dev/") => {}
            Some(path) => add(&mut effect.makes, path.clone()),
            None => effect.makes = Makes::Anything,
        }
    }
    effect
}

fn add(makes: &mut Makes, path: String) {
    match makes {
        Makes::Nothing => *makes = Makes::Paths(vec![path]),
        Makes::Paths(paths) => paths.push(path),
        Makes::Anything => {}
    }
}

/// The words of a command from one of them on.
struct Args<'c> {
    words: &'c [ShellWord],
    first: usize,
}

impl<'c> Args<'c> {
    fn get(&self, at: usize) -> Option<&'c str> {
        self.words.get(self.first + at)?.value.as_deref()
    }

    fn len(&self) -> usize {
        self.words.len() - self.first
    }

    /// Values and word numbers; words without a known value are left out.
    fn iter(&self) -> impl Iterator<Item = (usize, &'c str)> + '_ {
        self.words
            .iter()
            .enumerate()
            .skip(self.first)
            .filter_map(|(at, word)| Some((at, word.value.as_deref()?)))
    }

    fn has_unknown(&self) -> bool {
        self.words[self.first..].iter().any(|word| word.value.is_none())
    }

    fn from(&self, at: usize) -> Args<'c> {
        Args { words: self.words, first: (self.first + at).min(self.words.len()) }
    }
}

fn anything() -> Effect {
    Effect { makes: Makes::Anything, ..Effect::default() }
}

fn reads(word: usize, path: &str, makes: Makes) -> Effect {
    let read = Read { path: path.to_owned(), word: Some(word), is_replaceable: true };
    Effect { reads: vec![read], makes, ..Effect::default() }
}

fn program(command: &Simple) -> Effect {
    let Some(args) = unwrapped(&command.words) else {
        return Effect::default();
    };
    let Some(word) = args.get(0) else {
        return anything();
    };
    let rest = args.from(1);
    if word.contains('/') && !word.starts_with('/') {
        return reads(args.first, word, Makes::Anything);
    }
    let name = word.rsplit('/').next().unwrap_or(word);
    if is_versioned(name, "python") || is_versioned(name, "pypy") {
        return python(&rest);
    }
    if is_versioned(name, "pip") {
        return pip(&rest);
    }
    match name {
        "cd" => match (rest.len(), rest.get(0)) {
            (1, Some(path)) if path != "-" => {
                Effect { goes: Some(Goes::To(path.to_owned())), ..Effect::default() }
            }
            _ => Effect { goes: Some(Goes::Somewhere), ..Effect::default() },
        },
        "pushd" | "popd" => Effect { goes: Some(Goes::Somewhere), ..Effect::default() },
        "uv" if rest.get(0) == Some("pip") => pip(&rest.from(1)),
        "bash" | "sh" | "dash" | "ash" | "zsh" | "ksh" => shell(&rest),
        "source" | "." => match (rest.first, rest.get(0)) {
            (at, Some(path)) if path.contains('/') => reads(at, path, Makes::Anything),
            _ => anything(),
        },
        "npm" | "yarn" | "pnpm" => node(name, &rest),
        "make" | "gmake" => make(&rest),
        "conda" | "mamba" | "micromamba" => conda(&rest),
        "torchrun" | "accelerate" => match rest.iter().find(|(_, arg)| arg.ends_with(".py")) {
            Some((at, path)) => reads(at, path, Makes::Anything),
            None => anything(),
        },
        "apt-get" | "apt" | "aptitude" => apt(name, &rest),
        "git" => git(&rest),
        "curl" => curl(&rest),
        "wget" => wget(&rest),
        "tar" | "bsdtar" => unpacks(&rest, &["-C", "--directory"]),
        "unzip" => unpacks(&rest, &["-d"]),
        "gunzip" | "gzip" | "bunzip2" | "bzip2" | "xz" | "unxz" | "zstd" | "unzstd" => here(),
        "touch" | "tee" | "truncate" => Effect { makes: plain_args(&rest), ..Effect::default() },
        "cp" | "mv" | "install" | "rsync" | "ln" => copies(&rest),
        "find" if rest.iter().any(|(_, arg)| arg.starts_with("-exec") || arg == "-fprint") => anything(),
        _ if HARMLESS.contains(&name) => Effect::default(),
        _ => anything(),
    }
}

/// The command without assignments and programs that only start another one.
fn unwrapped(words: &[ShellWord]) -> Option<Args<'_>> {
    let mut at = 0;
    let is_assignment = |word: &ShellWord| {
        word.value.as_deref().and_then(|text| text.split_once('=')).is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
    };
    loop {
        let word = words.get(at)?;
        let rest = &words[at + 1..];
        let plain = |word: Option<&ShellWord>| {
            word.and_then(|word| word.value.as_deref()).is_some_and(|text| !text.starts_with('-'))
        };
        match word.value.as_deref() {
            _ if is_assignment(word) => at += 1,
            Some("exec" | "time" | "nohup" | "sudo" | "env" | "nice") if plain(rest.first()) => at += 1,
            Some("timeout") if plain(rest.first()) && rest.len() > 1 => at += 2,
            _ => return Some(Args { words, first: at }),
        }
    }
}

/// `python`, `python3`, `python3.12`.
fn is_versioned(name: &str, program: &str) -> bool {
    name.strip_prefix(program).is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

fn python(args: &Args<'_>) -> Effect {
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        match arg {
            "-m" => {
                return match args.get(at + 1) {
                    Some("pip") => pip(&args.from(at + 2)),
                    Some("venv" | "virtualenv") => {
                        Effect { makes: plain_args(&args.from(at + 2)), ..Effect::default() }
                    }
                    _ => anything(),
                };
            }
            "-W" | "-X" | "--check-hash-based-pycs" => at += 2,
            "-c" | "-" | "--version" | "-V" => return anything(),
            _ if arg.starts_with("-c") || arg.starts_with("-m") => return anything(),
            _ if arg.starts_with('-') => at += 1,
            _ => return reads(args.first + at, arg, Makes::Anything),
        }
    }
    anything()
}

fn shell(args: &Args<'_>) -> Effect {
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        if !arg.starts_with(['-', '+']) {
            return reads(args.first + at, arg, Makes::Anything);
        }
        if !arg.starts_with("--") && arg.contains('c') {
            let script = args.get(at + 1).map(|_| args.first + at + 1);
            return Effect {
                script,
                makes: if script.is_some() { Makes::Nothing } else { Makes::Anything },
                ..Effect::default()
            };
        }
        at += if matches!(arg, "-o" | "+o" | "-O" | "--rcfile" | "--init-file") { 2 } else { 1 };
        if arg.starts_with("-s") {
            return anything();
        }
    }
    anything()
}

fn make(args: &Args<'_>) -> Effect {
    if args.iter().any(|(_, arg)| arg.starts_with("-C") || arg.starts_with("--directory")) {
        return anything();
    }
    let file = args.iter().find_map(|(at, arg)| match arg {
        "-f" | "--file" | "--makefile" => Some((at + 1, args.words.get(at + 1)?.value.as_deref()?)),
        _ => None,
    });
    match file {
        Some((at, path)) if path != "-" => reads(at, path, Makes::Anything),
        _ => anything(),
    }
}

fn here() -> Effect {
    Effect { makes: Makes::Paths(vec![".".to_owned()]), ..Effect::default() }
}

fn plain_args(args: &Args<'_>) -> Makes {
    if args.has_unknown() {
        return Makes::Anything;
    }
    Makes::Paths(
        args.iter().map(|(_, arg)| arg).filter(|arg| !arg.starts_with('-')).map(str::to_owned).collect(),
    )
}
