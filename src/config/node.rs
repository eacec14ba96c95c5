//! YAML values as a serde deserializer. The settings are structs that derive `Deserialize`; every error has the place of
//! the value that caused it, and the names that lead to it.

use std::fmt;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _};
use serde::de::{IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::faults::{Fault, NodeError, Step};
use super::scalars;
use crate::policy::syntax::{Located, Place};
use crate::policy::yaml::{Key, Kind, Node, Style};

/// The newtype that stands for a value with its place.
const LOCATED: &str = "$located";
/// Most errors that are reported of one file.
const MAX_ERRORS: usize = 100;

/// Reads `root`; relative paths in it begin at `base`. Returns all errors: after each one, the value that caused it is
/// removed and the rest is read again. Of a top-level member for which `is_section` holds, only the first error is
/// returned, since a value with required members would cause others when one of them is removed.
pub(super) fn read<T>(root: &Node, base: &Path, is_section: impl Fn(&str) -> bool) -> (T, Vec<NodeError>)
where
    T: DeserializeOwned + Default,
{
    let (mut root, mut errors) = (root.clone(), Vec::new());
    while errors.len() < MAX_ERRORS {
        let error = match T::deserialize(Value { node: &root, base, is_typed: false }) {
            Ok(value) => return (value, errors),
            Err(error) => error.outermost_first(),
        };
        let end = match error.path.as_slice() {
            [] => 0,
            [Step::Member(name), ..] if is_section(name) => 1,
            path => path.len(),
        };
        let is_removed = remove(&mut root, error.path.get(..end).unwrap_or_default());
        errors.push(error);
        if !is_removed {
            break;
        }
    }
    (T::default(), errors)
}

/// Removes the value at the end of `path`.
fn remove(node: &mut Node, path: &[Step]) -> bool {
    let Some((step, rest)) = path.split_first() else { return false };
    match (&mut node.kind, step) {
        (Kind::Mapping(members), Step::Member(name)) => {
            let Some(at) = members.iter().position(|(key, _)| key.text == *name) else { return false };
            if rest.is_empty() {
                members.remove(at);
                return true;
            }
            members.get_mut(at).is_some_and(|(_, value)| remove(value, rest))
        }
        (Kind::Sequence(items), Step::Item(at)) if *at < items.len() => {
            if rest.is_empty() {
                items.remove(*at);
                return true;
            }
            items.get_mut(*at).is_some_and(|item| remove(item, rest))
        }
        _ => false,
    }
}

/// The member of a mapping with this name.
pub(super) fn member<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Kind::Mapping(members) = &node.kind else { return None };
    members.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
}

#[derive(Clone, Copy)]
struct Value<'n> {
    node: &'n Node,
    base: &'n Path,
    /// Whether a scalar that looks like a number or a truth value is not a text.
    is_typed: bool,
}

impl<'n> Value<'n> {
    fn of(self, node: &'n Node) -> Self {
        Self { node, is_typed: false, ..self }
    }

