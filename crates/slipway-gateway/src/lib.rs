//! The data plane: one address for every service.
