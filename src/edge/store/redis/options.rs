//! How a Redis is set up, and why it cannot be.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::EvictionCheck;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Secret(none)" } else { "Secret(…)" })
    }
}

/// How a Redis is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// `redis://` or `rediss://` (TLS), with user and password where it wants them; of a cluster several, with commas.
    pub url: Secret,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// For which an answer is waited for, and a connection.
    pub timeout: Duration,
    /// What all keys begin with, as the hash tag that keeps them in one slot.
    pub prefix: String,
    /// Who checks that it drops no keys when it is full.
    pub eviction: EvictionCheck,
    /// Where it is remembered what was seen of this Redis.
    pub data: PathBuf,
}

impl RedisOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(url: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            url: Secret::new(url),
            cluster: false,
            timeout: Duration::from_millis(500),
            prefix: "tollgate".to_owned(),
            eviction: EvictionCheck::default(),
            data: data.into(),
        }
    }
}

/// Why a Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The address is none. It is not shown, since it may have a password.
    #[error("the address of Redis is none: {0}")]
    Url(String),
    /// A file cannot be read or made.
    #[error("`{path}` cannot be used: {reason}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was seen before is not as it was written.
    #[error(
        "`{path}` is damaged: {reason}; put back a copy of it: without it, a Redis that lost what it had is not noticed"
    )]
    Damaged {
        /// What.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// What was seen before had another prefix.
    #[error(
        "`{path}` is about the prefix `{kept}`; use that, give this node a data directory of its own (--data), or remove \
         the file to begin with nothing used and nothing held"
    )]
    OtherPrefix {
        /// What.
        path: PathBuf,
        /// The prefix.
        kept: String,
    },
    /// No thread could be started.
    #[error("no thread can be started: {0}")]
    Thread(String),
}

impl RedisError {
    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), reason: error.to_string() }
    }
}
