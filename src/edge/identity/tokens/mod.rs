//! Tollgate's own tokens: a credential is exchanged for a short-lived token that is signed here, and a refresh token that
//! is good once.
//!
//! What is hard about it: a token must not outlive or outdo what it was given for. It ends with its credential, a key is
//! looked up each time, and a refresh token that is used twice ends everything that came of the same credential. And whoever
//! checks a token must know its key already: one signs only after it was published for as long as others keep what is
//! published.

mod carried;

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::sign;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use smol_str::SmolStr;
use zeroize::Zeroizing;

use super::jose::{Algorithm, Checks, Jws, KeySet, MOST_TOKEN_BYTES, looks_like, ready};
use super::recent::{self, Recent};
use crate::edge::random;
use crate::gate::{
    Authenticator, Credential, Family, Issued, KeptKey, KeyLookup, Later, PUBLISHED_FOR_SECONDS, PasswordLookup,
    Presented, RefreshDigest, Refreshed, StoreError, TokenError, TokenStore, Tokens, Verdict, is_disabled,
};
use crate::model::{EntityUid, Identity, REFRESH_TOKEN_PREFIX, Refusal, RefusalReason, SecretText, Timestamp};
use crate::policy::Snapshot;
use carried::{By, Carried};

/// Longest token that is handed out, and taken.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// By how much clocks of nodes may differ.
const LEEWAY_MS: i64 = 10_000;
/// So long a key is published before it signs.
const PUBLISHED_FOR_MS: i64 = PUBLISHED_FOR_SECONDS * 1000;
/// How many tokens are remembered.
const REMEMBERED: usize = 10_000;
/// The claim that says whom a token is for.
const CARRIED: &str = "tollgate";
/// The claim that names the refresh tokens that it came with.
const FAMILY: &str = "family";

/// How tokens are handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOptions {
    /// What they call their issuer, and their audience.
    pub issuer: SmolStr,
    /// For how long a token is good.
    pub access_ms: i64,
    /// For how long a refresh token is good.
    pub refresh_ms: i64,
    /// For how long a key signs.
    pub rotate_ms: i64,
}

impl Default for TokenOptions {
    /// Tokens of `tollgate` for 15 minutes, refresh tokens for 7 days, keys that sign for 30.
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            issuer: SmolStr::new_static("tollgate"),
            access_ms: 15 * 60 * 1000,
            refresh_ms: 7 * DAY_MS,
            rotate_ms: 30 * DAY_MS,
        }
    }
}

/// Hands out tokens, and takes them.
pub struct TokenProvider {
    options: TokenOptions,
    checks: Checks,
    store: Arc<dyn TokenStore>,
    keys: ArcSwap<SigningKeys>,
    lookups: Lookups,
    recent: Recent<Remembered>,
}

/// Who knows what became of credentials that were exchanged.
#[derive(Clone, Default)]
pub struct Lookups {
    /// Of keys; without it none is exchanged.
    pub keys: Option<Arc<dyn KeyLookup>>,
    /// Of passwords.
    pub passwords: Vec<Arc<dyn PasswordLookup>>,
}

/// The keys of the store, the newest first.
#[derive(Default)]
struct SigningKeys {
    /// How often the store had changed then; `None` before the first reading.
    changes: Option<u64>,
    keys: Vec<Arc<SigningKey>>,
}

/// A key, ready to sign.
struct SigningKey {
    kid: SmolStr,
    made_at: Timestamp,
    key: EncodingKey,
    /// As it is published.
    jwk: Value,
    set: KeySet,
}

/// What a token proved.
#[derive(Clone)]
struct Remembered {
    identity: Arc<Identity>,
    family: Option<SmolStr>,
    kid: SmolStr,
    /// Of a password, what was kept of it then.
    password: Option<SmolStr>,
}

/// What a token says, its signature checked.
struct Read {
    carried: Carried,
    family: Option<SmolStr>,
    kid: SmolStr,
    expires_at: Timestamp,
}

