//! The first step of a call: the providers of identities are asked for the principal that a credential proves.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Pinned;
use crate::gate::{self, Attempt, Credential, Described, Failures, Presented, ToldOf};
use crate::model::{
    Identity, Refusal, RefusalReason, RequestError, RequestErrorCode, RequestPath, Told, request_address,
};

impl Pinned<'_> {
    /// Authenticates a credential. The providers are asked in their order, unless one of them remembers the credential,
    /// or too many credentials of the same source were refused lately.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub async fn authenticate(&self, presented: &Presented) -> Result<Arc<Identity>, Refusal> {
        let result = self.ask_providers(presented).await;
        if let (Err(refusal), Some(observer)) = (&result, &self.pdp.inner.observers.observer) {
            observer.credential_refused(refusal, presented.source);
        }
        result
    }

    async fn ask_providers(&self, presented: &Presented) -> Result<Arc<Identity>, Refusal> {
        let (snapshot, now) = (&self.snapshot, self.facts.now);
        let providers = self.pdp.authenticators();
        if let Some(identity) = gate::recall(providers, presented, snapshot, now) {
            return Ok(identity);
        }
        let Some(failures) = &self.pdp.inner.failures else {
            return Box::pin(gate::authenticate(providers, presented, snapshot, now)).await;
        };
        let locked = || failures.lock();
        let attempt = locked().attempt(presented);
        if let Err(wait_ms) = locked().admit(&attempt, now) {
            return Err(too_many_failures(wait_ms));
        }
        let pending = PendingAttempt { failures, attempt };
        let result = Box::pin(gate::authenticate(providers, presented, snapshot, now)).await;
        drop(pending);
        match &result {
            Ok(_) => locked().proved(&attempt, now),
            Err(refusal) => locked().failed(&attempt, refusal.reason, now),
        }
        result
    }

    /// The teams, orgs, roles and tags of an identity; `None` if the principal is disabled or no longer exists.
    #[must_use]
    pub fn attributes(&self, identity: &Arc<Identity>) -> Option<ToldOf> {
        gate::told_of(&self.snapshot, identity, self.facts.now)
    }

    /// Whether a credential is restricted to less than its owner may do.
    #[must_use]
    pub fn is_restricted(&self, identity: &Identity) -> bool {
        gate::is_narrowed(&self.snapshot, identity)
    }

    /// A forwarded credential, with the address, method and path that the context of its call has.
    ///
    /// # Errors
    /// Refuses an invalid address or path, since failures are counted by source. An action that the bundle defines has
    /// its own context, whose members of these names may mean something else; there, invalid ones are ignored.
    pub(super) fn presented(
        &self,
        credential: Credential,
        action: &str,
        context: &Told,
    ) -> Result<Presented, RequestError> {
        let schema = &self.snapshot.schema;
        let action = schema.action(action).and_then(|index| schema.action_at(index));
        let has_own_context = action.is_some_and(|action| !action.tollgate_context);
        let text = |name: &str| {
            let member = context.members().iter().find(|(known, _)| known == name);
            member.and_then(|(_, member)| member.as_text()).cloned()
        };
        // The address of the gateway itself is not where the credential came from.
        let source = text("ip").map(|text| {
            let message = "`context.ip` must be an IP address such as \"10.1.2.3\", and no range";
            request_address(&text).ok_or_else(|| invalid_context("context.ip", message.to_owned()))
        });
        let path = text("path").map(|text| {
            let wrong = |error| invalid_context("context.path", format!("`context.path` is invalid: {error}"));
            RequestPath::parse(&text).map(RequestPath::into_text).map_err(wrong)
        });
        let (source, path) = match (source.transpose(), path.transpose()) {
            (source, path) if has_own_context => (source.ok().flatten(), path.ok().flatten()),
            (source, path) => (source?, path?),
        };
        let (method, path) = (text("method").unwrap_or_default(), path.unwrap_or_default());
        Ok(Presented { credential, source, request: Described { method, path, ..Described::default() } })
    }
}

/// An attempt that is being checked. It ends also if its caller stops waiting.
struct PendingAttempt<'a> {
    failures: &'a Mutex<Failures>,
    attempt: Attempt,
}

impl Drop for PendingAttempt<'_> {
    fn drop(&mut self) {
        self.failures.lock().ended(&self.attempt);
    }
}

fn invalid_context(param: &str, message: String) -> RequestError {
    RequestError::new(RequestErrorCode::InvalidContext, param, message)
}

fn too_many_failures(wait_ms: i64) -> Refusal {
    let seconds = u64::try_from(wait_ms).unwrap_or_default().div_ceil(1_000);
    let message = format!("too many credentials that prove nobody came from there; try again in {seconds} s");
    Refusal::new(RefusalReason::TooManyFailures, message).retry_after(seconds)
}
