//! Tokens of other issuers: JSON Web Tokens (RFC 7519) whose issuers are configured, checked with the keys that those
//! publish.
//!
//! What is hard about it: everything in a token is an attacker's until its signature is checked, and much after that. So
//! the issuer picks the keys, the key picks the algorithm, and what was proved is remembered for this bundle, these keys
//! and this whole token alone.

mod fetching;
mod issuer;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use smol_str::SmolStr;

pub use issuer::{Issuer, IssuerSettings, KeySource};

use super::claims::Proof;
use super::jose::{Jws, MOST_TOKEN_BYTES, Unsigned, looks_like, shown};
use super::recent::{self, CredentialDigest, Recent};
use super::unlinked::Proved;
use crate::gate::{Authenticator, Clock, Credential, Fetch, Later, Presented, Verdict};
use crate::model::{AuthMethod, Identity, Refusal, RefusalReason, Timestamp};
use crate::policy::Snapshot;
use crate::policy::problem::nearest;

/// How tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// Whose.
    pub issuers: Vec<IssuerSettings>,
    /// Longest token.
    pub max_token_bytes: usize,
    /// How many proved tokens are remembered.
    pub remembered: usize,
}

impl JwtSettings {
    /// Tokens of these issuers, of 16 KiB at most, of which 10,000 are remembered. An issuer that lists 200 groups by their
    /// ids, as Entra ID does, makes tokens of 12 KiB.
    #[must_use]
    pub fn of(issuers: Vec<IssuerSettings>) -> Self {
        Self { issuers, max_token_bytes: MOST_TOKEN_BYTES, remembered: 10_000 }
    }
}

/// Knows the tokens of its issuers.
pub struct JwtProvider {
    name: Box<str>,
    pass_on_error: bool,
    inner: Arc<Inner>,
}

struct Inner {
    issuers: HashMap<SmolStr, Arc<Issuer>>,
    max_token_bytes: usize,
    recent: Recent<Remembered>,
}

/// What a token proved, and all that this depends on besides the token.
#[derive(Clone)]
struct Remembered {
    identity: Arc<Identity>,
    issuer: Arc<Issuer>,
    generation: u64,
    revision: Arc<str>,
}

/// Why a token proves nobody.
enum Fault {
    /// For good.
    Refused(Refusal),
    /// Its issuer has no key of its name, as far as is known.
    UnknownKey(Refusal),
    /// Its issuer has another key of its name, as far as is known.
    WrongKey(Refusal),
    /// Its issuer has no keys that may be used.
    NoKeys(Refusal),
    /// Its issuer is not one of these.
    Stranger,
}

