//! What a model folder holds, told from names and first bytes. Nothing is loaded, run or unpickled.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use slipway_types::ErrorCode;
use slipway_types::model::ModelFormat;

use super::path::MAX_FILES;
use super::python::{Definition, definitions};
use super::tree::{FileKind, Links, Tree, TreeError};
use super::zip;

/// The most bytes of a Python file that are looked at.
const MAX_SOURCE: u64 = 1 << 20;
/// How a pickle of `torch.save` before version 1.6 begins: protocol 2, then torch's magic number as a long.
const TORCH_LEGACY: [u8; 15] =
    [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];

/// Why a model folder's format is not known.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The folder cannot be listed.
    #[error("cannot look into the model folder")]
    Tree(#[source] TreeError),
    /// Nothing in it is a model of a known format.
    #[error("`{}` holds no model: found {}; expected {}", dir.display(), listed(found), expected_all())]
    Nothing {
        /// The folder.
        dir: PathBuf,
        /// The files there are (at most twenty).
        found: Vec<String>,
    },
    /// It is not what the project says.
    #[error("`{}` holds no model of format `{format}`: found {}; expected {}", dir.display(), listed(found), expected(*format))]
    NotAsDeclared {
        /// The folder.
        dir: PathBuf,
        /// The format that was declared.
        format: ModelFormat,
        /// The files there are (at most twenty).
        found: Vec<String>,
        /// The format that it looks like instead.
        instead: Option<ModelFormat>,
    },
    /// The entry is not `module:Class`.
    #[error("`{entry}` is no entry: expected `module:Class`")]
    Entry {
        /// As given.
        entry: String,
    },
    /// The entry's file has no such class.
    #[error("`{file}` has no class `{class}`: it has {}", listed(has))]
    NoClass {
        /// The file.
        file: String,
        /// The class of the entry.
        class: String,
        /// The classes and functions that it has (at most twenty).
        has: Vec<String>,
    },
}

impl DetectError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InvalidArgument
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing { found, .. } if found.is_empty() => {
                Some("training must save its model into the folder that SLIPWAY_MODEL_DIR names".to_owned())
            }
            Self::Nothing { .. } => Some(
                "name the class that loads it: `[model] format = \"python\"` and `entry = \"module:Class\"` in slipway.toml"
                    .to_owned(),
            ),
            Self::NotAsDeclared { instead: Some(instead), .. } => {
                Some(format!("it looks like `{instead}`: set `format = \"{instead}\"`, or leave `format` out"))
            }
            Self::NoClass { .. } | Self::Entry { .. } => {
                Some("`entry` in slipway.toml names the module and the class, such as `model:Net`".to_owned())
            }
            _ => None,
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// What makes a folder a model of a format.
fn expected(format: ModelFormat) -> &'static str {
    match format {
        ModelFormat::Python => "`model.py`, or the entry's file, with a class that has a method `predict`",
        ModelFormat::Keras => "a `*.keras` archive",
        ModelFormat::TensorFlow => "`saved_model.pb` and a folder `variables`",
        ModelFormat::Onnx => "a `*.onnx` graph",
        ModelFormat::TorchScript => {
            "a `*.pt`, `*.pth`, `*.ts` or `*.torchscript` archive of `torch.jit.save`"
        }
        ModelFormat::Torch => "a `*.pt`, `*.pth` or `*.bin` file of `torch.save`",
        ModelFormat::Sklearn => "a `*.joblib` or `*.pkl` file",
    }
}

fn expected_all() -> String {
    ModelFormat::ALL.iter().map(|f| format!("{} ({f})", expected(*f))).collect::<Vec<_>>().join(", or ")
}

