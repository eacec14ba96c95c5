//! Entities that a request brings along: they may add to what the bundle knows, never say otherwise.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy_core::ast::{Entity, EntityUID};
use serde_json::Value;
use smol_str::SmolStr;

use crate::model::{RequestError, RequestErrorCode};
use crate::policy::addresses;
use crate::policy::entities::{EntityIndex, Given, Kind, Subject};
use crate::policy::native::strings;
use crate::policy::schema::describe;
use crate::policy::snapshot::{ResourceName, Snapshot};

/// Most entities that a request may bring along.
pub const MAX_ADDITIONAL_ENTITIES: usize = 256;

/// Entities of one request, checked.
#[derive(Debug)]
pub struct Additional {
    subjects: HashMap<EntityUID, Subject>,
}

impl Additional {
    /// Checks what a request brings along; `None` for nothing.
    ///
    /// # Errors
    /// For the first that the schema refuses, that the bundle declares, or that stands twice.
    pub fn check(snapshot: &Snapshot, values: &[Value]) -> Result<Option<Self>, RequestError> {
        if values.is_empty() {
            return Ok(None);
        }
        if values.len() > MAX_ADDITIONAL_ENTITIES {
            let message =
                format!("a request may bring {MAX_ADDITIONAL_ENTITIES} entities at most, not {}", values.len());
            return Err(refused("additional_entities".to_owned(), message));
        }
        let mut entities: HashMap<EntityUID, Entity> = HashMap::with_capacity(values.len());
        for (number, value) in values.iter().enumerate() {
            let wrong = |message: String| refused(format!("additional_entities[{number}]"), message);
            let entity = one(snapshot, value).map_err(wrong)?;
            if let Some(twice) = entities.insert(entity.uid().clone(), entity) {
                return Err(wrong(format!("`{}` stands twice", twice.uid())));
            }
        }
        let mut subjects = HashMap::with_capacity(entities.len());
        for entity in entities.values() {
            let wrong = |message: String| refused("additional_entities".to_owned(), message);
            subjects.insert(entity.uid().clone(), linked(snapshot, &entities, entity).map_err(wrong)?);
        }
        Ok(Some(Self { subjects }))
    }

    /// The entity called so, as a principal or resource.
    #[must_use]
    pub fn subject(&self, snapshot: &Snapshot, kind: Kind, id: &str) -> Option<&Subject> {
        let id = cedar_policy_core::ast::Eid::new(id);
        self.subjects.get(&EntityUID::from_components(snapshot.store.kind_core(kind).clone(), id, None))
    }

    /// The entity as conditions see it.
    pub(super) fn entity(&self, snapshot: &Snapshot, uid: &EntityUID) -> Option<Arc<Entity>> {
        self.subjects.get(uid).map(|subject| snapshot.store.materialize(subject))
    }
}

fn refused(param: String, message: String) -> RequestError {
    RequestError::new(RequestErrorCode::InvalidEntities, param, message)
}

/// One entity as the schema wants it, that nobody declares.
fn one(snapshot: &Snapshot, value: &Value) -> Result<Entity, String> {
    let entity = cedar_policy::Entity::from_json_value(value.clone(), Some(&snapshot.schema.schema));
    let entity = addresses::entity(entity.map_err(|error| describe(&error))?.as_ref());
    let id = entity.uid().eid();
    let id: &str = id.as_ref();
    let kind = snapshot.store.kind_of(&entity.uid().entity_type().to_string());
    let kind = kind.filter(|kind| *kind != Kind::OWNER_KIND && *kind != Kind::METADATA);
    let kind = kind.ok_or_else(|| format!("`{}` is of a type that is Tollgate's own", entity.uid()))?;
    kind.check_id(id).map_err(|error| error.to_string())?;
    let declared = |index: EntityIndex| snapshot.store.record(index).declared;
    let known = snapshot.store.find(kind, id).is_some_and(declared);
    let stands_for = |name: &str| match snapshot.resource(kind, &SmolStr::new(name)) {
        ResourceName::Resource(Subject::Known(index)) | ResourceName::Disabled(Subject::Known(index)) => {
            declared(index)
        }
        _ => false,
    };
    if known || stands_for(id) {
        return Err(format!("the bundle declares `{}`; a request may add entities, not redefine one", entity.uid()));
    }
    Ok(entity)
}

/// `entity` with all that it is in, here and in the bundle.
fn linked(snapshot: &Snapshot, entities: &HashMap<EntityUID, Entity>, entity: &Entity) -> Result<Subject, String> {
    let store = &snapshot.store;
    let index = |uid: &EntityUID| {
        let kind = store.kind_of(&uid.entity_type().to_string())?;
        store.find(kind, uid.eid().as_ref())
    };
    let mut above: Vec<&EntityUID> = entity.ancestors().collect();
    let mut seen: HashSet<&EntityUID> = above.iter().copied().collect();
    let mut at = 0;
    while let Some(uid) = above.get(at).copied() {
        at += 1;
        let further = entities.get(uid).into_iter().flat_map(Entity::ancestors);
        above.extend(further.filter(|uid| seen.insert(uid)));
    }
    let uid = entity.uid();
    let kind = store.kind_of(&uid.entity_type().to_string()).ok_or_else(|| format!("`{uid}` is of no known type"))?;
    let id = SmolStr::new(uid.eid());
    let own = store.find(kind, &id);
    let mut parents: Vec<EntityIndex> = match (snapshot.resource(kind, &id), own) {
        (ResourceName::Resource(resource), _) => store.parents(&resource).to_vec(),
        (_, Some(own)) => store.record(own).parents.to_vec(),
        _ => Vec::new(),
    };
    parents.extend(above.iter().filter_map(|uid| index(uid)));
    parents.sort_unstable();
    parents.dedup();
    let closure = store.closure(&parents);
    if seen.contains(uid) || own.is_some_and(|own| closure.contains(&own)) {
        return Err(format!("`{uid}` is, through its parents, its own parent"));
    }
    let mut ancestors: HashSet<EntityUID> = above.into_iter().cloned().collect();
    ancestors.extend(closure.iter().map(|index| store.core_uid(*index)));
    let closed = Entity::new_with_attr_partial_value(
        uid.clone(),
        entity.attrs().map(|(name, value)| (name.clone(), value.clone())),
        HashSet::new(),
        ancestors,
        entity.tags().map(|(name, value)| (name.clone(), value.clone())),
    );
    let labels = |name: &str| strings(entity.get(name));
    let given = Given { own, tags: labels("tags"), roles: labels("roles"), entity: Arc::new(closed) };
    Ok(Subject::Stranger { kind, id, parents, given: Some(Arc::new(given)) })
}
