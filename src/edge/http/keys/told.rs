//! What is told of keys: everything that is known of one but its secret.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::super::answers::Name;
use super::change::Unknown;
use crate::model::{AllowedPath, EntityUid, Inherited, KeyRecord, Timestamp};

/// A page of keys.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Keys")]
pub(in super::super) struct Page<'a> {
    pub(super) keys: Vec<Told<'a>>,
    /// The `after` of the next page.
    pub(super) next: Option<String>,
}

/// A key, without its secret.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Key")]
pub(in super::super) struct Told<'a> {
    id: &'a str,
    /// The whole key with its secret, only where it is made or gets a new secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[schemars(with = "Name")]
    owner: Uid<'a>,
    #[schemars(extend("enum" = ["active", "disabled", "orphaned", "revoked", "expired"]))]
    state: &'static str,
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    #[schemars(with = "Option<Name>")]
    created_by: Option<Uid<'a>>,
    #[schemars(extend("format" = "date-time"))]
    expires_at: Option<String>,
    /// To the minute.
    #[schemars(extend("format" = "date-time"))]
    last_used_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Revoked<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    disabled_by: Option<Uid<'a>>,
    /// Since when the bundle does not declare its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    orphaned_at: Option<String>,
    /// Until when the secret before this one is taken too.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<&'a [SmolStr]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routers: Option<&'a [SmolStr]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actions: Option<&'a [SmolStr]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<super::super::wire::schema::WrittenPath>>")]
    paths: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<serde_json::Map<String, Value>>>")]
    limits: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [SmolStr],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [SmolStr],
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    metadata: Option<serde_json::Map<String, Value>>,
    /// The owner's attributes from the token of the key's maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    inherited: Option<ToldInherited<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Unknown>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct ToldInherited<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    teams: &'a [SmolStr],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    orgs: &'a [SmolStr],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [SmolStr],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [SmolStr],
}

#[derive(Serialize)]
struct Uid<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Revoked<'a> {
    #[schemars(extend("format" = "date-time"))]
    at: String,
    #[schemars(with = "Option<Name>")]
    by: Option<Uid<'a>>,
    reason: Option<&'a str>,
}

impl<'a> Told<'a> {
    /// With all of it.
    pub(super) fn with_key(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// With names of its lists that the bundle does not know.
    pub(super) fn with_warnings(self, warnings: Vec<Unknown>) -> Self {
        Self { warnings, ..self }
    }

    pub(super) fn of(key: &'a KeyRecord, now: Timestamp) -> Self {
        let details = key.details();
        let text = |instant: Timestamp| instant.to_string();
        let narrowed = details.narrowed.as_deref();
        let state = match (&details.revoked, key.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(end)) if now >= end => "expired",
            _ if details.disabled.is_some() => "disabled",
            _ if details.orphaned_at.is_some() => "orphaned",
            _ => "active",
        };
        let metadata = || details.metadata.iter().map(|(name, value)| (name.to_string(), value.as_str().into()));
        Self {
            id: &key.id,
            key: None,
            owner: uid(&key.owner),
            state,
            created_at: text(key.created_at),
            created_by: details.created_by.as_ref().map(uid),
            expires_at: key.expires_at.map(text),
            last_used_at: key.last_used().map(text),
            revoked: details.revoked.as_ref().map(|revoked| Revoked {
                at: text(revoked.at),
                by: revoked.by.as_ref().map(uid),
                reason: revoked.reason.as_deref(),
            }),
            disabled: details.disabled.is_some(),
            disabled_at: details.disabled.as_ref().map(|pause| text(pause.at)),
            disabled_by: details.disabled.as_ref().map(|pause| uid(&pause.by)),
            orphaned_at: details.orphaned_at.map(text),
            previous_secret_until: details.previous.map(|(_, until)| until).filter(|until| now < *until).map(text),
            models: narrowed.and_then(|narrowed| narrowed.models.as_deref()),
            routers: narrowed.and_then(|narrowed| narrowed.routers.as_deref()),
            actions: narrowed.and_then(|narrowed| narrowed.actions.as_deref()),
            paths: narrowed.and_then(|narrowed| Some(narrowed.paths.as_deref()?.iter().map(path).collect())),
            networks: narrowed
                .and_then(|narrowed| Some(narrowed.networks.as_deref()?.iter().map(ToString::to_string).collect())),
            limits: details.limits_text.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            tags: &details.tags,
            roles: &details.roles,
            metadata: Some(metadata().collect()).filter(|_| !details.metadata.is_empty()),
            inherited: details.inherited.as_deref().map(|Inherited { teams, orgs, roles, tags }| ToldInherited {
                teams,
                orgs,
                roles,
                tags,
            }),
            team: details.payer.as_deref(),
            note: details.note.as_deref(),
            warnings: Vec::new(),
        }
    }
}

fn uid(uid: &EntityUid) -> Uid<'_> {
    Uid { kind: uid.kind(), id: uid.id() }
}

fn path(allowed: &AllowedPath) -> Value {
    if allowed.methods.is_empty() {
        return allowed.path.as_str().into();
    }
    serde_json::json!({ "path": allowed.path, "methods": allowed.methods })
}
