//! The way of a request through rules and limits: gather, decide, hold. Rules first; what they permit, limits may refuse.
//!
//! A check reads meters and moves none. With a wish to reserve, every limit that applies is held at once or none is, and
//! a race that is lost turns the permit into a forbid.

use std::sync::Arc;

use smol_str::SmolStr;

use super::candidates::{Candidates, CandidatesDecision};
use super::decide::{Prepared, Resolved};
use super::explain::Explanation;
use super::gather::{Applying, applicable, can_charge, own_applicable};
use super::ports::{HoldError, Look, Meters, Seen, StoreError};
use super::refuse::{forbid, refuse};
use super::spend::{Estimates, NoAmount, Reserve, charge};
use crate::meter::{
    Alert, Charge, Hold, Lack, Limit, Measure, Mode, OnExpiry, OnStoreError, ReservationId, Shortfall, Spending,
    Standing, Unpriced,
};
use crate::model::{
    Amount, Budget, CandidatesRequest, Decision, DecisionCode, EntityUid, Facts, LimitFacts, LimitStanding, Rate,
    Request, RequestError, RequestErrorCode, Reserved, Shortage, Unit,
};
use crate::policy::Snapshot;
use crate::policy::entities::Subject;

/// What a request is decided by: one bundle, at one instant, with these meters.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The bundle.
    pub snapshot: &'a Snapshot,
    /// The meters.
    pub meters: &'a dyn Meters,
    /// What is known besides, the instant first of all.
    pub facts: &'a Facts,
    /// How many reservations a principal may have open.
    pub most_open: usize,
}

impl<'a> World<'a> {
    pub(super) const fn ground(&self) -> Ground<'a> {
        Ground { snapshot: self.snapshot, facts: self.facts }
    }
}

/// A world without its meters: their state was already read into the facts.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) facts: &'a Facts,
}

/// That a request wants to hold what it will use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// How much.
    pub reserve: Reserve,
    /// For how long, in milliseconds.
    pub ttl_ms: i64,
    /// Under which name.
    pub id: ReservationId,
    /// The key that its client chose, with the digest of its request.
    pub idempotency: Option<(SmolStr, [u8; 32])>,
}

/// A decision, with the percents of limits that it crossed.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorized<D> {
    /// The decision.
    pub decision: D,
    /// What is to be told to those who watch over limits.
    pub alerts: Vec<Alert>,
    /// The standings of limits that conditions saw, by resource; for the decision log.
    pub seen: Vec<Seen>,
}

/// Decides one request by rules and limits, and holds what it wishes.
///
/// # Errors
/// As [`super::decide`]; and where a limit needs an amount that nobody gave.
pub async fn authorize(
    world: World<'_>,
    request: &Request,
    wish: Option<&Wish>,
) -> Result<Authorized<Decision>, RequestError> {
    let prepared = Prepared::check(world.snapshot, request)?;
    let mut alerts = Vec::new();
    let mut item = Item::resolve(world.ground(), &prepared, &request.resource, Asking { router: None, wish });
    item.look(world, wish.is_some()).await;
    let verdict = prepared.case(item.facts(world.facts)).judge(&request.resource);
    let mut decision = prepared.decision(verdict, &request.resource);
    decision.hint = prepared.hint(item.facts(world.facts), &decision, request);
    item.check(world.ground(), wish, &mut decision);
    if let Some(wish) = wish.filter(|_| decision.is_permit()) {
        item.hold(world, Holding { wish, permitted: Vec::new(), lasts: true }, &mut decision, &mut alerts).await?;
    }
    let seen = item.seen(world, &request.resource).into_iter().collect();
    Ok(Authorized { decision, alerts, seen })
}

/// Decides one request by rules and limits with their current usage, and explains the result of each rule.
///
/// # Errors
/// Returns the errors of [`super::decide`].
pub async fn explain(world: World<'_>, request: &Request) -> Result<(Decision, Explanation), RequestError> {
    let prepared = Prepared::check(world.snapshot, request)?;
    let mut item = Item::resolve(world.ground(), &prepared, &request.resource, Asking { router: None, wish: None });
    item.read(world).await;
    Ok(item.explained(world.ground(), request))
}

