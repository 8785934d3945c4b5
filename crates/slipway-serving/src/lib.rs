//! Inference protocols, the batcher and the shared-memory transport to model workers.
