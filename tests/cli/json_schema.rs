//! The JSON Schema of the YAML files takes what the parser takes. What it says of texts by patterns is not looked at.

use std::fs;

use serde_json::Value;

use super::{entries, root};

/// Where `value` does not fit `schema`; of the keywords only those that the schema uses.
fn misfits(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let fits = |schema: &Value| misfits(root, schema, value, path).is_empty();
    let Some(keywords) = schema.as_object() else { return found };
    for (keyword, said) in keywords {
        let list = || said.as_array().unwrap().iter();
        let ok = match (keyword.as_str(), value) {
            ("$ref", _) => {
                let target = root.pointer(said.as_str().unwrap().trim_start_matches('#')).unwrap();
                found.extend(misfits(root, target, value, path));
                true
            }
            ("not", _) => !fits(said),
            ("anyOf", _) => list().any(fits),
            ("oneOf", _) => list().filter(|one| fits(one)).count() == 1,
            ("allOf", _) => list().all(fits),
            ("items", Value::Array(items)) => {
                let of_item = |(number, item)| misfits(root, said, item, &format!("{path}[{number}]"));
                found.extend(items.iter().enumerate().flat_map(of_item));
                true
            }
            ("properties", Value::Object(members)) => {
                let known = members.iter().filter_map(|(name, member)| Some((name, member, said.get(name)?)));
                found.extend(
                    known.flat_map(|(name, member, schema)| misfits(root, schema, member, &format!("{path}.{name}"))),
                );
                true
            }
            ("additionalProperties", Value::Object(members)) => {
                let properties = schema.get("properties");
                let others =
                    members.iter().filter(|(name, _)| properties.is_none_or(|known| known.get(name).is_none()));
                match said {
                    Value::Bool(allowed) => {
                        found.extend(others.filter(|_| !allowed).map(|(name, _)| format!("{path}: no `{name}`")));
                    }
                    _ => found.extend(others.flat_map(|(_, member)| misfits(root, said, member, path))),
                }
                true
            }
            _ => fits_alone(keyword, said, value),
        };
        if !ok {
            found.push(format!("{path}: {keyword}"));
        }
    }
    found
}

