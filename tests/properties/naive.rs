//! The meaning of YAML rules, once more and slowly: read from the documentation, without the crate's own code. It looks at
//! every rule, walks every membership, and knows no index, no Cedar and no cache.

use std::collections::BTreeSet;

use tollgate::{DecisionCode, Facts, Request};

use super::world::{Cond, Member, NOW, Rule, USES, World};

/// What a decision says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub code: DecisionCode,
    pub rules: BTreeSet<String>,
    pub errors: BTreeSet<String>,
    pub principal: String,
    pub key: Option<String>,
    pub resource: String,
}

/// Whom a request comes from, with everything that is true of them.
#[derive(Default)]
struct Who {
    user: Option<String>,
    service: Option<String>,
    key: Option<String>,
    teams: BTreeSet<String>,
    orgs: BTreeSet<String>,
    tags: BTreeSet<String>,
    roles: BTreeSet<String>,
    team_roles: BTreeSet<String>,
    off: bool,
}

enum What {
    Model(String),
    Router(String),
}

fn over(disabled: bool, expires: Option<&str>) -> bool {
    // RFC 3339 in UTC and of one form, so that text order is time order.
    disabled || expires.is_some_and(|at| at.trim_end_matches('Z') <= NOW.trim_end_matches('Z'))
}

/// Whether a name, alias, `account/*`, pattern or `*` means the model.
fn means(world: &World, entry: &str, model: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((_, real)) = world.aliases().find(|(alias, _)| alias == entry) {
        return real == model;
    }
    match entry.strip_suffix("/*") {
        Some(account) if !account.contains(['/', '*']) => model.split('/').next() == Some(account),
        _ => {
            let (want, have): (Vec<&str>, Vec<&str>) = (entry.split('/').collect(), model.split('/').collect());
            want.len() == have.len() && want.iter().zip(have).all(|(want, have)| glob(want, have))
        }
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, rest)) => text
            .strip_prefix(before)
            .is_some_and(|left| (0..=left.len()).any(|at| left.is_char_boundary(at) && glob(rest, &left[at..]))),
    }
}

impl Who {
    fn of(world: &World, kind: &str, id: &str) -> Self {
        let mut who = Self::default();
        match kind {
            "User" => who.join(world.users.iter().find(|user| user.id == id), world),
            "Service" => who.join(world.services.iter().find(|service| service.id == id), world),
            _ => {
                if let Some(key) = world.keys.iter().find(|key| key.id == id) {
                    who = Self::of(world, key.owner.0, &key.owner.1);
                    who.tags.extend(key.tags.iter().cloned());
                    who.off |= over(key.disabled, key.expires);
                }
                who.key = Some(id.to_owned());
                return who;
            }
        }
        *(if kind == "User" { &mut who.user } else { &mut who.service }) = Some(id.to_owned());
        who
    }

    fn join(&mut self, member: Option<&Member>, world: &World) {
        let Some(member) = member else { return };
        self.off |= over(member.disabled, member.expires);
        self.tags.extend(member.tags.iter().cloned());
        self.roles.extend(member.roles.iter().cloned());
        member.orgs.iter().for_each(|org| self.join_org(org, world));
        for (team, role) in &member.teams {
            self.team_roles.extend(role.iter().map(|role| format!("{team}:{role}")));
            self.join_team(team, world);
        }
    }

    fn join_team(&mut self, id: &str, world: &World) {
        let team = world.teams.iter().find(|team| team.id == id).unwrap();
        self.teams.insert(id.to_owned());
        self.tags.extend(team.tags.iter().cloned());
        self.off |= over(team.disabled, team.expires);
        team.org.iter().for_each(|org| self.join_org(org, world));
        team.parent.iter().for_each(|parent| self.join_team(parent, world));
    }

    fn join_org(&mut self, id: &str, world: &World) {
        let org = world.orgs.iter().find(|org| org.id == id).unwrap();
        self.orgs.insert(id.to_owned());
        self.tags.extend(org.tags.iter().cloned());
        self.off |= over(org.disabled, org.expires);
    }
}

/// The real name of the model that `name` asks for; `Err` where it is unknown or disabled.
fn resolve(world: &World, name: &str) -> Result<String, (DecisionCode, String)> {
    let real = world.aliases().find(|(alias, _)| alias == name).map_or_else(|| name.to_owned(), |(_, real)| real);
    let unknown = Err((DecisionCode::ModelUnknown, name.to_owned()));
    let Some((account, rest)) = real.split_once('/') else { return unknown };
    // An empty segment, `.` or `..` would lead a provider to another model.
    if account.is_empty() || real.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return unknown;
    }
    let listed = world.accounts.iter().find(|one| one.id == account).and_then(|account| account.models.as_ref());
    match listed.map(|models| models.iter().find(|model| model.name == rest)) {
        None => Ok(real),
        Some(None) => unknown,
        Some(Some(model)) if model.enabled => Ok(real),
        Some(Some(_)) => Err((DecisionCode::ModelDisabled, real)),
    }
}

