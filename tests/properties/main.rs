//! What holds for every bundle and every request, tried on random ones. `PROPTEST_CASES` raises the number of bundles (256
//! in each property); each is asked many requests.

#![allow(
    clippy::pedantic,
    clippy::explicit_auto_deref,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

mod limits;
mod naive;
mod native;
mod oracle;
mod tape;
mod world;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use cedar_policy::PolicySet;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use tollgate::gate::{decide, decide_candidates};
use tollgate::model::CandidatesRequest;
use tollgate::policy::{Bundle, Loaded, Loader, Problem, load};
use tollgate::{Decision, DecisionCode, EntityUid, Facts, Request, Snapshot};

use oracle::{Asked, Oracle, subject};
use tape::Tape;
use world::{World, bundle, now, uid};

/// Tries `property` on many seeds; a failure is told for the smallest size that fails.
fn hold(name: &str, property: impl Fn(&mut Tape, &Trial) -> TestCaseResult) {
    hold_in(name, 1, property);
}

/// As [`hold`], for a property that is slow to look at: with one bundle where others have `share`.
fn hold_in(name: &str, share: u32, property: impl Fn(&mut Tape, &Trial) -> TestCaseResult) {
    let trial = Trial::default();
    let cases = Config::default().cases.div_ceil(share);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let strategy = (any::<u64>().no_shrink(), 1_usize..=12);
    let outcome = TestRunner::new(config).run(&strategy, |(seed, size)| property(&mut Tape::new(seed, size), &trial));
    println!("{name}: {cases} bundles, {} requests", trial.requests.get());
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
}

/// What the bundles of one property share.
#[derive(Default)]
struct Trial {
    /// Keeps what it parsed and validated, which takes longest.
    loader: RefCell<Loader>,
    requests: Cell<usize>,
}

impl Trial {
    fn load(&self, files: &[(String, String)]) -> Result<Loaded, TestCaseError> {
        let loaded = self.loader.borrow_mut().load(&bundle(files));
        loaded.map_err(|problems| TestCaseError::fail(format!("{}\n{}", told(&problems), texts(files))))
    }

    /// Counts one more request.
    fn asked(&self) {
        self.requests.set(self.requests.get() + 1);
    }
}

fn told(problems: &[Problem]) -> String {
    tollgate::policy::report::text(problems, false)
}

fn texts(files: &[(String, String)]) -> String {
    files.iter().map(|(path, text)| format!("# {path}\n{text}")).collect()
}

fn rule_ids(decision: &Decision) -> BTreeSet<String> {
    decision.rules.iter().map(|rule| rule.id.to_string()).collect()
}

/// A decision without what the order of files and rules changes.
fn gist(decision: &Decision) -> (DecisionCode, BTreeSet<String>, BTreeSet<String>, String) {
    let errors = decision.errors.iter().map(|error| error.rule.id.to_string()).collect();
    (decision.code, rule_ids(decision), errors, decision.resource.to_string())
}

fn decided(snapshot: &Snapshot, facts: &Facts, request: &Request) -> Decision {
    decide(snapshot, facts, request).expect("the schema takes the request")
}

#[test]
fn property_yaml_rules_mean_what_a_naive_reader_says() {
    hold("a naive reader", |tape, trial| {
        let world = World::draw(tape);
        let files = world.files(tape, 2);
        let snapshot = trial.load(&files)?.snapshot;
        for _ in 0..60 {
            trial.asked();
            let (facts, request) = world.request(tape);
            let decision = decided(&snapshot, &facts, &request);
            let said = naive::Said {
                code: decision.code,
                rules: rule_ids(&decision),
                errors: decision.errors.iter().map(|error| error.rule.id.to_string()).collect(),
                principal: decision.principal.to_string(),
                key: decision.key.as_ref().map(EntityUid::to_string),
                resource: decision.resource.to_string(),
            };
            let expected = naive::decide(&world, &facts, &request);
            prop_assert_eq!(&said, &expected, "{:?} {:?}\n{}", request, facts, texts(&files));
        }
        Ok(())
    });
}

