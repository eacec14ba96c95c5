//! One record as one line, as text or as JSON. Values come from requests and files, so nothing in them ends the line,
//! moves a terminal's cursor, or changes the direction of the text after it.

use std::fmt::{self, Write as _};

use tracing::Level;

use super::fields::{Fields, Text, Value};
use crate::model::{Timestamp, check_name};

/// A record, with the fields of its spans among its own.
pub(super) struct Record<'a> {
    pub(super) at: Timestamp,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) fields: Fields,
}

/// `2026-01-31T09:30:00.500Z warning: limit spend has reached 80 % limit=spend percent=80`
pub(super) fn text(record: &Record<'_>, colour: bool) -> String {
    let (word, code) = match record.level {
        Level::ERROR => ("error:", "31"),
        Level::WARN => ("warning:", "33"),
        Level::INFO => ("info:", "32"),
        Level::DEBUG => ("debug:", "34"),
        Level::TRACE => ("trace:", "35"),
    };
    let mut line = Line(String::with_capacity(256));
    line.time(record.at);
    line.0.push(' ');
    if colour {
        line.show(format_args!("\u{1b}[{code}m{word}\u{1b}[0m"));
    } else {
        line.0.push_str(word);
    }
    if let Some(message) = &record.fields.message {
        line.0.push(' ');
        message.as_str().chars().for_each(|next| line.text_char(next));
    }
    for (name, value) in &record.fields.named {
        line.show(format_args!(" {name}="));
        match value {
            Value::Text(text) => line.text_value(text.as_str()),
            Value::Unsigned(number) => line.show(format_args!("{number}")),
            Value::Signed(number) => line.show(format_args!("{number}")),
            Value::Float(number) => line.show(format_args!("{number}")),
            Value::Bool(is_set) => line.show(format_args!("{is_set}")),
        }
    }
    line.0.push('\n');
    line.0
}

/// `{"timestamp":"…","level":"warn","target":"tollgate::limits","message":"…","limit":"spend","percent":80}`
pub(super) fn json(record: &Record<'_>) -> String {
    let level = match record.level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut line = Line(String::with_capacity(384));
    line.0.push_str("{\"timestamp\":\"");
    line.time(record.at);
    line.show(format_args!("\",\"level\":\"{level}\",\"target\":"));
    line.json_text(record.target);
    line.0.push_str(",\"message\":");
    line.json_text(record.fields.message.as_ref().map_or("", Text::as_str));
    for (name, value) in &record.fields.named {
        line.0.push(',');
        line.json_text(name);
        line.0.push(':');
        match value {
            Value::Text(text) => line.json_text(text.as_str()),
            Value::Unsigned(number) => line.show(format_args!("{number}")),
            Value::Signed(number) => line.show(format_args!("{number}")),
            // JSON has no representation of infinity and NaN.
            Value::Float(number) if number.is_finite() => line.show(format_args!("{number}")),
            Value::Float(_) => line.0.push_str("null"),
            Value::Bool(is_set) => line.show(format_args!("{is_set}")),
        }
    }
    line.0.push_str("}\n");
    line.0
}

struct Line(String);

impl Line {
    fn show(&mut self, shown: fmt::Arguments<'_>) {
        // Writing into memory does not fail.
        let _written = self.0.write_fmt(shown);
    }

    /// With all three digits of the milliseconds, so that lines sort as texts.
    fn time(&mut self, at: Timestamp) {
        match jiff::Timestamp::from_millisecond(at.as_millis()) {
            Ok(instant) => self.show(format_args!("{instant:.3}")),
            Err(_) => self.show(format_args!("{at}")),
        }
    }

    fn text_char(&mut self, next: char) {
        match next {
            '\n' => self.0.push_str("\\n"),
            '\r' => self.0.push_str("\\r"),
            '\t' => self.0.push_str("\\t"),
            _ if is_unseen(next) => self.show(format_args!("{}", next.escape_unicode())),
            _ => self.0.push(next),
        }
    }

    /// A value of a field. It is quoted if it could be read as more than one word.
    fn text_value(&mut self, text: &str) {
        let is_word = !text.is_empty()
            && !text.starts_with('"')
            && text.chars().all(|next| !next.is_whitespace() && next != '\\' && !is_unseen(next));
        if is_word {
            return self.0.push_str(text);
        }
        self.0.push('"');
        for next in text.chars() {
            match next {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                _ => self.text_char(next),
            }
        }
        self.0.push('"');
    }

    fn json_text(&mut self, text: &str) {
        self.0.push('"');
        for next in text.chars() {
            match next {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                _ if is_unseen(next) => {
                    for unit in next.encode_utf16(&mut [0; 2]) {
                        self.show(format_args!("\\u{unit:04x}"));
                    }
                }
                _ => self.0.push(next),
            }
        }
        self.0.push('"');
    }
}

/// Whether a reader would not see the character, or would see others elsewhere because of it: what no name may hold.
fn is_unseen(next: char) -> bool {
    !matches!(next, ' '..='~') && check_name(next.encode_utf8(&mut [0; 4])).is_err()
}