/// Decides about each candidate by rules and limits; holds what is wished for on the first that both have room for.
///
/// # Errors
/// As [`super::decide_candidates`]; and where a limit needs an amount that nobody gave.
pub async fn authorize_candidates(
    world: World<'_>,
    request: &CandidatesRequest,
    wish: Option<&Wish>,
) -> Result<Authorized<CandidatesDecision>, RequestError> {
    let candidates = Candidates::check(world.snapshot, request)?;
    let prepared = candidates.prepared();
    let mut seen = Vec::new();
    let router = match &request.router {
        Some(uid) => {
            let mut item = Item::resolve(world.ground(), prepared, uid, Asking { router: None, wish });
            item.look_if_read(world).await;
            seen.extend(item.seen(world, uid));
            Some((uid, prepared.case(item.facts(world.facts)).judge(uid), item.resolved))
        }
        None => None,
    };
    let through = router.as_ref().and_then(|(_, _, resolved)| resolved.as_subject());
    let mut decisions = Vec::with_capacity(request.candidates.len());
    let mut items = Vec::with_capacity(request.candidates.len());
    for uid in &request.candidates {
        let mut item = Item::resolve(world.ground(), prepared, uid, Asking { router: through, wish });
        item.look(world, wish.is_some()).await;
        let verdict = candidates.judge(item.facts(world.facts), uid, router.as_ref().map(|(_, verdict, _)| verdict));
        let mut decision = prepared.decision(verdict, uid);
        item.check(world.ground(), wish, &mut decision);
        seen.extend(item.seen(world, uid));
        items.push(item);
        decisions.push(decision);
    }
    let mut alerts = Vec::new();
    if let Some(wish) = wish {
        let permitted: Vec<EntityUid> = decisions
            .iter()
            .filter(|decision| decision.is_permit())
            .map(|decision| decision.resource.clone())
            .collect();
        for (item, decision) in items.iter().zip(&mut decisions).filter(|(_, decision)| decision.is_permit()) {
            let holding = Holding { wish, permitted: permitted.clone(), lasts: true };
            item.hold(world, holding, decision, &mut alerts).await?;
            if decision.is_permit() {
                break;
            }
        }
    }
    let router = router.map(|(uid, verdict, _)| prepared.decision(verdict, uid));
    Ok(Authorized { decision: candidates.decision(router, decisions), alerts, seen })
}

/// The router through which a resource is requested, and the amounts to be held.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) router: Option<&'a Subject>,
    pub(super) wish: Option<&'a Wish>,
}

/// A hold to make.
pub(super) struct Holding<'w> {
    pub(super) wish: &'w Wish,
    /// Further resources that the caller may settle it for.
    pub(super) permitted: Vec<EntityUid>,
    /// Whether it stays open until the caller settles it; otherwise it is settled at once.
    pub(super) lasts: bool,
}

/// One resource of a request, with the limits that apply to it.
pub(super) struct Item<'a> {
    pub(super) prepared: &'a Prepared<'a>,
    resolved: Resolved,
    pub(super) applying: Vec<Applying<'a>>,
    /// Limits of money that the request cannot charge, since it costs nothing. They refuse nothing, and nothing is held
    /// on them. A caller that states a cost when it settles is charged.
    pub(super) free: Vec<Applying<'a>>,
    /// Where each meter stands, once somebody looked.
    looks: Option<Result<Vec<Look>, StoreError>>,
    facts: Option<Facts>,
}

