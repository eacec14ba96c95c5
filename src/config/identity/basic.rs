//! `basic:`, names and passwords: of the bundle, of an htpasswd file, of the store of keys, or of all of them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalars::ConfigPath;
use crate::edge::identity::Htpasswd;

/// Names and passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicSettings {
    /// An htpasswd file.
    pub htpasswd: Option<PathBuf>,
    /// Whether users and services of the bundle may have passwords.
    pub bundle: bool,
    /// Whether users may have passwords that are set on the running server.
    pub store: bool,
    /// Threads that check passwords.
    pub at_once: usize,
    /// How many may wait for them.
    pub queue: usize,
    /// For how long a right password is remembered.
    pub cache_ms: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// An htpasswd file, of bcrypt hashes.
    htpasswd: Option<ConfigPath>,
    /// Whether users and services of the bundle may have passwords. Default: true.
    bundle: Option<bool>,
    /// Whether users may have passwords that are set on the running server, which keeps them where it keeps keys. Default:
    /// true where `keys` is among the providers.
    store: Option<bool>,
    /// How many passwords are checked at a time. Default: 2.
    at_once: Option<usize>,
    /// How many may wait for that. Default: 32.
    queue: Option<usize>,
    /// For how long a right password is remembered, in milliseconds. Default: 60000.
    cache_ms: Option<i64>,
}

impl Raw {
    /// The htpasswd file, where one is named.
    pub(super) fn htpasswd(&self) -> Option<&PathBuf> {
        self.htpasswd.as_ref().map(|path| &path.0)
    }

    /// `keeps_keys` is whether there is a store of keys.
    pub(super) fn checked(self, keeps_keys: bool) -> Result<BasicSettings, String> {
        let Self { htpasswd, bundle, store, at_once, queue, cache_ms } = self;
        let htpasswd = htpasswd.map(|path| path.0);
        let (bundle, store) = (bundle.unwrap_or(true), store.unwrap_or(keeps_keys));
        if store && !keeps_keys {
            return Err(
                "`basic`: `store` is where keys are kept, so that it needs `keys` among the providers".to_owned()
            );
        }
        if !bundle && !store && htpasswd.is_none() {
            let message =
                "`basic`: with `bundle: false` an `htpasswd` file or the `store` is needed, or there are no names";
            return Err(message.to_owned());
        }
        let within = |name: &str, value: i64, least: i64, most: i64| {
            let fits = (least..=most).contains(&value);
            fits.then_some(()).ok_or_else(|| format!("`basic`: `{name}` is a number from {least} to {most}"))
        };
        let (at_once, queue, cache_ms) = (at_once.unwrap_or(2), queue.unwrap_or(32), cache_ms.unwrap_or(60_000));
        within("at_once", i64::try_from(at_once).unwrap_or(i64::MAX), 1, 64)?;
        within("queue", i64::try_from(queue).unwrap_or(i64::MAX), 1, 1_000)?;
        within("cache_ms", cache_ms, 0, 60_000)?;
        if let Some(path) = &htpasswd {
            // Opened to say what is wrong with it where it is named; who serves opens it again, and keeps it.
            Htpasswd::open(path).map_err(|error| format!("`basic`: `htpasswd`: {error}"))?;
        }
        Ok(BasicSettings { htpasswd, bundle, store, at_once, queue, cache_ms })
    }
}
