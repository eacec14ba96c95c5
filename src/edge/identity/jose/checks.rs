//! What the claims of a token must be before they mean anything: from this issuer, for this server, now.

use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::algorithm::Algorithm;
use super::jws::Header;
use crate::edge::identity::claims::Wanted;
use crate::model::{Refusal, RefusalReason, Timestamp};

/// Longest `sub`.
const MAX_SUBJECT: usize = 512;
/// Most audiences of a token.
const MAX_AUDIENCES: usize = 100;
/// The end of the year 9999, in seconds: what comes later is no instant.
const LAST_SECOND: i64 = 253_402_300_799;

/// What tokens of an issuer must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    /// `iss`, exactly.
    pub issuer: SmolStr,
    /// One of these is in `aud`.
    pub audiences: Vec<SmolStr>,
    /// The only algorithms, where not all are taken that the issuer's keys are for.
    pub algorithms: Option<Vec<Algorithm>>,
    /// What `typ` may be, in small letters, where there is one.
    pub types: Vec<SmolStr>,
    /// By how much clocks may differ.
    pub leeway_ms: i64,
    /// For how long a token may be valid at most.
    pub max_lifetime_ms: Option<i64>,
    /// What other claims must say.
    pub require: Vec<Wanted>,
}

/// What is known of a good token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// `sub`.
    pub subject: SmolStr,
    /// From when on it is no longer valid, the leeway included.
    pub expires_at: Timestamp,
}

impl Checks {
    /// Checks the header and claims of a token whose signature is good.
    ///
    /// # Errors
    /// With the first thing that is not as it must be.
    pub fn check(&self, header: &Header, claims: &Map<String, Value>, now: Timestamp) -> Result<Checked, Refusal> {
        if let Some(typ) = header.typ.as_ref().filter(|typ| !self.types.contains(typ)) {
            let message = format!("the `typ` in the token's header is {}, which is not in `types`", shown(typ));
            return Err(refuse(RefusalReason::WrongAudience, message));
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        if issuer != Some(&*self.issuer) {
            let issuer = issuer.map_or_else(|| "no text".to_owned(), shown);
            let message = format!("the token's issuer (`iss`) is {issuer}, and not `{}`", self.issuer);
            return Err(refuse(RefusalReason::Untrusted, message));
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(refuse(RefusalReason::WrongAudience, wrong_audience(claims.get("aud"), &self.audiences)));
        }
        let expires_at = self.times(claims, now)?;
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) if (1..=MAX_SUBJECT).contains(&subject.len()) => subject.into(),
            _ => {
                let message = format!("the token has no `sub` that is a text of 1 to {MAX_SUBJECT} bytes");
                return Err(refuse(RefusalReason::Malformed, message));
            }
        };
        check_required(&self.require, claims)?;
        Ok(Checked { subject, expires_at })
    }

    fn is_for_us(&self, said: Option<&Value>) -> bool {
        let ours = |audience: &str| self.audiences.iter().any(|known| known == audience);
        match said {
            Some(Value::String(audience)) => ours(audience),
            Some(Value::Array(several)) => {
                let texts = several.len() <= MAX_AUDIENCES && several.iter().all(Value::is_string);
                texts && several.iter().filter_map(Value::as_str).any(ours)
            }
            _ => false,
        }
    }

    fn times(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, Refusal> {
        let (now, leeway) = (now.as_millis(), self.leeway_ms);
        let Some(expires) = instant(claims, "exp", Rounding::Down)? else {
            return Err(refuse(RefusalReason::Malformed, "the token has no `exp`"));
        };
        for name in ["nbf", "iat"] {
            if instant(claims, name, Rounding::Up)?.is_some_and(|begins| now < begins - leeway) {
                let message = format!("the token is not valid yet: its `{name}` lies ahead");
                return Err(refuse(RefusalReason::NotYetValid, message));
            }
        }
        if now >= expires + leeway {
            return Err(refuse(RefusalReason::Expired, "the token has expired (`exp`)"));
        }
        let issued = instant(claims, "iat", Rounding::Down)?;
        if let Some(most) = self.max_lifetime_ms
            && expires - issued.unwrap_or(now) > most
        {
            let message = "the token is valid for longer (`exp` minus `iat`) than `max_lifetime_seconds`";
            return Err(refuse(RefusalReason::Untrusted, message));
        }
        Ok(Timestamp::from_millis(expires + leeway))
    }
}

