//! Limits in bundles that change: as text, and all that can be seen of them in a snapshot.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::{Value, json};
use tollgate::model::{LimitFacts, Unit};
use tollgate::policy::entities::Subject;
use tollgate::policy::limits::BoundLimit;
use tollgate::policy::{Bundle, Loaded, Loader, load};
use tollgate::{Facts, Request, Snapshot};

use crate::oracle::subject;
use crate::tape::Tape;
use crate::world::{bundle, now, uid};

/// An item of a bundle, by its section.
type Item = (&'static str, String);

const PEOPLE: [&str; 8] = ["u0", "u1", "u2", "u4", "u7", "u8", "s0", "k0"];
const MODELS: [&str; 8] = ["a0/m0", "a1/m1", "a0/only-limits", "wild/m0", "new/only-limits", "a*/m*", "al1", "*"];

/// Some limits, and rules that read them.
pub fn items(tape: &mut Tape) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let count = tape.below(4);
    for number in 0..count {
        items.push(("limits", limit(tape, &format!("l{number}"))));
    }
    for number in 0..tape.below(3).min(count) {
        items.push(("authz_rules", reader(tape, &format!("reads{number}"), count)));
    }
    items
}

/// A limit of this id, of any kind.
pub fn limit(tape: &mut Tape, id: &str) -> String {
    let mut said: Vec<(&str, Value)> = vec![("id", json!(id))];
    let all = if tape.chance(20) { "*" } else { *tape.pick(&["u1", "u9", "u7"]) };
    match tape.below(7) {
        0 => said.push(("users", json!([all]))),
        1 => said.push(("services", json!([*tape.pick(&["s0", "s1", "s9", "*"])]))),
        2 => said.push(("keys", json!([*tape.pick(&["k0", "k1", "k9", "*"])]))),
        3 => said.push(("tags", json!([*tape.pick(&["gpu", "eu", "pilot"])]))),
        4 => said.push(("roles", json!([*tape.pick(&["admin", "dev"])]))),
        5 if tape.chance(30) => said.push(("teams", json!([*tape.pick(&["t0", "t1"])]))),
        5 => said.push(("orgs", json!([*tape.pick(&["o0", "o1"])]))),
        _ => said.push(("users", json!(tape.several(&PEOPLE, 3)))),
    }
    match tape.below(7) {
        0 | 1 => said.push(("models", json!([*tape.pick(&MODELS)]))),
        2 => said.push(("provider_accounts", json!([*tape.pick(&["a0", "wild", "elsewhere"])]))),
        3 => said.push(("model_tags", json!([*tape.pick(&["gpu", "eu"])]))),
        4 if tape.chance(30) => said.push(("model_groups", json!([*tape.pick(&["g0", "g1"])]))),
        4 => said.push(("routers", json!(["*"]))),
        _ => {}
    }
    if tape.chance(30) {
        said.push(("actions", json!(tape.several(&["chat", "embed", "list", "use"], 2))));
    }
    if tape.chance(40) {
        said.push(("each", json!(*tape.pick(&["user", "team", "key", "model", "metadata.env"]))));
    }
    said.push(match tape.below(4) {
        0 => ("budget", json!({"usd": tape.below(9), "every": "day"})),
        1 => ("budget", json!({"tokens": tape.below(9) * 100, "rolling": "1h"})),
        2 => ("rate", json!({"requests": 1 + tape.below(9), "every": "minute"})),
        _ => ("concurrency", json!(1 + tape.below(3))),
    });
    if tape.chance(15) {
        said.push(("description", json!("for people")));
    }
    let said: Vec<String> = said.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{{{}}}", said.join(", "))
}

/// A rule whose condition reads one of the first `count` limits, which may not be there, or count something else.
pub fn reader(tape: &mut Tape, id: &str, count: usize) -> String {
    let limit = format!("l{}", if tape.chance(3) { 9 } else { tape.below(count) });
    let member = if tape.chance(85) { "used_percent" } else { *tape.pick(&["used", "used_micros"]) };
    let asks = format!("context.limits has {limit}");
    let reads = format!("context.limits.{limit}.{member} < {}", tape.pick(&[1, 50, 100]));
    let (effect, condition) = match tape.below(3) {
        0 => ("permit", format!("{asks} && {reads}")),
        1 => ("permit", format!("{asks} && {reads} || principal.tags.contains(\"gpu\")")),
        _ => ("forbid", format!("{asks} && !({reads})")),
    };
    format!(
        "{{\"id\": \"{id}\", effect: {effect}, users: \"*\", models: [\"{}\"], when: {}}}",
        tape.pick(&["*", "a0/*", "*/m0"]),
        json!(condition)
    )
}