fn model_tags(world: &World, model: &str) -> BTreeSet<String> {
    let Some(account) = world.accounts.iter().find(|account| model.split('/').next() == Some(&account.id)) else {
        return BTreeSet::new();
    };
    let own = account.models.iter().flatten().filter(|one| format!("{}/{}", account.id, one.name) == model);
    account.tags.iter().chain(own.flat_map(|one| &one.tags)).cloned().collect()
}

fn tags(world: &World, what: &What) -> BTreeSet<String> {
    match what {
        What::Model(name) => model_tags(world, name),
        What::Router(id) => {
            let router = world.routers.iter().find(|router| router.id == *id);
            router.map(|router| router.tags.iter().cloned().collect()).unwrap_or_default()
        }
    }
}

fn names_who(rule: &Rule, who: &Who) -> bool {
    let Rule { users, services, keys, teams, orgs, .. } = rule;
    let is = |list: &[String], id: &Option<String>| {
        id.as_ref().is_some_and(|id| list.iter().any(|name| name == "*" || name == id))
    };
    let nobody = [users, services, keys, teams, orgs].iter().all(|list| list.is_empty());
    let named = is(users, &who.user)
        || is(services, &who.service)
        || is(keys, &who.key)
        || teams.iter().any(|team| who.teams.contains(team))
        || orgs.iter().any(|org| who.orgs.contains(org));
    let one_of = |list: &[String], of: &BTreeSet<String>| list.is_empty() || list.iter().any(|name| of.contains(name));
    (named || nobody) && one_of(&rule.tags, &who.tags) && one_of(&rule.roles, &who.roles)
}

fn names_what(world: &World, rule: &Rule, what: &What) -> bool {
    let Rule { models, groups, accounts, routers, .. } = rule;
    let nothing = [models, groups, accounts, routers].iter().all(|list| list.is_empty());
    let (named, is_model) = match what {
        What::Router(id) => (routers.iter().any(|name| name == "*" || name == id), false),
        What::Model(name) => {
            let grouped = |id: &String| {
                let group = world.groups.iter().find(|group| group.id == *id).unwrap();
                group.models.iter().any(|entry| means(world, entry, name))
            };
            let named = models.iter().any(|entry| means(world, entry, name))
                || groups.iter().any(grouped)
                || accounts.iter().any(|account| name.split('/').next() == Some(account));
            (named, true)
        }
    };
    let tagged = || tags(world, what).iter().any(|tag| rule.model_tags.contains(tag));
    (named || nothing) && (rule.model_tags.is_empty() || (is_model && tagged()))
}

fn does(actions: &[String], action: &str) -> bool {
    let use_or = |name: &String| name == action || (name == "use" && USES.contains(&action));
    actions.iter().any(use_or)
}

/// What a condition is looked at with.
struct Seen<'a> {
    world: &'a World,
    facts: &'a Facts,
    request: &'a Request,
    who: &'a Who,
    what: &'a What,
    tagged: &'a BTreeSet<String>,
}

fn holds(cond: &Cond, seen: &Seen<'_>) -> Result<bool, ()> {
    let also = |cond: &Cond| holds(cond, seen);
    let Seen { world, facts, request, who, what, tagged } = seen;
    let model = match what {
        What::Model(name) => Some(name),
        What::Router(_) => None,
    };
    Ok(match cond {
        Cond::InUser(user) => who.user.as_ref() == Some(user),
        Cond::InAccount(account) => model.is_some_and(|name| name.split('/').next() == Some(account)),
        Cond::InGroup(id) => {
            let group = world.groups.iter().find(|group| group.id == *id).unwrap();
            model.is_some_and(|name| group.models.iter().any(|entry| means(world, entry, name)))
        }
        Cond::IsModel(wanted) => model == Some(wanted),
        Cond::Used(percent) => facts.budget.used_percent < *percent,
        Cond::PrincipalTag(tag) => who.tags.contains(tag),
        Cond::ResourceTag(tag) => tagged.contains(tag),
        Cond::Role(role) => who.roles.contains(role),
        Cond::TeamRole(role) => who.team_roles.contains(role),
        Cond::InTeam(team) => who.teams.contains(team),
        Cond::Tokens(bound) => {
            request.context.to_json().get("input_tokens").is_some_and(|count| count.as_i64().unwrap() < *bound)
        }
        Cond::Meta(name, value) => request
            .context
            .to_json()
            .get("metadata")
            .and_then(|metadata| metadata.get(name))
            .is_some_and(|is| is == value),
        Cond::Overflow => facts.budget.remaining_micros.checked_add(1).ok_or(())? > 0,
        Cond::Not(inner) => !also(inner)?,
        Cond::And(left, right) => also(left)? && also(right)?,
        Cond::Or(left, right) => also(left)? || also(right)?,
    })
}

