//! Opaque tokens: the server that handed them out is asked about each (RFC 7662).
//!
//! What is hard about it: an answer is remembered by the whole token, for no longer than the token lives and than is said,
//! so that one that was taken back is refused soon.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::asking::{AtOnce, Away, is_own};
use super::claims::{Mapping, Proof, Wanted};
use super::recent::{self, Recent};
use crate::gate::{Ask, Authenticator, Clock, Credential, Described, Fetch, Later, Presented, Verdict};
use crate::model::{AuthMethod, Identity, Refusal, RefusalReason, SecretText, Timestamp, strict_json};
use crate::policy::Snapshot;

/// Longest answer that is read.
const MOST_BYTES: usize = 256 * 1024;
/// How long a token holds of which the endpoint does not say when it ends: for as long as answers may be remembered.
const UNTOLD_MS: i64 = 5 * 60_000;
/// The end of the year 9999, in seconds.
const LAST_SECOND: i64 = 253_402_300_799;

/// Who is asked, and what the answers mean.
#[derive(Debug, Clone)]
pub struct IntrospectionSettings {
    /// Where.
    pub url: SmolStr,
    /// Who this server is there.
    pub client_id: SmolStr,
    /// What it proves that with.
    pub client_secret: SecretText,
    /// What the issuer of these tokens is called.
    pub issuer: SmolStr,
    /// One of these is in `aud`; none, where the endpoint itself tells only of this server's tokens.
    pub audiences: Vec<SmolStr>,
    /// What other members must say.
    pub require: Vec<Wanted>,
    /// What the members mean.
    pub mapping: Mapping,
    /// For how long an answer is remembered at most.
    pub remember: Duration,
    /// For the whole exchange.
    pub timeout: Duration,
    /// How many are asked about at once; more are refused.
    pub at_once: usize,
    /// How many answers are remembered.
    pub remembered: usize,
}

impl IntrospectionSettings {
    /// An endpoint that is asked as `client_id`, about tokens of `issuer`, with what is usual: answers are remembered for 30
    /// seconds, 64 are asked about at once, for 2 seconds each.
    #[must_use]
    pub fn new(
        url: impl Into<SmolStr>,
        issuer: impl Into<SmolStr>,
        client_id: impl Into<SmolStr>,
        client_secret: SecretText,
    ) -> Self {
        Self {
            url: url.into(),
            client_id: client_id.into(),
            client_secret,
            issuer: issuer.into(),
            audiences: Vec::new(),
            require: Vec::new(),
            mapping: Mapping::default(),
            remember: Duration::from_secs(30),
            timeout: Duration::from_secs(2),
            at_once: 64,
            remembered: 10_000,
        }
    }
}

impl PartialEq for IntrospectionSettings {
    fn eq(&self, other: &Self) -> bool {
        (&self.url, &self.client_id, &self.issuer, &self.mapping)
            == (&other.url, &other.client_id, &other.issuer, &other.mapping)
            && (&self.audiences, &self.require) == (&other.audiences, &other.require)
            && (self.remember, self.timeout, self.remembered) == (other.remember, other.timeout, other.remembered)
            && self.at_once == other.at_once
            && self.client_secret.is(&other.client_secret)
    }
}

impl Eq for IntrospectionSettings {}

/// Asks about tokens.
pub struct IntrospectionProvider {
    name: Box<str>,
    pass_on_error: bool,
    inner: Arc<Inner>,
}

struct Inner {
    settings: IntrospectionSettings,
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
    recent: Recent<Remembered>,
    at_once: AtOnce,
    away: Away,
}

/// What an endpoint said of a token that is good.
#[derive(Clone)]
struct Remembered {
    claims: Arc<Map<String, Value>>,
    subject: SmolStr,
    /// When it is to be asked about again: with its end, at the latest.
    until: Timestamp,
    /// When the token ends, whatever is remembered of it.
    ends_at: Timestamp,
}

/// Why nobody is proved.
enum Fault {
    Refused(Refusal),
    /// The endpoint does not say.
    Away(Refusal),
}

impl IntrospectionProvider {
    /// Asks by `fetch`.
    #[must_use]
    pub fn new(
        name: &str,
        settings: IntrospectionSettings,
        pass_on_error: bool,
        (fetch, clock): (Arc<dyn Fetch>, Arc<dyn Clock>),
    ) -> Self {
        let (recent, at_once) = (Recent::new(settings.remembered), AtOnce::new(settings.at_once));
        Self {
            name: name.into(),
            pass_on_error,
            inner: Arc::new(Inner { settings, fetch, clock, recent, at_once, away: Away::default() }),
        }
    }
}

impl Authenticator for IntrospectionProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_away(&self) -> bool {
        self.inner.away.is_so()
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let Credential::Bearer(token) = &presented.credential else { return Later::ready(Verdict::Passed) };
        if is_own(token, true) {
            return Later::ready(Verdict::Passed);
        }
        let digest = recent::digest(token.expose());
        if let Some(known) = self.inner.recent.get(&digest).filter(|known| now < known.until) {
            return Later::ready(verdict(self.inner.identity(&known, snapshot, &presented.request)));
        }
        let Some(place) = self.inner.at_once.take() else {
            let busy = away("too many are asked about at once");
            return Later::ready(if self.pass_on_error { Verdict::Passed } else { Verdict::Refused(busy) });
        };
        let (inner, token, request) = (Arc::clone(&self.inner), token.clone(), presented.request.clone());
        let (snapshot, pass_on_error) = (Arc::clone(snapshot), self.pass_on_error);
        Later::pending(async move {
            let asked = inner.ask(&token).await;
            drop(place);
            inner.away.note(matches!(asked, Err(Fault::Away(_))));
            match asked {
                Ok(known) => {
                    inner.recent.put(digest, known.clone());
                    verdict(inner.identity(&known, &snapshot, &request))
                }
                Err(Fault::Away(_)) if pass_on_error => Verdict::Passed,
                Err(Fault::Refused(refusal) | Fault::Away(refusal)) => Verdict::Refused(refusal),
            }
        })
    }
}

