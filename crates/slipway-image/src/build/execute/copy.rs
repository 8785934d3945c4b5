//! COPY and ADD.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use slipway_types::Digest;
use slipway_types::build::{BuildEvent, Severity};

use super::Build;
use super::order::{Order, Ordered, order};
use super::remote::Remote;
use super::roots::View;
use super::stage::StageState;
use super::steps::Step;
use crate::build::cache::Made;
use crate::build::context::Everything;
use crate::build::copy::{
    Selected, Special, UserNames, Writer, resolve_owner, select, select_with_parents, sniff,
};
use crate::build::dockerfile::{Copy, Word};
use crate::build::error::{Fault, StepErrorKind};
use crate::build::ignore::Ignore;
use crate::build::plan::find_stage;
use crate::build::root::Root;
use crate::build::tree::{
    EntryKind, Excluding, HashCache, Rules, Tree, TreeError, Verdict, content_digest, fill_hashes,
    folder_alone, scan,
};
use crate::store::Staging;

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
    Tree {
        tree: Tree,
        /// Folder below the destination that it goes to, with `--parents`.
        below: Option<String>,
    },
    Text {
        name: OsString,
        content: Vec<u8>,
    },
    Remote {
        name: OsString,
        remote: Remote,
    },
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
                let loads = self.load(&order, &origin, step)?;
                self.write(&order, &loads, &origin, &layers, &created_by, step)?
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
                        let loads = self.load(&order, &origin, step)?;
                        let (made, cached) =
                            self.write(&order, &loads, &origin, &layers, &created_by, step)?;
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
    fn load(&self, order: &Order<'_>, origin: &Origin<'_>, step: &Step<'_>) -> Result<Vec<Load>, Fault> {
        let mut loads = Vec::new();
        for source in &order.sources {
            match source {
                Ordered::Text { name, content } => {
                    loads.push(Load::Text { name: name.into(), content: content.clone().into_bytes() });
                }
                Ordered::Url { text, name, checksum, word } => {
                    let remote = self.remote(text, *checksum, step).map_err(|fault| fault.at(word.span))?;
                    loads.push(Load::Remote { name: name.clone(), remote });
                }
                Ordered::Path { text, word } => {
                    let found = if order.parents {
                        self.with_parents(order, text, origin)
                    } else {
                        self.plain(order, text, origin)
                    };
                    let found = found.map_err(|fault| fault.at(word.span))?;
                    if found.is_empty() {
                        self.no_match(text, word, origin);
                    }
                    loads.extend(found);
                }
            }
        }
        Ok(loads)
    }

    fn plain(&self, order: &Order<'_>, text: &str, origin: &Origin<'_>) -> Result<Vec<Load>, Fault> {
        let selected = select(origin.root, origin.rules, text, origin.place, origin.contained)?;
        let mut loads = Vec::with_capacity(selected.len());
        for one in selected {
            let tree = self.tree(one, origin, &order.exclude.1, None)?;
            loads.push(Load::Tree { tree, below: None });
        }
        Ok(loads)
    }

    /// What `--parents` brings: the folders above each match, and the match itself.
    fn with_parents(&self, order: &Order<'_>, text: &str, origin: &Origin<'_>) -> Result<Vec<Load>, Fault> {
        let place = origin.place;
        let cancel = &self.parts.cancel;
        let kept = select_with_parents(origin.root, origin.rules, text, place, origin.contained, cancel)?;
        let mut loads = Vec::new();
        let mut made = HashSet::new();
        for one in kept {
            let tree = self.tree(one.selected, origin, &order.exclude.1, Some(&one.below))?;
            if tree.entries.is_empty() {
                continue;
            }
            for (path, found) in one.folders {
                if !made.insert(path.clone()) {
                    continue;
                }
                let below = written(&path)?;
                let entries = vec![folder_alone(&found.stat, origin.rules)];
                let name = path.file_name().unwrap_or_default().to_owned();
                loads.push(Load::Tree { tree: Tree { name, at: found.path, entries }, below: Some(below) });
            }
            let place = if tree.is_dir() { &*one.below } else { one.below.parent().unwrap_or(Path::new("")) };
            let mut below = written(place)?;
            if !tree.is_dir() && !below.is_empty() {
                below.push('/');
            }
            loads.push(Load::Tree { tree, below: Some(below) });
        }
        Ok(loads)
    }

    fn no_match(&self, text: &str, word: &Word, origin: &Origin<'_>) {
        let message = format!("`{text}` matches nothing in {}", origin.place);
        let lines = &self.parts.lines;
        let warning = lines.diagnostic(Severity::Warning, "copy-no-match", word.span, message, None);
        (self.parts.events)(BuildEvent::Diagnostic(warning));
    }

    /// Lists and hashes one source. Patterns of `exclude` see paths below its top, or with `above` in front of them.
    pub(super) fn tree(
        &self,
        selected: Selected,
        origin: &Origin<'_>,
        exclude: &Ignore,
        above: Option<&Path>,
    ) -> Result<Tree, TreeError> {
        let cancel = &self.parts.cancel;
        let mut tree = Tree { name: selected.name, at: selected.at, entries: Vec::new() };
        if exclude.is_empty() {
            tree.entries = scan(origin.root, &tree.at, origin.rules, cancel)?;
        } else {
            let found = origin.root.find(&tree.at).map_err(|source| TreeError::io(&tree.at, source))?;
            let is_dir = found.is_some_and(|found| found.is_dir());
            let alone = if is_dir { Path::new("") } else { Path::new(&tree.name) }.to_owned();
            let above = above.unwrap_or(&alone);
            // What is left out may be what cannot be copied, or too much to look through.
            let rules = Excluding { rules: origin.rules, patterns: exclude, at: &tree.at, above };
            let own = rules.own(above, is_dir);
            if own != Verdict::Skip {
                tree.entries = scan(origin.root, &tree.at, &rules, cancel)?;
            }
            // A folder that is only there for what it holds, and holds nothing.
            if own == Verdict::Descend && tree.entries.len() == 1 {
                tree.entries.clear();
            }
        }
        fill_hashes(origin.root, &mut tree, origin.cache, origin.rules.faithful(), cancel)?;
        Ok(tree)
    }

    fn write(
        &self,
        order: &Order<'_>,
        loads: &[Load],
        origin: &Origin<'_>,
        layers: &[Digest],
        created_by: &str,
        step: &Step<'_>,
    ) -> Result<(Made, bool), Fault> {
        let mut key = order.key(layers);
        for load in loads {
            key = match load {
                Load::Tree { tree, .. } if tree.entries.is_empty() => key,
                Load::Tree { tree, below } => {
                    let name = if tree.is_dir() { Path::new("").as_os_str() } else { &tree.name };
                    key.bytes("name", name.as_encoded_bytes())
                        .option("below", below.as_deref())
                        .bytes("tree", &content_digest(tree))
                }
                Load::Remote { name, remote } => {
                    key.bytes("name", name.as_encoded_bytes()).bytes("remote", &remote.digest)
                }
                Load::Text { name, content } => {
                    key.bytes("name", name.as_encoded_bytes()).bytes("text", &Sha256::digest(content))
                }
            };
        }
        self.layered(key, created_by, &mut |staging| {
            self.write_all(order, loads, origin, layers, staging, step)
        })
    }

    fn write_all(
        &self,
        order: &Order<'_>,
        loads: &[Load],
        origin: &Origin<'_>,
        layers: &[Digest],
        staging: &Staging,
        step: &Step<'_>,
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
        let writer = Writer {
            root: &root,
            owner,
            mode: order.chmod.as_ref().map(|(_, change)| change),
            cancel: &self.parts.cancel,
        };
        for load in loads {
            match load {
                Load::Text { name, content } => writer.place_text(name, content, destination)?,
                Load::Remote { name, remote } => {
                    if name.is_empty() {
                        let found = root.find(Path::new(destination)).map_err(StepErrorKind::OpenRoot)?;
                        if found.is_some_and(|found| found.is_dir()) {
                            return Err(remote.no_name().into());
                        }
                    }
                    let (file, modified) = self.fetched(remote, step)?;
                    writer.place_file(name, &file, modified, destination)?;
                }
                Load::Tree { tree, below } => {
                    let folder = below.as_ref().map(|below| format!("{destination}{below}"));
                    let destination = folder.as_ref().unwrap_or(destination);
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
        writer.extract(file, compression, &tree.name.to_string_lossy(), destination, Special::Make)?;
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

/// A path as text: what the image's paths are written in.
fn written(path: &Path) -> Result<String, TreeError> {
    let text = path.to_str().ok_or_else(|| TreeError::io(path, std::io::ErrorKind::InvalidFilename))?;
    Ok(text.to_owned())
}
