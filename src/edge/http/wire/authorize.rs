//! The bodies of `/is_authorized` and `/is_authorized/batch`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::super::errors::{ApiError, ErrorCode};
use super::super::options::Silence;
use super::amounts::{CheckedReserve, Seconds, WrittenReserve, reserve, ttl_ms};
use super::credential::{WrittenCredential, credential};
use super::json::{Bounded, Optional, RequestBody, Text, read, read_item};
use super::missing;
use super::uid::{Uid, action, uid};
use crate::model::{EntityUid, RequestErrorCode, Told};
use crate::pdp::MAX_CANDIDATES;
use crate::pdp::{AuthorizeCall, Caller, DEFAULT_TTL_MS, LimitsMode, ReserveOptions, Target, Via};

/// Longest `idempotency_key`.
const MAX_KEY_BYTES: usize = 255;

/// A request for a decision.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "Question",
    extend("required" = ["action"], "oneOf" = [json!({ "required": ["principal"] }), json!({ "required": ["credential"] })])
)]
pub(in super::super) struct AuthorizationRequest<'a> {
    #[serde(default, borrow)]
    principal: Optional<Uid<'a>>,
    #[serde(default, borrow)]
    #[schemars(with = "WrittenCredential")]
    credential: Optional<&'a RawValue>,
    /// A bare name or a Cedar uid.
    #[serde(default, borrow)]
    #[schemars(length(min = 1, max = 1024))]
    action: Optional<Text<'a>>,
    #[serde(default, borrow)]
    resource: Optional<Uid<'a>>,
    /// Instead of `resource`, or beside one that is a Router.
    #[serde(default, borrow)]
    #[schemars(length(min = 1))]
    candidates: Optional<Bounded<Uid<'a>, MAX_CANDIDATES>>,
    #[serde(default)]
    #[schemars(with = "Context")]
    context: Told,
    /// Whether a forbid comes with a `hint`.
    #[serde(default)]
    explain: bool,
    #[serde(default, borrow)]
    reserve: Optional<WrittenReserve<'a>>,
    /// With `reserve`: the same question under the same key is answered as it was, for a day after its end.
    #[serde(default, borrow)]
    #[schemars(length(min = 1, max = 255))]
    idempotency_key: Optional<Text<'a>>,
    /// With `reserve`: for how long the amounts are held at most.
    #[serde(default)]
    ttl_seconds: Optional<Seconds>,
}

impl RequestBody for AuthorizationRequest<'_> {
    const EXPECTED: &'static str = "an object with `principal`, `action` and `resource`";
}

/// Facts about the request. The members that Tollgate itself sets (`now`, `budget`, `rate`, `limits`, `auth`) cannot be
/// sent; actions of the bundle's own may take other members.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what `gate` checks, for /openapi.json")]
pub(super) struct Context {
    /// One IP address; a range is a 400. An IPv4-mapped IPv6 address is the IPv4 address.
    #[serde(default)]
    ip: Optional<String>,
    #[serde(default)]
    method: Optional<String>,
    /// The path as the client sent it; its query is cut off. An ambiguous path is a 400.
    #[serde(default)]
    path: Optional<String>,
    #[serde(default)]
    end_user: Optional<String>,
    /// Which of the caller's teams pays.
    #[serde(default)]
    team: Optional<String>,
    #[serde(default)]
    input_tokens: Optional<u64>,
    #[serde(default)]
    max_output_tokens: Optional<u64>,
    #[serde(default)]
    stream: Optional<bool>,
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    metadata: Optional<std::collections::BTreeMap<String, String>>,
}

/// Reads the body of `/is_authorized`.
pub(in super::super) fn question(body: &[u8], silence: Silence) -> Result<AuthorizeCall, ApiError> {
    let written: AuthorizationRequest = read(body)?;
    written.or_reserve(silence).try_into()
}

impl AuthorizationRequest<'_> {
    /// The request with the default of the server for an absent `reserve`.
    fn or_reserve(mut self, silence: Silence) -> Self {
        if self.reserve.0.is_none() && silence == Silence::Reserves {
            self.reserve.0 = Some(WrittenReserve::Flag(true));
        }
        self
    }
}

