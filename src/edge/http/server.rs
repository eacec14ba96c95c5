//! The accept loop: as many connections as are allowed, each within its times, until somebody says stop.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
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
use super::caller::Peer;
use super::cors;
use super::errors::{ApiError, ErrorCode};
use super::keys;
use super::options::HttpOptions;
use super::pace::{Pace, Paced, Times};
use super::router::{AnyResponse, Routes};
use super::seats::{Admission, HURRY, Seat, Seats};
use super::services::Services;
use super::tls::Tls;
use crate::edge::telemetry::metrics::{Bound, Unit};

/// After an error that will not go away by itself (no file descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The least that hyper takes for a connection's buffer.
const LEAST_BUFFER_BYTES: usize = 64 * 1024;

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
    /// Listens on the address of `options`. Connections are accepted once [`Server::run`] is called.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn bind(services: Services, options: HttpOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let app = Arc::new(App::new(services, &options));
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
        let (pool, limit) = (Arc::clone(&seats), self.options.connections);
        let used = Box::new(move || pool.open());
        self.routes.app().metrics.bound(Bound { name: "connections", unit: Unit::Permits, limit, used });
        let (stopping, told) = watch::channel(false);
        let options = Arc::new(self.options.clone());
        let app = self.routes.app();
        let orphans = app.keys.as_ref().map(|service| keys::orphans::follow(service.clone(), app.engine.clone()));
        let _orphans = orphans.map(|orphans| Following(tokio::spawn(orphans)));
        let _following = self.tls.clone().map(|tls| Following(tokio::spawn(tls.follow())));
        let checks = |listener| answer_health(listener, self.routes.clone(), Arc::clone(&options), told.clone());
        let _checked = self.health.map(|listener| Following(tokio::spawn(checks(listener))));
        let mut stop = pin!(stop);
        loop {
            let (stream, address, seat) = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = next(&self.listener, &seats) => accepted,
            };
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
                seat.accepted();
                return (stream, address, seat);
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Answers health checks until it is dropped.
async fn answer_health(listener: TcpListener, routes: Routes, options: Arc<HttpOptions>, told: watch::Receiver<bool>) {
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
    /// Answers a request, with the headers of CORS if any origin is configured.
    async fn answer(&self, request: Request<Incoming>, peer: &Peer, pace: &Pace) -> AnyResponse {
        let origins = &self.options.origins;
        if origins.is_empty() {
            return self.answer_if_room(request, peer, pace).await;
        }
        let origin = cors::allowed(origins, request.headers());
        let mut response = self.answer_if_room(request, peer, pace).await;
        cors::mark(response.headers_mut(), origin);
        response
    }

    async fn answer_if_room(&self, request: Request<Incoming>, peer: &Peer, pace: &Pace) -> AnyResponse {
        let is_health = request.uri().path().starts_with("/health/");
        let admission = self.seat.admit(is_health, self.options.header_timeout).await;
        let mut response = match admission {
            Admission::Anything => {
                pace.relax();
                return self.routes.answer(request, peer).await;
            }
            Admission::HealthOnce => self.routes.answer(request, peer).await,
            Admission::Health if is_health => self.routes.answer(request, peer).await,
            Admission::Health => self.routes.refuse(&not_health()),
            Admission::Nothing => self.routes.refuse(&no_room()),
        };
        if admission != Admission::Health {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
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
        let taken = async {
            match &mut self.taken {
                Some(taken) => drop(taken.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.told.wait_for(|stopping| *stopping) => {}
            () = taken => {}
        }
    }
}

/// Serves one connection to its end.
async fn connection<S>(stream: S, peer: Peer, served: &Serving<'_>, mut ending: Ending)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let options = served.options;
    let times = Times { head: options.header_timeout, idle: options.idle_timeout };
    let pace = Pace::new(times, served.seat.hurries(), HURRY);
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
    loop {
        // Biased: a request that is complete is answered before its deadline is looked at.
        let ended = tokio::select! {
            biased;
            () = &mut over, if !ends => {
                ends = true;
                serving.as_mut().graceful_shutdown();
                continue;
            }
            ended = &mut serving => ended,
            () = poll_fn(|cx| pace.poll_late(timer.as_mut(), cx)) => return,
        };
        // A malformed request was answered before it reached a route. After any other end the connection has no client left.
        if let Some(status) = ended.err().as_ref().and_then(answered_unseen) {
            served.routes.app().metrics.responded(status);
        }
        return;
    }
}

/// The status that hyper answered with, where it could not read the head of a request.
fn answered_unseen(error: &hyper::Error) -> Option<StatusCode> {
    match error {
        error if error.is_parse_too_large() => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        error if error.is_parse() => Some(StatusCode::BAD_REQUEST),
        _ => None,
    }
}
