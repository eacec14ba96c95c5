//! The settings of the HTTP server, as the configuration hands them over.

use std::net::SocketAddr;
use std::time::Duration;

use super::cors::Origin;
use super::host::HostName;
use crate::edge::identity::CredentialHeaders;
use crate::gate::RouteMap;

/// The settings of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent switch")]
pub struct HttpOptions {
    /// The address to listen on; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Whether callers need no credential.
    pub open: bool,
    /// Whether access depends only on the loopback address. A request without a credential then needs a local `Host`,
    /// so that no web page reaches the server through DNS rebinding.
    pub checks_host: bool,
    /// Names in `Host` that are accepted in addition to those of the loopback.
    pub hosts: Vec<HostName>,
    /// Origins whose pages may read answers. With none, no response has a header of CORS.
    pub origins: Vec<Origin>,
    /// The actions and resources of gateway requests that are described by method and path.
    pub routes: RouteMap,
    /// Whether each call of `POST /v1/auth/validate` is authorized, even if it does not ask for that.
    pub validate_authorizes: bool,
    /// The headers that may hold the credential of a caller.
    pub credential_headers: CredentialHeaders,
    /// The longest body, in bytes.
    pub body_bytes: usize,
    /// The most requests in a batch.
    pub batch: usize,
    /// The longest request head, in bytes.
    pub header_bytes: usize,
    /// The most connections. Others wait, except those with a health check.
    pub connections: usize,
    /// How long the head of a request may take to arrive.
    pub header_timeout: Duration,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// How long a connection may stay idle.
    pub idle_timeout: Duration,
    /// How long requests in flight may take to finish when the server stops.
    pub shutdown_timeout: Duration,
    /// How long `POST /bundle/reload` waits for the reload.
    pub reload_timeout: Duration,
    /// Whether a request without `reserve` reserves.
    pub reserves: bool,
    /// The status of an exceeded budget for callers that read only the status.
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

/// The meaning of an absent `reserve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// The request only checks.
    Checks,
    /// The request reserves the usage that its context describes, as with `true`.
    Reserves,
}
