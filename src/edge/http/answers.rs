//! The schemas of answers that are written by hand, for speed or as JSON values. The types describe those answers and
//! are never made. A test calls every route and compares the answers with these types.
#![expect(dead_code, reason = "schemas are made of these types, and no values")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::{Map, Value};

/// An entity.
#[derive(JsonSchema)]
pub(super) struct Name {
    r#type: String,
    id: String,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
enum Outcome {
    Permit,
    Forbid,
}

/// Why: a closed set, which grows only with a note in the changelog.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Code {
    Permitted,
    Unauthenticated,
    ProviderUnavailable,
    CredentialRevoked,
    CredentialExpired,
    PrincipalDisabled,
    ModelUnknown,
    ModelDisabled,
    ForbiddenByRule,
    Error,
    NoRulePermits,
    StoreUnavailable,
    PriceUnknown,
    BudgetExceeded,
    RateLimited,
    ConcurrencyExceeded,
}

/// The unit of a limit.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Unit {
    Usd,
    Tokens,
    InputTokens,
    OutputTokens,
    Requests,
    Places,
}

/// A rule and its place.
#[derive(JsonSchema)]
struct Rule {
    id: String,
    effect: Outcome,
    file: String,
    line: u32,
}

/// An error of a rule's evaluation.
#[derive(JsonSchema)]
struct RuleError {
    rule: String,
    file: String,
    line: u32,
    message: String,
}

/// Where one meter of a limit stands. Amounts are decimals, to be compared as numbers.
#[derive(JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the members of an answer")]
struct Limit {
    id: String,
    /// The subject of the meter; null if all subjects share one.
    meter: Option<String>,
    unit: Unit,
    limit: String,
    used: String,
    held: String,
    remaining: String,
    /// When the used amount no longer counts.
    #[schemars(extend("format" = "date-time"))]
    resets_at: Option<String>,
}

/// A hold on every limit that applies.
#[derive(JsonSchema)]
struct Reservation {
    #[schemars(extend("pattern" = "^r-[0-9a-f]{32}$"))]
    id: String,
    #[schemars(extend("format" = "date-time"))]
    expires_at: String,
}

#[derive(JsonSchema)]
struct Common {
    decision: Outcome,
    /// The id of this decision.
    id: String,
    /// The revision of the bundle that decided, which names its content.
    revision: String,
    /// Null if a credential proved no principal.
    principal: Option<Name>,
    /// The key that acts for the principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Name>,
    action: String,
    /// The rules that determined the outcome.
    rules: Vec<Rule>,
    code: Code,
    message: String,
    /// Where the limits that apply stand, with the amounts that are held now.
    limits: Vec<Limit>,
    /// The limits that apply and on which a check therefore holds nothing.
    not_held: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation: Option<Reservation>,
    /// On a forbid, after how many seconds there is room again; only where waiting helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1))]
    retry_after_seconds: Option<u64>,
    errors: Vec<RuleError>,
    /// The nearest rule that would have permitted, and the condition that the request did not meet.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// The decision about one resource.
#[derive(JsonSchema)]
#[schemars(rename = "Answer")]
pub(super) struct OneAnswer {
    #[serde(flatten)]
    common: Common,
    resource: Name,
}

/// The decision about a list of resources.
#[derive(JsonSchema)]
pub(super) struct CandidatesAnswer {
    #[serde(flatten)]
    common: Common,
    /// The router, if the request named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Name>,
    /// The permitted candidates, in the order of the request.
    permitted: Vec<Name>,
    candidates: Vec<Candidate>,
}

/// The decision about one candidate.
#[derive(JsonSchema)]
struct Candidate {
    resource: Name,
    decision: Outcome,
    code: Code,
    rules: Vec<Rule>,
}

/// A decision.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Decision")]
pub(super) enum AnyAnswer {
    One(OneAnswer),
    Candidates(CandidatesAnswer),
}

/// The decisions of a batch, in the order of the requests.
#[derive(JsonSchema)]
pub(super) struct BatchAnswer {
    responses: Vec<AnyAnswer>,
}

/// A decision in the form of cedar-agent.
#[derive(JsonSchema)]
pub(super) struct CedarAgentAnswer {
    decision: CedarAgentOutcome,
    diagnostics: Diagnostics,
}

#[derive(JsonSchema)]
#[schemars(inline)]
enum CedarAgentOutcome {
    Allow,
    Deny,
}

#[derive(JsonSchema)]
#[schemars(inline)]
struct Diagnostics {
    /// The ids of the rules that determined the outcome.
    reason: Vec<String>,
    errors: Vec<String>,
}

/// The principal that a credential proves.
#[derive(JsonSchema)]
pub(super) struct ValidateAnswer {
    /// A Cedar uid.
    principal: String,
    attributes: Attributes,
}

#[derive(JsonSchema)]
#[schemars(inline)]
struct Attributes {
    teams: Vec<String>,
    orgs: Vec<String>,
    roles: Vec<String>,
    tags: Vec<String>,
}

/// What usage is grouped by.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
pub(super) enum UsageGroup {
    Day,
    Month,
    Subject,
    Model,
    Limit,
}

/// One line of usage. It has the amounts that calls used or, where limits are asked about, the amount that they counted.
/// Amounts are exact decimals. `amount` may be negative: an amount that expired on one day may be given back on another.
#[derive(JsonSchema)]
#[schemars(rename = "BooksLine")]
pub(super) struct UsageLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    month: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<String>,
}

#[derive(JsonSchema)]
pub(super) struct Live {
    #[schemars(extend("const" = "live"))]
    status: String,
}

/// Whether a bundle decides.
#[derive(JsonSchema)]
pub(super) struct Ready {
    #[schemars(extend("enum" = ["ready", "degraded", "no_bundle"]))]
    status: String,
    degraded: bool,
    /// The causes: the newest files do not load, or a store or an identity provider did not answer its last request.
    reasons: Vec<String>,
    revision: Option<String>,
}

/// A problem of a bundle, as `tollgate check --format json` prints it.
#[derive(JsonSchema)]
struct Problem {
    #[schemars(extend("enum" = ["error", "warning", "note"]))]
    severity: String,
    code: String,
    file: String,
    line: u32,
    column: u32,
    length: u32,
    message: String,
    help: Option<String>,
    docs: String,
}

/// The newest files, which did not load.
#[derive(JsonSchema)]
#[schemars(inline)]
struct Failure {
    #[schemars(extend("format" = "date-time"))]
    at: String,
    revision: Option<String>,
    problems: Vec<Problem>,
}

/// The bundle that decides, and the last load that failed.
#[derive(JsonSchema)]
pub(super) struct Bundle {
    revision: Option<String>,
    #[schemars(extend("format" = "date-time"))]
    loaded_at: Option<String>,
    degraded: bool,
    counts: Option<BTreeMap<String, u64>>,
    files: Vec<String>,
    /// Files that look like policy and are not read; the reasons are in `warnings`.
    skipped: Vec<String>,
    warnings: Vec<Problem>,
    failure: Option<Failure>,
    loads: u64,
    failures: u64,
}

#[derive(JsonSchema)]
pub(super) struct Version {
    #[schemars(extend("const" = "tollgate"))]
    name: String,
    version: String,
}

/// A key that was deleted.
#[derive(JsonSchema)]
pub(super) struct Deleted {
    id: String,
    #[schemars(extend("const" = true))]
    deleted: bool,
}

/// A JSON Web Key Set (RFC 7517).
#[derive(JsonSchema)]
pub(super) struct KeySet {
    keys: Vec<Map<String, Value>>,
}
