//! The decision log: the record of a decision, and the port through which it leaves the core.
//!
//! A record borrows everything: building one costs nothing, and a log that does not want it has not paid for it.

use std::fmt;

use crate::gate::authorize::World;
use crate::gate::candidates::CandidatesDecision;
use crate::gate::charge::Charging;
use crate::gate::spend::Reserve;
use crate::model::{
    CandidatesRequest, Decision, DecisionCode, EntityUid, LimitStanding, Outcome, Refusal, Request, Timestamp, Told,
};

/// The id of a decision: a random number of the process, and a number within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionId {
    /// The random number that all ids of this process begin with.
    pub process: u64,
    /// The number of the decision within the process.
    pub number: u64,
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.process, self.number)
    }
}

/// The interface that a decision was asked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// `POST /is_authorized` and its batches.
    IsAuthorized,
    /// `POST /v1/is_authorized`.
    CedarAgent,
    /// `POST /v1/auth/validate`.
    Validate,
    /// The tower layer.
    Layer,
    /// A method of the engine, called in process.
    Library,
}

impl Via {
    /// The interface as records name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IsAuthorized => "is_authorized",
            Self::CedarAgent => "cedar_agent",
            Self::Validate => "validate",
            Self::Layer => "layer",
            Self::Library => "library",
        }
    }
}

/// The standings of limits that conditions saw when they decided about one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The resource as asked.
    pub resource: EntityUid,
    /// The standings; `None` where the store did not answer, so that conditions saw the defaults.
    pub limits: Option<Vec<LimitStanding>>,
}

/// A question whose credential was refused.
#[derive(Debug, Clone, Copy)]
pub struct Unproved<'a> {
    /// The action that was asked for.
    pub action: &'a str,
    /// The resource; of a list of candidates, the router.
    pub resource: Option<&'a EntityUid>,
    /// The candidates, where a list was asked about.
    pub candidates: Option<&'a [EntityUid]>,
    /// The context of the question; `None` where the interface has none yet.
    pub context: Option<&'a Told>,
    /// The reason why the credential was refused.
    pub refusal: &'a Refusal,
}

/// A question and its decision.
#[derive(Debug, Clone, Copy)]
pub enum Decided<'a> {
    /// About one resource.
    One(&'a Request, &'a Decision),
    /// About a list of candidates.
    Candidates(&'a CandidatesRequest, &'a CandidatesDecision),
    /// Refused before any rule was evaluated.
    Refused(Unproved<'a>),
}

/// Everything that a record is made of: enough to decide the same question again.
#[derive(Debug, Clone, Copy)]
pub struct DecisionRecord<'a> {
    /// The id that the answer has.
    pub id: DecisionId,
    /// The instant of the decision: `context.now`.
    pub at: Timestamp,
    /// The content of the bundle that decided.
    pub revision: &'a str,
    /// The interface.
    pub via: Via,
    /// The amounts that the request asked to hold.
    pub reserve: Option<&'a Reserve>,
    /// How a permitted request is charged at once.
    pub charging: Option<&'a Charging>,
    /// The standings that conditions saw; empty where no condition of the bundle reads any.
    pub seen: &'a [Seen],
    /// The question and its decision.
    pub decided: Decided<'a>,
}

impl<'a> DecisionRecord<'a> {
    /// The record of a decision that was made in `world`.
    #[must_use]
    pub fn of(id: DecisionId, via: Via, world: World<'a>, decided: Decided<'a>) -> Self {
        let (at, revision) = (world.facts.now, &**world.snapshot.revision());
        Self { id, at, revision, via, reserve: None, charging: None, seen: &[], decided }
    }

    /// Adds the state of limits that conditions saw.
    #[must_use]
    pub fn with_seen(self, seen: &'a [Seen]) -> Self {
        Self { seen, ..self }
    }

    /// Adds the amounts that the request asked to hold.
    #[must_use]
    pub fn with_reserve(self, reserve: Option<&'a Reserve>) -> Self {
        Self { reserve, ..self }
    }

    /// Marks a request that is charged at once if it is permitted.
    #[must_use]
    pub fn with_charging(self, charging: &'a Charging) -> Self {
        Self { charging: Some(charging), ..self }
    }

    /// Permit or forbid.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.decided {
            Decided::One(_, decision) => decision.outcome,
            Decided::Candidates(_, decision) => decision.outcome,
            Decided::Refused(_) => Outcome::Forbid,
        }
    }

    /// Why.
    #[must_use]
    pub fn code(&self) -> DecisionCode {
        match self.decided {
            Decided::One(_, decision) => decision.code,
            Decided::Candidates(_, decision) => decision.code,
            Decided::Refused(unproved) => unproved.refusal.reason.code(),
        }
    }

    /// The id of the reservation that the decision holds.
    #[must_use]
    pub fn reservation(&self) -> Option<&str> {
        let held = match self.decided {
            Decided::One(_, decision) => decision.reservation.as_ref(),
            Decided::Candidates(_, decision) => {
                decision.candidates.iter().find_map(|one| one.decision.reservation.as_ref())
            }
            Decided::Refused(_) => None,
        };
        held.map(|held| held.id.as_str())
    }
}

/// What became of records so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecisionLogStatus {
    /// Records that were written.
    pub written: u64,
    /// Records that were lost: the queue was full, or nothing could be written.
    pub lost: u64,
    /// Refusals of unproved callers that were summed up instead of being recorded one by one.
    pub summed_up: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Whether the log has stopped, because the disk is nearly full or cannot be written.
    pub stopped: bool,
}

/// A checkpoint: the digest of all lines of a log's file before it. Only a copy that is stored elsewhere shows that the end
/// of the log was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of its line.
    pub seq: u64,
    /// The line exactly as it is written in the log, with its newline.
    pub line: Box<[u8]>,
}

/// Takes records of decisions.
pub trait DecisionLog: Send + Sync {
    /// Takes a record, if the log wants it. Called on the thread that decides, after the decision and before its answer:
    /// it must do no I/O.
    fn record(&self, record: &DecisionRecord<'_>);

    /// What became of records so far.
    fn status(&self) -> DecisionLogStatus;
}
