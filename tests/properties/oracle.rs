//! Cedar's own authorizer over the whole set of policies and every entity: what the index has to agree with.

use std::collections::BTreeSet;

use cedar_policy::{AuthorizationError, Authorizer, Context, Entities, EntityUid, PolicySet, Request, Schema};
use serde_json::{Map, Value, json};
use tollgate::Facts;
use tollgate::gate::{Evaluation, Question, RequestContext, evaluate};
use tollgate::model::Effect;
use tollgate::policy::entities::Subject;
use tollgate::policy::index::RuleIndex;
use tollgate::policy::snapshot::{ResourceName, Snapshot};

/// What the rules say: which permit, which forbid, which raise an error.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub permits: BTreeSet<String>,
    pub forbids: BTreeSet<String>,
    pub errors: BTreeSet<String>,
}

/// A snapshot and, beside it, what Cedar is asked with.
pub struct Oracle<'a> {
    snapshot: &'a Snapshot,
    /// By effect, so that Cedar tells of each which match: a forbid that matches would hide the permits.
    permits: PolicySet,
    forbids: PolicySet,
    schema: &'a Schema,
    entities: Entities,
}

/// One question, to both.
pub struct Asked<'a> {
    pub principal: Subject,
    pub action: &'a str,
    pub resource: Subject,
    /// What the request tells.
    pub context: &'a Map<String, Value>,
    pub facts: &'a Facts,
}

impl<'a> Oracle<'a> {
    pub fn new(snapshot: &'a Snapshot, policies: &PolicySet, schema: &'a Schema) -> Self {
        let of = |effect| {
            let policies = policies.policies().filter(|policy| policy.effect() == effect).cloned();
            PolicySet::from_policies(policies).unwrap()
        };
        let entities = snapshot.entities().map(|entity| cedar_policy::Entity::from(entity.as_ref().clone()));
        let entities = entities.filter(|entity| entity.uid().type_name().basename() != "Action");
        let entities = Entities::from_entities(entities, Some(schema)).expect("the entities fit the schema");
        let (permits, forbids) = (of(cedar_policy::Effect::Permit), of(cedar_policy::Effect::Forbid));
        Self { snapshot, permits, forbids, schema, entities }
    }

    /// What Cedar says; `name` gives each policy the id that ours has. `None` where Cedar does not take the request.
    pub fn cedar(&self, asked: &Asked<'_>, name: impl Fn(&str) -> String) -> Option<Verdict> {
        let snapshot = self.snapshot;
        let uid = |subject: &Subject| EntityUid::from(snapshot.entity(subject).uid().clone());
        let action = &snapshot.schema().action_at(snapshot.schema().action(asked.action)?)?;
        let action_uid = EntityUid::from(action.uid.as_ref().clone());
        let members = if action.tollgate_context { told(asked.context, asked.facts) } else { asked.context.clone() };
        let context = Context::from_json_value(Value::Object(members), Some((self.schema, &action_uid))).ok()?;
        let (principal, resource) = (uid(&asked.principal), uid(&asked.resource));
        let mut own: Vec<cedar_policy::Entity> = Vec::new();
        for subject in [&asked.principal, &asked.resource] {
            let entity = cedar_policy::Entity::from(snapshot.entity(subject).as_ref().clone());
            let known = self.entities.get(&entity.uid()).is_some() || own.iter().any(|one| one.uid() == entity.uid());
            // A principal that nobody declares is there, if its type is one that the crate knows to fill.
            if !known {
                own.push(in_its_account(entity));
            }
        }
        if action.tollgate_context {
            own.push(metadata(asked.context));
        }
        let entities = self.entities.clone().add_entities(own, None).unwrap();
        let request = Request::new(principal, action_uid, resource, context, Some(self.schema)).ok()?;
        let mut verdict = Verdict::default();
        for (policies, matching) in [(&self.permits, &mut verdict.permits), (&self.forbids, &mut verdict.forbids)] {
            let response = Authorizer::new().is_authorized(&request, policies, &entities);
            matching.extend(response.diagnostics().reason().map(|id| name(id.as_ref())));
            let errors = response.diagnostics().errors();
            verdict.errors.extend(
                errors.map(|AuthorizationError::PolicyEvaluationError(error)| name(error.policy_id().as_ref())),
            );
        }
        Some(verdict)
    }

