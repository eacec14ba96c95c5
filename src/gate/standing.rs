//! Where a caller stands: every limit that can bind it, with each of its meters that can be told without a request.
//!
//! Ordered by the limit's id and then by meter, so that a page goes on where the one before ended, whatever was
//! reloaded in between.

use std::borrow::Cow;
use std::sync::Arc;

use smol_str::SmolStr;

use super::authorize::World;
use super::decide::Who;
use super::gather::{Told, own_limits, told, told_own};
use super::ports::{StoreError, SubjectsOf};
use crate::meter::{Charge, Standing};
use crate::model::{Amount, EntityUid, Identity, RequestError};
use crate::policy::limits::BoundLimit;

/// Most meters of a page.
pub const MAX_STANDINGS: usize = 1_000;

/// Where one meter of one limit stands.
#[derive(Debug, Clone)]
pub struct MeterStanding<'a> {
    /// The limit.
    pub bound: Cow<'a, BoundLimit>,
    /// Whose meter; `None` for the one that all share.
    pub meter: Option<SmolStr>,
    /// Where it stands.
    pub standing: Standing,
}

/// The limit's id, and whose meter: where a page ended.
pub type Mark = (SmolStr, Option<SmolStr>);

/// One page.
#[derive(Debug, Clone)]
pub struct Standings<'a> {
    /// The owner, where a key was asked about.
    pub principal: EntityUid,
    /// The meters.
    pub meters: Vec<MeterStanding<'a>>,
    /// Where the next page begins, if there is one.
    pub next: Option<Mark>,
}

/// Why nobody can say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StandingsError {
    /// There is no such principal.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whose standings are asked for, and which.
#[derive(Debug, Clone, Copy)]
pub struct StandingsOf<'a, 'p> {
    /// Whose.
    pub principal: &'p EntityUid,
    /// Of a key that is not of the bundle, whom it proves.
    pub identity: Option<&'a Arc<Identity>>,
    /// Those behind this one.
    pub after: Option<&'p Mark>,
    /// So many meters at most.
    pub most: usize,
    /// Whether also meters are told that any caller's requests may have made: one for each model or end user. Without it
    /// those alone that are the principal's, or its teams', or shared by all.
    pub whole: bool,
}

/// Where a principal stands. Looks through all meters where a limit has one for each model, router or what a request says;
/// for a thread that may work for a while.
///
/// # Errors
/// Where the principal is of no type that the bundle has, or the store fails.
pub async fn standings<'a>(world: World<'a>, of: StandingsOf<'a, '_>) -> Result<Standings<'a>, StandingsError> {
    let StandingsOf { principal, identity, after, most, whole } = of;
    let who = Who::find(world.snapshot, None, principal, identity)?;
    let of_bundle = world.snapshot.limits_of(&who.subject).into_iter();
    let of_bundle = of_bundle.map(|limit| (told(world.snapshot, &who.subject, limit), Cow::Borrowed(limit)));
    let own = identity.map(|identity| own_limits(identity).into_vec()).unwrap_or_default().into_iter();
    let own = own.map(|limit| (told_own(world.snapshot, &who.subject, &limit), Cow::Owned(limit)));
    let mut bound: Vec<(Told, Cow<'a, BoundLimit>)> = of_bundle.chain(own).collect();
    bound.sort_by(|(_, one), (_, other)| one.limit.id.cmp(&other.limit.id));
    // One more than a page tells whether there is another.
    let wanted = most.saturating_add(1);
    let mut found: Vec<(Cow<'a, BoundLimit>, Option<SmolStr>)> = Vec::new();
    let is_behind = |limit: &BoundLimit| after.is_none_or(|(id, _)| limit.limit.id >= *id);
    for (told, limit) in bound.into_iter().filter(|(_, limit)| is_behind(limit)) {
        let after = after.filter(|(id, _)| limit.limit.id == *id).map(|(_, meter)| meter);
        let subjects = match told {
            Told::These(subjects) => subjects,
            Told::Existing { own, .. } if !whole => vec![Some(own)],
            Told::Existing { prefix, own } => {
                let (series, after) = (Arc::clone(&limit.limit.series), after.cloned().flatten());
                let of = SubjectsOf { series, prefix, own, after, most: wanted - found.len() };
                world.meters.subjects(&of).await?.into_iter().map(Some).collect()
            }
        };
        let behind = subjects.into_iter().filter(|subject| after.is_none_or(|after| subject > after));
        found.extend(behind.map(|subject| (limit.clone(), subject)).take(wanted - found.len()));
        if found.len() >= wanted {
            break;
        }
    }
    let more = found.len() > most;
    found.truncate(most);
    let next = found.last().filter(|_| more).map(|(limit, subject)| (limit.limit.id.clone(), subject.clone()));
    let charge = |(limit, subject): &(Cow<'_, BoundLimit>, Option<SmolStr>)| Charge {
        limit: Arc::clone(&limit.limit),
        subject: subject.clone(),
        amount: Amount::ONE,
    };
    let charges: Vec<Charge> = found.iter().map(charge).collect();
    let looks = world.meters.look(&charges, world.facts.now).await?;
    let told = found.into_iter().zip(looks);
    let meters = told.map(|((bound, meter), look)| MeterStanding { bound, meter, standing: look.standing }).collect();
    Ok(Standings { principal: who.principal, meters, next })
}