impl Fault {
    /// The verdict after the issuer's keys were fetched again. If the issuer does not answer, the missing key may be a
    /// new one of its own, so the token cannot be called wrong.
    fn after_a_look(self, issuer: &Issuer) -> Self {
        match self {
            Self::UnknownKey(_) if issuer.is_away() => {
                let message = "no known key of the token's issuer has its `kid`, and newer keys cannot be fetched now";
                let refusal = Refusal::new(RefusalReason::ProviderUnavailable, message);
                Self::NoKeys(refusal.about(issuer.settings.checks.issuer.clone()))
            }
            fault => fault,
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl JwtProvider {
    /// Of these settings. Keys come with [`JwtProvider::followers`].
    #[must_use]
    pub fn new(name: &str, settings: JwtSettings, pass_on_error: bool) -> Self {
        let JwtSettings { issuers, max_token_bytes, remembered } = settings;
        let known = |settings: IssuerSettings| (settings.checks.issuer.clone(), Arc::new(Issuer::new(settings)));
        let issuers = issuers.into_iter().map(known).collect();
        let inner = Inner { issuers, max_token_bytes, recent: Recent::new(remembered) };
        Self { name: name.into(), pass_on_error, inner: Arc::new(inner) }
    }

    /// What keeps each issuer's keys fresh: to be run for as long as the provider is asked. Without it there are no keys.
    pub fn followers(
        &self,
        fetch: &Arc<dyn Fetch>,
        clock: &Arc<dyn Clock>,
    ) -> impl Iterator<Item = impl Future<Output = ()> + Send + 'static> {
        let follow = |issuer: &Arc<Issuer>| Arc::clone(issuer).follow(Arc::clone(fetch), Arc::clone(clock));
        self.inner.issuers.values().map(follow).collect::<Vec<_>>().into_iter()
    }

    fn verdict(&self, proved: Result<Arc<Identity>, Fault>) -> Verdict {
        match proved {
            Ok(identity) => Verdict::Proved(identity),
            Err(Fault::Stranger) => Verdict::Passed,
            Err(Fault::NoKeys(refusal)) if self.pass_on_error => Verdict::Unavailable(refusal),
            Err(
                Fault::Refused(refusal)
                | Fault::UnknownKey(refusal)
                | Fault::WrongKey(refusal)
                | Fault::NoKeys(refusal),
            ) => Verdict::Refused(refusal),
        }
    }
}

impl Authenticator for JwtProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_away(&self) -> bool {
        self.inner.issuers.values().any(|issuer| issuer.is_away())
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let (Credential::Bearer(token) | Credential::ApiKey(token)) = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        if !token.expose().contains('.') {
            return Later::ready(Verdict::Passed);
        }
        let digest = recent::digest(token.expose());
        if let Some(known) = self.inner.remembered(&digest, snapshot, now) {
            return Later::ready(Verdict::Proved(with_headers(known, presented)));
        }
        if !looks_like(token.expose()) {
            return Later::ready(Verdict::Passed);
        }
        match self.inner.prove(token.expose(), digest, snapshot, now) {
            Ok(known) => Later::ready(Verdict::Proved(with_headers(known, presented))),
            Err((fault @ (Fault::UnknownKey(_) | Fault::WrongKey(_) | Fault::NoKeys(_)), Some(issuer))) => {
                let (inner, presented, snapshot) = (Arc::clone(&self.inner), presented.clone(), Arc::clone(snapshot));
                let this = Self { name: self.name.clone(), pass_on_error: self.pass_on_error, inner };
                let generation = move |issuer: &Issuer| issuer.loaded(now).map(|loaded| loaded.generation);
                let before = generation(&issuer);
                Later::pending(async move {
                    let _looked = issuer.look_again(now).await;
                    // Whether it looked now or a moment ago: what it has decides, unless that is what decided before.
                    if generation(&issuer) == before {
                        return this.verdict(Err(fault.after_a_look(&issuer)));
                    }
                    let (Credential::Bearer(token) | Credential::ApiKey(token)) = &presented.credential else {
                        return Verdict::Passed;
                    };
                    let proved = this.inner.prove(token.expose(), digest, &snapshot, now);
                    let proved = proved.map(|known| with_headers(known, &presented));
                    this.verdict(proved.map_err(|(fault, _)| fault.after_a_look(&issuer)))
                })
            }
            Err((fault, _)) => Later::ready(self.verdict(Err(fault))),
        }
    }

    fn why_not(&self, presented: &Presented) -> Option<String> {
        let (Credential::Bearer(token) | Credential::ApiKey(token)) = &presented.credential else { return None };
        if !looks_like(token.expose()) {
            return None;
        }
        let claims = Jws::parse(token.expose(), MOST_TOKEN_BYTES).and_then(|jws| jws.claims()).ok()?;
        self.inner.why_a_stranger(claims.get("iss")?.as_str()?)
    }
}

impl Inner {
    fn remembered(&self, digest: &CredentialDigest, snapshot: &Snapshot, now: Timestamp) -> Option<Remembered> {
        let known = self.recent.get(digest)?;
        let in_time = known.identity.expires_at.is_some_and(|end| now < end);
        let holds = in_time && known.issuer.is_of(known.generation, now) && known.revision == *snapshot.revision();
        if !holds {
            self.recent.forget(digest);
        }
        holds.then_some(known)
    }

