//! The Dockerfile builder: parse, check, plan, cache, execute.
//!
//! [`Builder::build`] takes a request through all of it. Parsing and checks know nothing of the machine; the
//! machine's part is behind [`StepRunner`] and [`BaseImages`].

mod bases;
mod builder;
mod cache;
pub mod check;
mod context;
mod copy;
pub mod dockerfile;
mod error;
mod execute;
mod fetch;
pub mod ignore;
mod image_config;
mod plan;
mod root;
mod runner;
#[cfg(test)]
mod tests;
mod tree;
pub mod words;

pub use bases::LocalImages;
pub use builder::{BuildOutcome, Builder, Events, read_dockerfile};
pub use context::{is_archive, unpack, unpack_context};
pub use copy::copy_folder_out;
pub use error::{
    ArchiveError, BuildError, ContextError, CopyError, FetchError, ModeError, OwnerError, SelectError,
    StepErrorKind, StepFailure, TreeError,
};
pub use runner::{
    BaseImages, BaseProgress, CancelFlag, ResolvedBase, RunStep, StepError, StepExit, StepRunner,
};