impl Lookups {
    /// Whom that is now: of a key, as it is looked up, of a password, where it is still the one that was exchanged.
    fn whose(&self, carried: &Carried, snapshot: &Arc<Snapshot>, now: Timestamp) -> Result<Arc<Identity>, Refusal> {
        let nobody = || Refusal::new(RefusalReason::Malformed, "the token names nobody");
        if carried.by != By::Key {
            let identity = carried.clone().identity().ok_or_else(nobody)?;
            if carried.by == By::Password {
                let mark = carried.mark.as_deref().unwrap_or_default();
                self.password(&identity.principal, mark, snapshot, now)?;
            }
            return Ok(Arc::new(identity));
        }
        let key = carried.principal.parse().map_err(|_| nobody())?;
        let gone = || Refusal::new(RefusalReason::UnknownPrincipal, "the token's key cannot be looked up");
        let lookup = self.keys.as_ref().ok_or_else(gone)?;
        lookup.identity(&key, carried.mark.as_deref().unwrap_or_default(), snapshot, now)
    }

    /// Waits where another node may have made the key, or given it another secret, or set the password, a moment ago.
    fn catch_up(&self, by: By, refusal: &Refusal) -> Option<Later<()>> {
        if !matches!(refusal.reason, RefusalReason::Revoked | RefusalReason::Rotated) {
            return None;
        }
        match by {
            By::Key => self.keys.as_ref()?.catch_up(),
            By::Password => self.passwords.iter().find_map(|lookup| lookup.catch_up()),
            By::Other => None,
        }
    }

    /// Whether the password of this mark is still the principal's.
    fn password(&self, principal: &EntityUid, mark: &str, snapshot: &Snapshot, now: Timestamp) -> Result<(), Refusal> {
        let mut refusal = Refusal::new(RefusalReason::Rotated, "the password is another now, or is gone");
        for lookup in &self.passwords {
            match lookup.is_kept(principal, mark, snapshot, now) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_away) => {
                    let message = "the store of passwords cannot be asked";
                    refusal = Refusal::new(RefusalReason::ProviderUnavailable, message);
                }
            }
        }
        Err(refusal)
    }

    /// Whom a token proves that ends then.
    fn proved(
        &self,
        carried: &Carried,
        expires_at: Timestamp,
        snapshot: &Arc<Snapshot>,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Refusal> {
        let identity = self.whose(carried, snapshot, now)?;
        let expires_at = identity.expires_at.map_or(expires_at, |ends| ends.min(expires_at));
        Ok(Arc::new(Identity { expires_at: Some(expires_at), exchanged: true, ..(*identity).clone() }))
    }
}

