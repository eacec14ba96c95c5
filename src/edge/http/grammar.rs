//! The grammar of what is sent: objects whose members are known and said once, texts of one form, lists with a limit.
//!
//! What is wrong is told with the member's name. Names are put together only then, on the way out of the nesting
//! ([`Trail`]), so that a good request costs nothing more.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smol_str::SmolStr;

use super::errors::{ApiError, joined};
use crate::model::EntityUid;
use crate::policy::problem::nearest;

/// Longest `action` that is looked up.
const MAX_ACTION_BYTES: usize = 1024;

/// Where the reader is when something is wrong, and what it is.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// The names of the members it is in, innermost first.
    names: RefCell<Vec<String>>,
    /// What was wrong, where that is more than a text for a person.
    error: RefCell<Option<ApiError>>,
}

impl Trail {
    pub(super) fn read<'de, S: DeserializeSeed<'de>>(&self, text: &'de [u8], seed: S) -> Result<S::Value, ApiError> {
        // Looked at once as a whole, it need not be looked at again text by text.
        let text = std::str::from_utf8(text)
            .map_err(|error| ApiError::invalid("", format!("the body is not JSON: it is not UTF-8: {error}")))?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        value.map_err(|error| self.error(&error))
    }

    fn error(&self, error: &serde_json::Error) -> ApiError {
        let param = self.names.take().iter().rev().fold(String::new(), |outer, inner| joined(&outer, inner));
        match self.error.take() {
            Some(error) => error.within(&param),
            // What is wrong with the text as JSON is not about a member.
            None if error.is_data() => ApiError::invalid(param, error.to_string()),
            None => ApiError::invalid("", format!("the body is not JSON: {error}")),
        }
    }

    /// Notes what is wrong; serde's own error is but the way out.
    pub(super) fn fail<E: Error>(&self, error: ApiError) -> E {
        let message = E::custom(&error.message);
        self.error.replace(Some(error));
        message
    }

    fn leave<E>(&self, name: impl Into<String>, error: E) -> E {
        self.names.borrow_mut().push(name.into());
        error
    }
}

/// An object of known members.
pub(super) trait Members<'de, 't>: Sized {
    const WHAT: &'static str;
    /// At most 64.
    const NAMES: &'static [&'static str];
    type Value;

    fn trail(&self) -> &'t Trail;
    /// Reads the member `name`.
    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error>;
    /// Whether what must be there is.
    fn finish(self) -> Result<Self::Value, ApiError>;
}

/// Reads [`Members`], each known and said once.
pub(super) struct Object<'t, M> {
    members: M,
    trail: &'t Trail,
}

pub(super) fn object<'de, 't, M: Members<'de, 't>>(members: M) -> Object<'t, M> {
    Object { trail: members.trail(), members }
}

impl<'de, 't, M: Members<'de, 't>> DeserializeSeed<'de> for Object<'t, M> {
    type Value = M::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<M::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, 't, M: Members<'de, 't>> Visitor<'de> for Object<'t, M> {
    type Value = M::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(M::WHAT)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<M::Value, A::Error> {
        let trail = self.trail;
        let mut seen = 0_u64;
        while let Some(number) = map.next_key_seed(Name { names: M::NAMES, trail })? {
            let name = M::NAMES.get(number).copied().unwrap_or_default();
            if seen & (1 << number) != 0 {
                return Err(trail.fail(ApiError::invalid(name, format!("the member `{name}` stands twice"))));
            }
            seen |= 1 << number;
            self.members.member(name, &mut map).map_err(|error| trail.leave(name, error))?;
        }
        self.members.finish().map_err(|error| trail.fail(error))
    }
}

/// A member's name, by its number in a list.
struct Name<'t> {
    names: &'static [&'static str],
    trail: &'t Trail,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        if let Some(number) = self.names.iter().position(|known| *known == name) {
            return Ok(number);
        }
        let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
        let help = match nearest(&shown, self.names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the members are {}", self.names.join(", ")),
        };
        let message = format!("no member is called `{shown}`; {help}");
        Err(self.trail.fail(ApiError::invalid(shown, message)))
    }
}

