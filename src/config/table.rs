//! Every setting, once: its name, what it is about, what values it takes, and where it goes. The reader of
//! `tollgate.yaml`, that of the environment, and the JSON Schema are all made of this table.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Settings;
use crate::edge::files::PublicKey;
use crate::edge::http::{ClientCertificates, HostName};
use crate::edge::outgoing::Address;
use crate::edge::store::EvictionCheck;
use crate::edge::telemetry::{LogFormat, LogLevel};

/// A setting.
pub(super) struct Entry {
    /// Its name, with a dot between section and key.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) field: Field,
}

/// What values a setting takes, and where they go.
pub(super) enum Field {
    Path(fn(&mut Settings) -> &mut PathBuf),
    Address(fn(&mut Settings) -> &mut SocketAddr),
    /// An address and port, or none.
    OptionalAddress(fn(&mut Settings) -> &mut Option<SocketAddr>),
    /// A list of names of hosts.
    Hosts(fn(&mut Settings) -> &mut Vec<HostName>),
    Switch(fn(&mut Settings) -> &mut bool),
    /// One of two words; the second sets the switch.
    Choice {
        words: [&'static str; 2],
        at: fn(&mut Settings) -> &mut bool,
    },
    Number {
        least: u64,
        most: u64,
        at: fn(&mut Settings) -> &mut usize,
    },
    Millis {
        least: u64,
        most: u64,
        at: fn(&mut Settings) -> &mut Duration,
    },
    /// A path, or none.
    File(fn(&mut Settings) -> &mut Option<PathBuf>),
    /// Where to send something, or nowhere.
    Url(fn(&mut Settings) -> &mut Option<Address>),
    /// Who checks that a Redis drops no keys.
    Eviction(fn(&mut Settings) -> &mut EvictionCheck),
    /// A text that is never shown.
    Hidden(fn(&mut Settings) -> &mut crate::edge::store::Secret),
    /// A short name of letters, digits, `.`, `_` and `-`.
    Word(fn(&mut Settings) -> &mut String),
    /// A name.
    Name(fn(&mut Settings) -> &mut String),
    /// One of several words. Without a default, the effective value depends on the environment of the server.
    OneOf {
        words: &'static [&'static str],
        default: Option<&'static str>,
        take: fn(&mut Settings, &str),
    },
    /// Whether clients are asked for certificates.
    ClientCertificates(fn(&mut Settings) -> &mut ClientCertificates),
    /// A list of Ed25519 public keys.
    Keys(fn(&mut Settings) -> &mut Vec<PublicKey>),
}

const MINUTE: u64 = 60_000;
/// Longest name.
pub(super) const MAX_NAME_BYTES: usize = 255;

