//! What brings images and models into the registry; the composition root implements it.

use slipway_orchestrator::Revision;

use crate::spec::{GatewayDeployment, ServiceDeployment};

/// Why something cannot be brought into the registry.
pub type PublishError = Box<dyn std::error::Error + Send + Sync>;

/// How far it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Publication<T> {
    /// Everything is in the registry.
    Ready(T),
    /// It is on its way; what is being done, such as `pushing the image`.
    Underway(String),
}

/// Knows how a revision runs in the cluster. The calls are quick: what takes long goes on in the background, and the same
/// call says later that it is ready.
pub trait Publisher: Send + Sync {
    /// A service's revision, with everything named by digest in the registry.
    fn service(&self, revision: &Revision) -> Result<Publication<ServiceDeployment>, PublishError>;

    /// The gateway of the namespace, where there shall be one.
    fn gateway(&self) -> Result<Option<Publication<GatewayDeployment>>, PublishError>;

    /// A user asked for a service again: what failed before is tried at once. `lost`: the cluster did not find what was
    /// published of it, so that is published anew.
    fn try_again(&self, service: &str, lost: bool);
}
