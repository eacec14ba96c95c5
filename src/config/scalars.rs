//! The scalars of the settings. Each type checks its own range or form while it is deserialized, and describes it in the
//! JSON Schema.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

use crate::edge::files::PublicKey;
use crate::edge::http::{ClientCertificates, HostName, Origin};
use crate::edge::outgoing::Address;
use crate::edge::store::{EvictionCheck, Secret};
use crate::edge::telemetry::{LogFormat, LogLevel};

/// The newtype that the deserializer reads as a path. A relative path of the file begins at the directory of the file.
pub(super) const PATH: &str = "$path";
/// The newtype that the deserializer reads as a list, also where a single value is written.
pub(super) const ONE_OR_MANY: &str = "$one_or_many";
pub(super) const MINUTE: u64 = 60_000;
pub(super) const HOUR: u64 = 60 * MINUTE;
/// Longest name of a server in alerts.
const MAX_NAME_BYTES: usize = 255;

/// A path that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub(super) struct ConfigPath(#[schemars(length(min = 1))] pub(super) PathBuf);

impl<'de> Deserialize<'de> for ConfigPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = ConfigPath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path")
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<ConfigPath, E> {
                Ok(ConfigPath(OsString::from_vec(bytes).into()))
            }
        }

        deserializer.deserialize_newtype_struct(PATH, Reader)
    }
}

/// A value, or a list of values.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(inline)]
pub(super) struct OneOrMany<T>(#[schemars(with = "Either<T>")] pub(super) Vec<T>);

/// The schema of [`OneOrMany`].
#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[expect(dead_code, reason = "only the schema is used")]
enum Either<T> {
    Many(Vec<T>),
    One(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one, or a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(item) = items.next_element()? {
                    many.push(item);
                }
                Ok(OneOrMany(many))
            }
        }

        deserializer.deserialize_newtype_struct(ONE_OR_MANY, Reader(PhantomData))
    }
}

/// A whole number in a range.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(inline)]
pub(super) struct Whole<const LEAST: u64, const MOST: u64>(#[schemars(range(min = LEAST, max = MOST))] pub(super) u64);

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Whole<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = format!("a whole number from {LEAST} to {MOST}");
        deserializer.deserialize_any(InRange { least: LEAST, most: MOST, expected }).map(Self)
    }
}

impl<const LEAST: u64, const MOST: u64> Whole<LEAST, MOST> {
    pub(super) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A number of milliseconds in a range.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(inline)]
pub(super) struct Millis<const LEAST: u64, const MOST: u64>(
    #[schemars(with = "Whole<LEAST, MOST>")] pub(super) Duration,
);

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Millis<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = format!("milliseconds, from {LEAST} to {MOST}");
        let millis = deserializer.deserialize_any(InRange { least: LEAST, most: MOST, expected })?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

struct InRange {
    least: u64,
    most: u64,
    expected: String,
}

impl Visitor<'_> for InRange {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        let fits = (self.least..=self.most).contains(&number);
        fits.then_some(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

/// A value with a form of its own, which is written as a text.
pub(super) trait FromText: Sized {
    /// Parses the text.
    ///
    /// # Errors
    /// A message for people, without the text, which may be a secret.
    fn from_text(text: &str) -> Result<Self, String>;

    /// The JSON Schema of the texts.
    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A value that is written as a text.
#[derive(Debug, Clone)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<T: FromText> Visitor<'_> for Reader<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // No type accepts the empty text, and the error about it names the expected form.
                let expected = T::from_text("").err().unwrap_or_default();
                f.write_str(expected.strip_prefix("expected ").unwrap_or("a text"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::from_text(text).map(Text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Reader(PhantomData))
    }
}

impl<T: FromText> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

impl FromText for SocketAddr {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected an address and port such as 127.0.0.1:8181".to_owned())
    }
}

impl FromText for HostName {
    fn from_text(text: &str) -> Result<Self, String> {
        let expected = || "expected a list of host names without ports, such as tollgate.internal".to_owned();
        Self::parse(text).ok_or_else(expected)
    }
}

impl FromText for Origin {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }
}

impl FromText for PublicKey {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }
}

impl FromText for Address {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "format": "uri" })
    }
}

impl FromText for Secret {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("expected a text".to_owned()) } else { Ok(Self::new(text)) }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

/// The prefix of keys in a Redis.
#[derive(Debug, Clone)]
pub(super) struct Prefix(pub(super) String);

impl FromText for Prefix {
    fn from_text(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(is_plain);
        let expected = || "expected a name of at most 64 letters, digits, `.`, `_` and `-`".to_owned();
        fits.then(|| Self(text.to_owned())).ok_or_else(expected)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })
    }
}

/// The name of a server in alerts.
#[derive(Debug, Clone)]
pub(super) struct NodeName(pub(super) String);

impl FromText for NodeName {
    fn from_text(text: &str) -> Result<Self, String> {
        let fits = (1..=MAX_NAME_BYTES).contains(&text.len());
        fits.then(|| Self(text.to_owned())).ok_or_else(|| format!("expected a name of 1 to {MAX_NAME_BYTES} bytes"))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES })
    }
}

/// Implements [`FromText`] for an enum by its list of words.
macro_rules! words {
    ($type:ty, $words:expr, $parse:expr) => {
        impl FromText for $type {
            fn from_text(text: &str) -> Result<Self, String> {
                let parse: fn(&str) -> Option<Self> = $parse;
                parse(text).ok_or_else(|| format!("expected {}", $words.join(" or ")))
            }

            fn schema() -> Schema {
                json_schema!({ "enum": $words })
            }
        }
    };
}

words!(LogFormat, Self::WORDS, |text| text.parse().ok());
words!(LogLevel, Self::WORDS, |text| text.parse().ok());
words!(ClientCertificates, Self::ALL.map(Self::as_str), |text| {
    Self::ALL.into_iter().find(|known| known.as_str() == text)
});
words!(EvictionCheck, Self::ALL.map(Self::as_str), |text| Self::ALL.into_iter().find(|known| known.as_str() == text));