/// Tells the format of a model folder. Files count where the serving worker looks for them: in the folder and in its
/// direct subfolders. `declared` is checked, not believed, except that the file of a Python `entry` may also
/// lie in the project folder, which is not seen here.
///
/// # Errors
/// Nothing fits, something else than the declared format is there, or the entry names no class.
pub fn detect_format(
    dir: &Path,
    declared: Option<ModelFormat>,
    entry: Option<&str>,
) -> Result<ModelFormat, DetectError> {
    let folder = Folder::read(dir)?;
    let entry = entry.map(Entry::read).transpose()?;
    let entry_found = match &entry {
        Some(entry) => folder.check_entry(entry)?,
        None => EntryFound::No,
    };
    let fits = |format| folder.fits(format, entry.as_ref(), &entry_found);
    let detected = ModelFormat::ALL.into_iter().find(|format| fits(*format));
    match declared {
        None => detected.ok_or_else(|| DetectError::Nothing { dir: dir.to_owned(), found: folder.shown() }),
        Some(format) => {
            let elsewhere = format == ModelFormat::Python && entry.is_some() && entry_found == EntryFound::No;
            if fits(format) || elsewhere {
                return Ok(format);
            }
            Err(DetectError::NotAsDeclared {
                dir: dir.to_owned(),
                format,
                found: folder.shown(),
                instead: detected,
            })
        }
    }
}

/// `module:Class`, taken apart.
struct Entry {
    module: String,
    class: String,
}

impl Entry {
    fn read(text: &str) -> Result<Self, DetectError> {
        let valid = |part: &str| {
            !part.is_empty()
                && part.split('.').all(|name| {
                    !name.is_empty()
                        && !name.starts_with(|c: char| c.is_ascii_digit())
                        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
                })
        };
        match text.split_once(':') {
            Some((module, class)) if valid(module) && valid(class) => {
                Ok(Self { module: module.to_owned(), class: class.to_owned() })
            }
            _ => Err(DetectError::Entry { entry: text.to_owned() }),
        }
    }
}

/// What the folder says about the entry.
#[derive(PartialEq, Eq)]
enum EntryFound {
    /// Its file is not here.
    No,
    /// It is here; whether it has `predict` in its own text.
    Yes { predicts: bool },
}

struct Folder {
    tree: Tree,
    dir: PathBuf,
    /// Paths and sizes.
    files: BTreeMap<String, u64>,
}

impl Folder {
    fn read(dir: &Path) -> Result<Self, DetectError> {
        let tree = Tree::open(dir, Links::Follow).map_err(DetectError::Tree)?;
        let files = tree.files(MAX_FILES).map_err(DetectError::Tree)?;
        let files = files
            .into_iter()
            .filter_map(|f| match f.kind {
                FileKind::Regular { size, .. } => Some((f.path, size)),
                FileKind::Link { .. } => None,
            })
            .collect();
        Ok(Self { tree, dir: dir.to_owned(), files })
    }

