//! Model versions as artifacts: the CNCF ModelPack format (github.com/modelpack/model-spec) in the image store.
//!
//! Every file of a model folder is one blob, uncompressed, so that versions share what they have in common and a
//! folder is laid out by linking. The manifest is an OCI image manifest with these parts:
//!
//! - `artifactType` is [`ARTIFACT_TYPE`]; the configuration has type [`CONFIG_TYPE`] and the fields of the
//!   specification: `descriptor` (`name`, `version`, `createdAt`, `revision`: the commit), `config` (`format`) and
//!   `modelfs`. The specification allows no others there.
//! - Each layer is one file: its type says what kind of file it is (`….weight.v1.raw`, `….weight.config.v1.raw`,
//!   `….code.v1.raw`, `….doc.v1.raw`) and the annotation [`FILE_PATH`] where it belongs.
//! - What Slipway adds is in the manifest's annotations: `dev.slipway.model.format` (Slipway's name of the format),
//!   `dev.slipway.model.entry` (`module:Class`), `dev.slipway.model.lineage` and `dev.slipway.model.metrics` (JSON).
//!
//! Nothing here runs or unpickles what a model holds. Everything blocks.

mod data;
mod detect;
mod manifest;
mod materialize;
mod pack;
mod path;
mod python;
mod tree;
mod zip;

#[cfg(test)]
mod tests;

pub use self::data::data_digest;
pub use self::detect::{DetectError, detect_format};
pub use self::manifest::{ManifestError, ModelFile, ModelManifest, read_manifest};
pub use self::materialize::{MaterializeError, materialize};
pub use self::pack::{ModelMeta, PackError, PackedModel, pack};
pub use self::path::{InvalidPath, MAX_FILES};
pub use self::tree::TreeError;

/// `artifactType` of a model's manifest.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Type of a model's configuration.
pub const CONFIG_TYPE: &str = "application/vnd.cncf.model.config.v1+json";
/// Annotation with a file's path in the model folder.
pub const FILE_PATH: &str = "org.cncf.model.filepath";
