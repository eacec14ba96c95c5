//! The bodies of `/v1/keys`. In a change, null removes a member of the key.
#![expect(clippy::option_option, reason = "absent, null and a value are three cases")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::super::errors::ApiError;
use super::amounts::Whole;
use super::json::{Bounded, Optional, RequestBody, Text, read};
use super::uid::{Uid, uid};
use crate::model::{
    ADMINISTRATOR, AllowedPath, EntityUid, GATEWAY, MONITOR, Network, Timestamp, check_model_name, check_name,
    strict_json,
};

/// Most items of a list.
const MAX_NAMES: usize = 1_000;
/// Most texts of metadata.
const MAX_METADATA: usize = 64;
/// Longest note or reason.
const MAX_NOTE_BYTES: usize = 1_000;
/// Longest text of limits.
const MAX_LIMITS_BYTES: usize = 16 * 1024;
/// Longest grace, in seconds: a year.
const MAX_GRACE_SECONDS: u64 = 366 * 24 * 60 * 60;
const PATH_FORM: &str = "a path is a text that begins with `/`, or {\"path\": …, \"methods\": [\"POST\"]}";
/// The form of the body, for errors.
const KEY: &str = "an object with members of a key";

/// A member that may be absent, or null.
type Nullable<T> = Optional<Option<T>>;
type List<T> = Nullable<Bounded<T, MAX_NAMES>>;

/// The members of a key that a request may set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenKey<'a> {
    /// The owner of a new key; the caller itself if absent.
    #[serde(default, borrow)]
    owner: Optional<Uid<'a>>,
    /// Models as rules name them: `account/model`, an alias, `account/*`.
    #[serde(default, borrow)]
    #[schemars(extend("minItems" = 1))]
    models: List<Text<'a>>,
    #[serde(default, borrow)]
    #[schemars(extend("minItems" = 1))]
    routers: List<Text<'a>>,
    /// Actions, or groups such as `use`.
    #[serde(default, borrow)]
    #[schemars(extend("minItems" = 1))]
    actions: List<Text<'a>>,
    /// Paths of the gateway; a `*` at the end takes every rest.
    #[serde(default, borrow)]
    #[schemars(extend("minItems" = 1))]
    paths: List<WrittenPath<'a>>,
    /// Networks that `context.ip` must be in.
    #[serde(default, borrow)]
    #[schemars(extend("minItems" = 1))]
    networks: List<Text<'a>>,
    /// Limits as in a bundle, without selectors; at most 16.
    #[serde(default, borrow)]
    #[schemars(with = "Option<Vec<serde_json::Map<String, Value>>>")]
    limits: Optional<&'a RawValue>,
    #[serde(default, borrow)]
    #[schemars(extend("minItems" = 1))]
    tags: List<Text<'a>>,
    /// Roles out of `tollgate:administrator`, `tollgate:gateway` and `tollgate:monitor`.
    #[serde(default, borrow)]
    #[schemars(extend("minItems" = 1))]
    roles: List<Text<'a>>,
    /// At most 64 texts by name.
    #[serde(default, borrow)]
    #[schemars(with = "Option<BTreeMap<String, String>>", extend("maxProperties" = MAX_METADATA))]
    metadata: Optional<&'a RawValue>,
    /// The team that pays.
    #[serde(default, borrow)]
    team: Nullable<Text<'a>>,
    #[serde(default, borrow)]
    #[schemars(extend("format" = "date-time"))]
    expires_at: Nullable<Text<'a>>,
    #[serde(default, borrow)]
    #[schemars(extend("maxLength" = MAX_NOTE_BYTES))]
    note: Nullable<Text<'a>>,
    /// Pauses the key, or lifts the pause.
    #[serde(default)]
    disabled: Optional<bool>,
}

impl RequestBody for WrittenKey<'_> {
    const EXPECTED: &'static str = KEY;
}

/// The members of a new key. `disabled` applies to existing keys alone.
pub(in super::super) struct NewKeyRequest;

