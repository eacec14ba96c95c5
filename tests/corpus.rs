//! Cedar's published corpus: each request must be decided through the index as Cedar's own authorizer decides it over
//! the whole set, and as the corpus expects. `CEDAR_CORPUS` names the unpacked folder, of the form of
//! <https://github.com/cedar-policy/cedar-integration-tests>: four files a case.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Schema, SchemaFragment};
use serde::Deserialize;
use serde_json::Value;
use tollgate::Facts;
use tollgate::Timestamp;
use tollgate::gate::{Evaluation, Question, RequestContext, evaluate};
use tollgate::model::Effect;
use tollgate::policy::load::unchecked;
use tollgate::policy::snapshot::Snapshot;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    policies: String,
    entities: String,
    schema: String,
    requests: Vec<Ask>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    description: String,
    principal: Uid,
    action: Uid,
    resource: Uid,
    context: Value,
    #[serde(default = "yes")]
    validate_request: bool,
    decision: Answer,
    reason: BTreeSet<String>,
    errors: BTreeSet<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Allow,
    Deny,
}

#[derive(Deserialize)]
struct Uid {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

fn yes() -> bool {
    true
}

impl Uid {
    fn cedar(&self) -> EntityUid {
        EntityUid::from_type_name_and_id(self.kind.parse().unwrap(), cedar_policy::EntityId::new(&self.id))
    }
}

/// A decision: what was decided, by which policies, and which erred.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    decision: Answer,
    reason: BTreeSet<String>,
    errors: BTreeSet<String>,
}

#[derive(Default)]
struct Count {
    cases: usize,
    requests: usize,
    allowed: usize,
    errors: usize,
    forbid_errors: usize,
    refused: usize,
}

#[test]
fn corpus_of_cedar_is_decided_as_cedar_decides_it() {
    let Some(folder) = std::env::var_os("CEDAR_CORPUS").map(PathBuf::from) else {
        println!("left out: Cedar's corpus (CEDAR_CORPUS names no folder)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI runs Cedar's corpus: set CEDAR_CORPUS");
        return;
    };
    let mut count = Count::default();
    let mut wrong = Vec::new();
    for path in cases(&folder) {
        count.cases += 1;
        if let Err(difference) = check(&path, &mut count) {
            wrong.push(format!("{}: {difference}", path.display()));
        }
    }
    let Count { cases, requests, allowed, errors, forbid_errors, refused } = count;
    println!(
        "Cedar's corpus: {cases} cases, {requests} requests ({allowed} allowed, {errors} with errors, {forbid_errors} of \
         them of a forbid; {refused} refused, their action not being in the schema), {} different",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(requests > 0, "no case was found in {}", folder.display());
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let inner = folder.join("corpus-tests");
    let folder = if inner.is_dir() { inner } else { folder.to_owned() };
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().is_some_and(|path| path.ends_with(".json") && !path.ends_with(".entities.json")));
    paths.sort();
    paths
}

fn check(path: &Path, count: &mut Count) -> Result<(), String> {
    let case: Case = serde_json::from_str(&fs::read_to_string(path).unwrap()).map_err(|error| error.to_string())?;
    // The paths of a case begin at the corpus' root.
    let root = path.parent().and_then(Path::parent).unwrap();
    let read = |name: &str| fs::read_to_string(root.join(name)).map_err(|error| format!("{name}: {error}"));
    let text = read(&case.policies)?;
    let policies: PolicySet = text.parse().map_err(|error| format!("{error}"))?;
    let fragment = SchemaFragment::from_cedarschema_str(&read(&case.schema)?).map_err(|error| format!("{error}"))?.0;
    let schema: Schema = fragment.try_into().map_err(|error| format!("{error}"))?;
    let entities = entities(&read(&case.entities)?, &schema)?;
    let snapshot = unchecked(&policies, &schema, &entities).map_err(|problems| format!("{problems:?}"))?;
    // What `compile` prints decides the same.
    let printed: PolicySet = snapshot.to_cedar().parse().map_err(|error| format!("as printed: {error}"))?;
    for ask in &case.requests {
        count.requests += 1;
        let differs = |what: &str, left: &Verdict, right: &Verdict| {
            Err(format!("{}: {what}\n  {left:?}\n  {right:?}", ask.description))
        };
        let published = Verdict { decision: ask.decision, reason: ask.reason.clone(), errors: ask.errors.clone() };
        let request = request(ask, &schema)?;
        let live = authorized(&policies, &request, &entities);
        if live != published {
            return differs("Cedar itself differs from what is published", &live, &published);
        }
        let again = authorized(&printed, &request, &entities);
        if again != live {
            return differs("Cedar says another thing to the policies as printed", &again, &live);
        }
        let Some(evaluation) = through_index(&snapshot, ask, &schema)? else {
            count.refused += 1;
            continue;
        };
        let ours = verdict(&snapshot, &evaluation);
        count.allowed += usize::from(live.decision == Answer::Allow);
        count.errors += usize::from(!live.errors.is_empty());
        let erred = |(index, _): &(tollgate::policy::index::RuleIndex, String)| {
            snapshot.reference(*index).effect == Effect::Forbid
        };
        count.forbid_errors += usize::from(evaluation.errors.iter().any(erred));
        if ours != live {
            return differs("the index differs from Cedar", &ours, &live);
        }
    }
    Ok(())
}

