//! A made-up company of any size: the same bundle and the same requests for the same number of rules, on every machine.
//!
//! Everything grows with the rules, as it does where one team after the other is taken on: for N rules about N users,
//! N/20 teams, N/10 models in N/1000 accounts and N/100 model groups. A tenth of the rules has one of twenty
//! conditions, a hundredth forbids, and a hundredth names no principal.

#![allow(dead_code, reason = "each bench uses its part")]
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a bench that goes wrong stops")]

pub mod cedar;

use std::fmt::Write as _;

use serde_json::json;
use tollgate::gate::explain_request;
use tollgate::model::AuthMethod;
use tollgate::{Bundle, Facts, Request, Snapshot, SourceFile, Timestamp};

/// What rules say under `when:`, each with what it reads.
pub const CONDITIONS: [&str; 20] = [
    "context.budget.used_percent < 80",
    "context.budget.used_percent < 95",
    "context.budget.used_percent < 100",
    "context.budget.remaining_micros > 5000000",
    "context.rate.remaining_requests > 0",
    "context.rate.remaining_requests > 10",
    "context.rate.remaining_tokens > 1000",
    "context.rate.remaining_tokens > 50000",
    "principal.tags.contains(\"pilot\")",
    "principal.tags.contains(\"gpu\") || principal.tags.contains(\"pilot\")",
    "resource.tags.contains(\"stable\")",
    "principal.roles.contains(\"lead\")",
    "context has ip && context.ip.isInRange(ip(\"10.0.0.0/8\"))",
    "context has ip && context.ip.isInRange(ip(\"192.168.0.0/16\"))",
    "context.metadata.hasTag(\"env\") && context.metadata.getTag(\"env\") == \"prod\"",
    "context.metadata.hasTag(\"ticket\")",
    "context has input_tokens && context.input_tokens < 100000",
    "context has max_output_tokens && context.max_output_tokens <= 4096",
    "context has stream && context.stream",
    "context.auth.method == \"asserted\" && context.budget.used_percent < 90",
];

/// How large a company is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Rules.
    pub rules: usize,
    /// Files that they are spread over.
    pub files: usize,
}

impl Size {
    /// A company of so many rules, a hundred or more of them in a file.
    pub fn of(rules: usize) -> Self {
        Self { rules, files: (rules / 100).clamp(1, 1_000) }
    }

    pub fn users(self) -> usize {
        self.rules
    }

    pub fn teams(self) -> usize {
        (self.rules / 20).max(4)
    }

    pub fn orgs(self) -> usize {
        (self.teams() / 50).max(2)
    }

    pub fn accounts(self) -> usize {
        (self.rules / 1_000).max(4)
    }

    pub fn models(self) -> usize {
        (self.rules / 10).max(20)
    }

    pub fn groups(self) -> usize {
        (self.rules / 100).max(4)
    }
}

/// Numbers that look random and are always the same: SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("it is below a usize")
    }
}

/// The teams of a user: two, or three.
pub fn teams_of(size: Size, user: usize) -> Vec<usize> {
    let mut dice = Dice::new(0x7EA4 ^ user as u64);
    let count = 2 + dice.below(2);
    let mut teams: Vec<usize> = (0..count).map(|_| dice.below(size.teams())).collect();
    teams.sort_unstable();
    teams.dedup();
    teams
}

/// The full name of a model.
pub fn model_name(size: Size, model: usize) -> String {
    format!("account-{}/model-{model}", model % size.accounts())
}

/// The bundle of a company.
pub fn bundle(size: Size) -> Bundle {
    Bundle::new((0..size.files).map(|file| source(size, file, "")).collect())
}

/// The file of this number, with `extra` at its end.
pub fn source(size: Size, file: usize, extra: &str) -> SourceFile {
    let text = text(size, file) + extra;
    SourceFile::new(format!("units/unit-{file:04}.yaml"), text.into_bytes()).expect("its name is that of a YAML file")
}

/// The numbers below `count` that the file of this number is about.
fn share(size: Size, file: usize, count: usize) -> std::ops::Range<usize> {
    count * file / size.files..count * (file + 1) / size.files
}

