//! Pure decisions: desired state and observed state in, actions out.
