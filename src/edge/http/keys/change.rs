//! What a request changes of a key: names that the bundle does not know, and the record with the change.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use smol_str::SmolStr;

use super::details;
use crate::edge::http::errors::ApiError;
use crate::edge::http::wire::KeyMembers;
use crate::model::{EntityUid, KeyLimit, KeyRecord, Kind, Narrowed, Timestamp};
use crate::policy::Snapshot;
use crate::policy::parse::key_limits;
use crate::policy::snapshot::ResourceName;

impl KeyMembers {
    /// Names of its lists that mean nothing in the bundle: typing mistakes, most of them.
    pub(super) fn unknown_names(&self, snapshot: &Snapshot) -> Vec<Unknown> {
        let listed = |list: &Option<Option<Box<[SmolStr]>>>| list.clone().flatten().unwrap_or_default();
        let models = listed(&self.models).into_iter().enumerate().filter_map(|(at, name)| {
            let reason = unknown_model(&name, snapshot)?;
            Some(Unknown { param: format!("models[{at}]"), message: format!("`{}` {reason}", name.escape_debug()) })
        });
        let routers = listed(&self.routers).into_iter().enumerate().filter_map(|(at, name)| {
            let router = Kind::ROUTER.uid(name.clone()).ok();
            let is_known = name == "*" || router.is_some_and(|router| snapshot.declares(&router));
            let message = || format!("the bundle declares no router `{}`", name.escape_debug());
            (!is_known).then(|| Unknown { param: format!("routers[{at}]"), message: message() })
        });
        models.chain(routers).collect()
    }

    /// Puts what is said into `key`.
    pub(super) fn apply(self, key: &mut KeyRecord, snapshot: &Snapshot, now: Timestamp) -> Result<(), ApiError> {
        if let Some(expires_at) = self.expires_at {
            if expires_at.is_some_and(|end| end <= now) {
                return Err(ApiError::invalid("expires_at", "this instant is past; revoke a key to end it now"));
            }
            key.expires_at = expires_at;
        }
        if let Some(Some(team)) = &self.team {
            let uid = EntityUid::new("Team", team.clone()).map_err(|error| ApiError::from(error).within("team"))?;
            let is_inherited = key.details().inherited.as_ref().is_some_and(|more| more.teams.contains(team));
            let may_pay = snapshot.is_in(&key.owner, &uid) || (is_inherited && snapshot.declares(&uid));
            if !may_pay {
                let message = format!("{} is not in the team `{team}`, which so cannot pay for its key", key.owner);
                return Err(ApiError::invalid("team", message));
            }
        }
        let actions = match self.actions {
            Some(Some(names)) => Some(Some(actions(&names, snapshot)?)),
            other => other,
        };
        let limits = match &self.limits {
            Some(Some(text)) => {
                let limits = key_limits(&key.id, text).map_err(|message| ApiError::invalid("limits", message))?;
                Some((Arc::from(limits), Some(Arc::clone(text))))
            }
            Some(None) => Some((Arc::<[KeyLimit]>::default(), None)),
            None => None,
        };
        let details = details(key);
        let mut narrowed = details.narrowed.as_deref().cloned().unwrap_or_default();
        put(&mut narrowed.models, self.models);
        put(&mut narrowed.routers, self.routers);
        put(&mut narrowed.actions, actions);
        put(&mut narrowed.paths, self.paths);
        put(&mut narrowed.networks, self.networks);
        details.narrowed = Some(narrowed).filter(|narrowed| *narrowed != Narrowed::default()).map(Arc::new);
        if let Some((limits, text)) = limits {
            (details.limits, details.limits_text) = (limits, text);
        }
        put(&mut details.tags, self.tags.map(Option::unwrap_or_default));
        put(&mut details.roles, self.roles.map(Option::unwrap_or_default));
        put(&mut details.metadata, self.metadata);
        put(&mut details.payer, self.team);
        put(&mut details.note, self.note);
        Ok(())
    }
}

/// A name that means nothing in the bundle.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(inline)]
pub(super) struct Unknown {
    pub(super) param: String,
    pub(super) message: String,
}

/// The error for a model name in a key's list, if there is one. In a bundle that declares no account, names in
/// undeclared accounts are accepted.
fn unknown_model(name: &SmolStr, snapshot: &Snapshot) -> Option<&'static str> {
    if name == "*" {
        return None;
    }
    let account = name.split_once('/').map(|(account, _)| account).filter(|account| !account.contains('*'));
    let account = account.and_then(|account| Kind::PROVIDER_ACCOUNT.uid(account).ok());
    let is_declared = account.as_ref().is_some_and(|account| snapshot.declares(account));
    if let Some(account) = account.filter(|_| !is_declared)
        && snapshot.counts().provider_accounts > 0
        && !snapshot.has_models_in(account.id())
    {
        return Some("is in no declared provider account");
    }
    if name.ends_with("/*") && is_declared {
        return None;
    }
    if name.contains('*') {
        let any = snapshot.counts().models == 0 || snapshot.has_model_like(name);
        return (!any).then_some("matches no declared model");
    }
    matches!(snapshot.model(name), ResourceName::Unknown).then_some("is not a declared model or alias")
}

fn put<T>(place: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *place = said;
    }
}

/// Actions by name; a group is all that is in it.
fn actions(names: &[SmolStr], snapshot: &Snapshot) -> Result<Box<[SmolStr]>, ApiError> {
    let schema = snapshot.schema();
    let mut all: Vec<SmolStr> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let Some(action) = schema.action(name).and_then(|index| schema.action_at(index)) else {
            let param = format!("actions[{at}]");
            return Err(ApiError::invalid(param, format!("no action is called `{}`", name.escape_debug())));
        };
        let below = action.descendants.iter().filter_map(|index| schema.action_at(index));
        all.extend(below.filter(|action| !action.principals.is_empty()).map(|action| action.name.clone()));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all.into())
}

/// Who can have keys.
pub(super) fn check_owner(owner: &EntityUid) -> Result<(), ApiError> {
    match owner.kind() {
        "User" | "Service" | "Team" | "Org" => Ok(()),
        kind => {
            let message = format!("a key belongs to a User, Service, Team or Org, not to a {kind}");
            Err(ApiError::invalid("owner", message))
        }
    }
}
