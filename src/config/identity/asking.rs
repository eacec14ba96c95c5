//! What providers that ask others are told alike.

use std::time::Duration;

/// How many are asked about at once at most.
const MOST_AT_ONCE: usize = 10_000;
/// For an exchange at most.
const MOST_TIMEOUT_MS: u64 = 30_000;

/// `at_once`, how many are asked about at a time.
pub(super) fn at_once(said: Option<usize>, usual: usize) -> Result<usize, String> {
    let at_once = said.unwrap_or(usual);
    let fits = (1..=MOST_AT_ONCE).contains(&at_once);
    fits.then_some(at_once).ok_or_else(|| format!("`at_once` is a number from 1 to {MOST_AT_ONCE}"))
}

/// `timeout_ms`, for the whole exchange.
pub(super) fn timeout(said: Option<u64>, usual: Duration) -> Result<Duration, String> {
    let Some(millis) = said else { return Ok(usual) };
    let fits = (1..=MOST_TIMEOUT_MS).contains(&millis);
    fits.then(|| Duration::from_millis(millis))
        .ok_or_else(|| format!("`timeout_ms` is a number from 1 to {MOST_TIMEOUT_MS}"))
}
