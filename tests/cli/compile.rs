//! What `compile` prints decides as the bundle does: as Cedar beside the same people and models, and, with what `--out`
//! writes, in Cedar's own engine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{Authorizer, Context, Entities, EntityUid as CedarUid, PolicySet, Schema};
use serde_json::{Map, Value, json};
use tollgate::policy::{self, Bundle, Snapshot, SourceFile};
use tollgate::{Facts, Outcome, Request, Timestamp, gate};

use super::{entries, root};

/// More than the examples have: keys, comments in conditions, texts that look like Cedar, entities of JSON.
const MORE: &[(&str, &str)] = &[
    (
        "people.yaml",
        r#"
orgs: [{ id: acme, tags: [big] }, { id: gone, expires_at: 2026-01-01T00:00:00.250Z }]
teams: [{ id: research, org: acme }, { id: away, org: acme, disabled: true }]
users:
  - { id: alice, team: research, metadata: { region: eu } }
  - { id: bob, team: away }
  - { id: eve, org: gone, tags: [t] }
services: [{ id: bot, team: { id: research, role: lead }, tags: [t] }]
keys:
  - { id: k1, hash: x, owner: 'User::"alice"', models: ["a/*"] }
  - { id: k2, hash: x, owner: 'Service::"bot"', routers: [r], actions: [chat] }
  - { id: k3, hash: x, owner: 'User::"bob"', tags: [t] }
  - { id: k4, hash: x, owner: 'User::"alice"', actions: [use, admin] }
  - { id: k5, hash: x, owner: 'User::"alice"', actions: [use], models: "*" }
  - { id: k6, hash: x, owner: 'User::"alice"', models: ["a/*"], routers: "*" }
  - { id: k7, hash: x, owner: 'User::"alice"', models: "*", routers: [r] }
"#,
    ),
    (
        "models.yaml",
        r#"
provider_accounts:
  - { id: a, tags: [t], models: [m, { name: n/x, tags: [u], max_output_tokens: 9 }, { name: off, enabled: false, aliases: [o] }] }
  - { id: b, models: [m] }
model_groups: [{ id: g, models: ["*/m"] }]
routers: [{ id: r, models: [a/m], tags: [t] }]
"#,
    ),
];
const RULES: &str = r#"
authz_rules:
  - { users: "*", models: ["a/*"], actions: [chat] }
  - { id: "odd \" \\ id", services: "*", tags: [t], model_groups: [g], routers: "*" }
  - id: lines
    orgs: [acme, gone]
    models: "*"
    model_tags: [t, u]
    actions: [embed]
    when: |
      // every line
      principal.hasTag("region") && // stays
      principal.getTag("region") == "eu  // no comment"

      || context.budget.used_percent < 50
  - { id: no, effect: forbid, keys: ["k1"], models: ["a/n/*", "*/x*"], unless: [context has ip, "context.rate.remaining_requests > 3"] }
  - { id: open, users: [stranger], models: ["c/d", "c/*"] }
"#;

fn load(files: &[(&str, &str)]) -> Arc<Snapshot> {
    let files = files.iter().map(|(path, text)| SourceFile::new(*path, text.as_bytes()).unwrap()).collect();
    let loaded = policy::Loader::new(false).admin_policies(true).load(&Bundle::new(files));
    loaded.unwrap_or_else(|problems| panic!("{}", policy::report::text(&problems, false))).snapshot
}

/// The YAML file without its rules.
fn without_rules(text: &str) -> String {
    text.split_once("authz_rules:").map_or(text, |(before, _)| before).to_owned()
}

/// Runs `compile` on a bundle of these files, in a folder of its own.
fn compile(files: &[(&str, &str)], arguments: &[&str]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join("policies").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let output = command.arg("compile").args(arguments).current_dir(&folder).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, String::from_utf8(output.stdout).unwrap())
}

fn contexts() -> Vec<Map<String, Value>> {
    let all = [
        json!({}),
        json!({"ip": "10.70.0.1", "max_output_tokens": 100, "metadata": {"env": "prod"}}),
        json!({"ip": "192.168.0.1", "max_output_tokens": 1000, "metadata": {"env": "test"}}),
    ];
    all.into_iter().map(|one| one.as_object().unwrap().clone()).collect()
}

