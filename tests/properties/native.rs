//! Native policies over entity types of a bundle's own, beside YAML's: random scopes in every form, random conditions, some
//! of which raise errors. First through the validating load, with what of them is valid, then all of them below it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use cedar_policy::{Entities, Policy, PolicyId, PolicySet};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tollgate::policy::load::unchecked;
use tollgate::policy::{Loaded, Loader};
use tollgate::{Facts, Snapshot};

use super::oracle::{Asked, Oracle, subject};
use super::tape::Tape;
use super::world::{World, bundle, now};
use super::{hold_in, texts, told};

const SCHEMA: &str = r#"
entity Folder in [Folder, Team] { owner: User, label: String, size: Long, open: Bool, tags: Set<String>, peer?: Doc };
entity Doc in [Folder] {
    owner: User, size: Long, labels: Set<String>, peer?: Doc, next: Folder, info: { level: Long, by: User, wide?: Bool },
    readers: Set<User>, seen: datetime,
} tags String;
entity Agent in [Team, Agent] { boss: User, level: Long, flags: Set<String>, "odd name": Long } tags Long;
action all;
action readers in [all];
action read, peek in [readers] appliesTo { principal: [User, Service, Agent], resource: [Doc, Folder], context: Circumstances };
action glance in [peek] appliesTo { principal: [User, Agent], resource: [Doc], context: Circumstances };
action write in [all] appliesTo { principal: [User, Agent], resource: [Doc, Folder, Team], context: Circumstances };
action talk in [all] appliesTo { principal: [Agent, User], resource: [Model], context: RequestContext };
type Circumstances = { level: Long, who?: User, doc?: Doc, flags: Set<String>, seen: { n: Long }, from?: ipaddr };
"#;

const ACTIONS: [&str; 6] = ["read", "peek", "glance", "write", "talk", "chat"];
const GROUPS: [&str; 9] = ["read", "peek", "glance", "write", "talk", "chat", "readers", "all", "use"];
const TEXTS: [&str; 4] = ["a", "eu", "x*y", "odd \\\"q\\\" ñ"];
const LONGS: [&str; 7] = ["0", "1", "7", "-3", "100", "9223372036854775807", "(-9223372036854775808)"];

fn person(tape: &mut Tape) -> String {
    match tape.below(10) {
        0 => format!("Service::\"s{}\"", tape.below(3)),
        1 | 2 => format!("Agent::\"g{}\"", tape.below(4)),
        3 => format!("ApiKey::\"k{}\"", tape.below(3)),
        _ => user(tape),
    }
}

fn user(tape: &mut Tape) -> String {
    format!("User::\"u{}\"", tape.below(6))
}

fn doc(tape: &mut Tape) -> String {
    format!("Doc::\"{}\"", tape.pick(&["d0", "d0", "d1", "d1", "d2", "d3", "odd \\\"id\\\"\\n"]))
}

fn folder(tape: &mut Tape) -> String {
    format!("Folder::\"f{}\"", tape.below(4))
}

fn place(tape: &mut Tape) -> String {
    match tape.below(3) {
        0 => format!("Org::\"o{}\"", tape.below(3)),
        _ => format!("Team::\"t{}\"", tape.below(5)),
    }
}

fn thing(tape: &mut Tape) -> String {
    match tape.below(9) {
        0..=2 => doc(tape),
        3 | 4 => folder(tape),
        5 => place(tape),
        6 => "Router::\"c0\"".to_owned(),
        _ => format!("Model::\"{}/{}\"", tape.pick(&["a0", "wild", "hub"]), tape.pick(&["m0", "x/m1"])),
    }
}

/// What a thing can be in.
fn container(tape: &mut Tape) -> String {
    match tape.below(7) {
        0 | 1 => folder(tape),
        2 => place(tape),
        3 => format!("ProviderAccount::\"{}\"", tape.pick(&["a0", "wild", "hub"])),
        4 => format!("ModelGroup::\"g{}\"", tape.below(2)),
        _ => thing(tape),
    }
}

/// What a policy is about, so that many of them fit the schema.
#[derive(Clone, Copy, PartialEq)]
enum About {
    Docs,
    Folders,
    Agents,
    Models,
    Anything,
}

struct Writer<'a> {
    tape: &'a mut Tape,
    about: About,
}

