//! Reads JSON bodies into the types of this folder.
//!
//! A good body is parsed once, straight into its type. Only a body that does not fit is parsed a second time, to find
//! the path of the member that is wrong: keeping that path costs time, and nearly every body is good.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_path_to_error::{Path, Segment};

use super::super::errors::{ApiError, joined};
use crate::policy::problem::nearest;

/// Most characters of a member's name that an error shows.
const MAX_SHOWN_NAME: usize = 80;
/// Members whose content the caller chooses freely. A path ends at them.
const FREE_FORM: &str = "context";

/// A request body, which is one JSON object.
pub(super) trait RequestBody {
    /// The form of the body, for the error about a body that is not an object.
    const EXPECTED: &'static str;
}

/// Reads the body of a request.
pub(in super::super) fn read<'de, T: RequestBody + Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    // UTF-8 is checked once for the whole body, and not again for each string.
    let text = std::str::from_utf8(body)
        .map_err(|error| ApiError::invalid("", format!("the body is not JSON: it is not UTF-8: {error}")))?;
    match serde_json::from_str::<Object<T>>(text) {
        Ok(object) => Ok(object.0),
        Err(error) => Err(refusal::<T>(text, &error, &error.to_string())),
    }
}

/// Reads an item of a body. Its errors have no line and column, which would count from the beginning of the item.
pub(super) fn read_item<'de, T: RequestBody + Deserialize<'de>>(item: &'de RawValue) -> Result<T, ApiError> {
    match serde_json::from_str::<Object<T>>(item.get()) {
        Ok(object) => Ok(object.0),
        Err(error) => Err(refusal::<T>(item.get(), &error, without_position(&error, &error.to_string()))),
    }
}

/// The message of an error without the place at its end.
fn without_position<'m>(error: &serde_json::Error, message: &'m str) -> &'m str {
    let position = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&position).unwrap_or(message)
}

/// The error for a text that is not a `T`, with the message of `error` as it is shown.
#[cold]
fn refusal<'de, T: RequestBody + Deserialize<'de>>(
    text: &'de str,
    error: &serde_json::Error,
    message: &str,
) -> ApiError {
    if !error.is_data() {
        // Invalid JSON is not about a member.
        return ApiError::invalid("", format!("the body is not JSON: {message}"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let param = match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) {
        Err(again) => param(again.path()),
        // INVARIANT: deserializing is deterministic, so the second time fails as the first did.
        Ok(_) => String::new(),
    };
    match MemberProblem::of(without_position(error, message)) {
        // The path of an unknown member ends with its name.
        Some(MemberProblem::Unknown { name, known }) => ApiError::invalid(param, unknown(name, &known)),
        Some(MemberProblem::Duplicate(name)) => {
            ApiError::invalid(joined(&param, name), format!("the member `{name}` stands twice"))
        }
        Some(MemberProblem::Missing(name)) => super::missing(name).within(&param),
        None => ApiError::invalid(param, message),
    }
}

/// A path as `param` has it, such as `requests[3].action`.
fn param(path: &Path) -> String {
    let mut param = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => param = joined(&param, &format!("[{index}]")),
            Segment::Map { key } => param = joined(&param, &shown(key)),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
        if param == FREE_FORM {
            break;
        }
    }
    param
}

fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN_NAME).flat_map(char::escape_debug).collect()
}

fn unknown(name: &str, known: &[&str]) -> String {
    let name = shown(name);
    let help = match nearest(&name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the members are {}", known.join(", ")),
    };
    format!("no member is called `{name}`; {help}")
}

/// What derived types report about members. serde has no structured form of it, only the text of the methods of
/// [`serde::de::Error`]; a test makes these errors by the methods themselves.
#[derive(Debug, PartialEq, Eq)]
enum MemberProblem<'m> {
    Unknown { name: &'m str, known: Vec<&'m str> },
    Duplicate(&'m str),
    Missing(&'m str),
}

impl<'m> MemberProblem<'m> {
    fn of(message: &'m str) -> Option<Self> {
        let quoted = |kind| message.strip_prefix(kind).and_then(|name| name.strip_suffix('`'));
        if let Some(name) = quoted("duplicate field `") {
            return Some(Self::Duplicate(name));
        }
        if let Some(name) = quoted("missing field `") {
            return Some(Self::Missing(name));
        }
        // The name is the caller's and may hold anything; the list behind it is ours.
        let (name, expected) = message.strip_prefix("unknown field `")?.rsplit_once("`, expected ")?;
        Some(Self::Unknown { name, known: expected.split('`').skip(1).step_by(2).collect() })
    }
}

/// A type that is written as an object. The types that serde derives also take lists of their members' values.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: RequestBody + Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: RequestBody + Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

impl<T: JsonSchema> JsonSchema for Object<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A member that may be absent, but not null. `Option` would read null as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Optional<T>(pub(super) Option<T>);

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Optional<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

impl<T: JsonSchema> JsonSchema for Optional<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A string, borrowed from the body unless it has escapes.
#[derive(Clone)]
pub(in super::super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

impl JsonSchema for Text<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "String".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// A string that is a secret. Errors about it do not quote it.
pub(super) struct Secret<'a>(pub(super) Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Secret<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(Self).map_err(|_quotes_it| D::Error::custom("this is a string"))
    }
}

impl JsonSchema for Secret<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// A list of at most `MAX` items. Further items are parsed as JSON and not kept, so that a long list takes no memory.
pub(super) struct Bounded<T, const MAX: usize> {
    items: Vec<T>,
    is_longer: bool,
}

impl<T, const MAX: usize> Bounded<T, MAX> {
    /// The items; `None` if there were more than `MAX`.
    pub(super) fn items(self) -> Option<Vec<T>> {
        Some(self.items).filter(|_| !self.is_longer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = Bounded<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX {
            match list.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(Bounded { items, is_longer: false }),
            }
        }
        let mut is_longer = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_longer = true;
        }
        Ok(Bounded { items, is_longer })
    }
}

impl<T: JsonSchema, const MAX: usize> JsonSchema for Bounded<T, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Vec::<T>::json_schema(generator);
        schema.insert("maxItems".to_owned(), MAX.into());
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_members_are_read_from_what_serde_reports() {
        type Error = serde_json::Error;
        let message = Error::unknown_field("a`, expected `b", &["x", "y", "z"]).to_string();
        let known = vec!["x", "y", "z"];
        assert_eq!(MemberProblem::of(&message), Some(MemberProblem::Unknown { name: "a`, expected `b", known }));
        for known in [&["x"] as &'static [&'static str], &["x", "y"]] {
            let message = Error::unknown_field("a", known).to_string();
            assert_eq!(MemberProblem::of(&message), Some(MemberProblem::Unknown { name: "a", known: known.to_vec() }));
        }
        let message = Error::duplicate_field("x").to_string();
        assert_eq!(MemberProblem::of(&message), Some(MemberProblem::Duplicate("x")));
        let message = Error::missing_field("x").to_string();
        assert_eq!(MemberProblem::of(&message), Some(MemberProblem::Missing("x")));
        assert_eq!(MemberProblem::of("invalid type: null, expected a string"), None);
    }
}
