//! Amounts as they are sent: whole numbers that are not negative, and money as exact decimal texts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::errors::ApiError;
use super::grammar::{Members, Reading, Text, Trail, object, read_text};
use crate::gate::{ReportedUsage, Reserve, Stated};
use crate::meter::MAX_TTL_MS;
use crate::model::Amount;

/// A whole number from 0 to the largest that can be counted.
pub(super) struct Whole<'t> {
    pub(super) trail: &'t Trail,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Whole<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}", Amount::MAX.get())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Amount::new(number).map(Amount::get).ok_or_else(|| {
            self.trail.fail(ApiError::invalid("", format!("it must be a whole number from 0 to {}", Amount::MAX.get())))
        })
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        let not_negative = u64::try_from(number);
        not_negative.map_err(|_| self.trail.fail(ApiError::invalid("", "it must not be negative")))
    }
}

/// Money, a decimal of US dollars as a text.
pub(super) fn usd(trail: &Trail) -> Text<'_, Reading<Amount>> {
    let read = |text: &str| {
        let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
        Amount::from_usd(text).map_err(|error| ApiError::invalid("", format!("`{shown}` {error}")))
    };
    read_text(trail, "US dollars as a text such as \"0.02\"", read)
}

/// Seconds for which a reservation is to live.
pub(super) struct Seconds<'t> {
    pub(super) trail: &'t Trail,
}

impl<'de> DeserializeSeed<'de> for Seconds<'_> {
    type Value = i64;

    /// In milliseconds.
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i64, D::Error> {
        let seconds = Whole { trail: self.trail }.deserialize(deserializer)?;
        let millis = i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
        millis.filter(|millis| (1000..=MAX_TTL_MS).contains(millis)).ok_or_else(|| {
            let message = format!("a reservation lives 1 to {} seconds", MAX_TTL_MS / 1000);
            self.trail.fail(ApiError::invalid("", message))
        })
    }
}

/// `reserve`: true, or amounts. With it how long to hold them, in milliseconds.
pub(super) struct Reserving<'t> {
    pub(super) trail: &'t Trail,
}

/// What is to be held, if anything is, and for how many milliseconds, if that is said.
pub(super) type Wanted = Option<(Reserve, Option<i64>)>;

impl<'de> DeserializeSeed<'de> for Reserving<'_> {
    type Value = Wanted;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Wanted, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reserving<'_> {
    type Value = Wanted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, or an object such as {\"input_tokens\": 900, \"output_tokens\": 500}")
    }

    fn visit_bool<E: Error>(self, wanted: bool) -> Result<Wanted, E> {
        Ok(wanted.then(|| (Reserve::default(), None)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Wanted, A::Error> {
        let members = ReserveMembers { trail: self.trail, reserve: Reserve::default(), ttl_ms: None };
        object(members).visit_map(map).map(Some)
    }
}

struct ReserveMembers<'t> {
    trail: &'t Trail,
    reserve: Reserve,
    ttl_ms: Option<i64>,
}

impl<'de, 't> Members<'de, 't> for ReserveMembers<'t> {
    const WHAT: &'static str = "an object with amounts";
    const NAMES: &'static [&'static str] =
        &["requests", "input_tokens", "output_tokens", "images", "usd", "ttl_seconds"];
    type Value = (Reserve, Option<i64>);

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        let whole = Whole { trail };
        match name {
            "requests" => self.reserve.requests = Some(map.next_value_seed(whole)?),
            "input_tokens" => self.reserve.input_tokens = Some(map.next_value_seed(whole)?),
            "output_tokens" => self.reserve.output_tokens = Some(map.next_value_seed(whole)?),
            "images" => self.reserve.images = Some(map.next_value_seed(whole)?),
            "usd" => self.reserve.usd = Some(map.next_value_seed(usd(trail))?),
            _ => self.ttl_ms = Some(map.next_value_seed(Seconds { trail })?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Self::Value, ApiError> {
        Ok((self.reserve, self.ttl_ms))
    }
}

/// `usage`: what a call used.
pub(super) struct UsageMembers<'t> {
    trail: &'t Trail,
    usage: ReportedUsage,
}

impl<'t> UsageMembers<'t> {
    pub(super) fn new(trail: &'t Trail) -> Self {
        Self { trail, usage: ReportedUsage::default() }
    }
}

impl<'de, 't> Members<'de, 't> for UsageMembers<'t> {
    const WHAT: &'static str = "an object such as {\"input_tokens\": 870, \"output_tokens\": 312}";
    const NAMES: &'static [&'static str] = &[
        "requests",
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "images",
        "usd",
    ];
    type Value = ReportedUsage;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        let whole = Whole { trail };
        match name {
            "requests" => self.usage.requests = Some(map.next_value_seed(whole)?),
            "input_tokens" => self.usage.input_tokens = Some(map.next_value_seed(whole)?),
            "output_tokens" => self.usage.output_tokens = Some(map.next_value_seed(whole)?),
            "cached_input_tokens" => self.usage.cached_input_tokens = map.next_value_seed(whole)?,
            "cache_write_tokens" => self.usage.cache_write_tokens = map.next_value_seed(whole)?,
            "reasoning_tokens" => self.usage.reasoning_tokens = map.next_value_seed(whole)?,
            "images" => self.usage.images = Some(map.next_value_seed(whole)?),
            _ => self.usage.usd = Some(map.next_value_seed(usd(trail))?),
        }
        Ok(())
    }

    fn finish(self) -> Result<ReportedUsage, ApiError> {
        let ReportedUsage { input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, .. } = self.usage;
        if cached_input_tokens.saturating_add(cache_write_tokens) > input_tokens.unwrap_or(0) {
            let message =
                "`cached_input_tokens` and `cache_write_tokens` are among the `input_tokens`, so not more than they";
            return Err(ApiError::invalid("cached_input_tokens", message));
        }
        if self.usage.reasoning_tokens > output_tokens.unwrap_or(0) {
            let message = "`reasoning_tokens` are among the `output_tokens`, so not more than they";
            return Err(ApiError::invalid("reasoning_tokens", message));
        }
        Ok(self.usage)
    }
}

/// `usage` of a reservation: the used amounts, or null if they are unknown.
pub(super) struct StatedUsage<'t> {
    pub(super) trail: &'t Trail,
}

impl<'de> DeserializeSeed<'de> for StatedUsage<'_> {
    type Value = Stated;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Stated, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StatedUsage<'_> {
    type Value = Stated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or null if the usage is unknown", UsageMembers::WHAT)
    }

    fn visit_unit<E: Error>(self) -> Result<Stated, E> {
        Ok(Stated::Unknown)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Stated, A::Error> {
        object(UsageMembers::new(self.trail)).visit_map(map).map(Stated::Used)
    }
}