impl Writer<'_> {
    fn policy(&mut self) -> String {
        let effect = if self.tape.chance(35) { "forbid" } else { "permit" };
        let (principal, resource) = (self.head("principal"), self.head("resource"));
        let action = self.action();
        let mut text = format!("{effect}({principal}, {action}, {resource})");
        // Leading tests of who and what, which the index takes for scopes.
        if self.tape.chance(35) {
            let test = self.membership();
            if self.tape.chance(50) {
                let rest = self.condition(2);
                let _ = write!(text, "\nwhen {{ {test} && {rest} }}");
            } else {
                let _ = write!(text, "\nwhen {{ {test} }}");
            }
        }
        for _ in 0..*self.tape.pick(&[0, 0, 1, 1, 1, 2]) {
            let word = if self.tape.chance(80) { "when" } else { "unless" };
            let depth = self.tape.below(4);
            let condition = self.condition(depth);
            let _ = write!(text, "\n{word} {{ {condition} }}");
        }
        text.push(';');
        text
    }

    fn head(&mut self, variable: &str) -> String {
        let principal = variable == "principal";
        let kind = match (self.about, principal) {
            (About::Docs, true) => "User",
            (About::Docs, false) => "Doc",
            (About::Folders, true) => "User",
            (About::Folders, false) => "Folder",
            (About::Agents, true) => "Agent",
            (About::Agents, false) => "Doc",
            (About::Models, true) => self.tape.pick(&["User", "Agent"]),
            (About::Models, false) => "Model",
            (About::Anything, true) => self.tape.pick(&["User", "Service", "Agent", "ApiKey"]),
            (About::Anything, false) => self.tape.pick(&["Doc", "Folder", "Model", "Team"]),
        };
        let above = if principal { place(self.tape) } else { container(self.tape) };
        let named = if principal { person(self.tape) } else { thing(self.tape) };
        match self.tape.below(if self.about == About::Anything { 14 } else { 10 }) {
            0 => format!("{variable} is {kind} in {above}"),
            1 => format!("{variable} in {above}"),
            2 => format!("{variable} == {named}"),
            3 => format!("{variable} in {named}"),
            4..=9 => format!("{variable} is {kind}"),
            _ => variable.to_owned(),
        }
    }

    fn action(&mut self) -> String {
        let one = |tape: &mut Tape| format!("Action::\"{}\"", tape.pick(&GROUPS));
        match self.tape.below(7) {
            0..=2 => "action".to_owned(),
            3 => format!("action == Action::\"{}\"", self.tape.pick(&ACTIONS)),
            4 => format!("action in {}", one(self.tape)),
            _ => format!("action in [{}, {}]", one(self.tape), one(self.tape)),
        }
    }

    /// A test of who or what by entity or type alone, or several, one of which must hold.
    fn membership(&mut self) -> String {
        let variable = *self.tape.pick(&["principal", "principal", "resource"]);
        let tests: Vec<String> = (0..1 + self.tape.below(3)).map(|_| self.one_membership(variable)).collect();
        match tests.as_slice() {
            [only] => only.clone(),
            _ => format!("({})", tests.join(" || ")),
        }
    }

    fn one_membership(&mut self, variable: &str) -> String {
        let principal = variable == "principal";
        let tape = &mut *self.tape;
        let above = |tape: &mut Tape| if principal { place(tape) } else { container(tape) };
        match tape.below(7) {
            0 | 1 => format!("{variable} in {}", above(tape)),
            2 => {
                let several: Vec<String> = (0..tape.below(4)).map(|_| above(tape)).collect();
                format!("{variable} in [{}]", several.join(", "))
            }
            3 => format!("{variable} == {}", if principal { person(tape) } else { thing(tape) }),
            4 => format!("{} == {variable}", if principal { user(tape) } else { doc(tape) }),
            5 => format!("{variable} is {}", tape.pick(&["User", "Agent", "Doc", "Folder", "Model"])),
            _ => format!("{variable} is {} in {}", tape.pick(&["User", "Agent", "Doc"]), above(tape)),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        if depth > 0 && self.tape.chance(55) {
            let inner = |writer: &mut Self| writer.condition(depth - 1);
            return match self.tape.below(8) {
                0..=2 => format!("({} && {})", inner(self), inner(self)),
                3..=5 => format!("({} || {})", inner(self), inner(self)),
                6 => format!("!({})", inner(self)),
                _ => format!("(if {} then {} else {})", inner(self), inner(self), inner(self)),
            };
        }
        self.atom()
    }

    fn long(&mut self) -> &'static str {
        *self.tape.pick(&LONGS)
    }

    fn text(&mut self) -> &'static str {
        *self.tape.pick(&TEXTS)
    }

    fn atom(&mut self) -> String {
        // Now and then about something that may not be there.
        let about = if self.tape.chance(85) { self.about } else { About::Anything };
        match (about, self.tape.below(5)) {
            (_, 0) => self.of_nothing(),
            (About::Models, 1 | 2) | (About::Anything, 1) => self.of_models(),
            (_, 1) => self.of_context(),
            (About::Docs | About::Agents, _) | (About::Anything, 2) => self.of_docs(),
            (About::Folders, _) | (About::Anything, 3) => self.of_folders(),
            (About::Models, _) => self.of_models(),
            (About::Anything, _) => self.of_agents(),
        }
    }

    fn of_nothing(&mut self) -> String {
        match self.tape.below(12) {
            0 => "true".to_owned(),
            1 => "false".to_owned(),
            2 => format!("action == Action::\"{}\"", self.tape.pick(&ACTIONS)),
            3 => format!("action in Action::\"{}\"", self.tape.pick(&GROUPS)),
            4 => format!("Action::\"{}\" in Action::\"{}\"", self.tape.pick(&ACTIONS), self.tape.pick(&GROUPS)),
            5 if self.tape.chance(40) => format!("{} in {}", thing(self.tape), container(self.tape)),
            5 => format!("{} in {}", user(self.tape), place(self.tape)),
            6 => format!("{}.tags.contains(\"{}\")", user(self.tape), self.text()),
            7 => format!("{}.owner == principal", doc(self.tape)),
            8 => format!("[principal, {}].contains({})", user(self.tape), user(self.tape)),
            9 => format!("{} has peer && {}.next.owner in {}", doc(self.tape), doc(self.tape), place(self.tape)),
            10 => format!("{{\"a\": {}, \"b\": 1}}.a in {}", user(self.tape), place(self.tape)),
            _ => self.membership(),
        }
    }

    fn of_context(&mut self) -> String {
        match self.tape.below(11) {
            0 => format!("context.level < {}", self.long()),
            1 => format!("context.level + {} > {}", self.long(), self.long()),
            2 => format!("context.level * {} == {}", self.long(), self.long()),
            3 => format!("context has who && context.who in {}", place(self.tape)),
            4 => "(context has who && context.who == resource.owner)".to_owned(),
            5 => format!("context.who.tags.contains(\"{}\")", self.text()),
            6 => {
                format!("(context has who && context.who has email && context.who.tags.contains(\"{}\"))", self.text())
            }
            7 => format!("context.flags.containsAny([\"{}\", \"{}\"])", self.text(), self.text()),
            8 => format!("-context.seen.n <= {}", self.long()),
            9 => format!("(context has doc && context.doc.info.by in {})", place(self.tape)),
            _ => "(context has from && context.from.isInRange(ip(\"10.0.0.0/8\")))".to_owned(),
        }
    }

    fn of_docs(&mut self) -> String {
        match self.tape.below(19) {
            0 => "resource.owner == principal".to_owned(),
            1 => format!("resource.owner in {}", place(self.tape)),
            2 => format!("resource.owner.tags.contains(\"{}\")", self.text()),
            3 => format!("resource.size + {} < {}", self.long(), self.long()),
            4 => format!("resource.size * 9223372036854775807 > {}", self.long()),
            5 => format!("resource.labels.containsAll([\"{}\"])", self.text()),
            6 => "(resource has peer && resource.peer.owner == principal)".to_owned(),
            7 => format!("resource.peer.size < {}", self.long()),
            8 => format!("resource.next.label like \"{}\"", self.tape.pick(&["*", "a*", "*e*u*", "x\\*y", ""])),
            9 => format!("resource.next.owner.roles.contains(\"{}\")", self.text()),
            10 => format!("resource.info.by in {}", place(self.tape)),
            11 => "(resource has info.wide && resource.info.wide)".to_owned(),
            12 => format!("(resource.hasTag(\"k\") && resource.getTag(\"k\") == \"{}\")", self.text()),
            13 => format!("resource.getTag(\"{}\") like \"*a*\"", self.text()),
            14 => format!("resource.readers.contains({})", user(self.tape)),
            15 => format!("{} in resource.readers", self.tape.pick(&["principal", "resource.owner"])),
            16 => "resource.seen < datetime(\"2026-01-01\").offset(duration(\"1d\"))".to_owned(),
            17 => format!("resource in {}", container(self.tape)),
            _ => format!(
                "(resource has peer && resource.peer has peer && resource.peer.peer.next in {})",
                folder(self.tape)
            ),
        }
    }

    fn of_folders(&mut self) -> String {
        match self.tape.below(8) {
            0 => "resource.open".to_owned(),
            1 => format!("resource.label == \"{}\"", self.text()),
            2 => format!("resource.tags.contains(\"{}\")", self.text()),
            3 => format!("(resource has peer && resource.peer.info.level > {})", self.long()),
            4 => format!("resource.owner in [{}, {}]", place(self.tape), user(self.tape)),
            5 => format!("resource.size - {} <= {}", self.long(), self.long()),
            6 => "resource has label".to_owned(),
            _ => format!("resource in {}", container(self.tape)),
        }
    }

    fn of_models(&mut self) -> String {
        match self.tape.below(9) {
            0 => format!("context.budget.used_percent < {}", self.long()),
            1 => "context.budget.remaining_micros + 1 > 0".to_owned(),
            2 => format!("(context has input_tokens && context.input_tokens * {} > 5)", self.long()),
            3 => "(context has ip && context.ip.isInRange(ip(\"10.0.0.0/8\")))".to_owned(),
            4 => format!("(context.metadata.hasTag(\"k\") && context.metadata.getTag(\"k\") == \"{}\")", self.text()),
            5 => "context.now < datetime(\"2026-03-01\")".to_owned(),
            6 => format!("resource.tags.contains(\"{}\")", self.text()),
            7 if self.tape.chance(50) => format!("resource in {}", container(self.tape)),
            7 => format!("resource.name like \"{}\"", self.tape.pick(&["a0/*", "*m*", "wild/x/m1"])),
            _ => "Metadata::\"request\".hasTag(\"k\")".to_owned(),
        }
    }

    fn of_agents(&mut self) -> String {
        match self.tape.below(5) {
            0 => format!("principal.boss in {}", place(self.tape)),
            1 => format!("principal[\"odd name\"] < {}", self.long()),
            2 => format!("(principal.hasTag(\"k\") && principal.getTag(\"k\") + {} > 0)", self.long()),
            3 => format!("principal.flags.containsAny([\"{}\"])", self.text()),
            _ => format!("principal.boss.team_roles.contains(\"t0:admin\") || principal.level > {}", self.long()),
        }
    }
}