    /// Whom the token proves; with its issuer, where that might have newer keys.
    fn prove(
        &self,
        token: &str,
        digest: CredentialDigest,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Remembered, (Fault, Option<Arc<Issuer>>)> {
        let read = |token| {
            let jws = Jws::parse(token, MOST_TOKEN_BYTES)?;
            let claims = jws.claims()?;
            Ok::<_, Refusal>((jws, claims))
        };
        let (jws, claims) = read(token).map_err(|refusal| (refusal.into(), None))?;
        let issuer = match claims.get("iss").and_then(Value::as_str) {
            Some(name) => self.issuers.get(name).ok_or((Fault::Stranger, None))?,
            None => {
                let refusal = Refusal::new(RefusalReason::Untrusted, "the token has no `iss` that is a text");
                return Err((refusal.into(), None));
            }
        };
        self.check_length(token, issuer).map_err(|refusal| (refusal.into(), None))?;
        let known =
            Self::known(issuer, &jws, &claims, snapshot, now).map_err(|fault| (fault, Some(Arc::clone(issuer))))?;
        self.recent.put(digest, known.clone());
        Ok(known)
    }

    /// Whether a token of this issuer is no longer than the configuration takes.
    fn check_length(&self, token: &str, issuer: &Issuer) -> Result<(), Refusal> {
        if token.len() <= self.max_token_bytes {
            return Ok(());
        }
        let (bytes, most, issuer) = (token.len(), self.max_token_bytes, &issuer.settings.checks.issuer);
        let message = format!(
            "the token of {issuer} has {bytes} bytes, and `jwt.max_token_bytes` in `identity.providers` takes {most}: raise \
             it, or have the issuer put less into tokens"
        );
        let about = format!("{issuer}: {bytes} bytes, max_token_bytes is {most}");
        Err(Refusal::new(RefusalReason::Malformed, message).about(about))
    }

    /// The reason why a token of `issuer` is not known here; `None` if it is known.
    fn why_a_stranger(&self, issuer: &str) -> Option<String> {
        if self.issuers.contains_key(issuer) {
            return None;
        }
        let mut known: Vec<&str> = self.issuers.keys().map(SmolStr::as_str).collect();
        known.sort_unstable();
        let near = nearest(issuer, known.iter().copied()).or_else(|| known.first().copied())?;
        let others = match known.len() {
            1 => String::new(),
            count => format!(" (and of {} more issuers)", count - 1),
        };
        Some(format!(
            "the token's issuer (`iss`) is {}, and this server takes tokens of `{near}`{others}; an issuer is compared \
             exactly, a `/` at its end included",
            shown(issuer)
        ))
    }

    fn known(
        issuer: &Arc<Issuer>,
        jws: &Jws<'_>,
        claims: &Map<String, Value>,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Remembered, Fault> {
        let IssuerSettings { checks, mapping, .. } = &issuer.settings;
        let about = |refusal: Refusal| refusal.about(checks.issuer.clone());
        let Some(loaded) = issuer.loaded(now) else {
            let message = "the keys of the token's issuer are not known at the moment";
            return Err(Fault::NoKeys(about(Refusal::new(RefusalReason::ProviderUnavailable, message))));
        };
        match loaded.keys.check(jws, checks.algorithms.as_deref()) {
            Ok(()) => {}
            Err(unsigned @ Unsigned::UnknownKey) => return Err(Fault::UnknownKey(about(unsigned.into()))),
            // Issuers put new keys under old names too.
            Err(unsigned @ Unsigned::Wrong) => return Err(Fault::WrongKey(about(unsigned.into()))),
            Err(unsigned) => return Err(Fault::Refused(about(unsigned.into()))),
        }
        let checked = checks.check(&jws.header, claims, now).map_err(about)?;
        let proof = Proof {
            issuer: &checks.issuer,
            subject: &checked.subject,
            claims,
            method: AuthMethod::Jwt,
            expires_at: checked.expires_at,
        };
        let identity = mapping.identity(&proof, snapshot).map_err(about)?;
        let (principal, email) = (&identity.principal, identity.said.email.as_deref());
        let advice = mapping.advice();
        issuer.unlinked.look(&Proved { by: &checks.issuer, principal, email, advice }, snapshot);
        Ok(Remembered {
            identity: Arc::new(identity),
            issuer: Arc::clone(issuer),
            generation: loaded.generation,
            revision: Arc::clone(snapshot.revision()),
        })
    }
}

fn with_headers(known: Remembered, presented: &Presented) -> Arc<Identity> {
    let mapping = &known.issuer.settings.mapping;
    if mapping.headers.is_empty() {
        return known.identity;
    }
    mapping.with_headers(&known.identity, &presented.request).map_or(known.identity, Arc::new)
}
