//! The bodies of `/settle`, `/release`, `/extend` and `/usage`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::errors::{ApiError, ErrorCode};
use super::amounts::{Seconds, StatedUsage, WrittenUsage, ttl_ms};
use super::authorize::{Context, idempotency_key};
use super::json::{Object, Optional, RequestBody, Text, read, read_item};
use super::missing;
use super::uid::{Uid, action, uid};
use crate::model::{EntityUid, Request, Told};
use crate::pdp::{DEFAULT_TTL_MS, ReportedUsage, ReservationId, Stated, UsageReport};

/// The id of a reservation, as the answer that made it has it.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct WrittenReservationId<'a>(#[serde(borrow)] Text<'a>);

impl JsonSchema for WrittenReservationId<'_> {
    fn schema_name() -> Cow<'static, str> {
        "ReservationId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^r-[0-9a-f]{32}$",
            "description": "The id of a reservation, as the answer that made it has it.",
        })
    }
}

impl TryFrom<WrittenReservationId<'_>> for ReservationId {
    type Error = ApiError;

    fn try_from(written: WrittenReservationId<'_>) -> Result<Self, ApiError> {
        written
            .0
            .0
            .parse()
            .map_err(|error: <Self as std::str::FromStr>::Err| ApiError::invalid("reservation", error.to_string()))
    }
}

/// The usage of a reservation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["reservation", "usage"]))]
pub(in super::super) struct SettleRequest<'a> {
    #[serde(borrow)]
    reservation: WrittenReservationId<'a>,
    #[serde(default, borrow)]
    usage: Optional<StatedUsage<'a>>,
    /// The resource that was used, one of those that were permitted.
    #[serde(default, borrow)]
    resource: Optional<Uid<'a>>,
}

impl RequestBody for SettleRequest<'_> {
    const EXPECTED: &'static str = "an object with `reservation` and `usage`";
}

/// The body of `/settle`, checked.
pub(in super::super) struct Settlement {
    pub(in super::super) reservation: ReservationId,
    pub(in super::super) usage: Stated,
    pub(in super::super) resource: Option<EntityUid>,
}

/// Reads the body of `/settle`.
pub(in super::super) fn settle(body: &[u8]) -> Result<Settlement, ApiError> {
    read::<SettleRequest>(body)?.try_into()
}

impl TryFrom<SettleRequest<'_>> for Settlement {
    type Error = ApiError;

    fn try_from(written: SettleRequest<'_>) -> Result<Self, ApiError> {
        let reservation = written.reservation.try_into()?;
        let usage = written.usage.0.ok_or_else(|| missing("usage"))?;
        Ok(Self {
            reservation,
            usage: Stated::try_from(usage).map_err(|error| error.within("usage"))?,
            resource: written.resource.0.map(|written| uid(written, "resource")).transpose()?,
        })
    }
}

/// A reservation to release.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ReleaseRequest<'a> {
    #[serde(borrow)]
    reservation: WrittenReservationId<'a>,
}

impl RequestBody for ReleaseRequest<'_> {
    const EXPECTED: &'static str = "an object with `reservation`";
}

/// Reads the body of `/release`.
pub(in super::super) fn release(body: &[u8]) -> Result<ReservationId, ApiError> {
    read::<ReleaseRequest>(body)?.reservation.try_into()
}

/// A reservation that is to live longer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ExtendRequest<'a> {
    #[serde(borrow)]
    reservation: WrittenReservationId<'a>,
    #[serde(default)]
    ttl_seconds: Optional<Seconds>,
}

impl RequestBody for ExtendRequest<'_> {
    const EXPECTED: &'static str = "an object with `reservation`";
}

/// The body of `/extend`, checked.
pub(in super::super) struct Extension {
    pub(in super::super) reservation: ReservationId,
    pub(in super::super) ttl_ms: i64,
}

/// Reads the body of `/extend`.
pub(in super::super) fn extend(body: &[u8]) -> Result<Extension, ApiError> {
    read::<ExtendRequest>(body)?.try_into()
}

impl TryFrom<ExtendRequest<'_>> for Extension {
    type Error = ApiError;

    fn try_from(written: ExtendRequest<'_>) -> Result<Self, ApiError> {
        let reservation = written.reservation.try_into()?;
        Ok(Self { reservation, ttl_ms: ttl_ms(written.ttl_seconds)?.unwrap_or(DEFAULT_TTL_MS) })
    }
}

/// A report of usage without a reservation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Spent")]
pub(in super::super) struct WrittenReport<'a> {
    #[serde(borrow)]
    principal: Uid<'a>,
    #[serde(borrow)]
    #[schemars(length(min = 1, max = 1024))]
    action: Text<'a>,
    #[serde(borrow)]
    resource: Uid<'a>,
    #[serde(default)]
    #[schemars(with = "Context")]
    context: Told,
    #[serde(borrow)]
    usage: Object<WrittenUsage<'a>>,
    #[serde(borrow)]
    #[schemars(length(min = 1, max = 255))]
    idempotency_key: Text<'a>,
}