impl<'a> Item<'a> {
    pub(super) fn resolve(ground: Ground<'a>, prepared: &'a Prepared<'a>, uid: &EntityUid, asking: Asking<'_>) -> Self {
        let Asking { router, wish } = asking;
        let case = prepared.case(ground.facts);
        let (resolved, refusal) = case.resolve(uid);
        let applying = match (&resolved, refusal) {
            (Resolved::Subject(subject), None) => {
                let question = case.question(subject);
                let mut applying = applicable(ground.snapshot, &question, router);
                applying.extend(own_applicable(prepared.own_limits(), &question, router));
                applying
            }
            _ => Vec::new(),
        };
        let states_cost = wish.is_some_and(|wish| wish.reserve.usd.is_some_and(|usd| !usd.is_zero()));
        let charges = |one: &Applying<'_>| {
            let resource = resolved.as_subject();
            states_cost || resource.is_none_or(|resource| can_charge(ground.snapshot, resource, &one.limit.limit))
        };
        let (applying, free) = applying.into_iter().partition(charges);
        Self { prepared, resolved, applying, free, looks: None, facts: None }
    }

    /// Reads the meters: before deciding where conditions see them; else only where nothing is to be held, as holding
    /// tells where they stand.
    pub(super) async fn look(&mut self, world: World<'_>, holds: bool) {
        if holds {
            self.look_if_read(world).await;
        } else {
            self.read(world).await;
        }
    }

    async fn look_if_read(&mut self, world: World<'_>) {
        if world.snapshot.reads_meters() {
            self.read(world).await;
        }
    }

    async fn read(&mut self, world: World<'_>) {
        if self.applying.is_empty() {
            return;
        }
        // The least there can be of anything: what has no room for it is exhausted.
        let charges: Vec<Charge> = self.applying.iter().map(|one| charge(one, Amount::ONE)).collect();
        let looks = world.meters.look(&charges, world.facts.now).await;
        if let (Ok(looks), true) = (&looks, world.snapshot.reads_meters()) {
            self.facts = Some(known(world.facts, &self.applying, looks));
        }
        self.looks = Some(looks);
    }

    pub(super) fn facts<'b>(&'b self, otherwise: &'b Facts) -> &'b Facts {
        self.facts.as_ref().unwrap_or(otherwise)
    }

    /// The limits that apply.
    pub(super) fn applying(&self) -> &[Applying<'a>] {
        &self.applying
    }

    /// Adds the state of the meters of the limits that apply, and the facts that conditions see.
    pub(super) fn know(&mut self, looks: Vec<Look>, facts: Facts) {
        (self.looks, self.facts) = (Some(Ok(looks)), Some(facts));
    }

    /// The decision of a check, and the result of each rule.
    pub(super) fn explained(&self, ground: Ground<'_>, request: &Request) -> (Decision, Explanation) {
        let case = self.prepared.case(self.facts(ground.facts));
        let mut decision = self.prepared.decision(case.judge(&request.resource), &request.resource);
        decision.hint = self.prepared.hint(self.facts(ground.facts), &decision, request);
        self.check(ground, None, &mut decision);
        let explanation = case.explanation(&request.resource, &decision);
        (decision, explanation)
    }

    /// The standings that conditions saw, where the bundle has conditions that read any.
    pub(super) fn seen(&self, world: World<'_>, resource: &EntityUid) -> Option<Seen> {
        if !world.snapshot.reads_meters() {
            return None;
        }
        let standings = |looks: &Vec<Look>| self.standings(looks.iter().map(|look| (look.standing, None)));
        let limits = self.looks.as_ref()?.as_ref().ok().map(standings);
        Some(Seen { resource: resource.clone(), limits })
    }

    /// Refuses what rules permit and an exhausted limit does not, and tells where limits stand.
    pub(super) fn check(&self, ground: Ground<'_>, wish: Option<&Wish>, decision: &mut Decision) {
        if !decision.is_permit() {
            return;
        }
        match &self.looks {
            Some(Ok(looks)) => {
                let shortage = |lack: Lack| Shortage { needed: None, never_fits: false, retry_at: lack.retry_at };
                let told = looks.iter().map(|look| (look.standing, look.lack.map(shortage)));
                decision.limits = self.standings(told);
                let lacks = looks.iter().map(|look| look.lack);
                let short = self.applying.iter().zip(lacks).filter_map(|(one, lack)| Some((one, lack?.retry_at)));
                refuse(decision, ground.facts.now, short);
            }
            Some(Err(_)) if self.forbids_without_store() => forbid(decision, DecisionCode::StoreUnavailable),
            _ => {}
        }
        let reserve = wish.map(|wish| wish.reserve).unwrap_or_default();
        if self.needs_price() && !self.estimates(ground, &reserve).has_price() {
            forbid(decision, DecisionCode::PriceUnknown);
        }
        decision.not_held = self.applying.iter().map(|one| one.limit.limit.id.clone()).collect();
        decision.not_held.dedup();
        if !decision.is_permit() {
            decision.not_held.clear();
        }
    }

    /// Whether a limit counts money and forbids resources without a price.
    fn needs_price(&self) -> bool {
        let counts = |one: &Applying<'_>| {
            let limit = &one.limit.limit;
            limit.unit() == Unit::Usd && limit.is_enforced() && limit.unpriced == Unpriced::Forbid
        };
        self.applying.iter().any(counts)
    }

    pub(super) fn forbids_without_store(&self) -> bool {
        let limits = self.applying.iter().map(|one| &one.limit.limit);
        limits.filter(|limit| limit.is_enforced()).any(|limit| limit.on_store_error == OnStoreError::Forbid)
    }

    fn standings(&self, standings: impl Iterator<Item = (Standing, Option<Shortage>)>) -> Vec<LimitStanding> {
        let told = |(one, (standing, shortage)): (&Applying<'_>, (Standing, Option<Shortage>))| LimitStanding {
            id: one.limit.limit.id.clone(),
            meter: one.subject.clone(),
            unit: one.limit.limit.unit(),
            limit: standing.cap,
            used: standing.used,
            held: standing.held,
            resets_at: standing.resets_at,
            shortage,
        };
        self.applying.iter().zip(standings).map(told).collect()
    }

    /// Holds what is wished for, or turns the permit into a forbid.
    pub(super) async fn hold(
        &self,
        world: World<'a>,
        Holding { wish, permitted, lasts }: Holding<'_>,
        decision: &mut Decision,
        alerts: &mut Vec<Alert>,
    ) -> Result<(), RequestError> {
        decision.not_held.clear();
        let estimates = self.estimates(world.ground(), &wish.reserve);
        let mut charges = match estimates.charges(&self.applying) {
            Ok(charges) => charges,
            Err(NoAmount::NotSaid(error)) => return Err(error),
            Err(NoAmount::PriceUnknown) => {
                forbid(decision, DecisionCode::PriceUnknown);
                return Ok(());
            }
        };
        charges.extend(self.free.iter().map(unrefusing));
        if !lasts {
            charges.iter_mut().for_each(charge_at_its_end);
        }
        let spending = Spending {
            principal: decision.principal.clone(),
            resource: decision.resource.clone(),
            permitted: permitted.into(),
            price: estimates.settling_price(&charges),
            if_unknown: estimates.if_unknown(&charges),
        };
        let needed: Vec<Amount> = charges.iter().map(|charge| charge.amount).collect();
        let (ttl_ms, idempotency) = (wish.ttl_ms, wish.idempotency.clone());
        // A hold that is settled at once does not count against the open reservations of its principal. Stores still need a
        // bound, because they decrement their counter when it is settled.
        let most_open = Some(if lasts { world.most_open } else { usize::MAX });
        let hold = Hold { id: wish.id, spending: Arc::new(spending), charges, ttl_ms, idempotency, most_open };
        match world.meters.hold(hold, world.facts.now).await {
            Ok(held) => {
                decision.limits = self.standings(held.standings.into_iter().map(|standing| (standing, None)));
                let id = wish.id.to_text();
                decision.reservation = Some(Reserved { id, expires_at: held.expires_at });
                alerts.extend(held.alerts);
            }
            Err(HoldError::Refused(refused)) => {
                let short = |index| refused.shortfalls.iter().find(|short| short.charge == index);
                let shortfalls = Shortfalls { short: &refused.shortfalls, needed: &needed };
                self.tell_refused(world, &shortfalls, decision).await;
                let applying = self.applying.iter().enumerate();
                let lacks = applying.filter_map(|(index, one)| Some((one, short(index)?.lack.retry_at)));
                refuse(decision, world.facts.now, lacks);
                alerts.extend(refused.alerts);
            }
            Err(HoldError::TooManyOpen) => {
                forbid(decision, DecisionCode::ConcurrencyExceeded);
                decision.most_open = Some(world.most_open);
                decision.retry_after_seconds = Some(1);
            }
            Err(HoldError::KeyTaken) => {
                let message = "a request with this `idempotency_key` is being answered; send it again in a moment";
                return Err(RequestError::new(RequestErrorCode::IdempotencyConflict, "idempotency_key", message));
            }
            Err(HoldError::Store(_)) => forbid(decision, DecisionCode::StoreUnavailable),
        }
        Ok(())
    }

    /// Where the limits that have no room stand.
    async fn tell_refused(&self, world: World<'_>, refusal: &Shortfalls<'_>, decision: &mut Decision) {
        let Shortfalls { short, needed } = refusal;
        let charges: Vec<Charge> = self.applying.iter().map(|one| charge(one, Amount::ONE)).collect();
        let shortage = |index: usize, standing: Standing| {
            let short = short.iter().find(|one| one.charge == index)?;
            let needed = needed.get(index).copied().filter(|needed| !needed.is_zero());
            let most = self.applying.get(index)?.limit.limit.most_ever().max(standing.cap);
            let never_fits = short.lack.retry_at.is_none() && needed.is_some_and(|needed| needed > most);
            Some(Shortage { needed, never_fits, retry_at: short.lack.retry_at })
        };
        if let Ok(looks) = world.meters.look(&charges, world.facts.now).await {
            let looks = looks.iter().enumerate();
            let standings = looks.map(|(index, look)| (look.standing, shortage(index, look.standing)));
            decision.limits = self.standings(standings);
        }
    }

    pub(super) fn estimates<'b>(&self, ground: Ground<'b>, reserve: &Reserve) -> Estimates<'b> {
        Estimates::of(ground.snapshot, self.resolved.as_subject(), reserve, self.prepared.context().tokens())
    }
}

