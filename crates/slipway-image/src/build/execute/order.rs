//! A COPY or ADD after expansion of its words.

use std::ffi::OsString;

use slipway_types::Digest;

use super::metadata::absolute;
use super::remote::{checksum, file_name};
use super::stage::StageState;
use crate::build::cache::StepKey;
use crate::build::copy::{ModeChange, parse_mode};
use crate::build::dockerfile::{Copy, Source, Word};
use crate::build::error::{Fault, FetchError, StepErrorKind};
use crate::build::fetch::{is_git, is_remote, redacted};
use crate::build::ignore::Ignore;
use crate::build::words;

/// A COPY or ADD after expansion.
pub(super) struct Order<'c> {
    pub(super) instruction: &'static str,
    pub(super) sources: Vec<Ordered<'c>>,
    /// Absolute; ends with `/` when it must be a folder.
    pub(super) destination: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<(String, ModeChange)>,
    /// Whether the folders above the sources are kept.
    pub(super) parents: bool,
    /// Patterns of `--exclude`, as written and compiled.
    pub(super) exclude: (Vec<String>, Ignore),
}

pub(super) enum Ordered<'c> {
    Path { text: String, word: &'c Word },
    Text { name: &'c str, content: String },
    Url { text: String, name: OsString, checksum: Option<[u8; 32]>, word: &'c Word },
}

impl Order<'_> {
    /// The inputs of the step, without the contents of its sources.
    pub(super) fn key(&self, layers: &[Digest]) -> StepKey {
        let mode = self.chmod.as_ref().map(|(text, change)| match change {
            ModeChange::Octal(mode) => format!("{mode:o}"),
            ModeChange::Symbolic(_) => text.clone(),
        });
        let sources = self.sources.iter().flat_map(|source| match source {
            Ordered::Path { text, .. } => ["path", text.as_str()],
            Ordered::Text { name, content } => [name, content.as_str()],
            Ordered::Url { text, .. } => ["url", text.as_str()],
        });
        // Extraction depends on the instruction, and names of sources on the patterns that found them.
        StepKey::new(self.instruction, layers)
            .text("to", &self.destination)
            .option("chown", self.chown.as_deref())
            .option("chmod", mode.as_deref())
            .list("sources", sources)
            .option("parents", self.parents.then_some("true"))
            .list("exclude", self.exclude.0.iter().map(String::as_str))
    }

    /// The instruction as the history has it.
    pub(super) fn describe(&self, copy: &Copy) -> String {
        let mut text = self.instruction.to_owned();
        if let Some(from) = &copy.from {
            text.push_str(&format!(" --from={}", from.text));
        }
        if let Some(chown) = &self.chown {
            text.push_str(&format!(" --chown={chown}"));
        }
        if let Some((chmod, _)) = &self.chmod {
            text.push_str(&format!(" --chmod={chmod}"));
        }
        if self.parents {
            text.push_str(" --parents");
        }
        for pattern in &self.exclude.0 {
            text.push_str(&format!(" --exclude={pattern}"));
        }
        for source in &self.sources {
            text.push(' ');
            match source {
                Ordered::Path { text: path, .. } => text.push_str(path),
                Ordered::Url { text: url, .. } => text.push_str(&redacted(url)),
                Ordered::Text { name, .. } => text.push_str(&format!("<<{name}")),
            }
        }
        text.push(' ');
        text.push_str(&self.destination);
        text
    }
}

/// Expands everything in a COPY or ADD.
pub(super) fn order<'c>(
    state: &StageState,
    copy: &'c Copy,
    instruction: &'static str,
) -> Result<Order<'c>, Fault> {
    let flag = |word: &Option<Word>| -> Result<Option<String>, Fault> {
        let text = word.as_ref().map(|word| state.expand(word)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    };
    let wanted = flag(&copy.checksum)?;
    let mut sources = Vec::with_capacity(copy.sources.len());
    for source in &copy.sources {
        sources.push(match source {
            Source::Path(word) => {
                let text = state.expand(word)?;
                if instruction == "ADD" && is_git(&text) {
                    let what = format!("ADD of the Git repository `{}`", redacted(&text));
                    return Err(Fault::from(StepErrorKind::Unsupported { what })
                        .at(word.span)
                        .hint("clone it in a RUN step: `RUN git clone URL`"));
                }
                if instruction == "ADD" && is_remote(&text) {
                    let name = file_name(&text).map_err(|error| Fault::from(error).at(word.span))?;
                    let checksum = wanted.as_deref().map(checksum).transpose()?;
                    sources.push(Ordered::Url { text, name, checksum, word });
                    continue;
                }
                Ordered::Path { text, word }
            }
            Source::Heredoc(heredoc) => {
                let text = heredoc.text();
                let content = if heredoc.expand {
                    words::expand_heredoc(&text, &|name| state.lookup(name))
                        .map_err(|source| {
                            let kind = StepErrorKind::Expand { word: format!("<<{}", heredoc.name), source };
                            Fault::from(kind).at(heredoc.span)
                        })?
                        .text
                } else {
                    text
                };
                Ordered::Text { name: &heredoc.name, content }
            }
        });
    }
    let written = state.expand(&copy.destination)?;
    let mut destination = absolute(state, &written);
    let last = written.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") && !destination.ends_with('/') {
        destination.push('/');
    }
    if wanted.is_some() && !matches!(sources[..], [Ordered::Url { .. }]) {
        let what = "`--checksum` for anything but one URL".to_owned();
        return Err(Fault::from(StepErrorKind::Unsupported { what }).hint("give each URL an ADD of its own"));
    }
    if destination.ends_with('/')
        && let Some(url) = sources.iter().find_map(|source| match source {
            Ordered::Url { text, name, word, .. } if name.is_empty() => Some((text, word)),
            _ => None,
        })
    {
        return Err(Fault::from(FetchError::NoName(redacted(url.0))).at(url.1.span));
    }
    if copy.parents && !destination.ends_with('/') {
        destination.push('/');
    }
    if sources.len() > 1 && !destination.ends_with('/') {
        return Err(Fault::from(StepErrorKind::NotAFolder(written)).at(copy.destination.span));
    }
    let chmod = match flag(&copy.chmod)? {
        None => None,
        Some(text) => match parse_mode(&text) {
            Ok(change) => Some((text, change)),
            Err(source) => return Err(StepErrorKind::Mode { text, source }.into()),
        },
    };
    let patterns = copy.exclude.iter().map(|word| state.expand(word)).collect::<Result<Vec<_>, _>>()?;
    let ignore =
        Ignore::from_patterns(patterns.iter().map(String::as_str)).map_err(StepErrorKind::Exclude)?;
    let (chown, parents, exclude) = (flag(&copy.chown)?, copy.parents, (patterns, ignore));
    Ok(Order { instruction, sources, destination, chown, chmod, parents, exclude })
}