#[test]
fn property_compiled_rules_say_in_cedar_what_the_index_says() {
    hold("compiled YAML", |tape, trial| {
        let world = World::draw(tape);
        let files = world.files(tape, 1);
        let snapshot = trial.load(&files)?.snapshot;
        let text = snapshot.to_cedar();
        let policies: PolicySet =
            text.parse().map_err(|error| TestCaseError::fail(format!("{error:?}\n{text}\n{}", texts(&files))))?;
        let oracle = Oracle::new(&snapshot, &policies, &snapshot.schema().schema);
        for _ in 0..12 {
            let (facts, request) = world.request(tape);
            let (Some(principal), Some(resource)) =
                (subject(&snapshot, &request.principal), subject(&snapshot, &request.resource))
            else {
                continue;
            };
            trial.asked();
            let asked = Asked {
                principal,
                action: &request.action,
                resource,
                context: &request.context.to_json(),
                facts: &facts,
            };
            let named = |id: &str| policies.annotation(&id.parse().unwrap(), "id").unwrap().to_owned();
            let cedar = oracle.cedar(&asked, named);
            let ours = oracle.ours(&asked, |index| snapshot.reference(index).id.to_string());
            prop_assert!(ours.is_some());
            prop_assert_eq!(&ours, &cedar, "{:?} {:?}\n{}\n{}", request, facts, text, texts(&files));
        }
        Ok(())
    });
}

/// Conditions of `.cedar` files see what those of YAML do: accounts, models and people that nobody declares among them.
#[test]
fn property_conditions_of_cedar_files_mean_what_a_naive_reader_says() {
    hold("conditions of .cedar files", |tape, trial| {
        let world = World::draw(tape);
        let world = if tape.chance(50) { world.of_people() } else { world };
        let (world, cedar) = world.of_conditions();
        if world.rules.is_empty() {
            return Ok(());
        }
        let mut files = world.without_rules().files(tape, 1);
        files.push(("own.cedar".to_owned(), cedar));
        let snapshot = trial.load(&files)?.snapshot;
        for _ in 0..40 {
            trial.asked();
            let (facts, request) = world.request(tape);
            let decision = decided(&snapshot, &facts, &request);
            let expected = naive::decide(&world, &facts, &request);
            let errors: BTreeSet<String> = decision.errors.iter().map(|error| error.rule.id.to_string()).collect();
            prop_assert_eq!(decision.code, expected.code, "{:?} {:?}\n{}", request, facts, texts(&files));
            prop_assert_eq!(rule_ids(&decision), expected.rules, "{:?} {:?}\n{}", request, facts, texts(&files));
            prop_assert_eq!(errors, expected.errors, "{:?} {:?}\n{}", request, facts, texts(&files));
        }
        Ok(())
    });
}

/// What `compile` prints, beside the same people and models, decides as the bundle does; also where nobody declares the
/// accounts and models that rules name, so that it stands beside people alone.
#[test]
fn property_compiled_rules_fed_back_decide_the_same() {
    hold("compiled rules fed back", |tape, trial| {
        let world = World::draw(tape);
        let world = if tape.chance(50) { world.of_people() } else { world };
        let files = world.files(tape, 1);
        let source = trial.load(&files)?.snapshot;
        let mut beside = world.without_rules().files(tape, 2);
        beside.push(("compiled.cedar".to_owned(), source.to_cedar()));
        let again = trial.load(&beside)?.snapshot;
        for _ in 0..40 {
            trial.asked();
            let (facts, request) = world.request(tape);
            let (left, right) = (decided(&source, &facts, &request), decided(&again, &facts, &request));
            prop_assert_eq!(gist(&left), gist(&right), "{:?} {:?}\n{}", request, facts, texts(&beside));
        }
        Ok(())
    });
}

