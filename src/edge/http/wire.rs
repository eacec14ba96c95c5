//! What is sent, read straight into the core's words: no tree of values is made between.
//!
//! What of a later version is asked for is refused, never passed over.

use serde::de::MapAccess;
use serde_json::Value;
use smol_str::SmolStr;

use super::errors::{ApiError, ErrorCode};
use super::grammar::{List, Members, Trail, Uid, action, missing, object, text, uid_text};
use super::options::Silence;
use super::{amounts, credential, spending};
use crate::gate::{Credential, MAX_ADDITIONAL_ENTITIES, MAX_CANDIDATES, Reserve, Via};
use crate::meter::DEFAULT_TTL_MS;
use crate::model::strict_json::Strict;
use crate::model::{EntityUid, RequestErrorCode, Told};
use crate::pdp::{AuthorizeCall, Caller, LimitsMode, ReserveOptions, Target};

/// Reads the body of `/is_authorized`.
pub(super) fn question(text: &[u8], silence: Silence) -> Result<AuthorizeCall, ApiError> {
    let trail = Trail::default();
    trail.read(text, object(QuestionMembers::new(&trail, silence)))
}

/// Reads the body of `/is_authorized/batch`, of at most `most` questions.
pub(super) fn batch(text: &[u8], most: usize, silence: Silence) -> Result<Vec<AuthorizeCall>, ApiError> {
    let trail = Trail::default();
    trail.read(text, object(Batch { trail: &trail, most, silence, requests: None }))
}

/// Reads the body of `/v1/is_authorized`.
pub(super) fn cedar_agent(text: &[u8]) -> Result<AuthorizeCall, ApiError> {
    let trail = Trail::default();
    trail.read(text, object(CedarAgent::new(&trail)))
}

/// Reads the body of `/bundle/reload`: the revision that is acknowledged, if one is.
pub(super) fn reload(text: &[u8]) -> Result<Option<SmolStr>, ApiError> {
    let trail = Trail::default();
    trail.read(text, object(Reload { trail: &trail, acknowledge: None }))
}

/// The members of a question.
struct QuestionMembers<'t> {
    trail: &'t Trail,
    silence: Silence,
    principal: Option<EntityUid>,
    credential: Option<Credential>,
    action: Option<SmolStr>,
    resource: Option<EntityUid>,
    candidates: Option<Vec<EntityUid>>,
    context: Told,
    explain: bool,
    /// What is said of it, if anything is.
    reserve: Option<amounts::Wanted>,
    ttl_ms: Option<i64>,
    key: Option<SmolStr>,
}

impl<'t> QuestionMembers<'t> {
    fn new(trail: &'t Trail, silence: Silence) -> Self {
        let (principal, action, resource, candidates) = (None, None, None, None);
        let (credential, reserve, ttl_ms, key) = (None, None, None, None);
        let (context, explain) = (Told::default(), false);
        Self {
            trail,
            silence,
            principal,
            credential,
            action,
            resource,
            candidates,
            context,
            explain,
            reserve,
            ttl_ms,
            key,
        }
    }
}

impl<'de, 't> Members<'de, 't> for QuestionMembers<'t> {
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
        "ttl_seconds",
    ];
    type Value = AuthorizeCall;

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
            "reserve" => self.reserve = Some(map.next_value_seed(amounts::Reserving { trail })?),
            "idempotency_key" => self.key = Some(spending::key(trail, map)?),
            "ttl_seconds" => self.ttl_ms = Some(map.next_value_seed(amounts::Seconds { trail })?),
            _ => self.credential = Some(credential::read(trail, map)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<AuthorizeCall, ApiError> {
        if self.principal.is_none() && self.credential.is_none() {
            return Err(missing("principal"));
        }
        let action = self.action.ok_or_else(|| missing("action"))?;
        let target = match (self.candidates, self.resource) {
            (Some(candidates), router) => Target::Candidates { router, candidates },
            (None, resource) => Target::One(resource.ok_or_else(|| missing("resource"))?),
        };
        let unsaid = (self.silence == Silence::Reserves).then(|| (Reserve::default(), None));
        let limits = limits(self.reserve.unwrap_or(unsaid), self.ttl_ms, self.key)?;
        let caller = match (self.principal, self.credential) {
            (Some(principal), None) => Caller::Asserted(principal),
            (None, Some(credential)) => Caller::Forwarded(credential),
            _ => {
                let message = "`principal` says who asks, or `credential` proves it: send one of the two";
                return Err(ApiError::invalid("credential", message));
            }
        };
        let mut call = AuthorizeCall::new(caller, action, target);
        (call.via, call.context, call.explain, call.limits) = (Via::IsAuthorized, self.context, self.explain, limits);
        Ok(call)
    }
}

/// What is to be held. Without `reserve` a key or a time to live would be passed over.
fn limits(reserve: amounts::Wanted, ttl_ms: Option<i64>, key: Option<SmolStr>) -> Result<LimitsMode, ApiError> {
    let alone = |name| ApiError::invalid(name, format!("`{name}` goes with `reserve`: a check holds nothing"));
    let Some((amounts, within)) = reserve else {
        return match (ttl_ms, key) {
            (Some(_), _) => Err(alone("ttl_seconds")),
            (_, Some(_)) => Err(alone("idempotency_key")),
            (None, None) => Ok(LimitsMode::Check),
        };
    };
    if ttl_ms.is_some() && within.is_some() {
        return Err(ApiError::invalid("ttl_seconds", "`ttl_seconds` stands beside `reserve` or in it, not both"));
    }
    let ttl_ms = ttl_ms.or(within).unwrap_or(DEFAULT_TTL_MS);
    Ok(LimitsMode::Reserve(ReserveOptions { amounts, ttl_ms, idempotency_key: key }))
}

/// An honest refusal: to ignore what a later version will heed would be an answer to another question.
fn not_supported() -> ApiError {
    let message = "`entities` would replace what the bundle knows; send `additional_entities`, which may add";
    ApiError::new(ErrorCode::NotSupported, message)
}

/// The members of a batch.
struct Batch<'t> {
    trail: &'t Trail,
    most: usize,
    silence: Silence,
    requests: Option<Vec<AuthorizeCall>>,
}

impl<'de, 't> Members<'de, 't> for Batch<'t> {
    const WHAT: &'static str = "an object with `requests`";
    const NAMES: &'static [&'static str] = &["requests"];
    type Value = Vec<AuthorizeCall>;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, _: &'static str, map: &mut A) -> Result<(), A::Error> {
        let (trail, silence) = (self.trail, self.silence);
        let too_many =
            |most| ApiError::new(ErrorCode::BatchTooLarge, format!("a batch may hold {most} requests at most"));
        let list = List { trail, most: self.most, too_many, item: || object(QuestionMembers::new(trail, silence)) };
        self.requests = Some(map.next_value_seed(list)?);
        Ok(())
    }

    fn finish(self) -> Result<Vec<AuthorizeCall>, ApiError> {
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
    type Value = AuthorizeCall;

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
            _ => return Err(trail.fail(not_supported())),
        }
        Ok(())
    }

    fn finish(self) -> Result<AuthorizeCall, ApiError> {
        let principal = self.principal.ok_or_else(|| missing("principal"))?;
        let action = self.action.ok_or_else(|| missing("action"))?;
        let resource = self.resource.ok_or_else(|| missing("resource"))?;
        let mut call = AuthorizeCall::new(Caller::Asserted(principal), action, resource).with_context(self.context);
        (call.via, call.additional_entities) = (Via::CedarAgent, self.additional_entities);
        Ok(call)
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
