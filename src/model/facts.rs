//! What Tollgate itself knows when it decides: the instant, how the caller proved itself, and what is left to spend.

use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;

use super::amount::{Amount, Unit};

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
    /// An API key of Tollgate's.
    ApiKey,
    /// A token of an issuer that is trusted, or of Tollgate itself.
    Jwt,
    /// An opaque token that its issuer was asked about (RFC 7662).
    Introspection,
    /// A user's name and password (RFC 7617).
    Basic,
    /// A user's name and proof of the password (RFC 7616).
    Digest,
    /// Somebody else's endpoint said so.
    Delegated,
    /// A client certificate.
    MutualTls,
    /// A fixed token, for development.
    Static,
    /// A provider of the library's user.
    Custom,
}

impl AuthMethod {
    /// Whether a principal that authenticated in this way may have Tollgate's own roles, directly or from the bundle. A
    /// delegated endpoint may name any principal, even an administrator of this server, and only the operator may make
    /// one.
    #[must_use]
    pub const fn gives_reserved_roles(self) -> bool {
        !matches!(self, Self::Delegated)
    }

    /// The method of this text.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        use AuthMethod::{ApiKey, Asserted, Basic, Custom, Delegated, Digest, Introspection, Jwt, MutualTls, Static};
        let all = [Asserted, ApiKey, Jwt, Introspection, Basic, Digest, Delegated, MutualTls, Static, Custom];
        all.into_iter().find(|method| method.as_str() == text)
    }

    /// The text that conditions compare with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asserted => "asserted",
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Introspection => "introspection",
            Self::Basic => "basic",
            Self::Digest => "digest",
            Self::Delegated => "delegated",
            Self::MutualTls => "mutual_tls",
            Self::Static => "static",
            Self::Custom => "custom",
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

/// What is known of one limit that applies. Of several of its meters, of the fullest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitFacts {
    /// What is counted. What follows is in it; money in micro-dollars.
    pub unit: Unit,
    /// The cap that holds now; money rounded down.
    pub limit: i64,
    /// What was used in this period; money rounded up.
    pub used: i64,
    /// What is held for requests under way; money rounded up.
    pub held: i64,
    /// What there is room for; money rounded down.
    pub remaining: i64,
    /// How much of the cap is used or held, rounded up, but 100 only when it is full.
    pub used_percent: i64,
}

impl LimitFacts {
    /// Of a meter that has this much used and held under this cap. Never rounded in the caller's favour.
    #[must_use]
    pub fn of(unit: Unit, cap: Amount, used: Amount, held: Amount) -> Self {
        let taken = used.plus(held).unwrap_or(Amount::MAX);
        let money = unit == Unit::Usd;
        let up = |amount: Amount| if money { amount.micros_up() } else { amount.get_signed() };
        let down = |amount: Amount| if money { amount.micros_down() } else { amount.get_signed() };
        Self {
            unit,
            limit: down(cap),
            used: up(used),
            held: up(held),
            remaining: down(cap.less(taken)),
            used_percent: taken.percent_of(cap),
        }
    }

    /// What conditions see, by name.
    #[must_use]
    pub fn members(&self) -> [(&'static str, i64); 5] {
        let [limit, used, held, remaining, used_percent] = Self::names(self.unit);
        [
            (limit, self.limit),
            (used, self.used),
            (held, self.held),
            (remaining, self.remaining),
            (used_percent, self.used_percent),
        ]
    }

    /// The names of what conditions see: limit, used, held, remaining and the percentage.
    #[must_use]
    pub const fn names(unit: Unit) -> [&'static str; 5] {
        match unit {
            Unit::Usd => ["limit_micros", "used_micros", "held_micros", "remaining_micros", "used_percent"],
            _ => ["limit", "used", "held", "remaining", "used_percent"],
        }
    }
}

/// Everything that is known for one decision besides the request, frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The instant of the decision: `context.now`.
    pub now: Timestamp,
    /// `context.auth.method`.
    pub auth: AuthMethod,
    /// `context.budget`.
    pub budget: Budget,
    /// `context.rate`.
    pub rate: Rate,
    /// `context.limits`: those that apply, by id.
    pub limits: Arc<[(SmolStr, LimitFacts)]>,
}

impl Facts {
    /// What is known of a caller that no limit binds, at `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            auth: AuthMethod::default(),
            budget: Budget::default(),
            rate: Rate::default(),
            limits: Arc::default(),
        }
    }
}
