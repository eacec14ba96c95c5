//! What Tollgate itself knows when it decides: the instant, how the caller proved itself, and what is left to spend.

use std::fmt;

/// An instant, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Reads an RFC 3339 instant, `2027-01-01T00:00:00Z`; an offset is needed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|instant| Self(instant.as_millisecond()))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// How the caller proved who it is, as `context.auth.method` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMethod {
    /// A trusted caller named the principal.
    #[default]
    Asserted,
}

impl AuthMethod {
    /// The text that conditions compare with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asserted => "asserted",
        }
    }
}

/// The fullest enforced money budget that applies; with none, 0 percent used and the largest amount left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Percent used, held amounts included; 100 only when full.
    pub used_percent: i64,
    /// What is left, in micro-dollars (millionths of a US dollar), rounded down.
    pub remaining_micros: i64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { used_percent: 0, remaining_micros: i64::MAX }
    }
}

/// The tightest enforced rate limit that applies; with none, the largest amounts left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests that may still go through now.
    pub remaining_requests: i64,
    /// Tokens that may still be used now.
    pub remaining_tokens: i64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { remaining_requests: i64::MAX, remaining_tokens: i64::MAX }
    }
}

/// Everything that is known for one decision besides the request, frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The instant of the decision: `context.now`.
    pub now: Timestamp,
    /// `context.auth.method`.
    pub auth: AuthMethod,
    /// `context.budget`.
    pub budget: Budget,
    /// `context.rate`.
    pub rate: Rate,
}

impl Facts {
    /// What is known of a caller that no limit binds, at `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { now, auth: AuthMethod::default(), budget: Budget::default(), rate: Rate::default() }
    }
}