/// A group that nobody declares does not load, wherever it is named: nobody could be in it.
#[test]
fn property_groups_that_nobody_declares_do_not_load() {
    hold("undeclared groups", |tape, trial| {
        let world = World::draw(tape);
        let group = *tape.pick(&["Team::\"none\"", "Org::\"none\"", "ModelGroup::\"none\"", "Router::\"none\""]);
        let variable = if group.starts_with(['T', 'O']) { "principal" } else { "resource" };
        let kind = if group.starts_with('R') { "Router" } else { "Model" };
        let test = format!("({variable} in {group} || context.budget.used_percent < 0)");
        let policy =
            |test: &str| format!("forbid(principal, action in Action::\"use\", resource is {kind}) when {test};\n");
        let rule = |key: &str| {
            let what = if kind == "Router" { "routers" } else { "models" };
            format!("authz_rules:\n  - {{effect: forbid, users: \"*\", {what}: \"*\", {key}: '{test}'}}\n")
        };
        let (path, text) = match tape.below(5) {
            0 => ("own.yaml", rule("when")),
            1 => ("own.yaml", rule("unless")),
            2 => ("own.cedar", policy(&format!("{{ {test} }}"))),
            3 => (
                "own.cedar",
                policy(&format!("{{ context.stream == true }} unless {{ {test} }}"))
                    .replace("context.stream == true", "true"),
            ),
            _ if variable == "principal" => ("own.cedar", format!("forbid(principal in {group}, action, resource);\n")),
            _ => ("own.cedar", format!("forbid(principal, action, resource in {group});\n")),
        };
        let mut files = world.files(tape, 2);
        files.push((path.to_owned(), text));
        trial.asked();
        let problems = match trial.loader.borrow_mut().load(&bundle(&files)) {
            Ok(_) => return Err(TestCaseError::fail(format!("it loads\n{}", texts(&files)))),
            Err(problems) => problems,
        };
        let told_of = |problem: &Problem| {
            let line = problem.source_line.as_deref().unwrap_or_default();
            let from = line.char_indices().nth(problem.place.column as usize - 1).map_or("", |(at, _)| &line[at..]);
            problem.code == tollgate::policy::ProblemCode::UnknownReference
                && &*problem.file == path
                && from.starts_with(group)
        };
        prop_assert!(problems.iter().any(told_of), "{}\n{}", told(&problems), texts(&files));
        Ok(())
    });
}

#[test]
fn property_order_of_files_and_rules_does_not_matter() {
    hold("order", |tape, trial| {
        let mut world = World::draw(tape);
        let files = world.files(tape, 1);
        let one = trial.load(&files)?.snapshot;
        tape.shuffle(&mut world.rules);
        tape.shuffle(&mut world.users);
        tape.shuffle(&mut world.teams);
        tape.shuffle(&mut world.accounts);
        tape.shuffle(&mut world.groups);
        tape.shuffle(&mut world.routers);
        let others = world.files(tape, 5);
        let other = trial.load(&others)?.snapshot;
        for _ in 0..40 {
            trial.asked();
            let (facts, request) = world.request(tape);
            let (left, right) = (decided(&one, &facts, &request), decided(&other, &facts, &request));
            prop_assert_eq!(gist(&left), gist(&right), "{:?}\n{}\n{}", request, texts(&files), texts(&others));
        }
        Ok(())
    });
}

#[test]
fn property_candidates_are_what_single_questions_permit() {
    hold("candidates", |tape, trial| {
        let world = World::draw(tape);
        let files = world.files(tape, 1);
        let snapshot = trial.load(&files)?.snapshot;
        for _ in 0..12 {
            let (facts, request) = world.request(tape);
            let mut candidates: Vec<EntityUid> = Vec::new();
            while candidates.len() < 6 {
                candidates.extend(Some(world.request(tape).1.resource).filter(|uid| uid.kind() == "Model"));
            }
            let router = (tape.chance(40) && !world.routers.is_empty())
                .then(|| uid(&format!("Router::\"{}\"", tape.pick(&world.routers).id)));
            let single = |resource: &EntityUid| {
                trial.asked();
                let request = Request { resource: resource.clone(), ..request.clone() };
                decided(&snapshot, &facts, &request)
            };
            let list = CandidatesRequest {
                principal: request.principal.clone(),
                identity: None,
                action: request.action.clone(),
                router: router.clone(),
                candidates: candidates.clone(),
                context: request.context.clone(),
            };
            let answer = decide_candidates(&snapshot, &facts, &list).expect("the schema takes the request");
            let gate = router.as_ref().map(single);
            for (asked, given) in candidates.iter().zip(&answer.candidates) {
                let alone = single(asked);
                let Some((router, gate)) = router.as_ref().zip(gate.as_ref()) else {
                    prop_assert_eq!(&given.decision, &alone, "{}", texts(&files));
                    continue;
                };
                // Through a router: it is permitted, it leads there, the model is one, and nothing forbids it.
                let by_list_of_routers = |id: &str| id.starts_with("key:") && id.ends_with(":routers");
                let refused = match alone.code {
                    DecisionCode::PrincipalDisabled | DecisionCode::ModelUnknown | DecisionCode::ModelDisabled => true,
                    DecisionCode::ForbiddenByRule => !alone.rules.iter().all(|rule| by_list_of_routers(&rule.id)),
                    _ => false,
                };
                let forbid_erred = alone.errors.iter().any(|error| error.rule.effect == tollgate::Effect::Forbid);
                let leads = naive::leads(&world, router.id(), alone.resource.id());
                let expected = gate.is_permit() && leads && !refused && !forbid_erred;
                prop_assert_eq!(
                    given.decision.is_permit(),
                    expected,
                    "{:?} through {}: {:?}\n{}",
                    asked,
                    router,
                    given.decision,
                    texts(&files)
                );
            }
            let permitted = answer.candidates.iter().any(|one| one.decision.is_permit());
            prop_assert_eq!(answer.outcome == tollgate::Outcome::Permit, permitted);
        }
        Ok(())
    });
}

