//! What is sent, read straight into the core's words: no tree of values is made between.
//!
//! What of a later version is asked for is refused, never passed over.

use serde::de::MapAccess;
use serde_json::Value;
use smol_str::SmolStr;

use super::errors::{ApiError, ErrorCode};
use super::grammar::{List, Members, Trail, Uid, action, missing, object, text, uid_text};
use crate::gate::{MAX_ADDITIONAL_ENTITIES, MAX_CANDIDATES};
use crate::model::strict_json::Strict;
use crate::model::{CandidatesRequest, EntityUid, Request, RequestErrorCode, Told};

/// A question as sent to `/is_authorized`.
#[derive(Debug)]
pub(super) enum Asked {
    One(Request),
    /// With whether a hint is wanted.
    Candidates(CandidatesRequest, bool),
}

impl Asked {
    pub(super) fn explains(&self) -> bool {
        match self {
            Self::One(request) => request.explain,
            Self::Candidates(_, explain) => *explain,
        }
    }
}

/// Reads the body of `/is_authorized`.
pub(super) fn question(text: &[u8]) -> Result<Asked, ApiError> {
    let trail = Trail::default();
    trail.read(text, object(Question::new(&trail)))
}

/// Reads the body of `/is_authorized/batch`, of at most `most` questions.
pub(super) fn batch(text: &[u8], most: usize) -> Result<Vec<Asked>, ApiError> {
    let trail = Trail::default();
    trail.read(text, object(Batch { trail: &trail, most, requests: None }))
}

/// Reads the body of `/v1/is_authorized`.
pub(super) fn cedar_agent(text: &[u8]) -> Result<Request, ApiError> {
    let trail = Trail::default();
    trail.read(text, object(CedarAgent::new(&trail)))
}

/// Reads the body of `/bundle/reload`: the revision that is acknowledged, if one is.
pub(super) fn reload(text: &[u8]) -> Result<Option<SmolStr>, ApiError> {
    let trail = Trail::default();
    trail.read(text, object(Reload { trail: &trail, acknowledge: None }))
}

/// The members of a question.
struct Question<'t> {
    trail: &'t Trail,
    principal: Option<EntityUid>,
    action: Option<SmolStr>,
    resource: Option<EntityUid>,
    candidates: Option<Vec<EntityUid>>,
    context: Told,
    explain: bool,
}

impl<'t> Question<'t> {
    fn new(trail: &'t Trail) -> Self {
        let (principal, action, resource, candidates) = (None, None, None, None);
        Self { trail, principal, action, resource, candidates, context: Told::default(), explain: false }
    }
}

impl<'de, 't> Members<'de, 't> for Question<'t> {
    const WHAT: &'static str = "an object with `principal`, `action` and `resource`";
    const NAMES: &'static [&'static str] = &[
        "principal",
        "action",
        "resource",
        "context",
        "candidates",
        "explain",
        "credential",
        "reserve",
        "idempotency_key",
    ];
    type Value = Asked;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        match name {
            "principal" => self.principal = Some(map.next_value_seed(Uid { trail })?),
            "action" => self.action = Some(map.next_value_seed(action(trail))?),
            "resource" => self.resource = Some(map.next_value_seed(Uid { trail })?),
            "context" => self.context = map.next_value()?,
            "candidates" => {
                let too_many = |most| {
                    let code = ErrorCode::Request(RequestErrorCode::InvalidCandidates);
                    ApiError::new(code, format!("`candidates` takes 1 to {most} resources"))
                };
                let list = List { trail, most: MAX_CANDIDATES, too_many, item: || Uid { trail } };
                self.candidates = Some(map.next_value_seed(list)?);
            }
            "explain" => self.explain = map.next_value()?,
            _ => return Err(trail.fail(not_supported(name))),
        }
        Ok(())
    }

    fn finish(self) -> Result<Asked, ApiError> {
        let principal = self.principal.ok_or_else(|| missing("principal"))?;
        let action = self.action.ok_or_else(|| missing("action"))?;
        let context = self.context;
        if let Some(candidates) = self.candidates {
            let request = CandidatesRequest { principal, action, router: self.resource, candidates, context };
            return Ok(Asked::Candidates(request, self.explain));
        }
        let resource = self.resource.ok_or_else(|| missing("resource"))?;
        let request = Request::new(principal, action, resource).with_context(context).with_explain(self.explain);
        Ok(Asked::One(request))
    }
}

