//! Amounts as they are written: whole numbers that are not negative, and money as exact decimal strings.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::super::errors::ApiError;
use super::json::{Optional, Text};
use crate::model::Amount;
use crate::pdp::MAX_TTL_MS;
use crate::pdp::{ReportedUsage, Reserve, Stated};

/// The form of a usage, for errors.
const USAGE: &str = "an object such as {\"input_tokens\": 870, \"output_tokens\": 312}";

/// A whole number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whole {
    NotNegative(u64),
    Negative,
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}", Amount::MAX.get())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
        Ok(Whole::NotNegative(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Whole, E> {
        Ok(u64::try_from(number).map_or(Whole::Negative, Whole::NotNegative))
    }
}

impl JsonSchema for Whole {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Whole".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": Amount::MAX.get() })
    }
}

/// Checks the member `param`, if it is there.
fn whole(written: Optional<Whole>, param: &'static str) -> Result<Option<u64>, ApiError> {
    match written.0 {
        None => Ok(None),
        Some(Whole::Negative) => Err(ApiError::invalid(param, "it must not be negative")),
        Some(Whole::NotNegative(number)) => match Amount::new(number) {
            Some(amount) => Ok(Some(amount.get())),
            None => {
                let message = format!("it must be a whole number from 0 to {}", Amount::MAX.get());
                Err(ApiError::invalid(param, message))
            }
        },
    }
}

/// US dollars, an exact decimal of 9 decimals at most.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "Usd", extend("examples" = ["0.02"]))]
pub(super) struct Usd<'a>(#[serde(borrow)] Text<'a>);

/// Checks the member `usd`, if it is there.
fn usd(written: Optional<Usd<'_>>) -> Result<Option<Amount>, ApiError> {
    let Some(Usd(Text(text))) = written.0 else { return Ok(None) };
    Amount::from_usd(&text).map(Some).map_err(|error| {
        let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
        ApiError::invalid("usd", format!("`{shown}` {error}"))
    })
}

/// Seconds for which a reservation is to live.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("minimum" = 1, "maximum" = 3600, "default" = 600))]
pub(super) struct Seconds(Whole);

/// Checks a member `ttl_seconds`, if it is there; in milliseconds.
pub(super) fn ttl_ms(written: Optional<Seconds>) -> Result<Option<i64>, ApiError> {
    let Some(seconds) = whole(Optional(written.0.map(|Seconds(seconds)| seconds)), "ttl_seconds")? else {
        return Ok(None);
    };
    let millis = i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
    let millis = millis.filter(|millis| (1000..=MAX_TTL_MS).contains(millis));
    let wrong = || ApiError::invalid("ttl_seconds", format!("a reservation lives 1 to {} seconds", MAX_TTL_MS / 1000));
    millis.map(Some).ok_or_else(wrong)
}

/// The amounts to hold, or `true` for those of `context` and the largest output of the model.
#[derive(Clone, JsonSchema)]
#[schemars(untagged, rename = "Reserve")]
pub(super) enum WrittenReserve<'a> {
    /// Whether amounts are held at all.
    Flag(bool),
    /// These amounts.
    Amounts(ReserveAmounts<'a>),
}

/// Amounts to hold.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReserveAmounts<'a> {
    #[serde(default)]
    #[schemars(extend("default" = 1))]
    requests: Optional<Whole>,
    /// Else `context.input_tokens`.
    #[serde(default)]
    input_tokens: Optional<Whole>,
    /// Else `context.max_output_tokens`, else the model's `max_output_tokens`.
    #[serde(default)]
    output_tokens: Optional<Whole>,
    #[serde(default)]
    #[schemars(extend("default" = 0))]
    images: Optional<Whole>,
    #[serde(default, borrow)]
    usd: Optional<Usd<'a>>,
    #[serde(default)]
    ttl_seconds: Optional<Seconds>,
}

impl<'de: 'a, 'a> Deserialize<'de> for WrittenReserve<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReserveVisitor)
    }
}

struct ReserveVisitor;

impl<'de> Visitor<'de> for ReserveVisitor {
    type Value = WrittenReserve<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, or an object such as {\"input_tokens\": 900, \"output_tokens\": 500}")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(WrittenReserve::Flag(flag))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        ReserveAmounts::deserialize(MapAccessDeserializer::new(map)).map(WrittenReserve::Amounts)
    }
}

/// Amounts to hold, and for how many milliseconds if the amounts say so.
pub(super) struct CheckedReserve {
    pub(super) reserve: Reserve,
    pub(super) ttl_ms: Option<i64>,
}

