//! How a service stands, for whoever asks between passes.

use slipway_orchestrator::{Endpoint, Progress, Rollout};

use super::observe::{Address, NoAddress};

/// How a service stands, as a pass found it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceReport {
    /// Its name.
    pub service: String,
    /// How far it is from its declared revision.
    pub rollout: Rollout,
    /// How often its containers were started again.
    pub restarts: u64,
    /// Why its declared revision does not come up, once that is plain.
    pub failing: Option<String>,
    /// Where it answers, or why nowhere.
    pub address: Result<Address, NoAddress>,
    /// Whether anything is there to answer.
    pub answers: bool,
    /// Why it is not as declared, also where waiting may be enough.
    pub reason: Option<String>,
    /// What the cluster cannot give.
    pub warnings: Vec<String>,
}

impl ServiceReport {
    pub(super) fn progress(&self) -> Progress {
        Progress { restarts: self.restarts, rollout: self.rollout.clone(), failing: self.failing.clone() }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        match &self.address {
            Ok(address) => Endpoint::Url { url: address.url.clone(), reachable: self.answers },
            Err(NoAddress::NoPort) => Endpoint::Nowhere,
            Err(NoAddress::Pending(reason)) => {
                // Why there are no pods tells more than that there are none.
                Endpoint::Pending { reason: self.reason.as_ref().unwrap_or(reason).clone() }
            }
        }
    }
}
