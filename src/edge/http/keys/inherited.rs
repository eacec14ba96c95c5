//! The attributes that a key keeps from its maker's token. A token may give a person more teams, orgs, roles and tags
//! than the bundle does. Without them, a key that the person makes would not be in those teams, and a forbid on a team
//! would not apply to it.

use smol_str::SmolStr;

use super::{Caller, forbidden};
use crate::edge::http::errors::ApiError;
use crate::gate::KeyWriteError;
use crate::model::{EntityUid, Inherited, RESERVED_ROLE_PREFIX, Said};
use crate::policy::Snapshot;
use crate::policy::entities::EntityIndex;

/// The attributes that a key of `owner` keeps when this caller makes it; `None` if its credential adds nothing to the
/// bundle.
///
/// # Errors
/// Where the caller's token takes teams away that the key would have.
pub(super) fn of_maker(caller: &Caller, owner: &EntityUid) -> Result<Option<Inherited>, ApiError> {
    let identity = &caller.identity;
    if identity.principal.kind() == "ApiKey" {
        // From a key, only the inherited attributes belong to its owner. Its own tags and roles belong to the key.
        let made_by = caller.service.keys.find(identity.principal.id()).map_err(KeyWriteError::from)?;
        let made_by = made_by.filter(|key| key.owner == *owner);
        return Ok(made_by.and_then(|key| key.details().inherited.as_deref().cloned()));
    }
    if identity.principal != *owner {
        return Ok(None);
    }
    let (snapshot, said) = (&*caller.snapshot, &identity.said);
    if said.replaces
        && let Some(more) = kept_out_of(snapshot, owner, said)
    {
        return Err(forbidden(format!(
            "your token replaces the teams and orgs that the bundle gives {owner} (`memberships: replace`), and a key would \
             be in {more}, which the token leaves out; let an administrator make the key"
        )));
    }
    // Undeclared teams are kept too: if one is declared later, the holder of the token is in it, and so is the key.
    let inherited = Inherited {
        teams: said.teams.clone(),
        orgs: said.orgs.clone(),
        roles: said.roles.iter().filter(|role| !role.starts_with(RESERVED_ROLE_PREFIX)).cloned().collect(),
        tags: said.tags.clone(),
    };
    if !identity.method.gives_reserved_roles()
        && let Some(team) = with_reserved_roles(snapshot, &inherited)
    {
        return Err(forbidden(format!("{team} has roles of Tollgate's own, which such a credential never gives")));
    }
    Ok(Some(inherited).filter(|inherited| *inherited != Inherited::default()))
}

/// A team or org that gives one of Tollgate's own roles.
fn with_reserved_roles(snapshot: &Snapshot, inherited: &Inherited) -> Option<EntityUid> {
    let store = &snapshot.store;
    let of_kind = |kind: &'static str, ids: &[SmolStr]| -> Vec<EntityIndex> {
        let kind = store.kind_of(kind);
        ids.iter().filter_map(|id| store.find(kind?, id)).collect()
    };
    let memberships = [of_kind("Team", &inherited.teams), of_kind("Org", &inherited.orgs)].concat();
    let reserved =
        |index: &EntityIndex| store.record(*index).roles().iter().any(|role| role.starts_with(RESERVED_ROLE_PREFIX));
    store.closure(&memberships).iter().find(|index| reserved(index)).map(|index| store.uid(*index))
}

/// A team or org that the bundle puts `owner` in and its token does not.
fn kept_out_of(snapshot: &Snapshot, owner: &EntityUid, said: &Said) -> Option<EntityUid> {
    let store = &snapshot.store;
    let index = store.kind_of(owner.kind()).and_then(|kind| store.find(kind, owner.id()))?;
    let parents = store.record(index).parents.iter().map(|parent| store.uid(*parent));
    let mut memberships = parents.filter(|parent| matches!(parent.kind(), "Team" | "Org"));
    memberships.find(|parent| {
        let told = if parent.kind() == "Team" { &said.teams } else { &said.orgs };
        !told.iter().any(|id| id == parent.id())
    })
}
