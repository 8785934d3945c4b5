//! Trying credentials.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::HeaderMap;
use slipway_types::image::Credentials;

use super::auth::Scope;
use super::error::LoginError;
use super::http::Call;
use super::shared::Shared;

/// Asks for the API's root with the credentials. Its own tokens: what other operations hold proves nothing here.
pub(crate) async fn check(
    shared: &Arc<Shared>,
    registry: &str,
    credentials: &Credentials,
) -> Result<(), LoginError> {
    let credentials = credentials.clone();
    let own = Arc::new(Shared::new(
        shared.settings.clone(),
        Arc::new(move |_: &str| Some(credentials.clone())),
        shared.retries,
    ));
    let attempt = || async {
        let session = own.session(registry).await?;
        let call = Call {
            method: Method::GET,
            url: session.base.clone(),
            headers: HeaderMap::new(),
            scope: &Scope::default(),
            what: "the registry's API",
        };
        session.send(&call).await.map(|_| ())
    };
    own.retries
        .run(attempt)
        .await
        .map_err(|e| LoginError { registry: registry.to_owned(), source: Box::new(e) })
}
