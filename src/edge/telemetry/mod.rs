//! Logs and metrics of the server: the `tracing` subscriber that writes records, the span of an HTTP request, and what is
//! counted.
//!
//! The rest of the source emits `tracing` events and does not depend on this module. Targets are stable names below
//! `tollgate::`, not module paths, so that filters survive when code moves. Only the binary installs the subscriber; a
//! program that uses the library gets the same events through its own.

mod fields;
mod layer;
mod line;
pub mod metrics;
mod request;

use std::fmt;
use std::str::FromStr;

pub use layer::{install, subscriber};
pub(crate) use request::{in_span, request_span};

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, message, `field=value`.
    Text,
    /// For collectors: one JSON object.
    Json,
}

impl LogFormat {
    /// The words of the configuration.
    pub const WORDS: &'static [&'static str] = &["text", "json"];
}

impl FromStr for LogFormat {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownWord { known: Self::WORDS }),
        }
    }
}

/// The least severe events that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// The server cannot do its work.
    Error,
    /// Something needs attention.
    Warn,
    /// Changes of the server's state, a few lines for each.
    #[default]
    Info,
    /// A line per request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The words of the configuration.
    pub const WORDS: &'static [&'static str] = &["error", "warn", "info", "debug", "trace"];
    /// The word of the default.
    pub const DEFAULT_WORD: &'static str = "info";

    fn filter(self) -> tracing::Level {
        match self {
            Self::Error => tracing::Level::ERROR,
            Self::Warn => tracing::Level::WARN,
            Self::Info => tracing::Level::INFO,
            Self::Debug => tracing::Level::DEBUG,
            Self::Trace => tracing::Level::TRACE,
        }
    }
}

impl FromStr for LogLevel {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(UnknownWord { known: Self::WORDS }),
        }
    }
}

/// A format or level that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.known.join(" or "))
    }
}

impl std::error::Error for UnknownWord {}

/// The format and level of the subscriber.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// The form of a line.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
    /// Whether text colours the level, for a terminal.
    pub colour: bool,
}