/// Every setting there is.
pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "policies", about: "The directory of the bundle.", field: Field::Path(|s| &mut s.policies) },
    Entry {
        name: "listen",
        about: "Address and port to listen on. On loopback decisions are open; elsewhere callers prove themselves.",
        field: Field::Address(|s| &mut s.http.listen),
    },
    Entry {
        name: "listen_health",
        about: "Additional loopback address and port for /health/live and /health/ready, without TLS and without \
                credentials.",
        field: Field::OptionalAddress(|s| &mut s.listen_health),
    },
    Entry {
        name: "hosts",
        about: "Names that are accepted in `Host` for requests without a credential on an open loopback, in addition \
                to localhost, *.localhost and addresses of the loopback.",
        field: Field::Hosts(|s| &mut s.http.hosts),
    },
    Entry {
        name: "tls.certificate_file",
        about: "The server's certificate, and those that lead to its authority, in PEM; with it the listener speaks TLS alone.",
        field: Field::File(|s| &mut s.tls.certificate_file),
    },
    Entry {
        name: "tls.key_file",
        about: "The key of that certificate, in PEM.",
        field: Field::File(|s| &mut s.tls.key_file),
    },
    Entry {
        name: "tls.client_ca_file",
        about: "Who vouches for clients, in PEM.",
        field: Field::File(|s| &mut s.tls.client_ca_file),
    },
    Entry {
        name: "tls.client_certificates",
        about: "Whether clients are asked for a certificate: off, optional, or required.",
        field: Field::ClientCertificates(|s| &mut s.tls.client_certificates),
    },
    Entry { name: "data", about: "Where what must last is kept.", field: Field::Path(|s| &mut s.data) },
    Entry {
        name: "meters.in_memory",
        about: "Whether what is used and held is kept in memory alone, and forgotten with the process.",
        field: Field::Switch(|s| &mut s.meters_in_memory),
    },
    Entry {
        name: "meters.redis.url",
        about: "The Redis that keeps what is used and held for many nodes: redis:// or, with TLS, rediss://, with user and \
                password if it wants them; of a cluster several, with commas.",
        field: Field::Hidden(|s| &mut s.redis.url),
    },
    Entry {
        name: "meters.redis.cluster",
        about: "Whether that Redis is a cluster.",
        field: Field::Switch(|s| &mut s.redis.cluster),
    },
    Entry {
        name: "meters.redis.timeout_ms",
        about: "For that Redis to answer; then each limit's `on_store_error` decides.",
        field: Field::Millis { least: 5, most: MINUTE, at: |s| &mut s.redis.timeout },
    },
    Entry {
        name: "meters.redis.prefix",
        about: "What all keys in that Redis begin with, in braces, so that a cluster keeps them together.",
        field: Field::Word(|s| &mut s.redis.prefix),
    },
    Entry {
        name: "meters.redis.eviction",
        about: "How to ensure that this Redis evicts no keys when it is full: Tollgate checks it with INFO and CONFIG \
                GET (checked), or the operator does, if neither may be run (checked_elsewhere).",
        field: Field::Eviction(|s| &mut s.redis.eviction),
    },
    Entry {
        name: "strict",
        about: "Whether warnings about a bundle are errors.",
        field: Field::Switch(|s| &mut s.strict),
    },
    Entry {
        name: "insecure",
        about: "Whether whoever reaches the server may ask and reload without a credential; managing keys still takes one.",
        field: Field::Switch(|s| &mut s.insecure),
    },
    Entry {
        name: "limits.body_bytes",
        about: "Longest body of a request.",
        field: Field::Number { least: 1024, most: 1 << 30, at: |s| &mut s.http.body_bytes },
    },
    Entry {
        name: "limits.batch",
        about: "Most requests of a batch.",
        field: Field::Number { least: 1, most: 1_000_000, at: |s| &mut s.http.batch },
    },
    Entry {
        name: "limits.header_bytes",
        about: "Longest head of a request.",
        field: Field::Number { least: 1024, most: 1 << 20, at: |s| &mut s.http.header_bytes },
    },
    Entry {
        name: "limits.connections",
        about: "Most connections; others wait to be accepted.",
        field: Field::Number { least: 1, most: 1_000_000, at: |s| &mut s.http.connections },
    },
    Entry {
        name: "limits.open_reservations_per_principal",
        about: "Maximum number of open reservations of one principal.",
        field: Field::Number { least: 1, most: 1_000_000_000, at: |s| &mut s.most_open },
    },
    Entry {
        name: "limits.header_timeout_ms",
        about: "For the head of a request to come.",
        field: Field::Millis { least: 10, most: 10 * MINUTE, at: |s| &mut s.http.header_timeout },
    },
    Entry {
        name: "limits.body_timeout_ms",
        about: "For the body of a request to come.",
        field: Field::Millis { least: 10, most: 10 * MINUTE, at: |s| &mut s.http.body_timeout },
    },
    Entry {
        name: "limits.idle_timeout_ms",
        about: "For which a connection may lie idle.",
        field: Field::Millis { least: 10, most: 24 * 60 * MINUTE, at: |s| &mut s.http.idle_timeout },
    },
    Entry {
        name: "limits.shutdown_ms",
        about: "For requests in flight to finish when the server stops.",
        field: Field::Millis { least: 0, most: 10 * MINUTE, at: |s| &mut s.http.shutdown_timeout },
    },
    Entry {
        name: "decisions.reserve",
        about: "What becomes of a question that says nothing about `reserve`: a check, or with `auto` it reserves what its \
                context tells.",
        field: Field::Choice { words: ["asked", "auto"], at: |s| &mut s.http.reserves },
    },
    Entry {
        name: "decisions.budget_status",
        about: "The status that tells a budget without room, where the caller asks for `status=map`.",
        field: Field::Number { least: 400, most: 499, at: |s| &mut s.http.budget_status },
    },
    Entry {
        name: "validate.authorize",
        about: "Whether every call of POST /v1/auth/validate is a decision, as with `\"authorize\": true` in it.",
        field: Field::Switch(|s| &mut s.http.validate_authorizes),
    },
    Entry {
        name: "alerts.webhook.url",
        about: "Where alerts are posted to: https, or http on this machine.",
        field: Field::Url(|s| &mut s.webhook.url),
    },
    Entry {
        name: "alerts.webhook.secret_file",
        about: "The file of the secret that alerts are signed with; else TOLLGATE_ALERTS_WEBHOOK_SECRET has it.",
        field: Field::File(|s| &mut s.webhook.secret_file),
    },
    Entry {
        name: "alerts.webhook.node",
        about: "What this server is called in alerts; where nothing is said, the machine's name.",
        field: Field::Name(|s| &mut s.webhook.node),
    },
    Entry {
        name: "alerts.webhook.attempts",
        about: "How often an alert is sent at most.",
        field: Field::Number { least: 1, most: 100, at: |s| &mut s.webhook.attempts },
    },
    Entry {
        name: "alerts.webhook.pause_ms",
        about: "The pause after the first attempt; each one after that is twice as long, up to five minutes.",
        field: Field::Millis { least: 1, most: 5 * MINUTE, at: |s| &mut s.webhook.pause },
    },
    Entry {
        name: "alerts.webhook.timeout_ms",
        about: "For an attempt.",
        field: Field::Millis { least: 10, most: 5 * MINUTE, at: |s| &mut s.webhook.timeout },
    },
    Entry {
        name: "alerts.webhook.queue",
        about: "Most alerts that wait; the oldest makes room, and is counted.",
        field: Field::Number { least: 1, most: 1_000_000, at: |s| &mut s.webhook.queue },
    },
    Entry {
        name: "reload.guard",
        about: "Whether a reload that drops much, or newly permits every principal, waits until it is acknowledged.",
        field: Field::Switch(|s| &mut s.guard),
    },
    Entry {
        name: "reload.look_every_ms",
        about: "How often the bundle's directory is looked at.",
        field: Field::Millis { least: 50, most: MINUTE, at: |s| &mut s.look_every },
    },
    Entry {
        name: "reload.manifest.required",
        about: "Whether a bundle must have a manifest.",
        field: Field::Switch(|s| &mut s.manifest_required),
    },
    Entry {
        name: "reload.manifest.public_keys",
        about: "Ed25519 public keys in base64; with any, a bundle must be signed by one of them.",
        field: Field::Keys(|s| &mut s.public_keys),
    },
    Entry {
        name: "log.format",
        about: "Format of the log: text for people, json for collectors. Default: text if stderr is a terminal, \
                otherwise json.",
        field: Field::OneOf {
            words: LogFormat::WORDS,
            default: None,
            take: |s, word| s.log.format = word.parse().ok(),
        },
    },
    Entry {
        name: "log.level",
        about: "The least severe level that is logged.",
        field: Field::OneOf {
            words: LogLevel::WORDS,
            default: Some(LogLevel::DEFAULT_WORD),
            take: |s, word| s.log.level = word.parse().unwrap_or_default(),
        },
    },
    Entry {
        name: "server.workers",
        about: "Threads that serve; 0 for one a core.",
        field: Field::Number { least: 0, most: 1024, at: |s| &mut s.workers },
    },
];

