//! `tokens:`, Tollgate's own tokens, as written and then as meant.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use smol_str::SmolStr;

use crate::config::scalars::ConfigPath;
use crate::edge::identity::tokens::TokenOptions;

const DAY_SECONDS: u64 = 24 * 60 * 60;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Whether they are handed out. Default: where `keys` is among the providers.
    enabled: Option<bool>,
    /// Their issuer, and their audience. Default: `tollgate`.
    issuer: Option<String>,
    /// For how long a token is good, 10 to 3600. Default: 900.
    access_seconds: Option<u64>,
    /// For how long a refresh token is good. Default: 604800.
    refresh_seconds: Option<u64>,
    /// For how long a key signs. Default: 2592000.
    rotate_seconds: Option<u64>,
    /// The file that seals the keys that sign, where they are in a Redis. Default: that of `keys`.
    pepper_file: Option<ConfigPath>,
}

/// Tollgate's own tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSettings {
    /// How they are handed out.
    pub options: TokenOptions,
    /// The pepper, which seals the keys that sign where they are in a Redis; where none is named, that of API keys.
    pub pepper_file: Option<PathBuf>,
    /// Whether somebody wished for them: without that there are none where a Redis has no pepper.
    pub wished_for: bool,
}

impl Raw {
    /// `None` where none are handed out.
    pub(super) fn checked(self) -> Result<Option<TokenSettings>, String> {
        let usual = TokenOptions::default();
        let issuer = self.issuer.map_or(usual.issuer, SmolStr::from);
        if issuer.is_empty() || issuer.len() > 512 || issuer.contains('|') {
            return Err("`tokens.issuer` has 1 to 512 bytes, and no `|` in it".to_owned());
        }
        let within = |name: &str, said: Option<u64>, usual: i64, (least, most): (u64, u64)| match said {
            None => Ok(usual),
            Some(seconds) if (least..=most).contains(&seconds) => Ok(i64::try_from(seconds * 1000).unwrap_or(i64::MAX)),
            Some(_) => Err(format!("`tokens.{name}` is {least} to {most}")),
        };
        let options = TokenOptions {
            issuer,
            access_ms: within("access_seconds", self.access_seconds, usual.access_ms, (10, 3600))?,
            refresh_ms: within("refresh_seconds", self.refresh_seconds, usual.refresh_ms, (60, 90 * DAY_SECONDS))?,
            rotate_ms: within("rotate_seconds", self.rotate_seconds, usual.rotate_ms, (1, 365 * DAY_SECONDS))?,
        };
        if options.refresh_ms < options.access_ms {
            return Err("`tokens.refresh_seconds` is no less than `tokens.access_seconds`".to_owned());
        }
        let pepper_file = self.pepper_file.map(|path| path.0);
        let settings = TokenSettings { options, pepper_file, wished_for: true };
        Ok((self.enabled != Some(false)).then_some(settings))
    }
}
