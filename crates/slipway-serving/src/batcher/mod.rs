//! Dynamic batching: requests wait only while every worker is busy.

mod queue;

pub use queue::{Batch, Entry, Full, Limits, Queue, Take, Ticket};

#[cfg(test)]
mod tests;
