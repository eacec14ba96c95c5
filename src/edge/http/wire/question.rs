//! Questions as they are checked: what [`super::authorize`] makes of what was written.

use std::sync::Arc;

use smol_str::SmolStr;

use super::spending;
use crate::gate::{ClientKey, Credential, Reserve};
use crate::model::{CandidatesRequest, EntityUid, Identity, Request, Told};

/// A question as sent to `/is_authorized`.
#[derive(Debug)]
pub(in super::super) enum Asked {
    /// Its sender says who asks.
    Named(Question),
    /// A credential says it.
    Unproved(Credential, Parts),
}

/// A question of somebody.
#[derive(Debug, Clone)]
pub(in super::super) struct Question {
    pub(in super::super) asking: Asking,
    /// What is to be held.
    pub(in super::super) wanted: Option<Wanted>,
}

#[derive(Debug, Clone)]
pub(in super::super) enum Asking {
    One(Request),
    /// With whether a hint is wanted.
    Candidates(CandidatesRequest, bool),
}

impl Asking {
    /// The principal, and the identity that a credential proved.
    pub(in super::super) fn principal(&self) -> (&EntityUid, Option<&Arc<Identity>>) {
        match self {
            Self::One(request) => (&request.principal, request.identity.as_ref()),
            Self::Candidates(request, _) => (&request.principal, request.identity.as_ref()),
        }
    }
}

/// What is to be held, for how many milliseconds, and what its client calls it.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Wanted {
    pub(in super::super) reserve: Reserve,
    pub(in super::super) ttl_ms: i64,
    pub(in super::super) key: Option<ClientKey>,
}

/// Everything of a question but who asks.
#[derive(Debug, Clone)]
pub(in super::super) struct Parts {
    pub(in super::super) action: SmolStr,
    pub(in super::super) what: What,
    pub(in super::super) context: Told,
    pub(super) explain: bool,
    pub(super) hold: Option<Holding>,
}

/// What is asked about.
#[derive(Debug, Clone)]
pub(in super::super) enum What {
    One(EntityUid),
    Candidates { router: Option<EntityUid>, candidates: Vec<EntityUid> },
}

/// A wish to hold: how much, for how many milliseconds, under which key.
#[derive(Debug, Clone)]
pub(super) struct Holding(pub(super) Reserve, pub(super) i64, pub(super) Option<SmolStr>);

impl Asked {
    pub(in super::super) fn explains(&self) -> bool {
        match self {
            Self::Unproved(_, parts) => parts.explain,
            Self::Named(question) => match &question.asking {
                Asking::One(request) => request.explain,
                Asking::Candidates(_, explain) => *explain,
            },
        }
    }

    pub(in super::super) fn holds(&self) -> bool {
        match self {
            Self::Unproved(_, parts) => parts.hold.is_some(),
            Self::Named(question) => question.wanted.is_some(),
        }
    }
}

impl Parts {
    /// The question, asked by `principal`.
    pub(super) fn asked_by(self, principal: EntityUid) -> Question {
        let Self { action, what, context, explain, hold } = self;
        let identity = None;
        let asking = match what {
            What::One(resource) => {
                Asking::One(Request::new(principal, action, resource).with_context(context).with_explain(explain))
            }
            What::Candidates { router, candidates } => Asking::Candidates(
                CandidatesRequest { principal, identity, action, router, candidates, context },
                explain,
            ),
        };
        let wanted = hold.map(|Holding(reserve, ttl_ms, key)| {
            let named = |text| {
                let digest = spending::digest(&(&asking, &reserve, ttl_ms));
                ClientKey { text, digest, unscoped_digest: Some(digest) }
            };
            Wanted { reserve, ttl_ms, key: key.map(named) }
        });
        Question { asking, wanted }
    }

    /// The question of whom a credential proved. What names it for its client does not depend on the credential, which
    /// may be another one when the same is asked again.
    pub(in super::super) fn proved(self, identity: &Arc<Identity>) -> Question {
        let mut question = self.asked_by(identity.principal.clone());
        let proved = match &mut question.asking {
            Asking::One(request) => &mut request.identity,
            Asking::Candidates(request, _) => &mut request.identity,
        };
        *proved = Some(Arc::clone(identity));
        question
    }
}

/// What becomes of a question that says nothing about `reserve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Silence {
    /// It is a check.
    Checks,
    /// It reserves what its context tells, as with `true`.
    Reserves,
}
