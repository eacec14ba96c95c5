//! What is sent about keys: members that are known, each said once, each with a bound. `null` takes back what a key says.
#![expect(clippy::option_option, reason = "what is not said, taken away by null, and said are three")]

use std::sync::Arc;

use serde::Serialize;
use serde::de::MapAccess;
use serde_json::Value;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::details;
use crate::edge::http::errors::ApiError;
use crate::edge::http::grammar::{Members, Trail, object};
use crate::model::strict_json::Strict;
use crate::model::{
    ADMINISTRATOR, AllowedPath, EntityUid, GATEWAY, KeyLimit, KeyRecord, Kind, MONITOR, Narrowed, Network, Timestamp,
    check_model_name, check_name,
};
use crate::policy::Snapshot;
use crate::policy::parse::key_limits;
use crate::policy::snapshot::ResourceName;

/// Most names of a list.
const MAX_NAMES: usize = 1_000;
/// Most texts of metadata.
const MAX_METADATA: usize = 64;
/// Longest note or reason.
const MAX_NOTE_BYTES: usize = 1_000;
/// Longest text of limits.
const MAX_LIMITS_BYTES: usize = 16 * 1024;
/// Longest grace, in seconds: a year.
const MAX_GRACE_SECONDS: u64 = 366 * 24 * 60 * 60;

const NAMES: &[&str] = &[
    "owner",
    "models",
    "routers",
    "actions",
    "paths",
    "networks",
    "limits",
    "tags",
    "roles",
    "metadata",
    "team",
    "expires_at",
    "note",
    "disabled",
    "reason",
    "grace_seconds",
];
/// The members that are allowed for a new key. `disabled` applies only to existing keys.
pub(super) const MAKE: &[&str] = NAMES.split_at(13).0;
/// The members of a key that may change, which excludes its owner.
pub(super) const CHANGE: &[&str] = NAMES.split_at(14).0.split_at(1).1;
pub(super) const REVOKE: &[&str] = &["reason"];
pub(super) const ROTATE: &[&str] = &["grace_seconds"];

type Names = Option<Box<[SmolStr]>>;

/// What was sent. Where a member may be taken back, the inner option is what is said.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) owner: Option<EntityUid>,
    pub(super) reason: Option<SmolStr>,
    pub(super) grace_ms: Option<i64>,
    pub(super) disabled: Option<bool>,
    models: Option<Names>,
    routers: Option<Names>,
    actions: Option<Names>,
    paths: Option<Option<Box<[AllowedPath]>>>,
    networks: Option<Option<Box<[Network]>>>,
    limits: Option<Option<Arc<str>>>,
    tags: Option<Names>,
    roles: Option<Names>,
    metadata: Option<Box<[(SmolStr, SmolStr)]>>,
    team: Option<Option<SmolStr>>,
    expires_at: Option<Option<Timestamp>>,
    note: Option<Option<SmolStr>>,
}

