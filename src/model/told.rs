//! What a caller tells of a request: the members of a JSON object, each said once at any depth.
//!
//! It is read before the action is known that says what they may be, so nothing is refused here and nothing lost; but
//! texts, numbers and flags come as Tollgate's own actions want them, without a tree of JSON values between.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::strict_json::Strict;

/// Room for what gateways usually tell.
const USUAL_MEMBERS: usize = 8;
/// Up to so many names are compared with each other; more are put in a set.
const COMPARED: usize = 16;

/// Members by name, in the order in which they were told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Told {
    members: Vec<(SmolStr, Member)>,
}

/// What a member may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Member {
    /// A text.
    Text(SmolStr),
    /// A whole number that Cedar can hold.
    Whole(i64),
    /// True or false.
    Flag(bool),
    /// More members.
    Object(Told),
    /// Anything else: null, a list, any other number.
    Other(Box<Value>),
}

impl Told {
    /// Every member with its name.
    #[must_use]
    pub fn members(&self) -> &[(SmolStr, Member)] {
        &self.members
    }

    /// The same as JSON.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        self.members.iter().map(|(name, member)| (name.to_string(), member.to_json())).collect()
    }

    /// A name that stands twice.
    fn twice(&self) -> Option<&str> {
        let mut names = self.members.iter().map(|(name, _)| name.as_str());
        if self.members.len() > COMPARED {
            let mut seen = HashSet::with_capacity(self.members.len());
            return names.find(|name| !seen.insert(*name));
        }
        let before = |at: usize| self.members.iter().take(at);
        names.enumerate().find(|(at, name)| before(*at).any(|(other, _)| other == name)).map(|(_, name)| name)
    }
}

impl Member {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&SmolStr> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.to_string()),
            Self::Whole(number) => Value::from(*number),
            Self::Flag(flag) => Value::Bool(*flag),
            Self::Object(told) => Value::Object(told.to_json()),
            Self::Other(value) => Value::clone(value),
        }
    }
}

impl From<Map<String, Value>> for Told {
    fn from(members: Map<String, Value>) -> Self {
        Self { members: members.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl From<Value> for Member {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.into()),
            Value::Bool(flag) => Self::Flag(flag),
            Value::Object(members) => Self::Object(members.into()),
            other => other.as_i64().map_or_else(|| Self::Other(Box::new(other)), Self::Whole),
        }
    }
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Told;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Told, A::Error> {
        let mut told = Told { members: Vec::with_capacity(USUAL_MEMBERS) };
        while let Some(member) = map.next_entry()? {
            told.members.push(member);
        }
        match told.twice() {
            None => Ok(told),
            Some(name) => Err(A::Error::custom(format_args!("the member `{}` stands twice", name.escape_debug()))),
        }
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneMember)
    }
}

struct OneMember;

impl<'de> Visitor<'de> for OneMember {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(SmolStr::new(text)))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Member, E> {
        Ok(Member::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Member, E> {
        Ok(Member::Whole(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Member, E> {
        Ok(i64::try_from(number).map_or_else(|_| Member::Other(Box::new(number.into())), Member::Whole))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Member, E> {
        Strict.visit_f64(number).map(Member::from)
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Value::Null.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Member, A::Error> {
        Strict.visit_seq(list).map(Member::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
        Members.visit_map(map).map(Member::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Told, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn what_is_read_is_what_the_json_says() {
        let text = r#"{"b": "\u0061", "a": {"x": {"y": [1, {"z": null}]}, "e": {}}, "n": -3, "big": 18446744073709551615,
            "half": 1.5, "t": true, "none": null, "long": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#;
        let told = read(text).unwrap();
        let Value::Object(members) = serde_json::from_str(text).unwrap() else { panic!("it is an object") };
        assert_eq!(told.to_json(), members);
        assert_eq!(told, members.into());
    }

    #[test]
    fn a_member_twice_is_refused_among_few_and_many() {
        for others in [0, COMPARED - 2, COMPARED - 1, 100] {
            let others: String = (0..others).map(|number| format!("\"{number}\": 1, ")).collect();
            assert!(read(&format!("{{{others} \"a\": 1, \"b\": 1}}")).is_ok());
            let error = read(&format!("{{{others} \"a\": 1, \"\\u0061\": 1}}")).unwrap_err().to_string();
            assert!(error.starts_with("the member `a` stands twice"), "{error}");
        }
        for bad in [r#"{"a": {"b": {"c": 1, "c": 1}}}"#, r#"{"a": [{"c": 1, "c": 1}]}"#, "[]", r#"{"a": 1e999}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
