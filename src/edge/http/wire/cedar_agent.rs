//! The body of `/v1/is_authorized`, as users of cedar-agent send it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::errors::{ApiError, ErrorCode};
use super::authorize::Context;
use super::json::{Bounded, Optional, RequestBody, Text, read};
use super::uid::{action, uid_text};
use crate::model::{RequestErrorCode, Told, strict_json};
use crate::pdp::MAX_ADDITIONAL_ENTITIES;
use crate::pdp::{AuthorizeCall, Caller, Via};

/// A request for a decision, in the form of cedar-agent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct CedarAgentRequest<'a> {
    /// A Cedar uid.
    #[serde(borrow)]
    principal: Text<'a>,
    /// A Cedar uid, or a bare name.
    #[serde(borrow)]
    action: Text<'a>,
    /// A Cedar uid.
    #[serde(borrow)]
    resource: Text<'a>,
    #[serde(default)]
    #[schemars(with = "Context")]
    context: Told,
    /// Entities in Cedar's JSON form that hold for this request; they may add, never redefine.
    #[serde(default, borrow)]
    #[schemars(with = "Bounded<serde_json::Map<String, Value>, MAX_ADDITIONAL_ENTITIES>")]
    additional_entities: Optional<Bounded<&'a RawValue, MAX_ADDITIONAL_ENTITIES>>,
    #[serde(default)]
    #[schemars(skip)]
    entities: Optional<IgnoredAny>,
}

impl RequestBody for CedarAgentRequest<'_> {
    const EXPECTED: &'static str = "an object with `principal`, `action` and `resource`";
}

/// Reads the body.
pub(in super::super) fn cedar_agent(body: &[u8]) -> Result<AuthorizeCall, ApiError> {
    read::<CedarAgentRequest>(body)?.try_into()
}

impl TryFrom<CedarAgentRequest<'_>> for AuthorizeCall {
    type Error = ApiError;

    fn try_from(written: CedarAgentRequest<'_>) -> Result<Self, ApiError> {
        if written.entities.0.is_some() {
            // A request that were decided without them would be another request.
            let message = "`entities` would replace what the bundle knows; send `additional_entities`, which may add";
            return Err(ApiError::new(ErrorCode::NotSupported, message).within("entities"));
        }
        let principal = uid_text(&written.principal, "principal")?;
        let action = action(&written.action)?;
        let resource = uid_text(&written.resource, "resource")?;
        let entities = written.additional_entities.0.map(additional_entities).transpose()?;
        let mut call = Self::new(Caller::Asserted(principal), action, resource).with_context(written.context);
        (call.via, call.additional_entities) = (Via::CedarAgent, entities.unwrap_or_default());
        Ok(call)
    }
}

fn additional_entities(written: Bounded<&RawValue, MAX_ADDITIONAL_ENTITIES>) -> Result<Vec<Value>, ApiError> {
    let code = ErrorCode::Request(RequestErrorCode::InvalidEntities);
    let too_many = || ApiError::new(code, format!("a request may bring {MAX_ADDITIONAL_ENTITIES} entities at most"));
    let items = written.items().ok_or_else(|| too_many().within("additional_entities"))?;
    let parsed = items.into_iter().enumerate().map(|(at, item)| {
        let wrong =
            |error: serde_json::Error| ApiError::invalid(format!("additional_entities[{at}]"), error.to_string());
        strict_json::from_str(item.get()).map_err(wrong)
    });
    parsed.collect()
}
