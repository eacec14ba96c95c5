//! `jwt:`, tokens of other issuers, as written and then as meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use smol_str::SmolStr;

use super::claims::{
    Memberships, RawClaims, RawEmailVerified, RawLink, RawMapping, RawPrincipal, UnknownUsers, audiences, wanted,
};
use crate::config::WatchedFile;
use crate::config::scalars::{ConfigPath, OneOrMany};
use crate::edge::identity::jose::{Algorithm, Checks, KeySet, MAX_ALIKE, MOST_TOKEN_BYTES};
use crate::edge::identity::jwt::{IssuerSettings, JwtSettings, KeySource};
use crate::edge::outgoing::Address;
use crate::model::SecretText;

/// Most issuers, audiences, and the like.
const MAX_ITEMS: usize = 100;
/// How many proved tokens are remembered at most.
const MOST_REMEMBERED: usize = 1_000_000;
/// By how much clocks may differ at most.
const MOST_LEEWAY_SECONDS: u64 = 30;
/// Between two looks at keys, at least and at most.
const LEAST_PAUSE_MS: u64 = 100;
const HOUR_MS: u64 = 60 * 60 * 1000;
/// For how long keys decide that could not be looked at since, at least: they are looked at twice in that time.
const LEAST_STALE_MS: u64 = 2_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// The issuers whose tokens are taken.
    issuers: Vec<RawIssuer>,
    /// Longest token, 256 to 16384. Default: 16384.
    max_token_bytes: Option<usize>,
    /// How many proved tokens are remembered. Default: 10000.
    remembered: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct RawIssuer {
    /// What `iss` says, exactly.
    issuer: String,
    /// What `aud` says: one of these.
    audiences: OneOrMany<String>,
    /// Where its keys are. Default: what its discovery document names.
    jwks_url: Option<String>,
    /// A file whose token is sent along when keys are fetched.
    bearer_file: Option<ConfigPath>,
    /// A file with its keys instead.
    jwks_file: Option<ConfigPath>,
    /// Files with its keys instead.
    pem_files: Option<OneOrMany<ConfigPath>>,
    /// The file of a secret of 32 bytes at least, for HS256, HS384 and HS512.
    secret_file: Option<ConfigPath>,
    /// The only algorithms. Default: those of its keys.
    algorithms: Option<Vec<String>>,
    /// What `typ` may be. Default: `JWT` and `at+jwt`.
    types: Option<Vec<String>>,
    /// By how much clocks may differ, 30 at most. Default: 10.
    leeway_seconds: Option<u64>,
    /// Tokens that are valid for longer are refused.
    max_lifetime_seconds: Option<u64>,
    /// How often keys are looked at, in milliseconds. Default: an hour.
    refresh_ms: Option<u64>,
    /// How often an unknown `kid` makes them be looked at, at most, in milliseconds. Default: 30000.
    unknown_key_pause_ms: Option<u64>,
    /// For how long keys decide while the issuer is away, in milliseconds, 2000 at least. Default: for ever.
    max_stale_ms: Option<u64>,
    /// What claims must say.
    require: Option<BTreeMap<String, OneOrMany<String>>>,
    /// What claims say of the principal.
    claims: Option<RawClaims>,
    /// Whether every token is a user's or a service's. Default: user.
    principal: Option<RawPrincipal>,
    /// What claims say in a token of a service.
    service_when: Option<BTreeMap<String, OneOrMany<String>>>,
    /// Whether teams and orgs of the token join those of the bundle or replace them. Default: join.
    memberships: Option<Memberships>,
    /// Whether those may ask whom the bundle does not know. Default: allow.
    unknown_users: Option<UnknownUsers>,
    /// By what tokens are linked to users and services of the bundle, in this order. Default: `external_id` alone.
    link: Option<OneOrMany<RawLink>>,
    /// Whether an address counts as its owner's that a token does not say is verified. Default: claimed, it does not.
    email_verified: Option<RawEmailVerified>,
    /// Whether an `external_id` of the bundle without an issuer means this issuer. Default: false.
    directory: Option<bool>,
    /// Headers of the request that become `context.metadata`.
    metadata_headers: Option<Vec<String>>,
}

