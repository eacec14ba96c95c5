//! After the call: what was used is charged, what was not is given back, and spending that nobody held is noted.

use std::sync::Arc;

use super::authorize::World;
use super::decide::{Prepared, Resolved};
use super::gather::{Applying, applicable, can_charge};
use super::idempotency::{ClientKey, KeyOwner, KeyUse};
use super::ports::{CloseError, StoreError};
use super::spend::{Estimates, NoAmount};
use super::usage::{ReportedUsage, Stated};
use crate::meter::{
    Alert, Charge, Closed, DEFAULT_TTL_MS, Hold, LedgerError, Part, Price, PriceError, Reservation, ReservationId,
    Spending, State, Usage,
};
use crate::model::{Amount, EntityUid, Kind, Request, RequestError, RequestErrorCode, Unit};
use crate::policy::Snapshot;
use crate::policy::entities::Subject;
use crate::policy::snapshot::ResourceName;

/// Why spending could not be noted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettleError {
    /// What was told does not do.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No reservation of this name, or it is long over.
    #[error("no reservation of this name is known; one is known for a day after its end")]
    Unknown,
    /// It was closed otherwise before.
    #[error("{0}")]
    Conflict(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Charges what a reservation used. `resource` is which of what was permitted it turned out to be.
///
/// # Errors
/// Returns an error if the reservation is unknown or closed otherwise, or if its usage or cost is unknown.
pub async fn settle(
    world: World<'_>,
    id: ReservationId,
    stated: impl Into<Stated>,
    resource: Option<&EntityUid>,
) -> Result<Closed, SettleError> {
    let found = world.meters.reservation(id, world.facts.now).await?.ok_or(SettleError::Unknown)?;
    let mut closed = match stated.into() {
        Stated::Used(reported) => {
            let usage = settled(world, &found, &reported, resource)?;
            world.meters.settle(id, usage, world.facts.now).await.map_err(closing)?
        }
        Stated::Unknown => {
            let charged = found.charged_if_unknown();
            world.meters.settle_unknown(id, &charged, world.facts.now).await.map_err(closing)?
        }
    };
    closed.alerts.extend(crossed(world, &found, &closed.reservation).await);
    Ok(closed)
}

/// The charges of a reservation, if they can be determined.
fn settled(
    world: World<'_>,
    found: &Reservation,
    reported: &ReportedUsage,
    resource: Option<&EntityUid>,
) -> Result<Usage, SettleError> {
    let mut usage = reported.usage();
    match found.state {
        // The price may have changed since, so the earlier charge counts as the cost of the same usage.
        State::Settled(before) if reported.usd.is_none() && same_but_money(&before, &usage) => usage.usd = before.usd,
        _ => {
            let price = settling_price(world.snapshot, found, resource)?;
            // For a closed reservation, the error is that it is closed, whatever other problems the report has.
            if matches!(found.state, State::Open | State::Expired) {
                reported.check(found.parts.iter().map(|part| part.unit), price.as_deref())?;
            }
            if usage.usd.is_none() {
                usage.usd = price.map(|price| price.cost(&usage)).transpose().map_err(absurd)?;
            }
        }
    }
    let counts_money = found.parts.iter().any(|part| part.unit == Unit::Usd);
    if counts_money && usage.usd.is_none() {
        let held_for = Kind::named(found.spending.resource.kind());
        if let (None, Some((held_for, members))) = (resource, held_for.and_then(|kind| Some((kind, kind.leads_to()?))))
        {
            let message = format!(
                "what it cost is not known: it was held for a {}; say in `resource` which of its {}s it was, or what it cost \
                 in `usage.usd`",
                held_for.noun(),
                members.noun()
            );
            return Err(RequestError::new(RequestErrorCode::AmountNeeded, "resource", message).into());
        }
        let message = "what it cost is not known: the model has no price, so `usage.usd` has to say it";
        return Err(RequestError::new(RequestErrorCode::AmountNeeded, "usage.usd", message).into());
    }
    Ok(usage)
}

/// The percents that a call crossed by using more than what counted of it before. Where the store fails now, the next hold
/// tells them.
async fn crossed(world: World<'_>, before: &Reservation, after: &Reservation) -> Vec<Alert> {
    let charge = |(before_part, part): (&Part, &Part)| {
        let counted = if before.state == State::Open { before_part.held } else { before_part.charged };
        let limit = &world.snapshot.limits().get(&part.limit)?.limit;
        let tells = !limit.warn_at.is_empty() && limit.series == part.meter.series;
        let (limit, subject) = (Arc::clone(limit), part.meter.subject.clone());
        (tells && part.charged > counted).then_some(Charge { limit, subject, amount: Amount::ZERO })
    };
    let charges: Vec<Charge> = before.parts.iter().zip(&after.parts).filter_map(charge).collect();
    if charges.is_empty() {
        return Vec::new();
    }
    world.meters.warn(&charges, world.facts.now).await.unwrap_or_default()
}

/// Gives back what a reservation held.
///
/// # Errors
/// Where it is unknown, or was settled.
pub async fn release(world: World<'_>, id: ReservationId) -> Result<Closed, SettleError> {
    world.meters.release(id, world.facts.now).await.map_err(closing)
}

/// Lets a reservation live until `ttl_ms` from now.
///
/// # Errors
/// Where it is unknown, or over.
pub async fn extend(world: World<'_>, id: ReservationId, ttl_ms: i64) -> Result<crate::model::Timestamp, SettleError> {
    world.meters.extend(id, ttl_ms, world.facts.now).await.map_err(closing)
}

/// Spending that nobody held.
#[derive(Debug, Clone, PartialEq)]
pub struct Spent {
    /// Who, what and in which circumstances, as when asking.
    pub request: Request,
    /// What was used.
    pub usage: ReportedUsage,
    /// The key that its client chose.
    pub key: ClientKey,
}

/// Charges spending that nobody held: in full, whatever rules and limits say, since it happened.
///
/// # Errors
/// Where what was told does not do, or the key names something else.
pub async fn record(world: World<'_>, id: ReservationId, spent: &Spent) -> Result<Closed, SettleError> {
    let owner = KeyOwner { principal: &spent.request.principal, identity: spent.request.identity.as_ref() };
    let key = spent.key.scoped(KeyUse::Usage, world.snapshot, owner);
    if let Some((found, is_same)) = key.find(world.meters, world.facts.now).await? {
        return if is_same { Ok(Closed { reservation: found, alerts: Vec::new() }) } else { Err(key_taken()) };
    }
    let prepared = Prepared::check(world.snapshot, &spent.request)?;
    let case = prepared.case(world.facts);
    let (resolved, _) = case.resolve(&spent.request.resource);
    let Resolved::Subject(subject) = &resolved else {
        let message = format!("no model is called `{}`", spent.request.resource.id().escape_debug());
        return Err(RequestError::new(RequestErrorCode::InvalidRequest, "resource", message).into());
    };
    let price = world.snapshot.price(subject);
    let mut applying = applicable(world.snapshot, &case.question(subject), None);
    if spent.usage.usd.is_none_or(Amount::is_zero) {
        applying.retain(|one: &Applying<'_>| can_charge(world.snapshot, subject, &one.limit.limit));
    }
    spent.usage.check(applying.iter().map(|one| one.limit.limit.unit()), price.map(|price| &**price))?;
    let mut usage = spent.usage.usage();
    usage.usd = match (usage.usd, price) {
        (None, Some(price)) => Some(price.cost(&usage).map_err(absurd)?),
        (usd, _) => usd,
    };
    let mut charges: Vec<Charge> = match Estimates::used(&usage, price).charges(&applying) {
        Ok(charges) => charges,
        Err(NoAmount::NotSaid(error)) => return Err(error.into()),
        Err(NoAmount::PriceUnknown) => {
            let message = "what it cost is not known: the model has no price, so `usage.usd` has to say it";
            return Err(RequestError::new(RequestErrorCode::AmountNeeded, "usage.usd", message).into());
        }
    };
    // It is over: it takes nobody's place.
    charges.retain(|charge| charge.limit.unit() != Unit::Places);
    let resource = resolved.uid(world.snapshot, &spent.request.resource);
    let spending = Spending {
        principal: prepared.names().0,
        resource,
        permitted: Box::default(),
        price: price.cloned(),
        if_unknown: Box::default(),
    };
    let hold = Hold {
        id,
        spending: Arc::new(spending),
        charges,
        ttl_ms: DEFAULT_TTL_MS,
        idempotency: Some((key.name(), key.digest())),
        // It is over.
        most_open: None,
    };
    match world.meters.record(hold, usage, world.facts.now).await {
        Err(CloseError::KeyTaken(found)) => same(*found, &key.digest()),
        other => other.map_err(closing),
    }
}

fn same(found: Reservation, digest: &[u8; 32]) -> Result<Closed, SettleError> {
    match &found.idempotency {
        Some(idempotency) if idempotency.digest == *digest => Ok(Closed { reservation: found, alerts: Vec::new() }),
        _ => Err(key_taken()),
    }
}

fn key_taken() -> SettleError {
    let message = "this `idempotency_key` names another request";
    RequestError::new(RequestErrorCode::IdempotencyConflict, "idempotency_key", message).into()
}

fn same_but_money(one: &Usage, other: &Usage) -> bool {
    Usage { usd: None, ..*one } == Usage { usd: None, ..*other }
}

/// The price of the held resource, or that of the other permitted resource that was used.
fn settling_price(
    snapshot: &Snapshot,
    found: &Reservation,
    resource: Option<&EntityUid>,
) -> Result<Option<Arc<Price>>, SettleError> {
    let spending = &found.spending;
    match resource {
        None => Ok(spending.price.clone()),
        Some(uid) if *uid == spending.resource => Ok(spending.price.clone()),
        Some(uid) => price_of(snapshot, spending, uid),
    }
}

fn price_of(snapshot: &Snapshot, spending: &Spending, uid: &EntityUid) -> Result<Option<Arc<Price>>, SettleError> {
    let priced = Kind::named(uid.kind()).filter(|kind| kind.is_priced());
    let subject = priced.and_then(|kind| match snapshot.resource(kind, uid.id_smol()) {
        ResourceName::Resource(subject) | ResourceName::Disabled(subject) => Some(subject),
        ResourceName::Unknown => None,
    });
    let permitted = subject.as_ref().is_some_and(|subject| {
        let real = snapshot.store.name_of(subject).1;
        let leads = || match snapshot.subject(&spending.resource) {
            Some(Subject::Known(router)) => snapshot.reaches(router, subject),
            _ => false,
        };
        spending.permitted.iter().chain([&spending.resource]).any(|uid| uid.id() == real.as_str()) || leads()
    });
    match subject.filter(|_| permitted) {
        Some(subject) => Ok(snapshot.price(&subject).cloned()),
        None => {
            let message = format!("{uid} is none of what was permitted");
            Err(RequestError::new(RequestErrorCode::InvalidRequest, "resource", message).into())
        }
    }
}

fn absurd(error: PriceError) -> RequestError {
    RequestError::new(RequestErrorCode::InvalidRequest, "usage", error.to_string())
}

fn closing(error: CloseError) -> SettleError {
    match error {
        CloseError::Ledger(LedgerError::Unknown) => SettleError::Unknown,
        CloseError::Ledger(LedgerError::Closed(state)) => SettleError::Conflict(match state {
            State::Settled(_) => "the reservation was settled otherwise before; what it was charged stays",
            State::UsageUnknown => "the reservation was settled before with unknown usage, and its charge stays",
            State::Released => "the reservation was released before; tell what was spent all the same with POST /usage",
            State::Expired => "the reservation has expired; it can still be settled or released for a day",
            State::Open => "the reservation is open",
        }),
        CloseError::Ledger(LedgerError::CostUnknown) => {
            RequestError::new(RequestErrorCode::AmountNeeded, "usage.usd", "what it cost is not known").into()
        }
        CloseError::Ledger(LedgerError::Overflow) => {
            RequestError::new(RequestErrorCode::InvalidRequest, "usage", "it is beyond what can be counted").into()
        }
        CloseError::KeyTaken(_) => key_taken(),
        CloseError::Store(error) => error.into(),
    }
}