fn entity(kind: &str, id: &str) -> Value {
    json!({"__entity": {"type": kind, "id": id}})
}

fn a_user(tape: &mut Tape) -> Value {
    entity("User", &format!("u{}", tape.below(6)))
}

fn some_texts(tape: &mut Tape) -> Vec<String> {
    let texts: Vec<String> = TEXTS.iter().map(|text| text.replace('\\', "")).collect();
    tape.some(&texts, 2)
}

fn number(tape: &mut Tape) -> i64 {
    *tape.pick(&[0, 1, 7, 99, i64::MAX, i64::MIN])
}

/// Entities of the schema's types; not every one that is referred to is there.
fn entities(tape: &mut Tape, world: &World) -> Vec<Value> {
    let mut made = Vec::new();
    let docs = ["d0", "d1", "d2", "odd \"id\"\n"];
    let a_doc = |tape: &mut Tape| entity("Doc", *tape.pick(&docs));
    let teams: Vec<Value> = world.teams.iter().map(|team| json!({"type": "Team", "id": team.id})).collect();
    for (at, id) in docs.iter().enumerate().take(1 + tape.below(4)) {
        let mut attrs = json!({
            "owner": a_user(tape), "size": number(tape), "labels": some_texts(tape),
            "next": entity("Folder", &format!("f{}", tape.below(4))), "readers": [a_user(tape)],
            "info": {"level": number(tape), "by": a_user(tape)},
            "seen": {"__extn": {"fn": "datetime", "arg": tape.pick(&["2025-12-31", "2026-02-03"])}},
        });
        if tape.chance(60) {
            attrs["peer"] = a_doc(tape);
        }
        if tape.chance(50) {
            attrs["info"]["wide"] = json!(tape.chance(50));
        }
        let parents: Vec<Value> =
            (0..tape.below(3)).map(|n| json!({"type": "Folder", "id": format!("f{}", (at + n) % 4)})).collect();
        let tags = if tape.chance(60) { json!({"k": tape.pick(&["a", "eu"])}) } else { json!({}) };
        made.push(json!({"uid": {"type": "Doc", "id": id}, "attrs": attrs, "parents": parents, "tags": tags}));
    }
    for at in 0..2 + tape.below(3) {
        let mut attrs = json!({
            "owner": a_user(tape), "label": tape.pick(&["a", "eu", "x*y"]), "size": number(tape),
            "open": tape.chance(50), "tags": some_texts(tape),
        });
        if tape.chance(40) {
            attrs["peer"] = a_doc(tape);
        }
        let mut parents = tape.some(&teams, 1);
        if at > 0 && tape.chance(60) {
            parents.push(json!({"type": "Folder", "id": format!("f{}", tape.below(at))}));
        }
        made.push(json!({"uid": {"type": "Folder", "id": format!("f{at}")}, "attrs": attrs, "parents": parents}));
    }
    for at in 0..1 + tape.below(3) {
        let attrs = json!({
            "boss": a_user(tape), "level": number(tape), "flags": some_texts(tape), "odd name": number(tape),
        });
        let mut parents = tape.some(&teams, 2);
        if at > 0 && tape.chance(40) {
            parents.push(json!({"type": "Agent", "id": format!("g{}", tape.below(at))}));
        }
        let tags = if tape.chance(60) { json!({"k": number(tape)}) } else { json!({}) };
        made.push(
            json!({"uid": {"type": "Agent", "id": format!("g{at}")}, "attrs": attrs, "parents": parents, "tags": tags}),
        );
    }
    made
}