/// An account whose model has a price, or another.
pub fn priced(tape: &mut Tape) -> String {
    let price = match tape.below(3) {
        0 => String::new(),
        number => format!(", price: {{input: {number}, output: 3}}"),
    };
    format!("provider_accounts:\n  - {{id: wild, models: [{{name: m0{price}}}]}}\n")
}

/// What there is to know of a limit, apart from whom it binds on what.
fn shown(bound: &BoundLimit) -> String {
    let BoundLimit { limit, each, payers, description, file, line, .. } = bound;
    format!("{limit:?} {each:?} {payers:?} {description:?} {file}:{line}")
}

fn ids(limits: &[&BoundLimit]) -> Vec<String> {
    limits.iter().map(|bound| bound.limit.id.to_string()).collect()
}

/// Whether two snapshots of one bundle have the same limits, for everyone.
pub fn equal(tape: &mut Tape, one: &Snapshot, other: &Snapshot) -> TestCaseResult {
    let all = |snapshot: &Snapshot| -> Vec<String> { snapshot.limits().all().iter().map(shown).collect() };
    prop_assert_eq!(all(one), all(other));
    prop_assert_eq!(one.counts().limits, one.limits().all().len());
    prop_assert_eq!(one.reads_meters(), other.reads_meters());
    let known = |snapshot: &Snapshot| {
        let known = |bound: &&BoundLimit| snapshot.limits().get(&bound.limit.id).is_some();
        snapshot.limits().all().iter().filter(known).count()
    };
    prop_assert_eq!(known(one), one.limits().all().len());
    for _ in 0..16 {
        let kind = |name: &str| match name.chars().next() {
            Some('s') => "Service",
            Some('k') => "ApiKey",
            _ => "User",
        };
        let name = *tape.pick(&["u0", "u1", "u2", "u4", "u7", "u8", "u9", "u99", "s0", "s1", "s9", "k0", "k1", "k9"]);
        let principal = uid(&format!("{}::\"{name}\"", kind(name)));
        let model = *tape.pick(&["a0/m0", "a1/m1", "a0/only-limits", "wild/m0", "wild/m3", "new/only-limits", "x/y"]);
        let model = uid(&format!("Model::\"{model}\""));
        let router = tape.chance(30).then(|| uid(&format!("Router::\"c{}\"", tape.below(2))));
        let action = *tape.pick(&["chat", "embed", "list"]);
        let seen = |snapshot: &Snapshot| -> Option<(Vec<String>, Vec<String>, String)> {
            let principal = subject(snapshot, &principal)?;
            let router: Option<Subject> = router.as_ref().and_then(|router| subject(snapshot, router));
            let mine = ids(&snapshot.limits_of(&principal));
            let model = subject(snapshot, &model)?;
            let action = snapshot.schema().action(action)?;
            let bound = ids(&snapshot.limits_for(&principal, &model, router.as_ref(), action));
            Some((mine, bound, format!("{:?} {:?}", snapshot.price(&model), matches!(principal, Subject::Known(_)))))
        };
        prop_assert_eq!(seen(one), seen(other));
    }
    Ok(())
}

/// The facts with what is known of some limits.
pub fn known(tape: &mut Tape, snapshot: &Snapshot, facts: Facts) -> Facts {
    let of = |bound: &BoundLimit, used_percent: i64| {
        let unit: Unit = bound.limit.unit();
        let facts = LimitFacts { unit, limit: 100, used: used_percent, held: 0, remaining: 0, used_percent };
        (bound.limit.id.clone(), facts)
    };
    let some = tape.some(snapshot.limits().all(), 3);
    Facts { limits: some.iter().map(|bound| of(bound, *tape.pick(&[0, 49, 50, 100]))).collect(), ..facts }
}

fn files(files: &[(&str, &str)]) -> Bundle {
    bundle(&files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect::<Vec<_>>())
}

/// The limits that bind this user with a model.
fn bound(loaded: &Loaded, user: &str) -> Vec<String> {
    let snapshot = &loaded.snapshot;
    let (user, model) = (uid(&format!("User::\"{user}\"")), uid("Model::\"a/m\""));
    let (user, model) = (subject(snapshot, &user).unwrap(), subject(snapshot, &model).unwrap());
    ids(&snapshot.limits_for(&user, &model, None, snapshot.schema().action("chat").unwrap()))
}

