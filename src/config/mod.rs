//! The configuration of the server: [`Settings`], checked, from `tollgate.yaml`, environment variables and flags. No other
//! module reads the environment.
#![allow(clippy::disallowed_methods, reason = "the environment and the config file are read here and nowhere else")]

mod checkpoints;
mod decision_log;
mod environment;
mod faults;
mod file;
mod identity;
mod node;
mod paths;
mod proxy;
mod raw;
mod routes;
mod scalars;
mod schema;
mod secret_files;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use checkpoints::CheckpointSettings;
pub use decision_log::DecisionLogSettings;
pub(crate) use decision_log::FOLDER as DECISION_LOG_FOLDER;
pub use environment::variables_help;
pub use identity::{
    BasicSettings, DigestSettings, FirstKey, ForwardedCertificates, IdentitySettings, KeySettings, Provider,
    ProviderKind, StaticTokens, TokenSettings,
};
pub use proxy::{ProxyVariableError, proxy};
pub use schema::schema_json;
pub use secret_files::WatchedFile;

use crate::edge::files::{ManifestPolicy, PublicKey, WatchOptions};
use crate::edge::http::{ClientCertificates, HttpOptions, Origin, TlsOptions};
use crate::edge::identity::CredentialHeaders;
use crate::edge::outgoing::{Address, Secret};
use crate::edge::store::RedisOptions;
use crate::edge::telemetry::{LogFormat, LogLevel};
use crate::meter::DEFAULT_MOST_OPEN_OF_PRINCIPAL;
use crate::policy::Problem;

/// Largest config file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The secret that alerts are signed with, where no file has it.
const SECRET_VARIABLE: &str = "TOLLGATE_ALERTS_WEBHOOK_SECRET";
/// The config file that is read, if it is there, where none is named.
const USUAL_FILE: &str = "tollgate.yaml";

/// Everything that can be set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch that somebody sets")]
pub struct Settings {
    /// The directory of the bundle.
    pub policies: PathBuf,
    /// Where what must last is kept.
    pub data: PathBuf,
    /// Whether meters are kept in memory alone, and forgotten with the process.
    pub meters_in_memory: bool,
    /// The Redis that keeps meters for many nodes; none where its address is empty.
    pub redis: RedisOptions,
    /// An additional address for `/health/*`, without TLS. None by default.
    pub listen_health: Option<SocketAddr>,
    /// How many reservations a principal may have open.
    pub most_open: usize,
    /// Whether whoever reaches the server may ask and reload without a credential.
    pub insecure: bool,
    /// Whether warnings about a bundle are errors.
    pub strict: bool,
    /// Whether a reload is held that drops much or newly permits every principal.
    pub guard: bool,
    /// How often the bundle's directory is looked at.
    pub look_every: Duration,
    /// Whether a bundle must have a manifest.
    pub manifest_required: bool,
    /// Who may sign it.
    pub public_keys: Vec<PublicKey>,
    /// Whom alerts are sent to.
    pub webhook: WebhookSettings,
    /// Who may be whom.
    pub identity: IdentitySettings,
    /// Which decisions are recorded, and where.
    pub decision_log: DecisionLogSettings,
    /// The level and format of the log.
    pub log: LogSettings,
    /// Threads that serve; 0 for one a core.
    pub workers: usize,
    /// How to serve.
    pub http: HttpOptions,
    /// Whether that is encrypted.
    pub tls: TlsSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policies: PathBuf::from("policies"),
            data: PathBuf::from("tollgate-data"),
            meters_in_memory: false,
            redis: RedisOptions::new("", "tollgate-data"),
            listen_health: None,
            most_open: DEFAULT_MOST_OPEN_OF_PRINCIPAL,
            insecure: false,
            strict: false,
            guard: false,
            look_every: WatchOptions::default().look_every,
            manifest_required: false,
            public_keys: Vec::new(),
            webhook: WebhookSettings::default(),
            identity: IdentitySettings::default(),
            decision_log: DecisionLogSettings::default(),
            log: LogSettings::default(),
            workers: 0,
            http: HttpOptions::default(),
            tls: TlsSettings::default(),
        }
    }
}

/// The level and format of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The form of a line; left out, text on a terminal and JSON elsewhere.
    pub format: Option<LogFormat>,
    /// The least severe events that are logged.
    pub level: LogLevel,
}

/// TLS on the listener; none without a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The server's certificate.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Who vouches for clients.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
}

