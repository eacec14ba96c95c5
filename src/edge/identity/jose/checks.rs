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
        if header.typ.as_ref().is_some_and(|typ| !self.types.contains(typ)) {
            return Err(refuse(RefusalReason::WrongAudience, "the token is of a type that is not for this"));
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&*self.issuer) {
            return Err(refuse(RefusalReason::Untrusted, "the token's issuer is not trusted"));
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(refuse(RefusalReason::WrongAudience, "the token is for another audience"));
        }
        let expires_at = self.times(claims, now)?;
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) if (1..=MAX_SUBJECT).contains(&subject.len()) => subject.into(),
            _ => return Err(refuse(RefusalReason::Malformed, "the token has no `sub` that is a text")),
        };
        if !self.require.iter().all(|wanted| wanted.holds(claims)) {
            return Err(refuse(RefusalReason::UnknownPrincipal, "the token is not one that this server takes"));
        }
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
        let Some(expires) = instant(claims, "exp")? else {
            return Err(refuse(RefusalReason::Malformed, "the token has no `exp`"));
        };
        let begins = instant(claims, "nbf")?;
        let issued = instant(claims, "iat")?;
        if begins.is_some_and(|begins| now < begins - leeway) || issued.is_some_and(|issued| now < issued - leeway) {
            return Err(refuse(RefusalReason::NotYetValid, "the token is not valid yet"));
        }
        if now >= expires + leeway {
            return Err(refuse(RefusalReason::Expired, "the token has expired"));
        }
        if let Some(most) = self.max_lifetime_ms
            && expires - issued.unwrap_or(now) > most
        {
            return Err(refuse(RefusalReason::Untrusted, "the token is valid for longer than this server takes"));
        }
        Ok(Timestamp::from_millis(expires + leeway))
    }
}

/// The instant of a claim: whole seconds, as everybody writes them.
pub(crate) fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().filter(|seconds| (0..=LAST_SECOND).contains(seconds));
    match seconds {
        Some(seconds) => Ok(Some(seconds * 1000)),
        None => Err(refuse(RefusalReason::Malformed, "a time of the token is no whole number of seconds")),
    }
}

fn refuse(reason: RefusalReason, message: &str) -> Refusal {
    Refusal::new(reason, message)
}