fn context(tape: &mut Tape, action: &str) -> Map<String, Value> {
    let mut members = if matches!(action, "talk" | "chat") {
        json!({"input_tokens": tape.pick(&[0, 5, i64::MAX])})
    } else {
        json!({"level": number(tape), "flags": some_texts(tape), "seen": {"n": number(tape)}})
    };
    if matches!(action, "talk" | "chat") {
        if tape.chance(50) {
            members["ip"] = json!(tape.pick(&["10.1.2.3", "192.168.0.1"]));
        }
        if tape.chance(50) {
            members["metadata"] = json!({"k": tape.pick(&["a", "eu"])});
        }
    } else {
        if tape.chance(60) {
            members["who"] = a_user(tape);
        }
        if tape.chance(40) {
            members["doc"] = entity("Doc", *tape.pick(&["d0", "d1", "d3"]));
        }
        if tape.chance(40) {
            members["from"] = json!({"__extn": {"fn": "ip", "arg": "10.9.8.7"}});
        }
    }
    members.as_object().unwrap().clone()
}

struct Question {
    principal: String,
    action: &'static str,
    resource: String,
    context: Map<String, Value>,
}

impl Question {
    fn draw(tape: &mut Tape) -> Self {
        let action = *tape.pick(&["read", "read", "peek", "glance", "glance", "write", "talk", "chat"]);
        let agent = |tape: &mut Tape| format!("Agent::\"g{}\"", tape.below(3));
        let principal = match (action, tape.below(10)) {
            ("read" | "peek" | "chat", 0) => format!("Service::\"s{}\"", tape.below(3)),
            ("read" | "peek" | "glance" | "write" | "talk", 1..=4) => agent(tape),
            _ => user(tape),
        };
        let resource = match (action, tape.below(10)) {
            ("talk" | "chat", _) => {
                format!("Model::\"{}/{}\"", tape.pick(&["a0", "wild", "hub"]), tape.pick(&["m0", "x/m1", "new"]))
            }
            ("read" | "peek" | "write", 0..=2) => folder(tape),
            ("write", 3) => format!("Team::\"t{}\"", tape.below(4)),
            _ => doc(tape),
        };
        Self { principal, action, resource, context: context(tape, action) }
    }
}

