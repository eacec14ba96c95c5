//! The built-in policies: they decide the actions of `admin` for which the bundle has no rule (`schema/admin.cedar`).
//! They are part of every decision, so that the server's own checks and `/is_authorized` agree.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{Context, EntityUIDEntry, PolicyID, PolicySet, Request as CedarRequest};
use cedar_policy_core::authorizer::Authorizer;
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::parser::parse_policyset;
use smol_str::SmolStr;

use super::explain::RuleTrace;
use crate::model::{Effect, RuleReference};
use crate::policy::Snapshot;
use crate::policy::entities::Subject;
use crate::policy::schema::ActionIndex;

/// The policies that ship, in Cedar.
pub const ADMIN_POLICIES: &str = include_str!("../../schema/admin.cedar");

static POLICIES: LazyLock<PolicySet> = LazyLock::new(|| {
    // A test checks that they parse and match the schema. An empty set would permit nothing.
    parse_policyset(ADMIN_POLICIES).unwrap_or_default()
});

/// The principal, action and resource of a question.
pub(super) struct Asked<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) principal: &'a Subject,
    pub(super) action: ActionIndex,
    pub(super) resource: &'a Subject,
}

impl Asked<'_> {
    /// Whether the action is one of `admin`.
    pub(super) fn is_admin(&self) -> bool {
        let schema = &self.snapshot.schema;
        let group = schema.action("admin").and_then(|index| schema.action_at(index));
        group.is_some_and(|group| group.descendants.contains(self.action))
    }

    /// The policies that permit it.
    pub(super) fn permits(&self) -> Vec<RuleReference> {
        let mut found: Vec<SmolStr> = self.permitting().unwrap_or_default();
        found.sort_unstable();
        found.into_iter().map(reference).collect()
    }

    /// Every policy, and whether it permits.
    pub(super) fn traces(&self) -> Vec<RuleTrace> {
        let permitting = self.permitting().unwrap_or_default();
        let trace =
            |id: SmolStr| RuleTrace { matches: Ok(permitting.contains(&id)), rule: reference(id), clauses: Vec::new() };
        POLICIES.policies().filter_map(|policy| id_of(policy.id())).map(trace).collect()
    }

    fn permitting(&self) -> Option<Vec<SmolStr>> {
        let Self { snapshot, principal, resource, .. } = self;
        let store = &snapshot.store;
        let known = |uid| EntityUIDEntry::Known { euid: Arc::new(uid), loc: None };
        let action = snapshot.schema.action_at(self.action)?;
        let request = CedarRequest::new_unchecked(
            known(store.subject_core_uid(principal)),
            EntityUIDEntry::Known { euid: Arc::clone(&action.uid), loc: None },
            known(store.subject_core_uid(resource)),
            Some(Context::empty()),
        );
        let mut seen = HashSet::new();
        let entities = [store.materialize(principal), store.materialize(resource)];
        let entities = entities.iter().map(|entity| (**entity).clone());
        let entities = entities.filter(|entity| seen.insert(entity.uid().clone()));
        let actions = snapshot.schema.action_entities.iter().cloned();
        let entities = Entities::from_entities(
            entities.chain(actions),
            None::<&NoEntitiesSchema>,
            TCComputation::AssumeAlreadyComputed,
            Extensions::none(),
        );
        let response = Authorizer::new().is_authorized(request, &POLICIES, &entities.ok()?);
        Some(response.diagnostics.reason.iter().filter_map(id_of).collect())
    }
}

/// Whether a rule of a decision is a built-in policy rather than a rule of the bundle.
pub(super) fn is_shipped(rule: &RuleReference) -> bool {
    rule.line == 0 && rule.file.is_empty() && rule.id.starts_with("tollgate:")
}

fn reference(id: SmolStr) -> RuleReference {
    RuleReference { id, effect: Effect::Permit, file: "".into(), line: 0 }
}

fn id_of(policy: &PolicyID) -> Option<SmolStr> {
    let policy = POLICIES.get(policy)?;
    policy.annotations().find(|(name, _)| name.as_ref() == "id").map(|(_, id)| id.val.clone())
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
        let ids: Vec<_> = POLICIES.policies().filter_map(|policy| id_of(policy.id())).collect();
        assert_eq!(ids.iter().filter(|id| super::super::manage::right_of(id).is_some()).count(), 3, "{ids:?}");
        assert_eq!(ids.len(), 3);
    }
}
