//! Pages of the gateway's own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::{Method, Response, StatusCode};
use serde_json::json;
use slipway_types::name::segment;

use crate::body::Body;
use crate::refusal::{Refusal, full, json as json_response};
use crate::resolve::Page;
use crate::shared::Shared;
use crate::{metrics, scrape};

pub(crate) async fn answer(
    shared: &Arc<Shared>,
    page: Page,
    method: &Method,
) -> Result<Response<Body>, Refusal> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Refusal::OnlyGet);
    }
    let state = |good: bool, value: &serde_json::Value| {
        json_response(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, value)
    };
    let loaded = shared.routes.loaded.load(Relaxed);
    let ready = loaded && !shared.leaving.load(Relaxed);
    Ok(match page {
        Page::Index => index(shared),
        Page::Metrics => {
            let text = scrape::all(shared).await?;
            full(StatusCode::OK, metrics::CONTENT_TYPE, text.into())
        }
        Page::Healthy => state(true, &json!({ "healthy": true })),
        Page::Ready => state(ready, &json!({ "ready": ready, "generation": shared.table().generation })),
        Page::ServerMetadata => state(
            true,
            &json!({ "name": "slipway", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"] }),
        ),
        Page::ServerLive => state(true, &json!({ "live": true })),
        Page::ServerReady => {
            let now = shared.now();
            let ready = loaded
                && shared.table().services().all(|service| service.backends.iter().any(|b| b.usable(now)));
            state(ready, &json!({ "ready": ready }))
        }
    })
}

fn index(shared: &Shared) -> Response<Body> {
    let table = shared.table();
    let now = shared.now();
    let services: Vec<_> = table
        .services()
        .map(|service| {
            json!({
                "name": service.name,
                "model": service.model,
                "replicas": service.backends.len(),
                "usable_replicas": service.backends.iter().filter(|backend| backend.usable(now)).count(),
                "predict": format!("/v1/models/{}:predict", segment(&service.name)),
                "infer": format!("/v2/models/{}/infer", segment(&service.name)),
            })
        })
        .collect();
    json_response(StatusCode::OK, &json!({ "generation": table.generation, "services": services }))
}