/// The members of a key that may change, which excludes its owner.
pub(in super::super) struct ChangeKeyRequest;

impl JsonSchema for NewKeyRequest {
    fn schema_name() -> Cow<'static, str> {
        "NewKey".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        without("disabled", WrittenKey::json_schema(generator))
    }
}

impl JsonSchema for ChangeKeyRequest {
    fn schema_name() -> Cow<'static, str> {
        "KeyChange".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        without("owner", WrittenKey::json_schema(generator))
    }
}

fn without(name: &str, mut schema: Schema) -> Schema {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.remove(name);
    }
    schema
}

/// A path, or a path with methods.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub(in super::super) enum WrittenPath<'a> {
    Any(Text<'a>),
    WithMethods(PathWithMethods<'a>),
}

/// A path for these methods alone.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(in super::super) struct PathWithMethods<'a> {
    #[serde(borrow)]
    path: Text<'a>,
    /// Methods such as `POST`; all if absent.
    #[serde(default, borrow)]
    methods: List<Text<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for WrittenPath<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathVisitor)
    }
}

struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = WrittenPath<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text that begins with `/`, or {\"path\": …, \"methods\": [\"POST\"]}")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(WrittenPath::Any(Text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(WrittenPath::Any(Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        PathWithMethods::deserialize(MapAccessDeserializer::new(map)).map(WrittenPath::WithMethods)
    }
}

type Names = Option<Box<[SmolStr]>>;

/// The members that a request sets, checked. An outer `None` leaves a member of the key, an inner `None` removes it.
#[derive(Debug, Default)]
pub(in super::super) struct KeyMembers {
    pub(in super::super) owner: Option<EntityUid>,
    pub(in super::super) models: Option<Names>,
    pub(in super::super) routers: Option<Names>,
    pub(in super::super) actions: Option<Names>,
    pub(in super::super) paths: Option<Option<Box<[AllowedPath]>>>,
    pub(in super::super) networks: Option<Option<Box<[Network]>>>,
    pub(in super::super) limits: Option<Option<Arc<str>>>,
    pub(in super::super) tags: Option<Names>,
    pub(in super::super) roles: Option<Names>,
    pub(in super::super) metadata: Option<Box<[(SmolStr, SmolStr)]>>,
    pub(in super::super) team: Option<Option<SmolStr>>,
    pub(in super::super) expires_at: Option<Option<Timestamp>>,
    pub(in super::super) note: Option<Option<SmolStr>>,
    pub(in super::super) disabled: Option<bool>,
}

/// Reads the members of a new key.
pub(in super::super) fn new_key(body: &[u8]) -> Result<KeyMembers, ApiError> {
    let members = key_members(body)?;
    if members.disabled.is_some() {
        return Err(ApiError::invalid("disabled", "this path takes no `disabled`: a new key is not paused"));
    }
    Ok(members)
}

/// Reads the members of a key that are to change.
pub(in super::super) fn change_key(body: &[u8]) -> Result<KeyMembers, ApiError> {
    let members = key_members(body)?;
    if members.owner.is_some() {
        return Err(ApiError::invalid("owner", "this path takes no `owner`: a key keeps its owner"));
    }
    Ok(members)
}

fn key_members(body: &[u8]) -> Result<KeyMembers, ApiError> {
    read::<WrittenKey>(or_empty(body))?.try_into()
}

/// An empty body is as an empty object.
fn or_empty(body: &[u8]) -> &[u8] {
    if body.is_empty() { b"{}" } else { body }
}

impl TryFrom<WrittenKey<'_>> for KeyMembers {
    type Error = ApiError;

    fn try_from(written: WrittenKey<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            owner: written.owner.0.map(|written| uid(written, "owner")).transpose()?,
            models: list(written.models, "models", model_name)?,
            routers: list(written.routers, "routers", name)?,
            actions: list(written.actions, "actions", name)?,
            paths: list(written.paths, "paths", path)?,
            networks: list(written.networks, "networks", network)?,
            limits: single(written.limits, "limits", |raw| limits_text(raw.get()))?,
            tags: list(written.tags, "tags", name)?,
            roles: list(written.roles, "roles", role)?,
            metadata: single(written.metadata, "metadata", metadata)?,
            team: single(written.team, "team", |team| team.map(name).transpose())?,
            expires_at: single(written.expires_at, "expires_at", |at| at.map(instant).transpose())?,
            note: single(written.note, "note", |text| text.map(note).transpose())?,
            disabled: written.disabled.0,
        })
    }
}

