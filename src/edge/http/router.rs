//! From a method and a path to what answers. A fixed table: a path is compared as it was sent, byte for byte, so there
//! is no second reading of it (`//`, `%2F`, `..`) that could differ from anybody else's.
//!
//! axum serves all of it but `/is_authorized`, which is answered below it: nearly every request asks that, and boxed
//! handlers and bodies are a tenth of what such a request takes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use http_body_util::Either;
use hyper::body::{Body, Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, Request};
use tower_service::Service as _;

use super::app::App;
use super::caller::{self, Access, Peer};
use super::errors::{ApiError, ErrorCode, Response};
use super::guard::guarded_async;
use super::keys::{self, Ask};
use super::{
    batch, body, books, cedar_agent, cors, host, is_authorized, operations, passwords, spending, standing, tokens,
    validate,
};
use crate::edge::telemetry;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    IsAuthorized,
    Batch,
    CedarAgent,
    Validate,
    Settle,
    Release,
    Extend,
    Usage,
    Limits,
    Books,
    Live,
    Ready,
    Metrics,
    Bundle,
    Reload,
    OpenApi,
    Page,
    Version,
    Keys(Ask),
    Password(passwords::Ask),
    Token,
    PublishedKeys,
}

impl Route {
    /// What a caller needs for it, where the server is not open to whoever reaches it.
    fn access(self) -> Access {
        match self {
            // Whoever asks for a token proves itself with what it brings.
            Self::Live
            | Self::Ready
            | Self::OpenApi
            | Self::Page
            | Self::Version
            | Self::Token
            | Self::PublishedKeys => Access::Everybody,
            Self::IsAuthorized | Self::Batch | Self::CedarAgent => Access::Check,
            Self::Validate | Self::Settle | Self::Release | Self::Extend | Self::Usage => Access::Gateway,
            Self::Limits => Access::Standing,
            Self::Books => Access::Usage,
            Self::Metrics | Self::Bundle => Access::Monitor,
            Self::Reload => Access::Administrator,
            Self::Keys(_) | Self::Password(_) => Access::Itself,
        }
    }
}

/// Every route there is, the one of nearly all requests first.
const ROUTES: [(&str, &str, Route); 30] = [
    ("/is_authorized", "POST", Route::IsAuthorized),
    ("/is_authorized/batch", "POST", Route::Batch),
    ("/v1/is_authorized", "POST", Route::CedarAgent),
    ("/v1/auth/validate", "POST", Route::Validate),
    ("/settle", "POST", Route::Settle),
    ("/release", "POST", Route::Release),
    ("/extend", "POST", Route::Extend),
    ("/usage", "POST", Route::Usage),
    ("/limits", "GET", Route::Limits),
    ("/usage", "GET", Route::Books),
    ("/health/live", "GET", Route::Live),
    ("/health/ready", "GET", Route::Ready),
    ("/metrics", "GET", Route::Metrics),
    ("/bundle", "GET", Route::Bundle),
    ("/bundle/reload", "POST", Route::Reload),
    ("/openapi.json", "GET", Route::OpenApi),
    ("/docs", "GET", Route::Page),
    ("/version", "GET", Route::Version),
    ("/v1/keys", "GET", Route::Keys(Ask::List)),
    ("/v1/keys", "POST", Route::Keys(Ask::Make)),
    ("/v1/keys/{id}", "GET", Route::Keys(Ask::Show)),
    ("/v1/keys/{id}", "PATCH", Route::Keys(Ask::Change)),
    ("/v1/keys/{id}", "DELETE", Route::Keys(Ask::Remove)),
    ("/v1/keys/{id}/revoke", "POST", Route::Keys(Ask::Revoke)),
    ("/v1/keys/{id}/rotate", "POST", Route::Keys(Ask::Rotate)),
    ("/v1/users/{user}/password", "GET", Route::Password(passwords::Ask::Show)),
    ("/v1/users/{user}/password", "PUT", Route::Password(passwords::Ask::Set)),
    ("/v1/users/{user}/password", "DELETE", Route::Password(passwords::Ask::Remove)),
    ("/v1/token", "POST", Route::Token),
    ("/.well-known/jwks.json", "GET", Route::PublishedKeys),
];

/// Longest name of a user in a path: each byte of it percent-encoded.
const MAX_USER_BYTES: usize = 3 * 1024;

