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

/// Whoever proves to be in a team by a token, and asks about itself.
fn with_a_token(team: &str) -> std::sync::Arc<tollgate::model::Identity> {
    let method = tollgate::model::AuthMethod::Jwt;
    let mut identity = tollgate::model::Identity::new("User::\"ann\"".parse().unwrap(), method);
    identity.said.teams = Box::new([team.into()]);
    std::sync::Arc::new(identity)
}

#[test]
fn who_asks_about_itself_is_one_entity_with_what_its_token_says() {
    let rules =
        "teams: [{id: blocked}, {id: staff}]\nusers: [{id: ann}]\nauthz_rules: [{users: [ann], models: [a/m]}]\n";
    let native =
        "@id(\"own\") permit(principal, action == Action::\"view_usage\", resource) when { principal in resource };
@id(\"no\") forbid(principal, action == Action::\"view_usage\", resource)
when { context.now > datetime(\"1960-01-01\") && (principal in Team::\"blocked\" || resource.tags.contains(\"x\")) };
@id(\"literal\") forbid(principal, action == Action::\"chat\", resource)
when { context.now > datetime(\"1960-01-01\") && User::\"ann\" in Team::\"blocked\" };";
    let snapshot = loaded(&[("r.yaml", rules), ("own.cedar", native)]);
    let asked = |team: &str, action: &str, resource: &str| {
        let request = Request::proved(with_a_token(team), action, resource.parse().unwrap());
        decide(&snapshot, &Facts::at(Timestamp::from_millis(0)), &request).unwrap().code
    };
    let own = "User::\"ann\"";
    assert_eq!(asked("staff", "view_usage", own), DecisionCode::Permitted);
    assert_eq!(asked("blocked", "view_usage", own), DecisionCode::ForbiddenByRule);
    // A literal is the same entity, whether another rule reads the principal or not.
    assert_eq!(asked("staff", "chat", "Model::\"a/m\""), DecisionCode::Permitted);
    assert_eq!(asked("blocked", "chat", "Model::\"a/m\""), DecisionCode::ForbiddenByRule);
}

#[test]
fn keys_of_users_are_in_their_group_where_only_a_condition_names_it() {
    let rules = "authz_rules: [{users: [ann], models: [a/m]}]\n";
    let native = "@id(\"no\") forbid(principal, action == Action::\"chat\", resource)
when { context.now > datetime(\"1960-01-01\") && principal in OwnerKind::\"User\" };";
    let snapshot = loaded(&[("r.yaml", rules), ("own.cedar", native)]);
    let method = tollgate::model::AuthMethod::ApiKey;
    let mut key = tollgate::model::Identity::new("ApiKey::\"k\"".parse().unwrap(), method);
    key.owner = Some("User::\"ann\"".parse().unwrap());
    let request = Request::proved(std::sync::Arc::new(key), "chat", "Model::\"a/m\"".parse().unwrap());
    let made = decide(&snapshot, &Facts::at(Timestamp::from_millis(0)), &request).unwrap();
    assert_eq!(made.code, DecisionCode::ForbiddenByRule);
}

#[test]
fn what_a_key_is_not_narrowed_by_is_not_printed_as_a_policy_that_never_matches() {
    let rules = "keys: [{id: k, hash: x, owner: 'User::\"ann\"', models: ['a/*'], routers: '*'}]\nauthz_rules: [{users: [ann], models: [a/m]}]\n";
    let printed = loaded(&[("r.yaml", rules)]).to_cedar();
    assert!(printed.contains("key:k:models") && !printed.contains("key:k:routers"), "{printed}");
    loaded(&[("r.yaml", "keys: [{id: k, hash: x, owner: 'User::\"ann\"'}]\n"), ("own.cedar", &printed)]);
}