/// The rounding of an instant between two milliseconds. A token must never be valid for longer than its claims allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To the one before: when a token ends.
    Down,
    /// To the one after: when it begins.
    Up,
}

/// The instant of a claim, in milliseconds: a NumericDate (RFC 7519, section 2), seconds that may have a fraction.
pub(crate) fn instant(claims: &Map<String, Value>, name: &str, rounding: Rounding) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let millis = match value.as_i64() {
        Some(seconds) => (0..=LAST_SECOND).contains(&seconds).then(|| seconds * 1000),
        None => value.as_f64().filter(|_| value.is_f64()).and_then(|seconds| whole_millis(seconds, rounding)),
    };
    let Some(millis) = millis else {
        let message = format!("the token's `{name}` must be a number of seconds since 1970");
        return Err(refuse(RefusalReason::Malformed, message));
    };
    Ok(Some(millis))
}

#[expect(clippy::cast_precision_loss, reason = "whole numbers below 2^53 are exact")]
#[expect(clippy::cast_possible_truncation, reason = "it is whole, and between 0 and the bound")]
fn whole_millis(seconds: f64, rounding: Rounding) -> Option<i64> {
    if !(0.0..=LAST_SECOND as f64).contains(&seconds) {
        return None;
    }
    let millis = match rounding {
        Rounding::Down => (seconds * 1000.0).floor(),
        Rounding::Up => (seconds * 1000.0).ceil(),
    };
    Some(millis as i64)
}

/// Checks that the token has the required claim values.
///
/// # Errors
/// With the first claim that does not.
pub(in crate::edge::identity) fn check_required(
    required: &[Wanted],
    claims: &Map<String, Value>,
) -> Result<(), Refusal> {
    match required.iter().find(|wanted| !wanted.holds(claims)) {
        None => Ok(()),
        Some(wanted) => {
            let message = format!("the token's claim `{}` does not have the value that `require` demands", wanted.path);
            Err(refuse(RefusalReason::UnknownPrincipal, message))
        }
    }
}

/// Why a token is not for this server.
pub(in crate::edge::identity) fn wrong_audience(said: Option<&Value>, known: &[SmolStr]) -> String {
    let told = match said {
        Some(Value::String(audience)) => shown(audience),
        Some(Value::Array(several)) => {
            let all: Vec<String> = several.iter().take(3).filter_map(Value::as_str).map(shown).collect();
            let more = if several.len() > all.len() { ", …" } else { "" };
            format!("[{}{more}]", all.join(", "))
        }
        Some(_) => "no text".to_owned(),
        None => "missing".to_owned(),
    };
    let known: Vec<String> = known.iter().map(|audience| format!("`{audience}`")).collect();
    format!("the token's audience (`aud`) is {told}, and this server is {}", known.join(" or "))
}

/// A value from a token, in the form in which it may be shown to its sender.
pub(crate) fn shown(text: impl AsRef<str>) -> String {
    const MOST: usize = 200;
    let text = text.as_ref();
    let cut: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    format!("`{cut}{more}`")
}

fn refuse(reason: RefusalReason, message: impl Into<String>) -> Refusal {
    Refusal::new(reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_rounded_so_that_no_token_lives_longer() {
        let of = |text: &str, rounding| {
            let claims = serde_json::from_str(&format!("{{\"exp\": {text}}}")).unwrap_or_default();
            instant(&claims, "exp", rounding).ok().flatten()
        };
        for (text, down, up) in [
            ("1788947152", Some(1_788_947_152_000), Some(1_788_947_152_000)),
            ("1788947152.0", Some(1_788_947_152_000), Some(1_788_947_152_000)),
            ("1.788947152e9", Some(1_788_947_152_000), Some(1_788_947_152_000)),
            ("1788947152.25", Some(1_788_947_152_250), Some(1_788_947_152_250)),
            ("1788947152.0004", Some(1_788_947_152_000), Some(1_788_947_152_001)),
            ("0.0001", Some(0), Some(1)),
            ("-0.0", Some(0), Some(0)),
            ("-0.1", None, None),
            ("253402300799", Some(253_402_300_799_000), Some(253_402_300_799_000)),
            ("253402300799.5", None, None),
            ("2.6e11", None, None),
            ("18446744073709551615", None, None),
            ("\"1788947152.5\"", None, None),
            ("true", None, None),
            ("null", None, None),
        ] {
            assert_eq!((of(text, Rounding::Down), of(text, Rounding::Up)), (down, up), "{text}");
        }
    }
}
