//! The same company for plain Cedar: one policy a rule, every entity in one `Entities`, `Authorizer::is_authorized`.

use std::fmt::Write as _;
use std::str::FromStr;

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Schema};
use serde_json::{Value, json};
use tollgate::Facts;
use tollgate::policy::schema::TOLLGATE_SCHEMA;

use super::{Size, What, Who, model_name, models_of, rule, teams_of};

/// Everything that plain Cedar decides with.
pub struct Plain {
    policies: PolicySet,
    entities: Entities,
    authorizer: Authorizer,
}

impl Plain {
    pub fn new(size: Size) -> Self {
        let text = (0..size.rules).fold(String::new(), |mut out, number| {
            write_policy(&mut out, size, number);
            out
        });
        let schema = Schema::from_str(TOLLGATE_SCHEMA).expect("the schema is Tollgate's own");
        Self {
            policies: PolicySet::from_str(&text).expect("the policies are Cedar"),
            entities: Entities::from_json_value(entities(size), Some(&schema)).expect("the entities fit the schema"),
            authorizer: Authorizer::new(),
        }
    }

    /// The request as Cedar has it, made before anything is measured.
    pub fn request(asked: &tollgate::Request, facts: &Facts) -> Request {
        let uid = |text: String| EntityUid::from_str(&text).expect("it is a uid");
        let told = asked.context.to_json();
        let ip = json!({ "__extn": { "fn": "ip", "arg": told["ip"] } });
        let mut context = json!({
            "now": { "__extn": { "fn": "datetime", "arg": facts.now.to_string() } },
            "budget": { "used_percent": facts.budget.used_percent, "remaining_micros": facts.budget.remaining_micros },
            "rate": {
                "remaining_requests": facts.rate.remaining_requests,
                "remaining_tokens": facts.rate.remaining_tokens,
            },
            "auth": { "method": facts.auth.as_str() },
            "metadata": { "__entity": { "type": "Metadata", "id": "request" } },
        });
        for (name, value) in told.iter().filter(|(name, _)| *name != "metadata") {
            context[name] = if name == "ip" { ip.clone() } else { value.clone() };
        }
        Request::new(
            uid(asked.principal.to_string()),
            uid(format!("Action::\"{}\"", asked.action)),
            uid(asked.resource.to_string()),
            Context::from_json_value(context, None).expect("it is a context"),
            None,
        )
        .expect("no schema is asked")
    }

    pub fn permits(&self, request: &Request) -> bool {
        self.authorizer.is_authorized(request, &self.policies, &self.entities).decision() == Decision::Allow
    }
}

fn write_policy(out: &mut String, size: Size, number: usize) {
    let rule = rule(size, number);
    let effect = if rule.forbids { "forbid" } else { "permit" };
    let mut conditions = Vec::new();
    let mut one_or_list = |names: Vec<String>, kind: &str, variable: &str| {
        let uids: Vec<String> = names.iter().map(|name| format!("{kind}::\"{name}\"")).collect();
        if let [one] = uids.as_slice() {
            return format!("{variable} in {one}");
        }
        conditions.push(format!("{variable} in [{}]", uids.join(", ")));
        variable.to_owned()
    };
    let who = match rule.who {
        Who::Everyone => "principal is User".to_owned(),
        Who::Users(users) => {
            let names = users.iter().map(|user| format!("user-{user}")).collect();
            one_or_list(names, "User", "principal")
        }
        Who::Team(team) => format!("principal in Team::\"team-{team}\""),
    };
    let what = match rule.what {
        What::Models(models) => {
            let names = models.iter().map(|model| model_name(size, *model)).collect();
            one_or_list(names, "Model", "resource")
        }
        What::Group(group) => format!("resource in ModelGroup::\"group-{group}\""),
        What::Account(account) | What::InAccount(account) => {
            format!("resource in ProviderAccount::\"account-{account}\"")
        }
    };
    conditions.extend(rule.narrowed.map(|(list, name)| format!("principal.{list}.contains(\"{name}\")")));
    conditions.extend(rule.condition.map(ToOwned::to_owned));
    let when = if conditions.is_empty() { String::new() } else { format!(" when {{ {} }}", conditions.join(" && ")) };
    writeln!(out, "{effect}({who}, action in [Action::\"chat\", Action::\"embed\"], {what}){when};")
        .expect("a string takes all");
}

fn entities(size: Size) -> Value {
    let uid = |kind: &'static str, id: String| json!({ "type": kind, "id": id });
    let tags = |tag: Option<&'static str>| tag.into_iter().collect::<Vec<_>>();
    let orgs = (0..size.orgs())
        .map(|org| json!({ "uid": uid("Org", format!("org-{org}")), "attrs": { "tags": [] }, "parents": [] }));
    let teams = (0..size.teams()).map(|team| {
        json!({
            "uid": uid("Team", format!("team-{team}")),
            "attrs": { "tags": tags((team % 10 == 0).then_some("gpu")) },
            "parents": [uid("Org", format!("org-{}", team % size.orgs()))],
        })
    });
    let users = (0..size.users()).map(|user| {
        let teams = teams_of(size, user);
        let mut own = tags((user % 25 == 0).then_some("pilot"));
        own.extend(teams.iter().any(|team| team % 10 == 0).then_some("gpu"));
        json!({
            "uid": uid("User", format!("user-{user}")),
            "attrs": { "tags": own, "roles": tags((user % 20 == 0).then_some("lead")), "team_roles": [] },
            "parents": teams.iter().map(|team| uid("Team", format!("team-{team}"))).collect::<Vec<_>>(),
        })
    });
    let accounts = (0..size.accounts()).map(|account| {
        json!({
            "uid": uid("ProviderAccount", format!("account-{account}")),
            "attrs": { "tags": [], "provider": format!("provider-{}", account % 7) },
            "parents": [],
        })
    });
    let groups = (0..size.groups())
        .map(|group| json!({ "uid": uid("ModelGroup", format!("group-{group}")), "attrs": {}, "parents": [] }));
    let mut groups_of: Vec<Vec<usize>> = vec![Vec::new(); size.models()];
    for group in 0..size.groups() {
        models_of(size, group).iter().for_each(|model| groups_of[*model].push(group));
    }
    let models = groups_of.iter().enumerate().map(|(model, groups)| {
        let account = uid("ProviderAccount", format!("account-{}", model % size.accounts()));
        let groups = groups.iter().map(|group| uid("ModelGroup", format!("group-{group}")));
        let parents: Vec<Value> = std::iter::once(account).chain(groups).collect();
        json!({
            "uid": uid("Model", model_name(size, model)),
            "attrs": { "name": model_name(size, model), "tags": tags((model % 10 == 0).then_some("stable")) },
            "parents": parents,
        })
    });
    let metadata = [json!({
        "uid": uid("Metadata", "request".to_owned()), "attrs": {}, "parents": [], "tags": { "env": "prod" }
    })];
    orgs.chain(teams).chain(users).chain(accounts).chain(groups).chain(models).chain(metadata).collect()
}