/// One edit of someone who works on a bundle; not always a good one.
fn edit(tape: &mut Tape, files: &mut Vec<(String, String)>) {
    let world = World::draw(tape);
    let at = tape.below(files.len());
    match tape.below(18) {
        0 if files.len() > 1 => drop(files.remove(at)),
        1 => files.push((format!("n{}.yaml", tape.below(3)), "authz_rules:\n  - {users: \"*\", models: \"*\"}\n".into())),
        2 => files[at].1.push_str("nonsense: [\n"),
        3 => files[at] = with_limits(tape, &world, 1).remove(0),
        4 if tape.chance(50) => files.push((
            "own.cedar".into(),
            "forbid(principal, action, resource) when { context.budget.used_percent > 90 && resource in ProviderAccount::\"hub\" };"
                .into(),
        )),
        4 => files.push((
            "own.cedar".into(),
            "permit(principal in User::\"u1\", action == Action::\"chat\", resource) when { resource.tags.contains(\"eu\") };"
                .into(),
        )),
        5 => files.push((
            "own.cedarschema".into(),
            "entity Doc; action read appliesTo { principal: [User], resource: [Doc], context: {} };".into(),
        )),
        6 => files.push((
            "own.cedar".into(),
            "forbid(principal, action == Action::\"read\", resource == Doc::\"d\");".into(),
        )),
        7 | 8 => edit_a_line(tape, &mut files[at].1),
        9 => files.push((format!("p{}.yaml", tape.below(2)), people(tape))),
        10 => files.push(("own.entities.json".into(), json_entities(tape))),
        11 => files[at].1.insert_str(0, "# everything is a line further down\n"),
        12 => files.push((format!("l{}.yaml", tape.below(2)), world::yaml(&limits::items(tape)))),
        13 => {
            let id = format!("l{}", tape.below(4));
            let limit = limits::limit(tape, &id);
            files.push((format!("m{}.yaml", tape.below(2)), format!("limits:\n  - {limit}\n")));
        }
        14 => {
            let reader = limits::reader(tape, "reader", 2);
            files.push(("reader.yaml".to_owned(), format!("authz_rules:\n  - {reader}\n")));
        }
        15 => files.push((format!("p{}.yaml", tape.below(2)), limits::priced(tape))),
        16 => {
            let condition = "{ context.limits has \"l0\" && context.limits.l0.used_percent < 50 }";
            files.push(("limited.cedar".into(), format!("permit(principal, action, resource) when {condition};")));
        }
        _ => {
            let rule = world.rules.first().unwrap().yaml().replace("\"r0\"", &format!("\"e{}\"", tape.below(4)));
            files.push((format!("e{}.yaml", tape.below(4)), format!("authz_rules:\n  - {rule}\n")));
        }
    }
    // A path is there once; what was written last stays.
    let mut seen = BTreeSet::new();
    files.reverse();
    files.retain(|(path, _)| seen.insert(path.clone()));
}