impl TlsSettings {
    /// As meant; none where there is no TLS.
    ///
    /// # Errors
    /// What does not go together.
    fn checked(&self) -> Result<Option<TlsOptions>, &'static str> {
        let clients = match (self.client_ca_file.clone(), self.client_certificates) {
            (None, ClientCertificates::Off) => None,
            (Some(authorities), wanted) if wanted != ClientCertificates::Off => Some((authorities, wanted)),
            (None, _) => return Err("tls.client_certificates needs tls.client_ca_file: who vouches for clients"),
            (Some(_), _) => {
                return Err("tls.client_ca_file asks nobody: set tls.client_certificates to optional or required");
            }
        };
        match (self.certificate_file.clone(), self.key_file.clone()) {
            (Some(certificate_file), Some(key_file)) => Ok(Some(TlsOptions { certificate_file, key_file, clients })),
            (None, None) if clients.is_none() => Ok(None),
            _ => Err("TLS needs both tls.certificate_file and tls.key_file"),
        }
    }
}

/// Whom alerts are sent to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where; nowhere, if none is said.
    pub url: Option<Address>,
    /// The file of the secret that they are signed with.
    pub secret_file: Option<PathBuf>,
    /// That secret.
    pub secret: Option<Secret>,
    /// What this server is called in them; the machine's name where nothing is said.
    pub node: String,
    /// How often each is sent at most.
    pub attempts: usize,
    /// The pause after the first attempt; each one after that is twice as long.
    pub pause: Duration,
    /// For an attempt.
    pub timeout: Duration,
    /// How many may wait.
    pub queue: usize,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            url: None,
            secret_file: None,
            secret: None,
            node: String::new(),
            attempts: 8,
            pause: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            queue: 1_000,
        }
    }
}

