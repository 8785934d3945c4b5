//! What is known to be in a stage's file system.

use super::files::{ContextFiles, FileKind};
use super::paths::{as_folder, below, join, name};

/// Files of one stage, as far as the Dockerfile tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Item {
    /// Absolute, clean path.
    at: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// A file of the context, and the copy that brought it.
    File { source: String, copy: CopyRef },
    /// The contents of a folder of the context.
    Folder { source: String, copy: CopyRef },
    /// Anything may be here and below.
    Anything,
    /// A folder of which nothing else is known.
    Empty,
}

/// The COPY or ADD that brought a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopyRef {
    /// Number of the stage.
    pub(super) stage: usize,
    /// Number of the instruction in its stage.
    pub(super) instruction: usize,
    /// Working directory in force there.
    pub(super) workdir: String,
    /// It is no copy but a mount of the RUN that is looked at.
    pub(super) is_mount: bool,
}

/// A file of the context that lies somewhere else than where it is looked for.
pub(super) struct Elsewhere {
    /// Absolute path where it is.
    pub(super) path: String,
    /// Where the destination of its copy would have to be for the file to be where it is looked for.
    pub(super) wanted_destination: Option<String>,
    /// The copy that brought it.
    pub(super) copy: CopyRef,
}

impl Layout {
    pub(super) fn file(&mut self, at: String, source: &str, copy: &CopyRef) {
        self.items.push(Item { at, what: What::File { source: source.to_owned(), copy: copy.clone() } });
    }

    pub(super) fn folder(&mut self, at: String, source: &str, copy: &CopyRef) {
        self.items.push(Item { at, what: What::Folder { source: source.to_owned(), copy: copy.clone() } });
    }

    pub(super) fn anything(&mut self, at: String) {
        let known = |item: &Item| matches!(item.what, What::Anything) && item.at == at;
        if self.items.last().is_some_and(known) {
            return;
        }
        self.items.push(Item { at, what: What::Anything });
    }

    pub(super) fn empty_folder(&mut self, at: String) {
        self.items.push(Item { at, what: What::Empty });
    }

    /// Whether a path exists or may exist, and the copy that brought it.
    pub(super) fn find(&self, path: &str, files: &dyn ContextFiles) -> Option<Option<&CopyRef>> {
        self.items.iter().rev().find_map(|item| {
            let rest = below(&item.at, path);
            match &item.what {
                What::File { copy, .. } => (item.at == path).then_some(Some(copy)),
                What::Folder { source, copy } => {
                    let inside = join_relative(source, rest?);
                    files.entry(&inside).filter(|entry| entry.ignored_by.is_none()).map(|_| Some(copy))
                }
                What::Anything => rest.map(|_| None),
                What::Empty => (item.at == path).then_some(None),
            }
        })
    }

    /// Whether a RUN may have made a path.
    pub(super) fn may_have(&self, path: &str) -> bool {
        self.items.iter().any(|item| matches!(item.what, What::Anything) && below(&item.at, path).is_some())
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// What was added since this layout had a length.
    pub(super) fn since(&self, length: usize) -> Self {
        Self { items: self.items[length.min(self.items.len())..].to_vec() }
    }

    pub(super) fn extend(&mut self, more: Self) {
        self.items.extend(more.items);
    }

    /// Whether a path is known to be a folder.
    pub(super) fn is_folder(&self, path: &str) -> bool {
        is_usual(path)
            || self.items.iter().any(|item| match item.what {
                What::Folder { .. } | What::Empty => below(path, &item.at).is_some(),
                What::File { .. } => below(path, &item.at).is_some_and(|rest| !rest.is_empty()),
                What::Anything => false,
            })
    }

    /// Whether copies of this Dockerfile put something into a folder, or a WORKDIR made it.
    pub(super) fn is_ours(&self, folder: &str) -> bool {
        !is_usual(folder)
            && self.items.iter().any(|item| match &item.what {
                What::File { .. } => super::paths::parent(&item.at) == folder,
                What::Folder { .. } | What::Empty => item.at == folder,
                What::Anything => false,
            })
    }

    /// Looks for the file that `wanted` (as written, relative or absolute; `path` when resolved) means, in other places.
    pub(super) fn elsewhere(&self, wanted: &str, path: &str, files: &dyn ContextFiles) -> Option<Elsewhere> {
        let relative = super::paths::clean(wanted.trim_start_matches('/'));
        self.items.iter().rev().find_map(|item| match &item.what {
            What::File { copy, .. } | What::Folder { copy, .. } if copy.is_mount => None,
            What::File { source, copy } => {
                let same = *source == relative || name(source) == name(path) && name(&item.at) == name(path);
                same.then(|| Elsewhere {
                    path: item.at.clone(),
                    wanted_destination: (name(&item.at) == name(path))
                        .then(|| as_folder(super::paths::parent(path))),
                    copy: copy.clone(),
                })
            }
            What::Folder { source, copy } => [relative.as_str(), name(path)].into_iter().find_map(|inside| {
                let entry = files.entry(&join_relative(source, inside))?;
                if entry.ignored_by.is_some() || entry.kind != FileKind::File {
                    return None;
                }
                let destination = path.strip_suffix(inside).filter(|rest| rest.ends_with('/'));
                Some(Elsewhere {
                    path: join(&item.at, inside),
                    wanted_destination: destination.map(str::to_owned),
                    copy: copy.clone(),
                })
            }),
            What::Anything | What::Empty => None,
        })
    }
}

/// Whether every Linux image has a folder, filled with its own files.
fn is_usual(path: &str) -> bool {
    const USUAL: [&str; 17] = [
        "/",
        "/bin",
        "/etc",
        "/home",
        "/lib",
        "/mnt",
        "/opt",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/tmp",
        "/usr",
        "/usr/bin",
        "/usr/local",
        "/usr/local/bin",
        "/var",
    ];
    USUAL.contains(&path)
}

fn join_relative(folder: &str, inside: &str) -> String {
    match (folder.is_empty(), inside.is_empty()) {
        (true, _) => inside.to_owned(),
        (_, true) => folder.to_owned(),
        _ => format!("{folder}/{inside}"),
    }
}