impl Raw {
    /// The files that hold secrets, and those that hold issuers' keys.
    pub(super) fn files(&self) -> Vec<WatchedFile> {
        let mut files = Vec::new();
        for issuer in &self.issuers {
            let secrets = [("secret_file", &issuer.secret_file), ("bearer_file", &issuer.bearer_file)];
            let secret = |(name, path): (&str, &ConfigPath)| WatchedFile::secret(&format!("`jwt`: `{name}`"), &path.0);
            files.extend(secrets.iter().filter_map(|(name, path)| Some((*name, path.as_ref()?))).map(secret));
            let pem = issuer.pem_files.iter().flat_map(|files| &files.0);
            files.extend(issuer.jwks_file.iter().map(|path| WatchedFile::trusted("`jwt`: `jwks_file`", &path.0)));
            files.extend(pem.map(|path| WatchedFile::trusted("`jwt`: `pem_files`", &path.0)));
        }
        files
    }

    pub(super) fn checked(self) -> Result<JwtSettings, String> {
        if self.issuers.is_empty() || self.issuers.len() > MAX_ITEMS {
            return Err(format!("`jwt` takes 1 to {MAX_ITEMS} issuers"));
        }
        let mut issuers: Vec<IssuerSettings> = Vec::with_capacity(self.issuers.len());
        for raw in self.issuers {
            let name = raw.issuer.clone();
            let issuer = raw.checked().map_err(|error| format!("issuer {}: {error}", name.escape_debug()))?;
            if issuers.iter().any(|known| known.checks.issuer == issuer.checks.issuer) {
                return Err(format!("issuer {name}: it stands twice"));
            }
            issuers.push(issuer);
        }
        let usual = JwtSettings::of(issuers);
        let max_token_bytes = self.max_token_bytes.unwrap_or(usual.max_token_bytes);
        if !(256..=MOST_TOKEN_BYTES).contains(&max_token_bytes) {
            return Err(format!("`max_token_bytes` is 256 to {MOST_TOKEN_BYTES}"));
        }
        let remembered = self.remembered.unwrap_or(usual.remembered);
        if remembered > MOST_REMEMBERED {
            return Err(format!("`remembered` is {MOST_REMEMBERED} at most"));
        }
        Ok(JwtSettings { max_token_bytes, remembered, ..usual })
    }
}

impl RawIssuer {
    fn checked(self) -> Result<IssuerSettings, String> {
        if self.issuer.is_empty() || self.issuer.len() > 512 || self.issuer.contains('|') {
            return Err("an issuer has 1 to 512 bytes, and no `|` in it".to_owned());
        }
        let keys = self.keys()?;
        let algorithms = self.algorithms.map(|names| algorithms(&names, &keys)).transpose()?;
        if self.types.as_ref().is_some_and(Vec::is_empty) {
            return Err("`types` names none".to_owned());
        }
        if self.max_lifetime_seconds == Some(0) {
            return Err("`max_lifetime_seconds` is 1 at least".to_owned());
        }
        if self.leeway_seconds.is_some_and(|leeway| leeway > MOST_LEEWAY_SECONDS) {
            return Err(format!("`leeway_seconds` is {MOST_LEEWAY_SECONDS} at most"));
        }
        let within = |name: &str, said: Option<u64>, usual: Duration| match said {
            None => Ok(usual),
            Some(millis) if (LEAST_PAUSE_MS..=HOUR_MS).contains(&millis) => Ok(Duration::from_millis(millis)),
            Some(_) => Err(format!("`{name}` is {LEAST_PAUSE_MS} to {HOUR_MS}")),
        };
        let millis = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        let small = |typ: String| typ.to_ascii_lowercase().into();
        let usual = IssuerSettings::new(self.issuer, audiences(self.audiences)?, keys);
        let checks = Checks {
            algorithms,
            types: self.types.map_or(usual.checks.types, |types| types.into_iter().map(small).collect()),
            leeway_ms: self.leeway_seconds.map_or(usual.checks.leeway_ms, millis),
            max_lifetime_ms: self.max_lifetime_seconds.map(millis),
            require: self.require.map(|raw| wanted("require", raw)).transpose()?.unwrap_or_default(),
            ..usual.checks
        };
        let mapping = RawMapping {
            claims: self.claims,
            principal: self.principal,
            service_when: self.service_when,
            memberships: self.memberships,
            unknown_users: self.unknown_users,
            link: self.link,
            email_verified: self.email_verified,
            directory: self.directory,
            metadata_headers: self.metadata_headers,
        };
        Ok(IssuerSettings {
            checks,
            mapping: mapping.checked()?,
            keys: usual.keys,
            refresh: within("refresh_ms", self.refresh_ms, usual.refresh)?,
            unknown_key_pause: within("unknown_key_pause_ms", self.unknown_key_pause_ms, usual.unknown_key_pause)?,
            max_stale: self.max_stale_ms.map(max_stale).transpose()?,
        })
    }