fn all_hold(rule: &Rule, test: impl Fn(&Cond) -> Result<bool, ()>) -> Result<bool, ()> {
    for cond in &rule.when {
        if !test(cond)? {
            return Ok(false);
        }
    }
    for cond in &rule.unless {
        if test(cond)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What narrows a key, as forbids.
fn narrowed(world: &World, who: &Who, what: &What, action: &str) -> Vec<String> {
    let Some(key) = world.keys.iter().find(|key| Some(&key.id) == who.key.as_ref()) else { return Vec::new() };
    let models = key.models.as_ref().is_some_and(|models| match what {
        What::Model(name) => !models.iter().any(|entry| means(world, entry, name)),
        What::Router(_) => key.routers.is_none(),
    });
    let routers = key.routers.as_ref().is_some_and(|routers| match what {
        What::Model(_) => key.models.is_none(),
        What::Router(id) => !routers.iter().any(|name| name == "*" || name == id),
    });
    let actions = key.actions.as_ref().is_some_and(|actions| !does(actions, action));
    let forbids = [("models", models), ("routers", routers), ("actions", actions)];
    forbids.iter().filter(|(_, forbids)| *forbids).map(|(name, _)| format!("key:{}:{name}", key.id)).collect()
}

/// Whether the router leads to the model.
pub fn leads(world: &World, router: &str, model: &str) -> bool {
    let router = world.routers.iter().find(|one| one.id == router);
    router.is_some_and(|router| router.models.iter().any(|entry| means(world, entry, model)))
}

pub fn decide(world: &World, facts: &Facts, request: &Request) -> Said {
    let who = Who::of(world, request.principal.kind(), request.principal.id());
    let owner = world.keys.iter().find(|key| request.principal.kind() == "ApiKey" && key.id == request.principal.id());
    let asked = request.principal.to_string();
    let mut said = Said {
        code: DecisionCode::NoRulePermits,
        rules: BTreeSet::new(),
        errors: BTreeSet::new(),
        principal: owner.map_or_else(|| asked.clone(), |key| format!("{}::\"{}\"", key.owner.0, key.owner.1)),
        key: owner.map(|_| asked.clone()),
        resource: request.resource.to_string(),
    };
    let resolved = match request.resource.kind() {
        "Model" => resolve(world, request.resource.id()).map(What::Model),
        _ => Ok(What::Router(request.resource.id().to_owned())),
    };
    if let Ok(What::Model(name)) | Err((_, name)) = &resolved {
        said.resource = format!("Model::\"{name}\"");
    }
    let what = match resolved {
        _ if who.off => return Said { code: DecisionCode::PrincipalDisabled, ..said },
        Err((code, _)) => return Said { code, ..said },
        Ok(what) => what,
    };
    let tagged = tags(world, &what);
    let mut permits = BTreeSet::new();
    let mut forbids: BTreeSet<String> = narrowed(world, &who, &what, &request.action).into_iter().collect();
    let (mut permit_erred, mut forbid_erred) = (false, false);
    for rule in &world.rules {
        let acts = if rule.actions.is_empty() {
            USES.contains(&request.action.as_str())
        } else {
            does(&rule.actions, &request.action)
        };
        if !(acts && names_who(rule, &who) && names_what(world, rule, &what)) {
            continue;
        }
        let seen = Seen { world, facts, request, who: &who, what: &what, tagged: &tagged };
        match all_hold(rule, |cond| holds(cond, &seen)) {
            Ok(true) => drop(if rule.forbid { &mut forbids } else { &mut permits }.insert(rule.id.clone())),
            Ok(false) => {}
            Err(()) => {
                *(if rule.forbid { &mut forbid_erred } else { &mut permit_erred }) = true;
                said.errors.insert(rule.id.clone());
            }
        }
    }
    let (code, rules) = if !forbids.is_empty() {
        (DecisionCode::ForbiddenByRule, forbids)
    } else if forbid_erred {
        (DecisionCode::Error, BTreeSet::new())
    } else if !permits.is_empty() {
        (DecisionCode::Permitted, permits)
    } else if permit_erred {
        (DecisionCode::Error, BTreeSet::new())
    } else {
        (DecisionCode::NoRulePermits, BTreeSet::new())
    };
    Said { code, rules, ..said }
}
