//! The way of a request: a request and what is known become a decision. Owns no socket, file or clock.

mod candidates;
mod context;
mod decide;
mod evaluate;
mod explain;

pub use candidates::{CandidatesDecision, decide_candidates};
pub use decide::decide;
pub use explain::{ClauseTrace, Explanation, RuleTrace, explain};
pub use evaluate::{Evaluation, Question, evaluate};
pub use context::RequestContext;
