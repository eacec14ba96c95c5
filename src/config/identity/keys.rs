//! `keys:`, API keys: those that Tollgate makes, and those that stand in the bundle as hashes.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// API keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySettings {
    /// Whether a key proves somebody whose owner the bundle does not declare.
    pub unknown_owners: bool,
    /// The file of the pepper; where none is named, one is made where the keys are.
    pub pepper_file: Option<PathBuf>,
    /// What becomes of the administrator's key that the first start makes.
    pub first_key: FirstKey,
    /// For how long keys of a Redis are taken that does not answer.
    pub max_stale: Duration,
}

/// What becomes of the administrator's key that the first start makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub enum FirstKey {
    /// It is printed, once.
    #[default]
    Print,
    /// It is put in a file of the data directory that only its owner reads.
    File,
    /// None is made.
    None,
}

impl Default for KeySettings {
    fn default() -> Self {
        let (first_key, max_stale) = (FirstKey::default(), Duration::from_secs(10));
        Self { unknown_owners: false, pepper_file: None, first_key, max_stale }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Whether keys of owners that the bundle does not declare are taken. Default: refuse.
    unknown_owners: Option<UnknownOwners>,
    /// The file that keys the hashes, of 32 bytes at least; made in the data directory where none is named.
    pepper_file: Option<PathBuf>,
    /// What becomes of the administrator's key that the first start makes. Default: print.
    first_key: Option<FirstKey>,
    /// For how long keys of a Redis are taken that does not answer, in seconds. Default: 10.
    max_stale_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum UnknownOwners {
    Refuse,
    Allow,
}

impl Raw {
    pub(super) fn checked(self) -> Result<KeySettings, String> {
        let usual = KeySettings::default();
        let max_stale = match self.max_stale_seconds {
            None => usual.max_stale,
            Some(seconds @ 1..=3600) => Duration::from_secs(seconds),
            Some(_) => return Err("`max_stale_seconds` is 1 to 3600".to_owned()),
        };
        Ok(KeySettings {
            unknown_owners: self.unknown_owners == Some(UnknownOwners::Allow),
            pepper_file: self.pepper_file,
            first_key: self.first_key.unwrap_or_default(),
            max_stale,
        })
    }
}
