//! What every [`crate::Engine`] and all [`crate::Replicas`] must do, as suites that their own tests run.
//!
//! ```ignore
//! #[test]
//! fn the_native_engine_keeps_the_contract() {
//!     slipway_orchestrator::contract::engine::run(NativeHarness::new);
//! }
//! ```

mod caller;
pub mod engine;
pub mod replicas;
