//! What an engine does about credentials: ask its providers whom they prove.

use std::sync::Arc;

use super::Engine;
use crate::gate::{self, Authenticator, Presented};
use crate::model::{Identity, Refusal, RefusalReason};
use crate::policy::Snapshot;

impl Engine {
    /// Whom a credential proves, by the providers that the engine was built with, in their order. Waits for those that
    /// have to ask elsewhere. The identity goes into [`crate::Request::proved`].
    ///
    /// # Errors
    /// With the reason, where it proves nobody; before the first bundle it proves nobody.
    pub fn authenticate(&self, presented: &Presented) -> Result<Arc<Identity>, Refusal> {
        let snapshot = self.snapshot().ok_or_else(no_bundle)?;
        pollster::block_on(self.authenticate_by(presented, &snapshot))
    }

    /// The same by this bundle, for who waits without a thread.
    pub(crate) async fn authenticate_by(
        &self,
        presented: &Presented,
        snapshot: &Arc<Snapshot>,
    ) -> Result<Arc<Identity>, Refusal> {
        gate::authenticate(self.authenticators(), presented, snapshot, self.inner.clock.now()).await
    }

    /// The providers, in their order.
    #[must_use]
    pub fn authenticators(&self) -> &[Arc<dyn Authenticator>] {
        &self.inner.authenticators
    }
}

fn no_bundle() -> Refusal {
    Refusal::new(RefusalReason::ProviderUnavailable, "no bundle is active yet")
}
