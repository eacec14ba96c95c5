//! A key, and a password, as it is written down: one JSON object. What is not as it was written is an error, never a key
//! that may more.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::model::{
    AllowedPath, EntityUid, Inherited, KeyDetails, KeyHash, KeyRecord, Narrowed, Network, PasswordHash, PasswordRecord,
    Pause, Revocation, Timestamp, key_hash_text, parse_key_hash,
};
use crate::policy::parse::key_limits;

/// A row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{id}` is not as it was written: {reason}")]
pub(in crate::edge::store) struct RowError {
    id: SmolStr,
    reason: String,
}

type Names = Option<Box<[SmolStr]>>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    owner: String,
    hash: String,
    version: u64,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    more: Option<Box<More>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct More {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<(String, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<(i64, Option<String>, SmolStr)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disabled: Option<(i64, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orphaned_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<SmolStr>,
    #[serde(default, skip_serializing_if = "is_empty")]
    tags: Box<[SmolStr]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    roles: Box<[SmolStr]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    metadata: Box<[(SmolStr, SmolStr)]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inherited: Option<InheritedRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payer: Option<SmolStr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    narrowed: Option<Lists>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<Box<str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InheritedRow {
    #[serde(default, skip_serializing_if = "is_empty")]
    teams: Box<[SmolStr]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    orgs: Box<[SmolStr]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    roles: Box<[SmolStr]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    tags: Box<[SmolStr]>,
}

fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}

/// A path, and its methods.
type PathRow = (SmolStr, Box<[SmolStr]>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    models: Names,
    routers: Names,
    actions: Names,
    paths: Option<Box<[PathRow]>>,
    networks: Option<Box<[SmolStr]>>,
}

/// The text of a key.
pub(in crate::edge::store) fn write(key: &KeyRecord) -> String {
    let row = Row {
        owner: key.owner.to_string(),
        hash: key_hash_text(&key.hash),
        version: key.version,
        created_at: key.created_at.as_millis(),
        expires_at: key.expires_at.map(Timestamp::as_millis),
        more: key.more.as_deref().map(|more| Box::new(written(more))),
    };
    serde_json::to_string(&row).unwrap_or_default()
}

fn written(more: &KeyDetails) -> More {
    let text = |uid: &EntityUid| uid.to_string();
    // The empty text stands for no reason, so that servers of before can read it.
    let reason = |one: &Revocation| one.reason.clone().unwrap_or_default();
    let revoked = |one: &Revocation| (one.at.as_millis(), one.by.as_ref().map(text), reason(one));
    More {
        created_by: more.created_by.as_ref().map(text),
        previous: more.previous.map(|(hash, until)| (key_hash_text(&hash), until.as_millis())),
        revoked: more.revoked.as_ref().map(revoked),
        disabled: more.disabled.as_ref().map(|pause| (pause.at.as_millis(), text(&pause.by))),
        orphaned_at: more.orphaned_at.map(Timestamp::as_millis),
        note: more.note.clone(),
        tags: more.tags.clone(),
        roles: more.roles.clone(),
        metadata: more.metadata.clone(),
        inherited: more.inherited.as_deref().map(|Inherited { teams, orgs, roles, tags }| InheritedRow {
            teams: teams.clone(),
            orgs: orgs.clone(),
            roles: roles.clone(),
            tags: tags.clone(),
        }),
        payer: more.payer.clone(),
        narrowed: more.narrowed.as_deref().map(|narrowed| Lists {
            models: narrowed.models.clone(),
            routers: narrowed.routers.clone(),
            actions: narrowed.actions.clone(),
            paths: narrowed
                .paths
                .as_ref()
                .map(|paths| paths.iter().map(|path| (path.path.clone(), path.methods.clone())).collect()),
            networks: narrowed.networks.as_ref().map(|list| list.iter().map(|one| one.to_string().into()).collect()),
        }),
        limits: more.limits_text.as_deref().map(Into::into),
    }
}

/// The key of a text.
///
/// # Errors
/// Where it is not as it was written.
pub(in crate::edge::store) fn read(id: &str, text: &str, used_at: i64) -> Result<KeyRecord, RowError> {
    let wrong = |reason: String| RowError { id: id.into(), reason };
    let row: Row = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let more = row.more.map(|more| details(id, *more)).transpose().map_err(wrong)?;
    Ok(KeyRecord {
        id: id.into(),
        owner: uid(&row.owner).map_err(wrong)?,
        hash: hash(&row.hash).map_err(wrong)?,
        version: row.version,
        created_at: Timestamp::from_millis(row.created_at),
        expires_at: row.expires_at.map(Timestamp::from_millis),
        used_at: AtomicI64::new(used_at),
        more: more.map(Box::new),
    })
}

/// A password; its id is whose it is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordRow<'a> {
    #[serde(borrow)]
    hash: Cow<'a, str>,
    changed_at: i64,
}

/// The text of a password.
pub(in crate::edge::store) fn write_password(password: &PasswordRecord) -> String {
    let row = PasswordRow { hash: password.hash.expose().into(), changed_at: password.changed_at.as_millis() };
    serde_json::to_string(&row).unwrap_or_default()
}

/// The password of a text.
///
/// # Errors
/// Where it is not as it was written.
pub(in crate::edge::store) fn read_password(id: &str, text: &str) -> Result<PasswordRecord, RowError> {
    let wrong = |reason: String| RowError { id: id.into(), reason };
    // What serde says of a text might show it.
    let row: PasswordRow<'_> =
        serde_json::from_str(text).map_err(|error| wrong(format!("column {}", error.column())))?;
    Ok(PasswordRecord {
        principal: uid(id).map_err(wrong)?,
        hash: PasswordHash::parse(&row.hash).map_err(|error| wrong(error.to_string()))?,
        changed_at: Timestamp::from_millis(row.changed_at),
    })
}

fn details(id: &str, more: More) -> Result<KeyDetails, String> {
    let by = |text: Option<String>| text.map(|text| uid(&text)).transpose();
    let revoked = |(at, who, reason): (i64, Option<String>, SmolStr)| {
        let (at, by) = (Timestamp::from_millis(at), by(who)?);
        Ok::<_, String>(Revocation { at, by, reason: Some(reason).filter(|reason| !reason.is_empty()) })
    };
    let disabled = |(at, by): (i64, String)| Ok::<_, String>(Pause { at: Timestamp::from_millis(at), by: uid(&by)? });
    let limits = more.limits.as_deref().map_or_else(|| Ok(Vec::new()), |text| key_limits(id, text))?;
    Ok(KeyDetails {
        created_by: by(more.created_by)?,
        previous: more
            .previous
            .map(|(text, until)| Ok::<_, String>((hash(&text)?, Timestamp::from_millis(until))))
            .transpose()?,
        revoked: more.revoked.map(revoked).transpose()?,
        disabled: more.disabled.map(disabled).transpose()?,
        orphaned_at: more.orphaned_at.map(Timestamp::from_millis),
        note: more.note,
        tags: more.tags,
        roles: more.roles,
        metadata: more.metadata,
        inherited: more
            .inherited
            .map(|InheritedRow { teams, orgs, roles, tags }| Box::new(Inherited { teams, orgs, roles, tags })),
        payer: more.payer,
        narrowed: more.narrowed.map(narrowed).transpose()?.map(Arc::new),
        limits: limits.into(),
        limits_text: more.limits.map(Arc::from),
    })
}

fn narrowed(lists: Lists) -> Result<Narrowed, String> {
    let network = |text: &SmolStr| Network::parse(text).ok_or_else(|| format!("`{text}` is no network"));
    let path = |(path, methods)| AllowedPath { path, methods };
    Ok(Narrowed {
        models: lists.models,
        routers: lists.routers,
        actions: lists.actions,
        paths: lists.paths.map(|paths| paths.into_iter().map(path).collect()),
        networks: lists.networks.map(|list| list.iter().map(network).collect::<Result<_, _>>()).transpose()?,
    })
}

fn uid(text: &str) -> Result<EntityUid, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn hash(text: &str) -> Result<KeyHash, String> {
    parse_key_hash(text).ok_or_else(|| "a hash is none".to_owned())
}
