//! What an entity is to Cedar: its attributes, as conditions read them, and everything that it is in.

use std::collections::HashSet;
use std::sync::Arc;

use cedar_policy_core::ast::{Entity, EntityUID, Literal, PartialValue, Value};
use smol_str::SmolStr;

use super::{ADMIN_OF, Details, EntityIndex, EntityStore, Kind, Subject};
use crate::model::{RESERVED_ROLE_PREFIX, Said};
use crate::policy::native;

impl EntityStore {
    /// The subject as a Cedar entity, with every attribute that a condition can read and all its ancestors.
    #[must_use]
    pub fn materialize(&self, subject: &Subject) -> Arc<Entity> {
        if let Subject::Known(index) = subject
            && let Some(native) = self.record(*index).details.as_ref().and_then(|details| details.native.as_ref())
        {
            return Arc::clone(native);
        }
        if let Subject::Stranger { given: Some(given), .. } = subject {
            return Arc::clone(&given.entity);
        }
        let (kind, id) = self.name_of(subject);
        let parents = self.parents(subject);
        let closure = self.closure(parents);
        let (own, identity) = match subject {
            Subject::Known(index) => (self.record(*index).details.as_deref(), None),
            Subject::Stranger { .. } => (None, None),
            Subject::Proved(proved) => {
                let own = proved.own.and_then(|index| self.record(index).details.as_deref());
                (own, Some(&*proved.identity))
            }
        };
        let mut attributes = self.attributes(kind, id, own, &closure);
        let metadata = match (own, identity) {
            (Some(details), _) => &*details.extras.metadata,
            (None, Some(identity)) if kind == Kind::API_KEY => &*identity.metadata,
            (None, _) => &[],
        };
        let indirect = closure.iter().skip(parents.len()).map(|index| self.core_uid(*index)).collect();
        let mut direct: HashSet<EntityUID> = parents.iter().map(|index| self.core_uid(*index)).collect();
        if matches!(kind, Kind::USER | Kind::SERVICE | Kind::API_KEY) {
            let said = identity.map_or(&[] as &[_], |identity| &identity.said.team_roles);
            let teams = self.administers(own, said, &closure).map(|team| self.core_uid(team));
            let teams: HashSet<EntityUID> = teams.collect();
            if !teams.is_empty() {
                let teams = teams.into_iter().map(|uid| Literal::EntityUID(Arc::new(uid)));
                let value = PartialValue::Value(Value::set_of_lits(teams, None));
                attributes.push((SmolStr::new_static("administers"), value));
            }
        }
        if let Some(identity) = identity {
            add(&mut attributes, &identity.said);
            if !identity.method.gives_reserved_roles() {
                remove_reserved_roles(&mut attributes);
            }
            direct.extend(identity.owner.as_ref().and_then(|owner| self.core_uid_named(owner)));
        }
        Arc::new(Entity::new_with_attr_partial_value(
            self.core_uid_of(kind, id),
            attributes,
            indirect,
            direct,
            metadata.iter().map(|(name, value)| (name.clone(), text(value))),
        ))
    }

    /// The teams in which the role of a subject is `admin`.
    pub(crate) fn administered(&self, subject: &Subject) -> Vec<EntityIndex> {
        let closure = self.closure(self.parents(subject));
        let said = match subject {
            Subject::Proved(proved) => &*proved.identity.said.team_roles,
            Subject::Known(_) | Subject::Stranger { .. } => &[],
        };
        let own = self.index_of(subject).and_then(|index| self.record(index).details.as_deref());
        self.administers(own, said, &closure).collect()
    }

