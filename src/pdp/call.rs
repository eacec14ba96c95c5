//! The input of a decision: who asks, for what, and how limits take part.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use smol_str::SmolStr;

use crate::gate::{Credential, KeyOwner, Presented, Reserve, Via};
use crate::meter::DEFAULT_TTL_MS;
use crate::model::{CandidatesRequest, EntityUid, Identity, Request, Told};

/// One call of [`Pdp::authorize`](super::Pdp::authorize).
#[derive(Debug, Clone)]
pub struct AuthorizeCall {
    /// The interface that the call came through, for the decision log and metrics.
    pub via: Via,
    /// The principal, or the credential that proves it.
    pub caller: Caller,
    /// The principals that the client may ask about.
    pub authority: Authority,
    /// A bare action name (`chat`) or a Cedar uid (`Action::"chat"`).
    pub action: SmolStr,
    /// The resource, or a list of candidates.
    pub target: Target,
    /// What conditions read as `context`; checked against the schema.
    pub context: Told,
    /// Entities that exist for this call alone, in Cedar's JSON form.
    pub additional_entities: Vec<Value>,
    /// Whether a forbid names the nearest rule that would permit the request, and what it lacked.
    pub explain: bool,
    /// How limits take part.
    pub limits: LimitsMode,
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum Caller {
    /// A trusted client asserts this principal.
    Asserted(EntityUid),
    /// The call is authenticated already, by [`Pdp::authenticate`](super::Pdp::authenticate).
    Authenticated(Arc<Identity>),
    /// A credential, with what is known of the request that it came with.
    Credential(Presented),
    /// A credential that a gateway forwards. The address, method and path of the request that it came with are in the
    /// context of the call, as `ip`, `method` and `path`.
    Forwarded(Credential),
    /// The caller presented no credential.
    Anonymous,
}

/// The principals that the client of the service may ask about.
#[derive(Debug, Clone, Default)]
pub enum Authority {
    /// Any principal: the client is a gateway, or runs in this process.
    #[default]
    AnyPrincipal,
    /// Only itself, and it may reserve nothing: the client lacks the role `tollgate:gateway`.
    Itself {
        /// The identity that the client's own credential proved.
        identity: Arc<Identity>,
        /// The address that the client calls from. Such a client cannot set the source of a credential.
        address: Option<IpAddr>,
    },
}

/// What a call asks about.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// One resource.
    One(EntityUid),
    /// 1 to 64 candidates in the caller's order of preference, perhaps through a router.
    Candidates {
        /// The router that leads to the candidates.
        router: Option<EntityUid>,
        /// The candidates.
        candidates: Vec<EntityUid>,
    },
}

/// How limits take part in a decision.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum LimitsMode {
    /// Limits can refuse the request, and nothing is counted.
    #[default]
    Check,
    /// A permitted request reserves its amounts on every limit that applies, until the caller settles or releases them.
    Reserve(ReserveOptions),
    /// A permitted request is charged its estimate at once.
    Charge {
        /// The length of the body of the request, if it is known: four bytes are estimated as one token.
        body_bytes: Option<u64>,
    },
}

/// What a permitted request reserves.
#[derive(Debug, Clone, PartialEq)]
pub struct ReserveOptions {
    /// The amounts. Absent ones are estimated from the context and the model.
    pub amounts: Reserve,
    /// The lifetime of the reservation, in milliseconds: 1,000 to [`MAX_TTL_MS`](crate::meter::MAX_TTL_MS).
    pub ttl_ms: i64,
    /// A key of 1 to 255 bytes that the caller chose. The same call with the same key gets the same answer again.
    pub idempotency_key: Option<SmolStr>,
}

impl Default for ReserveOptions {
    fn default() -> Self {
        Self { amounts: Reserve::default(), ttl_ms: DEFAULT_TTL_MS, idempotency_key: None }
    }
}

impl AuthorizeCall {
    /// A check of one resource, for the library.
    #[must_use]
    pub fn new(caller: Caller, action: impl Into<SmolStr>, target: impl Into<Target>) -> Self {
        Self {
            via: Via::Library,
            caller,
            authority: Authority::default(),
            action: action.into(),
            target: target.into(),
            context: Told::default(),
            additional_entities: Vec::new(),
            explain: false,
            limits: LimitsMode::Check,
        }
    }