/// Whether a path of the table is `path`. `{id}` is one part of it, as it is sent: letters, digits, `.`, `_` and `-`.
/// `{user}` is any one part, percent-encoded: what it stands for is looked up and compared with nothing else.
fn is_path(known: &str, path: &str) -> bool {
    if !known.contains('{') {
        return known == path;
    }
    let is_id = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        (1..=128).contains(&part.len()) && part.bytes().all(plain)
    };
    let (known, path) = (known.split('/'), path.split('/'));
    known.clone().count() == path.clone().count()
        && known.zip(path).all(|(known, part)| match known {
            "{id}" => is_id(part),
            "{user}" => (1..=MAX_USER_BYTES).contains(&part.len()),
            known => known == part,
        })
}

/// The path and method of every route.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|(path, method, _)| (*path, *method))
}

/// What nearly every request asks.
const HOT: &str = "/is_authorized";

/// Answers every request.
#[derive(Clone)]
pub(super) struct Routes {
    app: Arc<App>,
    /// Everything but [`HOT`].
    others: Router,
}

/// An answer from below axum, or from axum.
pub(super) type AnyResponse = hyper::Response<Either<http_body_util::Full<Bytes>, axum::body::Body>>;

impl Routes {
    pub(super) fn new(app: Arc<App>) -> Self {
        let mut others = Router::new();
        let paths: BTreeSet<&str> = ROUTES.iter().map(|(path, _, _)| *path).filter(|path| *path != HOT).collect();
        for path in paths {
            let app = Arc::clone(&app);
            // Any method, so that a wrong one is told in our own form.
            others = others.route(path, any(move |request| through_axum(app, request)));
        }
        let unknown = Arc::clone(&app);
        Self { app, others: others.fallback(move |request| through_axum(unknown, request)) }
    }

    /// An error that no route answers.
    pub(super) fn refuse(&self, error: &ApiError) -> AnyResponse {
        let response = error.response();
        self.app.metrics.responded(response.status());
        response.map(Either::Left)
    }

    pub(super) fn app(&self) -> &App {
        &self.app
    }

    pub(super) async fn answer(&self, mut request: Request<Incoming>, peer: &Peer) -> Result<AnyResponse, Infallible> {
        if request.uri().path() == HOT {
            return Ok(answer(&self.app, request, peer).await.map(Either::Left));
        }
        request.extensions_mut().insert(peer.clone());
        let response = self.others.clone().call(request.map(axum::body::Body::new)).await?;
        Ok(response.map(Either::Right))
    }
}

async fn through_axum(app: Arc<App>, request: axum::extract::Request) -> axum::response::Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    answer(&app, request, &peer).await.map(axum::body::Body::new)
}

async fn answer<B>(app: &Arc<App>, request: Request<B>, peer: &Peer) -> Response
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let (head, body) = request.into_parts();
    let answering = pin!(async {
        let response = match guarded_async(app, dispatch(app, &head, body, peer)).await {
            Ok(response) => response,
            Err(error) => caller::challenged(app, &error),
        };
        app.metrics.responded(response.status());
        response
    });
    telemetry::in_span(&head, path_of, answering).await
}

/// The path as the table has it, for logs.
fn path_of(head: &Parts) -> &'static str {
    let known = ROUTES.iter().find(|(path, _, _)| is_path(path, head.uri.path()));
    known.map_or("unknown", |(path, _, _)| *path)
}

