//! Faults that random bundles and odd files turned up, each in its smallest form, so that it stays mended.

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

use tollgate::gate::decide;
use tollgate::policy::{Bundle, ProblemCode, SourceFile, load};
use tollgate::{Decision, DecisionCode, Facts, Request, Snapshot, Timestamp, Told};

fn bundle(files: &[(&str, &str)]) -> Bundle {
    Bundle::new(files.iter().map(|(path, text)| SourceFile::new(*path, text.as_bytes()).unwrap()).collect())
}

fn loaded(files: &[(&str, &str)]) -> std::sync::Arc<Snapshot> {
    load(&bundle(files)).map(|loaded| loaded.snapshot).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn decision(snapshot: &Snapshot, principal: &str, action: &str, resource: &str, context: &str) -> Decision {
    let context: Told = serde_json::from_str(context).unwrap();
    let request = Request::new(principal.parse().unwrap(), action, resource.parse().unwrap()).with_context(context);
    decide(snapshot, &Facts::at(Timestamp::from_millis(0)), &request).unwrap()
}

fn code(snapshot: &Snapshot, principal: &str, action: &str, resource: &str) -> DecisionCode {
    decision(snapshot, principal, action, resource, "{}").code
}

const SCHEMA: &str = "entity Doc { owner: User };
action readers;
action peek in [readers];
action read in [readers] appliesTo { principal: [User], resource: [Doc], context: { who?: User } };
action glance in [read] appliesTo { principal: [User], resource: [Doc], context: { who?: User } };";

const DOC: &str = r#"[{"uid": {"type": "Doc", "id": "d"}, "attrs": {"owner": {"__entity": {"type": "User", "id": "ann"}}}, "parents": []}]"#;

#[test]
fn a_key_narrowed_to_an_action_is_printed_as_narrowed_to_it() {
    let snapshot = loaded(&[(
        "r.yaml",
        "users: [{id: ann}]\nkeys: [{id: k, hash: x, owner: 'User::\"ann\"', actions: [chat]}]\nauthz_rules: [{users: [ann], models: [a/m]}]\n",
    )]);
    assert_eq!(code(&snapshot, "ApiKey::\"k\"", "chat", "Model::\"a/m\""), DecisionCode::Permitted);
    assert_eq!(code(&snapshot, "ApiKey::\"k\"", "embed", "Model::\"a/m\""), DecisionCode::ForbiddenByRule);
    let printed = snapshot.to_cedar();
    let forbid = printed.split("forbid").nth(1).unwrap();
    assert!(!forbid.contains("Action::\"use\"") && !forbid.contains("Action::\"chat\""), "{forbid}");
}

#[test]
fn an_action_without_those_below_it_is_printed_without_them() {
    let narrowed = "keys: [{id: k, hash: x, owner: 'User::\"ann\"', actions: [glance, use]}]\nauthz_rules: [{users: [ann], models: [a/m]}]\n";
    let snapshot = loaded(&[("r.yaml", narrowed), ("own.cedarschema", SCHEMA)]);
    let printed = snapshot.to_cedar();
    let forbid = printed.split("forbid").nth(1).unwrap();
    assert!(forbid.contains("action == Action::\"read\""), "{forbid}");
    assert!(!forbid.contains("Action::\"glance\"") && !forbid.contains("Action::\"readers\""), "{forbid}");
    printed.parse::<cedar_policy::PolicySet>().unwrap();
}

#[test]
fn a_model_that_only_a_native_policy_names_is_in_its_account_and_groups() {
    let rules = "model_groups: [{id: g, models: ['*/secret*']}]
authz_rules:
  - {users: '*', models: '*'}
  - {id: account, effect: forbid, users: [bob], models: ['a/*']}
  - {id: group, effect: forbid, users: [eve], model_groups: [g]}
";
    let native = "permit(principal, action == Action::\"chat\", resource == Model::\"a/secret\");";
    let snapshot = loaded(&[("r.yaml", rules), ("own.cedar", native)]);
    assert_eq!(code(&snapshot, "User::\"bob\"", "chat", "Model::\"a/secret\""), DecisionCode::ForbiddenByRule);
    assert_eq!(code(&snapshot, "User::\"eve\"", "chat", "Model::\"a/secret\""), DecisionCode::ForbiddenByRule);
}

#[test]
fn a_model_of_a_json_file_is_in_its_account_and_has_its_own_name() {
    let rules = "authz_rules:\n  - {users: '*', models: '*'}\n  - {effect: forbid, users: '*', models: ['a/*']}\n";
    let model = |name: &str| {
        format!(
            r#"[{{"uid": {{"type": "Model", "id": "a/m"}}, "attrs": {{"name": "{name}", "tags": []}}, "parents": []}}]"#
        )
    };
    let snapshot = loaded(&[("r.yaml", rules), ("m.entities.json", &model("a/m"))]);
    assert_eq!(code(&snapshot, "User::\"bob\"", "chat", "Model::\"a/m\""), DecisionCode::ForbiddenByRule);
    let problems = load(&bundle(&[("r.yaml", rules), ("m.entities.json", &model("b/m"))])).unwrap_err();
    assert!(problems.iter().any(|problem| problem.code == ProblemCode::EntitiesInvalid), "{problems:?}");
}

#[test]
fn tags_of_a_group_are_not_tags_of_its_models() {
    let rules = "model_groups: [{id: g, tags: [gpu], models: [a/m]}]\nauthz_rules: [{users: '*', model_tags: [gpu]}]\n";
    assert_eq!(
        code(&loaded(&[("r.yaml", rules)]), "User::\"bob\"", "chat", "Model::\"a/m\""),
        DecisionCode::NoRulePermits
    );
}

#[test]
fn actions_that_a_condition_names_have_their_groups() {
    let native = "permit(principal, action == Action::\"read\", resource)
when { (if resource.owner == principal then Action::\"peek\" else Action::\"read\") in Action::\"readers\" };";
    let rules = ("r.yaml", "authz_rules: [{users: [x], models: [a/m]}]\n");
    let snapshot = loaded(&[rules, ("own.cedar", native), ("own.cedarschema", SCHEMA), ("d.entities.json", DOC)]);
    assert_eq!(code(&snapshot, "User::\"ann\"", "read", "Doc::\"d\""), DecisionCode::Permitted);
}

#[test]
fn what_a_rule_sees_of_an_undeclared_principal_depends_on_no_other_rule() {
    // Nobody declares `ann`; she asks, and owns the document.
    let one = "@id(\"one\")\nforbid(principal, action == Action::\"read\", resource) when { resource.owner.tags.contains(\"x\") };";
    let permit = "permit(principal, action == Action::\"read\", resource);";
    let other = "permit(principal, action == Action::\"read\", resource) when { principal.tags.contains(\"y\") };";
    let rules = ("r.yaml", "authz_rules: [{users: [x], models: [a/m]}]\n");
    for own in [format!("{one}\n{permit}"), format!("{one}\n{permit}\n{other}")] {
        let snapshot = loaded(&[rules, ("own.cedar", &own), ("own.cedarschema", SCHEMA), ("d.entities.json", DOC)]);
        assert_eq!(code(&snapshot, "User::\"ann\"", "read", "Doc::\"d\""), DecisionCode::Permitted, "{own}");
    }
}

#[test]
fn help_for_a_name_that_nothing_is_like_is_the_same_each_time() {
    let native = ("own.cedar", "permit(principal, action == Action::\"qqqqqqqq\", resource is Qqqqqqqq);");
    let told = || load(&bundle(&[native])).unwrap_err().into_iter().map(|problem| problem.help).collect::<Vec<_>>();
    let first = told();
    (0..8).for_each(|_| assert_eq!(told(), first));
    assert!(first.iter().flatten().all(|help| !help.contains("did you mean")), "{first:?}");
}

#[test]
fn an_action_with_members_of_the_same_names_has_the_context_it_declares() {
    let schema = "entity Doc;
action read appliesTo { principal: [User], resource: [Doc],
  context: { now: Long, budget: Long, rate: Long, auth: Long, metadata: Long } };";
    let native = "permit(principal, action == Action::\"read\", resource) when { context.now == 7 };";
    let rules = ("r.yaml", "authz_rules: [{users: [x], models: [a/m]}]\n");
    let snapshot = loaded(&[rules, ("own.cedar", native), ("own.cedarschema", schema)]);
    let context = r#"{"now": 7, "budget": 1, "rate": 1, "auth": 1, "metadata": 1}"#;
    let said = decision(&snapshot, "User::\"ann\"", "read", "Doc::\"d\"", context);
    assert_eq!(said.code, DecisionCode::Permitted);
}