/// A text of one form.
pub(super) struct Text<'t, F> {
    what: &'static str,
    trail: &'t Trail,
    read: F,
}

impl<'de, V, F: Fn(&str) -> Result<V, ApiError>> DeserializeSeed<'de> for Text<'_, F> {
    type Value = V;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<V, F: Fn(&str) -> Result<V, ApiError>> Visitor<'_> for Text<'_, F> {
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V, E> {
        (self.read)(text).map_err(|error| self.trail.fail(error))
    }
}

/// How a text becomes what it stands for.
pub(super) type Reading<V> = fn(&str) -> Result<V, ApiError>;

/// A text that `read` takes.
pub(super) fn read_text<'t, V>(trail: &'t Trail, what: &'static str, read: Reading<V>) -> Text<'t, Reading<V>> {
    Text { what, trail, read }
}

/// Any text as it is.
pub(super) fn text<'t>(trail: &'t Trail, what: &'static str) -> Text<'t, Reading<SmolStr>> {
    Text { what, trail, read: |text| Ok(SmolStr::new(text)) }
}

pub(super) fn action(trail: &Trail) -> Text<'_, Reading<SmolStr>> {
    let read = |text: &str| match text.len() {
        1..=MAX_ACTION_BYTES => Ok(SmolStr::new(text)),
        _ => Err(ApiError::invalid("", format!("an action is a text of 1 to {MAX_ACTION_BYTES} bytes"))),
    };
    Text { what: "an action such as \"chat\"", trail, read }
}

/// A uid as a text, `User::"alice"`.
pub(super) fn uid_text(trail: &Trail) -> Text<'_, Reading<EntityUid>> {
    let what = "an entity uid such as \"User::\\\"alice\\\"\"";
    Text { what, trail, read: |text| text.parse::<EntityUid>().map_err(ApiError::from) }
}

/// A uid as an object or a text.
pub(super) struct Uid<'t> {
    pub(super) trail: &'t Trail,
}

impl<'de> DeserializeSeed<'de> for Uid<'_> {
    type Value = EntityUid;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<EntityUid, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Uid<'_> {
    type Value = EntityUid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{\"type\": …, \"id\": …} or an entity uid such as \"User::\\\"alice\\\"\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<EntityUid, E> {
        uid_text(self.trail).visit_str(text)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EntityUid, A::Error> {
        object(UidParts { trail: self.trail, kind: None, id: None }).visit_map(map)
    }
}

struct UidParts<'t> {
    trail: &'t Trail,
    kind: Option<SmolStr>,
    id: Option<SmolStr>,
}

impl<'de, 't> Members<'de, 't> for UidParts<'t> {
    const WHAT: &'static str = "an object with `type` and `id`";
    const NAMES: &'static [&'static str] = &["type", "id"];
    type Value = EntityUid;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let value = Some(map.next_value_seed(text(self.trail, "a text"))?);
        match name {
            "type" => self.kind = value,
            _ => self.id = value,
        }
        Ok(())
    }

    fn finish(self) -> Result<EntityUid, ApiError> {
        let kind = self.kind.ok_or_else(|| missing("type"))?;
        let id = self.id.ok_or_else(|| missing("id"))?;
        EntityUid::new(kind, id).map_err(ApiError::from)
    }
}

pub(super) fn missing(name: &'static str) -> ApiError {
    ApiError::invalid(name, format!("`{name}` is missing"))
}

/// A list whose items are read by what `item` makes, of at most `most`.
pub(super) struct List<'t, F> {
    pub(super) trail: &'t Trail,
    pub(super) most: usize,
    pub(super) too_many: fn(usize) -> ApiError,
    pub(super) item: F,
}

impl<'de, S: DeserializeSeed<'de>, F: Fn() -> S> DeserializeSeed<'de> for List<'_, F> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de>, F: Fn() -> S> Visitor<'de> for List<'_, F> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let item = list.next_element_seed((self.item)());
            match item.map_err(|error| self.trail.leave(format!("[{}]", items.len()), error))? {
                Some(_) if items.len() == self.most => return Err(self.trail.fail((self.too_many)(self.most))),
                Some(item) => items.push(item),
                None => return Ok(items),
            }
        }
    }
}
