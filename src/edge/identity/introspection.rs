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
use super::jose::{Rounding, check_required, instant, shown, wrong_audience};
use super::recent::{self, Recent};
use super::unlinked::{Proved, UnlinkedWarning};
use crate::gate::{Ask, Authenticator, Clock, Credential, Described, Fetch, Later, Presented, Reply, Verdict};
use crate::model::{AuthMethod, Identity, Refusal, RefusalReason, SecretText, Timestamp, strict_json};
use crate::policy::Snapshot;

/// Longest answer that is read.
const MOST_BYTES: usize = 256 * 1024;
/// How long a token holds of which the endpoint does not say when it ends: for as long as answers may be remembered.
const UNTOLD_MS: i64 = 5 * 60_000;

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
    /// Warns once that one of its users is not linked to a declared one.
    unlinked: UnlinkedWarning,
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

/// The parts of the outside world that a provider uses.
#[derive(Clone)]
pub struct Outside {
    /// Sends its requests.
    pub fetch: Arc<dyn Fetch>,
    /// Bounds what it remembers.
    pub clock: Arc<dyn Clock>,
}

impl IntrospectionProvider {
    /// Asks by `fetch`.
    #[must_use]
    pub fn new(name: &str, settings: IntrospectionSettings, pass_on_error: bool, outside: Outside) -> Self {
        let Outside { fetch, clock } = outside;
        let (recent, at_once) = (Recent::new(settings.remembered), AtOnce::new(settings.at_once));
        let (unlinked, away) = (UnlinkedWarning::default(), Away::default());
        let inner = Inner { settings, fetch, clock, recent, at_once, unlinked, away };
        Self { name: name.into(), pass_on_error, inner: Arc::new(inner) }
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
            let busy = away("too many are asked about at once").retry_after(1);
            return Later::ready(unavailable(busy, self.pass_on_error));
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
                Err(Fault::Away(refusal)) => unavailable(refusal, pass_on_error),
                Err(Fault::Refused(refusal)) => Verdict::Refused(refusal),
            }
        })
    }
}

fn away(why: &str) -> Refusal {
    Refusal::new(RefusalReason::ProviderUnavailable, "nobody can say whether the token is good").about(why)
}

fn unavailable(refusal: Refusal, pass_on_error: bool) -> Verdict {
    if pass_on_error { Verdict::Unavailable(refusal) } else { Verdict::Refused(refusal) }
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
        if !is_json(&reply) {
            // A sign-in page of something before the endpoint, say.
            return Err(Fault::Away(away("its answer's content type is not application/json")));
        }
        match strict_json::from_slice(&reply.body) {
            Ok(Value::Object(claims)) => self.read(claims, self.clock.now()).map_err(Fault::Refused),
            _ => Err(Fault::Away(away("its answer is no JSON object whose members stand once"))),
        }
    }

    fn read(&self, claims: Map<String, Value>, now: Timestamp) -> Result<Remembered, Refusal> {
        let about = |refusal: Refusal| refusal.about(self.settings.issuer.clone());
        let refuse = |reason, message: String| Err(about(Refusal::new(reason, message)));
        if claims.get("active") != Some(&Value::Bool(true)) {
            return refuse(RefusalReason::Wrong, "the token is not active".to_owned());
        }
        check_is_access_token(&claims).map_err(about)?;
        if let Some(issuer) = claims.get("iss").filter(|issuer| issuer.as_str() != Some(&*self.settings.issuer)) {
            let issuer = issuer.as_str().map_or_else(|| "no text".to_owned(), shown);
            let message = format!("the token's issuer (`iss`) is {issuer}, and not `{}`", self.settings.issuer);
            return refuse(RefusalReason::Untrusted, message);
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
            let message = wrong_audience(claims.get("aud"), &self.settings.audiences);
            return refuse(RefusalReason::WrongAudience, message);
        }
        let ends_at = instant(&claims, "exp", Rounding::Down).map_err(about)?;
        if ends_at.is_some_and(|ends_at| now.as_millis() >= ends_at) {
            return refuse(RefusalReason::Expired, "the token has expired (`exp`)".to_owned());
        }
        if instant(&claims, "nbf", Rounding::Up).map_err(about)?.is_some_and(|begins| now.as_millis() < begins) {
            return refuse(RefusalReason::NotYetValid, "the token is not valid yet: its `nbf` lies ahead".to_owned());
        }
        check_required(&self.settings.require, &claims).map_err(about)?;
        // A client's own token may have no subject.
        let subject = ["sub", "client_id"].iter().find_map(|name| claims.get(*name).and_then(Value::as_str));
        let Some(subject) = subject.filter(|subject| !subject.is_empty()).map(SmolStr::new) else {
            return refuse(RefusalReason::Malformed, "the token has no `sub`, and no `client_id` instead".to_owned());
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
        let mapping = &self.settings.mapping;
        let identity = mapping.identity(&proof, snapshot)?;
        let (principal, email) = (&identity.principal, identity.said.email.as_deref());
        let proved = Proved { by: &self.settings.issuer, principal, email, advice: mapping.advice() };
        self.unlinked.look(&proved, snapshot);
        Ok(mapping.with_headers(&identity, request).unwrap_or(identity))
    }
}

fn is_json(reply: &Reply) -> bool {
    let kind = reply.header("content-type").unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// Members by which servers say what kind of token it is: RFC 7662's own, Keycloak's, and that of Ory Hydra.
const KIND_CLAIMS: [&str; 3] = ["token_type", "typ", "token_use"];
/// The values that mark an access token. `token_type` also names how such a token is used (RFC 6749, section 7.1; RFC
/// 9449).
const ACCESS_KINDS: [&str; 9] = [
    "bearer",
    "dpop",
    "pop",
    "mac",
    "access",
    "access_token",
    "urn:ietf:params:oauth:token-type:access_token",
    "at+jwt",
    "jwt",
];

/// Refuses a token that the endpoint marks as another kind: a refresh token lives for weeks and is meant only for the
/// issuer, and an ID token is meant for its client. Some endpoints do not mark the kind.
fn check_is_access_token(claims: &Map<String, Value>) -> Result<(), Refusal> {
    for name in KIND_CLAIMS {
        let Some(said) = claims.get(name).filter(|said| !said.is_null()) else { continue };
        let is_one = |said: &str| ACCESS_KINDS.iter().any(|kind| kind.eq_ignore_ascii_case(said));
        if !said.as_str().is_some_and(is_one) {
            let said = said.as_str().map_or_else(|| "no text".to_owned(), shown);
            let message = format!("the token is not an access token: its `{name}` is {said}");
            return Err(Refusal::new(RefusalReason::WrongAudience, message));
        }
    }
    Ok(())
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