    /// The text of a scalar as a path; a relative one begins at `base`.
    fn path<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        let place = self.node.place;
        match &self.node.kind {
            Kind::Scalar(scalar) if !scalar.text.is_empty() => {
                let path = self.base.join(scalar.text.as_str()).into_os_string();
                visitor.visit_byte_buf(path.into_vec()).map_err(|error: NodeError| error.at(place))
            }
            _ => Err(NodeError::new(Fault::Expected("a path".to_owned())).at(place)),
        }
    }
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = NodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        let place = self.node.place;
        let read = match &self.node.kind {
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
            Kind::Sequence(items) => visitor.visit_seq(Items { value: self, nodes: items.iter(), next: 0 }),
            Kind::Mapping(members) => visitor.visit_map(Members { value: self, entries: members.iter(), next: None }),
        };
        read.map_err(|error| error.at(place))
    }

    /// Any scalar is a text, also one that looks like a number, except where one value or a list may be written.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        match &self.node.kind {
            Kind::Scalar(scalar) if !self.is_typed => {
                visitor.visit_str(&scalar.text).map_err(|error: NodeError| error.at(self.node.place))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        let expected = || NodeError::new(Fault::Expected("true or false".to_owned())).at(self.node.place);
        self.deserialize_any(visitor).map_err(|_| expected())
    }

    /// A missing value is an error, see [`Members`].
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        visitor.visit_some(self)
    }

    /// Newtypes with a reserved name get more than the value: a path is resolved, a located value has its place, and a
    /// single value is a list of one.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, NodeError> {
        match (name, &self.node.kind) {
            (scalars::PATH, _) => self.path(visitor),
            (LOCATED, _) => visitor.visit_seq(WithPlace { value: self, is_place_next: true }),
            (scalars::ONE_OR_MANY, Kind::Sequence(_)) => self.deserialize_any(visitor),
            (scalars::ONE_OR_MANY, _) => visitor.visit_seq(One(Some(Self { is_typed: true, ..self }))),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NodeError> {
        match self.node.kind {
            Kind::Mapping(_) => self.deserialize_any(visitor),
            _ => Err(NodeError::new(Fault::NotAMapping { known }).at(self.node.place)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NodeError> {
        let place = self.node.place;
        let wrong = || NodeError::new(Fault::Expected(format!("one of {}", variants.join(", ")))).at(place);
        match &self.node.kind {
            Kind::Scalar(scalar) => {
                visitor.visit_enum(Variant { name: &scalar.text, value: None }).map_err(|error| error.at(place))
            }
            Kind::Mapping(members) => match members.as_slice() {
                [(key, value)] => visitor
                    .visit_enum(Variant { name: &key.text, value: Some(self.of(value)) })
                    .map_err(|error| error.at(key.place)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

/// Digits, with a sign or not, as people write numbers: no `0755`, no `+1`.
fn is_plain_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

struct Items<'n> {
    value: Value<'n>,
    nodes: std::slice::Iter<'n, Node>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = NodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, NodeError> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        let step = Step::Item(self.next);
        self.next += 1;
        seed.deserialize(self.value.of(node)).map(Some).map_err(|error| error.within(step))
    }
}

/// A single value as a list.
struct One<'n>(Option<Value<'n>>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = NodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, NodeError> {
        self.0.take().map(|value| seed.deserialize(value)).transpose()
    }
}

/// A place and the value there.
struct WithPlace<'n> {
    value: Value<'n>,
    is_place_next: bool,
}

impl<'de> SeqAccess<'de> for WithPlace<'_> {
    type Error = NodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, NodeError> {
        if !std::mem::take(&mut self.is_place_next) {
            return seed.deserialize(self.value).map(Some);
        }
        let Place { line, column, length } = self.value.node.place;
        seed.deserialize(SeqDeserializer::new([line, column, length].into_iter())).map(Some)
    }
}

struct Members<'n> {
    value: Value<'n>,
    entries: std::slice::Iter<'n, (Key, Node)>,
    next: Option<&'n (Key, Node)>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = NodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, NodeError> {
        self.next = self.entries.next();
        let Some((key, _)) = self.next else { return Ok(None) };
        let name: StrDeserializer<'_, NodeError> = key.text.as_str().into_deserializer();
        let read = seed.deserialize(name).map(Some);
        read.map_err(|error| error.at(key.place).within(Step::Member(key.text.clone())))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, NodeError> {
        let (key, node) = self.next.take().ok_or_else(|| NodeError::custom("a value was read before its key"))?;
        let read = match node.kind {
            Kind::Null => {
                let place = if node.place.length == 0 { key.place } else { node.place };
                Err(NodeError::new(Fault::Null).at(place))
            }
            _ => seed.deserialize(self.value.of(node)),
        };
        read.map_err(|error| error.within(Step::Member(key.text.clone())))
    }
}

struct Variant<'n> {
    name: &'n str,
    value: Option<Value<'n>>,
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
            Some(value) => Err(NodeError::custom("this takes no value").at(value.node.place)),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, NodeError> {
        match self.value {
            Some(value) => seed.deserialize(value),
            None => Err(NodeError::custom(format!("`{}` wants a value", self.name))),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, NodeError> {
        Err(NodeError::custom("the settings have no tuple variants"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, NodeError> {
        Err(NodeError::custom("the settings have no struct variants"))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Located<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let missing = || A::Error::custom("a place was read without its value");
                let (line, column, length) = parts.next_element()?.ok_or_else(missing)?;
                let value = parts.next_element()?.ok_or_else(missing)?;
                Ok(Located::new(value, Place { line, column, length }))
            }
        }

        deserializer.deserialize_newtype_struct(LOCATED, Reader(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
