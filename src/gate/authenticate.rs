//! The first step of a request that brings a credential: providers are asked in their order, and the first that knows the
//! credential's form says whom it proves, or why nobody.
//!
//! What is hard about it: nobody may be proved by accident. A refusal is a value of its own and never an empty identity,
//! and a provider that does not know a form says so instead of guessing.

use std::net::IpAddr;
use std::sync::Arc;

use smol_str::SmolStr;

use super::decide::Who;
use super::ports::Later;
use crate::model::{EntityUid, Identity, Narrowed, Refusal, RefusalReason, SecretText, Timestamp};
use crate::policy::Snapshot;

/// What proves who somebody is.
#[derive(Debug, Clone)]
pub enum Credential {
    /// `Authorization: Bearer …`: a token, or a key.
    Bearer(SecretText),
    /// A key in a header of its own (`x-api-key`), or in `api_key`.
    ApiKey(SecretText),
    /// A name and a password (RFC 7617).
    Basic {
        /// The name.
        username: SmolStr,
        /// The password.
        password: SecretText,
    },
    /// A proof of a password: `Authorization: Digest …` (RFC 7616).
    Digest {
        /// Whose it says that it is, where that can be read.
        username: Option<SmolStr>,
        /// The parameters, as they stand there.
        parameters: SecretText,
    },
    /// The client's certificates of this connection, the client's own first, each as DER.
    Certificates(Arc<[Box<[u8]>]>),
    /// What a proxy says of its client's certificate (`x-forwarded-client-cert`). Nobody has proved it yet: whether the
    /// proxy is trusted is the provider's to say.
    ForwardedCertificate {
        /// The header.
        said: SmolStr,
        /// The other end of the connection that it came by: the proxy, and nothing that a request tells.
        by: Option<IpAddr>,
    },
}

/// The other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address, where that is known.
    pub address: Option<IpAddr>,
    /// Its certificates, its own first, each as DER; where the connection asked for them and they were verified.
    pub certificates: Option<Arc<[Box<[u8]>]>>,
}

/// The request that a credential came with, as far as providers look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Its method.
    pub method: SmolStr,
    /// Its path, without the query.
    pub path: SmolStr,
    /// Its headers, without those that hold credentials; names in small letters.
    pub headers: Box<[(SmolStr, SmolStr)]>,
    /// Its query, as it was sent; empty for none.
    pub query: SmolStr,
    /// The parameters of its query, or what stands for them.
    pub params: Box<[(SmolStr, SmolStr)]>,
}

/// A credential, and where it came from.
#[derive(Debug, Clone)]
pub struct Presented {
    /// The credential.
    pub credential: Credential,
    /// The address that it came from, where that is known.
    pub source: Option<IpAddr>,
    /// The request that it came with.
    pub request: Described,
}

impl Presented {
    /// A credential of which nothing else is known.
    #[must_use]
    pub fn new(credential: Credential) -> Self {
        Self { credential, source: None, request: Described::default() }
    }
}

/// What a provider says to a credential.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It proves this principal.
    Proved(Arc<Identity>),
    /// It proves nobody, and no other provider is asked.
    Refused(Refusal),
    /// It is not of this provider's form: the next one is asked.
    Passed,
    /// The provider's backend is unavailable, and the configuration lets the next provider decide (`on_error: pass`).
    /// If no other provider knows the credential, this refusal is the answer, since the credential may be valid.
    Unavailable(Refusal),
}

/// What a provider remembers of a credential.
#[derive(Debug, Clone)]
pub enum Recalled {
    /// It proved this principal a moment ago, and does now.
    Proved(Arc<Identity>),
    /// It is not of this provider's form.
    Passed,
    /// It has to be looked at.
    Unknown,
}

