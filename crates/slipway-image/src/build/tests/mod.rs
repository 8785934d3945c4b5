//! The builder as a whole, on real overlays, with a runner that interprets a few commands.

mod caching;
mod concurrency;
mod configs;
mod copies;
mod fetching;
mod runs;
mod volumes;
mod world;