/// The bundle as files, with limits in them.
fn with_limits(tape: &mut Tape, world: &World, count: usize) -> Vec<(String, String)> {
    let more = if tape.chance(60) { limits::items(tape) } else { Vec::new() };
    world.files_with(tape, count, more)
}

/// Takes someone, something or a rule away, doubles it, or calls one thing in it otherwise.
fn edit_a_line(tape: &mut Tape, text: &mut String) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let items: Vec<usize> = (0..lines.len()).filter(|line| lines[*line].trim_start().starts_with("- ")).collect();
    if items.is_empty() {
        return;
    }
    let at = *tape.pick(&items);
    match tape.below(4) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        _ => {
            let names = ["u0", "u1", "t0", "t1", "a0", "a1", "g0", "al1", "k0", "wild/m0", "a0/m0", "gpu", "l0", "l1"];
            let (one, other) = (tape.pick(&names).to_string(), tape.pick(&names).to_string());
            lines[at] = lines[at].replacen(&format!("\"{one}\""), &format!("\"{other}\""), 1);
        }
    }
    *text = lines.join("\n") + "\n";
}

/// A file that declares people or models, some of whom other files may name.
fn people(tape: &mut Tape) -> String {
    let number = tape.below(4);
    match tape.below(4) {
        0 => format!("users:\n  - {{id: u{}, tags: [gpu]}}\n", number + 4),
        1 => format!("provider_accounts:\n  - {{id: wild, models: [{{name: m{number}, aliases: [al{number}]}}]}}\n"),
        2 => format!("model_groups:\n  - {{id: g{number}, models: [\"*/m0\", \"wild/m1\"]}}\n"),
        _ => {
            format!("keys:\n  - {{id: k{number}, hash: \"sha256:00\", owner: 'User::\"u0\"', models: [\"wild/m0\"]}}\n")
        }
    }
}

fn json_entities(tape: &mut Tape) -> String {
    let tags = tape.pick(&["[]", "[\"eu\"]", "[\"gpu\"]"]);
    let id = tape.pick(&["u0", "u4", "u9"]);
    format!(
        "[{{\"uid\": {{\"type\": \"User\", \"id\": \"{id}\"}}, \"attrs\": {{\"tags\": {tags}, \"roles\": [], \"team_roles\": []}}, \"parents\": []}}]"
    )
}

#[test]
fn property_incremental_loads_equal_fresh_ones() {
    let (loads, changes) = (Cell::new(0_usize), Cell::new(0_usize));
    hold_in("incremental loads", 4, |tape, trial| {
        let world = World::draw(tape);
        let mut files = with_limits(tape, &world, 3);
        let mut good = files.clone();
        let mut loader = Loader::default();
        for _ in 0..8 {
            let bundle: Bundle = bundle(&files);
            let (kept, fresh) = (loader.load(&bundle), load(&bundle));
            changes.set(changes.get() + 1);
            match (kept, fresh) {
                (Ok(kept), Ok(fresh)) => {
                    loads.set(loads.get() + 1);
                    equal(tape, trial, &world, (&kept, &fresh))?;
                    good.clone_from(&files);
                }
                (Err(kept), Err(fresh)) => {
                    prop_assert_eq!(told(&kept), told(&fresh), "{}", texts(&files));
                    if tape.chance(70) {
                        files.clone_from(&good);
                    }
                }
                (kept, fresh) => {
                    let (kept, fresh) = (kept.map(|_| ()), fresh.map(|_| ()));
                    prop_assert!(false, "kept {kept:?}, fresh {fresh:?}\n{}", texts(&files));
                }
            }
            edit(tape, &mut files);
        }
        Ok(())
    });
    println!("incremental loads: {} of {} bundles are right", loads.get(), changes.get());
}

