//! Extractors: the arguments of handlers. A body is read only after the route has admitted the caller, since
//! admission is a layer around the handler.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::IntoResponse;
use hyper::body::{Body as _, Bytes};
use hyper::http::request::Parts as Head;

use super::app::App;
use super::caller::{Admitted, Peer};
use super::errors::{ApiError, ErrorCode};
use super::request_body::{check_content_type, read};

/// A body declared as JSON, before parsing.
pub(super) struct JsonBody(pub(super) Bytes);

/// A body of JSON, or none; without a body no content type is needed.
pub(super) struct OptionalJsonBody(pub(super) Bytes);

/// A body of any type.
pub(super) struct AnyBody(pub(super) Bytes);

/// Refuses a request that has a body.
pub(super) struct NoBody;

/// Refuses a request that has a query.
pub(super) struct NoQuery;

/// Whether the status of the response is to reflect the decision, as `?status=map` requests.
pub(super) struct MapStatus(pub(super) bool);

impl MapStatus {
    /// Reads a query. A misspelt one is refused: a client that ignores the body would take the 200 of a forbid for a
    /// permit.
    pub(super) fn of(query: Option<&str>) -> Result<Self, ApiError> {
        match query {
            None | Some("") => Ok(Self(false)),
            Some("status=map") => Ok(Self(true)),
            Some(_) => Err(ApiError::invalid("status", "the only query that this path takes is `status=map`")),
        }
    }
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        Ok(Self(read(request.into_body(), app.body).await?))
    }
}

impl FromRequest<Arc<App>> for OptionalJsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let body = read(body, app.body).await?;
        if !body.is_empty() {
            check_content_type(&head.headers)?;
        }
        Ok(Self(body))
    }
}

impl FromRequest<Arc<App>> for AnyBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self(read(request.into_body(), app.body).await?))
    }
}

impl FromRequest<Arc<App>> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, ApiError> {
        let is_empty = request.body().is_end_stream();
        is_empty.then_some(Self).ok_or_else(|| ApiError::invalid("", "this request has no body"))
    }
}

impl FromRequestParts<Arc<App>> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(head: &mut Head, _: &Arc<App>) -> Result<Self, ApiError> {
        match head.uri.query() {
            None | Some("") => Ok(Self),
            Some(_) => Err(ApiError::invalid("", "this path takes no query")),
        }
    }
}

impl FromRequestParts<Arc<App>> for MapStatus {
    type Rejection = ApiError;

    async fn from_request_parts(head: &mut Head, _: &Arc<App>) -> Result<Self, ApiError> {
        Self::of(head.uri.query())
    }
}

/// The client's end of the connection. Without one, a peer that proves nothing and has no address.
impl FromRequestParts<Arc<App>> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Head, _: &Arc<App>) -> Result<Self, Infallible> {
        Ok(head.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// The result of the admission layer. Without that layer the handler refuses every request.
impl FromRequestParts<Arc<App>> for Admitted {
    type Rejection = ApiError;

    async fn from_request_parts(head: &mut Head, _: &Arc<App>) -> Result<Self, ApiError> {
        let missing = || ApiError::new(ErrorCode::Forbidden, "this route admits no callers");
        head.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// The response to an error. Its code stays in the response's extensions, since the challenges of a 401 depend on the
/// server's providers, which only the outer layer knows.
impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.response().map(axum::body::Body::new);
        response.extensions_mut().insert(self.code);
        response
    }
}