    /// The same call with this context.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Told>) -> Self {
        self.context = context.into();
        self
    }

    /// The same call that reserves what it will use.
    #[must_use]
    pub fn with_reserve(mut self, options: ReserveOptions) -> Self {
        self.limits = LimitsMode::Reserve(options);
        self
    }

    /// The same call with an explanation of a forbid.
    #[must_use]
    pub fn with_explain(mut self, explain: bool) -> Self {
        self.explain = explain;
        self
    }

    /// Whether the call can change a limit. Its future must then run to its end: dropped halfway, it can leave a
    /// reservation that lasts until its TTL.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.limits != LimitsMode::Check
    }

    /// The question of `principal`, which `identity` proved, and how limits take part.
    pub(super) fn into_question(self, principal: EntityUid, identity: Option<Arc<Identity>>) -> (Question, LimitsMode) {
        let Self { action, target, context, additional_entities, explain, limits, .. } = self;
        let question = match target {
            Target::One(resource) => {
                Question::One(Request { principal, identity, action, resource, context, additional_entities, explain })
            }
            Target::Candidates { router, candidates } => Question::Candidates(
                CandidatesRequest { principal, identity, action, router, candidates, context },
                explain,
            ),
        };
        (question, limits)
    }
}

impl From<EntityUid> for Caller {
    fn from(principal: EntityUid) -> Self {
        Self::Asserted(principal)
    }
}

impl From<EntityUid> for Target {
    fn from(resource: EntityUid) -> Self {
        Self::One(resource)
    }
}

/// A call whose principal is known.
#[derive(Clone, PartialEq)]
pub(super) enum Question {
    One(Request),
    /// With whether the forbid is explained.
    Candidates(CandidatesRequest, bool),
}

impl Question {
    pub(super) fn as_ref(&self) -> QuestionRef<'_> {
        match self {
            Self::One(request) => QuestionRef::One(request),
            Self::Candidates(request, explain) => QuestionRef::Candidates(request, *explain),
        }
    }

    /// The digest that tells whether an idempotency key came with the same request before. It does not depend on the
    /// credential, which may have been renewed since.
    // INVARIANT: reservations that an earlier version stored have digests of exactly this text, so it must not change.
    pub(super) fn digest(&self, amounts: &Reserve, ttl_ms: i64) -> [u8; 32] {
        struct Anonymous<'q>(&'q Question);
        impl fmt::Debug for Anonymous<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Question::One(request) => {
                        f.debug_tuple("One").field(&Request { identity: None, ..request.clone() }).finish()
                    }
                    Question::Candidates(request, explain) => {
                        let request = CandidatesRequest { identity: None, ..request.clone() };
                        f.debug_tuple("Candidates").field(&request).field(explain).finish()
                    }
                }
            }
        }
        sha256(&(Anonymous(self), amounts, ttl_ms))
    }
}

/// The digest of a value: the same for the same request, in whatever form it was written.
pub(super) fn sha256(value: &impl fmt::Debug) -> [u8; 32] {
    Sha256::digest(format!("{value:?}")).into()
}

/// A borrowed [`Question`].
#[derive(Clone, Copy)]
pub(super) enum QuestionRef<'q> {
    One(&'q Request),
    Candidates(&'q CandidatesRequest, bool),
}

impl<'q> QuestionRef<'q> {
    /// The principal that asks.
    pub(super) fn owner(self) -> KeyOwner<'q> {
        let (principal, identity) = match self {
            Self::One(request) => (&request.principal, request.identity.as_ref()),
            Self::Candidates(request, _) => (&request.principal, request.identity.as_ref()),
        };
        KeyOwner { principal, identity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hex;

    /// Reservations that were stored before keys were scoped must still be found, so these digests must not change.
    #[test]
    fn the_digest_of_an_unscoped_key_stays() {
        let context: serde_json::Map<_, _> = [("input_tokens".to_owned(), 5.into())].into_iter().collect();
        let target: EntityUid = "Model::\"a/b\"".parse().unwrap();
        let principal: EntityUid = "User::\"alice\"".parse().unwrap();
        let call = AuthorizeCall::new(principal.clone().into(), "chat", target).with_context(context);
        let (question, _) = call.into_question(principal, None);
        let amounts = Reserve { output_tokens: Some(7), ..Reserve::default() };
        assert_eq!(
            hex::encode(&question.digest(&amounts, DEFAULT_TTL_MS)),
            "f7e35eb3dff8628e0ae1c28843baa86709268f44294b99f4aaf73f43f2b0277e"
        );
    }
}
