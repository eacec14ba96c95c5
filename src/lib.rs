#![forbid(unsafe_code)]
//! Tollgate.

#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
pub mod edge;
pub mod engine;
pub mod gate;
pub mod meter;
pub mod model;
pub mod pdp;
pub mod policy;

#[cfg(feature = "tower")]
pub use engine::{Asked, Asks, Authorize, AuthorizeLayer};
pub use engine::{Engine, EngineBuilder, LoadError};
pub use gate::{CandidatesDecision, Mapped, Named, RouteLimits, RouteMap};
pub use model::{
    CandidatesRequest, Decision, DecisionCode, Effect, EntityUid, Facts, Outcome, Request, RequestError,
    RequestErrorCode, RuleReference, Timestamp, Told,
};
pub use pdp::{Pdp, PdpError, PdpError as EngineError};
pub use policy::{Bundle, Problem, ProblemCode, Severity, Snapshot, SourceFile};
