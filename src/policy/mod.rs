//! The way of a policy: files become a snapshot, one step after the other. Pure; each step takes what the one before made.

pub mod bundle;
pub(crate) mod cedar_text;
pub mod condition;
mod condition_cache;
pub mod entities;
pub(crate) mod excerpt;
mod export;
pub mod guard;
pub mod index;
mod limit_schema;
pub mod limits;
pub mod link;
pub mod live;
pub mod load;
pub mod native;
pub(crate) mod parallel;
pub mod parse;
pub mod problem;
pub mod proved;
pub mod report;
pub mod schema;
mod schema_size;
mod set_associative;
pub mod snapshot;
pub mod source;
pub mod syntax;
mod validate;
pub(crate) mod yaml;

pub use bundle::{Bundle, FileKind, SourceFile};
pub use limit_schema::LimitNames;
pub use live::{Live, Report};
pub use load::{Loaded, Loader, load};
pub use problem::{Problem, ProblemCode, Severity};
pub use set_associative::SetAssociative;
pub use snapshot::{BundleKey, Snapshot};