impl Wish {
    /// Reads a body of these members; none at all is as `{}`.
    pub(super) fn read(body: &[u8], taken: &'static [&'static str]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let trail = Trail::default();
        trail.read(body, object(WishMembers { trail: &trail, taken, wish: Self::default() }))
    }

    /// Names of its lists that mean nothing in the bundle: typing mistakes, most of them.
    pub(super) fn unknown_names(&self, snapshot: &Snapshot) -> Vec<Unknown> {
        let listed = |list: &Option<Names>| list.clone().flatten().unwrap_or_default();
        let models = listed(&self.models).into_iter().enumerate().filter_map(|(at, name)| {
            let reason = unknown_model(&name, snapshot)?;
            Some(Unknown { param: format!("models[{at}]"), message: format!("`{}` {reason}", name.escape_debug()) })
        });
        let routers = listed(&self.routers).into_iter().enumerate().filter_map(|(at, name)| {
            let router = Kind::ROUTER.uid(name.clone()).ok();
            let is_known = name == "*" || router.is_some_and(|router| snapshot.declares(&router));
            let message = || format!("the bundle declares no router `{}`", name.escape_debug());
            (!is_known).then(|| Unknown { param: format!("routers[{at}]"), message: message() })
        });
        models.chain(routers).collect()
    }

    /// Puts what is said into `key`.
    pub(super) fn apply(self, key: &mut KeyRecord, snapshot: &Snapshot, now: Timestamp) -> Result<(), ApiError> {
        if let Some(expires_at) = self.expires_at {
            if expires_at.is_some_and(|end| end <= now) {
                return Err(ApiError::invalid("expires_at", "this instant is past; revoke a key to end it now"));
            }
            key.expires_at = expires_at;
        }
        if let Some(Some(team)) = &self.team {
            let uid = EntityUid::new("Team", team.clone()).map_err(|error| ApiError::from(error).within("team"))?;
            let is_inherited = key.details().inherited.as_ref().is_some_and(|more| more.teams.contains(team));
            let may_pay = snapshot.is_in(&key.owner, &uid) || (is_inherited && snapshot.declares(&uid));
            if !may_pay {
                let message = format!("{} is not in the team `{team}`, which so cannot pay for its key", key.owner);
                return Err(ApiError::invalid("team", message));
            }
        }
        let actions = match self.actions {
            Some(Some(names)) => Some(Some(actions(&names, snapshot)?)),
            other => other,
        };
        let limits = match &self.limits {
            Some(Some(text)) => {
                let limits = key_limits(&key.id, text).map_err(|message| ApiError::invalid("limits", message))?;
                Some((Arc::from(limits), Some(Arc::clone(text))))
            }
            Some(None) => Some((Arc::<[KeyLimit]>::default(), None)),
            None => None,
        };
        let details = details(key);
        let mut narrowed = details.narrowed.as_deref().cloned().unwrap_or_default();
        put(&mut narrowed.models, self.models);
        put(&mut narrowed.routers, self.routers);
        put(&mut narrowed.actions, actions);
        put(&mut narrowed.paths, self.paths);
        put(&mut narrowed.networks, self.networks);
        details.narrowed = Some(narrowed).filter(|narrowed| *narrowed != Narrowed::default()).map(Arc::new);
        if let Some((limits, text)) = limits {
            (details.limits, details.limits_text) = (limits, text);
        }
        put(&mut details.tags, self.tags.map(Option::unwrap_or_default));
        put(&mut details.roles, self.roles.map(Option::unwrap_or_default));
        put(&mut details.metadata, self.metadata);
        put(&mut details.payer, self.team);
        put(&mut details.note, self.note);
        Ok(())
    }
}

/// A name that means nothing in the bundle.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Unknown {
    pub(super) param: String,
    pub(super) message: String,
}

/// The error for a model name in a key's list, if there is one. In a bundle that declares no account, names in
/// undeclared accounts are accepted.
fn unknown_model(name: &SmolStr, snapshot: &Snapshot) -> Option<&'static str> {
    if name == "*" {
        return None;
    }
    let account = name.split_once('/').map(|(account, _)| account).filter(|account| !account.contains('*'));
    let account = account.and_then(|account| Kind::PROVIDER_ACCOUNT.uid(account).ok());
    let is_declared = account.as_ref().is_some_and(|account| snapshot.declares(account));
    if let Some(account) = account.filter(|_| !is_declared)
        && snapshot.counts().provider_accounts > 0
        && !snapshot.has_models_in(account.id())
    {
        return Some("is in no declared provider account");
    }
    if name.ends_with("/*") && is_declared {
        return None;
    }
    if name.contains('*') {
        let any = snapshot.counts().models == 0 || snapshot.has_model_like(name);
        return (!any).then_some("matches no declared model");
    }
    matches!(snapshot.model(name), ResourceName::Unknown).then_some("is not a declared model or alias")
}

fn put<T>(place: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *place = said;
    }
}

/// Actions by name; a group is all that is in it.
fn actions(names: &[SmolStr], snapshot: &Snapshot) -> Result<Box<[SmolStr]>, ApiError> {
    let schema = snapshot.schema();
    let mut all: Vec<SmolStr> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let Some(action) = schema.action(name).and_then(|index| schema.action_at(index)) else {
            let param = format!("actions[{at}]");
            return Err(ApiError::invalid(param, format!("no action is called `{}`", name.escape_debug())));
        };
        let below = action.descendants.iter().filter_map(|index| schema.action_at(index));
        all.extend(below.filter(|action| !action.principals.is_empty()).map(|action| action.name.clone()));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all.into())
}

