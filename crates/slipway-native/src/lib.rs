//! The engine that runs containers on this host, and the builder's step runner.
