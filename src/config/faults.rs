//! Errors of values in `tollgate.yaml` and in variables: the fault, its place, and the way to the value.

use std::fmt;

use smol_str::SmolStr;

use crate::policy::syntax::Place;

/// One step from a value to a value in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Member(SmolStr),
    Item(usize),
}

/// The reason why a value is not accepted.
#[derive(Debug)]
pub(super) enum Fault {
    /// A struct has no such member.
    UnknownMember {
        name: String,
        known: &'static [&'static str],
    },
    /// A struct is written as something else than a mapping.
    NotAMapping {
        known: &'static [&'static str],
    },
    /// A key has no value.
    Null,
    /// An enum has no such variant.
    UnknownVariant {
        name: String,
        known: &'static [&'static str],
    },
    /// Another value is expected.
    Expected(String),
    Other(String),
}

/// An error, the place of the value that caused it, and the way to that value.
#[derive(Debug)]
pub(super) struct NodeError {
    pub(super) place: Option<Place>,
    pub(super) fault: Fault,
    /// Innermost step first while the error is passed up.
    pub(super) path: Vec<Step>,
}

impl NodeError {
    pub(super) fn new(fault: Fault) -> Self {
        Self { place: None, fault, path: Vec::new() }
    }

    /// An error about the value of `setting`, found after it was deserialized. The name has a dot between section and key.
    pub(super) fn of_setting(setting: &str, place: Place, message: impl Into<String>) -> Self {
        let path = setting.split('.').map(|name| Step::Member(name.into())).collect();
        Self { place: Some(place), fault: Fault::Other(message.into()), path }
    }

    /// Sets the place, unless a more precise one is known.
    pub(super) fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    pub(super) fn within(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    pub(super) fn outermost_first(mut self) -> Self {
        self.path.reverse();
        self
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use serde::de::{Error as _, value::Error};
        match &self.fault {
            Fault::UnknownMember { name, known } => write!(f, "{}", Error::unknown_field(name, known)),
            Fault::UnknownVariant { name, known } => write!(f, "{}", Error::unknown_variant(name, known)),
            Fault::NotAMapping { .. } => f.write_str("this must be a mapping"),
            Fault::Null => f.write_str("this has no value; give it one, or remove the key"),
            Fault::Expected(expected) => write!(f, "this must be {expected}"),
            Fault::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for NodeError {}

impl serde::de::Error for NodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::Other(message.to_string()))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownMember { name: name.to_owned(), known })
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownVariant { name: name.to_owned(), known })
    }

    /// Leaves out the value, which may be a secret.
    fn invalid_type(_: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        let expected = expected.to_string();
        // The words of YAML, where serde has those of Rust.
        let expected = match expected.as_str() {
            "a sequence" => "a list".to_owned(),
            name if name.starts_with("struct ") => "a mapping".to_owned(),
            _ => expected,
        };
        Self::new(Fault::Expected(expected))
    }

    fn invalid_value(_: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::new(Fault::Expected(expected.to_string()))
    }
}
