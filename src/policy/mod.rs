//! The way of a policy: files become a snapshot, one step after the other. Pure; each step takes what the one before made.

pub mod bundle;
pub mod syntax;
mod yaml;
pub mod parse;
pub mod guard;
pub mod source;
pub mod schema;
pub mod condition;
mod condition_cache;
pub mod entities;
pub mod index;
pub mod native;
pub mod link;
mod validate;
pub(crate) mod cedar_text;
pub mod snapshot;
pub mod load;
pub mod live;
pub mod problem;
mod excerpt;
pub mod report;

pub use bundle::{Bundle, FileKind, SourceFile};
pub use live::{Live, Report};
pub use load::{Loaded, Loader, load};
pub use problem::{Problem, ProblemCode, Severity};
pub use snapshot::Snapshot;