/// Variables of the environment, and the settings that they are.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("TOLLGATE_POLICIES", "policies"),
    ("TOLLGATE_LISTEN", "listen"),
    ("TOLLGATE_LISTEN_HEALTH", "listen_health"),
    ("TOLLGATE_DATA", "data"),
    ("TOLLGATE_TLS_CERTIFICATE_FILE", "tls.certificate_file"),
    ("TOLLGATE_TLS_KEY_FILE", "tls.key_file"),
    ("TOLLGATE_TLS_CLIENT_CA_FILE", "tls.client_ca_file"),
    ("TOLLGATE_TLS_CLIENT_CERTIFICATES", "tls.client_certificates"),
    ("TOLLGATE_REDIS_URL", "meters.redis.url"),
    ("TOLLGATE_STRICT", "strict"),
    ("TOLLGATE_INSECURE", "insecure"),
    ("TOLLGATE_WORKERS", "server.workers"),
    ("TOLLGATE_LOG_FORMAT", "log.format"),
    ("TOLLGATE_LOG_LEVEL", "log.level"),
    ("TOLLGATE_ALERTS_WEBHOOK_URL", "alerts.webhook.url"),
];

impl Field {
    /// Takes the value that `text` says; for a list, one of its items.
    ///
    /// The error tells what was expected.
    pub(super) fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        let expected = || self.expected();
        match self {
            Self::Path(at) if !text.is_empty() => *at(settings) = PathBuf::from(text),
            Self::File(at) if !text.is_empty() => *at(settings) = Some(PathBuf::from(text)),
            Self::Url(at) => *at(settings) = Some(Address::parse(text).map_err(|error| error.to_string())?),
            Self::Name(at) if !text.is_empty() && text.len() <= MAX_NAME_BYTES => text.clone_into(at(settings)),
            Self::Address(at) => *at(settings) = text.parse().map_err(|_| expected())?,
            Self::OptionalAddress(at) => *at(settings) = Some(text.parse().map_err(|_| expected())?),
            Self::Hosts(at) => at(settings).push(HostName::parse(text).ok_or_else(expected)?),
            Self::Switch(at) => match text {
                "true" => *at(settings) = true,
                "false" => *at(settings) = false,
                _ => return Err(expected()),
            },
            Self::Choice { words, at } => {
                let chosen = words.iter().position(|word| *word == text).ok_or_else(expected)?;
                *at(settings) = chosen == 1;
            }
            Self::Number { least, most, at } => {
                let number = number(text, *least, *most).ok_or_else(expected)?;
                *at(settings) = usize::try_from(number).map_err(|_| expected())?;
            }
            Self::Millis { least, most, at } => {
                *at(settings) = Duration::from_millis(number(text, *least, *most).ok_or_else(expected)?);
            }
            Self::OneOf { words, take, .. } if words.contains(&text) => take(settings, text),
            Self::ClientCertificates(at) => {
                let known = ClientCertificates::ALL.into_iter().find(|known| known.as_str() == text);
                *at(settings) = known.ok_or_else(expected)?;
            }
            Self::Eviction(at) => {
                *at(settings) =
                    EvictionCheck::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(expected)?;
            }
            Self::Hidden(at) if !text.is_empty() => *at(settings) = crate::edge::store::Secret::new(text),
            Self::Word(at) if is_word(text) => text.clone_into(at(settings)),
            Self::Path(_) | Self::File(_) | Self::Hidden(_) | Self::Word(_) | Self::Name(_) | Self::OneOf { .. } => {
                return Err(expected());
            }
            Self::Keys(at) => at(settings).push(PublicKey::parse(text).map_err(|error| error.to_string())?),
        }
        Ok(())
    }

    /// Makes a path that was read from a file in `base` relative to that directory.
    pub(super) fn resolve(&self, settings: &mut Settings, base: &Path) {
        match self {
            Self::Path(at) => *at(settings) = base.join(&*at(settings)),
            Self::File(at) => {
                let path = at(settings);
                *path = path.as_ref().map(|path| base.join(path));
            }
            _ => {}
        }
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::Keys(_) | Self::Hosts(_))
    }

    /// Whether a value in quotes is not one.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Switch(_) | Self::Number { .. } | Self::Millis { .. })
    }

    /// What the setting takes, in words.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Path(_) | Self::File(_) => "expected a path".to_owned(),
            Self::Url(_) => "expected a URL such as https://alerts.example.com/tollgate".to_owned(),
            Self::Name(_) => format!("expected a name of 1 to {MAX_NAME_BYTES} bytes"),
            Self::Address(_) => "expected an address and port such as 127.0.0.1:8181".to_owned(),
            Self::OptionalAddress(_) => "expected an address and port such as 127.0.0.1:8182".to_owned(),
            Self::Hosts(_) => "expected a list of host names without ports, such as tollgate.internal".to_owned(),
            Self::Switch(_) => "expected true or false".to_owned(),
            Self::OneOf { words, .. } => format!("expected {}", words.join(" or ")),
            Self::Choice { words: [first, second], .. } => format!("expected {first} or {second}"),
            Self::Number { least, most, .. } => format!("expected a whole number from {least} to {most}"),
            Self::Millis { least, most, .. } => format!("expected milliseconds, from {least} to {most}"),
            Self::Eviction(_) => {
                let known = EvictionCheck::ALL.map(EvictionCheck::as_str);
                format!("expected {}", known.join(" or "))
            }
            Self::ClientCertificates(_) => {
                let known = ClientCertificates::ALL.map(ClientCertificates::as_str);
                format!("expected {}", known.join(" or "))
            }
            Self::Hidden(_) => "expected a text".to_owned(),
            Self::Word(_) => "expected a name of at most 64 letters, digits, `.`, `_` and `-`".to_owned(),
            Self::Keys(_) => "expected a list of Ed25519 public keys in base64".to_owned(),
        }
    }
}

fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && (least..=most).contains(number))
}
