//! What an engine does about credentials: ask its providers whom they prove.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Engine;
use crate::gate::{self, Attempt, Authenticator, Failures, Presented};
use crate::model::{Identity, Refusal, RefusalReason, Timestamp};
use crate::policy::Snapshot;

impl Engine {
    /// Whom a credential proves, by the providers that the engine was built with, in their order. Waits for those that
    /// have to ask elsewhere. The identity goes into [`crate::Request::proved`].
    ///
    /// # Errors
    /// With the reason, where it proves nobody; before the first bundle it proves nobody.
    pub fn authenticate(&self, presented: &Presented) -> Result<Arc<Identity>, Refusal> {
        let snapshot = self.inner.live.load();
        self.proved(presented, snapshot.as_ref().ok_or_else(no_bundle)?, self.inner.clock.now())
    }

    /// The same by this bundle, at this instant.
    pub(super) fn proved(
        &self,
        presented: &Presented,
        snapshot: &Arc<Snapshot>,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Refusal> {
        // Whoever is recalled waits for nothing.
        match gate::recall(self.authenticators(), presented, snapshot, now) {
            Some(identity) => Ok(identity),
            None => pollster::block_on(self.authenticate_by(presented, snapshot, now)),
        }
    }

    /// The same, for who waits without a thread. The providers are asked unless they remember, or too many came from there
    /// that proved nobody.
    pub(crate) async fn authenticate_by(
        &self,
        presented: &Presented,
        snapshot: &Arc<Snapshot>,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Refusal> {
        if let Some(identity) = gate::recall(self.authenticators(), presented, snapshot, now) {
            return Ok(identity);
        }
        let Some(failures) = &self.inner.failures else {
            return gate::authenticate(self.authenticators(), presented, snapshot, now).await;
        };
        let locked = || failures.lock();
        let attempt = locked().attempt(presented);
        if let Err(wait_ms) = locked().admit(&attempt, now) {
            return Err(too_many(wait_ms));
        }
        let looked_at = LookedAt { failures, attempt };
        let proved = gate::authenticate(self.authenticators(), presented, snapshot, now).await;
        drop(looked_at);
        match &proved {
            Ok(_) => locked().proved(&attempt, now),
            Err(refusal) => locked().failed(&attempt, refusal.reason, now),
        }
        proved
    }

    /// The providers, in their order.
    #[must_use]
    pub fn authenticators(&self) -> &[Arc<dyn Authenticator>] {
        &self.inner.authenticators
    }
}

/// A credential that is being looked at; also where whoever asked has gone meanwhile.
struct LookedAt<'a> {
    failures: &'a Mutex<Failures>,
    attempt: Attempt,
}

impl Drop for LookedAt<'_> {
    fn drop(&mut self) {
        self.failures.lock().ended(&self.attempt);
    }
}

fn too_many(wait_ms: i64) -> Refusal {
    let seconds = u64::try_from(wait_ms).unwrap_or_default().div_ceil(1_000);
    let message = format!("too many credentials that prove nobody came from there; try again in {seconds} s");
    Refusal::new(RefusalReason::TooManyFailures, message).retry_after(seconds)
}

fn no_bundle() -> Refusal {
    Refusal::new(RefusalReason::ProviderUnavailable, "no bundle is active yet")
}
