//! COPY and ADD.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use slipway_types::Digest;
use slipway_types::build::{BuildEvent, Severity};

use super::Build;
use super::metadata::absolute;
use super::roots::View;
use super::stage::StageState;
use super::steps::Step;
use crate::build::cache::{Made, StepKey};
use crate::build::context::Everything;
use crate::build::copy::{Selected, UserNames, Writer, parse_mode, resolve_owner, select, sniff};
use crate::build::dockerfile::{Copy, Source, Word};
use crate::build::error::{Fault, StepErrorKind};
use crate::build::plan::find_stage;
use crate::build::root::Root;
use crate::build::tree::{EntryKind, HashCache, Rules, Tree, TreeError, content_digest, fill_hashes, scan};
use crate::build::words;
use crate::store::Staging;

/// A COPY or ADD after expansion.
struct Order<'c> {
    instruction: &'static str,
    sources: Vec<Ordered<'c>>,
    /// Absolute; ends with `/` when it must be a folder.
    destination: String,
    chown: Option<String>,
    chmod: Option<u32>,
}

enum Ordered<'c> {
    Path { text: String, word: &'c Word },
    Text { name: &'c str, content: String },
}

/// Where sources of paths are looked for.
pub(super) struct Origin<'o> {
    pub(super) root: &'o Root,
    pub(super) rules: &'o dyn Rules,
    pub(super) cache: Option<&'o HashCache>,
    /// For messages.
    pub(super) place: &'o str,
    /// Whether paths that climb out are refused.
    pub(super) contained: bool,
}

/// Something to write.
enum Load {
    Tree(Tree),
    Text { name: OsString, content: Vec<u8> },
}

