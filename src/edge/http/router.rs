//! The axum router, built from the list of routes, and what surrounds every route: the span of the request, the panic guard,
//! the count of statuses, and the checks that come before a handler.
//!
//! The checks have one order, so that a request is refused for the first one that it fails: its host, its path, its
//! method, its caller, and then the extractors of the handler (query, credential, content type, body).
//!
//! `POST /is_authorized` is answered in front of axum with the same steps: nearly every request asks it, and boxed
//! handlers and bodies cost a tenth of such a request.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http_body_util::Either;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, HeaderValue};
use hyper::http::request::Parts as Head;
use hyper::{Method, StatusCode};
use tower_service::Service as _;

use super::app::App;
use super::caller::{self, Access, Peer, Sender};
use super::durations::RouteDurations;
use super::errors::{self, ApiError, ErrorCode};
use super::extract::MapStatus;
use super::guard::guarded_async;
use super::openapi::{self, RouteAccess};
use super::routes::{self, IS_AUTHORIZED, IS_AUTHORIZED_ACCESS, Route};
use super::{cors, host, is_authorized, request_body};
use crate::edge::telemetry;

/// Longest percent-encoded name of a user in a path: each byte of a name as `%41`.
const MAX_USER_BYTES: usize = 3 * 1024;
/// Longest id in a path.
const MAX_ID_BYTES: usize = 128;
/// The route of a request to an unknown path, for its span.
const UNKNOWN: &str = "unknown";

/// Answers every request.
#[derive(Clone)]
pub(super) struct Routes {
    app: Arc<App>,
    router: Router,
}

/// A response from axum, or from the code in front of it.
pub(super) type AnyResponse = hyper::Response<Either<http_body_util::Full<Bytes>, axum::body::Body>>;

impl Routes {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { router: router(&app, routes::all()), app }
    }

    /// The response to a request that reaches no route.
    pub(super) fn refuse(&self, error: &ApiError) -> AnyResponse {
        let response = error.response();
        self.app.metrics.responded(response.status());
        response.map(Either::Left)
    }

    pub(super) fn app(&self) -> &App {
        &self.app
    }

    pub(super) async fn answer(&self, mut request: hyper::Request<Incoming>, peer: &Peer) -> AnyResponse {
        if request.uri().path() == IS_AUTHORIZED && request.method() == Method::POST {
            return answer_is_authorized(&self.app, request, peer).await.map(Either::Left);
        }
        request.extensions_mut().insert(peer.clone());
        let Ok(mut response) = self.router.clone().call(request.map(axum::body::Body::new)).await;
        // axum adds its own `Allow` to each response to a method that the path does not take, also to a 400 or 404.
        if response.status() != StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().remove(ALLOW);
        }
        response.map(Either::Right)
    }
}

fn router(app: &Arc<App>, routes: Vec<Route>) -> Router {
    let allowed = Arc::new(allowed(&routes));
    app.description.get_or_init(|| described(&routes));
    let paths = routes.iter().map(|route| (route.method, route.path));
    app.durations.get_or_init(|| RouteDurations::new(&app.metrics, paths, ("POST", IS_AUTHORIZED)));
    let mut router = Router::new();
    for Route { path, access, handler, .. } in routes {
        let admission = Admission { app: Arc::clone(app), access };
        router = router.route(path, handler.route_layer(from_fn_with_state(admission, admit)));
    }
    router
        .method_not_allowed_fallback(move |State(app): State<Arc<App>>, path: MatchedPath, request: Request| {
            let allowed = Arc::clone(&allowed);
            async move {
                let methods = allowed.get(path.as_str()).map(String::as_str).unwrap_or_default();
                let preflight = cors::preflight(&app.origins, &app.credential_headers.keys, &request, methods);
                preflight.unwrap_or_else(|| method_not_allowed(methods))
            }
        })
        .fallback(async || no_such_path())
        .layer(from_fn_with_state(Arc::clone(app), answer_in_span))
        .with_state(Arc::clone(app))
}

/// The description of the routes, for `GET /openapi.json`.
fn described(routes: &[Route]) -> Bytes {
    let access = routes.iter().map(|Route { method, path, access, .. }| RouteAccess { method, path, access: *access });
    openapi::text(&access.collect::<Vec<_>>())
}

