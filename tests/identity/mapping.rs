//! From claims to whom rules see: a case each, in process, with what must happen.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate::edge::identity::claims::{Mapping, Proof};
use tollgate::gate::Described;
use tollgate::model::{AuthMethod, Identity, RefusalReason, Timestamp};
use tollgate::policy::{Bundle, Loader, Snapshot, SourceFile};

const ISSUER: &str = "https://idp.example.com";

const BUNDLE: &str = r#"
orgs: [{ id: acme }]
teams: [{ id: research, org: acme }, { id: research-admins, org: acme }]
users:
  - { id: alice, team: research, external_id: "https://idp.example.com|u-1" }
  - { id: bob, external_id: u-2 }
  - { id: twin, external_id: "https://idp.example.com|u-3" }
  - { id: other-twin, external_id: "https://idp.example.com|u-3" }
  - { id: elsewhere, external_id: "https://other.example.com|u-4" }
  - { id: carol, external_id: "auth0|5f7c" }
  - { id: dave, email: Dave@Example.com }
services: [{ id: ci, external_id: "https://idp.example.com|repo:acme/app" }]
authz_rules: [{ id: all, teams: [research], models: "*" }]
"#;

fn snapshot() -> Arc<Snapshot> {
    let file = SourceFile::new("bundle.yaml", BUNDLE.as_bytes()).unwrap();
    Loader::new(false).admin_policies(true).load(&Bundle::new(vec![file])).unwrap().snapshot
}

/// The mapping that the configuration of an issuer makes.
fn mapping(yaml: &str) -> Result<Mapping, String> {
    use tollgate::config::{Flags, ProviderKind, Settings};
    let identity = format!(
        "providers: [{{ jwt: {{ issuers: [{{ issuer: '{ISSUER}', audiences: [t], jwks_file: /dev/null, {yaml} }}] }} }}]"
    );
    let environment = |name: &str| (name == "TOLLGATE_IDENTITY").then(|| identity.clone().into());
    let settings = Settings::from(&Flags::default(), environment).map_err(|error| error.to_string())?;
    match &settings.identity.providers[0].kind {
        ProviderKind::Jwt(jwt) => Ok(jwt.issuers[0].mapping.clone()),
        other => panic!("{other:?}"),
    }
}

