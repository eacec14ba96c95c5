//! The accept loop: as many connections as are allowed, each within its times, until somebody says stop.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::app::App;
use super::body::BodyLimits;
use super::caller::Peer;
use super::cors::{self, Origin};
use super::errors::{ApiError, ErrorCode};
use super::host::HostName;
use super::keys::{self, KeyDesk};
use super::pace::{Pace, Paced, Times};
use super::passwords::PasswordDesk;
use super::router::{AnyResponse, Routes};
use super::seats::{Admission, HURRY, Seat, Seats};
use super::tls::Tls;
use crate::edge::identity::CredentialHeaders;
use crate::edge::outgoing::Outbox;
use crate::engine::Engine;
use crate::gate::{RouteMap, Tokens};

/// After an error that will not go away by itself (no file descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The least that hyper takes for a connection's buffer.
const LEAST_BUFFER_BYTES: usize = 64 * 1024;

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent switch")]
pub struct HttpOptions {
    /// Where to listen; port 0 for any that is free.
    pub listen: SocketAddr,
    /// Whether whoever reaches the address may ask, without a credential.
    pub open: bool,
    /// Whether access depends only on the loopback address. A request without a credential then needs a local `Host`,
    /// so that no web page reaches the server through DNS rebinding.
    pub checks_host: bool,
    /// Names in `Host` that are accepted in addition to those of the loopback.
    pub hosts: Vec<HostName>,
    /// Origins whose pages may read answers. With none, no response has a header of CORS.
    pub origins: Vec<Origin>,
    /// What requests of gateways ask for, where they are told by path and method.
    pub routes: RouteMap,
    /// Whether every call of `POST /v1/auth/validate` is decided.
    pub validate_authorizes: bool,
    /// Which headers hold a caller's credential.
    pub credential_headers: CredentialHeaders,
    /// Longest body.
    pub body_bytes: usize,
    /// Most requests of a batch.
    pub batch: usize,
    /// Longest head of a request.
    pub header_bytes: usize,
    /// Most connections; others wait, but for those that ask for the server's health.
    pub connections: usize,
    /// For the head of a request to come.
    pub header_timeout: Duration,
    /// For its body.
    pub body_timeout: Duration,
    /// For which a connection may lie idle.
    pub idle_timeout: Duration,
    /// For requests in flight to finish when the server stops.
    pub shutdown_timeout: Duration,
    /// For which `POST /bundle/reload` waits.
    pub reload_timeout: Duration,
    /// Whether a question that says nothing about `reserve` reserves.
    pub reserves: bool,
    /// The status that tells a budget without room to a caller that looks at the status alone.
    pub budget_status: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8181)),
            open: true,
            checks_host: true,
            hosts: Vec::new(),
            origins: Vec::new(),
            routes: RouteMap::default(),
            validate_authorizes: false,
            credential_headers: CredentialHeaders::default(),
            body_bytes: 2 * 1024 * 1024,
            batch: 1_000,
            header_bytes: 32 * 1024,
            connections: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            shutdown_timeout: Duration::from_secs(10),
            reload_timeout: Duration::from_secs(30),
            reserves: false,
            budget_status: 403,
        }
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every request in flight was answered.
    Finished,
    /// Some were not, in the time there was.
    Cut,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    routes: Routes,
    options: HttpOptions,
    tls: Option<Arc<Tls>>,
    health: Option<TcpListener>,
}

