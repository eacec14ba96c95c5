//! A limit as written, with its places. What it says by itself is checked as far as the arithmetic needs it; whom it binds
//! takes the whole bundle to know.

use std::sync::Arc;

use super::{Name, Place, Selector};
use crate::meter::Limit;
pub use crate::model::Each;

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
