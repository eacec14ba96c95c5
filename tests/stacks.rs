//! An answer must not depend on whose thread decides, and no file may end the process: Cedar's evaluator gives up with an
//! error where the stack is short, and its parser ends the process where text is nested too deeply.

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

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tollgate::gate::decide;
use tollgate::policy::{Bundle, Loaded, Problem, SourceFile, load};
use tollgate::{Decision, DecisionCode, Facts, Request, Snapshot, Timestamp};

const KIB: usize = 1024;
const STACKS: [usize; 6] = [64 * KIB, 128 * KIB, 512 * KIB, 2048 * KIB, 4096 * KIB, 8192 * KIB];
/// As long as a refusal may take. Unoptimised, on a machine with more to do, all takes longer.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 300 } else { 2 });

fn bundle(files: &[(&str, String)]) -> Bundle {
    Bundle::new(files.iter().map(|(path, text)| SourceFile::new(*path, text.as_bytes()).unwrap()).collect())
}

fn rules(text: &str) -> (&'static str, String) {
    ("rules.yaml", format!("authz_rules:\n  - {{id: all, users: \"*\", models: \"*\"}}\n{text}"))
}

fn ask(snapshot: &Snapshot) -> Decision {
    let request = Request::new(r#"User::"alice""#.parse().unwrap(), "chat", r#"Model::"a/m""#.parse().unwrap());
    decide(snapshot, &Facts::at(Timestamp::from_millis(0)), &request).unwrap()
}

/// The decision of `snapshot`, which must be the same on every stack.
fn on_every_stack(snapshot: &Arc<Snapshot>) -> Decision {
    let on = |bytes: usize| {
        let snapshot = Arc::clone(snapshot);
        thread::Builder::new().stack_size(bytes).spawn(move || ask(&snapshot)).unwrap().join().unwrap()
    };
    let decisions: Vec<Decision> = STACKS.iter().map(|bytes| on(*bytes)).collect();
    for (decision, bytes) in decisions.iter().zip(STACKS) {
        assert_eq!(decision, &decisions[0], "with {bytes} bytes of stack");
    }
    decisions.into_iter().next().unwrap()
}

fn when(condition: &str) -> String {
    format!("  - {{id: no, effect: forbid, users: \"*\", models: \"*\", when: '{condition}'}}\n")
}

fn native(condition: &str) -> (&'static str, String) {
    ("own.cedar", format!("@id(\"no\")\nforbid(principal, action, resource is Model) when {{ {condition} }};"))
}

fn loaded(files: &[(&str, String)]) -> Arc<Snapshot> {
    load(&bundle(files)).map(|loaded| loaded.snapshot).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Loads, and says how it went; in the time that it may take.
fn soon(name: &str, files: &[(&str, String)]) -> Result<Loaded, Vec<Problem>> {
    let bundle = bundle(files);
    let began = Instant::now();
    let outcome = load(&bundle);
    let took = began.elapsed();
    assert!(took < SOON, "{name}: {took:?}");
    println!(
        "{name}: {took:?}, {}",
        outcome.as_ref().map_or_else(
            |problems| problems.iter().find(|problem| problem.is_error()).unwrap().to_string(),
            |_| "loads".into()
        )
    );
    outcome
}

fn refused(name: &str, files: &[(&str, String)]) {
    let problems = soon(name, files).err().unwrap_or_else(|| panic!("{name} loads"));
    assert!(problems.iter().any(Problem::is_error), "{name}: {problems:?}");
    assert!(problems.len() <= 1_001, "{name}: {} problems", problems.len());
}

#[test]
fn deep_conditions_come_to_the_same_on_every_stack() {
    let terms = |count: usize, term: &str, between: &str| vec![term; count].join(between);
    // As deep as is let through; one of them false at its very end.
    let deep = [
        terms(254, "resource.name like \"a/*\"", " && "),
        format!("{} || resource.name == \"a/m\"", terms(250, "resource.name == \"b\"", " || ")),
        format!("{}0 < 1", "0 + ".repeat(250)),
        format!("{}true{}", "(".repeat(60), ")".repeat(60)),
        format!("{}true", "if resource.name == \"a/m\" then true else ".repeat(60)),
    ];
    for condition in &deep {
        let snapshot = loaded(&[rules(&when(condition))]);
        assert_eq!(on_every_stack(&snapshot).code, DecisionCode::ForbiddenByRule, "{}", &condition[..40]);
        let snapshot = loaded(&[rules(""), native(condition)]);
        assert_eq!(on_every_stack(&snapshot).code, DecisionCode::ForbiddenByRule, "native {}", &condition[..40]);
    }
}

#[test]
fn many_parts_come_to_the_same_on_every_stack() {
    // A list of conditions is as one of them deep, however long it is.
    let list: Vec<String> = (0..2_000).map(|number| format!("context.budget.used_percent < {}", number + 1)).collect();
    let list = serde_json::to_string(&list).unwrap();
    let rule = format!("  - {{id: no, effect: forbid, users: \"*\", models: \"*\", when: {list}}}\n");
    let snapshot = loaded(&[rules(&rule)]);
    assert_eq!(on_every_stack(&snapshot).code, DecisionCode::ForbiddenByRule);
    let chain = vec!["resource.name like \"a/*\""; 500].join(" && ");
    assert_eq!(on_every_stack(&loaded(&[rules(""), native(&chain)])).code, DecisionCode::ForbiddenByRule);
}

#[test]
fn a_forbid_of_five_hundred_terms_is_refused_or_forbids_on_every_stack() {
    let or = |term: &dyn Fn(usize) -> String| (0..500).map(term).collect::<Vec<_>>().join(" || ");
    let named =
        or(&|number| format!("resource.name == \"a/{}\"", if number == 499 { "m".into() } else { number.to_string() }));
    let scope = or(&|number| {
        format!("resource == Model::\"a/{}\"", if number == 499 { "m".into() } else { number.to_string() })
    });
    for (name, files) in [
        ("names in YAML", vec![rules(&when(&named))]),
        ("uids in YAML", vec![rules(&when(&scope))]),
        ("names in Cedar", vec![rules(""), native(&named)]),
        ("uids in Cedar", vec![rules(""), native(&scope)]),
    ] {
        match soon(name, &files) {
            Err(problems) => assert!(problems.iter().any(Problem::is_error), "{name}: {problems:?}"),
            Ok(loaded) => {
                assert_eq!(on_every_stack(&loaded.snapshot).code, DecisionCode::ForbiddenByRule, "{name}");
            }
        }
    }
}

#[test]
fn what_is_nested_beyond_measure_is_refused_and_ends_nothing() {
    let around = |left: &str, inner: &str, right: &str, count: usize| {
        format!("{}{inner}{}", left.repeat(count), right.repeat(count))
    };
    let conditions = [
        ("parentheses", around("(", "true", ")", 160)),
        ("many parentheses", around("(", "true", ")", 100_000)),
        ("sets", around("[", "1", "]", 5_000)),
        ("records", around("{\"a\": ", "1", "}", 5_000)),
        ("calls", around("ip(", "\"::1\"", ")", 5_000)),
        ("not", format!("{}true", "!".repeat(20_000))),
        ("minus", format!("{}1 == 1", "-".repeat(20_000))),
        ("or", format!("{}true", "false || ".repeat(50_000))),
        ("and", format!("{}true", "true && ".repeat(50_000))),
        ("plus", format!("{}1 == 1", "1 + ".repeat(50_000))),
        ("if", format!("{}true", "if true then true else ".repeat(50_000))),
        ("if without spaces", format!("{}(true)", "if(true)then(true)else ".repeat(50_000))),
        ("if and a line", format!("{}(true)", "if\n(true)then(true)else\n".repeat(50_000))),
        ("if and a comment", format!("{}(true)", "if//\n(true)then(true)else ".repeat(50_000))),
        ("if in the test", format!("{}true{}", "if ".repeat(20_000), " then true else true".repeat(20_000))),
        ("members", format!("context{} == 1", ".budget".repeat(50_000))),
        ("methods", format!("context{}", ".contains(1)".repeat(50_000))),
        ("has", format!("context has a{}", ".a".repeat(50_000))),
        ("is", format!("principal is A{}", "::A".repeat(50_000))),
        ("like", format!("principal like \"{}\"", "*".repeat(100_000))),
        ("comparisons", format!("1 {}", "< 1 ".repeat(50_000))),
        ("what is no Cedar", "if(true)then(true)else".repeat(20_000)),
        ("what is not at all", "x y ".repeat(50_000)),
        ("in", format!("principal {}", "in principal ".repeat(50_000))),
    ];
    for (name, condition) in &conditions {
        refused(&format!("{name} in Cedar"), &[rules(""), native(condition)]);
        let quoted = serde_json::to_string(condition).unwrap();
        let rule = format!("  - {{id: no, effect: forbid, users: \"*\", models: \"*\", when: {quoted}}}\n");
        refused(&format!("{name} in YAML"), &[rules(&rule)]);
    }
}

#[test]
fn mistakes_by_the_thousand_are_told_soon() {
    let many = |policy: &str| [rules(""), ("own.cedar", policy.repeat(1_000))];
    refused("policies that do not parse", &many("permit(principal, action resource);\n"));
    refused("policies that are not valid", &many("permit(principal, action, resource) when { principal.nothing };\n"));
    refused("templates", &many("permit(principal == ?principal, action, resource);\n"));
}

#[test]
fn what_is_nearly_too_deep_ends_nothing_either() {
    let around = |left: &str, inner: &str, right: &str, count: usize| {
        format!("{}{inner}{}", left.repeat(count), right.repeat(count))
    };
    for (name, condition) in [
        ("parentheses", around("(", "true", ")", 62)),
        ("sets", format!("{} == [1]", around("[", "1", "]", 62))),
        ("records", format!("{} == {{}}", around("{\"a\": ", "1", "}", 61))),
        ("or", format!("{}true", "resource.name == \"x\" || ".repeat(1_300))),
        ("plus", format!("{}1 == 1", "1 + ".repeat(4_000))),
        ("if", format!("{}true", "if principal.roles == [\"a\"] then true else ".repeat(1_300))),
        ("members", format!("context{} == 1", ".budget".repeat(4_000))),
    ] {
        // Refused or not: what loads decides alike everywhere.
        if let Ok(loaded) = soon(&format!("{name} in Cedar"), &[rules(""), native(&condition)]) {
            on_every_stack(&loaded.snapshot);
        }
    }
}

#[test]
fn deep_schemas_and_entities_are_refused_and_end_nothing() {
    let own = "entity Doc in [Doc] { a: Set<Long> };\naction read appliesTo { principal: [User], resource: [Doc], context: {} };\n";
    let sets = |count: usize| format!("entity Doc {{ a: {}Long{} }};", "Set<".repeat(count), ">".repeat(count));
    for count in [100, 2_000, 50_000] {
        refused(&format!("{count} sets in a schema"), &[rules(""), ("own.cedarschema", sets(count))]);
    }
    let records = format!("entity Doc {{ a: {}Long{} }};", "{ a: ".repeat(5_000), "}".repeat(5_000));
    refused("records in a schema", &[rules(""), ("own.cedarschema", records)]);
    let types: String = (0..3_000).map(|number| format!("type T{number} = Set<T{}>;\n", number + 1)).collect();
    let types = format!("{types}type T3000 = Long;\nentity Doc {{ a: T0 }};");
    refused("types of types", &[rules(""), ("own.cedarschema", types)]);
    let doubled: String =
        (0..40).map(|number| format!("type D{number} = {{ a: D{}, b: D{} }};\n", number + 1, number + 1)).collect();
    let doubled = format!("{doubled}type D40 = Long;\nentity Doc {{ a: D0 }};");
    refused("types that double", &[rules(""), ("own.cedarschema", doubled)]);
    let four = |number: usize| format!("a: F{number}, b: F{number}, c: F{number}, d: F{number}");
    let fourfold: String = (0..20).map(|number| format!("type F{number} = {{ {} }};\n", four(number + 1))).collect();
    let fourfold = format!("{fourfold}type F20 = Long;\nentity Doc {{ a: F0 }};");
    refused("types that grow fourfold", &[rules(""), ("own.cedarschema", fourfold)]);
    let actions: String = (0..3_000).map(|number| format!("action a{number} in [a{}];\n", number + 1)).collect();
    refused("action groups", &[rules(""), ("own.cedarschema", format!("{actions}action a3000;"))]);
    for count in [200, 100_000] {
        let entity = format!(
            "[{{\"uid\": {{\"type\": \"Doc\", \"id\": \"d\"}}, \"parents\": [], \"attrs\": {{\"a\": {}{}}}}}]",
            "[".repeat(count),
            "]".repeat(count)
        );
        refused(
            &format!("{count} lists in JSON"),
            &[rules(""), ("own.cedarschema", own.into()), ("e.entities.json", entity)],
        );
        let lists = format!("{}{}", "[".repeat(count), "]".repeat(count));
        refused(&format!("{count} lists of nothing"), &[rules(""), ("e.entities.json", lists)]);
        refused(
            &format!("{count} lists in YAML"),
            &[("r.yaml", format!("authz_rules: {}{}", "[".repeat(count), "]".repeat(count)))],
        );
        let blocks: String = (0..count.min(2_000)).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        refused(&format!("{count} blocks in YAML"), &[("r.yaml", blocks)]);
    }
}

#[test]
fn long_chains_of_groups_are_refused_soon() {
    for count in [1_000, 10_000] {
        let teams = |first: usize| -> String {
            let one = |number: usize| format!("  - {{id: t{number}, parent: t{}}}\n", number + 1);
            (first..count).map(one).collect::<String>() + &format!("  - {{id: t{count}}}\n")
        };
        refused(&format!("{count} teams"), &[rules(&format!("teams:\n{}", teams(0)))]);
        let circle = teams(0).replace(&format!("{{id: t{count}}}"), &format!("{{id: t{count}, parent: t0}}"));
        refused(&format!("{count} teams in a circle"), &[rules(&format!("teams:\n{circle}"))]);
        let folders: Vec<_> = (0..count)
            .map(|number| {
                let uid = |number: usize| serde_json::json!({"type": "Folder", "id": number.to_string()});
                serde_json::json!({"uid": uid(number), "attrs": {}, "parents": [uid(number + 1)]})
            })
            .collect();
        let schema = "entity Folder in [Folder];".to_owned();
        refused(
            &format!("{count} folders"),
            &[rules(""), ("own.cedarschema", schema), ("f.entities.json", serde_json::to_string(&folders).unwrap())],
        );
    }
}
