//! Every route: its method, its path, the access that it requires, and its handler.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::app::App;
use super::caller::{Access, Admitted, Peer, Sender};
use super::errors::{ApiError, Response};
use super::extract::{JsonBody, MapStatus, NoBody, NoQuery};
use super::{
    batch, books, cedar_agent, is_authorized, keys, operations, passwords, spending, standing, tokens, validate,
};

/// A route. Its path is compared byte for byte with the path of a request; `{id}` and `{user}` stand for one part.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) handler: MethodRouter<Arc<App>>,
}

/// A method, by its name and as axum filters by it.
#[derive(Clone, Copy)]
struct Method(&'static str, MethodFilter);

/// Takes HEAD too.
const GET: Method = Method("GET", MethodFilter::GET);
const POST: Method = Method("POST", MethodFilter::POST);
const PUT: Method = Method("PUT", MethodFilter::PUT);
const PATCH: Method = Method("PATCH", MethodFilter::PATCH);
const DELETE: Method = Method("DELETE", MethodFilter::DELETE);

/// The path of most requests, and the access that it requires. The server answers them before they reach axum.
pub(super) const IS_AUTHORIZED: &str = "/is_authorized";
pub(super) const IS_AUTHORIZED_ACCESS: Access = Access::Check;

fn route<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    let Method(method, filter) = method;
    Route { method, path, access, handler: on(filter, handler) }
}

/// The list of routes. The methods of a path are in the order in which `Allow` names them.
pub(super) fn all() -> Vec<Route> {
    use Access::{Administrator, Check, Everybody, Gateway, Itself, Monitor, Standing, Usage};
    vec![
        route(POST, IS_AUTHORIZED, IS_AUTHORIZED_ACCESS, is_authorized),
        route(POST, "/is_authorized/batch", Check, batch),
        route(POST, "/v1/is_authorized", Check, cedar_agent),
        route(POST, "/v1/auth/validate", Gateway, validate),
        route(POST, "/settle", Gateway, settle),
        route(POST, "/release", Gateway, release),
        route(POST, "/extend", Gateway, extend),
        route(GET, "/usage", Usage, usage),
        route(POST, "/usage", Gateway, record_usage),
        route(GET, "/limits", Standing, limits),
        route(GET, "/health/live", Everybody, operations::live),
        route(GET, "/health/ready", Everybody, operations::ready),
        route(GET, "/metrics", Monitor, operations::metrics),
        route(GET, "/bundle", Monitor, operations::bundle),
        route(POST, "/bundle/reload", Administrator, operations::reload),
        route(GET, "/openapi.json", Everybody, operations::open_api),
        route(GET, "/docs", Everybody, operations::page),
        route(GET, "/version", Everybody, operations::version),
        route(GET, "/v1/keys", Itself, keys::list),
        route(POST, "/v1/keys", Itself, keys::create),
        route(GET, "/v1/keys/{id}", Itself, keys::show),
        route(PATCH, "/v1/keys/{id}", Itself, keys::change),
        route(DELETE, "/v1/keys/{id}", Itself, keys::delete),
        route(POST, "/v1/keys/{id}/revoke", Itself, keys::revoke),
        route(POST, "/v1/keys/{id}/rotate", Itself, keys::rotate),
        route(GET, "/v1/users/{user}/password", Itself, passwords::show),
        route(PUT, "/v1/users/{user}/password", Itself, passwords::set),
        route(DELETE, "/v1/users/{user}/password", Itself, passwords::remove),
        // The exchanged credential, in the headers or in the body, authenticates the caller.
        route(POST, "/v1/token", Everybody, tokens::exchange),
        route(GET, "/.well-known/jwks.json", Everybody, tokens::published),
    ]
}

/// The path and method of every route.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    all().into_iter().map(|route| (route.path, route.method))
}

type Answer = Result<Response, ApiError>;

async fn is_authorized(
    State(app): State<Arc<App>>,
    peer: Peer,
    admitted: Admitted,
    MapStatus(maps): MapStatus,
    JsonBody(body): JsonBody,
) -> Answer {
    is_authorized::answer(&app, Sender { peer: &peer, admitted: &admitted }, &body, maps).await
}

async fn batch(
    State(app): State<Arc<App>>,
    peer: Peer,
    admitted: Admitted,
    _: NoQuery,
    JsonBody(body): JsonBody,
) -> Answer {
    batch::answer(&app, Sender { peer: &peer, admitted: &admitted }, &body).await
}

async fn cedar_agent(
    State(app): State<Arc<App>>,
    peer: Peer,
    admitted: Admitted,
    _: NoQuery,
    JsonBody(body): JsonBody,
) -> Answer {
    cedar_agent::answer(&app, Sender { peer: &peer, admitted: &admitted }, &body).await
}

async fn validate(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Answer {
    validate::answer(&app, &body).await
}

async fn settle(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Answer {
    spending::settle(&app, &body).await
}

async fn release(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Answer {
    spending::release(&app, &body).await
}

async fn extend(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Answer {
    spending::extend(&app, &body).await
}

async fn record_usage(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Answer {
    spending::usage(&app, &body).await
}

async fn usage(State(app): State<Arc<App>>, RawQuery(query): RawQuery, _: NoBody) -> Answer {
    books::answer(&app, query.as_deref()).await
}

async fn limits(State(app): State<Arc<App>>, admitted: Admitted, RawQuery(query): RawQuery, _: NoBody) -> Answer {
    standing::answer(&app, query.as_deref(), &admitted).await
}
