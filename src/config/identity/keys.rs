//! `keys:`, API keys: those that Tollgate makes, and those that stand in the bundle as hashes.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalars::ConfigPath;

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
    /// For how long a key lasts at most that a person makes with a token.
    pub max_days: u32,
    /// How long after its owner was last declared a key is revoked.
    pub orphan_days: u32,
}

/// What becomes of the administrator's key that the first start makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub enum FirstKey {
    /// Print the key if stderr is a terminal. Otherwise put it in a file, since the output is probably stored
    /// somewhere.
    #[default]
    Auto,
    /// It is printed, once.
    Print,
    /// It is put in a file of the data directory that only its owner reads.
    File,
    /// None is made.
    None,
}

impl Default for KeySettings {
    fn default() -> Self {
        let (first_key, max_stale) = (FirstKey::default(), Duration::from_secs(10));
        Self { unknown_owners: false, pepper_file: None, first_key, max_stale, max_days: 90, orphan_days: 30 }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Whether keys of owners that the bundle does not declare are taken. Default: refuse.
    unknown_owners: Option<UnknownOwners>,
    /// The file that keys the hashes, of 32 bytes at least; made in the data directory where none is named.
    pepper_file: Option<ConfigPath>,
    /// Where to put the administrator's key that the first start makes. Default: auto, which prints it on a terminal
    /// and otherwise puts it in a file.
    first_key: Option<FirstKey>,
    /// For how long keys of a Redis are taken that does not answer, in seconds. Default: 10.
    max_stale_seconds: Option<u64>,
    /// For how many days a key lasts at most that a person makes or prolongs with a token. Default: 90.
    max_days: Option<u32>,
    /// After how many days a key is revoked whose owner the bundle no longer declares. Default: 30.
    orphan_days: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum UnknownOwners {
    Refuse,
    Allow,
}

impl Raw {
    /// The file of the pepper, where one is named.
    pub(super) fn pepper_file(&self) -> Option<&PathBuf> {
        self.pepper_file.as_ref().map(|path| &path.0)
    }

    pub(super) fn checked(self) -> Result<KeySettings, String> {
        let usual = KeySettings::default();
        let max_stale = match self.max_stale_seconds {
            None => usual.max_stale,
            Some(seconds @ 1..=3600) => Duration::from_secs(seconds),
            Some(_) => return Err("`max_stale_seconds` is 1 to 3600".to_owned()),
        };
        let days = |name: &str, said: Option<u32>, usual: u32| match said.unwrap_or(usual) {
            days @ 1..=3650 => Ok(days),
            _ => Err(format!("`{name}` is 1 to 3650")),
        };
        Ok(KeySettings {
            max_days: days("max_days", self.max_days, usual.max_days)?,
            orphan_days: days("orphan_days", self.orphan_days, usual.orphan_days)?,
            unknown_owners: self.unknown_owners == Some(UnknownOwners::Allow),
            pepper_file: self.pepper_file.map(|path| path.0),
            first_key: self.first_key.unwrap_or_default(),
            max_stale,
        })
    }
}
