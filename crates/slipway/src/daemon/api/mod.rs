//! The daemon's HTTP API: one file a noun. Only here are errors HTTP statuses.

mod build;
mod containers;
mod engines;
mod events;
mod images;
mod logs;
mod models;
mod runs;
mod services;
mod stream;
mod system;
mod up;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::FromRequest;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use slipway_types::{ApiError, ErrorCode};

use super::App;

/// The whole API.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(build::routes())
        .merge(containers::routes())
        .merge(engines::routes())
        .merge(events::routes())
        .merge(images::routes())
        .merge(logs::routes())
        .merge(models::routes())
        .merge(runs::routes())
        .merge(services::routes())
        .merge(system::routes())
        .merge(up::routes())
        .fallback(|| async { Refusal(ApiError::new(ErrorCode::NotFound, "no such API path")) })
        .with_state(app)
}

/// An error as an HTTP answer.
#[derive(Debug)]
pub struct Refusal(pub ApiError);

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            ErrorCode::InvalidArgument => StatusCode::BAD_REQUEST,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Failed | ErrorCode::DataLoss => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::ResourceExhausted => StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

/// What a handler gives.
type Answer<T> = Result<Json<T>, Refusal>;

/// A JSON body whose mistakes are answered as every other error is.
struct Body<T>(T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Refusal> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Refusal(ApiError::new(ErrorCode::InvalidArgument, rejection.body_text()))),
        }
    }
}

/// Runs blocking work off the event loop.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Refusal>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Refusal(error.into())),
        Err(error) => Err(Refusal(ApiError::new(ErrorCode::Internal, format!("a task failed: {error}")))),
    }
}
