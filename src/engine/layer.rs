//! A tower layer that guards a service in process: each request says who asks with its credential, a map says what it
//! asks for, the engine decides, and only what is permitted reaches the service.
//!
//! What is hard about it: nothing may get by. A request that no map knows, whose credential nobody knows, or that comes
//! before a bundle does, is answered here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use tower_layer::Layer;
use tower_service::Service;

use super::Engine;
use crate::edge::answer;
use crate::edge::identity::CredentialHeaders;
use crate::model::{Decision, EntityUid, Identity, RequestPath, masked};
use crate::pdp::{AnswerResult, AuthorizeCall, Caller, Found, PdpError, Peer, RouteMap, Via};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    found: Found,
    context: Map<String, Value>,
}

impl Asked {
    /// An action on a resource.
    pub fn new(action: impl Into<SmolStr>, resource: EntityUid) -> Self {
        Self { found: Found::fixed(action.into(), resource), context: Map::new() }
    }

    /// With what conditions may look at, as in a question's `context`.
    #[must_use]
    pub fn with_context(mut self, context: Map<String, Value>) -> Self {
        self.context = context;
        self
    }
}

/// Says what a request asks for; `None` for what nobody may ask. A function of the request's head does.
pub trait Asks: Send + Sync + 'static {
    /// What this request asks for.
    fn asked(&self, head: &Parts) -> Option<Asked>;
}

impl<F: Fn(&Parts) -> Option<Asked> + Send + Sync + 'static> Asks for F {
    fn asked(&self, head: &Parts) -> Option<Asked> {
        self(head)
    }
}

/// A route that takes its model from a parameter fits nothing here: the body is the service's. One may take it from the
/// path, `{model}`.
impl Asks for RouteMap {
    fn asked(&self, head: &Parts) -> Option<Asked> {
        let found = self.look_up(head.uri.path(), Some(head.method.as_str()), |_| None);
        found.ok().map(|found| Asked { found, context: Map::new() })
    }
}

/// Guards a service with an [`Engine`].
///
/// A permitted request reaches the service with its [`Identity`] (as `Arc<Identity>`) and [`Decision`] in its
/// extensions. Any other request is answered with the decision in the form of `POST /is_authorized?status=map`. The
/// status is 401 for a refused credential, with a challenge for each form that the engine's providers accept, 429 if a
/// rate or concurrency limit has no room, 503 if a provider or store is unavailable (both with `Retry-After`), and 403
/// otherwise. A request that the schema does not accept, or whose path is ambiguous ([`RequestPath`]), is answered with
/// 400, and every request before the first bundle with 503. The layer holds nothing; the service itself settles the
/// usage that limits count.
///
/// Conditions see the request's `method` and `path`, and `ip` where a [`Peer`] stands in its extensions.
///
/// ```
/// use std::sync::Arc;
///
/// use axum::{Extension, Router, routing::post};
/// use tollgate::edge::identity::{StaticProvider, StaticSecret};
/// use tollgate::model::{Identity, SecretText};
/// use tollgate::{AuthorizeLayer, Bundle, Decision, Engine, EntityUid, RouteMap, SourceFile};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rules = "authz_rules: [{ users: [alice], models: [openai-main/gpt-4o], actions: [chat] }]";
/// let token = StaticSecret {
///     token: SecretText::new("a-token-of-16-bytes-or-more"),
///     principal: r#"User::"alice""#.parse()?,
///     roles: Vec::new(),
/// };
/// let engine = Engine::builder()
///     .bundle(Bundle::new(SourceFile::new("rules.yaml", rules.as_bytes()).into_iter().collect()))
///     .authenticator(Arc::new(StaticProvider::new(vec![token])?))
///     .build()?;
///
/// let model: EntityUid = r#"Model::"openai-main/gpt-4o""#.parse()?;
/// let map = RouteMap::empty().on("POST", "/chat", "chat", model);
/// let app: Router = Router::new()
///     .route("/chat", post(|Extension(identity): Extension<Arc<Identity>>, Extension(decision): Extension<Decision>| async move {
///         format!("{} {}", identity.principal, decision.message())
///     }))
///     .layer(AuthorizeLayer::new(engine, map));
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
pub struct AuthorizeLayer<A> {
    guard: Arc<Guard<A>>,
}

struct Guard<A> {
    engine: Engine,
    asks: A,
    headers: CredentialHeaders,
    /// Whether conditions see method, path and address without being told.
    tells: bool,
}

impl<A: Asks> AuthorizeLayer<A> {
    /// Lets through what `engine` permits of what `asks` says.
    #[must_use]
    pub fn new(engine: Engine, asks: A) -> Self {
        let headers = CredentialHeaders::default();
        Self { guard: Arc::new(Guard { engine, asks, headers, tells: true }) }
    }

    /// With credentials in other headers than `Authorization`, `x-api-key` and `api-key`.
    #[must_use]
    pub fn credential_headers(self, headers: CredentialHeaders) -> Self {
        self.with(|guard| Guard { headers, ..guard })
    }

    /// With a context of nothing but what the map says: for actions of a schema of your own.
    #[must_use]
    pub fn bare_context(self) -> Self {
        self.with(|guard| Guard { tells: false, ..guard })
    }

    /// Changes what nobody shares yet, as long as a layer is being set up; else as it was.
    fn with(self, change: impl FnOnce(Guard<A>) -> Guard<A>) -> Self {
        match Arc::try_unwrap(self.guard) {
            Ok(guard) => Self { guard: Arc::new(change(guard)) },
            Err(guard) => Self { guard },
        }
    }
}

