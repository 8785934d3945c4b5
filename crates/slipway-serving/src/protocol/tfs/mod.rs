//! TensorFlow Serving's REST API.

mod describe;
mod predict;

pub use describe::{metadata, status};
pub use predict::{Form, PredictRequest, parse, write};
pub(crate) use predict::{check_rows, shorten};
