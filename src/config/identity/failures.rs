//! `failures:`, how many credentials that prove nobody are borne.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::gate::FailureLimits;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Whether anybody is slowed. Default: true.
    enabled: Option<bool>,
    /// How many failures an address may have at once.
    source_burst: Option<u32>,
    /// One more after so many milliseconds.
    source_every_ms: Option<i64>,
    /// How many failures a name or key id may have at once.
    id_burst: Option<u32>,
    /// One more after so many milliseconds.
    id_every_ms: Option<i64>,
    /// For how long an address that proved an id is not slowed by others' failures with it, in milliseconds.
    proved_ms: Option<i64>,
}

impl Raw {
    pub(super) fn checked(self) -> Result<Option<FailureLimits>, String> {
        let usual = FailureLimits::default();
        let limits = FailureLimits {
            source_burst: self.source_burst.unwrap_or(usual.source_burst),
            source_every_ms: self.source_every_ms.unwrap_or(usual.source_every_ms),
            id_burst: self.id_burst.unwrap_or(usual.id_burst),
            id_every_ms: self.id_every_ms.unwrap_or(usual.id_every_ms),
            proved_ms: self.proved_ms.unwrap_or(usual.proved_ms),
            remembered: usual.remembered,
        };
        let day = 86_400_000;
        let bursts = [("source_burst", limits.source_burst), ("id_burst", limits.id_burst)];
        if let Some((name, _)) = bursts.iter().find(|(_, burst)| !(1..=100_000).contains(burst)) {
            return Err(format!("`failures`: `{name}` is a number from 1 to 100000"));
        }
        let times = [("source_every_ms", limits.source_every_ms), ("id_every_ms", limits.id_every_ms)];
        if let Some((name, _)) = times.iter().find(|(_, every)| !(1..=day).contains(every)) {
            return Err(format!("`failures`: `{name}` is a number from 1 to {day}"));
        }
        if !(0..=day).contains(&limits.proved_ms) {
            return Err(format!("`failures`: `proved_ms` is a number from 0 to {day}"));
        }
        Ok((self.enabled != Some(false)).then_some(limits))
    }
}