/// Asks both about each question; an index of what differs, and how many were asked.
fn compare(
    snapshot: &Snapshot,
    policies: &PolicySet,
    questions: &[Question],
    name: impl Fn(tollgate::policy::index::RuleIndex) -> String,
) -> Result<(usize, usize), String> {
    let schema = &snapshot.schema().schema;
    let oracle = Oracle::new(snapshot, policies, schema);
    let (mut asked, mut matched) = (0, 0);
    for Question { principal, action, resource, context } in questions {
        let (who, what) = (uid_of(principal), uid_of(resource));
        let (Some(who), Some(what)) = (subject(snapshot, &who), subject(snapshot, &what)) else { continue };
        let facts = Facts::at(now());
        let question = Asked { principal: who, action, resource: what, context, facts: &facts };
        let Some(cedar) = oracle.cedar(&question, str::to_owned) else { continue };
        asked += 1;
        matched += usize::from(!cedar.permits.is_empty() || !cedar.forbids.is_empty() || !cedar.errors.is_empty());
        let ours = oracle.ours(&question, &name).ok_or_else(|| format!("{principal} {action} {resource}: refused"))?;
        if ours != cedar {
            return Err(format!("{principal} {action} {resource} {context:?}\n ours  {ours:?}\n cedar {cedar:?}"));
        }
    }
    Ok((asked, matched))
}