impl TokenProvider {
    /// What must last is in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn TokenStore>, options: TokenOptions, lookups: Lookups, now: Timestamp) -> Self {
        ready();
        let checks = Checks {
            issuer: options.issuer.clone(),
            audiences: vec![options.issuer.clone()],
            algorithms: Some(vec![Algorithm::ES256]),
            types: vec!["at+jwt".into()],
            leeway_ms: LEEWAY_MS,
            max_lifetime_ms: Some(options.access_ms),
            require: Vec::new(),
        };
        let (keys, recent) = (ArcSwap::default(), Recent::new(REMEMBERED));
        let provider = Self { options, checks, store, keys, lookups, recent };
        // Now, so that whoever looks for it early finds it. Where that fails, the first token will tell.
        let _made = provider.signing_key(now);
        provider
    }

    /// The keys as they are in the store.
    fn keys(&self) -> Result<Arc<SigningKeys>, StoreError> {
        let (changes, known) = (self.store.changes()?, self.keys.load());
        if known.changes == Some(changes) {
            return Ok(Arc::clone(&known));
        }
        let ready = |kept: &KeptKey| {
            let same = known.keys.iter().find(|key| key.kid == kept.kid && key.made_at == kept.made_at);
            same.cloned().or_else(|| SigningKey::of(kept).map(Arc::new))
        };
        let keys = self.store.signing_keys().iter().filter_map(ready).collect();
        let read = Arc::new(SigningKeys { changes: Some(changes), keys });
        self.keys.store(Arc::clone(&read));
        Ok(read)
    }

    /// The key that signs now: the newest that is published for long enough, or the only one. The next is made where the
    /// newest is old enough.
    fn signing_key(&self, now: Timestamp) -> Result<Arc<SigningKey>, TokenError> {
        let before = |millis: i64| Timestamp::from_millis(now.as_millis().saturating_sub(millis));
        let mut known = self.keys()?;
        // One that seems to be made later is new too: the clock was set back.
        let unless_since = before(self.options.rotate_ms - 1);
        if known.keys.first().is_none_or(|key| key.made_at < unless_since) {
            // A key is published until the last token that it signed has ended.
            let forget_before = before(PUBLISHED_FOR_MS + self.options.access_ms + 2 * LEEWAY_MS);
            self.store.keep_key(new_key(now)?, unless_since, forget_before)?;
            known = self.keys()?;
        }
        let published_since = before(PUBLISHED_FOR_MS);
        let published = known.keys.iter().find(|key| key.made_at <= published_since);
        published.or(known.keys.last()).cloned().ok_or(TokenError::Unavailable)
    }

    fn signed(
        &self,
        key: &SigningKey,
        carried: &Carried,
        session: Session<'_>,
        now: Timestamp,
    ) -> Result<(SecretText, i64), TokenError> {
        let Session { family, ends_at } = session;
        let begins = now.as_millis().div_euclid(1000);
        let ends = ends_at.map_or(i64::MAX, |ends| ends.as_millis().div_euclid(1000));
        let until = (begins + self.options.access_ms / 1000).min(ends);
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": key.kid});
        let mut claims = json!({
            "iss": self.options.issuer, "aud": self.options.issuer, "sub": carried.principal, "iat": begins, "exp": until,
            "jti": random_text(16), CARRIED: carried,
        });
        if let (Some(family), Some(claims)) = (family, claims.as_object_mut()) {
            claims.insert(FAMILY.to_owned(), family.into());
        }
        let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature =
            sign(message.as_bytes(), &key.key, jsonwebtoken::Algorithm::ES256).map_err(|_| TokenError::Unavailable)?;
        let token = format!("{message}.{signature}");
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        Ok((SecretText::new(token), until - begins))
    }

    /// When a refresh token ends that is handed out now.
    fn refresh_ends(&self, ends_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let usual = Timestamp::from_millis(now.as_millis() + self.options.refresh_ms);
        ends_at.map_or(usual, |ends| ends.min(usual))
    }

    fn read(&self, token: &str, now: Timestamp) -> Result<Option<Read>, Refusal> {
        // Those of other issuers may be longer than any that is handed out here.
        let jws = Jws::parse(token, MOST_TOKEN_BYTES)?;
        let claims = jws.claims()?;
        if claims.get("iss").and_then(Value::as_str) != Some(&*self.options.issuer) {
            return Ok(None);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::new(
                RefusalReason::Malformed,
                "the token is longer than those that this server hands out",
            ));
        }
        let keys = self.keys().map_err(|_away| cannot_be_asked())?;
        let kid = jws.header.kid.clone().unwrap_or_default();
        let unknown = || Refusal::new(RefusalReason::Wrong, "no key of this server has the token's `kid`");
        let key = keys.keys.iter().find(|key| key.kid == kid).ok_or_else(unknown)?;
        key.set.check(&jws, self.checks.algorithms.as_deref())?;
        let checked = self.checks.check(&jws.header, &claims, now)?;
        let carried =
            carried_by(&claims).ok_or_else(|| Refusal::new(RefusalReason::Malformed, "the token names nobody"))?;
        let family = claims.get(FAMILY).and_then(Value::as_str).map(SmolStr::from);
        Ok(Some(Read { carried, family, kid: key.kid.clone(), expires_at: checked.expires_at }))
    }

    /// When what comes of the credential ends, if it still proves whom it proved; `ends_at` is what it said itself.
    fn still(
        &self,
        carried: &Carried,
        ends_at: Option<Timestamp>,
        snapshot: &Arc<Snapshot>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Refusal> {
        let whose = || self.lookups.whose(carried, snapshot, now);
        let identity = whose().or_else(|refusal| {
            let caught_up = self.lookups.catch_up(carried.by, &refusal).ok_or(refusal)?;
            pollster::block_on(caught_up);
            whose()
        })?;
        if is_disabled(snapshot, &identity, now) {
            return Err(nobody_who_may_ask());
        }
        match carried.by {
            By::Key => Ok(identity.expires_at),
            By::Password => Ok(ends_at),
            // What cannot be looked up gets no refresh token.
            By::Other => Err(nobody_who_may_ask()),
        }
    }

    fn is_revoked(&self, family: Option<&SmolStr>) -> bool {
        family.is_some_and(|family| self.store.is_revoked(family))
    }
}

fn nobody_who_may_ask() -> Refusal {
    Refusal::new(RefusalReason::UnknownPrincipal, "the token proves nobody who may ask here")
}

