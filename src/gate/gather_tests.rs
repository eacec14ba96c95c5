use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::model::{Facts, Timestamp};
use crate::policy::snapshot::ResourceName;
use crate::policy::{Bundle, Snapshot, SourceFile, load};

const PEOPLE: &str = r#"
orgs: [{ id: acme }, { id: globex }]
teams:
  - { id: research, org: acme, tags: [gpu] }
  - { id: vision, parent: research }
  - { id: ops, org: acme }
  - { id: lab, org: globex }
users:
  - { id: alice, teams: [research, ops] }
  - { id: bob, team: vision }
  - { id: ian, org: acme }
  - { id: eve, teams: [ops, lab] }
services: [{ id: bot, team: ops }]
keys:
  - { id: alices, hash: x, owner: 'User::"alice"' }
  - { id: bots, hash: x, owner: 'Service::"bot"' }
  - { id: teams, hash: x, owner: 'Team::"ops"' }
provider_accounts:
  - { id: a, tags: [dear], models: [m, { name: n, price: { input: 1, output: 2 } }] }
routers: [{ id: r, models: [a/m] }]
authz_rules: [{ users: "*", models: "*" }]
"#;

fn snapshot(limits: &str) -> std::sync::Arc<Snapshot> {
    let text = format!("{PEOPLE}limits:\n{limits}");
    let loaded = load(&Bundle::new(vec![SourceFile::new("rules.yaml".to_owned(), text.into_bytes()).unwrap()]));
    loaded.unwrap_or_else(|problems| panic!("{problems:?}")).snapshot
}

/// The limits that apply to a request, each with the meters that it charges.
fn applied(snapshot: &Snapshot, who: &str, what: &str, action: &str, context: &Value) -> BTreeMap<String, Vec<String>> {
    let subject = |text: &str| match text.strip_prefix("Model::") {
        Some(name) => match snapshot.model(&name.trim_matches('"').into()) {
            ResourceName::Resource(subject) => subject,
            other => panic!("{other:?}"),
        },
        None => snapshot.subject(&text.parse().unwrap()).unwrap(),
    };
    let (resource, router) = match what.split_once(" through ") {
        Some((resource, router)) => (subject(resource), Some(subject(router))),
        None => (subject(what), None),
    };
    let action = snapshot.schema.action(action).unwrap();
    let context = RequestContext::check(
        &context.as_object().unwrap().clone().into(),
        snapshot.schema.action_at(action).unwrap(),
        &snapshot.schema,
    )
    .unwrap();
    let facts = Facts::at(Timestamp::from_millis(0));
    let question = Question {
        snapshot,
        principal: &subject(who),
        action: Some(action),
        resource: &resource,
        context: &context,
        facts: &facts,
        additional: None,
    };
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in applicable(question.snapshot, &question, router.as_ref()) {
        let subject = one.subject.map_or_else(|| "shared".to_owned(), |subject| subject.to_string());
        found.entry(one.limit.limit.id.to_string()).or_default().push(subject);
    }
    found
}

const M: &str = r#"Model::"a/m""#;

#[track_caller]
fn check(limit: &str, who: &str, context: &Value, expected: &[&str]) {
    let snapshot = snapshot(&format!("  - {{ id: x, concurrency: 1, {limit} }}\n"));
    let what = format!("{M} through Router::\"r\"");
    let found = applied(&snapshot, who, &what, "chat", context);
    let found = found.get("x").cloned().unwrap_or_default();
    assert_eq!(found, expected, "{limit} for {who}");
}

