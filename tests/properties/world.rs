//! Random bundles of YAML: who there is, what there is, and rules between them; and random requests.

use serde_json::{Map, Value, json};
use tollgate::model::Budget;
use tollgate::policy::{Bundle, SourceFile};
use tollgate::{EntityUid, Facts, Request, Timestamp};

use super::tape::Tape;

pub const NOW: &str = "2026-03-01T00:00:00Z";
const INSTANTS: [&str; 3] = ["2026-02-01T00:00:00Z", NOW, "2026-03-01T00:00:00.001Z"];
pub const TAGS: [&str; 4] = ["gpu", "eu", "pilot", "x y"];
const ROLES: [&str; 3] = ["admin", "on-call", "dev"];
pub const USES: [&str; 8] = ["chat", "complete", "embed", "image", "audio", "rerank", "moderate", "list"];
/// Accounts that rules and requests name. Some are declared in some bundles, and some only conditions name.
pub const ACCOUNTS: [&str; 6] = ["a0", "a1", "a2", "wild", "hub", "hub2"];
const SHORT: [&str; 6] = ["m0", "m1", "mini", "x/m0", "x/m1", "M0"];
const PATTERNS: [&str; 10] = ["*/m0", "*/m*", "a*/m1", "a0/x/*", "*/*", "*/x/*", "a0/m*", "a1/*i*", "*", "wild*/*0"];

#[derive(Debug, Clone, Default)]
pub struct Group {
    pub id: String,
    pub org: Option<String>,
    pub parent: Option<String>,
    pub tags: Vec<String>,
    pub disabled: bool,
    pub expires: Option<&'static str>,
}