impl RequestBody for WrittenReport<'_> {
    const EXPECTED: &'static str = "an object with `principal`, `action`, `resource`, `usage` and `idempotency_key`";
}

impl TryFrom<WrittenReport<'_>> for UsageReport {
    type Error = ApiError;

    fn try_from(written: WrittenReport<'_>) -> Result<Self, ApiError> {
        let principal = uid(written.principal, "principal")?;
        let action = action(&written.action)?;
        let resource = uid(written.resource, "resource")?;
        let usage = ReportedUsage::try_from(written.usage.0).map_err(|error| error.within("usage"))?;
        let idempotency_key = idempotency_key(&written.idempotency_key)?;
        let request = Request::new(principal, action, resource).with_context(written.context);
        Ok(Self { request, usage, idempotency_key })
    }
}

/// One report of usage, or many. Without `usages` it is a [`WrittenReport`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageRequest<'a> {
    #[serde(default, borrow)]
    principal: Optional<Uid<'a>>,
    #[serde(default, borrow)]
    action: Optional<Text<'a>>,
    #[serde(default, borrow)]
    resource: Optional<Uid<'a>>,
    #[serde(default)]
    context: Optional<Told>,
    #[serde(default, borrow)]
    usage: Optional<Object<WrittenUsage<'a>>>,
    #[serde(default, borrow)]
    idempotency_key: Optional<Text<'a>>,
    // Each item is parsed by itself once their number is known to be within the limit of the server.
    #[serde(default, borrow)]
    usages: Optional<Vec<&'a RawValue>>,
}

impl RequestBody for UsageRequest<'_> {
    const EXPECTED: &'static str =
        "an object with `principal`, `action`, `resource`, `usage` and `idempotency_key`, or with `usages`";
}

/// One report of usage, or many.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "UsageRequest")]
#[expect(dead_code, reason = "it describes `UsageRequest`, for /openapi.json")]
pub(in super::super) enum UsageRequestSchema {
    One(#[schemars(with = "WrittenReport")] ()),
    Many(WrittenReports),
}

/// Many reports of usage. Each is recorded or refused by itself.
#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
#[expect(dead_code, reason = "it describes `UsageRequest`, for /openapi.json")]
pub(in super::super) struct WrittenReports {
    /// The server takes 1000 at most, unless configured (`limits.batch`).
    usages: Vec<WrittenReport<'static>>,
}

/// The body of `/usage`, checked.
pub(in super::super) enum UsageBody {
    One(Box<UsageReport>),
    Many(Vec<UsageReport>),
}

/// Reads the body of `/usage`, of at most `most` reports.
pub(in super::super) fn usage(body: &[u8], most: usize) -> Result<UsageBody, ApiError> {
    let written: UsageRequest = read(body)?;
    let Optional(Some(items)) = &written.usages else {
        let report = WrittenReport::try_from(written)?;
        return Ok(UsageBody::One(Box::new(report.try_into()?)));
    };
    if written.has_report() {
        let message = "`usages` stands alone; each of its items says who, what and how much";
        return Err(ApiError::invalid("usages", message));
    }
    if items.len() > most {
        let message = format!("`usages` may hold {most} at most");
        return Err(ApiError::new(ErrorCode::BatchTooLarge, message).within("usages"));
    }
    let checked = items.iter().enumerate().map(|(at, item)| {
        let report = read_item::<WrittenReport>(item).and_then(UsageReport::try_from);
        report.map_err(|error| error.within(&format!("usages[{at}]")))
    });
    checked.collect::<Result<_, _>>().map(UsageBody::Many)
}

impl UsageRequest<'_> {
    /// Whether any member of a report is there.
    fn has_report(&self) -> bool {
        self.principal.0.is_some()
            || self.action.0.is_some()
            || self.resource.0.is_some()
            || self.context.0.is_some()
            || self.usage.0.is_some()
            || self.idempotency_key.0.is_some()
    }
}

impl<'a> TryFrom<UsageRequest<'a>> for WrittenReport<'a> {
    type Error = ApiError;

    fn try_from(written: UsageRequest<'a>) -> Result<Self, ApiError> {
        Ok(Self {
            principal: written.principal.0.ok_or_else(|| missing("principal"))?,
            action: written.action.0.ok_or_else(|| missing("action"))?,
            resource: written.resource.0.ok_or_else(|| missing("resource"))?,
            context: written.context.0.unwrap_or_default(),
            usage: written.usage.0.ok_or_else(|| missing("usage"))?,
            idempotency_key: written.idempotency_key.0.ok_or_else(|| missing("idempotency_key"))?,
        })
    }
}
