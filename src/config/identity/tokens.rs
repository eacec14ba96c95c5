//! `tokens:`, Tollgate's own tokens, as written and then as meant.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::edge::identity::tokens::TokenOptions;

const DAY_SECONDS: u64 = 24 * 60 * 60;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Their issuer, and their audience. Default: `tollgate`.
    issuer: Option<String>,
    /// For how long a token is good, 10 to 3600. Default: 900.
    access_seconds: Option<u64>,
    /// For how long a refresh token is good. Default: 604800.
    refresh_seconds: Option<u64>,
    /// For how long a key signs. Default: 2592000.
    rotate_seconds: Option<u64>,
    /// The file that seals the keys that sign, where they are in a Redis. Default: that of `keys`.
    pepper_file: Option<PathBuf>,
}

/// Tollgate's own tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// How they are handed out.
    pub options: TokenOptions,
    /// The pepper, which seals the keys that sign where they are in a Redis; where none is named, that of API keys.
    pub pepper_file: Option<PathBuf>,
}

impl Raw {
    pub(super) fn checked(self) -> Result<TokenSettings, String> {
        let issuer = self.issuer.unwrap_or_else(|| "tollgate".to_owned());
        if issuer.is_empty() || issuer.len() > 512 || issuer.contains('|') {
            return Err("`tokens.issuer` has 1 to 512 bytes, and no `|` in it".to_owned());
        }
        let within = |name: &str, said: Option<u64>, usual: u64, (least, most): (u64, u64)| match said.unwrap_or(usual)
        {
            seconds if (least..=most).contains(&seconds) => Ok(i64::try_from(seconds * 1000).unwrap_or(i64::MAX)),
            _ => Err(format!("`tokens.{name}` is {least} to {most}")),
        };
        let options = TokenOptions {
            issuer: issuer.into(),
            access_ms: within("access_seconds", self.access_seconds, 900, (10, 3600))?,
            refresh_ms: within("refresh_seconds", self.refresh_seconds, 7 * DAY_SECONDS, (60, 90 * DAY_SECONDS))?,
            rotate_ms: within("rotate_seconds", self.rotate_seconds, 30 * DAY_SECONDS, (1, 365 * DAY_SECONDS))?,
        };
        if options.refresh_ms < options.access_ms {
            return Err("`tokens.refresh_seconds` is no less than `tokens.access_seconds`".to_owned());
        }
        Ok(TokenSettings { options, pepper_file: self.pepper_file })
    }
}