fn cannot_be_asked() -> Refusal {
    Refusal::new(RefusalReason::ProviderUnavailable, "the store of tokens cannot be asked")
}

/// Whether what comes of it outlives the first token: what can be looked up again. Anything else could be taken back, and
/// nobody here would know.
fn lasts(carried: &Carried) -> bool {
    carried.by != By::Other && carried.mark.is_some()
}

fn carried_by(claims: &Map<String, Value>) -> Option<Carried> {
    serde_json::from_value(claims.get(CARRIED)?.clone()).ok()
}

impl Tokens for TokenProvider {
    fn issue(&self, identity: &Arc<Identity>, snapshot: &Arc<Snapshot>, now: Timestamp) -> Result<Issued, TokenError> {
        if identity.exchanged {
            return Err(TokenError::Exchanged);
        }
        if is_disabled(snapshot, identity, now) {
            return Err(TokenError::Refused(nobody_who_may_ask()));
        }
        let carried = Carried::of(identity).ok_or(TokenError::Narrowed)?;
        if carried.by == By::Key && self.lookups.keys.is_none() {
            return Err(TokenError::Narrowed);
        }
        let key = self.signing_key(now)?;
        let ends_at = identity.expires_at;
        if !lasts(&carried) {
            let (access, expires_in) = self.signed(&key, &carried, Session { family: None, ends_at }, now)?;
            return Ok(Issued { access, expires_in, refresh: None });
        }
        let identity = serde_json::to_string(&carried).map_err(|_| TokenError::Unavailable)?;
        let (id, principal) = (random_text(16).into(), carried.principal.as_str().into());
        let family = Family { id, principal, identity, ends_at };
        let (access, expires_in) = self.signed(&key, &carried, Session { family: Some(&family.id), ends_at }, now)?;
        let refresh = new_refresh_token();
        let until = self.refresh_ends(ends_at, now);
        self.store.begin(&family, &digest(&refresh), until, now)?;
        Ok(Issued { access, expires_in, refresh: Some((refresh, (until.as_millis() - now.as_millis()) / 1000)) })
    }

    fn refresh(&self, token: &SecretText, snapshot: &Arc<Snapshot>, now: Timestamp) -> Result<Issued, TokenError> {
        let refused = |reason, message: &str| Err(TokenError::Refused(Refusal::new(reason, message)));
        if !token.expose().starts_with(REFRESH_TOKEN_PREFIX) {
            return refused(RefusalReason::Malformed, "this is no refresh token");
        }
        // First: what cannot be signed then, or proves nobody now, uses up no token.
        let unknown = Refusal::new(RefusalReason::Wrong, "nobody knows this refresh token");
        let Some(family) = self.store.family(&digest(token))? else { return Err(TokenError::Refused(unknown)) };
        let carried: Carried =
            serde_json::from_str(&family.identity).map_err(|_| TokenError::Refused(unknown.clone()))?;
        let ends_at = self.still(&carried, family.ends_at, snapshot, now).map_err(TokenError::Refused)?;
        let key = self.signing_key(now)?;
        let next = new_refresh_token();
        let until = self.refresh_ends(ends_at, now);
        let family = match self.store.replace(&digest(token), &digest(&next), until, now)? {
            Refreshed::Replaced(family) => family,
            Refreshed::Unknown => return Err(TokenError::Refused(unknown)),
            Refreshed::Expired => return refused(RefusalReason::Expired, "the refresh token has expired"),
            Refreshed::Revoked => {
                let message =
                    "the refresh token was used before; every token that came of the same credential is revoked";
                return refused(RefusalReason::Revoked, message);
            }
        };
        let (access, expires_in) = self.signed(&key, &carried, Session { family: Some(&family.id), ends_at }, now)?;
        Ok(Issued { access, expires_in, refresh: Some((next, (until.as_millis() - now.as_millis()) / 1000)) })
    }

    fn published(&self) -> String {
        // Where the store does not answer, those that were known last.
        let known = self.keys().unwrap_or_else(|_away| self.keys.load_full());
        let keys: Vec<Value> = known.keys.iter().map(|key| key.jwk.clone()).collect();
        json!({ "keys": keys }).to_string()
    }
}