/// The limits that have no room for a hold, and the amount that each limit was to hold.
struct Shortfalls<'a> {
    short: &'a [Shortfall],
    needed: &'a [Amount],
}

/// Nothing on the meter of a limit that does not refuse it.
fn unrefusing(applying: &Applying<'_>) -> Charge {
    let limit = Limit { mode: Mode::Warn, ..(*applying.limit.limit).clone() };
    Charge { limit: Arc::new(limit), ..charge(applying, Amount::ZERO) }
}

/// A permit that is charged at once is never released: if its settle is lost, expiry charges it.
fn charge_at_its_end(charge: &mut Charge) {
    if charge.limit.on_expiry != OnExpiry::Charge {
        charge.limit = Arc::new(Limit { on_expiry: OnExpiry::Charge, ..(*charge.limit).clone() });
    }
}

/// What conditions see of the limits that apply: of each the fullest of its meters, of all the fullest of each kind.
pub(super) fn known(facts: &Facts, applying: &[Applying<'_>], looks: &[Look]) -> Facts {
    let mut limits: Vec<(SmolStr, LimitFacts)> = Vec::with_capacity(applying.len());
    let (mut budget, mut rate) = (Budget::default(), Rate::default());
    for (one, look) in applying.iter().zip(looks) {
        let (limit, standing) = (&one.limit.limit, &look.standing);
        let seen = LimitFacts::of(limit.unit(), standing.cap, standing.used, standing.held);
        match (&limit.measure, limit.unit()) {
            _ if !limit.is_enforced() => {}
            (Measure::Budget { .. }, Unit::Usd) => {
                budget.used_percent = budget.used_percent.max(seen.used_percent);
                budget.remaining_micros = budget.remaining_micros.min(seen.remaining);
            }
            (Measure::Rate { .. }, Unit::Requests) => {
                rate.remaining_requests = rate.remaining_requests.min(seen.remaining);
            }
            (Measure::Rate { .. }, _) => rate.remaining_tokens = rate.remaining_tokens.min(seen.remaining),
            _ => {}
        }
        match limits.iter_mut().find(|(id, _)| *id == limit.id) {
            Some((_, before)) if before.used_percent < seen.used_percent => *before = seen,
            Some(_) => {}
            None => limits.push((limit.id.clone(), seen)),
        }
    }
    Facts { budget, rate, limits: limits.into(), ..facts.clone() }
}