#[test]
fn limits_follow_every_reload() {
    let rules = "authz_rules:\n  - {id: r, users: [a], models: [a/m], when: 'context.limits has l && context.limits.l.used < 5'}\n";
    let people = "teams: [{id: t}]\nusers: [{id: a, team: t}, {id: b}]\n";
    let limits = "limits:\n  - {id: l, teams: [t], concurrency: 3}\n  - {id: m, users: [named], concurrency: 1}\n";
    let mut loader = Loader::default();
    let mut next = |people: &str, rules: &str, limits: &str| {
        let bundle = files(&[("limits.yaml", limits), ("people.yaml", people), ("rules.yaml", rules)]);
        let (kept, fresh) = (loader.load(&bundle), load(&bundle));
        let told = |loaded: &Result<Loaded, Vec<_>>| match loaded {
            Ok(loaded) => crate::told(&loaded.problems),
            Err(problems) => crate::told(problems),
        };
        assert_eq!(told(&kept), told(&fresh));
        kept.map_err(|problems| crate::told(&problems))
    };
    let known = |loaded: &Loaded| matches!(subject(&loaded.snapshot, &uid("User::\"named\"")), Some(Subject::Known(_)));
    let first = next(people, rules, limits).unwrap();
    assert_eq!(
        (bound(&first, "a"), bound(&first, "b"), bound(&first, "named")),
        (vec!["l".into()], vec![], vec!["m".into()])
    );
    assert!(first.snapshot.reads_meters() && known(&first));
    assert_eq!(first.snapshot.counts().limits, 2);

    // A rule changes; then who is in a team, with the limits' file as it was.
    let other_rules = rules.replace("users: [a]", "users: [b, c]");
    let second = next(people, &other_rules, limits).unwrap();
    assert_eq!((bound(&second, "a"), bound(&second, "named")), (vec!["l".into()], vec!["m".into()]));
    let other_people = "users: [{id: b, team: t}, {id: a}]\nteams: [{id: s}, {id: t}]\n";
    let third = next(other_people, &other_rules, limits).unwrap();
    assert_eq!((bound(&third, "a"), bound(&third, "b")), (vec![], vec!["l".into()]));

    // A limit changes, and the files of rules and people do not.
    let fourth = next(other_people, &other_rules, &limits.replace("teams: [t]", "users: [a]")).unwrap();
    assert_eq!((bound(&fourth, "a"), bound(&fourth, "b")), (vec!["l".into()], vec![]));
    let capped = next(other_people, &other_rules, &limits.replace("concurrency: 3", "concurrency: 2")).unwrap();
    assert_eq!(capped.snapshot.limits().get("l").unwrap().limit.cap.get(), 2);

    // What an unchanged rule reads is called otherwise, or counts something else.
    let renamed = next(other_people, &other_rules, &limits.replace("id: l", "id: other")).unwrap_err();
    assert!(renamed.contains("no limit is called `l`"), "{renamed}");
    let money = limits.replace("concurrency: 3", "budget: {usd: 3, every: day}, unpriced: free");
    let money = next(other_people, &other_rules, &money).unwrap_err();
    assert!(money.contains("rules.yaml") && money.contains("`used_micros`"), "{money}");

    // Two of one id, in two files.
    let again = format!("{other_people}limits: [{{id: l, users: [b], concurrency: 1}}]\n");
    let twice = next(&again, &other_rules, limits).unwrap_err();
    assert!(twice.contains("two limits are called `l`") && twice.contains("limits.yaml:2"), "{twice}");

    // The name that one limit had is nobody's again.
    let fewer = limits.replace("users: [named]", "users: [somebody]");
    let fewer = next(other_people, &other_rules, &fewer).unwrap();
    assert!(!known(&fewer));
    let none = next(other_people, "authz_rules:\n  - {users: [a], models: [a/m]}\n", "# none\n").unwrap();
    assert!(!none.snapshot.reads_meters() && none.snapshot.limits().all().is_empty());
    assert!(bound(&none, "a").is_empty() && none.snapshot.counts().limits == 0);
    let request = Request::new(uid("User::\"a\""), "chat", uid("Model::\"a/m\""));
    assert!(crate::decided(&none.snapshot, &Facts::at(now()), &request).is_permit());
}
