//! Model versions: formats, tensor signatures and lineage.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name;

/// What a model folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelFormat {
    /// TensorFlow SavedModel: `saved_model.pb` and `variables/`.
    TensorFlow,
    /// A Keras 3 archive, `*.keras`.
    Keras,
    /// A PyTorch `state_dict` and the user's module class.
    Torch,
    /// A TorchScript archive.
    TorchScript,
    /// An ONNX graph, `*.onnx`.
    Onnx,
    /// A scikit-learn estimator saved by joblib.
    Sklearn,
    /// A Python class of the user's with `load` and `predict`.
    Python,
}

impl ModelFormat {
    /// Every format, in the order in which `auto` tries them.
    pub const ALL: [Self; 7] = [
        Self::Python,
        Self::Keras,
        Self::TensorFlow,
        Self::Onnx,
        Self::TorchScript,
        Self::Torch,
        Self::Sklearn,
    ];

    /// The name that `slipway.toml` and listings use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TensorFlow => "tensorflow",
            Self::Keras => "keras",
            Self::Torch => "torch",
            Self::TorchScript => "torchscript",
            Self::Onnx => "onnx",
            Self::Sklearn => "sklearn",
            Self::Python => "python",
        }
    }
}

impl std::fmt::Display for ModelFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for ModelFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|f| f.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|f| f.as_str()).collect();
            format!("`{text}` is not a model format: expected `auto` or one of {}", names.join(", "))
        })
    }
}

/// Element types, named as the Open Inference Protocol v2 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    /// Strings of bytes of varying length.
    Bytes,
}

impl DataType {
    /// Bytes of one element; `None` for [`DataType::Bytes`].
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Dimensions; -1 where any size is accepted. The first is the batch.
    pub shape: Vec<i64>,
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Inputs, in order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in order.
    pub outputs: Vec<TensorSpec>,
}

/// Where a model version came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lineage {
    /// The training run.
    pub run: Option<String>,
    /// Digest of the configuration of the image that it ran in.
    pub image: Option<Digest>,
    /// Commit of the project folder, with `-dirty` when files differed from it.
    pub git_commit: Option<String>,
    /// Digest over the files of the data folder.
    pub data: Option<Digest>,
}

/// One immutable version of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Model name.
    pub model: String,
    /// Version number, from 1.
    pub version: u64,
    /// Digest of the ModelPack manifest.
    pub manifest: Digest,
    /// Format.
    pub format: ModelFormat,
    /// Bytes of all files.
    pub size: u64,
    /// When it was recorded.
    pub created_at: jiff::Timestamp,
    /// Aliases that name it now.
    pub aliases: Vec<String>,
    /// Where it came from.
    pub lineage: Lineage,
    /// Metrics of its training run, last value of each.
    pub metrics: BTreeMap<String, f64>,
}

/// Which version of a model is meant: `digits`, `digits@3`, `digits@champion`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    /// Model name.
    pub model: String,
    /// Version or alias.
    pub selector: ModelSelector,
}

/// The part of a [`ModelRef`] after the `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSelector {
    /// The highest version.
    Latest,
    /// This version.
    Version(u64),
    /// The version that an alias names.
    Alias(String),
}

impl std::str::FromStr for ModelRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (model, selector) = match text.split_once('@') {
            None => (text, ModelSelector::Latest),
            Some((model, "latest")) => (model, ModelSelector::Latest),
            Some((model, version)) if version.bytes().all(|b| b.is_ascii_digit()) && !version.is_empty() => {
                let version =
                    version.parse().map_err(|_| format!("`{version}` is too large for a version"))?;
                (model, ModelSelector::Version(version))
            }
            Some((model, alias)) if valid_alias(alias) => (model, ModelSelector::Alias(alias.to_owned())),
            Some((_, alias)) => return Err(format!("`{alias}` is neither a version number nor an alias")),
        };
        if !name::is_valid(model) {
            return Err(format!("`{model}` is not a model name: {}", name::RULE));
        }
        Ok(Self { model: model.to_owned(), selector })
    }
}

/// Whether a text may be an alias of a version: a name as containers have it, so that it is itself in a URL, but no number
/// and not `latest`.
pub fn valid_alias(alias: &str) -> bool {
    let number = alias.bytes().all(|b| b.is_ascii_digit());
    crate::container::valid_name(alias) && !number && alias != "latest"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_selectors() {
        let read = |t: &str| t.parse::<ModelRef>().map(|r| r.selector);
        assert_eq!(read("digits"), Ok(ModelSelector::Latest));
        assert_eq!(read("digits@12"), Ok(ModelSelector::Version(12)));
        assert_eq!(read("digits@champion"), Ok(ModelSelector::Alias("champion".into())));
        let spaced = "My Model@3".parse::<ModelRef>().unwrap();
        assert_eq!((spaced.model.as_str(), spaced.selector), ("My Model", ModelSelector::Version(3)));
        for bad in ["", "@1", "a@", "../x", "a@b@c", "a@99999999999999999999999", "a/b@1", "m:predict"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