/// A provider of identities. One of your own is given to [`crate::engine::EngineBuilder::authenticator`], and is asked in
/// the order in which they are given.
///
/// * What is not of its form it passes on ([`Verdict::Passed`]): the next provider is asked. Where it knows the form it
///   decides, and a refusal is final.
/// * It never proves a principal because something failed: whoever it asks is away, so it refuses
///   ([`RefusalReason::ProviderUnavailable`]).
/// * Secrets are compared with [`SecretText::is`], which tells nothing by its time, and are part of no message.
/// * What takes long it does in [`Later::pending`], within a time of its own.
/// * An identity with an end is not remembered beyond it, and one that has ended is refused whatever the provider says.
///
/// ```
/// use std::sync::Arc;
///
/// use tollgate::gate::{Authenticator, Credential, Later, Presented, Verdict};
/// use tollgate::model::{AuthMethod, EntityUid, Identity, Refusal, RefusalReason, Said, SecretText, Timestamp};
/// use tollgate::{Bundle, Engine, Request, Snapshot, SourceFile};
///
/// /// Badges of a company's door system: `badge:` and what is on the card.
/// struct Badges {
///     cards: Vec<(SecretText, EntityUid)>,
/// }
///
/// impl Authenticator for Badges {
///     fn name(&self) -> &str {
///         "badges"
///     }
///
///     fn authenticate(&self, presented: &Presented, _: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
///         let Credential::Bearer(token) = &presented.credential else { return Later::ready(Verdict::Passed) };
///         let Some(card) = token.expose().strip_prefix("badge:") else { return Later::ready(Verdict::Passed) };
///         let card = SecretText::new(card);
///         let found = self.cards.iter().find(|(known, _)| known.is(&card));
///         Later::ready(match found {
///             Some((_, principal)) => Verdict::Proved(Arc::new(Identity {
///                 said: Said { tags: ["on-site".into()].into(), ..Said::default() },
///                 expires_at: Some(Timestamp::from_millis(now.as_millis() + 60_000)),
///                 ..Identity::new(principal.clone(), AuthMethod::Custom)
///             })),
///             None => Verdict::Refused(Refusal::new(RefusalReason::Wrong, "no such badge")),
///         })
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rules = "authz_rules: [{ tags: [on-site], models: [openai-main/gpt-4o] }]";
/// let cards = vec![(SecretText::new("4711"), r#"User::"alice""#.parse()?)];
/// let engine = Engine::builder()
///     .bundle(Bundle::new(SourceFile::new("rules.yaml", rules.as_bytes()).into_iter().collect()))
///     .authenticator(Arc::new(Badges { cards }))
///     .build()?;
///
/// let shown = |token: &str| Presented::new(Credential::Bearer(SecretText::new(token)));
/// let identity = engine.authenticate(&shown("badge:4711"))?;
/// let request = Request::proved(identity, "chat", r#"Model::"openai-main/gpt-4o""#.parse()?);
/// assert!(engine.is_authorized(&request)?.is_permit());
/// assert_eq!(engine.authenticate(&shown("badge:4712")).unwrap_err().reason, RefusalReason::Wrong);
/// assert_eq!(engine.authenticate(&shown("4711")).unwrap_err().reason, RefusalReason::NotRecognized);
/// # Ok(())
/// # }
/// ```
pub trait Authenticator: Send + Sync {
    /// What it is called in the configuration, in logs and metrics.
    fn name(&self) -> &str;

    /// Whom `presented` proves. People are looked up in `snapshot`, times are compared with `now`.
    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict>;

    /// Whom `presented` proved a moment ago, where nothing that this depends on has changed since. Whoever is recalled is no
    /// guess, and is not counted among them.
    fn recall(&self, _presented: &Presented, _snapshot: &Arc<Snapshot>, _now: Timestamp) -> Recalled {
        Recalled::Unknown
    }

    /// A helpful reason why this provider passed on a credential that no other provider knows either, such as an
    /// unknown issuer of a token. The caller reads it, so it must not contain a secret.
    fn why_not(&self, _presented: &Presented) -> Option<String> {
        None
    }

    /// Whether the last request to the provider's backend got no answer. It makes no new request.
    fn is_away(&self) -> bool {
        false
    }

    /// What a caller that has to prove itself is told in `WWW-Authenticate`, at `now`, besides `Bearer`: most providers
    /// add nothing.
    fn challenge(&self, _now: Timestamp) -> Option<String> {
        None
    }
}