fn text(size: Size, file: usize) -> String {
    let mut out = String::new();
    declare_people(&mut out, size, file);
    declare_models(&mut out, size, file);
    out.push_str("authz_rules:\n");
    for rule in share(size, file, size.rules) {
        write_rule(&mut out, size, rule);
    }
    out
}

fn section(out: &mut String, name: &str, numbers: std::ops::Range<usize>, mut one: impl FnMut(&mut String, usize)) {
    if numbers.is_empty() {
        return;
    }
    writeln!(out, "{name}:").expect("a string takes all");
    numbers.for_each(|number| one(out, number));
}

fn declare_people(out: &mut String, size: Size, file: usize) {
    section(out, "orgs", share(size, file, size.orgs()), |out, org| {
        writeln!(out, "  - id: org-{org}").expect("a string takes all");
    });
    section(out, "teams", share(size, file, size.teams()), |out, team| {
        let tags = if team % 10 == 0 { "\n    tags: [gpu]" } else { "" };
        writeln!(out, "  - id: team-{team}\n    org: org-{}{tags}", team % size.orgs()).expect("a string takes all");
    });
    section(out, "users", share(size, file, size.users()), |out, user| {
        let teams: Vec<String> = teams_of(size, user).iter().map(|team| format!("team-{team}")).collect();
        writeln!(out, "  - id: user-{user}\n    teams: [{}]", teams.join(", ")).expect("a string takes all");
        if user % 20 == 0 {
            out.push_str("    roles: [lead]\n");
        }
        if user % 25 == 0 {
            out.push_str("    tags: [pilot]\n");
        }
    });
}

fn declare_models(out: &mut String, size: Size, file: usize) {
    section(out, "provider_accounts", share(size, file, size.accounts()), |out, account| {
        writeln!(out, "  - id: account-{account}\n    provider: provider-{}\n    models:", account % 7)
            .expect("a string takes all");
        for model in (account..size.models()).step_by(size.accounts()) {
            match model % 10 {
                0 => writeln!(out, "      - {{ name: model-{model}, tags: [stable] }}"),
                _ => writeln!(out, "      - model-{model}"),
            }
            .expect("a string takes all");
        }
    });
    section(out, "model_groups", share(size, file, size.groups()), |out, group| {
        let models = models_of(size, group).map(|model| model_name(size, model)).join(", ");
        writeln!(out, "  - id: group-{group}\n    models: [{models}]").expect("a string takes all");
    });
}

/// The models of a group.
fn models_of(size: Size, group: usize) -> [usize; 5] {
    let mut dice = Dice::new(0x6409 ^ group as u64);
    let first = dice.below(size.models());
    [0, 1, 2, 3, 4].map(|step| (first + step * 7) % size.models())
}

/// Someone whom a rule names, and a model that it names.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    pub user: usize,
    pub model: usize,
}

/// What a rule says, and one request that its scope takes.
pub struct Rule {
    pub who: Who,
    /// `roles` or `tags`, and which one.
    pub narrowed: Option<(&'static str, &'static str)>,
    pub what: What,
    pub forbids: bool,
    pub condition: Option<&'static str>,
    pub example: Example,
}

/// Whom a rule names.
pub enum Who {
    Everyone,
    Users(Vec<usize>),
    Team(usize),
}

/// What a rule names.
pub enum What {
    Models(Vec<usize>),
    Group(usize),
    Account(usize),
    /// The models of an account, as a pattern.
    InAccount(usize),
}