fn prove(yaml: &str, subject: &str, claims: &Value) -> Result<Identity, RefusalReason> {
    let mapping = mapping(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    let mut claims = claims.as_object().unwrap().clone();
    claims.entry("sub").or_insert(subject.into());
    let proof = Proof {
        issuer: ISSUER,
        subject,
        claims: &claims,
        method: AuthMethod::Jwt,
        expires_at: Timestamp::from_millis(i64::MAX),
    };
    mapping.identity(&proof, &snapshot()).map_err(|refusal| refusal.reason)
}

/// What is looked at of an identity: its principal, and one of its lists.
fn shown(identity: &Identity, what: &str) -> String {
    let said = &identity.said;
    let list = |items: &[smol_str::SmolStr]| items.join(",");
    match what {
        "principal" => identity.principal.to_string(),
        "teams" => list(&said.teams),
        "orgs" => list(&said.orgs),
        "roles" => list(&said.roles),
        "team_roles" => list(&said.team_roles),
        "tags" => list(&said.tags),
        "email" => said.email.clone().unwrap_or_default().to_string(),
        "metadata" => {
            identity.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
        }
        other => panic!("{other}"),
    }
}

#[test]
fn claims_mean_what_the_configuration_says() {
    let cases: &[(&str, &str, &str, Value, &str, &str)] = &[
        // Who it is.
        (
            "nobody is known: issuer and subject",
            "",
            "u-9",
            json!({}),
            "principal",
            "User::\"https://idp.example.com|u-9\"",
        ),
        ("by external_id, with the issuer", "", "u-1", json!({}), "principal", "User::\"alice\""),
        (
            "an external_id without an issuer is the directory's",
            "",
            "u-2",
            json!({}),
            "principal",
            "User::\"https://idp.example.com|u-2\"",
        ),
        ("which this one is", "directory: true", "u-2", json!({}), "principal", "User::\"bob\""),
        ("an external_id of two is nobody's", "", "u-3", json!({}), "principal", "unknown_principal"),
        (
            "another issuer's subject is another",
            "",
            "u-4",
            json!({}),
            "principal",
            "User::\"https://idp.example.com|u-4\"",
        ),
        (
            "a claim names the user",
            "claims: { user: name }",
            "u-9",
            json!({"name": "bob"}),
            "principal",
            "User::\"bob\"",
        ),
        (
            "the first that exists",
            "claims: { user: [name, email] }",
            "u-9",
            json!({"email": "bob"}),
            "principal",
            "User::\"bob\"",
        ),
        (
            "a claim that is null is not there",
            "claims: { user: [name, email] }",
            "u-9",
            json!({"name": null, "email": "bob"}),
            "principal",
            "User::\"bob\"",
        ),
        (
            "a claim that is a number names nobody",
            "claims: { user: name }",
            "u-9",
            json!({"name": 7}),
            "principal",
            "malformed",
        ),
        (
            "a claim that is a list of two names nobody",
            "claims: { user: name }",
            "u-9",
            json!({"name": ["alice", "bob"]}),
            "principal",
            "malformed",
        ),
        (
            "a claim with another's subject",
            "claims: { user: name }",
            "u-9",
            json!({"name": "https://other.example.com|u-4"}),
            "principal",
            "untrusted",
        ),
        (
            "a claim with a zero-width character",
            "claims: { user: name }",
            "u-9",
            json!({"name": "ali\u{200b}ce"}),
            "principal",
            "malformed",
        ),
        (
            "an address that was never shown to be theirs",
            "claims: { user: [email] }",
            "u-9",
            json!({"email": "alice", "email_verified": false}),
            "principal",
            "User::\"https://idp.example.com|u-9\"",
        ),
        (
            "one that was",
            "claims: { user: [email] }",
            "u-9",
            json!({"email": "alice", "email_verified": "true"}),
            "principal",
            "User::\"alice\"",
        ),
        ("only those of the bundle", "unknown_users: refuse", "u-9", json!({}), "principal", "unknown_principal"),
        ("one of the bundle", "unknown_users: refuse", "u-1", json!({}), "principal", "User::\"alice\""),
        ("a service", "principal: service", "repo:acme/app", json!({}), "principal", "Service::\"ci\""),
        (
            "a service by what it says",
            "service_when: { gty: client-credentials }, claims: { service: azp, user: name }",
            "u-9",
            json!({"gty": "client-credentials", "azp": "ci", "name": "alice"}),
            "principal",
            "Service::\"ci\"",
        ),
        (
            "a user by what it does not say",
            "service_when: { gty: client-credentials }, claims: { service: azp, user: name }",
            "u-9",
            json!({"gty": "password", "azp": "ci", "name": "bob"}),
            "principal",
            "User::\"bob\"",
        ),
        (
            "the bundle's external_id before a claim that names an id",
            "claims: { user: name }",
            "u-1",
            json!({"name": "bob"}),
            "principal",
            "User::\"alice\"",
        ),
        (
            "an id with the separator, of the directory",
            "directory: true",
            "auth0|5f7c",
            json!({}),
            "principal",
            "User::\"carol\"",
        ),
        (
            "the same where there is no directory",
            "",
            "auth0|5f7c",
            json!({}),
            "principal",
            "User::\"https://idp.example.com|auth0|5f7c\"",
        ),
        (
            "the directory has no id of another issuer",
            "directory: true",
            "https://other.example.com|u-4",
            json!({}),
            "principal",
            "User::\"https://idp.example.com|https://other.example.com|u-4\"",
        ),
        (
            "an address in other letters, verified",
            "link: [external_id, email]",
            "u-9",
            json!({"email": "dave@example.COM", "email_verified": true}),
            "principal",
            "User::\"dave\"",
        ),
        (
            "another claim taken for the address is not what is verified",
            "link: [external_id, email], claims: { email: upn }",
            "u-9",
            json!({"upn": "dave@example.com", "email_verified": true}),
            "principal",
            "User::\"https://idp.example.com|u-9\"",
        ),
        (
            "unless the operator vouches for it",
            "link: [external_id, email], email_verified: assumed, claims: { email: upn }",
            "u-9",
            json!({"upn": "dave@example.com"}),
            "principal",
            "User::\"dave\"",
        ),
        (
            "an address beside its own email_verified",
            "link: [external_id, email], claims: { email: profile.email }",
            "u-9",
            json!({"profile": {"email": "dave@example.com", "email_verified": true}}),
            "principal",
            "User::\"dave\"",
        ),
        (
            "an address beside another's email_verified",
            "link: [external_id, email], claims: { email: profile.email }",
            "u-9",
            json!({"profile": {"email": "dave@example.com"}, "email_verified": true}),
            "principal",
            "User::\"https://idp.example.com|u-9\"",
        ),
        (
            "a fixed address is nobody's",
            "link: [external_id, email], email_verified: assumed, claims: { email: { value: dave@example.com } }",
            "u-9",
            json!({}),
            "principal",
            "User::\"https://idp.example.com|u-9\"",
        ),
        (
            "folded",
            "claims: { user: { claim: email, fold: lower } }",
            "u-9",
            json!({"email": "Alice@EXAMPLE.com"}),
            "principal",
            "User::\"alice@example.com\"",
        ),
        (
            "what only looks like a letter is not folded",
            "claims: { user: { claim: name, fold: lower } }",
            "u-9",
            json!({"name": "\u{212a}ATE"}),
            "principal",
            "User::\"\u{212a}ate\"",
        ),
        (
            "a blank id is none",
            "claims: { user: [name, email] }",
            "u-9",
            json!({"name": "", "email": "bob"}),
            "principal",
            "User::\"bob\"",
        ),
        (
            "an id of Tollgate's own",
            "claims: { user: name }",
            "u-9",
            json!({"name": "tollgate:administrator"}),
            "principal",
            "untrusted",
        ),
        (
            "a service by how a claim ends",
            "service_when: { name: '*@services.example' }, claims: { service: azp }",
            "u-9",
            json!({"name": "ci@services.example", "azp": "ci"}),
            "principal",
            "Service::\"ci\"",
        ),
        (
            "nobody can tell whether it is a service",
            "service_when: { groups: services }, claims: { service: azp }",
            "u-9",
            json!({"hasgroups": true, "azp": "ci"}),
            "principal",
            "malformed",
        ),
        // What it is in.
        (
            "nested",
            "claims: { teams: realm_access.roles }",
            "u",
            json!({"realm_access": {"roles": ["a", "b"]}}),
            "teams",
            "a,b",
        ),
        (
            "a name with dots",
            "claims: { teams: '[\"https://x.example/t\"]' }",
            "u",
            json!({"https://x.example/t": ["a"]}),
            "teams",
            "a",
        ),
        ("by a JSON pointer", "claims: { teams: '/a~1b/c' }", "u", json!({"a/b": {"c": "x"}}), "teams", "x"),
        ("a text is one value", "claims: { teams: g }", "u", json!({"g": "a b,c"}), "teams", "a b,c"),
        (
            "split at commas",
            "claims: { teams: { claim: g, split: comma } }",
            "u",
            json!({"g": "a, b,,c"}),
            "teams",
            "a,b,c",
        ),
        (
            "split at spaces",
            "claims: { teams: { claim: g, split: space } }",
            "u",
            json!({"g": "a b  c"}),
            "teams",
            "a,b,c",
        ),
        (
            "only what begins so, without that",
            "claims: { teams: { claim: g, strip_prefix: 'llm-' } }",
            "u",
            json!({"g": ["llm-research", "research-admins"]}),
            "teams",
            "research",
        ),
        (
            "only what begins so",
            "claims: { teams: { claim: g, only_prefix: 'res' } }",
            "u",
            json!({"g": ["research", "other"]}),
            "teams",
            "research",
        ),
        (
            "a team named like another is another",
            "claims: { teams: g }",
            "u",
            json!({"g": ["research-admins"]}),
            "teams",
            "research-admins",
        ),
        (
            "values that stand for others",
            "claims: { teams: { claim: g, map: { 8f-1: research } } }",
            "u",
            json!({"g": ["8f-1", "8f-2"]}),
            "teams",
            "research",
        ),
        ("fixed", "claims: { teams: { value: [research] } }", "u", json!({"teams": "other"}), "teams", "research"),
        (
            "fixed, where no claim is there",
            "claims: { teams: [g, { value: research }] }",
            "u",
            json!({}),
            "teams",
            "research",
        ),
        (
            "a claim that is an empty list is there",
            "claims: { teams: [g, { value: research }] }",
            "u",
            json!({"g": []}),
            "teams",
            "",
        ),
        ("lists of lists", "claims: { teams: g }", "u", json!({"g": [["research"]]}), "teams", "malformed"),
        ("a list with null", "claims: { teams: g }", "u", json!({"g": ["research", null]}), "teams", "malformed"),
        ("a list with a number", "claims: { teams: g }", "u", json!({"g": ["research", 1]}), "teams", "malformed"),
        ("an object", "claims: { teams: g }", "u", json!({"g": {"research": true}}), "teams", "malformed"),
        ("true", "claims: { teams: g }", "u", json!({"g": true}), "teams", "malformed"),
        (
            "two thousand teams",
            "claims: { teams: g }",
            "u",
            json!({"g": (0..2000).map(|n| n.to_string()).collect::<Vec<_>>()}),
            "teams",
            "malformed",
        ),
        (
            "groups that are to be asked for elsewhere",
            "claims: { teams: groups }",
            "u",
            json!({"_claim_names": {"groups": "src1"}}),
            "teams",
            "malformed",
        ),
        (
            "more groups than a token has",
            "claims: { teams: groups }",
            "u",
            json!({"hasgroups": true}),
            "teams",
            "malformed",
        ),
        ("the same as a text", "claims: { teams: groups }", "u", json!({"hasgroups": "true"}), "teams", "malformed"),
        ("and in capitals", "claims: { teams: groups }", "u", json!({"hasgroups": "True"}), "teams", "malformed"),
        (
            "also beside some",
            "claims: { teams: groups }",
            "u",
            json!({"hasgroups": true, "groups": ["a"]}),
            "teams",
            "malformed",
        ),
        (
            "also beside null",
            "claims: { teams: groups }",
            "u",
            json!({"hasgroups": true, "groups": null}),
            "teams",
            "malformed",
        ),
        (
            "also where another claim would count instead",
            "claims: { teams: [groups, { value: research }] }",
            "u",
            json!({"hasgroups": true}),
            "teams",
            "malformed",
        ),
        ("as roles", "claims: { roles: groups }", "u", json!({"hasgroups": true}), "roles", "malformed"),
        ("as tags", "claims: { tags: groups }", "u", json!({"_claim_names": {"groups": "s"}}), "tags", "malformed"),
        (
            "no more than those",
            "claims: { teams: groups }",
            "u",
            json!({"hasgroups": false, "groups": ["a"]}),
            "teams",
            "a",
        ),
        (
            "where no groups are looked at",
            "claims: { teams: roles }",
            "u",
            json!({"hasgroups": true, "roles": ["a"]}),
            "teams",
            "a",
        ),
        (
            "other claims that are left out",
            "claims: { teams: groups }",
            "u",
            json!({"_claim_names": {"address": "s"}, "groups": ["a"]}),
            "teams",
            "a",
        ),
        // What can name nothing is no group.
        ("a blank text", "claims: { teams: groups }", "u", json!({"groups": ""}), "teams", ""),
        ("a blank one among them", "claims: { teams: groups }", "u", json!({"groups": ["", "a"]}), "teams", "a"),
        (
            "a zero-width character",
            "claims: { teams: groups }",
            "u",
            json!({"groups": ["b\u{200b}", "a"]}),
            "teams",
            "a",
        ),
        ("a line break", "claims: { roles: groups }", "u", json!({"groups": ["b\nc", "a"]}), "roles", "a"),
        ("a long one", "claims: { tags: groups }", "u", json!({"groups": ["b".repeat(1025), "a"]}), "tags", "a"),
        (
            "nothing but a prefix",
            "claims: { teams: { claim: g, strip_prefix: 'llm-' } }",
            "u",
            json!({"g": ["llm-", "llm-a"]}),
            "teams",
            "a",
        ),
        (
            "a thousand of these beside one that counts",
            "claims: { teams: g }",
            "u",
            json!({"g": (0..1500).map(|n| format!("\u{200b}{n}")).chain(["a".to_owned()]).collect::<Vec<_>>()}),
            "teams",
            "a",
        ),
        ("a blank address", "", "u", json!({"email": ""}), "email", ""),
        ("an address that can be nobody's", "", "u", json!({"email": "a\u{200b}@example.com"}), "email", ""),
        (
            "folded before anything else",
            "claims: { teams: { claim: g, fold: lower, strip_prefix: 'llm-' } }",
            "u",
            json!({"g": ["LLM-Research", "llm-research"]}),
            "teams",
            "research",
        ),
        (
            "roles in teams",
            "claims: { team_roles: { claim: g, map: { 8f-1: 'research:admin', 8f-2: research } } }",
            "u",
            json!({"g": ["8f-1", "8f-2", "8f-3"]}),
            "team_roles",
            "research:admin",
        ),
        // A role of ours comes from no token.
        (
            "a reserved role",
            "claims: { roles: r }",
            "u",
            json!({"r": ["tollgate:administrator", "dev"]}),
            "roles",
            "dev",
        ),
        (
            "a reserved role, put together",
            "claims: { roles: { claim: r, strip_prefix: 'x-' } }",
            "u",
            json!({"r": ["x-tollgate:gateway"]}),
            "roles",
            "",
        ),
        ("tags", "claims: { tags: t }", "u", json!({"t": ["gpu"]}), "tags", "gpu"),
        ("orgs", "claims: { orgs: o }", "u", json!({"o": "acme"}), "orgs", "acme"),
        ("the address", "", "u", json!({"email": "a@example.com"}), "email", "a@example.com"),
        (
            "no address that was not shown",
            "",
            "u",
            json!({"email": "a@example.com", "email_verified": false}),
            "email",
            "",
        ),
        (
            "metadata",
            "claims: { metadata: { repo: repository } }",
            "u",
            json!({"repository": "acme/app"}),
            "metadata",
            "repo=acme/app",
        ),
        (
            "metadata that is a number",
            "claims: { metadata: { repo: repository } }",
            "u",
            json!({"repository": 5}),
            "metadata",
            "malformed",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, yaml, subject, claims, what, expected) in cases {
        let yaml = if yaml.is_empty() { "leeway_seconds: 5" } else { yaml };
        let said = match prove(yaml, subject, claims) {
            Ok(identity) => shown(&identity, what),
            Err(reason) => reason.as_str().to_owned(),
        };
        if said != *expected {
            wrong.push(format!("{name}: {said}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn chosen_headers_are_told_and_claims_beat_them() {
    let mapping = mapping("claims: { metadata: { x-team: team } }, metadata_headers: [X-Team, x-env]").unwrap();
    let claims = json!({"sub": "u", "team": "research"});
    let proof = Proof {
        issuer: ISSUER,
        subject: "u",
        claims: claims.as_object().unwrap(),
        method: AuthMethod::Jwt,
        expires_at: Timestamp::from_millis(i64::MAX),
    };
    let identity = mapping.identity(&proof, &snapshot()).unwrap();
    let headers =
        [("x-team", "admins"), ("x-env", "prod"), ("x-other", "no")].map(|(name, value)| (name.into(), value.into()));
    let request = Described { headers: headers.into(), ..Described::default() };
    let told = mapping.with_headers(&identity, &request).unwrap();
    assert_eq!(shown(&told, "metadata"), "x-team=research,x-env=prod");
    let twice = [("x-env", "prod"), ("x-env", "dev")].map(|(name, value)| (name.into(), value.into()));
    let request = Described { headers: twice.into(), ..Described::default() };
    assert!(mapping.with_headers(&identity, &request).is_none());
}

#[test]
fn what_cannot_be_meant_is_no_configuration() {
    for (yaml, told) in [
        ("claims: { roles: { value: 'tollgate:gateway' } }", "to users or services in the bundle"),
        ("claims: { roles: { claim: r, map: { a: 'tollgate:administrator' } } }", "to users or services in the bundle"),
        ("claims: { teams: 'a..b' }", "named by its path"),
        ("claims: { teams: [] }", "alternatives"),
        ("claims: { team: g }", "team"),
        ("claims: { teams: { claim: g, value: x } }", "only `value`"),
        ("principal: service, service_when: { a: b }", "do not go together"),
        ("require: { a: '*' }", "wants a value"),
        ("require: { a: '**' }", "may have a single `*`"),
        ("require: { a: 'x*y' }", "may have a single `*`"),
        ("require: { a: '*x*' }", "may have a single `*`"),
        ("service_when: { a: 'a*b*' }", "may have a single `*`"),
        ("link: [email]", "in this order"),
        ("link: [email, external_id]", "in this order"),
        ("link: []", "in this order"),
        ("link: [name]", "external_id"),
        ("email_verified: assumed", "is for `link: [external_id, email]`"),
        ("link: [external_id], email_verified: assumed", "is for `link: [external_id, email]`"),
        ("email_verified: true", "expected `claimed` or `assumed`"),
        ("claims: { user: { claim: a, fold: upper } }", "expected `lower`"),
        ("claims: { user: { value: a, fold: lower } }", "only `value`"),
        ("leeway_seconds: 31", "at most"),
        ("algorithms: [none]", "none that is taken"),
        ("secret_file: x", "one of the three"),
        ("max_token_bytes: 1", "max_token_bytes"),
    ] {
        let error = mapping(yaml).expect_err(yaml);
        assert!(error.contains(told), "{yaml}: {error}");
    }
}

/// What is required of a claim may say how it begins or how it ends.
#[test]
fn a_star_stands_for_the_rest_of_a_value() {
    use tollgate::edge::identity::claims::{ClaimPath, Wanted};
    for (wanted, said, holds) in [
        ("repo:acme/*", "repo:acme/app", true),
        ("repo:acme/*", "repo:acme/", false),
        ("repo:acme/*", "repo:acme-evil/app", false),
        ("*@acme.example", "alice@acme.example", true),
        ("*@acme.example", "@acme.example", false),
        ("*@acme.example", "alice@acme.example.evil", false),
        ("*@acme.example", "alice@evil.example", false),
        ("acme", "acme", true),
        ("acme", "acme*", false),
    ] {
        let rule = Wanted { path: ClaimPath::of("a"), values: vec![wanted.into()] };
        let claims = json!({"a": said});
        assert_eq!(rule.holds(claims.as_object().unwrap()), holds, "{wanted} {said}");
        let list = json!({"a": ["x", said]});
        assert_eq!(rule.holds(list.as_object().unwrap()), holds, "{wanted} [{said}]");
    }
}

/// What a token says of a role in a team counts where the token, or the bundle, puts its owner in the team.
#[test]
fn a_role_in_a_team_counts_in_teams_that_one_is_in() {
    use tollgate::gate::{MANAGE_KEYS, Manager};
    use tollgate::model::Facts;
    let snapshot = snapshot();
    let manages = |claims: Value| {
        let mapping = mapping("claims: { teams: groups, team_roles: roles }").unwrap();
        let claims = claims.as_object().unwrap().clone();
        let proof = Proof {
            issuer: ISSUER,
            subject: "u-9",
            claims: &claims,
            method: AuthMethod::Jwt,
            expires_at: Timestamp::from_millis(i64::MAX),
        };
        let identity = Arc::new(mapping.identity(&proof, &snapshot).unwrap());
        let facts = Facts::at(Timestamp::from_millis(0));
        let manager =
            Manager { snapshot: &snapshot, facts: &facts, identity: &identity, peer: None, session_key_ms: 0 };
        manager.right(MANAGE_KEYS, &"Team::\"research\"".parse().unwrap()).is_some()
    };
    assert!(manages(json!({"groups": ["research"], "roles": ["research:admin"]})));
    assert!(!manages(json!({"groups": ["research"], "roles": ["research:member"]})));
    assert!(!manages(json!({"groups": ["research"], "roles": ["admin"]})));
    assert!(!manages(json!({"groups": ["research-admins"], "roles": ["research:admin"]})));
}