/// What flags say; each beats the environment, which beats the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--policies`.
    pub policies: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--insecure`.
    pub insecure: bool,
    /// `--strict`.
    pub strict: bool,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// `--log-level`.
    pub log_level: Option<LogLevel>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The config file cannot be read.
    #[error("the config file {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It says what cannot be.
    #[error("{}", crate::policy::report::text(problems, false).trim_end())]
    File {
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
    /// A variable of the environment says what cannot be.
    #[error("{name}: {message}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Refused(String),
}

impl Settings {
    /// The settings of this process.
    ///
    /// # Errors
    /// With everything that is wrong with the config file, or the first thing that is wrong elsewhere.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        Self::from(flags, |name| std::env::var_os(name))
    }

    /// The settings of these flags and this environment.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn from(flags: &Flags, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        let mut data_written = None;
        let named = flags.config.clone().or_else(|| environment("TOLLGATE_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(USUAL_FILE));
        if let Some(text) = read(&path, named.is_some())? {
            let name: Arc<str> = path.to_string_lossy().into();
            let base = path.parent().unwrap_or(Path::new(""));
            let (problems, written) = file::apply(&name, &text, base, &mut settings);
            data_written = written;
            if problems.iter().any(Problem::is_error) {
                return Err(ConfigError::File { problems });
            }
        }
        let data_of_file = settings.data.clone();
        environment::apply(&environment, &mut settings)?;
        settings.webhook.take_secret(environment(SECRET_VARIABLE))?;
        settings.take_flags(flags);
        if let Some(written) = data_written.filter(|_| settings.data == data_of_file) {
            paths::check_data(&settings.data, &written)?;
        }
        settings.check()?;
        Ok(settings)
    }

    /// How to serve: to whoever reaches the address, or only to who proves itself.
    #[must_use]
    pub fn http_options(&self) -> HttpOptions {
        let loopback = is_loopback(self.http.listen) && !self.identity.loopback_closed;
        let keys = self.identity.key_headers.clone().into();
        let is_forwarded = |provider: &Provider| matches!(provider.kind, ProviderKind::ForwardedCertificate(_));
        let forwarded_certificates = self.identity.providers.iter().any(is_forwarded);
        let credential_headers = CredentialHeaders { keys, forwarded_certificates };
        let (open, checks_host) = (self.insecure || loopback, !self.insecure);
        HttpOptions { open, checks_host, credential_headers, ..self.http.clone() }
    }

    fn take_flags(&mut self, flags: &Flags) {
        if let Some(policies) = &flags.policies {
            self.policies.clone_from(policies);
        }
        if let Some(data) = &flags.data {
            self.data.clone_from(data);
        }
        self.http.listen = flags.listen.unwrap_or(self.http.listen);
        self.insecure |= flags.insecure;
        self.strict |= flags.strict;
        self.log.format = flags.log_format.or(self.log.format);
        self.log.level = flags.log_level.unwrap_or(self.log.level);
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.tls.checked().map_err(|message| ConfigError::Refused(message.to_owned()))?;
        if self.meters_in_memory && !self.redis.url.is_empty() {
            let message = "meters are kept in memory or in a Redis: set `meters.in_memory` or `meters.redis.url`";
            return Err(ConfigError::Refused(message.to_owned()));
        }
        let is_certificates = |provider: &Provider| matches!(provider.kind, ProviderKind::ClientCertificate(_));
        if self.identity.providers.iter().any(is_certificates) && self.tls.client_ca_file.is_none() {
            let message = "`client_certificate` in `identity.providers` sees none: set tls.client_ca_file and \
                           tls.client_certificates";
            return Err(ConfigError::Refused(message.to_owned()));
        }
        if let Some(health) = self.listen_health.filter(|health| !is_loopback(*health)) {
            return Err(ConfigError::Refused(format!(
                "listen_health is {health}, and health is served there without credentials and TLS: set an address of \
                 the loopback such as 127.0.0.1:8182"
            )));
        }
        if self.http.origins.iter().any(Origin::is_any) && self.http_options().open {
            let message = "cors.origins has `*`, and callers need no credential here, so that every web page in a browser \
                           that reaches this server could ask and reload: list the origins instead, or set \
                           identity.loopback to closed, without --insecure";
            return Err(ConfigError::Refused(message.to_owned()));
        }
        let listen = self.http.listen;
        let fixed = self.identity.providers.iter().any(|provider| match &provider.kind {
            ProviderKind::Static(tokens) => !tokens.anywhere,
            _ => false,
        });
        if fixed && !is_loopback(listen) {
            return Err(ConfigError::Refused(format!(
                "{listen} can be reached from other machines, and fixed tokens are for development: listen on \
                 127.0.0.1, take `static` out of `identity.providers`, or insist with `anywhere: true`"
            )));
        }
        if is_loopback(listen) || self.insecure || !self.identity.providers.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Refused(format!(
            "{listen} can be reached from other machines, and there is no provider of identities to tell callers \
             apart. Name one under `identity.providers`, listen on 127.0.0.1, or pass --insecure if something in \
             front of it lets only the gateway through"
        )))
    }

    /// TLS on the listener; `None` where it speaks plain HTTP.
    #[must_use]
    pub fn tls_options(&self) -> Option<TlsOptions> {
        self.tls.checked().ok().flatten()
    }

    /// The Redis that keeps the meters; `None` where they are kept elsewhere.
    #[must_use]
    pub fn redis(&self) -> Option<RedisOptions> {
        let used = !self.redis.url.is_empty();
        used.then(|| RedisOptions { data: self.data.clone(), ..self.redis.clone() })
    }

    /// How the bundle is watched.
    #[must_use]
    pub fn watch_options(&self) -> WatchOptions {
        let manifest = ManifestPolicy {
            required: self.manifest_required,
            public_keys: self.public_keys.clone(),
            ..ManifestPolicy::default()
        };
        WatchOptions { look_every: self.look_every, manifest, ..WatchOptions::default() }
    }
}

impl WebhookSettings {
    /// Reads the secret: from its file, or from the environment where there is none.
    fn take_secret(&mut self, variable: Option<OsString>) -> Result<(), ConfigError> {
        let refused = |message: String| Err(ConfigError::Refused(message));
        let secret = match (&self.secret_file, variable) {
            (Some(path), _) => match webhook_secret(path) {
                Ok(secret) => secret,
                Err(message) => return refused(format!("alerts.webhook.secret_file: {message}")),
            },
            (None, Some(text)) => match Secret::new(text.as_encoded_bytes()) {
                Ok(secret) => secret,
                Err(error) => return refused(format!("{SECRET_VARIABLE}: {error}")),
            },
            (None, None) if self.url.is_some() => {
                return refused(format!(
                    "alerts.webhook.url needs a secret to sign with: name a file in alerts.webhook.secret_file, or set \
                     {SECRET_VARIABLE}"
                ));
            }
            (None, None) => return Ok(()),
        };
        self.secret = Some(secret);
        Ok(())
    }
}

/// Reads the file of the secret that a webhook signs with.
fn webhook_secret(path: &Path) -> Result<Secret, String> {
    let text = match read(path, true) {
        Ok(text) => text.unwrap_or_default(),
        Err(ConfigError::Unreadable { path, error }) => {
            return Err(format!("{} cannot be read: {error}", path.display()));
        }
        Err(error) => return Err(error.to_string()),
    };
    Secret::new(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The directory of the bundle if the arguments of a command name none: the value of `TOLLGATE_POLICIES`.
#[must_use]
pub fn policies() -> Option<PathBuf> {
    std::env::var_os("TOLLGATE_POLICIES").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A warning for each variable of this process that looks like a Tollgate setting and is not read.
#[must_use]
pub fn misspelt_variables() -> Vec<String> {
    environment::misspelt(std::env::vars_os())
}

/// Whether only this machine reaches the address.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The credential that a command shows to a server: what TOLLGATE_TOKEN says.
#[must_use]
pub fn token() -> Option<crate::model::SecretText> {
    std::env::var("TOLLGATE_TOKEN").ok().map(crate::model::SecretText::new)
}

/// The text of the config file; `None` where there need not be one and is none.
fn read(path: &Path, named: bool) -> Result<Option<Vec<u8>>, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES => {
            let message = format!("it is no file of {MAX_FILE_BYTES} bytes at most");
            return Err(unreadable(std::io::Error::other(message)));
        }
        Ok(_) => {}
    }
    std::fs::read(path).map(Some).map_err(unreadable)
}
