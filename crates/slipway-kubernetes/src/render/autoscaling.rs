//! HorizontalPodAutoscaler, where the cluster measures what it needs.

use serde_json::{Value, json};

use super::labels::Identity;
use super::{RenderError, Rendered};
use crate::Capabilities;
use crate::spec::{ServiceDeployment, Workload};
use crate::validate;

const DEFAULT_CPU_PERCENT: u32 = 70;
/// Load that falls for a moment takes no pods away.
const DOWN_WINDOW_SECONDS: u32 = 300;

/// An autoscaler that will be rendered.
#[derive(Debug)]
pub(super) struct Scaling {
    /// Fewest pods.
    pub min: u32,
    max: u32,
    metrics: Vec<Value>,
}

impl Scaling {
    /// Whether a target is a share of this requested resource.
    pub(super) fn uses(&self, resource: &str) -> bool {
        self.metrics.iter().any(|metric| metric["resource"]["name"] == resource)
    }
}

/// What can be scaled by in this cluster; `None` with a warning where nothing can.
pub(super) fn plan(
    spec: &ServiceDeployment,
    caps: &Capabilities,
    out: &mut Rendered,
) -> Result<Option<Scaling>, RenderError> {
    let Some(wanted) = &spec.autoscaling else { return Ok(None) };
    if wanted.max == 0 || wanted.max < wanted.min {
        let reason = format!("{} to {} replicas is no range", wanted.min, wanted.max);
        return Err(RenderError::Contradiction { what: "autoscaling", reason });
    }
    let mut metrics = Vec::new();
    let none = wanted.cpu_percent.is_none() && wanted.memory_percent.is_none() && wanted.metrics.is_empty();
    let cpu = if none { Some(DEFAULT_CPU_PERCENT) } else { wanted.cpu_percent };
    for (resource, percent) in [("cpu", cpu), ("memory", wanted.memory_percent)] {
        match percent {
            None => {}
            Some(0) => {
                let reason = format!("0 percent of {resource} can never be held");
                return Err(RenderError::Contradiction { what: "autoscaling", reason });
            }
            Some(_) if !caps.metrics_api => {
                out.warn(format!(
                    "the cluster has no metrics API (metrics-server), so nothing scales by {resource}"
                ));
            }
            Some(percent) => {
                let target = json!({"type": "Utilization", "averageUtilization": percent});
                metrics.push(json!({"type": "Resource", "resource": {"name": resource, "target": target}}));
            }
        }
    }
    for metric in &wanted.metrics {
        validate::quantity(&metric.average)
            .map_err(|source| RenderError::Invalid { what: "autoscaling target", source })?;
        if caps.custom_metrics {
            let target = json!({"type": "AverageValue", "averageValue": metric.average});
            metrics
                .push(json!({"type": "Pods", "pods": {"metric": {"name": metric.name}, "target": target}}));
        } else {
            out.warn(format!("the cluster serves no custom metrics, so nothing scales by {}", metric.name));
        }
    }
    if metrics.is_empty() {
        out.warn(format!("nothing scales the service: {} replicas run, as declared", spec.spec.replicas));
        return Ok(None);
    }
    if wanted.min == 0 {
        out.warn(if matches!(spec.workload, Workload::Image { .. }) {
            "the service keeps one pod: only services with a model are scaled to none"
        } else if spec.gateway().is_some() {
            "the autoscaler keeps one pod: Slipway scales to none, and the gateway holds the request that wakes it"
        } else {
            "the service keeps one pod: to scale to none, it needs the gateway, which holds the request that wakes it"
        });
    }
    Ok(Some(Scaling { min: wanted.min.max(1), max: wanted.max, metrics }))
}

pub(super) fn render(scaling: &Scaling, id: &Identity, out: &mut Rendered) {
    out.add(
        "How many pods run, by load.",
        json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": id.metadata(),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": id.name},
                "minReplicas": scaling.min,
                "maxReplicas": scaling.max,
                "metrics": scaling.metrics,
                "behavior": {"scaleDown": {
                    "stabilizationWindowSeconds": DOWN_WINDOW_SECONDS,
                    "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
                }},
            },
        }),
    );
}