fn facts() -> Vec<Facts> {
    let at = |text: &str| Facts::at(Timestamp::parse(text).unwrap());
    let mut spent = at("2026-03-01T09:00:00Z");
    spent.budget.used_percent = 85;
    vec![at("2025-12-31T23:00:00Z"), at("2026-03-01T09:00:00Z"), spent]
}

const PRINCIPALS: [&str; 3] = ["User", "Service", "ApiKey"];
const USED: [&str; 2] = ["Model", "Router"];
const MANAGED: [&str; 4] = ["Org", "Team", "User", "Service"];

/// Every request about the entities of the bundle, and some about none of them.
fn requests(snapshot: &Snapshot, strangers: bool) -> Vec<Request> {
    let entities: Vec<tollgate::EntityUid> = snapshot
        .entities_json()
        .unwrap()
        .iter()
        .map(|entity| {
            let part = |name: &str| entity["uid"][name].as_str().unwrap().to_owned();
            tollgate::EntityUid::new(part("type"), part("id")).unwrap()
        })
        .collect();
    let unknown = [
        "User::\"nobody\"",
        "ApiKey::\"none\"",
        "Model::\"openai-main/x\"",
        "Model::\"new/llama-1\"",
        "Router::\"no\"",
    ];
    let unknown = unknown.iter().filter(|_| strangers).map(|text| text.parse().unwrap());
    let all: Vec<tollgate::EntityUid> = entities.into_iter().chain(unknown).collect();
    let of = |kinds: &'static [&'static str]| all.iter().filter(move |uid| kinds.contains(&uid.kind()));
    let mut requests = Vec::new();
    for principal in of(&PRINCIPALS) {
        for (actions, kinds) in
            [(["chat", "embed", "list"], &USED[..]), (["view_usage", "manage_members", "manage_keys"], &MANAGED)]
        {
            for action in actions {
                requests.extend(of(kinds).map(|resource| Request::new(principal.clone(), action, resource.clone())));
            }
        }
    }
    requests
}

fn rules(decision: &tollgate::Decision) -> Vec<&str> {
    let mut rules: Vec<&str> = decision.rules.iter().map(|rule| rule.id.as_str()).collect();
    rules.sort_unstable();
    // What narrows a key stands in the output, and is made of the key beside it again.
    rules.dedup();
    rules
}

/// The output of `compile`, beside the same people and models, decides every request the same by the same rules.
fn check_fed_back(files: &[(&str, &str)], beside: &[(&str, &str)]) {
    let (_folder, cedar) = compile(files, &[]);
    let again: Vec<(&str, &str)> = beside.iter().copied().chain([("compiled.cedar", cedar.as_str())]).collect();
    let (first, second) = (load(files), load(&again));
    let requests = requests(&first, true);
    let (mut permits, contexts) = (0, contexts());
    for facts in facts() {
        for context in &contexts {
            for request in &requests {
                let request = request.clone().with_context(context.clone());
                let expected = gate::decide(&first, &facts, &request).unwrap();
                let decision = gate::decide(&second, &facts, &request).unwrap();
                assert_eq!(decision.code, expected.code, "{request:?}\n{cedar}");
                assert_eq!(rules(&decision), rules(&expected), "{request:?}");
                permits += usize::from(decision.is_permit());
            }
        }
    }
    assert!(permits > 50, "only {permits} permits");
}

/// What `--out` writes decides every request about entities of the bundle the same, in Cedar's own engine.
fn check_elsewhere(files: &[(&str, &str)]) {
    let (folder, _) = compile(files, &["--out", "out"]);
    let read = |name: &str| fs::read_to_string(folder.path().join("out").join(name)).unwrap();
    let (schema, _) = Schema::from_cedarschema_str(&read("schema.cedarschema")).unwrap();
    let policies = PolicySet::from_str(&read("policies.cedar")).unwrap();
    let entities = read("entities.json");
    let snapshot = load(files);
    let (requests, contexts) = (requests(&snapshot, false), contexts());
    let mut permits = 0;
    // Cedar looks at every policy for every request: not each context at each time, then.
    for (facts, told) in facts().iter().zip(&contexts) {
        let entities = with_metadata(&entities, told, &schema);
        let context = context_elsewhere(told, facts);
        for request in &requests {
            let request = request.clone().with_context(told.clone());
            let expected = gate::decide(&snapshot, facts, &request).unwrap();
            let made = elsewhere(&request, context.clone(), &policies, &entities);
            assert_eq!(made, expected.outcome, "{request:?} {expected:?}");
            permits += usize::from(expected.is_permit());
        }
    }
    assert!(permits > 50, "only {permits} permits");
}