    /// What the index says; `None` where Tollgate does not take the request.
    pub fn ours(&self, asked: &Asked<'_>, name: impl Fn(RuleIndex) -> String) -> Option<Verdict> {
        let snapshot = self.snapshot;
        let action = snapshot.schema().action(asked.action)?;
        let context = RequestContext::check(
            &asked.context.clone().into(),
            snapshot.schema().action_at(action)?,
            snapshot.schema(),
        )
        .ok()?;
        let Evaluation { permits, forbids, errors } = evaluate(&Question {
            snapshot,
            principal: &asked.principal,
            action: Some(action),
            resource: &asked.resource,
            context: &context,
            facts: asked.facts,
            additional: None,
        });
        assert!(permits.iter().all(|index| snapshot.reference(*index).effect == Effect::Permit));
        Some(Verdict {
            permits: permits.into_iter().map(&name).collect(),
            forbids: forbids.into_iter().map(&name).collect(),
            errors: errors.into_iter().map(|(index, _)| name(index)).collect(),
        })
    }
}

/// Whom or what a uid of a request stands for; `None` for a model that is refused before any rule.
pub fn subject(snapshot: &Snapshot, uid: &tollgate::EntityUid) -> Option<Subject> {
    if uid.kind() != "Model" {
        return snapshot.subject(uid);
    }
    match snapshot.model(&uid.id().into()) {
        ResourceName::Resource(subject) => Some(subject),
        ResourceName::Disabled(_) | ResourceName::Unknown => None,
    }
}

/// The context that a condition sees, from what the request tells and what Tollgate knows: by the documentation.
fn told(context: &Map<String, Value>, facts: &Facts) -> Map<String, Value> {
    let extension = |name: &str, argument: &str| json!({"__extn": {"fn": name, "arg": argument}});
    let mut members = context.clone();
    if let Some(Value::String(ip)) = context.get("ip") {
        members.insert("ip".to_owned(), extension("ip", ip));
    }
    members.insert("metadata".to_owned(), json!({"__entity": {"type": "Metadata", "id": "request"}}));
    members.insert("now".to_owned(), extension("datetime", &facts.now.to_string()));
    let budget = json!({"used_percent": facts.budget.used_percent, "remaining_micros": facts.budget.remaining_micros});
    members.insert("budget".to_owned(), budget);
    let rate =
        json!({"remaining_requests": facts.rate.remaining_requests, "remaining_tokens": facts.rate.remaining_tokens});
    members.insert("rate".to_owned(), rate);
    members.insert("limits".to_owned(), json!({}));
    members.insert("auth".to_owned(), json!({"method": "asserted"}));
    members
}

/// A model is in its account, which is what stands before the first `/` of its name: by the documentation, whoever names
/// either of them.
fn in_its_account(entity: cedar_policy::Entity) -> cedar_policy::Entity {
    let uid = entity.uid();
    let Some((account, _)) = uid.id().unescaped().split_once('/').filter(|_| uid.type_name().basename() == "Model")
    else {
        return entity;
    };
    let mut json = entity.to_json_value().unwrap();
    let parent = json!({"type": "ProviderAccount", "id": account});
    let parents = json["parents"].as_array_mut().unwrap();
    if !parents.contains(&parent) {
        parents.push(parent);
    }
    cedar_policy::Entity::from_json_value(json, None).unwrap()
}

fn metadata(context: &Map<String, Value>) -> cedar_policy::Entity {
    let tags = context.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let entity = json!({"uid": {"type": "Metadata", "id": "request"}, "attrs": {}, "parents": [], "tags": tags});
    cedar_policy::Entity::from_json_value(entity, None).unwrap()
}
