//! `delegated:`, somebody else's endpoint that says whom a credential proves.

use hyper::header::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;
use smol_str::SmolStr;

use super::asking;
use crate::edge::identity::{Attributes, DelegatedOptions, is_secret_name};
use crate::edge::outgoing::Address;
use crate::model::EntityUid;

/// Most headers that are sent on by name.
const MAX_HEADERS: usize = 64;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Where it is: `https://`, or `http://` on this machine.
    url: String,
    /// For the whole exchange, in milliseconds. Default: 2000.
    timeout_ms: Option<u64>,
    /// How many may be asked at a time. Default: 64.
    at_once: Option<usize>,
    /// For how long an answer is remembered, in milliseconds. Default: 30000.
    cache_ms: Option<i64>,
    /// What a `principal` without a type is. Default: User.
    principal_type: Option<PrincipalType>,
    /// Whom a bare 200 proves: an empty body, or `{}`.
    nameless: Option<String>,
    /// Headers that are sent on; all but secrets, where none is named.
    headers: Option<Vec<String>>,
    /// Where attributes of the answer go.
    attributes: Option<RawAttributes>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[schemars(inline)]
enum PrincipalType {
    User,
    Service,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct RawAttributes {
    /// Attributes that name teams.
    teams: Option<Vec<SmolStr>>,
    /// Attributes that name orgs.
    orgs: Option<Vec<SmolStr>>,
    /// Attributes that name roles.
    roles: Option<Vec<SmolStr>>,
    /// Attributes that name tags.
    tags: Option<Vec<SmolStr>>,
}

impl Raw {
    pub(super) fn checked(self, pass_on_error: bool) -> Result<DelegatedOptions, String> {
        Address::parse(&self.url).map_err(|error| format!("`delegated`: `url`: {error}"))?;
        let of_delegated = |error: String| format!("`delegated`: {error}");
        let usual = DelegatedOptions::new(self.url);
        let timeout = asking::timeout(self.timeout_ms, usual.timeout).map_err(of_delegated)?;
        let at_once = asking::at_once(self.at_once, usual.at_once).map_err(of_delegated)?;
        let cache_ms = self.cache_ms.unwrap_or(usual.cache_ms);
        if !(0..=300_000).contains(&cache_ms) {
            return Err("`delegated`: `cache_ms` is a number from 0 to 300000".to_owned());
        }
        let nameless = self.nameless.map(|uid| uid.parse::<EntityUid>()).transpose();
        let nameless = nameless.map_err(|error| format!("`delegated`: `nameless`: {error}"))?;
        if let Some(uid) = nameless.as_ref().filter(|uid| !matches!(uid.kind(), "User" | "Service")) {
            return Err(format!("`delegated`: `nameless` is a User or a Service, not `{uid}`"));
        }
        let headers = self.headers.map(|names| headers(&names)).transpose();
        let headers = headers.map_err(|error| format!("`delegated`: `headers`: {error}"))?;
        let attributes = self.attributes.map(|raw| Attributes {
            teams: raw.teams.unwrap_or_default(),
            orgs: raw.orgs.unwrap_or_default(),
            roles: raw.roles.unwrap_or_default(),
            tags: raw.tags.unwrap_or_default(),
        });
        let principal_type = match self.principal_type {
            Some(PrincipalType::Service) => "Service",
            Some(PrincipalType::User) | None => "User",
        };
        Ok(DelegatedOptions {
            timeout,
            at_once,
            cache_ms,
            principal_type,
            nameless,
            headers,
            attributes: attributes.unwrap_or(usual.attributes),
            pass_on_error,
            // What the whole section says (own keys, their headers) is known later.
            ..usual
        })
    }
}

/// Headers that are sent on, in small letters. One that holds a secret never is, so that naming it is a mistake.
fn headers(names: &[String]) -> Result<Vec<SmolStr>, String> {
    let mut headers: Vec<SmolStr> = Vec::with_capacity(names.len());
    for name in names {
        let header: HeaderName = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
        if is_secret_name(header.as_str()) {
            return Err(format!("`{name}` may hold a secret, and is never sent on"));
        }
        if headers.iter().any(|known| known == header.as_str()) {
            return Err(format!("`{name}` stands twice; case does not matter"));
        }
        headers.push(header.as_str().into());
    }
    if headers.len() > MAX_HEADERS {
        return Err(format!("it names {MAX_HEADERS} at most"));
    }
    Ok(headers)
}