/// Whom `presented` proves, by the first of `providers` that knows its form.
///
/// # Errors
/// With the reason, where it proves nobody.
pub async fn authenticate(
    providers: &[Arc<dyn Authenticator>],
    presented: &Presented,
    snapshot: &Arc<Snapshot>,
    now: Timestamp,
) -> Result<Arc<Identity>, Refusal> {
    let mut unavailable = None;
    for provider in providers {
        match provider.authenticate(presented, snapshot, now).await {
            Verdict::Proved(identity) if is_on(&identity, now) => return Ok(identity),
            Verdict::Proved(_) => return Err(Refusal::new(RefusalReason::Expired, "the credential has expired")),
            Verdict::Refused(refusal) => return Err(refusal),
            Verdict::Unavailable(refusal) => unavailable = unavailable.or(Some(refusal)),
            Verdict::Passed => {}
        }
    }
    Err(unavailable.unwrap_or_else(|| {
        let why = providers.iter().find_map(|provider| provider.why_not(presented));
        let message = why.unwrap_or_else(|| "no identity provider of this server recognizes the credential".to_owned());
        Refusal::new(RefusalReason::NotRecognized, message)
    }))
}

/// Whom `presented` proves, where the first of `providers` that knows its form has proved it lately; `None` where
/// [`authenticate`] has to find out.
pub fn recall(
    providers: &[Arc<dyn Authenticator>],
    presented: &Presented,
    snapshot: &Arc<Snapshot>,
    now: Timestamp,
) -> Option<Arc<Identity>> {
    for provider in providers {
        match provider.recall(presented, snapshot, now) {
            Recalled::Proved(identity) => return Some(identity).filter(|proved| is_on(proved, now)),
            Recalled::Passed => {}
            Recalled::Unknown => return None,
        }
    }
    None
}

fn is_on(identity: &Identity, now: Timestamp) -> bool {
    identity.expires_at.is_none_or(|end| now < end)
}

/// Whether an identity that connects from `peer` is enabled and has one of `roles`, directly or through its teams. A
/// narrowed key has none of them, since its lists never name the server's own actions. A key that is bound only to
/// networks has them inside these. A principal that a delegated endpoint names has none of them either
/// ([`crate::model::AuthMethod`]).
#[must_use]
pub fn has_role(
    snapshot: &Snapshot,
    identity: &Arc<Identity>,
    roles: &[&str],
    peer: Option<IpAddr>,
    now: Timestamp,
) -> bool {
    if !is_unbound(snapshot, identity, peer) || !identity.method.gives_reserved_roles() {
        return false;
    }
    let Ok(who) = Who::find(snapshot, None, &identity.principal, Some(identity)) else { return false };
    let is_one = |role: &SmolStr| roles.contains(&role.as_str());
    let store = &snapshot.store;
    let above = store.closure(store.parents(&who.subject));
    let kept = store.index_of(&who.subject).into_iter().chain(above);
    let has = identity.said.roles.iter().any(is_one) || kept.flat_map(|index| store.record(index).roles()).any(is_one);
    has && !store.is_disabled(&who.subject, now)
}

/// Whether any limit can bind: of the bundle, or of the key that asks.
#[must_use]
pub fn has_limits(snapshot: &Snapshot, identity: Option<&Identity>) -> bool {
    !snapshot.limits().all().is_empty() || identity.is_some_and(|identity| !identity.limits.is_empty())
}

/// Whether it is disabled, itself or through what it is in; of a key, its owner.
#[must_use]
pub fn is_disabled(snapshot: &Snapshot, identity: &Arc<Identity>, now: Timestamp) -> bool {
    let who = Who::find(snapshot, None, &identity.principal, Some(identity));
    who.is_ok_and(|who| snapshot.store.is_disabled(&who.subject, now))
}

