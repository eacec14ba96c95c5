//! Charges a permit at once, for gateways that do not report usage: one request, and the estimate of its tokens and money.

use smol_str::SmolStr;

use super::authorize::{Asking, Authorized, Holding, Item, Wish, World};
use super::decide::Prepared;
use super::gather::Applying;
use super::refuse::forbid;
use super::spend::Reserve;
use crate::meter::{Alert, DEFAULT_TTL_MS, ReservationId, Usage};
use crate::model::{Amount, Decision, DecisionCode, Request, RequestError, Unit};

/// About how many bytes of a body are one token.
const BYTES_PER_TOKEN: u64 = 4;

/// How a permitted request is counted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charging {
    /// Under which name it is held until it is charged.
    pub id: ReservationId,
    /// How long the body of the request is, where that is known: a token is about four bytes.
    pub body_bytes: Option<u64>,
}

/// Decides one request by rules and limits, and counts one request and its estimated usage at once, on every limit that
/// applies or on none. It takes no place of a concurrency limit, and lists such limits in `not_held`; a full one
/// refuses the request, like a check.
///
/// # Errors
/// Returns the errors of [`super::authorize`] with a wish.
pub async fn authorize_and_charge(
    world: World<'_>,
    request: &Request,
    charging: &Charging,
) -> Result<Authorized<Decision>, RequestError> {
    let prepared = Prepared::check(world.snapshot, request)?;
    let mut alerts = Vec::new();
    let mut item = Item::resolve(world.ground(), &prepared, &request.resource, Asking { router: None, wish: None });
    item.look(world, false).await;
    let verdict = prepared.case(item.facts(world.facts)).judge(&request.resource);
    let mut decision = prepared.decision(verdict, &request.resource);
    decision.hint = prepared.hint(item.facts(world.facts), &decision, request);
    item.check(world.ground(), None, &mut decision);
    let seen = item.seen(world, &request.resource).into_iter().collect();
    let is_counted = |one: &Applying<'_>| one.limit.limit.unit() != Unit::Places;
    let places = item.applying.iter().filter(|one| !is_counted(one)).map(|one| one.limit.limit.id.clone());
    let mut places: Vec<SmolStr> = places.collect();
    places.dedup();
    item.applying.retain(is_counted);
    if decision.is_permit() && !item.applying.is_empty() {
        item.charge(world, charging, &mut decision, &mut alerts).await?;
    }
    decision.not_held = if decision.is_permit() { places } else { Vec::new() };
    Ok(Authorized { decision, alerts, seen })
}

impl<'a> Item<'a> {
    /// Holds the estimate and settles it at once, or turns the permit into a forbid.
    ///
    /// If the process ends or the store fails between the two, the hold is charged in full when it expires, so that no
    /// permit goes uncharged.
    async fn charge(
        &self,
        world: World<'a>,
        charging: &Charging,
        decision: &mut Decision,
        alerts: &mut Vec<Alert>,
    ) -> Result<(), RequestError> {
        let (input, _) = self.prepared.context().tokens();
        let input_tokens = input.or_else(|| charging.body_bytes.map(|bytes| bytes.div_ceil(BYTES_PER_TOKEN)));
        let reserve = Reserve { input_tokens, ..Reserve::default() };
        let reserve = self.estimates(world.ground(), &reserve).largest(&reserve);
        let wish = Wish { reserve, ttl_ms: DEFAULT_TTL_MS, id: charging.id, idempotency: None };
        self.hold(world, Holding { wish: &wish, permitted: Vec::new(), lasts: false }, decision, alerts).await?;
        if decision.reservation.take().is_none() {
            return Ok(());
        }
        let estimates = self.estimates(world.ground(), &reserve);
        let charges = estimates.charges(&self.applying).unwrap_or_default();
        let money = charges.iter().filter(|charge| charge.limit.unit() == Unit::Usd).map(|charge| charge.amount).max();
        // A request that costs nothing is settled with a cost of zero.
        let usd = money.or_else(|| (!self.free.is_empty()).then_some(Amount::ZERO));
        let usage = Usage { usd, ..estimates.usage() };
        // After a failure the hold keeps its amounts until it expires, and is then charged.
        let is_settled = world.meters.settle(charging.id, usage, world.facts.now).await.is_ok();
        if !is_settled && self.forbids_without_store() {
            forbid(decision, DecisionCode::StoreUnavailable);
        }
        Ok(())
    }
}
