//! Who may manage whose keys: the bundle's rules about `manage_keys`, and where they say nothing, the policies that ship
//! (`schema/admin.cedar`). What is made must not be more than its maker: those checks are no policy, and hold in any case.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{Context, EntityUIDEntry, PolicyID, PolicySet, Request as CedarRequest};
use cedar_policy_core::authorizer::Authorizer;
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::parser::parse_policyset;
use smol_str::SmolStr;

use super::authenticate::{has_role, is_narrowed};
use super::decide::{Who, decide};
use crate::model::{
    ADMINISTRATOR, DecisionCode, EntityUid, Facts, Identity, KeyRecord, RESERVED_ROLE_PREFIX, Request, Told,
};
use crate::policy::Snapshot;
use crate::policy::entities::Kind;

/// The policies that ship, in Cedar.
pub const ADMIN_POLICIES: &str = include_str!("../../schema/admin.cedar");

static POLICIES: LazyLock<PolicySet> = LazyLock::new(|| {
    // A test sees that they parse, and are what the schema takes; none at all would permit nothing.
    parse_policyset(ADMIN_POLICIES).unwrap_or_default()
});

/// The action of who manages keys.
pub const MANAGE_KEYS: &str = "manage_keys";

/// The action of who sees what was spent.
pub const VIEW_USAGE: &str = "view_usage";

/// By what somebody may manage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// A role in the owner's team.
    Team,
    /// A rule of the bundle.
    Bundle,
    /// It is the caller's own.
    Own,
    /// The role that may everything.
    Administrator,
}

/// Why a key may not be made or changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TooWide {
    /// The member that asks for too much.
    pub param: &'static str,
    /// Why.
    pub message: String,
}

/// Somebody who manages keys.
pub struct Manager<'a> {
    /// The bundle that decides.
    pub snapshot: &'a Snapshot,
    /// The instant.
    pub facts: &'a Facts,
    /// Who.
    pub identity: &'a Arc<Identity>,
    /// From where, where that is known.
    pub peer: Option<IpAddr>,
    /// Whether the policies that ship hold too.
    pub defaults: bool,
}