impl Server {
    /// Listens. What an `engine` decides is answered from [`Server::run`] on.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn bind(engine: Engine, options: HttpOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let body = BodyLimits { bytes: options.body_bytes, timeout: options.body_timeout };
        let app = Arc::new(App::new(engine, body, &options));
        Ok(Self { listener, routes: Routes::new(app), options, tls: None, health: None })
    }

    /// Answers `/health/*` on `address` too, without TLS and without credentials.
    ///
    /// # Errors
    /// Where that cannot be listened on.
    pub async fn with_health(self, address: SocketAddr) -> io::Result<Self> {
        Ok(Self { health: Some(TcpListener::bind(address).await?), ..self })
    }

    /// Where it answers health checks alone, if it does.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Speaks TLS alone.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(Arc::new(tls)), ..self }
    }

    /// Lets keys be managed.
    #[must_use]
    pub fn with_keys(self, desk: KeyDesk) -> Self {
        // There is one at most, and a second one would not be asked.
        let _first = self.routes.app().keys.set(desk);
        self
    }

    /// Lets passwords be set, by whoever may make keys: [`Server::with_keys`].
    #[must_use]
    pub fn with_passwords(self, desk: PasswordDesk) -> Self {
        // There is one at most, and a second one would not be asked.
        let _first = self.routes.app().passwords.set(desk);
        self
    }

    /// Counts what becomes of alerts, for `/metrics`.
    #[must_use]
    pub fn with_outbox(self, outbox: Arc<Outbox>) -> Self {
        // There is one at most, and a second one would not be counted.
        let _first = self.routes.app().outbox.set(outbox);
        self
    }

    /// Hands out tokens of Tollgate's own.
    #[must_use]
    pub fn with_tokens(self, tokens: Arc<dyn Tokens>) -> Self {
        // There is one at most.
        let _first = self.routes.app().tokens.set(tokens);
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready; then nobody new is let in, and those in flight finish.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Stopped {
        let seats = Seats::new(self.options.connections);
        let (stopping, told) = watch::channel(false);
        let options = Arc::new(self.options.clone());
        let app = self.routes.app();
        let orphans = app.keys.get().map(|desk| keys::orphans::follow(desk.clone(), app.engine.clone()));
        let _orphans = orphans.map(|orphans| Following(tokio::spawn(orphans)));
        let _following = self.tls.clone().map(|tls| Following(tokio::spawn(tls.follow())));
        let checks = (self.routes.clone(), Arc::clone(&options), told.clone());
        let _checked = self.health.map(|listener| Following(tokio::spawn(answer_health(listener, checks))));
        let mut stop = pin!(stop);
        loop {
            let next = next(&self.listener, &seats);
            let mut next = pin!(next);
            let accepted = poll_fn(|cx| {
                if stop.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                next.as_mut().poll(cx).map(Some)
            });
            let Some((stream, address, seat)) = accepted.await else { break };
            let (routes, options, told) = (self.routes.clone(), Arc::clone(&options), told.clone());
            let tls = self.tls.clone();
            tokio::spawn(async move {
                let _slower_without = stream.set_nodelay(true);
                // A dual-stack socket shows an IPv4 client as an IPv4-mapped address.
                let peer = Peer { address: Some(address.ip().to_canonical()), certificates: None };
                let serving = Serving { routes: &routes, options: &options, seat: &seat };
                match tls {
                    None => connection(stream, peer, &serving, Ending::new(told)).await,
                    Some(tls) => encrypted(&tls, stream, peer, &serving, told).await,
                }
            });
        }
        drop(self.listener);
        let _nobody_left = stopping.send(true);
        drop(told);
        match timeout(self.options.shutdown_timeout, stopping.closed()).await {
            Ok(()) => Stopped::Finished,
            Err(_) => Stopped::Cut,
        }
    }
}

