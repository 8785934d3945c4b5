//! What applying a service would do. Nothing is changed.

use std::sync::Arc;

use serde_json::json;

use crate::Capabilities;
use crate::apply::{Applier, ApplyError, ApplyOptions, Change, Difference, DryRun, Inventory};
use crate::names::NAME_ANNOTATION;
use crate::object::{Object, ObjectKey};
use crate::render::inventory::Doomed;
use crate::render::{RenderError, Rendered, SERVICE_LABEL, render_service};
use crate::spec::ServiceDeployment;

/// Tells what applying services to one namespace would do.
#[derive(Clone)]
pub struct Previewer {
    applier: Applier,
    inventory: Arc<Inventory>,
}

/// What would become of one object.
#[derive(Debug)]
pub struct Tried {
    /// Which object.
    pub key: ObjectKey,
    /// What would become of it, or why it would be refused.
    pub verdict: Result<Verdict, ApplyError>,
}

/// What would become of an object that nobody refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would be new.
    Created,
    /// It would be another than it is.
    Configured,
    /// It is as it shall be.
    Unchanged,
    /// It would go: a former revision had it, and this one has not.
    Removed,
}

impl Previewer {
    /// For the cluster of an applier, and what an inventory has.
    pub fn new(applier: Applier, inventory: Arc<Inventory>) -> Self {
        Self { applier, inventory }
    }

    /// What the cluster can.
    pub async fn capabilities(&self) -> Result<Capabilities, ApplyError> {
        Ok(self.applier.discovery().capabilities().await?)
    }

    /// What would be applied.
    pub async fn render(&self, spec: &ServiceDeployment) -> Result<Rendered, ApplyError> {
        let namespace = self.applier.cluster().namespace();
        if spec.namespace != namespace {
            let reason = format!("`{}` is not the namespace of the engine", spec.namespace);
            return Err(RenderError::Contradiction { what: "namespace", reason }.into());
        }
        let caps = self.capabilities().await?;
        let mut rendered = render_service(spec, &caps)?;
        self.inventory.set().adopt(&mut rendered.objects);
        Ok(rendered)
    }

    /// Has the server try each object. An error is one of asking; what the server refuses is told with its object.
    pub async fn on_server(&self, spec: &ServiceDeployment) -> Result<(Rendered, Vec<Tried>), ApplyError> {
        let rendered = self.render(spec).await?;
        let options = ApplyOptions { dry_run: DryRun::Server, ..ApplyOptions::default() };
        let mut tried = Vec::new();
        for object in &rendered.objects {
            let verdict = match self.applier.apply(object, options).await {
                Ok(applied) => Ok(match applied.change {
                    Change::Created => Verdict::Created,
                    Change::Changed => Verdict::Configured,
                    Change::Unchanged | Change::NotSent => Verdict::Unchanged,
                }),
                Err(error) if error.is_unreachable() => return Err(error),
                Err(error) => Err(error),
            };
            tried.push(Tried { key: object.key(), verdict });
        }
        for doomed in self.doomed(spec, &rendered.objects).await? {
            tried.push(Tried { key: doomed.key, verdict: Ok(Verdict::Removed) });
        }
        Ok((rendered, tried))
    }

    /// What differs between what the cluster has and what it would have.
    pub async fn differences(&self, spec: &ServiceDeployment) -> Result<Vec<Difference>, ApplyError> {
        let rendered = self.render(spec).await?;
        let mut differences = Vec::new();
        for object in &rendered.objects {
            differences.push(self.applier.diff(object).await?);
        }
        for doomed in self.doomed(spec, &rendered.objects).await? {
            let (key, version) = (&doomed.key, &doomed.api_version);
            let which = json!({
                "apiVersion": version, "kind": key.kind, "metadata": {"name": key.name, "namespace": key.namespace},
            });
            if let Some(live) = self.applier.live(&Object::new("", which), true).await? {
                differences.push(Difference::removed(doomed.key, &live));
            }
        }
        differences.retain(|difference| !difference.is_empty());
        Ok(differences)
    }

    /// What the service has now and would have no more.
    async fn doomed(&self, spec: &ServiceDeployment, wanted: &[Object]) -> Result<Vec<Doomed>, ApplyError> {
        let name = &spec.spec.name;
        let mapped =
            crate::names::map(name).map_err(|source| RenderError::Name { original: name.clone(), source })?;
        let mut live = self.inventory.members(Some((SERVICE_LABEL, &mapped))).await?;
        live.retain(|one| one["metadata"]["annotations"][NAME_ANNOTATION] == name.as_str());
        Ok(self.inventory.set().prune(&live, wanted))
    }
}