#[derive(Debug, Clone, Default)]
pub struct Member {
    pub id: String,
    pub teams: Vec<(String, Option<String>)>,
    pub orgs: Vec<String>,
    pub roles: Vec<String>,
    pub tags: Vec<String>,
    pub disabled: bool,
    pub expires: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub struct Key {
    pub id: String,
    pub owner: (&'static str, String),
    pub models: Option<Vec<String>>,
    pub routers: Option<Vec<String>>,
    pub actions: Option<Vec<String>>,
    pub tags: Vec<String>,
    pub disabled: bool,
    pub expires: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub name: String,
    pub enabled: bool,
    pub tags: Vec<String>,
    pub aliases: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Account {
    pub id: String,
    pub tags: Vec<String>,
    pub models: Option<Vec<Model>>,
}

#[derive(Debug, Clone)]
pub struct Models {
    pub id: String,
    pub models: Vec<String>,
    pub tags: Vec<String>,
}

/// A condition that both Cedar and a reader of ten lines can evaluate.
#[derive(Debug, Clone)]
pub enum Cond {
    Used(i64),
    PrincipalTag(String),
    ResourceTag(String),
    Role(String),
    TeamRole(String),
    InTeam(String),
    /// A user, who need not be declared, or a key of that user.
    InUser(String),
    InAccount(String),
    InGroup(String),
    IsModel(String),
    Tokens(i64),
    Meta(String, String),
    Overflow,
    Not(Box<Cond>),
    And(Box<Cond>, Box<Cond>),
    Or(Box<Cond>, Box<Cond>),
}

#[derive(Debug, Clone, Default)]
pub struct Rule {
    pub id: String,
    pub forbid: bool,
    pub users: Vec<String>,
    pub services: Vec<String>,
    pub keys: Vec<String>,
    pub teams: Vec<String>,
    pub orgs: Vec<String>,
    pub tags: Vec<String>,
    pub roles: Vec<String>,
    pub models: Vec<String>,
    pub groups: Vec<String>,
    pub accounts: Vec<String>,
    pub routers: Vec<String>,
    pub model_tags: Vec<String>,
    pub actions: Vec<String>,
    pub when: Vec<Cond>,
    pub unless: Vec<Cond>,
}

/// Everything of a bundle. Rules name what [`World::files`] declares and what nobody declares.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub orgs: Vec<Group>,
    pub teams: Vec<Group>,
    pub users: Vec<Member>,
    pub services: Vec<Member>,
    pub keys: Vec<Key>,
    pub accounts: Vec<Account>,
    pub groups: Vec<Models>,
    pub routers: Vec<Models>,
    pub rules: Vec<Rule>,
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn ids<T>(items: &[T], id: impl Fn(&T) -> &String) -> Vec<String> {
    items.iter().map(|item| id(item).clone()).collect()
}

impl World {
    pub fn draw(tape: &mut Tape) -> Self {
        let mut world = Self::default();
        let some = |tape: &mut Tape, most: usize| tape.below(most.min(tape.size) + 1);
        for number in 0..some(tape, 3) {
            world.orgs.push(Group { id: format!("o{number}"), ..lasting(tape) });
        }
        let orgs = ids(&world.orgs, |org| &org.id);
        for number in 0..some(tape, 5) {
            let before = ids(&world.teams, |team| &team.id);
            let org = (tape.chance(50) && !orgs.is_empty()).then(|| tape.pick(&orgs).clone());
            let parent = (tape.chance(40) && !before.is_empty()).then(|| tape.pick(&before).clone());
            world.teams.push(Group { id: format!("t{number}"), org, parent, ..lasting(tape) });
        }
        // A parent may also be declared later.
        tape.shuffle(&mut world.teams);
        for number in 0..some(tape, 5) {
            let member = world.member(tape, format!("u{number}"));
            world.users.push(member);
        }
        for number in 0..some(tape, 2) {
            let member = world.member(tape, format!("s{number}"));
            world.services.push(member);
        }
        world.models(tape);
        for number in 0..some(tape, 3) {
            let key = world.key(tape, format!("k{number}"));
            world.keys.push(key);
        }
        for number in 0..1 + some(tape, 12) {
            let rule = world.rule(tape, format!("r{number}"));
            world.rules.push(rule);
        }
        world
    }

    fn member(&self, tape: &mut Tape, id: String) -> Member {
        let teams = tape.some(&ids(&self.teams, |team| &team.id), 3);
        let role = |tape: &mut Tape| tape.chance(30).then(|| (*tape.pick(&ROLES)).to_owned());
        let Group { tags, disabled, expires, .. } = lasting(tape);
        Member {
            id,
            teams: teams.into_iter().map(|team| (team, role(tape))).collect(),
            orgs: tape.some(&ids(&self.orgs, |org| &org.id), 1),
            roles: tape.some(&texts(&ROLES), 2),
            tags,
            disabled,
            expires,
        }
    }

    fn models(&mut self, tape: &mut Tape) {
        let mut aliases = 0;
        for number in 0..tape.below(4) {
            let models = tape.chance(60).then(|| {
                let names = tape.several(&SHORT, 4);
                let model = |name: &str| {
                    let alias = tape.chance(30);
                    aliases += usize::from(alias);
                    Model {
                        name: name.to_owned(),
                        enabled: !tape.chance(15),
                        tags: tape.some(&texts(&TAGS), 2),
                        aliases: if alias { vec![format!("al{aliases}")] } else { vec![] },
                    }
                };
                names.into_iter().map(model).collect()
            });
            self.accounts.push(Account { id: format!("a{number}"), tags: tape.some(&texts(&TAGS), 1), models });
        }
        for number in 0..tape.below(4) {
            let models = self.model_names(tape, 3);
            self.groups.push(Models { id: format!("g{number}"), models, tags: tape.some(&texts(&TAGS), 1) });
        }
        for number in 0..tape.below(3) {
            let models = self.model_names(tape, 3);
            self.routers.push(Models { id: format!("c{number}"), models, tags: tape.some(&texts(&TAGS), 1) });
        }
    }

    /// Names, aliases and patterns, as a list of models takes them; `*` stands alone.
    fn model_names(&self, tape: &mut Tape, most: usize) -> Vec<String> {
        if tape.chance(8) {
            return vec!["*".to_owned()];
        }
        let mut names: Vec<String> = (0..=tape.below(most)).map(|_| self.model_name(tape)).collect();
        names.sort();
        names.dedup();
        names
    }

    fn model_name(&self, tape: &mut Tape) -> String {
        let aliases: Vec<String> = self.aliases().map(|(alias, _)| alias).collect();
        match tape.below(10) {
            0 | 1 => tape.pick(&PATTERNS[..8]).to_string(),
            2 | 3 => format!("{}/*", tape.pick(&ACCOUNTS)),
            4 if !aliases.is_empty() => tape.pick(&aliases).clone(),
            _ => format!("{}/{}", tape.pick(&ACCOUNTS[..5]), tape.pick(&SHORT)),
        }
    }

    /// Every spelling of every alias, and the model it stands for.
    pub fn aliases(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.accounts.iter().flat_map(|account| {
            account.models.iter().flatten().flat_map(move |model| {
                let real = format!("{}/{}", account.id, model.name);
                model.aliases.iter().flat_map(move |alias| {
                    [(alias.clone(), real.clone()), (format!("{}/{alias}", account.id), real.clone())]
                })
            })
        })
    }

    fn key(&self, tape: &mut Tape, id: String) -> Key {
        let owner = match tape.below(3) {
            0 => ("Service", format!("s{}", tape.below(3))),
            _ => ("User", format!("u{}", tape.below(6))),
        };
        let routers = ids(&self.routers, |router| &router.id);
        let Group { tags, disabled, expires, .. } = lasting(tape);
        Key {
            id,
            owner,
            models: tape.chance(30).then(|| self.model_names(tape, 3)),
            routers: tape.chance(20).then(|| self.names(tape, &routers, true)).filter(|names| !names.is_empty()),
            actions: tape.chance(20).then(|| tape.several(&texts(&["chat", "embed", "use", "list", "admin"]), 2)),
            tags,
            disabled,
            expires,
        }
    }

    /// `*`, or some of `known`.
    fn names(&self, tape: &mut Tape, known: &[String], wildcard: bool) -> Vec<String> {
        if known.is_empty() || (wildcard && tape.chance(20)) {
            return if wildcard { vec!["*".to_owned()] } else { vec![] };
        }
        tape.several(known, 3)
    }

    fn rule(&self, tape: &mut Tape, id: String) -> Rule {
        let mut rule = Rule { id, forbid: tape.chance(25), ..Rule::default() };
        let numbered = |letter: &str, count: usize| (0..count).map(|number| format!("{letter}{number}")).collect();
        let (users, services, keys): (Vec<String>, Vec<String>, Vec<String>) =
            (numbered("u", 6), numbered("s", 3), numbered("k", 4));
        while !rule.says_who() {
            if tape.chance(35) {
                rule.users = self.names(tape, &users, true);
            }
            if tape.chance(12) {
                rule.services = self.names(tape, &services, true);
            }
            if tape.chance(12) {
                rule.keys = self.names(tape, &keys, true);
            }
            if tape.chance(35) {
                rule.teams = self.names(tape, &ids(&self.teams, |team| &team.id), false);
            }
            if tape.chance(15) {
                rule.orgs = self.names(tape, &ids(&self.orgs, |org| &org.id), false);
            }
            if tape.chance(15) {
                rule.tags = tape.several(&texts(&TAGS), 2);
            }
            if tape.chance(12) {
                rule.roles = tape.several(&texts(&ROLES), 2);
            }
        }
        while !rule.says_what() {
            if tape.chance(50) {
                rule.models = self.model_names(tape, 3);
            }
            if tape.chance(25) {
                rule.groups = self.names(tape, &ids(&self.groups, |group| &group.id), false);
            }
            if tape.chance(15) {
                rule.accounts = tape.several(&texts(&["a0", "a1", "wild"]), 2);
            }
            if tape.chance(12) {
                rule.routers = self.names(tape, &ids(&self.routers, |router| &router.id), true);
            }
            if tape.chance(12) {
                rule.model_tags = tape.several(&texts(&TAGS), 2);
            }
        }
        // Tags of models say nothing of a router.
        if !rule.model_tags.is_empty() && rule.models.is_empty() && rule.groups.is_empty() && rule.accounts.is_empty() {
            rule.routers.clear();
        }
        if tape.chance(50) {
            rule.actions = tape.several(&texts(&["chat", "complete", "embed", "list", "use"]), 2);
        }
        for _ in 0..tape.below(3) {
            rule.when.push(self.condition(tape, 2));
        }
        if tape.chance(20) {
            rule.unless.push(self.condition(tape, 2));
        }
        rule
    }

    fn condition(&self, tape: &mut Tape, depth: usize) -> Cond {
        let tag = |tape: &mut Tape| (*tape.pick(&TAGS)).to_owned();
        let team = |tape: &mut Tape| format!("t{}", tape.below(5));
        let model = |tape: &mut Tape| format!("{}/{}", tape.pick(&ACCOUNTS), tape.pick(&SHORT));
        let boxed = |tape: &mut Tape| Box::new(self.condition(tape, depth - 1));
        match tape.below(if depth > 0 { 18 } else { 13 }) {
            0 | 1 => Cond::Used(*tape.pick(&[50, 80, 100])),
            2 => Cond::PrincipalTag(tag(tape)),
            3 => Cond::ResourceTag(tag(tape)),
            4 => Cond::Role((*tape.pick(&ROLES)).to_owned()),
            5 => Cond::TeamRole(format!("{}:{}", team(tape), tape.pick(&ROLES))),
            // A team or a group that nobody declares does not load.
            6 if !self.teams.is_empty() => Cond::InTeam(tape.pick(&self.teams).id.clone()),
            9 if !self.groups.is_empty() => Cond::InGroup(tape.pick(&self.groups).id.clone()),
            6 | 9 | 10 => Cond::InAccount((*tape.pick(&ACCOUNTS)).to_owned()),
            11 => Cond::InUser(format!("u{}", tape.below(9))),
            12 => Cond::IsModel(model(tape)),
            7 => Cond::Tokens(*tape.pick(&[10, 100, 1000])),
            8 if tape.chance(50) => Cond::Meta("env".to_owned(), (*tape.pick(&["prod", "dev"])).to_owned()),
            8 => Cond::Overflow,
            13 => Cond::Not(boxed(tape)),
            14 | 15 => Cond::And(boxed(tape), boxed(tape)),
            _ => Cond::Or(boxed(tape), boxed(tape)),
        }
    }

    /// A request, of those that are there and of those that are not.
    pub fn request(&self, tape: &mut Tape) -> (Facts, Request) {
        let principal = match tape.below(6) {
            0 => format!("Service::\"s{}\"", tape.below(3)),
            1 | 2 => format!("ApiKey::\"k{}\"", tape.below(4)),
            _ => format!("User::\"u{}\"", tape.below(9)),
        };
        let resource = if tape.chance(12) {
            format!("Router::\"c{}\"", tape.below(3))
        } else {
            format!("Model::\"{}\"", self.asked_model(tape))
        };
        let mut context = Map::new();
        if tape.chance(50) {
            context.insert("input_tokens".to_owned(), json!(tape.pick(&[0, 9, 10, 500])));
        }
        if tape.chance(40) {
            context.insert("metadata".to_owned(), json!({"env": tape.pick(&["prod", "dev"])}));
        }
        let request = Request::new(uid(&principal), *tape.pick(&USES), uid(&resource)).with_context(context);
        let facts = Facts {
            budget: Budget {
                used_percent: *tape.pick(&[0, 49, 50, 80, 99, 100]),
                remaining_micros: *tape.pick(&[i64::MAX, i64::MAX - 1, 0, -5]),
            },
            ..Facts::at(now())
        };
        (facts, request)
    }

    fn asked_model(&self, tape: &mut Tape) -> String {
        let aliases: Vec<String> = self.aliases().map(|(alias, _)| alias).collect();
        let declared = self
            .accounts
            .iter()
            .flat_map(|account| account.models.iter().flatten().map(|model| format!("{}/{}", account.id, model.name)));
        let declared: Vec<String> = declared.collect();
        // What conditions name is asked for, be it declared or not.
        let named: Vec<String> = self.accounts_in_conditions();
        match tape.below(12) {
            _ if !named.is_empty() && tape.chance(30) => format!("{}/{}", tape.pick(&named), tape.pick(&SHORT)),
            0 if !aliases.is_empty() => tape.pick(&aliases).clone(),
            1 => (*tape.pick(&["m0", "nothing", "/m0", "a0/", "a0/m0/", "a0//m0", "al", "a0-evil/m0"])).to_owned(),
            2..=5 if !declared.is_empty() => tape.pick(&declared).clone(),
            _ => format!("{}/{}", tape.pick(&ACCOUNTS), tape.pick(&SHORT)),
        }
    }

    /// The accounts that conditions name, and those of the models that they name.
    fn accounts_in_conditions(&self) -> Vec<String> {
        fn collect(cond: &Cond, found: &mut Vec<String>) {
            match cond {
                Cond::InAccount(account) => found.push(account.clone()),
                Cond::IsModel(model) => found.extend(model.split('/').next().map(str::to_owned)),
                Cond::Not(inner) => collect(inner, found),
                Cond::And(left, right) | Cond::Or(left, right) => {
                    collect(left, found);
                    collect(right, found);
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        let conditions = self.rules.iter().flat_map(|rule| rule.when.iter().chain(&rule.unless));
        conditions.for_each(|cond| collect(cond, &mut found));
        found
    }

    /// The rules as they would be about everybody and everything, so that their conditions alone decide, and the same as
    /// Cedar. Of rules without any condition there are none.
    pub fn of_conditions(mut self) -> (Self, String) {
        let every = || vec!["*".to_owned()];
        self.rules.retain(|rule| !rule.when.is_empty() || !rule.unless.is_empty());
        let everybody = |rule: &Rule| Rule {
            users: every(),
            services: every(),
            keys: every(),
            models: every(),
            routers: every(),
            id: rule.id.clone(),
            forbid: rule.forbid,
            when: rule.when.clone(),
            unless: rule.unless.clone(),
            ..Rule::default()
        };
        self.rules = self.rules.iter().map(everybody).collect();
        let policy = |rule: &Rule| {
            let effect = if rule.forbid { "forbid" } else { "permit" };
            let of = |word: &str, conds: &[Cond]| -> String {
                conds.iter().map(|cond| format!("\n{word} {{ {} }}", cond.cedar())).collect()
            };
            let conditions = [of("when", &rule.when), of("unless", &rule.unless)].concat();
            format!("@id({:?})\n{effect} (principal, action in Action::\"use\", resource){conditions};\n", rule.id)
        };
        let cedar = self.rules.iter().map(policy).collect();
        (self, cedar)
    }

    /// The same people and models without rules, as `compile` wants them beside what it prints.
    pub fn without_rules(&self) -> Self {
        Self { rules: Vec::new(), ..self.clone() }
    }

    /// The same without accounts, groups, routers and whatever must have them: people alone, and rules that name accounts
    /// and models which nobody declares.
    pub fn of_people(mut self) -> Self {
        fn no_groups(cond: &mut Cond) {
            match cond {
                Cond::InGroup(_) => *cond = Cond::InAccount("hub".to_owned()),
                Cond::Not(inner) => no_groups(inner),
                Cond::And(left, right) | Cond::Or(left, right) => {
                    no_groups(left);
                    no_groups(right);
                }
                _ => {}
            }
        }
        let named: Vec<String> = self.aliases().map(|(alias, _)| alias).collect();
        self.accounts.clear();
        self.groups.clear();
        self.routers.clear();
        self.keys.clear();
        for rule in &mut self.rules {
            rule.models.retain(|model| !named.contains(model));
            (rule.groups, rule.routers, rule.model_tags) = (Vec::new(), Vec::new(), Vec::new());
            if rule.models.is_empty() && rule.accounts.is_empty() {
                rule.models = vec!["hub/*".to_owned(), "*/x/*".to_owned()];
            }
            rule.when.iter_mut().chain(&mut rule.unless).for_each(no_groups);
        }
        self
    }

    /// The bundle as files, everything in one of `count` of them.
    pub fn files(&self, tape: &mut Tape, count: usize) -> Vec<(String, String)> {
        self.files_with(tape, count, Vec::new())
    }

    /// The bundle as [`World::files`], with more items, each with its section.
    pub fn files_with(
        &self,
        tape: &mut Tape,
        count: usize,
        more: Vec<(&'static str, String)>,
    ) -> Vec<(String, String)> {
        let mut sections: Vec<Vec<(&str, String)>> = vec![Vec::new(); count];
        let mut put = |section: &'static str, items: Vec<String>| {
            for item in items {
                sections[tape.below(count)].push((section, item));
            }
        };
        put("orgs", self.orgs.iter().map(Group::yaml).collect());
        put("teams", self.teams.iter().map(Group::yaml).collect());
        put("users", self.users.iter().map(Member::yaml).collect());
        put("services", self.services.iter().map(Member::yaml).collect());
        put("keys", self.keys.iter().map(Key::yaml).collect());
        put("provider_accounts", self.accounts.iter().map(Account::yaml).collect());
        put("model_groups", self.groups.iter().map(Models::yaml).collect());
        put("routers", self.routers.iter().map(Models::yaml).collect());
        put("authz_rules", self.rules.iter().map(Rule::yaml).collect());
        more.into_iter().for_each(|(section, item)| put(section, vec![item]));
        let file = |(number, items): (usize, Vec<(&str, String)>)| (format!("f{number}.yaml"), yaml(&items));
        sections.into_iter().enumerate().map(file).collect()
    }
}

/// Lists by section, each item on a line.
pub fn yaml(items: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut sections: Vec<&str> = items.iter().map(|(section, _)| *section).collect();
    sections.sort_unstable();
    sections.dedup();
    for section in sections {
        text.push_str(&format!("{section}:\n"));
        for (_, item) in items.iter().filter(|(of, _)| *of == section) {
            text.push_str(&format!("  - {item}\n"));
        }
    }
    text
}

pub fn bundle(files: &[(String, String)]) -> Bundle {
    let file = |(path, text): &(String, String)| SourceFile::new(path.as_str(), text.as_bytes()).unwrap();
    Bundle::new(files.iter().map(file).collect())
}

pub fn uid(text: &str) -> EntityUid {
    text.parse().unwrap()
}

pub fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

fn lasting(tape: &mut Tape) -> Group {
    Group {
        tags: tape.some(&texts(&TAGS), 2),
        disabled: tape.chance(4),
        expires: tape.chance(8).then(|| *tape.pick(&INSTANTS)),
        ..Group::default()
    }
}

/// A YAML mapping in JSON's form, without what is empty or not said.
fn mapping(entries: &[(&str, Value)]) -> String {
    let said = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let said: Vec<String> =
        entries.iter().filter(|(_, value)| said(value)).map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{{{}}}", said.join(", "))
}

impl Group {
    fn yaml(&self) -> String {
        let Self { id, org, parent, tags, disabled, expires } = self;
        mapping(&[
            ("id", json!(id)),
            ("org", json!(org)),
            ("parent", json!(parent)),
            ("tags", json!(tags)),
            ("disabled", json!(disabled)),
            ("expires_at", json!(expires)),
        ])
    }
}

impl Member {
    fn yaml(&self) -> String {
        let Self { id, teams, orgs, roles, tags, disabled, expires } = self;
        let team = |(team, role): &(String, Option<String>)| match role {
            Some(role) => json!({"id": team, "role": role}),
            None => json!(team),
        };
        mapping(&[
            ("id", json!(id)),
            ("teams", teams.iter().map(team).collect()),
            ("orgs", json!(orgs)),
            ("roles", json!(roles)),
            ("tags", json!(tags)),
            ("disabled", json!(disabled)),
            ("expires_at", json!(expires)),
        ])
    }
}

impl Key {
    fn yaml(&self) -> String {
        let Self { id, owner: (kind, owner), models, routers, actions, tags, disabled, expires } = self;
        mapping(&[
            ("id", json!(id)),
            ("hash", json!("sha256:00")),
            ("owner", json!(format!("{kind}::\"{owner}\""))),
            ("models", json!(models)),
            ("routers", json!(routers)),
            ("actions", json!(actions)),
            ("tags", json!(tags)),
            ("disabled", json!(disabled)),
            ("expires_at", json!(expires)),
        ])
    }
}

impl Account {
    fn yaml(&self) -> String {
        let model = |model: &Model| {
            let Model { name, enabled, tags, aliases } = model;
            let disabled = if *enabled { "" } else { ", enabled: false" };
            let list = |key: &str, items: &[String]| match items {
                [] => String::new(),
                items => format!(", {key}: {}", json!(items)),
            };
            format!("{{name: {}{disabled}{}{}}}", json!(name), list("tags", tags), list("aliases", aliases))
        };
        let models = self.models.as_ref().map(|models| models.iter().map(model).collect::<Vec<_>>().join(", "));
        let own = mapping(&[("id", json!(self.id)), ("tags", json!(self.tags))]);
        match models {
            Some(models) => format!("{}, models: [{models}]}}", own.strip_suffix('}').unwrap()),
            None => own,
        }
    }
}

impl Models {
    fn yaml(&self) -> String {
        mapping(&[("id", json!(self.id)), ("models", json!(self.models)), ("tags", json!(self.tags))])
    }
}

impl Rule {
    fn says_who(&self) -> bool {
        [&self.users, &self.services, &self.keys, &self.teams, &self.orgs, &self.tags, &self.roles]
            .iter()
            .any(|list| !list.is_empty())
    }

    fn says_what(&self) -> bool {
        [&self.models, &self.groups, &self.accounts, &self.routers, &self.model_tags]
            .iter()
            .any(|list| !list.is_empty())
    }

    pub fn yaml(&self) -> String {
        mapping(&[
            ("id", json!(self.id)),
            ("effect", if self.forbid { json!("forbid") } else { Value::Null }),
            ("users", json!(self.users)),
            ("services", json!(self.services)),
            ("keys", json!(self.keys)),
            ("teams", json!(self.teams)),
            ("orgs", json!(self.orgs)),
            ("tags", json!(self.tags)),
            ("roles", json!(self.roles)),
            ("models", json!(self.models)),
            ("model_groups", json!(self.groups)),
            ("provider_accounts", json!(self.accounts)),
            ("routers", json!(self.routers)),
            ("model_tags", json!(self.model_tags)),
            ("actions", json!(self.actions)),
            ("when", self.when.iter().map(|cond| json!(cond.cedar())).collect()),
            ("unless", self.unless.iter().map(|cond| json!(cond.cedar())).collect()),
        ])
    }
}

/// What never holds, and Cedar does not know that.
const NEVER: &str = "context.budget.used_percent < 0";

impl Cond {
    pub fn cedar(&self) -> String {
        match self {
            Self::Used(percent) => format!("context.budget.used_percent < {percent}"),
            Self::PrincipalTag(tag) => format!("principal.tags.contains({tag:?})"),
            Self::ResourceTag(tag) => format!("resource.tags.contains({tag:?})"),
            Self::Role(role) => format!("principal.roles.contains({role:?})"),
            Self::TeamRole(role) => format!("principal.team_roles.contains({role:?})"),
            Self::InTeam(team) => format!("principal in Team::{team:?}"),
            // Each with something that may hold whatever the rule names: a condition that cannot is refused.
            Self::InUser(user) => format!("(principal in User::{user:?} || {NEVER})"),
            Self::InAccount(account) => {
                format!("(resource is Model && resource in ProviderAccount::{account:?} || {NEVER})")
            }
            Self::InGroup(group) => format!("(resource is Model && resource in ModelGroup::{group:?} || {NEVER})"),
            Self::IsModel(model) => format!("(resource is Model && resource == Model::{model:?} || {NEVER})"),
            Self::Tokens(count) => format!("(context has input_tokens && context.input_tokens < {count})"),
            Self::Meta(name, value) => {
                format!("(context.metadata.hasTag({name:?}) && context.metadata.getTag({name:?}) == {value:?})")
            }
            Self::Overflow => "context.budget.remaining_micros + 1 > 0".to_owned(),
            Self::Not(inner) => format!("!({})", inner.cedar()),
            Self::And(left, right) => format!("({} && {})", left.cedar(), right.cedar()),
            Self::Or(left, right) => format!("({} || {})", left.cedar(), right.cedar()),
        }
    }
}
