//! A limit as written, with its places. What it says by itself is checked as far as the arithmetic needs it; whom it binds
//! takes the whole bundle to know.

use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;

use super::{Name, Place, Selector};
use crate::meter::Limit;

/// A limit as written.
#[derive(Debug, Clone)]
pub struct LimitDeclaration {
    /// `id`
    pub id: Name,
    /// Where the limit begins.
    pub place: Place,
    /// `description`
    pub description: Option<Box<str>>,
    /// How much of what over which time, and what happens at its edges.
    pub limit: Arc<Limit>,
    /// `each`: whose meters it has; `None` where all share one.
    pub each: Option<Each>,
    /// `users`, `teams` …; empty where the limit binds everyone.
    pub who: Box<[Selector]>,
    /// `models`, `routers` …; empty where it binds whatever is used.
    pub what: Box<[Selector]>,
    /// `actions`; empty where the limit says none: every action of `use` but `list`.
    pub actions: Box<[Name]>,
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