    /// Files with one of these extensions, in the folder or a direct subfolder.
    fn with(&self, extensions: &[&str]) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str).filter(move |path| {
            path.matches('/').count() <= 1
                && path.rsplit_once('.').is_some_and(|(_, e)| extensions.contains(&e))
        })
    }

    fn fits(&self, format: ModelFormat, entry: Option<&Entry>, entry_found: &EntryFound) -> bool {
        match format {
            ModelFormat::Python => match (entry, entry_found) {
                // A network's class stands beside its weights and has `forward`, not `predict`.
                (Some(_), EntryFound::Yes { predicts }) => *predicts || !self.has_torch_file(),
                (Some(_), EntryFound::No) => false,
                (None, _) => self.source("model.py").is_some_and(|d| d.iter().any(|d| d.predicts)),
            },
            // Keras 3 archives are ZIP files with these members.
            ModelFormat::Keras => self
                .with(&["keras"])
                .any(|path| self.zip(path).is_some_and(|names| names.iter().any(|n| n == "config.json"))),
            ModelFormat::TensorFlow => self.files.keys().any(|path| {
                let folder = path.strip_suffix("saved_model.pb");
                folder.is_some_and(|f| (f.is_empty() || f.ends_with('/')) && f.matches('/').count() <= 1)
            }),
            // A protocol buffer: its first field is `ir_version`, a varint (tag 0x08).
            ModelFormat::Onnx => self.with(&["onnx"]).any(|path| self.head(path).first() == Some(&0x08)),
            ModelFormat::TorchScript => self
                .with(&["pt", "pth", "ts", "torchscript"])
                .any(|path| self.zip(path).is_some_and(|names| is_torchscript(&names))),
            ModelFormat::Torch => self.has_torch_file(),
            ModelFormat::Sklearn => self.with(&["joblib", "pkl"]).any(|path| is_pickle(&self.head(path))),
        }
    }

    fn has_torch_file(&self) -> bool {
        self.with(&["pt", "pth", "bin"]).any(|path| {
            self.head(path).starts_with(&TORCH_LEGACY)
                || self.zip(path).is_some_and(|names| {
                    !is_torchscript(&names) && names.iter().any(|n| n.ends_with("/data.pkl"))
                })
        })
    }

    /// Looks for the entry's class where the module would be.
    fn check_entry(&self, entry: &Entry) -> Result<EntryFound, DetectError> {
        let base = entry.module.replace('.', "/");
        for file in [format!("{base}.py"), format!("{base}/__init__.py")] {
            let Some(definitions) = self.source(&file) else { continue };
            let class = entry.class.split('.').next().unwrap_or(&entry.class);
            return match definitions.iter().find(|d| d.name == class) {
                Some(found) => {
                    // A function is its own `predict`.
                    Ok(EntryFound::Yes { predicts: found.predicts || !found.is_class })
                }
                None if file.ends_with("__init__.py") => Ok(EntryFound::Yes { predicts: false }),
                None => Err(DetectError::NoClass {
                    file,
                    class: entry.class.clone(),
                    has: definitions.into_iter().map(|d| d.name).take(20).collect(),
                }),
            };
        }
        Ok(EntryFound::No)
    }

    fn source(&self, path: &str) -> Option<Vec<Definition>> {
        if *self.files.get(path)? > MAX_SOURCE {
            return None;
        }
        let mut text = Vec::new();
        self.open(path)?.take(MAX_SOURCE).read_to_end(&mut text).ok()?;
        Some(definitions(&String::from_utf8_lossy(&text)))
    }

    fn zip(&self, path: &str) -> Option<Vec<String>> {
        zip::names(&self.open(path)?)
    }

    /// The first bytes.
    fn head(&self, path: &str) -> Vec<u8> {
        let mut head = [0; 16];
        let read = self.open(path).and_then(|file| file.read_at(&mut head, 0).ok()).unwrap_or(0);
        head[..read].to_vec()
    }

    /// A file that cannot be opened is no evidence; packing will tell why.
    fn open(&self, path: &str) -> Option<File> {
        match self.tree.read(path) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::debug!(%error, dir = %self.dir.display(), "file of a model folder is skipped");
                None
            }
        }
    }

    /// What is wrong with a file whose name promises a model.
    fn broken(&self, path: &str) -> Option<&'static str> {
        match path.rsplit_once('.').map(|(_, extension)| extension)? {
            "joblib" | "pkl" if !is_pickle(&self.head(path)) => Some("not a pickle"),
            "keras" if self.zip(path).is_none() => Some("not a Keras archive"),
            "onnx" if self.head(path).first() != Some(&0x08) => Some("not an ONNX graph"),
            "pt" | "pth" | "bin" | "ts" | "torchscript"
                if self.zip(path).is_none() && !self.head(path).starts_with(&TORCH_LEGACY) =>
            {
                Some("not of torch.save or torch.jit.save")
            }
            _ => None,
        }
    }

    fn shown(&self) -> Vec<String> {
        const MOST: usize = 20;
        let shown = self.files.keys().take(MOST).map(|path| match self.broken(path) {
            Some(what) => format!("`{path}` ({what})"),
            None => format!("`{path}`"),
        });
        let mut shown: Vec<_> = shown.collect();
        if self.files.len() > MOST {
            shown.push(format!("{} more", self.files.len() - MOST));
        }
        shown
    }
}

/// `torch.jit.save` adds code and constants to what `torch.save` writes.
fn is_torchscript(names: &[String]) -> bool {
    let below = |name: &str| name.split_once('/').map(|(_, rest)| rest.to_owned());
    names.iter().filter_map(|n| below(n)).any(|n| n == "constants.pkl" || n.starts_with("code/"))
}

/// A pickle of protocol 2 or later, plain or as joblib compresses it; not one of torch.
fn is_pickle(head: &[u8]) -> bool {
    let compressed: [&[u8]; 6] =
        [b"\x78", b"\x1f\x8b", b"BZ", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18"];
    let plain = matches!(head, [0x80, 2..=5, ..]) && !head.starts_with(&TORCH_LEGACY);
    plain || compressed.iter().any(|magic| head.starts_with(magic))
}