impl Build<'_> {
    /// Executes COPY or ADD, or takes it from the cache.
    pub(super) fn copy_step(
        &self,
        stage: usize,
        state: &mut StageState,
        copy: &Copy,
        instruction: &'static str,
        step: &Step<'_>,
    ) -> Result<bool, Fault> {
        let order = order(state, copy, instruction)?;
        let created_by = order.describe(copy);
        let layers = state.config.rootfs.diff_ids.clone();
        let (made, cached) = match &copy.from {
            None => {
                let context = self.parts.context;
                let origin = Origin {
                    root: &context.root,
                    rules: context,
                    cache: Some(&context.cache),
                    place: "the build context",
                    contained: true,
                };
                let loads = self.load(&order, &origin)?;
                self.write(&order, loads, &origin, &layers, &created_by)?
            }
            Some(from) => {
                let (from_layers, place) = self.source_layers(stage, &from.text, step)?;
                // What was copied from these very layers before needs no look at them.
                let quick = order.key(&layers).list("from", from_layers.iter().map(Digest::as_str)).finish();
                match self.cached(&quick)? {
                    Some(made) => (made, true),
                    None => {
                        let view = self.view(&from_layers)?;
                        let origin = view.origin(&place);
                        let loads = self.load(&order, &origin)?;
                        let (made, cached) = self.write(&order, loads, &origin, &layers, &created_by)?;
                        self.parts.machine.store.cache_put(&quick, &made.to_entry(&created_by))?;
                        (made, cached)
                    }
                }
            }
        };
        self.add(state, &made, &created_by);
        Ok(cached)
    }

    /// The layers that `--from` names, and words for them.
    pub(super) fn source_layers(
        &self,
        stage: usize,
        from: &str,
        step: &Step<'_>,
    ) -> Result<(Vec<Digest>, String), Fault> {
        if let Some(number) = find_stage(self.parts.dockerfile, from, stage)
            && let Some(done) = self.finished_stage(number)
        {
            return Ok((done.config.rootfs.diff_ids.clone(), format!("stage `{from}`")));
        }
        let reference =
            from.parse().map_err(|source| StepErrorKind::Reference { text: from.to_owned(), source })?;
        let platform = &self.planned(stage)?.platform;
        let (config, _) = self.base(&reference, platform, step)?;
        Ok((config.rootfs.diff_ids, format!("image `{from}`")))
    }

    /// Finds and lists all sources, with the hashes of all files.
    fn load(&self, order: &Order<'_>, origin: &Origin<'_>) -> Result<Vec<Load>, Fault> {
        let mut loads = Vec::new();
        for source in &order.sources {
            match source {
                Ordered::Text { name, content } => {
                    loads.push(Load::Text { name: name.into(), content: content.clone().into_bytes() });
                }
                Ordered::Path { text, word } => {
                    let selected = select(origin.root, origin.rules, text, origin.place, origin.contained)
                        .map_err(|error| Fault::from(error).at(word.span))?;
                    if selected.is_empty() {
                        let message = format!("`{text}` matches nothing in {}", origin.place);
                        let warning = self.parts.lines.diagnostic(
                            Severity::Warning,
                            "copy-no-match",
                            word.span,
                            message,
                            None,
                        );
                        (self.parts.events)(BuildEvent::Diagnostic(warning));
                    }
                    for one in selected {
                        let tree =
                            self.tree(one, origin).map_err(|error| Fault::from(error).at(word.span))?;
                        loads.push(Load::Tree(tree));
                    }
                }
            }
        }
        Ok(loads)
    }

    /// Lists and hashes one source.
    pub(super) fn tree(&self, selected: Selected, origin: &Origin<'_>) -> Result<Tree, TreeError> {
        let cancel = &self.parts.cancel;
        let entries = scan(origin.root, &selected.at, origin.rules, cancel)?;
        let mut tree = Tree { name: selected.name, at: selected.at, entries };
        fill_hashes(origin.root, &mut tree, origin.cache, origin.rules.faithful(), cancel)?;
        Ok(tree)
    }

    fn write(
        &self,
        order: &Order<'_>,
        loads: Vec<Load>,
        origin: &Origin<'_>,
        layers: &[Digest],
        created_by: &str,
    ) -> Result<(Made, bool), Fault> {
        let mut key = order.key(layers);
        for load in &loads {
            key = match load {
                Load::Tree(tree) => {
                    let name = if tree.is_dir() { Path::new("").as_os_str() } else { &tree.name };
                    key.bytes("name", name.as_encoded_bytes()).bytes("tree", &content_digest(tree))
                }
                Load::Text { name, content } => {
                    key.bytes("name", name.as_encoded_bytes()).bytes("text", &Sha256::digest(content))
                }
            };
        }
        self.layered(key, created_by, &mut |staging| self.write_all(order, &loads, origin, layers, staging))
    }

    fn write_all(
        &self,
        order: &Order<'_>,
        loads: &[Load],
        origin: &Origin<'_>,
        layers: &[Digest],
        staging: &Staging,
    ) -> Result<(), Fault> {
        if loads.is_empty() {
            return Ok(());
        }
        let root = self.open_root(&self.layout(layers, staging)?)?;
        let owner = match &order.chown {
            None => None,
            Some(text) => Some(
                resolve_owner(text, &UserNames(&root))
                    .map_err(|source| StepErrorKind::Owner { text: text.clone(), source })?,
            ),
        };
        let destination = &order.destination;
        if loads.len() > 1 && !destination.ends_with('/') {
            let found = root.find(Path::new(destination)).map_err(StepErrorKind::OpenRoot)?;
            if !found.is_some_and(|found| found.is_dir()) {
                return Err(StepErrorKind::NotAFolder(destination.clone()).into());
            }
        }
        let writer = Writer { root: &root, owner, mode: order.chmod, cancel: &self.parts.cancel };
        for load in loads {
            match load {
                Load::Text { name, content } => writer.place_text(name, content, destination)?,
                Load::Tree(tree) => {
                    if order.instruction == "ADD" && self.extract(&writer, origin.root, tree, destination)? {
                        continue;
                    }
                    writer.place(origin.root, tree, destination)?;
                }
            }
        }
        Ok(())
    }

    /// Extracts a source of ADD if it is an archive.
    fn extract(
        &self,
        writer: &Writer<'_>,
        from: &Root,
        tree: &Tree,
        destination: &str,
    ) -> Result<bool, Fault> {
        let [entry] = &tree.entries[..] else { return Ok(false) };
        if !matches!(entry.kind, EntryKind::File(_)) {
            return Ok(false);
        }
        let fail = |source| TreeError::io(&tree.at, source);
        let mut file = File::from(from.open_file(&tree.at).map_err(fail)?);
        let Some(compression) = sniff(&mut file).map_err(fail)? else { return Ok(false) };
        let check = file.try_clone().map_err(fail)?;
        writer.extract(file, compression, &tree.name.to_string_lossy(), destination)?;
        // What was extracted must be what was hashed.
        let stat = rustix::fs::fstat(&check).map_err(|error| fail(error.into()))?;
        if crate::build::tree::stamp_of(&stat) != entry.stamp {
            return Err(TreeError::Changed(tree.at.clone()).into());
        }
        Ok(true)
    }
}

