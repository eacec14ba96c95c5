//! A request as asked: who wants to do what with what, and what the caller tells of the circumstances.

use std::sync::Arc;

use serde_json::Value;
use smol_str::SmolStr;

use super::identity::Identity;
use super::told::Told;
use super::uid::EntityUid;

/// One question: may `principal` do `action` on `resource`?
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Who asks.
    pub principal: EntityUid,
    /// What a credential proved of the principal; without one, whoever sends the request asserts it.
    pub identity: Option<Arc<Identity>>,
    /// A bare action name (`chat`) or a Cedar uid (`Action::"chat"`).
    pub action: SmolStr,
    /// What it is asked of.
    pub resource: EntityUid,
    /// What the caller tells of the request; checked against the schema before anything is decided.
    pub context: Told,
    /// Entities that hold for this request alone, in Cedar's JSON form: they may add to what the bundle declares, never
    /// redefine it.
    pub additional_entities: Vec<Value>,
    /// Whether the decision should say what a forbidden request lacked.
    pub explain: bool,
}

impl Request {
    /// A request without context.
    pub fn new(principal: EntityUid, action: impl Into<SmolStr>, resource: EntityUid) -> Self {
        Self {
            principal,
            identity: None,
            action: action.into(),
            resource,
            context: Told::default(),
            additional_entities: Vec::new(),
            explain: false,
        }
    }

    /// A request of whom a credential proved.
    pub fn proved(identity: Arc<Identity>, action: impl Into<SmolStr>, resource: EntityUid) -> Self {
        let mut request = Self::new(identity.principal.clone(), action, resource);
        request.identity = Some(identity);
        request
    }

    /// The same request with this context (a JSON object as in `POST /is_authorized`).
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Told>) -> Self {
        self.context = context.into();
        self
    }

    /// The same request with these entities beside those of the bundle.
    #[must_use]
    pub fn with_additional_entities(mut self, entities: Vec<Value>) -> Self {
        self.additional_entities = entities;
        self
    }

    /// The same request, asking for a hint when it is forbidden.
    #[must_use]
    pub fn with_explain(mut self, explain: bool) -> Self {
        self.explain = explain;
        self
    }
}

/// One question about a list: which of `candidates` may `principal` use?
#[derive(Debug, Clone, PartialEq)]
pub struct CandidatesRequest {
    /// Who asks.
    pub principal: EntityUid,
    /// As in [`Request`].
    pub identity: Option<Arc<Identity>>,
    /// A bare action name or a Cedar uid.
    pub action: SmolStr,
    /// The router that leads to the candidates, if they are asked for through one.
    pub router: Option<EntityUid>,
    /// 1 to 64 resources, in the caller's order of preference.
    pub candidates: Vec<EntityUid>,
    /// As in [`Request`].
    pub context: Told,
}

/// Why no decision could be made about a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// Which kind of mistake.
    pub code: RequestErrorCode,
    /// What is wrong and the way out.
    pub message: String,
    /// The member of the request that is wrong, `context.ip`.
    pub param: String,
}

/// The closed set of mistakes a request can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestErrorCode {
    /// Not JSON, a member missing, or of the wrong type.
    InvalidRequest,
    /// An action that the schema does not have, or that does not go with this principal or resource.
    UnknownAction,
    /// An entity type that the schema does not have.
    UnknownEntityType,
    /// A name that holds what no name may hold.
    InvalidName,
    /// A context that the schema refuses.
    InvalidContext,
    /// A context member that only Tollgate itself sets.
    ReservedContext,
    /// A wrong number of candidates, or candidates of the wrong type.
    InvalidCandidates,
    /// Entities of a request that the schema refuses, or that would redefine known ones.
    InvalidEntities,
    /// An amount that a limit needs, and that nobody gave.
    AmountNeeded,
    /// A key that names another request already, or one that is being answered.
    IdempotencyConflict,
}

impl RequestErrorCode {
    /// The code as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownAction => "unknown_action",
            Self::UnknownEntityType => "unknown_entity_type",
            Self::InvalidName => "invalid_name",
            Self::InvalidContext => "invalid_context",
            Self::ReservedContext => "reserved_context",
            Self::InvalidCandidates => "invalid_candidates",
            Self::InvalidEntities => "invalid_entities",
            Self::AmountNeeded => "amount_needed",
            Self::IdempotencyConflict => "idempotency_conflict",
        }
    }
}

impl RequestError {
    /// An error of `code` about the member `param`.
    pub fn new(code: RequestErrorCode, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: param.into() }
    }
}