/// The entities, and the one that stands for the request's metadata.
fn with_metadata(entities: &str, context: &Map<String, Value>, schema: &Schema) -> Entities {
    let mut list: Vec<Value> = serde_json::from_str(entities).unwrap();
    let tags = context.get("metadata").cloned().unwrap_or_else(|| json!({}));
    list.push(json!({"uid": {"type": "Metadata", "id": "request"}, "attrs": {}, "parents": [], "tags": tags}));
    Entities::from_json_value(Value::Array(list), Some(schema)).unwrap()
}

/// What Tollgate would have put into the context.
fn context_elsewhere(told: &Map<String, Value>, facts: &Facts) -> Context {
    let mut context = told.clone();
    if let Some(ip) = context.remove("ip") {
        context.insert("ip".to_owned(), json!({"__extn": {"fn": "ip", "arg": ip}}));
    }
    let (budget, rate) = (facts.budget, facts.rate);
    let known = json!({
        "now": {"__extn": {"fn": "datetime", "arg": facts.now.to_string()}},
        "budget": {"used_percent": budget.used_percent, "remaining_micros": budget.remaining_micros},
        "rate": {"remaining_requests": rate.remaining_requests, "remaining_tokens": rate.remaining_tokens},
        "limits": {},
        "auth": {"method": facts.auth.as_str()},
        "metadata": {"__entity": {"type": "Metadata", "id": "request"}},
    });
    context.extend(known.as_object().unwrap().clone());
    Context::from_json_value(Value::Object(context), None).unwrap()
}

fn elsewhere(request: &Request, context: Context, policies: &PolicySet, entities: &Entities) -> Outcome {
    let uid = |uid: &tollgate::EntityUid| CedarUid::from_str(&uid.to_string()).unwrap();
    let action = CedarUid::from_str(&format!("Action::\"{}\"", request.action)).unwrap();
    let asked = cedar_policy::Request::new(uid(&request.principal), action, uid(&request.resource), context, None);
    match Authorizer::new().is_authorized(&asked.unwrap(), policies, entities).decision() {
        cedar_policy::Decision::Allow => Outcome::Permit,
        cedar_policy::Decision::Deny => Outcome::Forbid,
    }
}

fn example() -> Vec<(String, String)> {
    fn collect(folder: &Path, files: &mut Vec<(String, String)>) {
        for path in entries(folder) {
            if path.is_dir() {
                collect(&path, files);
            } else {
                let name = path.strip_prefix(root().join("policies")).unwrap().display().to_string();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut files = Vec::new();
    collect(&root().join("policies"), &mut files);
    files
}

fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

#[test]
fn the_example_fed_back_decides_the_same() {
    let files = example();
    let yaml = files.iter().filter(|(path, _)| Path::new(path).extension().is_some_and(|ending| ending == "yaml"));
    let beside: Vec<(String, String)> = yaml.map(|(path, text)| (path.clone(), without_rules(text))).collect();
    check_fed_back(&borrowed(&files), &borrowed(&beside));
}

#[test]
fn more_than_the_example_fed_back_decides_the_same() {
    check_fed_back(&[MORE, &[("rules.yaml", RULES)]].concat(), MORE);
}

#[test]
fn the_example_decides_the_same_elsewhere() {
    check_elsewhere(&borrowed(&example()));
}

#[test]
fn more_than_the_example_decides_the_same_elsewhere() {
    check_elsewhere(&[MORE, &[("rules.yaml", RULES)]].concat());
}

/// Equal bundles give equal files, whatever order a hash table has.
#[test]
fn what_is_written_does_not_change_by_itself() {
    let files = [MORE, &[("rules.yaml", RULES)]].concat();
    let read = || {
        let (folder, _) = compile(&files, &["--out", "out"]);
        ["policies.cedar", "schema.cedarschema", "entities.json"]
            .map(|name| fs::read_to_string(folder.path().join("out").join(name)).unwrap())
    };
    assert_eq!(read(), read());
}
