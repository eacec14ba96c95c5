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
services: [{ id: ci, external_id: "https://idp.example.com|repo:acme/app" }]
authz_rules: [{ id: all, teams: [research], models: "*" }]
"#;

fn snapshot() -> Arc<Snapshot> {
    let file = SourceFile::new("bundle.yaml", BUNDLE.as_bytes()).unwrap();
    Loader::new(false).load(&Bundle::new(vec![file])).unwrap().snapshot
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
        ("claims: { roles: { value: 'tollgate:gateway' } }", "given in the bundle"),
        ("claims: { roles: { claim: r, map: { a: 'tollgate:administrator' } } }", "given in the bundle"),
        ("claims: { teams: 'a..b' }", "named by its path"),
        ("claims: { teams: [] }", "alternatives"),
        ("claims: { team: g }", "team"),
        ("claims: { teams: { claim: g, value: x } }", "`value` alone"),
        ("principal: service, service_when: { a: b }", "do not go together"),
        ("require: { a: '*' }", "wants a value"),
        ("leeway_seconds: 31", "at most"),
        ("algorithms: [none]", "none that is taken"),
        ("secret_file: x", "one of the three"),
        ("max_token_bytes: 1", "max_token_bytes"),
    ] {
        let error = mapping(yaml).expect_err(yaml);
        assert!(error.contains(told), "{yaml}: {error}");
    }
}
