//! The way of a request: a request and what is known become a decision. Owns no socket, file or clock.

mod additional;
mod assume;
mod authenticate;
mod authorize;
mod books;
mod candidates;
mod charge;
mod context;
mod decide;
mod evaluate;
mod explain;
mod failures;
mod gather;
mod idempotency;
mod manage;
mod narrow;
mod ports;
mod refuse;
mod routes;
mod settle;
mod shipped;
mod spend;
mod standing;
mod usage;
mod widen;

pub use additional::{Additional, MAX_ADDITIONAL_ENTITIES};
pub use assume::Assumptions;
pub use authenticate::{
    Authenticator, Credential, Described, Peer, Presented, Recalled, ToldOf, Verdict, authenticate, has_limits,
    has_role, is_disabled, is_narrowed, is_used_from, person, recall, told_of,
};
pub use authorize::{Authorized, Wish, World, authorize, authorize_candidates, explain};
pub use books::{
    Books, BooksPage, BooksWish, By, Collector, Group, MAX_LINES, Row, Sum, TimeSpan, day_of, month_begins,
};
pub use candidates::{CandidatesDecision, MAX_CANDIDATES, decide_candidates};
pub use charge::{Charging, authorize_and_charge};
pub use context::RequestContext;
pub use decide::{decide, explain_request};
pub use evaluate::{Evaluation, Question, evaluate};
pub use explain::{ClauseTrace, Explanation, RuleTrace};
pub use failures::{Attempt, FailureLimits, Failures};
pub use gather::{Applying, applicable};
pub use idempotency::{ClientKey, KeyOwner, KeyUse, ScopedKey};
pub use manage::{MANAGE_KEYS, Manager, Right, TooWide, VIEW_USAGE};
pub use ports::{
    Ask, Checkpoint, Clock, CloseError, Decided, DecisionId, DecisionLog, DecisionLogStatus, DecisionRecord, Family,
    Fetch, FetchError, HoldError, Issued, KeptKey, KeyLookup, KeyWrite, KeyWriteError, Keys, KeysOf, Later, Look,
    MOST_FAMILIES, MOST_USED, Meters, Notice, Observer, PUBLISHED_FOR_SECONDS, PasswordLookup, PasswordWrite,
    PasswordWriteError, Passwords, RefreshDigest, Refreshed, Reply, Seen, StoreError, SubjectsOf, TokenError,
    TokenStore, Tokens, Unproved, Via,
};
pub use routes::{Found, MAX_ROUTES, Mapped, Named, PatternError, RouteError, RouteLimits, RouteMap, check_route_path};
pub use settle::{SettleError, Spent, extend, record, release, settle};
pub use shipped::ADMIN_POLICIES;
pub use spend::Reserve;
pub use standing::{MAX_STANDINGS, Mark, MeterStanding, Standings, StandingsError, StandingsOf, standings};
pub use usage::{ReportedUsage, Stated};