/// Whether both say the same of the same bundle, in everything that can be seen of them.
fn equal(tape: &mut Tape, trial: &Trial, world: &World, (kept, fresh): (&Loaded, &Loaded)) -> TestCaseResult {
    let (one, other) = (&kept.snapshot, &fresh.snapshot);
    prop_assert_eq!(told(&kept.problems), told(&fresh.problems));
    prop_assert_eq!(one.revision(), other.revision());
    prop_assert_eq!(one.counts(), other.counts());
    prop_assert_eq!(one.files(), other.files());
    prop_assert_eq!(one.to_cedar(), other.to_cedar());
    prop_assert_eq!(one.refusals_to_cedar(), other.refusals_to_cedar());
    prop_assert_eq!(one.entities_json(), other.entities_json());
    for _ in 0..12 {
        trial.asked();
        let (facts, request) = world.request(tape);
        let facts = limits::known(tape, one, facts);
        prop_assert_eq!(decided(one, &facts, &request), decided(other, &facts, &request), "{}", one.to_cedar());
    }
    limits::equal(tape, one, other)
}

#[test]
fn property_long_lists_mean_what_short_ones_do() {
    hold("long lists", |tape, trial| {
        let names =
            |letter: &str, count: usize| -> Vec<String> { (0..count).map(|n| format!("{letter}{n}")).collect() };
        let accounts = ["a0", "a1", "wild"];
        let models: Vec<String> =
            accounts.iter().flat_map(|account| (0..8).map(move |n| format!("{account}/m{n}"))).collect();
        let mut people: Vec<(&str, String)> = Vec::new();
        for user in names("u", 30) {
            let teams = tape.some(&names("t", 4), 2);
            people.push((
                "users",
                serde_json::json!({"id": user})
                    .to_string()
                    .replace('}', &format!(", \"teams\": {}}}", serde_json::json!(teams)))
                    .replace(", \"teams\": []", ""),
            ));
        }
        people.extend(names("t", 4).into_iter().map(|team| ("teams", format!("{{\"id\": \"{team}\"}}"))));
        people.push(("provider_accounts", "{id: a0, tags: [gpu]}".to_owned()));
        let list = |key: &str, items: &[String]| match items {
            [] => String::new(),
            items => format!(", {key}: {}", serde_json::json!(items)),
        };
        let (mut long, mut short) = (people.clone(), people);
        for number in 0..1 + tape.below(4) {
            let users = tape.several(&names("u", 40), 40);
            let teams = tape.some(&names("t", 4), 2);
            let mut models = tape.several(&models, 24);
            models.extend(tape.some(&["*/m1".to_owned(), "wild/*".to_owned(), "a1/*3".to_owned()], 2));
            let effect = if tape.chance(25) { "effect: forbid" } else { "effect: permit" };
            let narrow = if tape.chance(30) { ", model_tags: [gpu]" } else { "" };
            let rule = |id: &str, users: &[String], teams: &[String], models: &[String]| {
                let lists = [list("users", users), list("teams", teams), list("models", models)].concat();
                ("authz_rules", format!("{{id: \"{id}\", {effect}{narrow}{lists}}}"))
            };
            long.push(rule(&format!("r{number}"), &users, &teams, &models));
            for (u, users) in users.chunks(7).enumerate() {
                for (m, models) in models.chunks(7).enumerate() {
                    short.push(rule(&format!("r{number}:{u}:{m}"), users, &[], models));
                }
            }
            for (m, models) in models.chunks(7).enumerate().filter(|_| !teams.is_empty()) {
                short.push(rule(&format!("r{number}:t:{m}"), &[], &teams, models));
            }
        }
        let file = |items: &[(&str, String)]| vec![("f.yaml".to_owned(), world::yaml(items))];
        let (long, short) = (file(&long), file(&short));
        let (one, other) = (trial.load(&long)?.snapshot, trial.load(&short)?.snapshot);
        let shortened = |decision: &Decision| {
            let ids = decision.rules.iter().map(|rule| rule.id.split(':').next().unwrap().to_owned());
            (decision.code, ids.collect::<BTreeSet<String>>())
        };
        for _ in 0..60 {
            trial.asked();
            let principal = uid(&format!("User::\"u{}\"", tape.below(45)));
            let resource = uid(&format!("Model::\"{}/m{}\"", tape.pick(&accounts), tape.below(10)));
            let (request, facts) = (Request::new(principal, "chat", resource), Facts::at(now()));
            let (left, right) = (decided(&one, &facts, &request), decided(&other, &facts, &request));
            prop_assert_eq!(shortened(&left), shortened(&right), "{:?}\n{}", request, texts(&long));
        }
        Ok(())
    });
}