/// Why a key is revoked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Revoke")]
pub(in super::super) struct RevokeRequest<'a> {
    #[serde(default, borrow)]
    #[schemars(extend("minLength" = 1, "maxLength" = MAX_NOTE_BYTES))]
    reason: Optional<Text<'a>>,
}

impl RequestBody for RevokeRequest<'_> {
    const EXPECTED: &'static str = "an object with `reason`";
}

/// Reads the reason of a revocation.
pub(in super::super) fn revoke(body: &[u8]) -> Result<Option<SmolStr>, ApiError> {
    single(read::<RevokeRequest>(or_empty(body))?.reason, "reason", note)
}

/// For how long the old secret of a key remains valid.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rotate")]
pub(in super::super) struct RotateRequest {
    /// For how many seconds the previous secret stays valid.
    #[serde(default)]
    #[schemars(extend("maximum" = MAX_GRACE_SECONDS, "default" = 0))]
    grace_seconds: Optional<Whole>,
}

impl RequestBody for RotateRequest {
    const EXPECTED: &'static str = "an object with `grace_seconds`";
}

/// Reads the grace of a rotation, in milliseconds.
pub(in super::super) fn rotate(body: &[u8]) -> Result<i64, ApiError> {
    let grace = read::<RotateRequest>(or_empty(body))?.grace_seconds;
    Ok(single(grace, "grace_seconds", grace_ms)?.unwrap_or(0))
}

fn invalid<T>(message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::invalid("", message))
}

/// Checks the member `param` if it is there.
fn single<W, T>(
    written: Optional<W>,
    param: &str,
    check: impl Fn(W) -> Result<T, ApiError>,
) -> Result<Option<T>, ApiError> {
    written.0.map(check).transpose().map_err(|error| error.within(param))
}

/// Checks the list `param` if it is there, item by item.
fn list<W, T>(
    written: List<W>,
    param: &str,
    check: impl Fn(W) -> Result<T, ApiError>,
) -> Result<Option<Option<Box<[T]>>>, ApiError> {
    let items = |written: Option<Bounded<W, MAX_NAMES>>| {
        let Some(items) = written else { return Ok(None) };
        match items.items() {
            None => invalid(format!("a list has {MAX_NAMES} items at most")),
            Some(items) if items.is_empty() => {
                invalid("an empty list says neither all nor none; `null` takes the list back")
            }
            Some(items) => {
                let item = |(at, item)| check(item).map_err(|error| error.within(&format!("[{at}]")));
                items.into_iter().enumerate().map(item).collect::<Result<_, _>>().map(Some)
            }
        }
    };
    single(written, param, items)
}

#[expect(clippy::needless_pass_by_value, reason = "all checks of items take the item")]
fn name(written: Text<'_>) -> Result<SmolStr, ApiError> {
    check_name(&written.0).map_or_else(|error| invalid(error.to_string()), |()| Ok(SmolStr::new(&written.0)))
}

fn model_name(written: Text<'_>) -> Result<SmolStr, ApiError> {
    let name = name(written)?;
    check_model_name(&name).map_or_else(|error| invalid(error.to_string()), |()| Ok(name))
}

fn path(written: WrittenPath<'_>) -> Result<AllowedPath, ApiError> {
    let (path, methods) = match written {
        WrittenPath::Any(path) => (path, None),
        WrittenPath::WithMethods(PathWithMethods { path, methods }) => {
            (path, list(methods, "methods", method)?.flatten())
        }
    };
    AllowedPath::new(&path.0, methods.unwrap_or_default()).map_or_else(|| invalid(PATH_FORM), Ok)
}

