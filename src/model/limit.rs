//! What a limit says, as the arithmetic needs it: how much of what over which time, and what happens at its edges.

use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;

use super::amount::{Amount, Unit};
use super::facts::Timestamp;
use super::kind::Kind;
use super::period::Period;

/// A limit, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// Its id.
    pub id: SmolStr,
    /// What its meters are named by: the id, what is counted and over which time. A limit that is removed and added again
    /// finds its meters; one whose period or unit changed begins new ones; a changed cap changes nothing of it.
    pub series: Arc<str>,
    /// What is counted, and how.
    pub measure: Measure,
    /// How much there may be: of a budget in a period, of a rate at once (its burst), of places at a time.
    pub cap: Amount,
    /// Other caps for a while, in the order of the bundle; the first that holds counts.
    pub overrides: Box<[Override]>,
    /// Percents of the cap whose crossing is told once a period, ascending.
    pub warn_at: Box<[u8]>,
    /// Whether it refuses.
    pub mode: Mode,
    /// What becomes of a hold that nobody settles.
    pub on_expiry: OnExpiry,
    /// The charge for a usage that the caller states as unknown.
    pub on_missing_usage: OnMissingUsage,
    /// What is decided where the store does not answer.
    pub on_store_error: OnStoreError,
    /// Whether an answer waits until what it holds is on disk.
    pub durability: Durability,
    /// What is decided about a model without a price, where money is counted.
    pub unpriced: Unpriced,
    /// Which share of a meter a node may draw from a shared store, to spend it without asking again.
    pub lease: Option<Lease>,
}

/// What is counted, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// So much in a period.
    Budget {
        /// Money or tokens.
        unit: Unit,
        /// The period.
        period: Period,
        /// How much of what was left of a calendar period is had in the next, in percent.
        carry_over_percent: u8,
    },
    /// So much in a while, flowing back evenly (GCRA, the leaky bucket as a meter of ITU-T I.371).
    Rate {
        /// Requests or tokens.
        unit: Unit,
        /// What flows back `every_ms`; at least one.
        amount: Amount,
        /// Milliseconds; at least one.
        every_ms: u64,
    },
    /// So many at a time.
    Concurrency,
}

impl Measure {
    /// What is counted.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        match self {
            Self::Budget { unit, .. } | Self::Rate { unit, .. } => *unit,
            Self::Concurrency => Unit::Places,
        }
    }
}

/// Another cap until a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    /// The cap; of a rate, its burst.
    pub cap: Amount,
    /// Of a rate: what flows back in its time instead.
    pub flow: Option<Amount>,
    /// From when; at once where none is said.
    pub from: Option<Timestamp>,
    /// The first instant at which it holds no more.
    pub until: Timestamp,
}

/// A share of a meter that a node draws from a shared store and spends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How much; what one request needs where that is more.
    pub size: Amount,
    /// For how long the node spends it, in milliseconds.
    pub lasts_ms: i64,
}

/// Whether a limit refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// What does not fit is refused.
    #[default]
    Enforce,
    /// Counted and told, never refused.
    Warn,
}

/// What becomes of a hold that nobody settles. A place is given back in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExpiry {
    /// Charged as held.
    #[default]
    Charge,
    /// Given back.
    Release,
}

/// The charge for a usage that the caller states as unknown. A concurrency place is always released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMissingUsage {
    /// The held amount.
    #[default]
    ChargeHold,
    /// The input as it was held, and the output that the model is estimated to give.
    ChargeEstimate,
    /// Nothing.
    Release,
}

/// What is decided where the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStoreError {
    /// Forbidden.
    #[default]
    Forbid,
    /// Permitted, until each node has let through this allowance.
    Permit(Amount),
}

/// Whether an answer waits until what it holds is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It waits: nothing acknowledged is forgotten.
    Sync,
    /// It does not: a crash may forget the last milliseconds.
    Async,
}

/// What is decided about a model without a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpriced {
    /// Forbidden.
    #[default]
    Forbid,
    /// Costs nothing.
    Free,
}

impl Limit {
    /// The cap that holds at `now`.
    #[must_use]
    pub fn cap_at(&self, now: Timestamp) -> Amount {
        self.override_at(now).map_or(self.cap, |other| other.cap)
    }

    /// The most that there can be room for at any time.
    #[must_use]
    pub fn most_ever(&self) -> Amount {
        let most = self.overrides.iter().map(|other| other.cap).fold(self.cap, Amount::max);
        match self.measure {
            // The rest of one period adds to the next, up to the amount of one period.
            Measure::Budget { carry_over_percent: 1.., .. } => most.plus(most).unwrap_or(Amount::MAX),
            _ => most,
        }
    }

    /// What flows back at `now` in a rate's `every_ms`; `None` where it is no rate.
    #[must_use]
    pub fn flow_at(&self, now: Timestamp) -> Option<Amount> {
        let Measure::Rate { amount, .. } = self.measure else { return None };
        self.override_at(now).and_then(|other| other.flow).or(Some(amount))
    }

    fn override_at(&self, now: Timestamp) -> Option<&Override> {
        self.overrides.iter().find(|other| now < other.until && other.from.is_none_or(|from| from <= now))
    }

    /// What is counted.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        self.measure.unit()
    }

    /// Whether it refuses what does not fit.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.mode == Mode::Enforce
    }
}

/// Whose meters a limit has: one for each of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Each {
    /// `org`
    Org,
    /// `team`
    Team,
    /// `user`
    User,
    /// `service`
    Service,
    /// `key`
    Key,
    /// `model`
    Model,
    /// `router`
    Router,
    /// `metadata.<key>`: what the request's metadata says under this name.
    Metadata(SmolStr),
    /// `end_user`: whom the request names as the gateway's own user.
    EndUser,
}

impl Each {
    /// What `each` takes, but for `metadata.<key>`.
    pub const NAMES: [&'static str; 8] = ["org", "team", "user", "service", "key", "model", "router", "end_user"];

    /// The kind of resource that has a meter each, where it is one.
    #[must_use]
    pub const fn resource_kind(&self) -> Option<Kind> {
        match self {
            Self::Model => Some(Kind::MODEL),
            Self::Router => Some(Kind::ROUTER),
            _ => None,
        }
    }

    /// What `each: name` means.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "org" => Self::Org,
            "team" => Self::Team,
            "user" => Self::User,
            "service" => Self::Service,
            "key" => Self::Key,
            "model" => Self::Model,
            "router" => Self::Router,
            "end_user" => Self::EndUser,
            _ => Self::Metadata(name.strip_prefix("metadata.").filter(|key| !key.is_empty())?.into()),
        })
    }
}

impl fmt::Display for Each {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Org => "org",
            Self::Team => "team",
            Self::User => "user",
            Self::Service => "service",
            Self::Key => "key",
            Self::Model => "model",
            Self::Router => "router",
            Self::EndUser => "end_user",
            Self::Metadata(key) => return write!(f, "metadata.{key}"),
        })
    }
}

/// A limit of one key alone.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyLimit {
    /// How much of what over which time.
    pub limit: Arc<Limit>,
    /// Whose meters it has; `None` where all that the key does shares one.
    pub each: Option<Each>,
}