impl TryFrom<AuthorizationRequest<'_>> for AuthorizeCall {
    type Error = ApiError;

    fn try_from(written: AuthorizationRequest<'_>) -> Result<Self, ApiError> {
        let AuthorizationRequest { principal: Optional(principal), credential: Optional(proof), .. } = written;
        if principal.is_none() && proof.is_none() {
            return Err(missing("principal"));
        }
        let principal = principal.map(|written| uid(written, "principal")).transpose()?;
        let proof = proof.map(credential).transpose()?;
        let action = action(&written.action.0.ok_or_else(|| missing("action"))?)?;
        let resource = written.resource.0.map(|written| uid(written, "resource")).transpose()?;
        let target = match (written.candidates.0, resource) {
            (Some(list), router) => Target::Candidates { router, candidates: candidates(list)? },
            (None, resource) => Target::One(resource.ok_or_else(|| missing("resource"))?),
        };
        let ttl_ms = ttl_ms(written.ttl_seconds)?;
        let key = written.idempotency_key.0.map(|key| idempotency_key(&key)).transpose()?;
        let reserve = written.reserve.0.map(reserve).transpose()?.flatten();
        let limits = limits(reserve.as_ref(), ttl_ms, key)?;
        let caller = match (principal, proof) {
            (Some(principal), None) => Caller::Asserted(principal),
            (None, Some(credential)) => Caller::Forwarded(credential),
            _ => {
                let message = "`principal` says who asks, or `credential` proves it: send one of the two";
                return Err(ApiError::invalid("credential", message));
            }
        };
        let mut call = Self::new(caller, action, target).with_context(written.context);
        (call.via, call.explain, call.limits) = (Via::IsAuthorized, written.explain, limits);
        Ok(call)
    }
}

fn candidates(written: Bounded<Uid<'_>, MAX_CANDIDATES>) -> Result<Vec<EntityUid>, ApiError> {
    let code = ErrorCode::Request(RequestErrorCode::InvalidCandidates);
    let too_many = || ApiError::new(code, format!("`candidates` takes 1 to {MAX_CANDIDATES} resources"));
    let items = written.items().ok_or_else(|| too_many().within("candidates"))?;
    let checked = items
        .into_iter()
        .enumerate()
        .map(|(at, written)| EntityUid::try_from(written).map_err(|error| error.within(&format!("candidates[{at}]"))));
    checked.collect()
}

/// Checks a member `idempotency_key`.
pub(super) fn idempotency_key(written: &Text<'_>) -> Result<SmolStr, ApiError> {
    if (1..=MAX_KEY_BYTES).contains(&written.0.len()) {
        return Ok(SmolStr::new(&written.0));
    }
    let message = format!("an idempotency key is a text of 1 to {MAX_KEY_BYTES} bytes");
    Err(ApiError::invalid("idempotency_key", message))
}

/// The effect on limits. Without `reserve`, a key or a time to live would have no effect.
fn limits(reserve: Option<&CheckedReserve>, ttl_ms: Option<i64>, key: Option<SmolStr>) -> Result<LimitsMode, ApiError> {
    let alone = |name| ApiError::invalid(name, format!("`{name}` goes with `reserve`: a check holds nothing"));
    let Some(CheckedReserve { reserve, ttl_ms: inner_ttl_ms }) = reserve else {
        return match (ttl_ms, key) {
            (Some(_), _) => Err(alone("ttl_seconds")),
            (_, Some(_)) => Err(alone("idempotency_key")),
            (None, None) => Ok(LimitsMode::Check),
        };
    };
    if ttl_ms.is_some() && inner_ttl_ms.is_some() {
        return Err(ApiError::invalid("ttl_seconds", "`ttl_seconds` stands beside `reserve` or in it, not both"));
    }
    let ttl_ms = ttl_ms.or(*inner_ttl_ms).unwrap_or(DEFAULT_TTL_MS);
    Ok(LimitsMode::Reserve(ReserveOptions { amounts: *reserve, ttl_ms, idempotency_key: key }))
}

/// Many requests for decisions, all answered by one revision.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct BatchRequest<'a> {
    // Each item is parsed by itself once their number is known to be within the limit of the server: an item in memory
    // is many times as large as the shortest one in a body.
    /// The server takes 1000 at most, unless configured (`limits.batch`).
    #[serde(borrow)]
    #[schemars(with = "Vec<AuthorizationRequest>")]
    requests: Vec<&'a RawValue>,
}

impl RequestBody for BatchRequest<'_> {
    const EXPECTED: &'static str = "an object with `requests`";
}

/// Reads the body of `/is_authorized/batch`, of at most `most` requests.
pub(in super::super) fn batch(body: &[u8], most: usize, silence: Silence) -> Result<Vec<AuthorizeCall>, ApiError> {
    let BatchRequest { requests } = read(body)?;
    if requests.len() > most {
        let message = format!("a batch may hold {most} requests at most");
        return Err(ApiError::new(ErrorCode::BatchTooLarge, message).within("requests"));
    }
    let checked = requests.into_iter().enumerate().map(|(at, item)| {
        let written = read_item::<AuthorizationRequest>(item);
        let call = written.and_then(|written| written.or_reserve(silence).try_into());
        call.map_err(|error: ApiError| error.within(&format!("requests[{at}]")))
    });
    checked.collect()
}