/// Who can have keys.
pub(super) fn check_owner(owner: &EntityUid) -> Result<(), ApiError> {
    match owner.kind() {
        "User" | "Service" | "Team" | "Org" => Ok(()),
        kind => {
            let message = format!("a key belongs to a User, Service, Team or Org, not to a {kind}");
            Err(ApiError::invalid("owner", message))
        }
    }
}

struct WishMembers<'t> {
    trail: &'t Trail,
    taken: &'static [&'static str],
    wish: Wish,
}

impl<'de, 't> Members<'de, 't> for WishMembers<'t> {
    const WHAT: &'static str = "an object that says something of a key";
    const NAMES: &'static [&'static str] = NAMES;
    type Value = Wish;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        if !self.taken.contains(&name) {
            let message = format!("this path takes no `{name}`; its members are {}", self.taken.join(", "));
            return Err(trail.fail(ApiError::invalid("", message)));
        }
        let wrong = |error: ApiError| trail.fail(error);
        let wish = &mut self.wish;
        if name == "limits" {
            let raw: &RawValue = map.next_value()?;
            wish.limits = Some(limits_text(raw.get()).map_err(wrong)?);
            return Ok(());
        }
        let value = map.next_value_seed(Strict)?;
        match name {
            "owner" => wish.owner = Some(uid(&value).map_err(wrong)?),
            "models" => wish.models = Some(list(&value, model_name).map_err(wrong)?),
            "routers" => wish.routers = Some(names(&value).map_err(wrong)?),
            "actions" => wish.actions = Some(names(&value).map_err(wrong)?),
            "paths" => wish.paths = Some(list(&value, path).map_err(wrong)?),
            "networks" => wish.networks = Some(list(&value, network).map_err(wrong)?),
            "tags" => wish.tags = Some(names(&value).map_err(wrong)?),
            "roles" => wish.roles = Some(list(&value, role).map_err(wrong)?),
            "metadata" => wish.metadata = Some(metadata(&value).map_err(wrong)?),
            "team" => wish.team = Some(some(&value, name_of).map_err(wrong)?),
            "expires_at" => wish.expires_at = Some(some(&value, instant).map_err(wrong)?),
            "disabled" => wish.disabled = Some(value.as_bool().ok_or_else(|| wrong(boolean()))?),
            "note" => wish.note = Some(some(&value, note).map_err(wrong)?),
            "reason" => wish.reason = Some(note(&value).map_err(wrong)?),
            _ => wish.grace_ms = Some(grace(&value).map_err(wrong)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Wish, ApiError> {
        Ok(self.wish)
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::invalid("", message))
}

fn boolean() -> ApiError {
    ApiError::invalid("", "this is `true` or `false`")
}

fn some<T>(value: &Value, read: fn(&Value) -> Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    if value.is_null() { Ok(None) } else { read(value).map(Some) }
}

/// A list of something, or `null` for none.
fn list<T>(value: &Value, read: fn(&Value) -> Result<T, ApiError>) -> Result<Option<Box<[T]>>, ApiError> {
    let items = match value {
        Value::Null => return Ok(None),
        Value::Array(items) if items.is_empty() => {
            return invalid("an empty list says neither all nor none; `null` takes the list back");
        }
        Value::Array(items) if items.len() > MAX_NAMES => {
            return invalid(format!("a list has {MAX_NAMES} items at most"));
        }
        Value::Array(items) => items,
        _ => return invalid("this is a list"),
    };
    let read = |(at, item)| read(item).map_err(|error| error.within(&format!("[{at}]")));
    items.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

fn names(value: &Value) -> Result<Names, ApiError> {
    list(value, name_of)
}

fn model_name(value: &Value) -> Result<SmolStr, ApiError> {
    let name = name_of(value)?;
    check_model_name(&name).map_or_else(|error| invalid(error.to_string()), |()| Ok(name))
}

fn name_of(value: &Value) -> Result<SmolStr, ApiError> {
    let Some(name) = value.as_str() else { return invalid("this is a name, a text") };
    match check_name(name) {
        Ok(()) => Ok(name.into()),
        Err(error) => invalid(error.to_string()),
    }
}

fn uid(value: &Value) -> Result<EntityUid, ApiError> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    match (value, value.as_object().map(serde_json::Map::len)) {
        (Value::String(text), _) => text.parse::<EntityUid>().map_err(ApiError::from),
        (_, Some(2)) => match (text("type"), text("id")) {
            (Some(kind), Some(id)) => EntityUid::new(kind, id).map_err(ApiError::from),
            _ => invalid("an owner is {\"type\": …, \"id\": …} or a uid such as \"User::\\\"alice\\\"\""),
        },
        _ => invalid("an owner is {\"type\": …, \"id\": …} or a uid such as \"User::\\\"alice\\\"\""),
    }
}

/// `"/v1/*"`, or `{"path": "/v1/models", "methods": ["GET"]}`.
fn path(value: &Value) -> Result<AllowedPath, ApiError> {
    let form = "a path is a text that begins with `/`, or {\"path\": …, \"methods\": [\"POST\"]}";
    let (path, methods) = match value {
        Value::String(path) => (path.as_str(), None),
        Value::Object(members) if members.keys().all(|name| name == "path" || name == "methods") => {
            let Some(path) = members.get("path").and_then(Value::as_str) else { return invalid(form) };
            (path, members.get("methods"))
        }
        _ => return invalid(form),
    };
    let methods = match methods {
        Some(methods) => list(methods, method).map_err(|error| error.within("methods"))?.unwrap_or_default(),
        None => Box::default(),
    };
    AllowedPath::new(path, methods).map_or_else(|| invalid(form), Ok)
}

fn method(value: &Value) -> Result<SmolStr, ApiError> {
    let method = value.as_str().filter(|text| AllowedPath::is_method(text));
    method.map_or_else(|| invalid("a method is a word in capitals, such as \"POST\""), |method| Ok(method.into()))
}

fn network(value: &Value) -> Result<Network, ApiError> {
    let network = value.as_str().and_then(Network::parse);
    network.map_or_else(|| invalid("a network is a text such as \"10.0.0.0/8\" or \"2001:db8::1\""), Ok)
}

/// Keys have no roles but Tollgate's own: those of a company are a person's.
fn role(value: &Value) -> Result<SmolStr, ApiError> {
    let known = [ADMINISTRATOR, GATEWAY, MONITOR];
    let role = value.as_str().filter(|role| known.contains(role));
    role.map_or_else(|| invalid(format!("a key's roles are of {}", known.join(", "))), |role| Ok(role.into()))
}

fn metadata(value: &Value) -> Result<Box<[(SmolStr, SmolStr)]>, ApiError> {
    let members = match value {
        Value::Null => return Ok(Box::default()),
        Value::Object(members) if members.len() <= MAX_METADATA => members,
        _ => return invalid(format!("metadata is an object of {MAX_METADATA} texts at most")),
    };
    let read = |(name, value): (&String, &Value)| {
        let text = value.as_str().filter(|text| check_name(name).is_ok() && check_name(text).is_ok());
        let wrong = || ApiError::invalid("", "metadata is texts by name, each of 1 to 1024 bytes");
        Ok((SmolStr::new(name), SmolStr::new(text.ok_or_else(wrong)?)))
    };
    members.iter().map(read).collect()
}

fn instant(value: &Value) -> Result<Timestamp, ApiError> {
    let instant = value.as_str().and_then(Timestamp::parse);
    instant.map_or_else(|| invalid("an instant is a text such as \"2027-01-01T00:00:00Z\""), Ok)
}

fn note(value: &Value) -> Result<SmolStr, ApiError> {
    let text = value.as_str().filter(|text| (1..=MAX_NOTE_BYTES).contains(&text.len()));
    match text.filter(|text| !text.chars().any(char::is_control)) {
        Some(text) => Ok(text.into()),
        None => invalid(format!("this is a text of 1 to {MAX_NOTE_BYTES} bytes without control characters")),
    }
}

fn grace(value: &Value) -> Result<i64, ApiError> {
    let seconds = value.as_u64().filter(|seconds| *seconds <= MAX_GRACE_SECONDS);
    let ms = seconds.and_then(|seconds| i64::try_from(seconds * 1000).ok());
    ms.map_or_else(|| invalid(format!("`grace_seconds` is 0 to {MAX_GRACE_SECONDS}")), Ok)
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
