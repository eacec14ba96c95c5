//! The raw form of `tollgate.yaml`: serde reads it, the JSON Schema is generated from it, and [`Raw::apply`] checks it and
//! sets the [`Settings`]. A variable of the environment is read as the same struct with a single member.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::decision_log::{self, DecisionLogSettings};
use super::faults::NodeError;
use super::identity::{self, IdentitySettings};
use super::scalars::{ConfigPath, HOUR, MINUTE, Millis, NodeName, Prefix, Text, Whole};
use super::{Settings, TlsSettings, WebhookSettings, routes};
use crate::edge::files::PublicKey;
use crate::edge::http::{ClientCertificates, HostName, HttpOptions, MAX_ORIGINS, Origin};
use crate::edge::outgoing::Address;
use crate::edge::store::{EvictionCheck, RedisOptions, Secret};
use crate::edge::telemetry::{LogFormat, LogLevel};
use crate::policy::syntax::Located;

/// The configuration of `tollgate serve`. Flags and environment variables override it. Relative paths begin at the
/// directory of the file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(title = "tollgate.yaml")]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    /// The directory of the bundle.
    #[schemars(extend("default" = "policies"))]
    policies: Option<ConfigPath>,
    /// Address and port to listen on. On loopback, decisions need no credential; elsewhere callers must authenticate.
    #[schemars(extend("default" = "127.0.0.1:8181"))]
    listen: Option<Text<SocketAddr>>,
    /// Additional loopback address and port for /health/live and /health/ready, without TLS and without credentials.
    listen_health: Option<Text<SocketAddr>>,
    /// Names that are accepted in `Host` for requests without a credential on an open loopback, in addition to localhost,
    /// *.localhost and addresses of the loopback.
    #[schemars(extend("default" = []))]
    hosts: Option<Vec<Text<HostName>>>,
    cors: RawCors,
    tls: RawTls,
    /// The directory of persistent data: meters, API keys, and the decision log.
    #[schemars(extend("default" = "tollgate-data"))]
    data: Option<ConfigPath>,
    meters: RawMeters,
    /// Whether warnings about a bundle are errors.
    #[schemars(extend("default" = false))]
    strict: Option<bool>,
    /// Whether decisions and reloads need no credential, on any address. Managing keys still needs one.
    #[schemars(extend("default" = false))]
    insecure: Option<bool>,
    limits: RawLimits,
    decisions: RawDecisions,
    validate: RawValidate,
    alerts: RawAlerts,
    reload: RawReload,
    log: RawLog,
    server: RawServer,
    /// Which decisions are recorded, and where. Default: forbids, in files below the data directory.
    decision_log: Option<Located<decision_log::Raw>>,
    /// How callers and principals authenticate.
    identity: Option<Located<identity::Raw>>,
    /// The action and resource of a gateway's requests, by method and path; the first matching route is used. Default: the
    /// paths of OpenAI, Anthropic, Azure, Gemini and Bedrock.
    routes: Option<Located<Vec<Located<routes::Raw>>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawCors {
    /// Origins whose web pages may read answers, as browsers send them: `https://console.example.com`. `*` stands for
    /// all, where every caller needs a credential.
    #[schemars(extend("default" = [], "maxItems" = MAX_ORIGINS))]
    origins: Option<Located<Vec<Text<Origin>>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawTls {
    /// The server's certificate and its intermediate certificates, in PEM. With it, the listener accepts TLS only.
    certificate_file: Option<ConfigPath>,
    /// The key of that certificate, in PEM.
    key_file: Option<ConfigPath>,
    /// The certificate authorities of clients, in PEM.
    client_ca_file: Option<ConfigPath>,
    /// Whether client certificates are requested: off, optional, or required.
    #[schemars(extend("default" = "off"))]
    client_certificates: Option<Text<ClientCertificates>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawMeters {
    /// Whether meters are only in memory, and are lost when the process ends.
    #[schemars(extend("default" = false))]
    in_memory: Option<bool>,
    redis: RawRedis,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawRedis {
    /// The Redis that stores the meters of several nodes: redis:// or, with TLS, rediss://, with user and password if the
    /// server needs them. For a cluster, several URLs separated by commas.
    url: Option<Text<Secret>>,
    /// Whether that Redis is a cluster.
    #[schemars(extend("default" = false))]
    cluster: Option<bool>,
    /// Timeout for an answer of that Redis; after it, the `on_store_error` of each limit decides.
    #[schemars(extend("default" = 500))]
    timeout_ms: Option<Millis<5, MINUTE>>,
    /// The prefix of all keys in that Redis, in braces, so that a cluster stores them in one slot.
    #[schemars(extend("default" = "tollgate"))]
    prefix: Option<Text<Prefix>>,
    /// How to ensure that this Redis evicts no keys when it is full: Tollgate checks it with INFO and CONFIG GET
    /// (checked), or the operator does, if neither may be run (checked_elsewhere).
    #[schemars(extend("default" = "checked"))]
    eviction: Option<Text<EvictionCheck>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawLimits {
    /// Maximum length of a request body.
    #[schemars(extend("default" = 2 * 1024 * 1024))]
    body_bytes: Option<Whole<1024, { 1 << 30 }>>,
    /// Maximum number of requests in a batch.
    #[schemars(extend("default" = 1000))]
    batch: Option<Whole<1, 1_000_000>>,
    /// Maximum length of a request's head.
    #[schemars(extend("default" = 32 * 1024))]
    header_bytes: Option<Whole<1024, { 1 << 20 }>>,
    /// Maximum number of connections; others wait to be accepted.
    #[schemars(extend("default" = 10_000))]
    connections: Option<Whole<1, 1_000_000>>,
    /// Maximum number of open reservations of one principal.
    #[schemars(extend("default" = 10_000))]
    open_reservations_per_principal: Option<Whole<1, 1_000_000_000>>,
    /// Timeout for receiving the head of a request.
    #[schemars(extend("default" = 10_000))]
    header_timeout_ms: Option<Millis<10, { 10 * MINUTE }>>,
    /// Timeout for receiving the body of a request.
    #[schemars(extend("default" = 10_000))]
    body_timeout_ms: Option<Millis<10, { 10 * MINUTE }>>,
    /// Time after which an idle connection is closed.
    #[schemars(extend("default" = 75_000))]
    idle_timeout_ms: Option<Millis<10, { 24 * HOUR }>>,
    /// Time that requests in flight have to finish when the server stops.
    #[schemars(extend("default" = 10_000))]
    shutdown_ms: Option<Millis<0, { 10 * MINUTE }>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawDecisions {
    /// How a request without `reserve` is answered: as a check (asked), or with a reservation of the usage in its context
    /// (auto).
    #[schemars(extend("default" = "asked"))]
    reserve: Option<RawReserve>,
    /// The HTTP status of a forbid by an exhausted budget, if the caller asks for `status=map`.
    #[schemars(extend("default" = 403))]
    budget_status: Option<Whole<400, 499>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum RawReserve {
    Asked,
    Auto,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawValidate {
    /// Whether every call of POST /v1/auth/validate is a decision, as with `"authorize": true` in it.
    #[schemars(extend("default" = false))]
    authorize: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawAlerts {
    webhook: RawWebhook,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawWebhook {
    /// The URL to which alerts are posted: https, or http on this machine.
    url: Option<Text<Address>>,
    /// The file of the secret that alerts are signed with. Default: the value of TOLLGATE_ALERTS_WEBHOOK_SECRET.
    secret_file: Option<ConfigPath>,
    /// The name of this server in alerts. Default: the name of the machine.
    node: Option<Text<NodeName>>,
    /// Maximum number of attempts to send an alert.
    #[schemars(extend("default" = 8))]
    attempts: Option<Whole<1, 100>>,
    /// The pause after the first attempt; each one after that is twice as long, up to five minutes.
    #[schemars(extend("default" = 1000))]
    pause_ms: Option<Millis<1, { 5 * MINUTE }>>,
    /// Timeout of an attempt.
    #[schemars(extend("default" = 10_000))]
    timeout_ms: Option<Millis<10, { 5 * MINUTE }>>,
    /// Maximum number of queued alerts. If the queue is full, the oldest one is dropped and counted.
    #[schemars(extend("default" = 1000))]
    queue: Option<Whole<1, 1_000_000>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawReload {
    /// Whether a reload that removes many rules, or newly permits every principal, waits for an acknowledgement.
    #[schemars(extend("default" = false))]
    guard: Option<bool>,
    /// The interval between two reads of the bundle's directory.
    #[schemars(extend("default" = 500))]
    look_every_ms: Option<Millis<50, MINUTE>>,
    manifest: RawManifest,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawManifest {
    /// Whether a bundle must have a manifest.
    #[schemars(extend("default" = false))]
    required: Option<bool>,
    /// Ed25519 public keys in base64. If there are any, a bundle must be signed by one of them.
    #[schemars(extend("default" = []))]
    public_keys: Option<Vec<Text<PublicKey>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawLog {
    /// Format of the log: text for people, json for collectors. Default: text if stderr is a terminal, otherwise json.
    format: Option<Text<LogFormat>>,
    /// The least severe level that is logged.
    #[schemars(extend("default" = "info"))]
    level: Option<Text<LogLevel>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default, deny_unknown_fields)]
struct RawServer {
    /// Number of threads that serve requests; 0 for one per core.
    #[schemars(extend("default" = 0))]
    workers: Option<Whole<0, 1024>>,
}

impl Raw {
    /// Sets every setting that is written; the others stay unchanged. Returns the errors of the sections that have checks
    /// across their members.
    pub(super) fn apply(self, settings: &mut Settings) -> Vec<NodeError> {
        set(&mut settings.policies, self.policies.map(path));
        set(&mut settings.data, self.data.map(path));
        set(&mut settings.http.listen, self.listen.map(text));
        set(&mut settings.listen_health, self.listen_health.map(text).map(Some));
        set(&mut settings.http.hosts, self.hosts.map(texts));
        set(&mut settings.strict, self.strict);
        set(&mut settings.insecure, self.insecure);
        set(&mut settings.http.reserves, self.decisions.reserve.map(|reserve| reserve == RawReserve::Auto));
        set(&mut settings.http.budget_status, self.decisions.budget_status.map(Whole::as_usize));
        set(&mut settings.http.validate_authorizes, self.validate.authorize);
        set(&mut settings.log.format, self.log.format.map(text).map(Some));
        set(&mut settings.log.level, self.log.level.map(text));
        set(&mut settings.workers, self.server.workers.map(Whole::as_usize));
        self.tls.apply(&mut settings.tls);
        set(&mut settings.meters_in_memory, self.meters.in_memory);
        self.meters.redis.apply(&mut settings.redis);
        self.limits.apply(settings);
        self.alerts.webhook.apply(&mut settings.webhook);
        self.reload.apply(settings);
        let mut errors = Vec::new();
        let mut checked = |result: Result<(), NodeError>| errors.extend(result.err());
        checked(self.cors.apply(&mut settings.http));
        if let Some(raw) = self.decision_log {
            checked(DecisionLogSettings::checked(raw).map(|log| settings.decision_log = log));
        }
        if let Some(raw) = self.identity {
            checked(IdentitySettings::checked(raw.value).map(|identity| settings.identity = identity));
        }
        if let Some(raw) = self.routes {
            checked(routes::checked(raw).map(|routes| settings.http.routes = routes));
        }
        errors
    }
}

impl RawCors {
    fn apply(self, http: &mut HttpOptions) -> Result<(), NodeError> {
        let Some(Located { value: origins, place }) = self.origins else { return Ok(()) };
        if origins.len() > MAX_ORIGINS {
            return Err(NodeError::of_setting(
                "cors.origins",
                place,
                format!("expected at most {MAX_ORIGINS} origins"),
            ));
        }
        http.origins = texts(origins);
        Ok(())
    }
}

impl RawTls {
    fn apply(self, tls: &mut TlsSettings) {
        set(&mut tls.certificate_file, self.certificate_file.map(path).map(Some));
        set(&mut tls.key_file, self.key_file.map(path).map(Some));
        set(&mut tls.client_ca_file, self.client_ca_file.map(path).map(Some));
        set(&mut tls.client_certificates, self.client_certificates.map(text));
    }
}

impl RawRedis {
    fn apply(self, redis: &mut RedisOptions) {
        set(&mut redis.url, self.url.map(text));
        set(&mut redis.cluster, self.cluster);
        set(&mut redis.timeout, self.timeout_ms.map(|timeout| timeout.0));
        set(&mut redis.prefix, self.prefix.map(|prefix| prefix.0.0));
        set(&mut redis.eviction, self.eviction.map(text));
    }
}

impl RawLimits {
    fn apply(self, settings: &mut Settings) {
        set(&mut settings.most_open, self.open_reservations_per_principal.map(Whole::as_usize));
        let http = &mut settings.http;
        set(&mut http.body_bytes, self.body_bytes.map(Whole::as_usize));
        set(&mut http.batch, self.batch.map(Whole::as_usize));
        set(&mut http.header_bytes, self.header_bytes.map(Whole::as_usize));
        set(&mut http.connections, self.connections.map(Whole::as_usize));
        set(&mut http.header_timeout, self.header_timeout_ms.map(|timeout| timeout.0));
        set(&mut http.body_timeout, self.body_timeout_ms.map(|timeout| timeout.0));
        set(&mut http.idle_timeout, self.idle_timeout_ms.map(|timeout| timeout.0));
        set(&mut http.shutdown_timeout, self.shutdown_ms.map(|timeout| timeout.0));
    }
}

impl RawWebhook {
    fn apply(self, webhook: &mut WebhookSettings) {
        set(&mut webhook.url, self.url.map(text).map(Some));
        set(&mut webhook.secret_file, self.secret_file.map(path).map(Some));
        set(&mut webhook.node, self.node.map(|name| name.0.0));
        set(&mut webhook.attempts, self.attempts.map(Whole::as_usize));
        set(&mut webhook.pause, self.pause_ms.map(|pause| pause.0));
        set(&mut webhook.timeout, self.timeout_ms.map(|timeout| timeout.0));
        set(&mut webhook.queue, self.queue.map(Whole::as_usize));
    }
}

impl RawReload {
    fn apply(self, settings: &mut Settings) {
        set(&mut settings.guard, self.guard);
        set(&mut settings.look_every, self.look_every_ms.map(|pause| pause.0));
        set(&mut settings.manifest_required, self.manifest.required);
        set(&mut settings.public_keys, self.manifest.public_keys.map(texts));
    }
}

fn set<T>(setting: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *setting = written;
    }
}

fn path(path: ConfigPath) -> std::path::PathBuf {
    path.0
}

fn text<T>(text: Text<T>) -> T {
    text.0
}

fn texts<T>(texts: Vec<Text<T>>) -> Vec<T> {
    texts.into_iter().map(text).collect()
}