/// The next connection, once there is a place for it.
async fn next(listener: &TcpListener, seats: &Arc<Seats>) -> (TcpStream, SocketAddr, Seat) {
    loop {
        let seat = seats.next().await;
        match listener.accept().await {
            Ok((stream, address)) => {
                seat.move_up();
                return (stream, address, seat);
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Answers health checks until it is dropped.
async fn answer_health(
    listener: TcpListener,
    (routes, options, told): (Routes, Arc<HttpOptions>, watch::Receiver<bool>),
) {
    let seats = Seats::for_health();
    while let Some(seat) = seats.next_for_health().await {
        let Ok((stream, address)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (routes, options, told) = (routes.clone(), Arc::clone(&options), told.clone());
        tokio::spawn(async move {
            let peer = Peer { address: Some(address.ip().to_canonical()), certificates: None };
            let serving = Serving { routes: &routes, options: &options, seat: &seat };
            connection(stream, peer, &serving, Ending::new(told)).await;
        });
    }
}

/// The settings and state with which a connection is served.
struct Serving<'a> {
    routes: &'a Routes,
    options: &'a HttpOptions,
    seat: &'a Seat,
}

impl Serving<'_> {
    /// Answers a request, if there is room for it.
    async fn answer(&self, request: Request<Incoming>, peer: &Peer, pace: &Pace) -> AnyResponse {
        let origins = &self.options.origins;
        if origins.is_empty() {
            return self.answer_any(request, peer, pace).await;
        }
        let origin = cors::allowed(origins, request.headers());
        let mut response = self.answer_any(request, peer, pace).await;
        cors::mark(response.headers_mut(), origin);
        response
    }

    async fn answer_any(&self, request: Request<Incoming>, peer: &Peer, pace: &Pace) -> AnyResponse {
        let is_health = request.uri().path().starts_with("/health/");
        let admission = self.seat.admit(is_health, self.options.header_timeout).await;
        let Ok(mut response) = match admission {
            Admission::Anything => {
                pace.relax();
                return self.answered(request, peer).await;
            }
            Admission::HealthOnce => self.routes.answer(request, peer).await,
            Admission::Health if is_health => self.routes.answer(request, peer).await,
            Admission::Health => Ok(self.routes.refuse(&not_health())),
            Admission::Nothing => Ok(self.routes.refuse(&no_room())),
        };
        if admission != Admission::Health {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answered(&self, request: Request<Incoming>, peer: &Peer) -> AnyResponse {
        let Ok(response) = self.routes.answer(request, peer).await;
        response
    }
}

fn not_health() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "only /health/live and /health/ready are answered here")
}

fn no_room() -> ApiError {
    let message = "the maximum number of connections (`limits.connections`) is open";
    ApiError { retry_after_seconds: Some(1), ..ApiError::new(ErrorCode::Unavailable, message) }
}

/// Keeps a task for as long as it is there.
struct Following(tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves a connection that begins with a handshake; where that fails there is nobody to tell.
async fn encrypted(tls: &Tls, stream: TcpStream, peer: Peer, serving: &Serving<'_>, told: watch::Receiver<bool>) {
    // Before the handshake, so that no change is missed.
    let taken = tls.taken();
    let usual = serving.options.header_timeout;
    let within = if serving.seat.hurries() { usual.min(HURRY) } else { usual };
    let Some(stream) = tls.accept(stream, within).await else {
        return serving.routes.app().metrics.handshake_failed();
    };
    let shown = stream.get_ref().1.peer_certificates();
    let certificates = shown.map(|all| all.iter().map(|one| Box::from(one.as_ref())).collect());
    let ending = Ending { told, taken: certificates.is_some().then_some(taken) };
    connection(stream, Peer { certificates, ..peer }, serving, ending).await;
}

/// What ends a connection once its request is answered.
struct Ending {
    /// The server stops.
    told: watch::Receiver<bool>,
    /// Those who vouched for the client may do so no longer.
    taken: Option<watch::Receiver<u64>>,
}

impl Ending {
    fn new(told: watch::Receiver<bool>) -> Self {
        Self { told, taken: None }
    }

    /// Waits for either. Who waits is counted until it is dropped, not until this is over.
    async fn wait(&mut self) {
        let mut stopping = pin!(self.told.wait_for(|stopping| *stopping));
        let mut taken = pin!(async {
            match &mut self.taken {
                Some(taken) => drop(taken.changed().await),
                None => std::future::pending().await,
            }
        });
        poll_fn(|cx| {
            let over = stopping.as_mut().poll(cx).is_ready() || taken.as_mut().poll(cx).is_ready();
            if over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Serves one connection to its end.
async fn connection<S>(stream: S, peer: Peer, served: &Serving<'_>, mut ending: Ending)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let options = served.options;
    let times = Times { head: options.header_timeout, idle: options.idle_timeout };
    let pace = Pace::new(times, (served.seat.hurries(), HURRY));
    let service = service_fn(|request: Request<Incoming>| {
        pace.request_began();
        let (pace, peer) = (&pace, &peer);
        async move {
            let response = served.answer(request, peer, pace).await;
            pace.answered();
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(Paced { stream, pace: &pace });
    let mut builder = http1::Builder::new();
    builder
        .max_header_size(options.header_bytes)
        .max_buf_size(options.header_bytes.max(LEAST_BUFFER_BYTES))
        .header_read_timeout(None);
    let mut serving = pin!(builder.serve_connection(io, service));
    let mut over = pin!(ending.wait());
    let mut timer = pin!(sleep(options.header_timeout));
    let mut ends = false;
    poll_fn(|cx| {
        if !ends && over.as_mut().poll(cx).is_ready() {
            ends = true;
            serving.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(ended) = serving.as_mut().poll(cx) {
            // A malformed request was answered before it reached a route. After any other end the connection has no
            // client left.
            if let Some(status) = ended.err().as_ref().and_then(answered_unseen) {
                served.routes.app().metrics.responded(status);
            }
            return Poll::Ready(());
        }
        pace.poll_late(timer.as_mut(), cx)
    })
    .await;
}

/// The status that hyper answered with, where it could not read the head of a request.
fn answered_unseen(error: &hyper::Error) -> Option<StatusCode> {
    match error {
        error if error.is_parse_too_large() => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        error if error.is_parse() => Some(StatusCode::BAD_REQUEST),
        _ => None,
    }
}
