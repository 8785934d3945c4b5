//! The engine on a real cluster, under the Role that is printed for it and no more. Needs `TEST_KUBECONFIG` (an
//! administrator's) and `TEST_REGISTRY`, which `scripts/test-cluster` sets, and a static busybox.

#![allow(clippy::unwrap_used, missing_docs)]

mod bed;
mod contract;
mod image;
mod proxy;
mod runs;
mod services;
