//! A JSON reader and writer for tensors.
//!
//! `serde_json` refuses `NaN` and `Infinity`, which TensorFlow Serving's format allows in both directions, and
//! building its values costs several allocations for each number; so this reads numbers from the text straight
//! into the bytes of a tensor.

pub mod build;
pub mod cursor;
pub mod number;
pub mod write;

pub use build::{Fault, TensorBuilder};
pub use cursor::{Cursor, SyntaxError, SyntaxKind};

#[cfg(test)]
mod tests;
