//! `introspection:`, opaque tokens that another server is asked about, as written and then as meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::asking;
use super::claims::{
    Memberships, RawClaims, RawEmailVerified, RawLink, RawMapping, RawPrincipal, UnknownUsers, audiences, wanted,
};
use crate::config::scalars::{ConfigPath, OneOrMany};
use crate::edge::identity::introspection::IntrospectionSettings;
use crate::edge::outgoing::Address;
use crate::model::SecretText;

/// For how long an answer is remembered at most.
const MOST_REMEMBER_MS: u64 = 5 * 60_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// The endpoint: `https://`, or `http://` on this machine.
    url: String,
    /// As whom it is asked.
    client_id: String,
    /// The file of that client's secret.
    client_secret_file: ConfigPath,
    /// Whose tokens they are.
    issuer: String,
    /// What `aud` says: one of these. Left out where the endpoint tells only of tokens for this client.
    audiences: Option<OneOrMany<String>>,
    /// For how long an answer is remembered, in milliseconds; never beyond the token's end.
    remember_ms: Option<u64>,
    /// For the whole exchange, in milliseconds. Default: 2000.
    timeout_ms: Option<u64>,
    /// How many may be asked about at a time. Default: 64.
    at_once: Option<usize>,
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
    /// The file of the client's secret.
    pub(super) fn client_secret_file(&self) -> &PathBuf {
        &self.client_secret_file.0
    }

    pub(super) fn checked(self) -> Result<IntrospectionSettings, String> {
        Address::parse(&self.url).map_err(|error| format!("`url`: {error}"))?;
        if self.issuer.is_empty() || self.issuer.contains('|') || self.client_id.is_empty() {
            return Err("`introspection` wants an `issuer` without `|`, and a `client_id`".to_owned());
        }
        let client_secret = client_secret(&self.client_secret_file.0)?;
        if self.remember_ms.is_some_and(|millis| millis > MOST_REMEMBER_MS) {
            return Err(format!("`remember_ms` is {MOST_REMEMBER_MS} at most"));
        }
        let of_introspection = |error: String| format!("`introspection`: {error}");
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
        let usual = IntrospectionSettings::new(self.url, self.issuer, self.client_id, client_secret);
        Ok(IntrospectionSettings {
            audiences: self.audiences.map(audiences).transpose()?.unwrap_or_default(),
            require: self.require.map(|raw| wanted("require", raw)).transpose()?.unwrap_or_default(),
            mapping: mapping.checked()?,
            remember: self.remember_ms.map_or(usual.remember, Duration::from_millis),
            timeout: asking::timeout(self.timeout_ms, usual.timeout).map_err(of_introspection)?,
            at_once: asking::at_once(self.at_once, usual.at_once).map_err(of_introspection)?,
            ..usual
        })
    }
}

fn client_secret(path: &Path) -> Result<SecretText, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("`client_secret_file` {}: {error}", path.display());
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(|error| wrong(&error))?);
    match text.trim() {
        "" => Err(wrong(&"it is empty")),
        secret => Ok(SecretText::new(secret)),
    }
}