    /// Where its keys come from: from the issuer, unless a file has them.
    fn keys(&self) -> Result<KeySource, String> {
        let pem = self.pem_files.as_ref().map(|files| files.0.as_slice()).unwrap_or_default();
        if pem.len() > MAX_ALIKE {
            return Err(format!("`pem_files` names {MAX_ALIKE} at most, since a token may be of any of their keys"));
        }
        let files: Vec<PathBuf> = self.jwks_file.iter().chain(pem).map(|path| path.0.clone()).collect();
        let remote = self.jwks_url.is_some() || self.bearer_file.is_some();
        match (&self.secret_file, files.is_empty()) {
            (Some(path), true) if !remote => shared(&path.0),
            (None, false) if !remote => Ok(KeySource::Files(files)),
            (None, true) => {
                let url = self.jwks_url.as_ref().unwrap_or(&self.issuer);
                let address = Address::parse(url).map_err(|error| format!("`{url}`: {error}"));
                address.map_err(|error| match self.jwks_url {
                    Some(_) => format!("`jwks_url`: {error}"),
                    None => {
                        format!("its keys are not where it is ({error}): say `jwks_url`, `jwks_file` or `pem_files`")
                    }
                })?;
                let jwks_url = self.jwks_url.clone().map(SmolStr::from);
                Ok(KeySource::Remote { jwks_url, bearer_file: self.bearer_file.as_ref().map(|path| path.0.clone()) })
            }
            _ => {
                let message = "keys come from the issuer (`jwks_url`, `bearer_file`), from files (`jwks_file`, `pem_files`), or \
                               are a secret (`secret_file`): one of the three";
                Err(message.to_owned())
            }
        }
    }
}

/// The only algorithms, each of which is one that the keys can be for: with a secret those of secrets, else no such one.
fn algorithms(names: &[String], keys: &KeySource) -> Result<Vec<Algorithm>, String> {
    let shared = matches!(keys, KeySource::Secret(_));
    let known = |name: &String| match Algorithm::named(name) {
        None => Err(format!("`algorithms`: `{name}` is none that is taken")),
        Some(algorithm) if algorithm.is_of_secrets() == shared => Ok(algorithm),
        Some(_) if shared => Err(format!("`algorithms`: `{name}` is for public keys, and there is a `secret_file`")),
        Some(_) => Err(format!("`algorithms`: `{name}` wants a `secret_file`; public keys cannot be for it")),
    };
    if names.is_empty() {
        return Err("`algorithms` names none".to_owned());
    }
    names.iter().map(known).collect()
}

fn max_stale(millis: u64) -> Result<Duration, String> {
    let fits = millis >= LEAST_STALE_MS;
    fits.then(|| Duration::from_millis(millis)).ok_or_else(|| format!("`max_stale_ms` is {LEAST_STALE_MS} at least"))
}

fn shared(path: &Path) -> Result<KeySource, String> {
    let text = std::fs::read_to_string(path);
    let text = zeroize::Zeroizing::new(text.map_err(|error| format!("`secret_file` {}: {error}", path.display()))?);
    let secret = SecretText::new(text.trim());
    KeySet::of_secret(secret.expose().as_bytes())
        .map_err(|error| format!("`secret_file` {}: {error}", path.display()))?;
    Ok(KeySource::Secret(secret))
}