impl Manager<'_> {
    /// By what this caller may do the `action` of `admin` with what is `owner`'s; `None` where it may not.
    #[must_use]
    pub fn right(&self, action: &str, owner: &EntityUid) -> Option<Right> {
        // A key that may not do all that its owner may makes none that may; one that was replaced may be in other hands.
        if is_narrowed(self.snapshot, self.identity) || self.identity.replaced {
            return None;
        }
        let is_administrator = self.has_role(ADMINISTRATOR);
        let from = self.peer.map(|peer| ("ip".to_owned(), peer.to_string().into()));
        let context = Told::from(from.into_iter().collect::<serde_json::Map<_, _>>());
        let request = Request::proved(Arc::clone(self.identity), action, owner.clone()).with_context(context);
        let decision = decide(self.snapshot, self.facts, &request).ok()?;
        match decision.code {
            DecisionCode::Permitted if is_administrator => Some(Right::Administrator),
            DecisionCode::Permitted => Some(Right::Bundle),
            DecisionCode::NoRulePermits if self.defaults => self.by_default(action, owner),
            _ => None,
        }
    }

    fn has_role(&self, role: &str) -> bool {
        has_role(self.snapshot, self.identity, &[role], self.peer, self.facts.now)
    }

    /// What the policies that ship say: of those that permit, the one that says most.
    fn by_default(&self, action: &str, owner: &EntityUid) -> Option<Right> {
        let store = &self.snapshot.store;
        let who = Who::find(self.snapshot, None, &self.identity.principal, Some(self.identity)).ok()?;
        let resource = self.snapshot.subject(owner)?;
        let entities = [store.materialize(&who.subject), store.materialize(&resource)];
        let known = |uid| EntityUIDEntry::Known { euid: Arc::new(uid), loc: None };
        let action = self.snapshot.schema.action(action).and_then(|index| self.snapshot.schema.action_at(index))?;
        let request = CedarRequest::new_unchecked(
            known(store.subject_core_uid(&who.subject)),
            EntityUIDEntry::Known { euid: Arc::clone(&action.uid), loc: None },
            known(store.subject_core_uid(&resource)),
            Some(Context::empty()),
        );
        let mut seen = HashSet::new();
        let entities = entities.iter().map(|entity| (**entity).clone());
        let entities = entities.filter(|entity| seen.insert(entity.uid().clone()));
        let actions = self.snapshot.schema.action_entities.iter().cloned();
        let entities = Entities::from_entities(
            entities.chain(actions),
            None::<&NoEntitiesSchema>,
            TCComputation::AssumeAlreadyComputed,
            Extensions::none(),
        );
        let response = Authorizer::new().is_authorized(request, &POLICIES, &entities.ok()?);
        response.diagnostics.reason.iter().filter_map(right_of).max()
    }

    /// Whether a caller with this `right` may have `key` in hand: made by it, changed so, or given a new secret. Of what is
    /// the caller's own, only what a change adds is looked at: `before` is the key as it was, where its secret stays as it is.
    ///
    /// # Errors
    /// With what is more than the caller may give.
    pub fn may_hand_out(&self, right: Right, key: &KeyRecord, before: Option<&KeyRecord>) -> Result<(), TooWide> {
        let before = before.filter(|_| right == Right::Own);
        let too_wide = |param, message: String| Err(TooWide { param, message });
        let lasts = |end| key.expires_at.is_none_or(|expires_at| expires_at > end);
        let as_before = before.is_some_and(|before| before.expires_at == key.expires_at);
        if !as_before && self.identity.key_ends_at.is_some_and(lasts) {
            return too_wide("expires_at", "the key that asks ends before that".to_owned());
        }
        if right == Right::Administrator {
            return Ok(());
        }
        let details = key.details();
        let had = before.map(KeyRecord::details);
        if !details.roles.is_empty() && had.is_none_or(|had| had.roles != details.roles) {
            return too_wide("roles", format!("only who has the role {ADMINISTRATOR} gives roles to keys"));
        }
        if !details.metadata.is_empty() && had.is_none_or(|had| had.metadata != details.metadata) {
            let message = format!("only who has the role {ADMINISTRATOR} says what becomes `context.metadata`");
            return too_wide("metadata", message);
        }
        let owned = self.tags_of(&key.owner);
        let is_new = |tag: &&SmolStr| !owned.contains(*tag) && had.is_none_or(|had| !had.tags.contains(*tag));
        if let Some(tag) = details.tags.iter().find(is_new) {
            let message =
                format!("{} does not have the tag `{tag}`, so that only an administrator gives it", key.owner);
            return too_wide("tags", message);
        }
        // Whom somebody else's endpoint names has none of these roles, and gets none by a key of the one who has them.
        if (right != Right::Own || !self.identity.method.gives_reserved_roles())
            && let Some(role) = self.roles_of(&key.owner).iter().find(|role| !self.has_role(role))
        {
            return too_wide("owner", format!("{} has the role `{role}`, which you have not", key.owner));
        }
        if self.is_for_a_team(right, &key.owner) && !self.is_all_within(&key.owner) {
            let message =
                format!("{} is in more than the teams that you administer, and so would the key be", key.owner);
            return too_wide("owner", message);
        }
        Ok(())
    }

    /// Whether it is as a team's administrator that the caller manages what is `owner`'s: also where a rule of the bundle
    /// says what the policies that ship say.
    fn is_for_a_team(&self, right: Right, owner: &EntityUid) -> bool {
        match right {
            Right::Team => true,
            Right::Bundle => self.by_default(MANAGE_KEYS, owner) == Some(Right::Team),
            Right::Own | Right::Administrator => false,
        }
    }

    /// Tollgate's roles that `owner` has, its own or through what it is in.
    fn roles_of(&self, owner: &EntityUid) -> Vec<SmolStr> {
        let store = &self.snapshot.store;
        let Some(index) = store.kind_of(owner.kind()).and_then(|kind| store.find(kind, owner.id())) else {
            return Vec::new();
        };
        let roles = store.closure(&[index]).into_iter().flat_map(|index| store.record(index).roles().to_vec());
        roles.filter(|role| role.starts_with(RESERVED_ROLE_PREFIX)).collect()
    }

    fn tags_of(&self, owner: &EntityUid) -> HashSet<SmolStr> {
        let store = &self.snapshot.store;
        let Some(index) = store.kind_of(owner.kind()).and_then(|kind| store.find(kind, owner.id())) else {
            return HashSet::new();
        };
        store.closure(&[index]).into_iter().flat_map(|index| store.record(index).tags().to_vec()).collect()
    }

    /// Whether everything that `owner` is in is a team that the caller administers, or what such a team is in. A key of
    /// somebody is all that this somebody is.
    fn is_all_within(&self, owner: &EntityUid) -> bool {
        let store = &self.snapshot.store;
        let Some(index) = store.kind_of(owner.kind()).and_then(|kind| store.find(kind, owner.id())) else {
            return false;
        };
        if matches!(store.record(index).kind, Kind::TEAM | Kind::ORG) {
            return true;
        }
        let Ok(who) = Who::find(self.snapshot, None, &self.identity.principal, Some(self.identity)) else {
            return false;
        };
        let administered = store.administered(&who.subject);
        let above = store.closure(&administered);
        let within = |parent: &crate::policy::entities::EntityIndex| {
            above.contains(parent) || store.closure(&[*parent]).iter().any(|over| administered.contains(over))
        };
        store.record(index).parents.iter().all(within)
    }
}

fn right_of(policy: &PolicyID) -> Option<Right> {
    let policy = POLICIES.get(policy)?;
    let id = policy.annotations().find(|(name, _)| name.as_ref() == "id").map(|(_, id)| id.val.clone())?;
    match id.as_str() {
        "tollgate:administrators" => Some(Right::Administrator),
        "tollgate:team-administrators" => Some(Right::Team),
        "tollgate:own" => Some(Right::Own),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::str::FromStr as _;

    use super::*;
    use crate::policy::schema::TOLLGATE_SCHEMA;

    #[test]
    fn the_policies_that_ship_are_what_the_schema_takes() {
        let (schema, _) = cedar_policy::Schema::from_cedarschema_str(TOLLGATE_SCHEMA).unwrap();
        let policies = cedar_policy::PolicySet::from_str(ADMIN_POLICIES).unwrap();
        let validated = cedar_policy::Validator::new(schema).validate(&policies, cedar_policy::ValidationMode::Strict);
        assert!(validated.validation_passed_without_warnings(), "{validated}");
        assert_eq!(POLICIES.policies().filter_map(|policy| right_of(policy.id())).count(), 3);
    }
}