/// Checks the member `reserve`; `None` for a check.
pub(super) fn reserve(written: WrittenReserve<'_>) -> Result<Option<CheckedReserve>, ApiError> {
    match written {
        WrittenReserve::Flag(false) => Ok(None),
        WrittenReserve::Flag(true) => Ok(Some(CheckedReserve { reserve: Reserve::default(), ttl_ms: None })),
        WrittenReserve::Amounts(amounts) => {
            CheckedReserve::try_from(amounts).map(Some).map_err(|error| error.within("reserve"))
        }
    }
}

impl TryFrom<ReserveAmounts<'_>> for CheckedReserve {
    type Error = ApiError;

    fn try_from(written: ReserveAmounts<'_>) -> Result<Self, ApiError> {
        let reserve = Reserve {
            requests: whole(written.requests, "requests")?,
            input_tokens: whole(written.input_tokens, "input_tokens")?,
            output_tokens: whole(written.output_tokens, "output_tokens")?,
            images: whole(written.images, "images")?,
            usd: usd(written.usd)?,
        };
        Ok(Self { reserve, ttl_ms: ttl_ms(written.ttl_seconds)? })
    }
}

/// The usage of a call. A member is required (`amount_needed`) if a limit counts it, or if the model's price charges it
/// and `usd` is absent. The default of the others is 0, and 1 for `requests`. If `usd` is absent, it is computed from the
/// price.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Usage")]
pub(super) struct WrittenUsage<'a> {
    #[serde(default)]
    #[schemars(extend("default" = 1))]
    requests: Optional<Whole>,
    #[serde(default)]
    input_tokens: Optional<Whole>,
    #[serde(default)]
    output_tokens: Optional<Whole>,
    /// Among the `input_tokens`.
    #[serde(default)]
    cached_input_tokens: Optional<Whole>,
    /// Among the `input_tokens`.
    #[serde(default)]
    cache_write_tokens: Optional<Whole>,
    /// Among the `output_tokens`.
    #[serde(default)]
    reasoning_tokens: Optional<Whole>,
    #[serde(default)]
    images: Optional<Whole>,
    #[serde(default, borrow)]
    usd: Optional<Usd<'a>>,
}

impl super::json::RequestBody for WrittenUsage<'_> {
    const EXPECTED: &'static str = USAGE;
}

impl TryFrom<WrittenUsage<'_>> for ReportedUsage {
    type Error = ApiError;

    fn try_from(written: WrittenUsage<'_>) -> Result<Self, ApiError> {
        let usage = Self {
            requests: whole(written.requests, "requests")?,
            input_tokens: whole(written.input_tokens, "input_tokens")?,
            output_tokens: whole(written.output_tokens, "output_tokens")?,
            cached_input_tokens: whole(written.cached_input_tokens, "cached_input_tokens")?.unwrap_or(0),
            cache_write_tokens: whole(written.cache_write_tokens, "cache_write_tokens")?.unwrap_or(0),
            reasoning_tokens: whole(written.reasoning_tokens, "reasoning_tokens")?.unwrap_or(0),
            images: whole(written.images, "images")?,
            usd: usd(written.usd)?,
        };
        let among_inputs = usage.cached_input_tokens.saturating_add(usage.cache_write_tokens);
        if among_inputs > usage.input_tokens.unwrap_or(0) {
            let message = "`cached_input_tokens` and `cache_write_tokens` must not exceed `input_tokens` together";
            return Err(ApiError::invalid("cached_input_tokens", message));
        }
        if usage.reasoning_tokens > usage.output_tokens.unwrap_or(0) {
            let message = "`reasoning_tokens` must not exceed `output_tokens`";
            return Err(ApiError::invalid("reasoning_tokens", message));
        }
        Ok(usage)
    }
}

/// The usage of a call; null states that it is unknown, and each limit's `on_missing_usage` decides.
#[derive(Clone, JsonSchema)]
#[schemars(untagged, inline)]
pub(super) enum StatedUsage<'a> {
    Used(WrittenUsage<'a>),
    Unknown,
}

impl<'de: 'a, 'a> Deserialize<'de> for StatedUsage<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatedUsageVisitor)
    }
}

struct StatedUsageVisitor;

impl<'de> Visitor<'de> for StatedUsageVisitor {
    type Value = StatedUsage<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{USAGE}, or null if the usage is unknown")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(StatedUsage::Unknown)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        WrittenUsage::deserialize(MapAccessDeserializer::new(map)).map(StatedUsage::Used)
    }
}

impl TryFrom<StatedUsage<'_>> for Stated {
    type Error = ApiError;

    fn try_from(written: StatedUsage<'_>) -> Result<Self, ApiError> {
        match written {
            StatedUsage::Unknown => Ok(Self::Unknown),
            StatedUsage::Used(usage) => ReportedUsage::try_from(usage).map(Self::Used),
        }
    }
}
