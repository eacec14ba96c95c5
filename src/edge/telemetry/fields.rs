//! The fields of an event or span, copied out of `tracing`'s visitor.

use std::fmt::{self, Write as _};

use smallvec::SmallVec;
use smol_str::SmolStr;
use tracing::field::{Field, Visit};

/// Longest text of one field. What is longer is cut, so that no value makes a line of any length.
pub(super) const MAX_TEXT_BYTES: usize = 8 * 1024;

/// A value, in the types that JSON tells apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(SmolStr),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

/// Fields in the order in which they were recorded; the message aside.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: Option<SmolStr>,
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
        if value.len() <= MAX_TEXT_BYTES {
            return self.put(field, Value::Text(value.into()));
        }
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut bounded = Bounded::default();
        // Writing into memory does not fail; a value that refuses to be shown is shown as far as it goes.
        let _shown = write!(bounded, "{value:?}");
        self.put(field, Value::Text(bounded.text.into()));
    }
}

/// A text that stops growing at [`MAX_TEXT_BYTES`].
#[derive(Default)]
struct Bounded {
    text: String,
    is_cut: bool,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        let room = MAX_TEXT_BYTES.saturating_sub(self.text.len());
        let end = part.floor_char_boundary(room);
        self.text.push_str(part.get(..end).unwrap_or_default());
        if end < part.len() {
            self.is_cut = true;
            self.text.push('…');
        }
        Ok(())
    }
}
