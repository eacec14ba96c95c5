//! The fields of an event or span, copied out of `tracing`'s visitor.

use std::fmt::{self, Write as _};

use smallvec::SmallVec;
use tracing::field::{Field, Visit};

/// Longest text of one field. Longer text is cut, so that the length of a line is bounded.
pub(super) const MAX_TEXT_BYTES: usize = 8 * 1024;

/// A text that stops growing at [`MAX_TEXT_BYTES`]. One as long as the id of a decision or of a trace needs no allocation:
/// every request records some.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Text {
    bytes: SmallVec<[u8; 36]>,
    is_cut: bool,
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        // Only whole characters are ever written.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    fn push(&mut self, part: &str) {
        if self.is_cut {
            return;
        }
        let room = MAX_TEXT_BYTES.saturating_sub(self.bytes.len());
        let end = part.floor_char_boundary(room);
        self.bytes.extend_from_slice(part.get(..end).unwrap_or_default().as_bytes());
        if end < part.len() {
            self.is_cut = true;
            self.bytes.extend_from_slice("…".as_bytes());
        }
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.push(part);
        Ok(())
    }
}

/// A value, in the types that JSON distinguishes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(Text),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

/// Fields in the order in which they were recorded; the message aside.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: Option<Text>,
    pub(super) named: SmallVec<[(&'static str, Value); 8]>,
}

impl Fields {
    /// Adds those of an enclosing span that are not set yet: the inner value wins.
    pub(super) fn inherit(&mut self, outer: &Self) {
        for (name, value) in &outer.named {
            if !self.named.iter().any(|(known, _)| known == name) {
                self.named.push((name, value.clone()));
            }
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        if field.name() == "message"
            && let Value::Text(text) = value
        {
            self.message = Some(text);
            return;
        }
        // A batch records the decision of each of its items on the same span; the newest counts.
        match self.named.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, known)) => *known = value,
            None => self.named.push((field.name(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Text::default();
        text.push(value);
        self.put(field, Value::Text(text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Text::default();
        // Writing into memory does not fail; a value that refuses to be shown is shown as far as it goes.
        let _shown = write!(text, "{value:?}");
        self.put(field, Value::Text(text));
    }
}