fn method(written: Text<'_>) -> Result<SmolStr, ApiError> {
    if AllowedPath::is_method(&written.0) {
        return Ok(SmolStr::from(written.0));
    }
    invalid("a method is a word in capitals, such as \"POST\"")
}

#[expect(clippy::needless_pass_by_value, reason = "all checks of items take the item")]
fn network(written: Text<'_>) -> Result<Network, ApiError> {
    let form = "a network is a text such as \"10.0.0.0/8\" or \"2001:db8::1\"";
    Network::parse(&written.0).map_or_else(|| invalid(form), Ok)
}

/// Keys have no roles except Tollgate's own. Other roles belong to persons.
fn role(written: Text<'_>) -> Result<SmolStr, ApiError> {
    let known = [ADMINISTRATOR, GATEWAY, MONITOR];
    if known.contains(&&*written.0) {
        return Ok(SmolStr::from(written.0));
    }
    invalid(format!("a key's roles are of {}", known.join(", ")))
}

/// Checks metadata, which derived maps would take with a name twice.
fn metadata(written: &RawValue) -> Result<Box<[(SmolStr, SmolStr)]>, ApiError> {
    let members = match strict_json::from_str(written.get()) {
        Ok(Value::Null) => return Ok(Box::default()),
        Ok(Value::Object(members)) if members.len() <= MAX_METADATA => members,
        Ok(_) => return invalid(format!("metadata is an object of {MAX_METADATA} texts at most")),
        Err(error) => return invalid(error.to_string()),
    };
    let read = |(name, value): (&String, &Value)| {
        let text = value.as_str().filter(|text| check_name(name).is_ok() && check_name(text).is_ok());
        let wrong = || ApiError::invalid("", "metadata is texts by name, each of 1 to 1024 bytes");
        Ok((SmolStr::new(name), SmolStr::new(text.ok_or_else(wrong)?)))
    };
    members.iter().map(read).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "all checks of members take the member")]
fn instant(written: Text<'_>) -> Result<Timestamp, ApiError> {
    let form = "an instant is a text such as \"2027-01-01T00:00:00Z\"";
    Timestamp::parse(&written.0).map_or_else(|| invalid(form), Ok)
}

fn note(written: Text<'_>) -> Result<SmolStr, ApiError> {
    let is_note = (1..=MAX_NOTE_BYTES).contains(&written.0.len()) && !written.0.chars().any(char::is_control);
    if is_note {
        return Ok(SmolStr::from(written.0));
    }
    invalid(format!("this is a text of 1 to {MAX_NOTE_BYTES} bytes without control characters"))
}

fn grace_ms(written: Whole) -> Result<i64, ApiError> {
    let Whole::NotNegative(seconds @ ..=MAX_GRACE_SECONDS) = written else {
        return invalid(format!("`grace_seconds` is 0 to {MAX_GRACE_SECONDS}"));
    };
    i64::try_from(seconds * 1000).map_or_else(|error| invalid(error.to_string()), Ok)
}

/// Limits as they were written, without the spaces between: amounts must not be read as floating point.
fn limits_text(raw: &str) -> Result<Option<Arc<str>>, ApiError> {
    if raw == "null" {
        return Ok(None);
    }
    if raw.len() > MAX_LIMITS_BYTES {
        return invalid(format!("limits are written in {MAX_LIMITS_BYTES} bytes at most"));
    }
    let (mut text, mut in_text, mut escaped) = (String::with_capacity(raw.len()), false, false);
    for character in raw.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            ' ' | '\t' | '\r' | '\n' if !in_text => continue,
            _ => {}
        }
        text.push(character);
        // YAML, which the limits are read as, wants a space behind a colon.
        if character == ':' && !in_text {
            text.push(' ');
        }
    }
    Ok(Some(text.into()))
}