fn entities(text: &str, schema: &Schema) -> Result<Entities, String> {
    Entities::from_json_str(text, Some(schema)).map_err(|error| error.to_string())
}

fn request(ask: &Ask, schema: &Schema) -> Result<Request, String> {
    let (principal, action, resource) = (ask.principal.cedar(), ask.action.cedar(), ask.resource.cedar());
    let context = context(ask, schema)?;
    let schema = ask.validate_request.then_some(schema);
    Request::new(principal, action, resource, context, schema).map_err(|error| error.to_string())
}

fn context(ask: &Ask, schema: &Schema) -> Result<Context, String> {
    let action = ask.action.cedar();
    let schema = ask.validate_request.then_some((schema, &action));
    Context::from_json_value(ask.context.clone(), schema).map_err(|error| error.to_string())
}

fn authorized(policies: &PolicySet, request: &Request, entities: &Entities) -> Verdict {
    let response = Authorizer::new().is_authorized(request, policies, entities);
    let name = |id: &cedar_policy::PolicyId| id.to_string();
    Verdict {
        decision: if response.decision() == Decision::Allow { Answer::Allow } else { Answer::Deny },
        reason: response.diagnostics().reason().map(name).collect(),
        errors: response
            .diagnostics()
            .errors()
            .map(|cedar_policy::AuthorizationError::PolicyEvaluationError(error)| name(error.policy_id()))
            .collect(),
    }
}

/// What the rules say, by the index; `None` where the schema lacks the action, which Tollgate refuses to be asked about.
fn through_index(snapshot: &Snapshot, ask: &Ask, schema: &Schema) -> Result<Option<Evaluation>, String> {
    let Some(action) = snapshot.schema().action(&ask.action.cedar().to_string()) else { return Ok(None) };
    let subject = |uid: &Uid| {
        let uid = tollgate::EntityUid::of_native(&uid.cedar());
        snapshot.subject(&uid).ok_or_else(|| format!("no type is called `{}`", uid.kind()))
    };
    let context = context(ask, schema)?;
    Ok(Some(evaluate(&Question {
        snapshot,
        principal: &subject(&ask.principal)?,
        action: Some(action),
        resource: &subject(&ask.resource)?,
        context: &RequestContext::Native(AsRef::<cedar_policy_core::ast::Context>::as_ref(&context).clone()),
        facts: &Facts::at(Timestamp::from_millis(0)),
        additional: None,
    })))
}

/// An evaluation in Cedar's terms, where a forbid that erred says nothing.
fn verdict(snapshot: &Snapshot, evaluation: &Evaluation) -> Verdict {
    let Evaluation { permits, forbids, errors } = evaluation;
    let name = |index: &tollgate::policy::index::RuleIndex| {
        assert!(index.position() < snapshot.counts().rules);
        format!("policy{}", index.position())
    };
    let allowed = forbids.is_empty() && !permits.is_empty();
    Verdict {
        decision: if allowed { Answer::Allow } else { Answer::Deny },
        reason: (if forbids.is_empty() { permits } else { forbids }).iter().map(name).collect(),
        errors: errors.iter().map(|(index, _)| name(index)).collect(),
    }
}