fn uid_of(text: &str) -> tollgate::EntityUid {
    tollgate::EntityUid::of_native(&text.parse().unwrap())
}

/// The bundle with those of its policies that are valid.
fn load_valid(loader: &mut Loader, files: &mut Vec<(String, String)>) -> Result<Option<Loaded>, String> {
    match loader.load(&bundle(files)) {
        Ok(loaded) => return Ok(Some(loaded)),
        Err(problems) => {
            let wrong: BTreeSet<String> =
                problems.iter().filter(|problem| problem.is_error()).map(|problem| problem.file.to_string()).collect();
            if wrong.iter().any(|file| !file.ends_with(".cedar")) {
                return Err(told(&problems));
            }
            files.retain(|(path, _)| !wrong.contains(path));
        }
    }
    loader.load(&bundle(files)).map(Some).map_err(|problems| told(&problems))
}

/// The groups that policies may name and that `world` does not declare.
fn missing_groups(world: &World) -> String {
    let ids = |section: &str, letter: &str, count: usize, known: Vec<&String>, rest: &str| {
        let missing = (0..count).map(|number| format!("{letter}{number}")).filter(|id| !known.contains(&id));
        let items: String = missing.map(|id| format!("  - {{id: {id}{rest}}}\n")).collect();
        if items.is_empty() { items } else { format!("{section}:\n{items}") }
    };
    let models = ", models: [\"wild/m0\", \"*/x/*\"]";
    [
        ids("orgs", "o", 3, world.orgs.iter().map(|org| &org.id).collect(), ""),
        ids("teams", "t", 5, world.teams.iter().map(|team| &team.id).collect(), ""),
        ids("model_groups", "g", 2, world.groups.iter().map(|group| &group.id).collect(), models),
        ids("routers", "c", 1, world.routers.iter().map(|router| &router.id).collect(), models),
    ]
    .concat()
}

/// Loads what is printed of the rules beside everything else, and asks both.
fn fed_back(
    loader: &mut Loader,
    snapshot: &Snapshot,
    files: &[(String, String)],
    questions: &[Question],
) -> Result<(), String> {
    let mut beside: Vec<(String, String)> = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| !path.ends_with(".cedar")) {
        let text = text.split_once("authz_rules:").map_or(text.as_str(), |(before, after)| {
            // Sections are written in the order of their names, so that others may follow.
            assert!(!before.is_empty() || !after.is_empty());
            before
        });
        let after: String = files
            .iter()
            .find(|(known, _)| known == path)
            .and_then(|(_, text)| text.split_once("authz_rules:"))
            .map(|(_, after)| {
                after
                    .lines()
                    .skip(1)
                    .skip_while(|line| line.starts_with("  - "))
                    .map(|line| format!("{line}\n"))
                    .collect()
            })
            .unwrap_or_default();
        beside.push((path.clone(), format!("{text}{after}")));
    }
    beside.push(("compiled.cedar".to_owned(), snapshot.to_cedar()));
    let again = loader.load(&bundle(&beside)).map_err(|problems| format!("{}{}", told(&problems), texts(&beside)))?;
    let again = again.snapshot;
    for Question { principal, action, resource, context } in questions {
        let facts = Facts::at(now());
        let request =
            tollgate::Request::new(uid_of(principal), *action, uid_of(resource)).with_context(context.clone());
        let said =
            |snapshot: &Snapshot| tollgate::gate::decide(snapshot, &facts, &request).map(|made| super::gist(&made));
        let (one, other) = (said(snapshot).ok(), said(&again).ok());
        if one != other {
            return Err(format!("{principal} {action} {resource}: {one:?}, fed back {other:?}\n{}", texts(&beside)));
        }
    }
    Ok(())
}

