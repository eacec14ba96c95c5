//! `introspection:`, opaque tokens that another server is asked about, as written and then as meant.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use smol_str::SmolStr;

use super::claims::{Memberships, OneOrMany, RawClaims, RawMapping, RawPrincipal, UnknownUsers, wanted};
use crate::edge::identity::introspection::IntrospectionSettings;
use crate::edge::outgoing::Address;
use crate::model::SecretText;

/// For how long an answer is remembered, where nothing else is said, and at most.
const USUAL_REMEMBER_MS: u64 = 30_000;
const MOST_REMEMBER_MS: u64 = 5 * 60_000;
/// How many answers are remembered.
const REMEMBERED: usize = 10_000;
/// For an exchange, where nothing else is said, and at most.
const USUAL_TIMEOUT_MS: u64 = 2_000;
const MOST_TIMEOUT_MS: u64 = 30_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    url: String,
    client_id: String,
    client_secret_file: PathBuf,
    issuer: String,
    audiences: Option<OneOrMany<String>>,
    remember_ms: Option<u64>,
    timeout_ms: Option<u64>,
    require: Option<BTreeMap<String, OneOrMany<String>>>,
    claims: Option<RawClaims>,
    principal: Option<RawPrincipal>,
    service_when: Option<BTreeMap<String, OneOrMany<String>>>,
    memberships: Option<Memberships>,
    unknown_users: Option<UnknownUsers>,
    directory: Option<bool>,
    metadata_headers: Option<Vec<String>>,
}

impl Raw {
    pub(super) fn checked(self) -> Result<IntrospectionSettings, String> {
        Address::parse(&self.url).map_err(|error| format!("`url`: {error}"))?;
        if self.issuer.is_empty() || self.issuer.contains('|') || self.client_id.is_empty() {
            return Err("`introspection` wants an `issuer` without `|`, and a `client_id`".to_owned());
        }
        let path = &self.client_secret_file;
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("`client_secret_file` {}: {error}", path.display()))?;
        let text = zeroize::Zeroizing::new(text);
        let within = |name: &str, said: Option<u64>, usual: u64, most: u64| match said.unwrap_or(usual) {
            millis if millis <= most => Ok(Duration::from_millis(millis)),
            _ => Err(format!("`{name}` is {most} at most")),
        };
        let mapping = RawMapping {
            claims: self.claims,
            principal: self.principal,
            service_when: self.service_when,
            memberships: self.memberships,
            unknown_users: self.unknown_users,
            directory: self.directory,
            metadata_headers: self.metadata_headers,
        };
        Ok(IntrospectionSettings {
            url: self.url.into(),
            client_id: self.client_id.into(),
            client_secret: SecretText::new(text.trim()),
            issuer: self.issuer.into(),
            audiences: self.audiences.map(OneOrMany::all).unwrap_or_default().into_iter().map(SmolStr::from).collect(),
            require: self.require.map(|raw| wanted("require", raw)).transpose()?.unwrap_or_default(),
            mapping: mapping.checked()?,
            remember: within("remember_ms", self.remember_ms, USUAL_REMEMBER_MS, MOST_REMEMBER_MS)?,
            timeout: within("timeout_ms", self.timeout_ms, USUAL_TIMEOUT_MS, MOST_TIMEOUT_MS)?,
            remembered: REMEMBERED,
        })
    }
}