impl Authenticator for TokenProvider {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn is_away(&self) -> bool {
        self.store.changes().is_err()
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let (Credential::Bearer(token) | Credential::ApiKey(token)) = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        if !token.expose().contains('.') {
            return Later::ready(Verdict::Passed);
        }
        let digest = recent::digest(token.expose());
        let holds = |known: &Remembered| {
            let in_time = known.identity.expires_at.is_some_and(|end| now < end);
            let keys = self.keys();
            let key_is_known = keys.is_ok_and(|keys| keys.keys.iter().any(|key| key.kid == known.kid));
            let whose = &known.identity.principal;
            let is_kept = |mark: &SmolStr| self.lookups.password(whose, mark, snapshot, now).is_ok();
            let password_is_kept = known.password.as_ref().is_none_or(is_kept);
            in_time && key_is_known && !self.is_revoked(known.family.as_ref()) && password_is_kept
        };
        if let Some(known) = self.recent.get(&digest).filter(holds) {
            return Later::ready(Verdict::Proved(known.identity));
        }
        if !looks_like(token.expose()) {
            return Later::ready(Verdict::Passed);
        }
        let read = match self.read(token.expose(), now) {
            Ok(Some(read)) => read,
            Ok(None) => return Later::ready(Verdict::Passed),
            Err(refusal) => return Later::ready(Verdict::Refused(refusal)),
        };
        if self.is_revoked(read.family.as_ref()) {
            let refusal =
                Refusal::new(RefusalReason::Revoked, "the token is revoked: its refresh token was used twice");
            return Later::ready(Verdict::Refused(refusal));
        }
        let Read { carried, family, kid, expires_at } = read;
        let proved = self.lookups.proved(&carried, expires_at, snapshot, now);
        // A key says what it may itself, so it is looked up each time.
        if let Some(identity) = proved.as_ref().ok().filter(|_| carried.by != By::Key) {
            let password = carried.mark.clone().filter(|_| carried.by == By::Password);
            self.recent.put(digest, Remembered { identity: Arc::clone(identity), family, kid, password });
        }
        let refusal = proved.as_ref().err();
        let Some(caught_up) = refusal.and_then(|refusal| self.lookups.catch_up(carried.by, refusal)) else {
            return Later::ready(told(proved));
        };
        let (lookups, snapshot) = (self.lookups.clone(), Arc::clone(snapshot));
        Later::pending(async move {
            caught_up.await;
            told(lookups.proved(&carried, expires_at, &snapshot, now))
        })
    }
}

fn told(proved: Result<Arc<Identity>, Refusal>) -> Verdict {
    proved.map_or_else(Verdict::Refused, Verdict::Proved)
}

impl SigningKey {
    fn of(kept: &KeptKey) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &kept.pkcs8).ok()?;
        // An uncompressed point: a byte, and two coordinates of 32.
        let point = pair.public_key().as_ref().get(1..)?;
        let (x, y) = point.split_at_checked(32)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kept.kid, "alg": "ES256", "use": "sig"});
        let set = KeySet::of_jwks(json!({ "keys": [jwk] }).to_string().as_bytes()).ok()?;
        let key = EncodingKey::from_ec_der(&kept.pkcs8);
        Some(Self { kid: kept.kid.clone(), made_at: kept.made_at, key, jwk, set })
    }
}

/// The tokens that came of one exchange.
#[derive(Clone, Copy)]
struct Session<'a> {
    /// `None` without a refresh token.
    family: Option<&'a str>,
    /// When the exchanged credential expires.
    ends_at: Option<Timestamp>,
}

fn new_refresh_token() -> SecretText {
    SecretText::new(format!("{REFRESH_TOKEN_PREFIX}{}", random_text(32)))
}

fn random_text(bytes: usize) -> String {
    let mut random = Zeroizing::new(vec![0; bytes]);
    random::fill(&mut random);
    URL_SAFE_NO_PAD.encode(&*random)
}

fn new_key(now: Timestamp) -> Result<KeptKey, TokenError> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| TokenError::Unavailable)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| TokenError::Unavailable)?;
    let (kid, pkcs8) = (random_text(12).into(), Zeroizing::new(pkcs8.as_ref().to_vec()));
    Ok(KeptKey { kid, pkcs8, made_at: now })
}

fn digest(token: &SecretText) -> RefreshDigest {
    RefreshDigest(Sha256::digest(token.expose().as_bytes()).into())
}
