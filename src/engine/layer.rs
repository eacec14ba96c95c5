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

use super::{Engine, EngineError};
use crate::edge::answer::{self, About};
use crate::edge::identity::CredentialHeaders;
use crate::gate::{self, Authorized, Decided, DecisionId, DecisionRecord, Found, Peer, RouteMap, Unproved, Via};
use crate::model::{Decision, EntityUid, Facts, Identity, Refusal, RefusalReason, RequestPath, masked};
use crate::policy::Snapshot;

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

/// The action and the resource of a request, looked up in the bundle.
struct Resolved {
    action: SmolStr,
    resource: EntityUid,
    context: Map<String, Value>,
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
        let unavailable = || Refused::error(StatusCode::SERVICE_UNAVAILABLE, "no_bundle", "no bundle is active yet");
        let snapshot = self.engine.snapshot().ok_or_else(unavailable)?;
        let unknown = || {
            let message = "nothing says what this request asks for, so nobody may ask it";
            Refused::error(StatusCode::FORBIDDEN, "forbidden", message)
        };
        let invalid = |message: String| Refused::error(StatusCode::BAD_REQUEST, "invalid_request", message);
        RequestPath::parse(head.uri.path()).map_err(|error| invalid(error.to_string()))?;
        let Asked { found, context } = self.asks.asked(head).ok_or_else(unknown)?;
        let resource = found.resource(&snapshot).map_err(|error| invalid(error.to_string()))?;
        let asked = Resolved { action: found.action, resource, context };
        let peer = head.extensions.get::<Peer>().cloned().unwrap_or_default();
        let presented = self.headers.presented(head, &peer).map_err(|error| invalid(error.to_string()))?;
        let facts = self.engine.facts();
        let proved = match &presented {
            Some(presented) => self.engine.authenticate_by(presented, &snapshot, facts.now).await,
            None => Err(Refusal::new(RefusalReason::NotRecognized, "this takes a credential")),
        };
        let identity = proved.map_err(|refusal| {
            let stale = presented.is_some_and(|presented| answer::is_stale(&refusal, &presented.credential));
            let refused = self.refused((&snapshot, &facts), &asked, &refusal);
            // If the provider is unavailable, the caller cannot authenticate in another way, so no challenge is sent.
            let challenges = match refused.status {
                StatusCode::UNAUTHORIZED => answer::challenges(self.engine.authenticators(), stale, facts.now),
                _ => Vec::new(),
            };
            Refused { challenges, ..refused }
        })?;
        let (id, decision) = self.decide((&snapshot, &facts), &identity, self.told(head, &peer, asked)).await?;
        if decision.is_permit() { Ok((identity, decision)) } else { Err(Self::forbidden(id, &decision)) }
    }

    /// With what the request says of itself, where the map does not.
    fn told(&self, head: &Parts, peer: &Peer, mut asked: Resolved) -> Resolved {
        if self.tells {
            let address = peer.address.map(|address| address.to_canonical().to_string());
            let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
            for (name, value) in [("method", Some(method)), ("path", Some(path)), ("ip", address)] {
                if let Some(value) = value.filter(|_| !asked.context.contains_key(name)) {
                    asked.context.insert(name.to_owned(), Value::String(value));
                }
            }
        }
        asked
    }

    async fn decide(
        &self,
        (snapshot, facts): (&Snapshot, &Facts),
        identity: &Arc<Identity>,
        asked: Resolved,
    ) -> Result<(DecisionId, Decision), Refused> {
        let Resolved { action, resource, context } = asked;
        let request = crate::model::Request::proved(Arc::clone(identity), action, resource).with_context(context);
        let wrong = |error| {
            let error = EngineError::Request(error);
            Refused::error(StatusCode::BAD_REQUEST, "invalid_request", error.to_string())
        };
        let world = self.engine.world(snapshot, facts);
        let (decision, seen) = if gate::has_limits(snapshot, Some(&**identity)) {
            let Authorized { decision, seen, .. } = gate::authorize(world, &request, None).await.map_err(wrong)?;
            (decision, seen)
        } else {
            (gate::decide(snapshot, facts, &request).map_err(wrong)?, Vec::new())
        };
        let id = self.engine.next_decision();
        let decided = Decided::One(&request, &decision);
        self.engine.record(&DecisionRecord::of(id, Via::Layer, world, decided).with_seen(&seen));
        Ok((id, decision))
    }

    fn refused(&self, (snapshot, facts): (&Snapshot, &Facts), asked: &Resolved, refusal: &Refusal) -> Refused {
        let mut text = Vec::new();
        let (action, resource) = (&*asked.action, Some(&asked.resource));
        let id = self.engine.next_decision();
        let unproved = Unproved { action, resource, candidates: None, context: None, refusal };
        let world = self.engine.world(snapshot, facts);
        self.engine.record(&DecisionRecord::of(id, Via::Layer, world, Decided::Refused(unproved)));
        let about = About { action, resource, candidates: None };
        answer::write_refused(&mut text, id, snapshot.revision(), &about, refusal);
        let status = answer::status_of(refusal.reason.code(), StatusCode::FORBIDDEN);
        Refused::decided(status, text, answer::retry_after_of(status, refusal.retry_after_seconds))
    }

    fn forbidden(id: DecisionId, decision: &Decision) -> Refused {
        let mut text = Vec::new();
        answer::write(&mut text, id, decision);
        let status = answer::status_of(decision.code, StatusCode::FORBIDDEN);
        Refused::decided(status, text, answer::retry_after_of(status, decision.retry_after_seconds))
    }
}

impl<A> std::fmt::Debug for AuthorizeLayer<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorizeLayer").field("engine", &self.guard.engine).finish_non_exhaustive()
    }
}