async fn dispatch<B>(app: &Arc<App>, head: &Parts, body: B, peer: &Peer) -> Result<Response, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    host::check(head)?;
    let route = match route(head) {
        Ok(route) => route,
        Err(error) => return cors::preflight(app, head, error),
    };
    let route = &route;
    // Before anything of the body is read.
    let admitted = caller::admit(app, head, peer, route.access()).await?;
    let status_tells = query(*route, head.uri.query())?;
    let manager = match route {
        Route::Keys(_) | Route::Password(_) => Some(keys::caller(app, head, peer).await?),
        _ => None,
    };
    let body = match route {
        Route::IsAuthorized
        | Route::Batch
        | Route::CedarAgent
        | Route::Validate
        | Route::Settle
        | Route::Release
        | Route::Extend
        | Route::Usage
        | Route::Password(passwords::Ask::Set) => {
            body::check_content_type(&head.headers)?;
            body::read(body, app.body).await?
        }
        // It may be a form too.
        Route::Token => body::read(body, app.body).await?,
        // The body is optional here, and an empty one needs no content type.
        Route::Reload | Route::Keys(keys::Ask::Make | keys::Ask::Change | keys::Ask::Revoke | keys::Ask::Rotate) => {
            let body = body::read(body, app.body).await?;
            if !body.is_empty() {
                body::check_content_type(&head.headers)?;
            }
            body
        }
        _ if !body.is_end_stream() => return Err(ApiError::invalid("", "this request has no body")),
        _ => Bytes::new(),
    };
    match route {
        Route::IsAuthorized => is_authorized::answer(app, (peer, &admitted), &body, status_tells).await,
        Route::Batch => batch::answer(app, (peer, &admitted), &body).await,
        Route::CedarAgent => cedar_agent::answer(app, &admitted, &body).await,
        Route::Validate => validate::answer(app, &body).await,
        Route::Settle => spending::settle(app, &body).await,
        Route::Release => spending::release(app, &body).await,
        Route::Extend => spending::extend(app, &body).await,
        Route::Usage => spending::usage(app, &body).await,
        Route::Limits => standing::answer(app, head.uri.query(), &admitted).await,
        Route::Books => books::answer(app, head.uri.query()).await,
        Route::Live => Ok(operations::live()),
        Route::Ready => Ok(operations::ready(app)),
        Route::Metrics => Ok(operations::metrics(app)),
        Route::Bundle => Ok(operations::bundle(app)),
        Route::Reload => operations::reload(app, &body).await,
        Route::OpenApi => Ok(operations::open_api()),
        Route::Page => Ok(operations::page()),
        Route::Version => Ok(operations::version()),
        Route::Keys(ask) => match &manager {
            Some(manager) => keys::answer(manager, *ask, head, &body).await,
            None => Err(ApiError::new(ErrorCode::Unauthenticated, "keys are managed with a credential")),
        },
        Route::Password(ask) => match &manager {
            Some(manager) => passwords::answer(app, manager, *ask, head, &body).await,
            None => Err(ApiError::new(ErrorCode::Unauthenticated, "passwords are set with a credential")),
        },
        Route::Token => tokens::exchange(app, head, peer, &body).await,
        Route::PublishedKeys => tokens::published(app),
    }
}

/// What answers this path and method.
fn route(head: &Parts) -> Result<Route, ApiError> {
    let method = if head.method == Method::HEAD { "GET" } else { head.method.as_str() };
    let mut allowed: Vec<&'static str> = Vec::new();
    for (_, takes, route) in ROUTES.iter().filter(|(path, _, _)| is_path(path, head.uri.path())) {
        if *takes == method {
            return Ok(*route);
        }
        allowed.push(takes);
    }
    let allowed = match &*allowed {
        [] => None,
        ["GET"] => Some("GET, HEAD"),
        ["POST"] => Some("POST"),
        ["GET", "PATCH", "DELETE"] => Some("GET, HEAD, PATCH, DELETE"),
        ["GET", "PUT", "DELETE"] => Some("GET, HEAD, PUT, DELETE"),
        _ => Some("GET, HEAD, POST"),
    };
    Err(match allowed {
        Some(allowed) => ApiError::new(ErrorCode::MethodNotAllowed(allowed), format!("this path takes {allowed}")),
        None => ApiError::new(ErrorCode::NotFound, "no such path; GET /openapi.json lists those there are"),
    })
}

/// Whether the status is to tell a forbid. A query that says it wrongly must not be passed over: its sender would take
/// a forbid's 200 for a permit.
fn query(route: Route, query: Option<&str>) -> Result<bool, ApiError> {
    let asks = matches!(route, Route::IsAuthorized | Route::Batch | Route::CedarAgent);
    match query {
        None | Some("") => Ok(false),
        Some("status=map") if route == Route::IsAuthorized => Ok(true),
        Some(_) if !asks => Ok(false),
        Some(_) if route == Route::IsAuthorized => {
            Err(ApiError::invalid("status", "the only query that this path takes is `status=map`"))
        }
        Some(_) => Err(ApiError::invalid("", "this path takes no query")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_lists_exactly_the_routes() {
        let description: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let paths = description["paths"].as_object().unwrap();
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| (path.clone(), method.to_uppercase()))
            })
            .collect();
        let known = routes().map(|(path, method)| (path.to_owned(), method.to_owned())).collect();
        assert_eq!(described, known);
    }
}
