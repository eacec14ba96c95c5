//! Values of YAML as serde reads them, so that a section with structure is a struct that says what it takes. What is
//! wrong is told with the place of the value that is.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess};
use serde::de::{VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::policy::syntax::Place;
use crate::policy::yaml::{Key, Kind, Node, Style};

/// Reads a value.
///
/// # Errors
/// With the first thing that does not fit, and its place.
pub(super) fn read<T: serde::de::DeserializeOwned>(node: &Node) -> Result<T, NodeError> {
    T::deserialize(Value(node))
}

/// What a mapping has under this name.
pub(super) fn member<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Kind::Mapping(members) = &node.kind else { return None };
    members.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
}

/// The item of a list with this number, from 0 on.
pub(super) fn item(node: &Node, number: usize) -> Option<&Node> {
    let Kind::Sequence(items) = &node.kind else { return None };
    items.get(number)
}

/// What is wrong with a value, and where.
#[derive(Debug)]
pub(super) struct NodeError {
    pub(super) place: Option<Place>,
    pub(super) message: String,
}

impl NodeError {
    /// That `message` holds of `node`.
    pub(super) fn of(node: &Node, message: impl Into<String>) -> Self {
        Self { place: Some(node.place), message: message.into() }
    }

    /// The same, here, unless it is known to be further in.
    fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for NodeError {}

impl serde::de::Error for NodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { place: None, message: message.to_string() }
    }

    /// Without the value: it may be a secret.
    fn invalid_type(_: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        // What is called a struct in code is a mapping to whoever writes it.
        let expected = expected.to_string();
        Self::custom(format!("this must be {}", if expected.starts_with("struct ") { "a mapping" } else { &expected }))
    }

    fn invalid_value(_: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::custom(format!("this must be {expected}"))
    }
}

#[derive(Clone, Copy)]
struct Value<'n>(&'n Node);

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = NodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        let place = self.0.place;
        let read = match &self.0.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Scalar(scalar) => match (scalar.style, scalar.text.as_str()) {
                (Style::Plain, "true") => visitor.visit_bool(true),
                (Style::Plain, "false") => visitor.visit_bool(false),
                (Style::Plain, text) => match (text.parse::<u64>(), text.parse::<i64>()) {
                    (Ok(number), _) if is_plain_number(text) => visitor.visit_u64(number),
                    (_, Ok(number)) if is_plain_number(text) => visitor.visit_i64(number),
                    _ => visitor.visit_str(text),
                },
                (_, text) => visitor.visit_str(text),
            },
            Kind::Sequence(items) => visitor.visit_seq(Items(items.iter())),
            Kind::Mapping(members) => visitor.visit_map(Entries { entries: members.iter(), next: None }),
        };
        read.map_err(|error| error.at(place))
    }

    /// A text is what is written, a number or not.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        match &self.0.kind {
            Kind::Scalar(scalar) => visitor.visit_str(&scalar.text).map_err(|error: NodeError| error.at(self.0.place)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        self.deserialize_str(visitor)
    }

    /// That nothing is written is an error and no choice.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        match self.0.kind {
            Kind::Null => Err(NodeError::custom("this has no value; give it one, or remove the key").at(self.0.place)),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, NodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NodeError> {
        let place = self.0.place;
        let wrong = || NodeError::custom(format!("this must be one of {}", variants.join(", "))).at(place);
        match &self.0.kind {
            Kind::Scalar(scalar) => {
                visitor.visit_enum(Variant { name: &scalar.text, value: None }).map_err(|error| error.at(place))
            }
            Kind::Mapping(members) => match members.as_slice() {
                [(key, value)] => visitor
                    .visit_enum(Variant { name: &key.text, value: Some(value) })
                    .map_err(|error| error.at(key.place)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }
}

/// Digits, with a sign or not, as people write numbers: no `0755`, no `+1`.
fn is_plain_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

struct Items<'n>(std::slice::Iter<'n, Node>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = NodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, NodeError> {
        self.0.next().map(|node| seed.deserialize(Value(node))).transpose()
    }
}

struct Entries<'n> {
    entries: std::slice::Iter<'n, (Key, Node)>,
    next: Option<&'n Node>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = NodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, NodeError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.next = Some(value);
        let name: StrDeserializer<'_, NodeError> = key.text.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| error.at(key.place))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, NodeError> {
        let value = self.next.take().ok_or_else(|| NodeError::custom("a value was asked for before its key"))?;
        seed.deserialize(Value(value))
    }
}

struct Variant<'n> {
    name: &'n str,
    value: Option<&'n Node>,
}

impl<'de, 'n> EnumAccess<'de> for Variant<'n> {
    type Error = NodeError;
    type Variant = Variant<'n>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Variant<'n>), NodeError> {
        let name: StrDeserializer<'_, NodeError> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = NodeError;

    fn unit_variant(self) -> Result<(), NodeError> {
        match self.value {
            None => Ok(()),
            Some(node) => Err(NodeError::custom("this takes no value").at(node.place)),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, NodeError> {
        match self.value {
            Some(node) => seed.deserialize(Value(node)),
            None => Err(NodeError::custom(format!("`{}` wants a value", self.name))),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, NodeError> {
        match self.value {
            Some(node) => Value(node).deserialize_any(visitor),
            None => Err(NodeError::custom(format!("`{}` wants a list", self.name))),
        }
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, NodeError> {
        match self.value {
            Some(node) => Value(node).deserialize_any(visitor),
            None => Err(NodeError::custom(format!("`{}` wants settings", self.name))),
        }
    }
}
