//! Entity uids and actions as they are written.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use smol_str::SmolStr;

use super::super::errors::ApiError;
use super::json::Text;
use crate::model::EntityUid;

/// Longest `action`.
const MAX_ACTION_BYTES: usize = 1024;

/// An entity.
#[derive(Clone, JsonSchema)]
#[schemars(untagged, rename = "Uid")]
pub(super) enum Uid<'a> {
    /// Its type and its id.
    Parts(UidParts<'a>),
    /// A Cedar uid such as `User::"alice"`.
    Text(#[schemars(with = "String")] Cow<'a, str>),
}

/// An entity by its type and its id.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UidParts<'a> {
    /// User, Service, ApiKey, Model, Router, …
    #[serde(rename = "type", borrow)]
    #[schemars(length(max = 1024))]
    kind: Text<'a>,
    /// The id within the type.
    #[serde(borrow)]
    #[schemars(length(min = 1, max = 1024))]
    id: Text<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Uid<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UidVisitor)
    }
}

struct UidVisitor;

impl<'de> Visitor<'de> for UidVisitor {
    type Value = Uid<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{\"type\": …, \"id\": …} or an entity uid such as \"User::\\\"alice\\\"\"")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Uid<'de>, E> {
        Ok(Uid::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Uid<'de>, E> {
        Ok(Uid::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Uid<'de>, A::Error> {
        UidParts::deserialize(MapAccessDeserializer::new(map)).map(Uid::Parts)
    }
}

impl TryFrom<Uid<'_>> for EntityUid {
    type Error = ApiError;

    fn try_from(written: Uid<'_>) -> Result<Self, ApiError> {
        let uid = match written {
            Uid::Text(text) => text.parse(),
            Uid::Parts(UidParts { kind, id }) => Self::new(SmolStr::from(kind.0), SmolStr::from(id.0)),
        };
        uid.map_err(ApiError::from)
    }
}

/// Checks the member `param`.
pub(super) fn uid(written: Uid<'_>, param: &'static str) -> Result<EntityUid, ApiError> {
    EntityUid::try_from(written).map_err(|error| error.within(param))
}

/// Checks the member `param`, which must be a Cedar uid.
pub(super) fn uid_text(written: &Text<'_>, param: &'static str) -> Result<EntityUid, ApiError> {
    written.0.parse::<EntityUid>().map_err(|error| ApiError::from(error).within(param))
}

/// Checks a member `action`.
pub(super) fn action(written: &Text<'_>) -> Result<SmolStr, ApiError> {
    match written.0.len() {
        1..=MAX_ACTION_BYTES => Ok(SmolStr::new(&written.0)),
        _ => Err(ApiError::invalid("action", format!("an action is a text of 1 to {MAX_ACTION_BYTES} bytes"))),
    }
}
