//! The way of a request: a request and what is known become a decision. Owns no socket, file or clock.

mod additional;
mod authorize;
mod candidates;
mod context;
mod decide;
mod evaluate;
mod explain;
mod gather;
mod ports;
mod settle;
mod spend;

pub use additional::{Additional, MAX_ADDITIONAL_ENTITIES};
pub use authorize::{Authorized, Wish, World, authorize, authorize_candidates};
pub use candidates::{CandidatesDecision, MAX_CANDIDATES, decide_candidates};
pub use context::RequestContext;
pub use decide::{decide, explain_request};
pub use evaluate::{Evaluation, Question, evaluate};
pub use explain::{ClauseTrace, Explanation, RuleTrace};
pub use gather::{Applying, applicable};
pub use ports::{Clock, CloseError, HoldError, Later, Look, Meters, StoreError};
pub use settle::{SettleError, Spent, extend, record, release, settle};
pub use spend::Reserve;
