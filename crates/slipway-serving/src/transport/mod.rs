//! Tensors to and from a worker process: a memfd that both sides map, and a socket pair for control frames.
//!
//! The arena has an input region, which the runner writes, and an output region, which the worker writes. Only one
//! batch is under way at a time, so each region is one slot. Pages cost nothing until they are touched, and pages
//! that a large batch touched are given back after it.
//!
//! A tensor in the arena is its elements, little-endian and row-major, from an offset that is a multiple of 64.
//! Byte strings are `elements + 1` offsets of 8 bytes (the first is 0, none is less than the one before it),
//! followed by the bytes that they point into.
//!
//! Control frames are messages of a `SOCK_SEQPACKET` pair, at most [`frame::MAX_FRAME`] bytes; see [`frame`].
//! The worker is not trusted: what it sends is checked against the regions, and copied out before it is looked at.

pub mod arena;
pub mod channel;
pub mod frame;
pub mod gather;

pub use arena::{Arena, ArenaError, Layout};
pub use channel::Channel;
pub use frame::{BadReply, Reply};
pub use gather::{GatherError, Inputs, JsonForm, gather};

#[cfg(test)]
mod tests;