/// For each path the value of `Allow`.
fn allowed(routes: &[Route]) -> BTreeMap<&'static str, String> {
    let mut allowed = BTreeMap::<_, Vec<_>>::new();
    for Route { path, method, .. } in routes {
        allowed.entry(*path).or_default().push(if *method == "GET" { "GET, HEAD" } else { method });
    }
    allowed.into_iter().map(|(path, methods)| (path, methods.join(", "))).collect()
}

fn method_not_allowed(allowed: &str) -> Response {
    let mut response = ApiError::new(ErrorCode::MethodNotAllowed, format!("this path takes {allowed}")).into_response();
    response.headers_mut().extend(HeaderValue::try_from(allowed).ok().map(|value| (ALLOW, value)));
    response
}

fn no_such_path() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "no such path; GET /openapi.json lists those there are")
}

/// The outer layer: every request to axum passes it, also one that no route takes.
async fn answer_in_span(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (began, method) = (Instant::now(), request.method().clone());
    let (head, body) = request.into_parts();
    let matched = head.extensions.get::<MatchedPath>().cloned();
    let matched = matched.filter(|matched| are_valid_parts(matched.as_str(), head.uri.path()));
    let route = matched.as_ref().map_or(UNKNOWN, MatchedPath::as_str);
    let span = telemetry::request_span(&head, route);
    let is_known = matched.is_some();
    let answering = pin!(async {
        let answered = guarded_async(&app, async {
            host::check(&head)?;
            // A path with an invalid part matches a route of axum, and its method may not be one that the route takes.
            if !is_known {
                return Err(no_such_path());
            }
            Ok(next.run(Request::from_parts(head, body)).await)
        });
        let mut response = answered.await.unwrap_or_else(ApiError::into_response);
        if let Some(code) = response.extensions_mut().remove::<ErrorCode>() {
            caller::challenge(&app, code, response.headers_mut());
        }
        app.metrics.responded(response.status());
        response
    });
    let response = telemetry::in_span(span, answering).await;
    if let Some(durations) = app.durations.get() {
        let route = durations.of(&method, matched.as_ref().map(MatchedPath::as_str));
        route.answered(response.status(), began.elapsed());
    }
    response
}

/// The access that a route requires.
#[derive(Clone)]
struct Admission {
    app: Arc<App>,
    access: Access,
}

/// The layer of one route: refuses callers without the required access, before the handler reads anything.
async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Result<Response, ApiError> {
    let (mut head, body) = request.into_parts();
    let peer = head.extensions.get::<Peer>().cloned().unwrap_or_default();
    let admitted = caller::admit(&admission.app, &head, &peer, admission.access).await?;
    head.extensions.insert(admitted);
    Ok(next.run(Request::from_parts(head, body)).await)
}

/// Whether the parts of `path` that stand for `{id}` and `{user}` are valid. An id consists of letters, digits, `.`, `_`
/// and `-`. A user is any percent-encoded text: the handler decodes it, and compares it with nothing but names.
fn are_valid_parts(matched: &str, path: &str) -> bool {
    let is_id_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    matched.split('/').zip(path.split('/')).all(|(name, part)| match name {
        "{id}" => (1..=MAX_ID_BYTES).contains(&part.len()) && part.bytes().all(is_id_byte),
        "{user}" => (1..=MAX_USER_BYTES).contains(&part.len()),
        _ => true,
    })
}

/// Answers `POST /is_authorized` as its route would, without axum.
async fn answer_is_authorized<B>(app: &Arc<App>, request: hyper::Request<B>, peer: &Peer) -> errors::Response
where
    B: Body<Data = Bytes> + Unpin,
{
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let span = telemetry::request_span(&head, IS_AUTHORIZED);
    let answering = pin!(async {
        let response = match guarded_async(app, check_and_decide(app, &head, body, peer)).await {
            Ok(response) => response,
            Err(error) => {
                let mut response = error.response();
                caller::challenge(app, error.code, response.headers_mut());
                response
            }
        };
        app.metrics.responded(response.status());
        response
    });
    let response = telemetry::in_span(span, answering).await;
    if let Some(durations) = app.durations.get() {
        durations.most().answered(response.status(), began.elapsed());
    }
    response
}

