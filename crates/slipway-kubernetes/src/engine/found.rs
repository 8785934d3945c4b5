//! A declared service as a pass finds it, and what is reported of it.

use serde_json::Value;
use slipway_orchestrator::{Revision, Rollout};

use super::known::Pod;
use super::observe::{self, Address, NoAddress, Reach, address, no_address};
use super::publisher::Publication;
use super::report::ServiceReport;
use super::state::{Context, State};
use crate::object::ObjectKey;
use crate::spec::{Exposure, ServiceDeployment};

/// A declared service as a pass finds it.
pub(super) struct Found<'a> {
    pub target: &'a Revision,
    /// The stable revision, where it is another.
    pub stable: Option<&'a Revision>,
    /// The declared revision ran already as a whole.
    pub proven: bool,
    pub mapped: String,
    pub deployment: Option<&'a Value>,
    pub pods: Vec<Pod<'a>>,
    service: Option<&'a Value>,
}

impl<'a> Found<'a> {
    pub(super) fn new(
        context: &Context<'a>,
        target: &'a Revision,
        stable: Option<&'a Revision>,
        mapped: String,
    ) -> Self {
        let key = |group: &str, kind: &str| ObjectKey {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: context.applier.cluster().namespace().to_owned(),
            name: mapped.clone(),
        };
        Self {
            target,
            stable: stable.filter(|stable| stable.number != target.number),
            proven: stable.is_some_and(|stable| stable.number == target.number),
            deployment: context.known.get(&key("apps", "Deployment")),
            service: context.known.get(&key("", "Service")),
            pods: context.known.pods(&mapped),
            mapped,
        }
    }

    pub(super) fn name(&self) -> &'a str {
        &self.target.spec.name
    }

    pub(super) fn report(
        &self,
        state: &State,
        rollout: Rollout,
        address: Result<Address, NoAddress>,
    ) -> ServiceReport {
        ServiceReport {
            service: self.name().to_owned(),
            rollout,
            restarts: state.restarts.counted(),
            failing: None,
            address,
            answers: self.pods.iter().any(|(pod, _)| observe::serves(pod)),
            reason: None,
            warnings: state.applied.warnings.clone(),
        }
    }

    /// It is on its way: the declared replicas are not counted.
    pub(super) fn waiting(&self, state: &State, why: Option<String>) -> ServiceReport {
        let rollout = Rollout::Progressing { available: 0, wanted: self.target.spec.replicas };
        let address = self.former_address(state, why.as_deref());
        ServiceReport { reason: why, ..self.report(state, rollout, address) }
    }

    /// It cannot come up as it is.
    pub(super) fn refused(&self, state: &State, why: String) -> ServiceReport {
        let rollout = Rollout::Stalled { reason: why.clone(), crashes: 0 };
        let address = self.former_address(state, Some(&why));
        ServiceReport {
            failing: Some(why.clone()),
            reason: Some(why),
            ..self.report(state, rollout, address)
        }
    }

    /// It could not be applied.
    pub(super) fn failed(&self, context: &Context<'_>, state: &State) -> ServiceReport {
        let hopeless = state.refused.is_some_and(|at| at <= context.now);
        match state.error.clone() {
            Some(why) if hopeless => self.refused(state, why),
            why => self.waiting(state, why),
        }
    }

    /// Where it answered last: what is not there yet, or not any more, changes nothing of that.
    fn former_address(&self, state: &State, why: Option<&str>) -> Result<Address, NoAddress> {
        let why = || why.unwrap_or("the cluster has not made its Service yet").to_owned();
        state.address.clone().ok_or_else(|| NoAddress::Pending(why()))
    }

    /// Where it answers. Behind a gateway that is reached from outside, that is the way in.
    pub(super) fn address(
        &self,
        context: &Context<'_>,
        spec: &ServiceDeployment,
    ) -> Result<Address, NoAddress> {
        let through = context.gateway_address.clone().filter(|at| {
            spec.gateway().is_some() && spec.exposure == Exposure::ClusterIp && at.reach != Reach::Cluster
        });
        let pods: Vec<&Value> = self.pods.iter().map(|(pod, _)| *pod).collect();
        through.or_else(|| address(&spec.exposure, &spec.namespace, self.service, &pods)).ok_or_else(|| {
            let events = self.service.map_or(&[][..], |service| context.known.events(service));
            no_address(spec, self.service, events)
        })
    }

    /// Finds out where it answers while its new revision is not published, where a former process applied it.
    pub(super) fn recall_address(&self, context: &Context<'_>, state: &mut State) {
        if state.address.is_none()
            && let Some(Ok(Publication::Ready(spec))) =
                self.stable.map(|stable| context.publisher.service(stable))
        {
            state.address = self.address(context, &spec).ok();
        }
    }
}