impl View {
    /// Sources in a stage or an image.
    pub(super) fn origin<'o>(&'o self, place: &'o str) -> Origin<'o> {
        Origin { root: &self.root, rules: &Everything, cache: None, place, contained: false }
    }
}

impl Order<'_> {
    /// The inputs of the step, without the contents of its sources.
    fn key(&self, layers: &[Digest]) -> StepKey {
        let mode = self.chmod.map(|mode| format!("{mode:o}"));
        let sources = self.sources.iter().flat_map(|source| match source {
            Ordered::Path { text, .. } => ["path", text.as_str()],
            Ordered::Text { name, content } => [name, content.as_str()],
        });
        // Extraction depends on the instruction, and names of sources on the patterns that found them.
        StepKey::new(self.instruction, layers)
            .text("to", &self.destination)
            .option("chown", self.chown.as_deref())
            .option("chmod", mode.as_deref())
            .list("sources", sources)
    }

    /// The instruction as the history has it.
    fn describe(&self, copy: &Copy) -> String {
        let mut text = self.instruction.to_owned();
        if let Some(from) = &copy.from {
            text.push_str(&format!(" --from={}", from.text));
        }
        if let Some(chown) = &self.chown {
            text.push_str(&format!(" --chown={chown}"));
        }
        if let Some(chmod) = &self.chmod {
            text.push_str(&format!(" --chmod={chmod:o}"));
        }
        for source in &self.sources {
            text.push(' ');
            match source {
                Ordered::Path { text: path, .. } => text.push_str(path),
                Ordered::Text { name, .. } => text.push_str(&format!("<<{name}")),
            }
        }
        text.push(' ');
        text.push_str(&self.destination);
        text
    }
}

/// Expands everything in a COPY or ADD.
fn order<'c>(state: &StageState, copy: &'c Copy, instruction: &'static str) -> Result<Order<'c>, Fault> {
    let flag = |word: &Option<Word>| -> Result<Option<String>, Fault> {
        let text = word.as_ref().map(|word| state.expand(word)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    };
    let mut sources = Vec::with_capacity(copy.sources.len());
    for source in &copy.sources {
        sources.push(match source {
            Source::Path(word) => {
                let text = state.expand(word)?;
                if instruction == "ADD" && is_remote(&text) {
                    let what = format!("ADD of `{text}`");
                    return Err(Fault::from(StepErrorKind::Unsupported { what })
                        .at(word.span)
                        .hint("fetch it in a RUN step: `RUN curl -fsSLo FILE URL`, or `RUN git clone URL`"));
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
    if sources.len() > 1 && !destination.ends_with('/') {
        return Err(Fault::from(StepErrorKind::NotAFolder(written)).at(copy.destination.span));
    }
    let chmod = match flag(&copy.chmod)? {
        None => None,
        Some(text) => Some(parse_mode(&text).map_err(|source| StepErrorKind::Mode { text, source })?),
    };
    Ok(Order { instruction, sources, destination, chown: flag(&copy.chown)?, chmod })
}

/// Whether a source of ADD is fetched from elsewhere.
fn is_remote(text: &str) -> bool {
    ["http://", "https://", "ftp://", "git://", "ssh://", "git@"].iter().any(|start| text.starts_with(start))
}