/// Whether it is a key that may not do all that its owner may: it is narrowed, or has limits of its own.
#[must_use]
pub fn is_narrowed(snapshot: &Snapshot, identity: &Identity) -> bool {
    let Identity { principal, owner, narrowed, limits, .. } = identity;
    let by_bundle = || snapshot.is_narrowed_key(principal) || snapshot.is_limited_key(principal);
    narrowed.is_some() || !limits.is_empty() || (owner.is_none() && by_bundle())
}

/// Whether nothing narrows it but networks that `peer` is in.
fn is_unbound(snapshot: &Snapshot, identity: &Identity, peer: Option<IpAddr>) -> bool {
    match identity.narrowed.as_deref() {
        Some(Narrowed { models: None, routers: None, actions: None, paths: None, networks }) => {
            let is_in = |peer: IpAddr| networks.iter().flat_map(|all| all.iter()).any(|network| network.contains(peer));
            networks.is_none() || peer.is_some_and(is_in)
        }
        Some(_) => false,
        // Of a key of the bundle, the bundle knows.
        None => identity.owner.is_some() || !snapshot.is_narrowed_key(&identity.principal),
    }
}

/// The person or service that a credential is of; of a key, its owner.
#[must_use]
pub fn person(snapshot: &Snapshot, identity: &Identity) -> EntityUid {
    let of_bundle = || snapshot.owner_of(&identity.principal);
    identity.owner.clone().or_else(of_bundle).unwrap_or_else(|| identity.principal.clone())
}

/// Whether the networks that a key is narrowed to, if any, let it be used from `peer`. Those of a key of the bundle are the
/// bundle's to look at, which here takes it for outside of them.
#[must_use]
pub fn is_used_from(snapshot: &Snapshot, identity: &Identity, peer: Option<IpAddr>) -> bool {
    let networks = identity.narrowed.as_ref().and_then(|narrowed| narrowed.networks.as_deref());
    let is_in = |peer: IpAddr| networks.iter().flat_map(|all| all.iter()).any(|network| network.contains(peer));
    let by_bundle = || snapshot.rules_named(&format!("key:{}:networks", identity.principal.id()));
    match networks {
        Some(_) => peer.is_some_and(is_in),
        None => identity.owner.is_some() || !by_bundle(),
    }
}

/// What an identity is and has, by its credential and by the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldOf {
    /// Who it is; of a key, whose.
    pub principal: EntityUid,
    /// Every team that it is in, sorted, as the rest.
    pub teams: Vec<SmolStr>,
    /// Every org.
    pub orgs: Vec<SmolStr>,
    /// Roles.
    pub roles: Vec<SmolStr>,
    /// Tags.
    pub tags: Vec<SmolStr>,
}

/// What an identity is and has; `None` of one that is disabled, or whose owner is gone.
#[must_use]
pub fn told_of(snapshot: &Snapshot, identity: &Arc<Identity>, now: Timestamp) -> Option<ToldOf> {
    let who = Who::find(snapshot, None, &identity.principal, Some(identity)).ok()?;
    let store = &snapshot.store;
    if store.is_disabled(&who.subject, now) {
        return None;
    }
    let above = store.closure(store.parents(&who.subject));
    let of_kind = |kind: &str| {
        let found = above.iter().map(|index| store.uid(*index)).filter(|uid| uid.kind() == kind);
        sorted(found.map(|uid| SmolStr::new(uid.id())).collect())
    };
    let (teams, orgs) = (of_kind("Team"), of_kind("Org"));
    let kept: Vec<_> = store.index_of(&who.subject).into_iter().chain(above.iter().copied()).collect();
    let roles = kept.iter().flat_map(|index| store.record(*index).roles()).chain(&*identity.said.roles);
    let tags = kept.iter().flat_map(|index| store.record(*index).tags()).chain(&*identity.said.tags);
    let (roles, tags) = (sorted(roles.cloned().collect()), sorted(tags.cloned().collect()));
    Some(ToldOf { principal: who.principal.clone(), teams, orgs, roles, tags })
}

fn sorted(mut names: Vec<SmolStr>) -> Vec<SmolStr> {
    names.sort_unstable();
    names.dedup();
    names
}