/// The rule of this number.
pub fn rule(size: Size, number: usize) -> Rule {
    let mut dice = Dice::new(0x5A1E ^ number as u64);
    let user = dice.below(size.users());
    let teams = teams_of(size, user);
    let team = Who::Team(teams[dice.below(teams.len())]);
    let group = dice.below(size.groups());
    let model = dice.below(size.models());
    let in_group = models_of(size, group)[dice.below(5)];
    let account = model % size.accounts();
    let others = (0..4).map(|_| dice.below(size.users()));
    let users = distinct([user].into_iter().chain(others));
    let models = distinct((0..4).map(|step| (model + step * 11) % size.models()));
    let (who, narrowed, what, model) = match number % 100 {
        0 => (Who::Everyone, None, What::Models(vec![model]), model),
        1..=6 => (Who::Users(users), None, What::Models(models), model),
        7..=26 => (Who::Users(vec![user]), None, What::Models(vec![model]), model),
        27..=30 => (team, Some(("roles", "lead")), What::Account(account), model),
        31..=32 => (team, None, What::InAccount(account), model),
        33..=35 => (team, Some(("tags", "pilot")), What::Models(vec![model]), model),
        36..=65 => (team, None, What::Models(vec![model]), model),
        _ => (team, None, What::Group(group), in_group),
    };
    let condition = (number % 10 == 3).then(|| CONDITIONS[(number / 10) % CONDITIONS.len()]);
    Rule { who, narrowed, what, forbids: number % 100 == 51, condition, example: Example { user, model } }
}

