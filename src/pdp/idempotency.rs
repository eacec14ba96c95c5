//! Idempotency keys of reservations: the same call with the same key gets the first answer again.

use super::answer::ReplayedReservation;
use super::observe::is_within;
use super::{PdpError, Pinned};
use crate::gate::{self, ClientKey, ScopedKey};
use crate::meter::{Idempotency, State};
use crate::model::{RequestError, RequestErrorCode};

/// How long after a start keys are also looked up under the unscoped name that earlier versions used. A reservation
/// lives for an hour unless it is extended, and is remembered for a day after its end.
const UNSCOPED_KEYS_MS: i64 = 48 * 60 * 60 * 1000;

impl Pinned<'_> {
    /// The key under which a client's key is looked up. The unscoped name that earlier versions used is included only
    /// while such a key may still be stored.
    pub(super) fn known_key(&self, key: ClientKey) -> ClientKey {
        let is_recent = is_within(self.pdp.inner.started_at, self.facts.now, UNSCOPED_KEYS_MS);
        ClientKey { unscoped_digest: key.unscoped_digest.filter(|_| is_recent), ..key }
    }
}

/// The reservation that an earlier call with this key made; `None` if the call is to be decided.
pub(super) async fn replayed(
    pinned: &Pinned<'_>,
    key: &ScopedKey<'_>,
) -> Result<Option<ReplayedReservation>, PdpError> {
    let conflict = |message| {
        let error = RequestError::new(RequestErrorCode::IdempotencyConflict, "idempotency_key", message);
        Err(PdpError::Request(error))
    };
    let found = key.find(&*pinned.pdp.inner.meters, pinned.facts.now).await?;
    let Some((found, is_same)) = found.filter(|(found, _)| !found.leaves_its_key()) else { return Ok(None) };
    let has_expired = found.state == State::Expired;
    match found.idempotency {
        None => Ok(None),
        Some(_) if !is_same => conflict("this `idempotency_key` names another request"),
        Some(Idempotency { answer: Some(json), .. }) => Ok(Some(ReplayedReservation {
            id: found.id,
            resource: found.spending.resource.clone(),
            expires_at: found.due_at,
            json,
        })),
        // The process that made the reservation ended before it answered.
        Some(_) if has_expired => {
            gate::release(pinned.env(), found.id).await?;
            Ok(None)
        }
        Some(_) => conflict("a request with this `idempotency_key` is being answered; send it again in a moment"),
    }
}