#[test]
fn property_native_policies_are_decided_as_cedar_decides_them() {
    let (valid, drawn, matched) = (std::cell::Cell::new(0), std::cell::Cell::new(0), std::cell::Cell::new(0));
    hold_in("native policies", 4, |tape, trial| {
        let mut world = World::draw(tape);
        // What is refused before any rule is for another property.
        world.rules.truncate(1);
        world.keys.clear();
        let mut files = world.files(tape, 1);
        // Mostly all groups are there that policies name: one that names another is no valid policy.
        if tape.chance(75) {
            files.push(("groups.yaml".to_owned(), missing_groups(&world)));
        }
        files.push(("own.cedarschema".to_owned(), SCHEMA.to_owned()));
        files.push(("own.entities.json".to_owned(), Value::Array(entities(tape, &world)).to_string()));
        let mut texts_of: Vec<String> = Vec::new();
        for _ in 0..8 + tape.below(3 * tape.size) {
            let about =
                *tape.pick(&[About::Docs, About::Docs, About::Folders, About::Agents, About::Models, About::Anything]);
            texts_of.push(Writer { tape, about }.policy());
        }
        for (number, text) in texts_of.iter().enumerate() {
            files.push((format!("p{number}.cedar"), text.clone()));
        }
        let questions: Vec<Question> = (0..24).map(|_| Question::draw(tape)).collect();
        drawn.set(drawn.get() + texts_of.len());
        let loaded = load_valid(&mut trial.loader.borrow_mut(), &mut files).map_err(TestCaseError::fail)?;
        let Some(Loaded { snapshot, .. }) = loaded else { return Ok(()) };
        // The one YAML rule as `compile` prints it; the native policies as they stand.
        let mut set = PolicySet::new();
        let printed: PolicySet =
            snapshot.to_cedar().parse().map_err(|error| TestCaseError::fail(format!("{error}")))?;
        for policy in printed.policies().filter(|policy| policy.annotation("id").is_some_and(|id| id.starts_with('r')))
        {
            set.add(policy.new_id(PolicyId::new(policy.annotation("id").unwrap()))).unwrap();
        }
        for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".cedar")) {
            valid.set(valid.get() + 1);
            let id = format!("{}#1", path.strip_suffix(".cedar").unwrap());
            set.add(Policy::parse(Some(PolicyId::new(id)), text).unwrap()).unwrap();
        }
        let rule = |index| snapshot.reference(index).id.to_string();
        let (asked, hits) = compare(&snapshot, &set, &questions, rule)
            .map_err(|wrong| TestCaseError::fail(format!("{wrong}\n{}", texts(&files))))?;
        // The same with the policies as they are printed.
        let named = |id: &str| printed.annotation(&id.parse().unwrap(), "id").unwrap().to_owned();
        let again = printed.policies().map(|policy| policy.new_id(PolicyId::new(named(policy.id().as_ref()))));
        compare(&snapshot, &PolicySet::from_policies(again).unwrap(), &questions, rule).map_err(|wrong| {
            TestCaseError::fail(format!("as printed: {wrong}\n{}\n{}", snapshot.to_cedar(), texts(&files)))
        })?;
        fed_back(&mut trial.loader.borrow_mut(), &snapshot, &files, &questions).map_err(TestCaseError::fail)?;
        // And all of them, valid or not, below the validating load.
        let all: PolicySet = texts_of.concat().parse().map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        let everything = snapshot.entities().map(|entity| cedar_policy::Entity::from(entity.as_ref().clone()));
        let everything = Entities::from_entities(everything, Some(&snapshot.schema().schema)).unwrap();
        let below = unchecked(&all, &snapshot.schema().schema, &everything)
            .map_err(|problems| TestCaseError::fail(format!("{problems:?}")))?;
        let (more, more_hits) = compare(&below, &all, &questions, |index| format!("policy{}", index.position()))
            .map_err(|wrong| TestCaseError::fail(format!("below validation: {wrong}\n{}", texts_of.join("\n"))))?;
        (0..asked + more).for_each(|_| trial.asked());
        matched.set(matched.get() + hits + more_hits);
        Ok(())
    });
    println!(
        "native policies: {} of {} drawn are valid; of the requests {} had rules that match or err",
        valid.get(),
        drawn.get(),
        matched.get()
    );
}