    /// The teams in which its role is `admin`, of those that it is in.
    fn administers<'a>(
        &'a self,
        own: Option<&'a Details>,
        said: &'a [SmolStr],
        closure: &'a [EntityIndex],
    ) -> impl Iterator<Item = EntityIndex> + 'a {
        let inherited = closure.iter().filter_map(|index| self.record(*index).details.as_deref());
        let roles = own.into_iter().chain(inherited).flat_map(|details| &details.team_roles).chain(said);
        // A role is what stands behind the last colon; that the team is one of its own keeps a name with colons from
        // being taken for another team.
        let team = move |role: &SmolStr| self.find(Kind::TEAM, role.strip_suffix(ADMIN_OF)?);
        roles.filter_map(team).filter(move |team| closure.contains(team))
    }

    fn attributes(
        &self,
        kind: Kind,
        id: &SmolStr,
        own: Option<&Details>,
        closure: &[EntityIndex],
    ) -> Vec<(SmolStr, PartialValue)> {
        let mut attributes = Vec::with_capacity(5);
        let mut put = |name: &'static str, value: PartialValue| attributes.push((SmolStr::new_static(name), value));
        let above = |pick: fn(&Details) -> &[SmolStr]| {
            let own = own.map(pick).unwrap_or_default().iter();
            let inherited = closure.iter().filter_map(|index| self.record(*index).details.as_deref()).flat_map(pick);
            own.chain(inherited).cloned().collect::<HashSet<_>>()
        };
        let has_tags = kind.is_built_in() && !matches!(kind, Kind::OWNER_KIND | Kind::MODEL_GROUP);
        if has_tags {
            put("tags", set(above(|details| &details.tags)));
        }
        if matches!(kind, Kind::USER | Kind::SERVICE | Kind::API_KEY) {
            put("roles", set(above(|details| &details.roles)));
            put("team_roles", set(above(|details| &details.team_roles)));
            if let Some(email) = own.and_then(|details| details.extras.email.as_ref()) {
                put("email", text(email));
            }
            if let Some(external) = own.and_then(|details| details.extras.external_id.as_ref()) {
                put("external_id", text(external));
            }
        }
        if kind.namespace().is_some() {
            put("name", text(id));
        }
        if let Some(tokens) = own.and_then(|details| details.max_output_tokens) {
            put("max_output_tokens", PartialValue::Value(Value::from(tokens)));
        }
        if let Some(provider) = own.and_then(|details| details.provider.as_ref()) {
            put("provider", text(provider));
        }
        attributes
    }
}

/// Adds what a credential says to the attributes of its principal.
fn add(attributes: &mut Vec<(SmolStr, PartialValue)>, said: &Said) {
    for (name, labels) in [("tags", &said.tags), ("roles", &said.roles), ("team_roles", &said.team_roles)] {
        let known = attributes.iter_mut().find(|(known, _)| known == name);
        if let (Some((_, value)), false) = (known, labels.is_empty()) {
            let mut all: HashSet<SmolStr> = native::strings(Some(value)).iter().cloned().collect();
            all.extend(labels.iter().cloned());
            *value = set(all);
        }
    }
    for (name, value) in [("email", &said.email), ("external_id", &said.external_id)] {
        let known = attributes.iter().any(|(known, _)| known == name);
        if let (Some(value), false) = (value, known) {
            attributes.push((SmolStr::new_static(name), text(value)));
        }
    }
}

/// Leaves Tollgate's own roles out of the attribute `roles`.
fn remove_reserved_roles(attributes: &mut [(SmolStr, PartialValue)]) {
    for (_, value) in attributes.iter_mut().filter(|(name, _)| name == "roles") {
        let roles = native::strings(Some(&*value));
        if roles.iter().any(|role| role.starts_with(RESERVED_ROLE_PREFIX)) {
            *value = set(roles.iter().filter(|role| !role.starts_with(RESERVED_ROLE_PREFIX)).cloned().collect());
        }
    }
}

fn text(value: &SmolStr) -> PartialValue {
    PartialValue::Value(Value::from(value.clone()))
}

fn set(values: HashSet<SmolStr>) -> PartialValue {
    PartialValue::Value(Value::set_of_lits(values.into_iter().map(Literal::from), None))
}
