//! Why an object was not applied.

use crate::client::{ApiError, DiscoverError};
use crate::object::{Object, Owner};

/// A field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it: a field manager such as `kubectl-edit`.
    pub owner: String,
    /// Which field.
    pub field: String,
    /// They set it by scaling.
    pub scaled: bool,
}

/// Why an object was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields of it.
    #[error(
        "{kind} `{name}`: {}; have them give it up, or take it over with `--take-over`",
        owners(.conflicts)
    )]
    Conflict {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// Which fields, and whose.
        conflicts: Vec<Conflict>,
    },
    /// Its name is taken.
    #[error("there is a {kind} `{name}` already, which {owner}: use another name, or remove it")]
    Taken {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// By whom.
        owner: String,
    },
    /// Another daemon keeps it.
    #[error(
        "{kind} `{name}` belongs to another daemon of Slipway, `{owner}`: use another name or namespace, or delete it there"
    )]
    Foreign {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// The daemon's id.
        owner: String,
    },
    /// The one before it is not gone yet.
    #[error("{kind} `{name}` is being deleted: it is made again once it is gone")]
    Ending {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
    /// It breaks a rule that no server needs to be asked about.
    #[error("{kind} `{name}` would be refused: {message}")]
    Wrong {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The server refuses it, or cannot be asked.
    #[error("cannot apply {kind} `{name}`")]
    Api {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// The inventory cannot be read or written, or something of it not be deleted.
    #[error("cannot keep the inventory of namespace {namespace}")]
    Inventory {
        /// Whose.
        namespace: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// The cluster does not serve it.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The inventory cannot be rendered.
    #[error(transparent)]
    Render(#[from] crate::render::RenderError),
}

fn owners(conflicts: &[Conflict]) -> String {
    const SHOWN: usize = 5;
    let mut all: Vec<String> =
        conflicts.iter().take(SHOWN).map(|c| format!("{} is owned by `{}`", c.field, c.owner)).collect();
    if conflicts.len() > SHOWN {
        all.push(format!("{} more", conflicts.len() - SHOWN));
    }
    all.join(", ")
}

impl ApplyError {
    pub(super) fn taken(object: &Object, owner: Owner<'_>) -> Self {
        let (kind, name) = (object.kind().to_owned(), object.name().to_owned());
        match owner {
            Owner::Daemon(owner) => Self::Foreign { kind, name, owner: owner.to_owned() },
            Owner::Named(other) => {
                Self::Taken { kind, name, owner: format!("belongs to `{other}` of Slipway's") }
            }
            Owner::Stranger => Self::Taken { kind, name, owner: "Slipway did not make".to_owned() },
        }
    }

    pub(crate) fn api(object: &Object, source: ApiError) -> Self {
        let (kind, name) = (object.kind().to_owned(), object.name().to_owned());
        let conflicts: Vec<Conflict> = source
            .refusal()
            .filter(|refusal| refusal.code == 409)
            .map(|refusal| {
                let causes = refusal.causes.iter().filter(|cause| cause.reason == "FieldManagerConflict");
                causes
                    .map(|c| Conflict {
                        owner: manager(&c.message),
                        scaled: c.message.contains(SCALED),
                        field: c.field.clone(),
                    })
                    .collect()
            })
            .unwrap_or_default();
        if conflicts.is_empty() {
            Self::Api { kind, name, source }
        } else {
            Self::Conflict { kind, name, conflicts }
        }
    }

    /// Whether the same may succeed later without anyone doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            // A conflict of no fields is one of time: somebody made or changed it at the same moment.
            Self::Api { source, .. } => source.is_transient() || source.code() == Some(409),
            Self::Inventory { source, .. } | Self::Discover(DiscoverError::Api(source)) => {
                source.is_transient()
            }
            Self::Ending { .. } => true,
            _ => false,
        }
    }

    /// Whether the server refuses it for who asks or for where it is, which changes without anything of ours.
    pub fn is_refusal(&self) -> bool {
        let source = match self {
            Self::Api { source, .. } | Self::Inventory { source, .. } => source,
            Self::Discover(DiscoverError::Api(source)) => source,
            _ => return false,
        };
        matches!(source.code(), Some(401 | 403 | 404))
    }

    /// Whether the API server cannot be reached at all.
    pub fn is_unreachable(&self) -> bool {
        let source = match self {
            Self::Api { source, .. } | Self::Inventory { source, .. } => source,
            Self::Discover(DiscoverError::Api(source)) => source,
            _ => return false,
        };
        matches!(source, ApiError::Unreachable { .. } | ApiError::Slow { .. } | ApiError::Credentials { .. })
    }

    /// In one sentence, with the reasons behind it.
    pub fn sentence(&self) -> String {
        chain(self)
    }
}

/// An error with all its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    const DEEPEST: usize = 6;
    let mut text = error.to_string();
    let mut source = error.source();
    for _ in 0..DEEPEST {
        let Some(cause) = source else { break };
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

/// What the server says of who sets a number of pods and nothing else.
const SCALED: &str = "with subresource \"scale\"";

/// `conflict with "kubectl-edit" using apps/v1 at …`.
fn manager(message: &str) -> String {
    message.split('"').nth(1).unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Refusal;
    use serde_json::json;

    #[test]
    fn a_conflict_lists_owners_and_fields() {
        let object = Object::new(
            "x",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "n"}}),
        );
        let status = json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409,
            "message": "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.replicas",
            "details": {"causes": [{"reason": "FieldManagerConflict", "field": ".spec.replicas",
                "message": "conflict with \"kubectl-edit\" using apps/v1"}]}});
        let refusal = Refusal::read(409, None, status.to_string().as_bytes());
        let error = ApplyError::api(&object, ApiError::refused(refusal));
        let told = error.to_string();
        assert!(told.contains("Deployment `a`: .spec.replicas is owned by `kubectl-edit`"), "{told}");
        assert!(told.contains("--take-over") && !error.is_transient(), "{told}");
        let raced = json!({"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409, "message": "m"});
        let refusal = Refusal::read(409, None, raced.to_string().as_bytes());
        assert!(ApplyError::api(&object, ApiError::refused(refusal)).is_transient());
    }
}