/// Whether `value` fits a keyword that holds no schema.
fn fits_alone(keyword: &str, said: &Value, value: &Value) -> bool {
    let length = |text: &str| text.chars().count() as u64;
    match (keyword, value) {
        ("type", _) => {
            let is = |kind: &Value| match kind.as_str().unwrap() {
                "integer" => value.is_i64() || value.is_u64(),
                kind => kind == type_of(value),
            };
            said.as_array().map_or_else(|| is(said), |kinds| kinds.iter().any(is))
        }
        ("const", _) => value == said,
        ("enum", _) => said.as_array().unwrap().contains(value),
        ("required", Value::Object(members)) => {
            said.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
        }
        ("minItems", Value::Array(items)) => items.len() as u64 >= said.as_u64().unwrap(),
        ("maxItems", Value::Array(items)) => items.len() as u64 <= said.as_u64().unwrap(),
        ("minLength", Value::String(text)) => length(text) >= said.as_u64().unwrap(),
        ("maxLength", Value::String(text)) => length(text) <= said.as_u64().unwrap(),
        ("minimum", Value::Number(number)) => number.as_f64() >= said.as_f64(),
        ("maximum", Value::Number(number)) => number.as_f64() <= said.as_f64(),
        ("exclusiveMaximum", Value::Number(number)) => number.as_f64() < said.as_f64(),
        // The one pattern that says more than how a text looks: no `*` in names.
        ("pattern", Value::String(text)) if said == "\\*" => text.contains('*'),
        _ => true,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../../schema/rules.schema.json")).unwrap()
}

fn check(text: &str) -> Vec<String> {
    let schema = schema();
    misfits(&schema, &schema, &serde_yaml::from_str(text).unwrap(), "")
}

#[test]
fn the_examples_fit() {
    let mut texts = 0;
    for folder in ["policies", "policies/eu", "src/cli/init"] {
        for path in entries(&root().join(folder)) {
            if path.extension().is_some_and(|ending| ending == "yaml") {
                texts += 1;
                assert_eq!(check(&fs::read_to_string(&path).unwrap()), [""; 0], "{}", path.display());
            }
        }
    }
    assert!(texts >= 7, "only {texts} files were found");
}

/// Everything that a declaration may say, in all its forms.
#[test]
fn every_form_fits() {
    let text = r#"
orgs: [{ id: acme, tags: [a], external_id: x, expires_at: 2027-01-01T00:00:00Z, disabled: false, metadata: { a: 1 } }]
teams: [{ id: research, org: acme, parent: science, tags: [gpu] }]
users:
  - { id: 17, teams: [research, { id: ops, role: admin }], orgs: [acme], roles: [r], tags: [t], email: a@b.example }
  - { id: bob, team: { id: ops }, org: acme }
services: [{ id: bot, team: ops }]
keys:
  - { id: ci, hash: "x", owner: 'Service::"bot"', models: ["openai-main/*"], routers: "*", actions: [chat] }
provider_accounts:
  - id: openai-main
    provider: openai
    models:
      - gpt-4o
      - { name: ada, enabled: false, tags: [e], aliases: [x], max_output_tokens: 0, price: { input: 0.10, output: 0, cached_input: "0.05" } }
      - { name: opus, price: { input: 1, output: 2, cache_write: 3, reasoning: 2, request: 0.01, image: "0.04", tiers: [{ above: 200000, input: 2, output: 4 }] } }
  - id: open
model_groups: [{ id: frontier, models: [openai-main/gpt-4o, "a/*", "*/llama-*"], tags: [t] }]
routers: [{ id: chat-prod, models: "*" }]
limits:
  - { id: a, teams: [research], each: user, budget: { usd: 500.50, every: month, timezone: Europe/Berlin, starts_on: 15, carry_over: 50 }, warn_at: [50, 80], mode: warn }
  - { id: b, everyone: true, actions: [chat], budget: { tokens: 1000, rolling: 30d }, on_store_error: { permit: 10 }, on_expiry: release, durability: sync }
  - { id: c, routers: "*", each: metadata.project, rate: { requests: 60, every: minute, burst: 10 }, on_store_error: permit }
  - { id: d, model_tags: [gpu], concurrency: 8, overrides: [{ concurrency: 16, from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z }] }
  - { id: e, users: "*", budget: { usd: "0.5", every: week, starts_on: sunday }, unpriced: free, description: x, lease: 0.05 }
  - { id: f, users: "*", rate: { tokens: 1000, every: second }, lease: { size: 100, seconds: 5 } }
authz_rules:
  - { users: "*", models: "*" }
  - { services: ["*"], models: ["*"], effect: forbid, when: "true", unless: [a, b] }
  - { tags: [a], model_tags: [b], actions: [use, list], description: text, id: x }
"#;
    assert_eq!(check(text), [""; 0]);
}

/// Where the text of a config file does not fit what `tollgate schema --config` prints.
fn check_config(text: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&tollgate::config::schema_json()).unwrap();
    misfits(&schema, &schema, &serde_yaml::from_str(text).unwrap(), "")
}

/// Whether `tollgate serve` reads it, as far as the form goes; what files hold is not looked at.
fn is_read(text: &str) -> Result<(), String> {
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("t.yaml");
    fs::write(&path, text).unwrap();
    let flags = tollgate::config::Flags { config: Some(path), ..Default::default() };
    let read = tollgate::config::Settings::from(&flags, |_| None);
    read.map(drop).map_err(|error| error.to_string())
}

#[test]
fn config_files_of_the_documents_fit() {
    let mut blocks = 0;
    for page in ["docs/identity.md", "docs/http.md", "docs/limits.md", "docs/operations.md", "README.md"] {
        let page = fs::read_to_string(root().join(page)).unwrap();
        for block in page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let sections = ["identity:", "routes:", "listen:", "meters:", "alerts:", "decisions:", "tls:", "log:"];
            let is_whole = !block.contains('…');
            if is_whole && sections.iter().any(|section| block.lines().any(|line| line.starts_with(section))) {
                blocks += 1;
                assert_eq!(check_config(block), [""; 0], "{block}");
            }
        }
    }
    assert!(blocks >= 14, "only {blocks} were found");
}