async fn check_and_decide<B>(app: &Arc<App>, head: &Head, body: B, peer: &Peer) -> Result<errors::Response, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    host::check(head)?;
    let admitted = caller::admit(app, head, peer, IS_AUTHORIZED_ACCESS).await?;
    let MapStatus(maps) = MapStatus::of(head.uri.query())?;
    request_body::check_content_type(&head.headers)?;
    let body = request_body::read(body, app.body).await?;
    is_authorized::answer(app, Sender { peer, admitted: &admitted }, &body, maps).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use serde_json::Value;

    use super::*;
    use crate::edge::http::options::HttpOptions;
    use crate::edge::http::services::Services;
    use crate::engine::Engine;
    use crate::policy::{Bundle, SourceFile};

    fn app() -> Arc<App> {
        let rules = "users: [{ id: alice }]\nauthz_rules: [{ users: [alice], models: ['*'] }]\n";
        let bundle = Bundle::new(SourceFile::new("rules.yaml", rules.as_bytes()).into_iter().collect());
        let engine = Engine::builder().bundle(bundle).build().unwrap();
        Arc::new(App::new(Services::new(engine), &HttpOptions::default()))
    }

    fn request(target: &str, headers: &[(&str, &str)], body: &'static str) -> hyper::Request<Full<Bytes>> {
        let mut request = hyper::Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
    }

    /// Status, headers, and the body without the id of the decision.
    async fn parts<B: Body<Data = Bytes>>(response: hyper::Response<B>) -> (StatusCode, Vec<String>, Value)
    where
        B::Error: std::fmt::Debug,
    {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut value: Value = serde_json::from_slice(&body).unwrap();
        value.as_object_mut().unwrap().remove("id");
        // The server writes the length of both; axum writes it into its response.
        let headers = head.headers.iter().filter(|(name, _)| *name != hyper::header::CONTENT_LENGTH);
        (head.status, headers.map(|header| format!("{header:?}")).collect(), value)
    }

    /// Admission leaves these routes to an extractor of their handlers, so this guards a handler that forgets it.
    #[test]
    fn every_route_that_authenticates_its_callers_itself_does_so() {
        let app = app();
        let router = router(&app, routes::all());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let itself = routes::all().into_iter().filter(|route| route.access == Access::Itself);
        for Route { method, path, .. } in itself {
            let path = path.replace("{id}", "a").replace("{user}", "a");
            let mut request = request(&path, &[("host", "localhost")], "");
            *request.method_mut() = method.parse().unwrap();
            let (status, _, body) =
                runtime.block_on(async { parts(router.clone().call(request).await.unwrap()).await });
            // Callers prove themselves with keys, which this server has none of.
            let message = body.to_string();
            assert_eq!(status, 404, "{method} {path}: {message}");
            assert!(message.contains("this server keeps no keys"), "{method} {path}: {message}");
        }
    }

    #[test]
    fn is_authorized_is_answered_in_front_of_axum_as_by_its_route() {
        const QUESTION: &str = r#"{"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"a/b\""}"#;
        const FORBID: &str = r#"{"principal": "User::\"bob\"", "action": "chat", "resource": "Model::\"a/b\""}"#;
        let (local, json) = (("host", "localhost"), ("content-type", "application/json"));
        let app = app();
        let router = router(&app, routes::all());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (target, headers, body, status) in [
            ("/is_authorized", &[local, json][..], QUESTION, 200),
            ("/is_authorized?status=map", &[local, json], QUESTION, 200),
            ("/is_authorized?status=map", &[local, json], FORBID, 403),
            ("/is_authorized?status=mpa", &[local, json], QUESTION, 400),
            ("/is_authorized", &[json], QUESTION, 400),
            ("/is_authorized", &[("host", "elsewhere.example"), json], QUESTION, 403),
            ("/is_authorized", &[("host", "elsewhere.example"), json, ("authorization", "Bearer x")], QUESTION, 401),
            ("/is_authorized", &[local], QUESTION, 400),
            ("/is_authorized", &[local, json], "{", 400),
        ] {
            let (front, behind) = runtime.block_on(async {
                let front = answer_is_authorized(&app, request(target, headers, body), &Peer::default()).await;
                let behind = router.clone().call(request(target, headers, body)).await.unwrap();
                (parts(front).await, parts(behind).await)
            });
            assert_eq!(front, behind, "{target} {headers:?}");
            assert_eq!(front.0, status, "{target} {headers:?} {front:?}");
        }
    }
}