/// An honest refusal: to ignore what a later version will heed would be an answer to another question.
fn not_supported(name: &'static str) -> ApiError {
    let message = match name {
        "credential" => "`credential` is not part of this version; name the `principal`",
        "entities" => "`entities` would replace what the bundle knows; send `additional_entities`, which may add",
        _ => "reservations are not part of this version; leave `reserve` and `idempotency_key` out",
    };
    ApiError::new(ErrorCode::NotSupported, message)
}

/// The members of a batch.
struct Batch<'t> {
    trail: &'t Trail,
    most: usize,
    requests: Option<Vec<Asked>>,
}

impl<'de, 't> Members<'de, 't> for Batch<'t> {
    const WHAT: &'static str = "an object with `requests`";
    const NAMES: &'static [&'static str] = &["requests"];
    type Value = Vec<Asked>;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, _: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        let too_many =
            |most| ApiError::new(ErrorCode::BatchTooLarge, format!("a batch may hold {most} requests at most"));
        let list = List { trail, most: self.most, too_many, item: || object(Question::new(trail)) };
        self.requests = Some(map.next_value_seed(list)?);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Asked>, ApiError> {
        self.requests.ok_or_else(|| missing("requests"))
    }
}

/// The members of what users of cedar-agent send.
struct CedarAgent<'t> {
    trail: &'t Trail,
    principal: Option<EntityUid>,
    action: Option<SmolStr>,
    resource: Option<EntityUid>,
    context: Told,
    additional_entities: Vec<Value>,
}

impl<'t> CedarAgent<'t> {
    fn new(trail: &'t Trail) -> Self {
        let (principal, action, resource) = (None, None, None);
        Self { trail, principal, action, resource, context: Told::default(), additional_entities: Vec::new() }
    }
}

impl<'de, 't> Members<'de, 't> for CedarAgent<'t> {
    const WHAT: &'static str = "an object with `principal`, `action` and `resource`";
    const NAMES: &'static [&'static str] =
        &["principal", "action", "resource", "context", "additional_entities", "entities"];
    type Value = Request;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        match name {
            "principal" => self.principal = Some(map.next_value_seed(uid_text(trail))?),
            "action" => self.action = Some(map.next_value_seed(action(trail))?),
            "resource" => self.resource = Some(map.next_value_seed(uid_text(trail))?),
            "context" => self.context = map.next_value()?,
            "additional_entities" => {
                let too_many = |most| {
                    let code = ErrorCode::Request(RequestErrorCode::InvalidEntities);
                    ApiError::new(code, format!("a request may bring {most} entities at most"))
                };
                let list = List { trail, most: MAX_ADDITIONAL_ENTITIES, too_many, item: || Strict };
                self.additional_entities = map.next_value_seed(list)?;
            }
            _ => return Err(trail.fail(not_supported(name))),
        }
        Ok(())
    }

    fn finish(self) -> Result<Request, ApiError> {
        let principal = self.principal.ok_or_else(|| missing("principal"))?;
        let action = self.action.ok_or_else(|| missing("action"))?;
        let resource = self.resource.ok_or_else(|| missing("resource"))?;
        let request = Request::new(principal, action, resource).with_context(self.context);
        Ok(request.with_additional_entities(self.additional_entities))
    }
}

/// The members of a wish to reload.
struct Reload<'t> {
    trail: &'t Trail,
    acknowledge: Option<SmolStr>,
}

impl<'de, 't> Members<'de, 't> for Reload<'t> {
    const WHAT: &'static str = "an object with `acknowledge`";
    const NAMES: &'static [&'static str] = &["acknowledge"];
    type Value = Option<SmolStr>;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, _: &'static str, map: &mut A) -> Result<(), A::Error> {
        self.acknowledge = Some(map.next_value_seed(text(self.trail, "a revision"))?);
        Ok(())
    }

    fn finish(self) -> Result<Option<SmolStr>, ApiError> {
        Ok(self.acknowledge)
    }
}
