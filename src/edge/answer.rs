//! The HTTP side of answers: the status of a decision for callers that read only the status, `Retry-After`, and the
//! challenges of `WWW-Authenticate`. Shared by the server and the tower layer.

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderValue;

use crate::gate::{Authenticator, Credential};
use crate::model::{DecisionCode, Refusal, RefusalReason, Timestamp, UNAVAILABLE_RETRY_SECONDS};

/// The status of a decision, for callers that read only the status. `budgets` is the status of an exhausted budget.
pub(crate) fn status_of(code: DecisionCode, budgets: StatusCode) -> StatusCode {
    match code {
        DecisionCode::Permitted => StatusCode::OK,
        DecisionCode::Unauthenticated | DecisionCode::CredentialRevoked | DecisionCode::CredentialExpired => {
            StatusCode::UNAUTHORIZED
        }
        DecisionCode::ProviderUnavailable | DecisionCode::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        DecisionCode::RateLimited | DecisionCode::ConcurrencyExceeded => StatusCode::TOO_MANY_REQUESTS,
        DecisionCode::BudgetExceeded => budgets,
        _ => StatusCode::FORBIDDEN,
    }
}

/// The value of `Retry-After` for a status: that of the answer, or a default for a status that always carries one.
pub(crate) fn retry_after_of(status: StatusCode, said: Option<u64>) -> Option<u64> {
    let promises = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    said.or_else(|| promises.then_some(UNAVAILABLE_RETRY_SECONDS))
}

/// Whether the digest was right except for an expired nonce: the sender is to try again with a new one.
pub(crate) fn is_stale(refusal: &Refusal, credential: &Credential) -> bool {
    refusal.reason == RefusalReason::Expired && matches!(credential, Credential::Digest { .. })
}

/// The values of `WWW-Authenticate` for an unauthenticated caller, a header each: bearer tokens, and the other schemes
/// that the providers accept.
pub(crate) fn challenges(providers: &[Arc<dyn Authenticator>], stale: bool, now: Timestamp) -> Vec<HeaderValue> {
    let mut challenges = vec![HeaderValue::from_static("Bearer realm=\"tollgate\"")];
    for challenge in providers.iter().filter_map(|provider| provider.challenge(now)) {
        let stale = stale && challenge.starts_with("Digest ");
        let challenge = if stale { challenge + ", stale=true" } else { challenge };
        challenges.extend(HeaderValue::from_str(&challenge).ok());
    }
    challenges
}