fn away(why: &str) -> Refusal {
    Refusal::new(RefusalReason::ProviderUnavailable, "nobody can say whether the token is good").about(why)
}

fn verdict(identity: Result<Identity, Refusal>) -> Verdict {
    identity.map_or_else(Verdict::Refused, |identity| Verdict::Proved(Arc::new(identity)))
}

impl Inner {
    async fn ask(&self, token: &SecretText) -> Result<Remembered, Fault> {
        let settings = &self.settings;
        let pair = format!("{}:{}", encoded(&settings.client_id), encoded(settings.client_secret.expose()));
        let ask = Ask {
            url: settings.url.clone(),
            body: Some((
                "application/x-www-form-urlencoded",
                SecretText::new(format!("token={}&token_type_hint=access_token", encoded(token.expose()))),
            )),
            headers: vec![
                ("accept".into(), SecretText::new("application/json")),
                ("authorization".into(), SecretText::new(format!("Basic {}", STANDARD.encode(pair)))),
            ],
            timeout: settings.timeout,
            most_bytes: MOST_BYTES,
        };
        let reply = self.fetch.fetch(ask).await.map_err(|error| Fault::Away(away(&error.to_string())))?;
        if reply.status != 200 {
            return Err(Fault::Away(away(&format!("it answers with {}", reply.status))));
        }
        match strict_json::from_slice(&reply.body) {
            Ok(Value::Object(claims)) => self.read(claims, self.clock.now()).map_err(Fault::Refused),
            _ => Err(Fault::Away(away("its answer is no JSON object whose members stand once"))),
        }
    }

    fn read(&self, claims: Map<String, Value>, now: Timestamp) -> Result<Remembered, Refusal> {
        let refuse = |reason, message: &str| Err(Refusal::new(reason, message).about(self.settings.issuer.clone()));
        if claims.get("active") != Some(&Value::Bool(true)) {
            return refuse(RefusalReason::Wrong, "the token is not active");
        }
        if claims.get("iss").is_some_and(|issuer| issuer.as_str() != Some(&*self.settings.issuer)) {
            return refuse(RefusalReason::Untrusted, "the token is of another issuer");
        }
        let ours = |said: &Value| {
            let said = said.as_str();
            said.is_some_and(|said| self.settings.audiences.iter().any(|audience| audience == said))
        };
        let is_for_us = match claims.get("aud") {
            _ if self.settings.audiences.is_empty() => true,
            Some(Value::Array(several)) => several.iter().any(ours),
            Some(said) => ours(said),
            None => false,
        };
        if !is_for_us {
            return refuse(RefusalReason::WrongAudience, "the token is for another audience");
        }
        let mut ends_at = None;
        for (name, ends) in [("exp", true), ("nbf", false)] {
            let Some(said) = claims.get(name) else { continue };
            let Some(instant) = said.as_i64().filter(|seconds| (0..=LAST_SECOND).contains(seconds)) else {
                return refuse(RefusalReason::Malformed, "a time of the token is no whole number of seconds");
            };
            match (ends, instant * 1000) {
                (true, instant) if now.as_millis() >= instant => {
                    return refuse(RefusalReason::Expired, "the token has expired");
                }
                (true, instant) => ends_at = Some(instant),
                (false, instant) if now.as_millis() < instant => {
                    return refuse(RefusalReason::NotYetValid, "the token is not valid yet");
                }
                (false, _) => {}
            }
        }
        if !self.settings.require.iter().all(|wanted| wanted.holds(&claims)) {
            return refuse(RefusalReason::UnknownPrincipal, "the token is not one that this server takes");
        }
        // A client's own token may have no subject.
        let subject = ["sub", "client_id"].iter().find_map(|name| claims.get(*name).and_then(Value::as_str));
        let Some(subject) = subject.filter(|subject| !subject.is_empty()).map(SmolStr::new) else {
            return refuse(RefusalReason::Malformed, "the token has no `sub`");
        };
        let ends_at = ends_at.unwrap_or(now.as_millis() + UNTOLD_MS);
        let until = now.as_millis() + i64::try_from(self.settings.remember.as_millis()).unwrap_or(0);
        let (until, ends_at) = (Timestamp::from_millis(until.min(ends_at)), Timestamp::from_millis(ends_at));
        Ok(Remembered { claims: Arc::new(claims), subject, until, ends_at })
    }

    fn identity(&self, known: &Remembered, snapshot: &Snapshot, request: &Described) -> Result<Identity, Refusal> {
        let proof = Proof {
            issuer: &self.settings.issuer,
            subject: &known.subject,
            claims: &known.claims,
            method: AuthMethod::Introspection,
            expires_at: known.ends_at,
        };
        let identity = self.settings.mapping.identity(&proof, snapshot)?;
        Ok(self.settings.mapping.with_headers(&identity, request).unwrap_or(identity))
    }
}

/// As a form has it; RFC 6749, section 2.3.1, wants the client's name and secret so too.
fn encoded(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            shown.push(char::from(byte));
        } else {
            // A text takes whatever is written.
            let _written = write!(shown, "%{byte:02X}");
        }
    }
    shown
}
