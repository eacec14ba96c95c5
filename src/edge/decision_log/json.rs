//! JSON at the end of a buffer, written byte by byte: a record is written on the thread that decides.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde_json::Value;

use crate::model::json_text::escape;
use crate::model::{EntityUid, without_credentials};

/// A buffer that JSON is written to. Text that is written through [`fmt::Write`] goes into a JSON string.
pub(super) struct Json<'o>(pub(super) &'o mut Vec<u8>);

impl Json<'_> {
    /// Writes text that is already JSON.
    pub(super) fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(b'"');
        escape(text, self.0);
        self.0.push(b'"');
        self
    }

    /// Writes text from a caller or its credential, with credentials hidden.
    pub(super) fn told(&mut self, text: &str) -> &mut Self {
        self.text(&without_credentials(text))
    }

    pub(super) fn all_told<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) -> &mut Self {
        self.list(texts, |json, text| {
            json.told(text.as_ref());
        })
    }

    /// Writes a uid from a caller, with credentials hidden.
    pub(super) fn uid(&mut self, uid: &EntityUid) -> &mut Self {
        match without_credentials(uid.id()) {
            Cow::Borrowed(_) => self.shown(uid),
            Cow::Owned(id) => self.shown(EntityUid::trusted(uid.kind(), id)),
        }
    }

    /// Writes a JSON value from a caller, with credentials hidden.
    pub(super) fn value(&mut self, value: &Value) -> &mut Self {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.plain(value),
            Value::String(text) => self.told(text),
            Value::Array(items) => self.list(items, |json, item| {
                json.value(item);
            }),
            Value::Object(members) => {
                self.0.push(b'{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        self.0.push(b',');
                    }
                    self.told(name).raw(":").value(value);
                }
                self.raw("}")
            }
        }
    }

    /// Writes a text that is made of `what`.
    pub(super) fn shown(&mut self, what: impl fmt::Display) -> &mut Self {
        self.0.push(b'"');
        // Writing to a buffer does not fail.
        let _written = write!(self, "{what}");
        self.0.push(b'"');
        self
    }

    /// Writes a number, or what else is no text.
    pub(super) fn plain(&mut self, what: impl fmt::Display) -> &mut Self {
        let _written = write!(self, "{what}");
        self
    }

    pub(super) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut one: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.0.push(b'[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            one(self, item);
        }
        self.0.push(b']');
        self
    }

    pub(super) fn texts<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) -> &mut Self {
        self.list(texts, |json, text| {
            json.text(text.as_ref());
        })
    }
}

impl fmt::Write for Json<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, self.0);
        Ok(())
    }
}