/// The same numbers, each once, in their order.
fn distinct(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn write_rule(out: &mut String, size: Size, number: usize) {
    let rule = rule(size, number);
    let effect = if rule.forbids { "\n    effect: forbid" } else { "" };
    let who = match &rule.who {
        Who::Everyone => "users: \"*\"".to_owned(),
        Who::Users(users) => format!("users: [{}]", list(users.iter().map(|user| format!("user-{user}")))),
        Who::Team(team) => format!("teams: [team-{team}]"),
    };
    let narrowed = rule.narrowed.map(|(list, name)| format!("\n    {list}: [{name}]")).unwrap_or_default();
    let what = match &rule.what {
        What::Models(models) => format!("models: [{}]", list(models.iter().map(|model| model_name(size, *model)))),
        What::Group(group) => format!("model_groups: [group-{group}]"),
        What::Account(account) => format!("provider_accounts: [account-{account}]"),
        What::InAccount(account) => format!("models: [\"account-{account}/*\"]"),
    };
    write!(out, "  - id: rule-{number}{effect}\n    {who}{narrowed}\n    {what}\n    actions: [chat, embed]\n")
        .expect("a string takes all");
    if let Some(condition) = rule.condition {
        writeln!(out, "    when: '{condition}'").expect("a string takes all");
    }
}

/// A file with so many forbids that no index can skip: they name nobody and nothing in particular, and never match.
pub fn for_everyone(count: usize, conditional: bool) -> SourceFile {
    let mut out = "authz_rules:\n".to_owned();
    for number in 0..count {
        let head = format!("  - id: everyone-{number}\n    effect: forbid\n    users: \"*\"\n    models: \"*\"");
        let rest = if conditional {
            format!("actions: [chat]\n    when: context.rate.remaining_requests < {number}")
        } else {
            "actions: [image]".to_owned()
        };
        writeln!(out, "{head}\n    {rest}").expect("a string takes all");
    }
    SourceFile::new("units/zz-everyone.yaml", out.into_bytes()).expect("its name is that of a YAML file")
}

/// A file with a user who is in fifty teams, each of which may use a model of its own.
pub fn crowd(size: Size) -> SourceFile {
    let mut out = String::new();
    section(&mut out, "teams", 0..50, |out, team| {
        writeln!(out, "  - {{ id: crowd-{team}, org: org-{} }}", team % size.orgs()).expect("a string takes all");
    });
    let teams = list((0..50).map(|team| format!("crowd-{team}")));
    writeln!(out, "users:\n  - id: joiner\n    teams: [{teams}]").expect("a string takes all");
    section(&mut out, "authz_rules", 0..50, |out, team| {
        let model = model_name(size, team * 3 % size.models());
        let condition = if team % 2 == 0 { "" } else { "\n    when: context.budget.used_percent < 80" };
        writeln!(out, "  - id: crowd-{team}-may\n    teams: [crowd-{team}]\n    models: [{model}]{condition}")
            .expect("a string takes all");
    });
    SourceFile::new("units/zz-crowd.yaml", out.into_bytes()).expect("its name is that of a YAML file")
}

/// `bundle` with one file more.
pub fn with(bundle: &Bundle, file: SourceFile) -> Bundle {
    Bundle::new(bundle.files().iter().cloned().chain([file]).collect())
}

/// `bundle` in which one file has one rule more.
pub fn changed(bundle: &Bundle, size: Size, round: usize) -> Bundle {
    let number = round % size.files;
    let rule = format!("  - id: new-{round}\n    users: [user-0]\n    models: [{}]\n", model_name(size, 0));
    let new = source(size, number, &rule);
    let replaced = |file: &SourceFile| if file.path == new.path { new.clone() } else { file.clone() };
    Bundle::new(bundle.files().iter().map(replaced).collect())
}

/// What is known when the requests are decided.
pub fn facts() -> Facts {
    let mut facts = Facts::at(Timestamp::from_millis(1_790_000_000_000));
    facts.auth = AuthMethod::Asserted;
    facts.budget.used_percent = 40;
    facts.budget.remaining_micros = 60_000_000;
    facts.rate.remaining_requests = 500;
    facts.rate.remaining_tokens = 1_000_000;
    facts
}

/// A request of one user for one model, with what gateways tell of it.
pub fn request(user: &str, model: &str) -> Request {
    let context = json!({
        "ip": "10.1.2.3",
        "method": "POST",
        "path": "/v1/chat/completions",
        "input_tokens": 1200,
        "max_output_tokens": 800,
        "stream": true,
        "metadata": { "env": "prod" },
    });
    let uid = |kind: &str, id: &str| tollgate::EntityUid::new(kind, id).expect("it is a name");
    Request::new(uid("User", user), "chat", uid("Model", model))
        .with_context(context.as_object().cloned().expect("it is an object"))
}

/// Requests of the user in fifty teams: half for a model that one of the teams may use.
pub fn crowd_requests(size: Size) -> Vec<Request> {
    (0..100).map(|number| request("joiner", &model_name(size, number * 3 % size.models()))).collect()
}

/// Requests by what deciding them takes.
#[derive(Debug, Default)]
pub struct Requests {
    /// No rule whose scope takes the request has a condition.
    pub plain: Vec<Request>,
    /// At least one has.
    pub conditional: Vec<Request>,
}

/// `count` requests of each kind, half of each permitted.
pub fn requests(snapshot: &Snapshot, size: Size, count: usize) -> Requests {
    let facts = facts();
    let mut dice = Dice::new(0xDEC1);
    let mut sorted: [Vec<Request>; 4] = Default::default();
    let half = count / 2;
    for attempt in 0..count * 8 {
        if sorted.iter().all(|list| list.len() >= half) {
            break;
        }
        // Half of them are about rules with a condition, a quarter about nothing that a rule names.
        let number = dice.below(size.rules);
        let number = if attempt % 2 == 0 { number - number % 10 + 3 } else { number };
        let Example { user, model } = rule(size, number).example;
        let model = if attempt % 4 == 1 { dice.below(size.models()) } else { model };
        let asked = request(&format!("user-{user}"), &model_name(size, model));
        let (decision, explained) = explain_request(snapshot, &facts, &asked).expect("the schema takes it");
        let conditional = explained.looked_at.iter().any(|one| !one.clauses.is_empty());
        let list = &mut sorted[2 * usize::from(conditional) + usize::from(decision.is_permit())];
        if list.len() < half {
            list.push(asked);
        }
    }
    let [refused, permitted, refused_by_condition, permitted_by_condition] = sorted;
    Requests {
        plain: mixed(refused, permitted, &mut dice),
        conditional: mixed(refused_by_condition, permitted_by_condition, &mut dice),
    }
}

/// Both, in no order.
fn mixed(left: Vec<Request>, right: Vec<Request>, dice: &mut Dice) -> Vec<Request> {
    let mut all: Vec<Request> = left.into_iter().chain(right).collect();
    for last in (1..all.len()).rev() {
        all.swap(last, dice.below(last + 1));
    }
    all
}