#[test]
fn each_says_whose_meters_are_charged() {
    let none = &json!({});
    let (alice, bob, ian, eve) = (r#"User::"alice""#, r#"User::"bob""#, r#"User::"ian""#, r#"User::"eve""#);
    let (key, bot, bots, teams) =
        (r#"ApiKey::"alices""#, r#"Service::"bot""#, r#"ApiKey::"bots""#, r#"ApiKey::"teams""#);
    let (research, ops) = (r#"Team::"research""#, r#"Team::"ops""#);
    check("everyone: true", alice, none, &["shared"]);
    check("everyone: true, each: user", alice, none, &[alice]);
    check("everyone: true, each: user", key, none, &[alice]);
    check("everyone: true, each: user", bots, none, &[bot]);
    check("everyone: true, each: service", bots, none, &[bot]);
    check("everyone: true, each: service", alice, none, &[alice]);
    check("everyone: true, each: key", key, none, &[key]);
    check("everyone: true, each: key", alice, none, &[alice]);
    check("everyone: true, each: model", alice, none, &[M]);
    check("everyone: true, each: router", alice, none, &[r#"Router::"r""#]);
    check("everyone: true, each: org", bob, none, &[r#"Org::"acme""#]);
    check("everyone: true, each: org", eve, none, &[r#"Org::"acme""#, r#"Org::"globex""#]);
    check("orgs: [globex], each: org", eve, none, &[r#"Org::"globex""#]);
    check("teams: [lab], each: org", eve, none, &[r#"Org::"globex""#]);
    check("everyone: true, each: team", alice, none, &[ops, research]);
    check("everyone: true, each: team", key, none, &[ops, research]);
    check("everyone: true, each: team", teams, none, &[ops]);
    check("everyone: true, each: team", ian, none, &[ian]);
    check("teams: [research], each: team", alice, none, &[research]);
    check("teams: [research], each: team", bob, none, &[r#"Team::"vision""#]);
    check("orgs: [acme], each: team", eve, none, &[ops]);
    check("users: [alice], each: team", alice, none, &[ops, research]);
    for odd in [r#"User::"o\"x""#, r#"User::"a b""#, r#"User::"zoë""#] {
        check("everyone: true, each: user", odd, none, &[odd]);
    }
    check(r#"users: ["zoe"], each: team"#, r#"User::"zoe""#, none, &[r#"User::"zoe""#]);
}

#[test]
fn the_request_names_who_pays() {
    let (alice, bob) = (r#"User::"alice""#, r#"User::"bob""#);
    let pays = |team: &str| json!({"team": team});
    let (research, ops) = (r#"Team::"research""#, r#"Team::"ops""#);
    check("everyone: true, each: team", alice, &pays("ops"), &[ops]);
    check("everyone: true, each: team", bob, &pays("research"), &[research]);
    // Not one of the caller's, and not one that the limit means: neither opens another meter.
    check("everyone: true, each: team", alice, &pays("lab"), &[ops, research]);
    check("everyone: true, each: team", alice, &pays("nobody"), &[ops, research]);
    check("teams: [research], each: team", alice, &pays("ops"), &[research]);
    let told = json!({"end_user": "a\"b", "metadata": {"project": "p1"}});
    check("everyone: true, each: end_user", alice, &told, &[r#"context.end_user::"a\"b""#]);
    check("everyone: true, each: metadata.project", alice, &told, &[r#"context.metadata.project::"p1""#]);
    check("everyone: true, each: metadata.other", alice, &told, &[alice]);
    check("everyone: true, each: end_user", alice, &json!({}), &[alice]);
    let (fits, long) = ("x".repeat(128), "x".repeat(129));
    let named = format!("context.end_user::\"{fits}\"");
    check("everyone: true, each: end_user", alice, &json!({ "end_user": fits }), &[&named]);
    let named = "context.end_user::sha256:0ec9eb33e74510bcdd1f2ea55206e82f21649c5c2becbf2b433eb475b34c01bd";
    let told = json!({ "end_user": long });
    check("everyone: true, each: end_user", alice, &told, &[named]);
}

#[test]
fn limits_bind_by_the_selectors_of_rules() {
    let snapshot = snapshot(
        r#"
  - { id: users, users: "*", concurrency: 1 }
  - { id: services, services: "*", concurrency: 1 }
  - { id: gpu, tags: [gpu], concurrency: 1 }
  - { id: research, teams: [research], concurrency: 1 }
  - { id: dear, model_tags: [dear], concurrency: 1 }
  - { id: router, routers: [r], concurrency: 1 }
  - { id: routers-models, routers: "*", models: [a/n], concurrency: 1 }
  - { id: n, models: [a/n], concurrency: 1 }
  - { id: bob-on-m, users: [bob], models: ["a/m"], concurrency: 1 }
  - { id: embed, everyone: true, actions: [embed], concurrency: 1 }
  - { id: listing, everyone: true, actions: [list], concurrency: 1 }
"#,
    );
    let ids = |who: &str, what: &str, action: &str| {
        applied(&snapshot, who, what, action, &json!({})).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(ids(r#"User::"bob""#, M, "chat"), ["bob-on-m", "dear", "gpu", "research", "users"]);
    assert_eq!(ids(r#"ApiKey::"alices""#, M, "embed"), ["dear", "embed", "gpu", "research", "users"]);
    assert_eq!(ids(r#"Service::"bot""#, r#"Model::"a/n""#, "chat"), ["dear", "n", "routers-models", "services"]);
    let through = format!("{M} through Router::\"r\"");
    assert_eq!(ids(r#"Service::"bot""#, &through, "chat"), ["dear", "router", "routers-models", "services"]);
    assert_eq!(ids(r#"Service::"bot""#, r#"Router::"r""#, "chat"), ["router", "routers-models", "services"]);
    assert_eq!(ids(r#"User::"zoe""#, M, "list"), ["listing"]);
    assert_eq!(ids(r#"User::"zoe""#, M, "chat"), ["dear", "users"]);
    let ResourceName::Resource(model) = snapshot.model(&"a/n".into()) else { panic!("it is declared") };
    assert_eq!(snapshot.price(&model).unwrap().rates.output, 2_000_000);
}

/// Estimates are of the members of an account, and not of any resource whose id looks like the name of one.
#[test]
fn an_account_estimates_for_its_own_members_alone() {
    let text = PEOPLE.replace("tags: [dear]", "tags: [dear], estimate_input_tokens: 7");
    let bundle = Bundle::new(vec![SourceFile::new("rules.yaml".to_owned(), text.into_bytes()).unwrap()]);
    let snapshot = load(&bundle).unwrap().snapshot;
    let estimated = |uid: &str| snapshot.estimates(&snapshot.subject(&uid.parse().unwrap()).unwrap()).input_tokens;
    assert_eq!(estimated(M), Some(7));
    assert_eq!(estimated(r#"Router::"a/m""#), None);
}

/// A limit keeps its meters while what they count and over which time stays the same, and no two limits share any.
#[test]
fn a_series_is_named_by_what_it_counts() {
    let series = |limit: &str| {
        let snapshot = snapshot(&format!("  - {{ id: x, models: [a/n], {limit} }}\n"));
        snapshot.limits().get("x").unwrap().limit.series.to_string()
    };
    assert_eq!(series("budget: { usd: 1, every: month }"), "x:usd:month(1)(UTC)");
    assert_eq!(series("budget: { usd: 2, every: month, carry_over: 5 }, each: user"), "x:usd:month(1)(UTC)");
    assert_eq!(series("budget: { usd: 2, every: month, starts_on: 15 }"), "x:usd:month(15)(UTC)");
    assert_eq!(
        series("budget: { tokens: 2, every: week, timezone: Europe/Berlin }"),
        "x:tokens:week(monday)(Europe/Berlin)"
    );
    assert_eq!(series("budget: { tokens: 2, rolling: 30d }"), "x:tokens:rolling(2592000000ms)");
    assert_eq!(series("rate: { requests: 2, every: minute, burst: 5 }"), "x:requests:rate(60000ms)");
    assert_eq!(series("concurrency: 5"), "x:places:concurrency");
}

#[test]
fn what_is_left_out_is_as_documented() {
    use crate::meter::{Durability, OnStoreError, Override};
    use crate::model::{Amount, Unit};
    let limit = |limit: &str| {
        let snapshot = snapshot(&format!("  - {{ id: x, models: [a/n], {limit} }}\n"));
        meter_limit(&snapshot)
    };
    let amount = |number| Amount::new(number).unwrap();
    let money = limit("budget: { usd: 0.000000150, every: month }, on_store_error: permit, warn_at: [80, 50]");
    assert_eq!((money.unit(), money.cap, money.durability), (Unit::Usd, amount(150), Durability::Sync));
    assert_eq!(money.on_store_error, OnStoreError::Permit(amount(2)));
    assert_eq!(*money.warn_at, [50, 80]);
    let tokens = limit("budget: { tokens: 0, every: day }, on_store_error: { permit: 0 }");
    assert_eq!((tokens.cap, tokens.durability), (Amount::ZERO, Durability::Async));
    assert_eq!(tokens.on_store_error, OnStoreError::Permit(Amount::ZERO));
    let until = "2026-01-02T00:00:00Z";
    let rate = limit(&format!(
        "rate: {{ requests: 60, every: minute, burst: 5 }}, overrides: [{{ requests: 90, until: {until} }}]"
    ));
    let until = Timestamp::parse(until).unwrap();
    assert_eq!(*rate.overrides, [Override { cap: amount(90), flow: Some(amount(90)), from: None, until }]);
    let before = Timestamp::from_millis(until.as_millis() - 1);
    assert_eq!((rate.cap_at(before), rate.flow_at(before)), (amount(90), Some(amount(90))));
    assert_eq!((rate.cap_at(until), rate.flow_at(until)), (amount(5), Some(amount(60))));
}

fn meter_limit(snapshot: &Snapshot) -> crate::meter::Limit {
    crate::meter::Limit::clone(&snapshot.limits().get("x").unwrap().limit)
}

#[test]
fn a_snapshot_tells_whether_conditions_read_meters() {
    let reads = |when: &str| {
        let rules = format!("authz_rules: [{{ users: [a], models: [b/c], when: '{when}' }}]\n");
        let limits = "limits: [{ id: x, users: [a], concurrency: 1 }]\n";
        let file = SourceFile::new("rules.yaml".to_owned(), format!("{rules}{limits}").into_bytes()).unwrap();
        load(&Bundle::new(vec![file])).unwrap().snapshot.reads_meters()
    };
    assert!(!reads("context.now < datetime(\"2026-01-01\")") && !reads("true"));
    assert!(reads("context.budget.used_percent < 5") && reads("context.rate.remaining_tokens > 5"));
    assert!(reads("context.limits has x && context.limits.x.remaining > 1"));
}