/// Every member of `identity:` and `routes:` in one of its forms, or more of them.
const EVERYTHING: &str = r#"
routes:
  - { path: /v1/chat/completions, method: POST, action: chat, model_param: model }
  - { path: /x/*, action: use, resource: 'Router::"x"' }
identity:
  loopback: closed
  key_headers: [x-key]
  failures: { enabled: true, source_burst: 5, source_every_ms: 1000, id_burst: 5, id_every_ms: 1000, proved_ms: 1000 }
  admin_policies: "off"
  tokens: { issuer: t, access_seconds: 60, refresh_seconds: 600, rotate_seconds: 600, pepper_file: p }
  providers:
    - { name: k, enabled: true, on_error: refuse, keys: { unknown_owners: allow, pepper_file: p, first_key: file, max_stale_seconds: 5, max_days: 30, orphan_days: 7 } }
    - { static: { anywhere: true, tokens: [{ token: d5f8a1c3e7b9426f80a1c3e5d7f9b2e4, principal: 'User::"a"', roles: [r] }] } }
    - jwt:
        max_token_bytes: 4096
        remembered: 10
        issuers:
          - issuer: https://a.example
            audiences: tollgate
            jwks_url: https://a.example/keys
            bearer_file: b
            algorithms: [ES256]
            types: [JWT]
            leeway_seconds: 5
            max_lifetime_seconds: 500
            refresh_ms: 60000
            unknown_key_pause_ms: 1000
            max_stale_ms: 100000
            require: { hd: example.com, sub: ['a', 'b*'] }
            claims:
              user: [email, { claim: sub, strip_prefix: x }]
              service: { claim: azp, map: { a: b } }
              external_id: sub
              teams: { claim: groups, split: comma, only_prefix: t- }
              orgs: { value: acme }
              roles: { value: [a, b] }
              tags: tags
              email: email
              metadata: { region: region, fixed: { value: x } }
            service_when: { gty: client-credentials }
            memberships: replace
            unknown_users: refuse
            directory: true
            metadata_headers: [x-project]
          - { issuer: https://b.example, audiences: [a, b], jwks_file: f, principal: service }
          - { issuer: https://c.example, audiences: [a], pem_files: [f, g] }
          - { issuer: https://d.example, audiences: [a], secret_file: s }
    - introspection:
        url: https://a.example/i
        client_id: c
        client_secret_file: s
        issuer: https://e.example
        audiences: [a]
        remember_ms: 1000
        timeout_ms: 1000
        at_once: 5
        require: { a: b }
        claims: {}
        principal: user
        memberships: join
        unknown_users: allow
        directory: false
        metadata_headers: [x]
    - { basic: { htpasswd: f, bundle: false, at_once: 1, queue: 1, cache_ms: 1 } }
    - { digest: { file: f, realm: r } }
    - delegated:
        url: https://a.example/v
        timeout_ms: 100
        at_once: 5
        cache_ms: 0
        principal_type: Service
        nameless: 'User::"n"'
        headers: [x]
        attributes: { teams: [t], orgs: [o], roles: [r], tags: [g] }
    - { forwarded_certificate: { from: [10.0.0.0/8], mappings: [{ dns: a.example, principal: 'Service::"a"' }] } }
    - { client_certificate: { mappings: [{ spiffe: 'spiffe://a.example/bot', principal: 'Service::"bot"', teams: [t], orgs: [o], roles: [r], tags: [g] }] } }
tls: { certificate_file: c, key_file: k, client_ca_file: a, client_certificates: required }
"#;

#[test]
fn every_form_of_identity_and_routes_fits_and_is_read() {
    assert_eq!(check_config(EVERYTHING), [""; 0]);
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "0123456789012345678901234567890123456789").unwrap();
    let secret_file = format!("secret_file: {}", secret.path().display());
    // Files of names are read too; one may be empty.
    let names = tempfile::NamedTempFile::new().unwrap();
    let named = |key: &str| format!("{key}: {},", names.path().display());
    let text = EVERYTHING.replace("secret_file: s", &secret_file);
    let text = text.replace("htpasswd: f,", &named("htpasswd")).replace("file: f, realm", &(named("file") + " realm"));
    assert_eq!(is_read(&text), Ok(()));
}

#[test]
fn a_config_file_that_is_not_read_does_not_fit() {
    for text in [
        "identiy: {}",
        "identity: { token: {} }",
        "identity: { tokens: null }",
        "identity: { loopback: shut }",
        "identity: { failures: { source_burst: -1 } }",
        "identity: { providers: { keys: {} } }",
        "identity: { providers: [{ kees: {} }] }",
        "identity: { providers: [{ keys: { first_key: maybe } }] }",
        "identity: { providers: [{ jwt: {} }] }",
        "identity: { providers: [{ jwt: { issuers: [{ issuer: a }] } }] }",
        "identity: { providers: [{ jwt: { issuers: [{ issuer: 'https://a', audiences: [a], claims: { user: 5 } }] } }] }",
        "identity: { providers: [{ jwt: { issuers: [{ issuer: 'https://a', audiences: [a], claims: { user: { claims: x } } }] } }] }",
        "identity: { providers: [{ digest: {} }] }",
        "identity: { providers: [{ delegated: { url: 'https://a', principal_type: Team } }] }",
        "routes: {}",
        "routes: [{ path: /x }]",
        "routes: [{ path: /x, action: chat, model: y }]",
        "routes: [{ path: [/x], action: chat }]",
    ] {
        assert_ne!(check_config(text), [""; 0], "{text}");
        assert!(is_read(text).is_err(), "{text}");
    }
}

#[test]
fn what_does_not_load_does_not_fit() {
    for text in [
        "rules: []",
        "limits: [{ id: a }]",
        "limits: [{ id: a, users: '*' }]",
        "limits: [{ id: a, concurrency: 1 }]",
        "limits: [{ users: '*', concurrency: 1 }]",
        "limits: [{ id: a, users: '*', concurrency: 0 }]",
        "limits: [{ id: a, users: '*', concurrency: 1, rate: { requests: 1, every: day } }]",
        "limits: [{ id: a, everyone: false, concurrency: 1 }]",
        "limits: [{ id: a, everyone: true, budget: { usd: 1 } }]",
        "limits: [{ id: a, everyone: true, budget: { every: month } }]",
        "limits: [{ id: a, everyone: true, budget: { usd: -1, every: month } }]",
        "limits: [{ id: a, everyone: true, budget: { usd: 1, tokens: 1, every: month } }]",
        "limits: [{ id: a, everyone: true, budget: { usd: 1, every: month, rolling: 1d } }]",
        "limits: [{ id: a, everyone: true, rate: { requests: 1, every: day, burst: 0 } }]",
        "limits: [{ id: a, everyone: true, concurrency: 1, warn_at: [120] }]",
        "limits: [{ id: a, everyone: true, budget: { usd: 1, every: month }, lease: { seconds: 5 } }]",
        "limits: [{ id: a, everyone: true, concurrency: 1, overrides: [{ concurrency: 2 }] }]",
        "limits: [{ id: a, everyone: true, concurrency: 1, mode: off }]",
        "limits: [{ id: a, everyone: true, concurrency: 1, on_store_error: { forbid: 1 } }]",
        "authz_rules: []",
        "authz_rules: [{ users: [a] }]",
        "authz_rules: [{ models: [a/b] }]",
        "authz_rules: [{ users: [], models: [a/b] }]",
        "authz_rules: [{ users: alice, models: [a/b] }]",
        "authz_rules: [{ users: [a, '*'], models: [a/b] }]",
        "authz_rules: [{ teams: '*', models: [a/b] }]",
        "authz_rules: [{ users: ['a*'], models: [a/b] }]",
        "authz_rules: [{ users: [a], models: [a/b, '*'] }]",
        "authz_rules: [{ users: [null], models: [a/b] }]",
        "authz_rules: [{ users: [a], models: [a/b], effect: allow }]",
        "authz_rules: [{ users: [a], models: [a/b], when: [] }]",
        "authz_rules: [{ users: [a], models: [a/b], condition: x }]",
        "users: [{ name: alice }]",
        "users: [alice]",
        "users: [{ id: a, disabled: 'true' }]",
        "users: [{ id: a, teams: [{ id: b, rôle: c }] }]",
        "orgs: [{ id: a, org: b }]",
        "orgs: [{ id: a, metadata: [b] }]",
        "orgs: [{ id: a, metadata: { b: [c] } }]",
        "keys: [{ id: a, hash: b }]",
        "provider_accounts: [{ id: a, models: [] }]",
        "provider_accounts: [{ id: a, models: [{ name: b, price: { input: -1 } }] }]",
        "provider_accounts: [{ id: a, models: [{ name: b, max_output_tokens: -1 }] }]",
        "provider_accounts: [{ id: a, models: [{ name: b, max_output_tokens: 1.5 }] }]",
        "model_groups: [{ id: a }]",
        "[]",
    ] {
        assert_ne!(check(text), [""; 0], "{text} fits");
    }
}