impl<A> Clone for AuthorizeLayer<A> {
    fn clone(&self) -> Self {
        Self { guard: Arc::clone(&self.guard) }
    }
}

impl<S, A> Layer<S> for AuthorizeLayer<A> {
    type Service = Authorize<S, A>;

    fn layer(&self, inner: S) -> Authorize<S, A> {
        Authorize { inner, guard: Arc::clone(&self.guard) }
    }
}

/// A service behind an [`AuthorizeLayer`].
pub struct Authorize<S, A> {
    inner: S,
    guard: Arc<Guard<A>>,
}

impl<S: Clone, A> Clone for Authorize<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), guard: Arc::clone(&self.guard) }
    }
}

impl<S, A, B, R> Service<Request<B>> for Authorize<S, A>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    A: Asks,
    B: Send + 'static,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is called, and its copy stays.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let guard = Arc::clone(&self.guard);
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            match guard.admit(&head).await {
                Ok((identity, decision)) => {
                    head.extensions.insert(identity);
                    head.extensions.insert(decision);
                    inner.call(Request::from_parts(head, body)).await
                }
                Err(refused) => Ok(refused.response()),
            }
        })
    }
}

/// An answer that is given instead of the service's.
struct Refused {
    status: StatusCode,
    body: String,
    retry_after_seconds: Option<u64>,
    /// What the caller may prove itself with, where it must.
    challenges: Vec<HeaderValue>,
}

impl Refused {
    /// An error as the server has them: no decision was made.
    fn error(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let body = json!({ "error": { "code": code, "message": masked(&message.into()), "param": null } });
        Self { status, body: body.to_string(), retry_after_seconds: None, challenges: Vec::new() }
    }

    fn decided(status: StatusCode, text: Vec<u8>, retry_after_seconds: Option<u64>) -> Self {
        // What is written is JSON.
        let body = String::from_utf8(text).unwrap_or_default();
        Self { status, body, retry_after_seconds, challenges: Vec::new() }
    }

    fn response<R: From<String>>(self) -> Response<R> {
        let mut response = Response::new(R::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for challenge in self.challenges {
            headers.append(WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl<A: Asks> Guard<A> {
    async fn admit(&self, head: &Parts) -> Result<(Arc<Identity>, Decision), Refused> {
        let no_bundle = |_| Refused::error(StatusCode::SERVICE_UNAVAILABLE, "no_bundle", "no bundle is active yet");
        let pinned = self.engine.pdp().pin().map_err(no_bundle)?;
        let unknown = || {
            let message = "nothing says what this request asks for, so nobody may ask it";
            Refused::error(StatusCode::FORBIDDEN, "forbidden", message)
        };
        let invalid = |message: String| Refused::error(StatusCode::BAD_REQUEST, "invalid_request", message);
        RequestPath::parse(head.uri.path()).map_err(|error| invalid(error.to_string()))?;
        let Asked { found, context } = self.asks.asked(head).ok_or_else(unknown)?;
        let resource = pinned.resource_of(&found).map_err(|error| invalid(error.to_string()))?;
        let peer = head.extensions.get::<Peer>().cloned().unwrap_or_default();
        let presented = self.headers.presented(head, &peer).map_err(|error| invalid(error.to_string()))?;
        let credential = presented.as_ref().map(|presented| presented.credential.clone());
        let caller = presented.map_or(Caller::Anonymous, Caller::Credential);
        let mut call = AuthorizeCall::new(caller, found.action, resource);
        (call.via, call.context) = (Via::Layer, self.context(head, &peer, context).into());
        let answer = pinned.authorize(call).await.map_err(|error| failed(&error))?;
        let status = answer::status_of(answer.code(), StatusCode::FORBIDDEN);
        let retry_after = answer::retry_after_of(status, answer.retry_after_seconds());
        let refused = || Refused::decided(status, answer.to_json(), retry_after);
        if let AnswerResult::Refused { refusal, .. } = &answer.result {
            let stale = credential.is_some_and(|credential| answer::is_stale(refusal, &credential));
            // If a provider is unavailable, the caller cannot authenticate in another way, so no challenge is sent.
            let challenges = match status {
                StatusCode::UNAUTHORIZED => {
                    answer::challenges(self.engine.pdp().authenticators(), stale, pinned.facts().now)
                }
                _ => Vec::new(),
            };
            return Err(Refused { challenges, ..refused() });
        }
        if !answer.is_permit() {
            return Err(refused());
        }
        match (answer.identity, answer.result) {
            (Some(identity), AnswerResult::One(decision)) => Ok((identity, decision)),
            // INVARIANT: a credential about one resource is refused, or decided with its identity.
            _ => Err(failed(&PdpError::Panicked)),
        }
    }

    /// The context of a request, with its method, path and address where the map does not set them.
    fn context(&self, head: &Parts, peer: &Peer, mut context: Map<String, Value>) -> Map<String, Value> {
        if self.tells {
            let address = peer.address.map(|address| address.to_canonical().to_string());
            let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
            for (name, value) in [("method", Some(method)), ("path", Some(path)), ("ip", address)] {
                if let Some(value) = value.filter(|_| !context.contains_key(name)) {
                    context.insert(name.to_owned(), Value::String(value));
                }
            }
        }
        context
    }
}

/// The response to a request that could not be decided.
fn failed(error: &PdpError) -> Refused {
    let (status, code) = match error {
        PdpError::Request(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        PdpError::NoBundle => (StatusCode::SERVICE_UNAVAILABLE, "no_bundle"),
        PdpError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    Refused::error(status, code, error.to_string())
}

impl<A> std::fmt::Debug for AuthorizeLayer<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorizeLayer").field("engine", &self.guard.engine).finish_non_exhaustive()
    }
}
