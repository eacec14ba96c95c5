//! Somebody whom the bundle declares signs in with a token: whatever the token calls her, she stays who she is, so that she
//! can be disabled, and has one budget.

use serde_json::{Value, json};

use crate::support::{Client, Server, Setup, secret};
use crate::tokens::{Signer, changed, now, set};

const ISSUER: &str = "https://dex.example.com/dex";

/// As the recipe for Dex has it, with more of the issuer.
fn config(more: &str) -> String {
    format!(
        "identity:
  failures: {{ enabled: false }}
  providers:
    - jwt:
        issuers:
          - {{ issuer: '{ISSUER}', audiences: [tollgate], jwks_file: keys.json,
              claims: {{ user: email, teams: {{ claim: groups, strip_prefix: 'acme:' }} }}{more} }}
"
    )
}

const BUNDLE: &str = r#"
teams: [{ id: research }, { id: contractors }]
users:
  - { id: alice, email: alice@acme.example, external_id: "https://dex.example.com/dex|u-alice" }
  - { id: bob, email: Bob@Acme.Example }
  - { id: carol, email: shared@acme.example }
  - { id: carla, email: Shared@acme.example }
  - { id: gone, email: gone@acme.example, disabled: true }
  - { id: "dora@acme.example" }
services: [{ id: bot, email: alice@acme.example }]
authz_rules:
  - { id: all, users: "*", models: "*" }
  - { id: no-contractors, effect: forbid, teams: [contractors], models: [m/secret] }
limits:
  - { id: day, users: "*", each: user, budget: { tokens: 10, every: day } }
"#;

struct World {
    server: Server,
    signer: Signer,
}

impl World {
    fn new(more: &str) -> Self {
        Self::of(BUNDLE, &config(more))
    }

    fn of(bundle: &str, config: &str) -> Self {
        let signer = Signer::p256("one");
        let temp = tempfile::TempDir::new().unwrap();
        std::fs::write(temp.path().join("keys.json"), set([&signer])).unwrap();
        let server = Setup::without_files().file("bundle.yaml", bundle).config(config).start_in(temp);
        server.until("the keys are read", |server| server.log().contains("in use"));
        Self { server, signer }
    }

    fn token(&self, claims: &Value) -> String {
        let usual = json!({"iss": ISSUER, "aud": "tollgate", "iat": now() - 5, "exp": now() + 600});
        self.signer.token(&changed(&usual, claims))
    }

    /// Who that is, or why nobody.
    fn who(&self, claims: &Value) -> String {
        let told = ask(&mut self.server.connect(), &self.token(claims), "m/x", &Value::Null);
        match told["principal"]["id"].as_str() {
            Some(id) => id.to_owned(),
            None => told["code"].as_str().unwrap().to_owned(),
        }
    }
}

fn ask(client: &mut Client, token: &str, model: &str, reserve: &Value) -> Value {
    let mut question =
        json!({"credential": {"bearer": secret(token)}, "action": "chat", "resource": format!("Model::\"{model}\"")});
    if !reserve.is_null() {
        question["reserve"] = reserve.clone();
    }
    client.post("/is_authorized", &question.to_string()).json()
}

#[test]
fn an_external_id_is_looked_up_before_a_claim_names_an_id() {
    let world = World::new("");
    let alice = json!({"sub": "u-alice", "email": "alice@acme.example", "email_verified": true});
    assert_eq!(world.who(&alice), "alice");
    // Whatever address the token tells by now.
    assert_eq!(world.who(&changed(&alice, &json!({"email": "alice.married@acme.example"}))), "alice");
    // Somebody else's subject, and nobody's: by email nobody is linked unless that is wished for.
    assert_eq!(world.who(&changed(&alice, &json!({"sub": "u-mallory"}))), "alice@acme.example");
    assert_eq!(world.who(&json!({"sub": "u-zoe", "email": "zoe@acme.example"})), "zoe@acme.example");
    assert_eq!(world.who(&json!({"sub": "u-dora", "email": "dora@acme.example"})), "dora@acme.example");
}

#[test]
fn who_is_disabled_stays_so_and_who_has_a_budget_has_one() {
    let world = World::new(", link: [external_id, email]");
    let gone = json!({"sub": "u-gone", "email": "gone@acme.example", "email_verified": true});
    let told = ask(&mut world.server.connect(), &world.token(&gone), "m/x", &Value::Null);
    assert_eq!((&told["code"], &told["principal"]["id"]), (&json!("principal_disabled"), &json!("gone")));
    let reserve = json!({"input_tokens": 10, "output_tokens": 0});
    let held = |claims: &Value| ask(&mut world.server.connect(), &world.token(claims), "m/x", &reserve)["code"].clone();
    let by_id = json!({"sub": "u-alice", "email": "x@acme.example", "email_verified": true});
    let by_email = json!({"sub": "another", "email": "ALICE@acme.example", "email_verified": true});
    assert_eq!((held(&by_id), held(&by_email)), (json!("permitted"), json!("budget_exceeded")));
}

#[test]
fn an_address_links_only_where_it_is_proved_and_one_persons() {
    let bob = |more: Value| changed(&json!({"sub": "u-bob", "email": "bob@acme.example"}), &more);
    for (link, claims, who) in [
        // The token says that it is verified.
        (", link: [external_id, email]", bob(json!({"email_verified": true})), "bob"),
        (", link: [external_id, email]", bob(json!({"email_verified": "true"})), "bob"),
        (", link: [external_id, email]", bob(json!({"email_verified": true, "email": "BOB@ACME.EXAMPLE"})), "bob"),
        // It does not, or says the contrary.
        (", link: [external_id, email]", bob(json!({})), "bob@acme.example"),
        (", link: [external_id, email]", bob(json!({"email_verified": false})), "https://dex.example.com/dex|u-bob"),
        (", link: [external_id, email]", bob(json!({"email_verified": "yes"})), "https://dex.example.com/dex|u-bob"),
        (", link: [external_id, email]", bob(json!({"email_verified": 1})), "https://dex.example.com/dex|u-bob"),
        // What is verified is `email`, and no other claim that is taken for one.
        (
            ", link: [external_id, email]",
            bob(json!({"email_verified": true, "email": "m@acme.example", "upn": "bob@acme.example"})),
            "m@acme.example",
        ),
        // The operator vouches for the issuer; a token that says the contrary is believed.
        (", link: [external_id, email], email_verified: assumed", bob(json!({})), "bob"),
        (
            ", link: [external_id, email], email_verified: assumed",
            bob(json!({"email_verified": false})),
            "https://dex.example.com/dex|u-bob",
        ),
        // Not at all.
        (", link: [external_id]", bob(json!({"email_verified": true})), "bob@acme.example"),
        (", link: external_id", bob(json!({"email_verified": true})), "bob@acme.example"),
        ("", bob(json!({"email_verified": true})), "bob@acme.example"),
        // An address of two links neither, in whatever letters.
        (
            ", link: [external_id, email]",
            bob(json!({"email_verified": true, "email": "shared@acme.example"})),
            "unauthenticated",
        ),
        // A letter that only looks like another is another (the Kelvin sign).
        (
            ", link: [external_id, email]",
            bob(json!({"email_verified": true, "email": "bo\u{212a}@acme.example"})),
            "bo\u{212a}@acme.example",
        ),
    ] {
        assert_eq!(World::new(link).who(&claims), who, "{link} {claims}");
    }
}

#[test]
fn a_service_is_no_user_with_the_same_address() {
    let world = World::new(", link: [external_id, email], principal: service");
    assert_eq!(world.who(&json!({"sub": "x", "email": "alice@acme.example", "email_verified": true})), "bot");
}

#[test]
fn who_is_not_linked_is_warned_of_at_the_start_and_once_later() {
    let warns = |world: &World, text: &str| world.server.log().matches(text).count();
    let world = World::new("");
    world.server.until("the start warns", |_| warns(&world, "are not linked by email") == 1);
    let log = world.server.log();
    // Those who have no `external_id` of this issuer: bob, carol, carla and gone.
    assert!(log.contains("4 users and services with an `email`") && log.contains("User::\"bob\" first"), "{log}");
    let bob = json!({"sub": "u-bob", "email": "bob@acme.example", "email_verified": true});
    for _ in 0..3 {
        world.who(&bob);
        world.who(&json!({"sub": "u-gone", "email": "gone@acme.example"}));
    }
    world.server.until("the first token warns", |_| warns(&world, "which the bundle does not declare") == 1);
    let log = world.server.log();
    assert!(log.contains("User::\"bob@acme.example\"") && log.contains("User::\"bob\" with that email"), "{log}");
    assert!(log.contains("link: [external_id, email]"), "{log}");
    // Who says that it shall be so is not told at the start again; who is linked needs no word.
    let chosen = World::new(", link: [external_id]");
    let linked = World::new(", link: [external_id, email]");
    linked.who(&bob);
    for world in [&chosen, &linked] {
        assert_eq!(warns(world, "are not linked by email"), 0);
    }
    assert_eq!(warns(&linked, "which the bundle does not declare"), 0);
    // Where a link by email is wished for and the token does not prove the address, that is told.
    linked.who(&json!({"sub": "u-bob", "email": "bob@acme.example"}));
    linked.server.until("it warns", |_| warns(&linked, "email_verified: assumed") == 1);
    let assumed = World::new(", link: [external_id, email], email_verified: assumed");
    assumed.server.until("it warns", |_| warns(&assumed, "can enter an arbitrary address") == 1);
    // An id in other letters is another user's.
    let other_letters = World::new("");
    assert_eq!(other_letters.who(&json!({"sub": "u-d", "email": "Dora@acme.example"})), "Dora@acme.example");
    other_letters.server.until("it warns", |_| warns(&other_letters, "differs by case alone") == 1);
}

#[test]
fn an_external_id_that_matches_no_token_is_warned_of() {
    let bundle = r#"
users: [{ id: alice, external_id: "auth0|5f7c" }, { id: bob, external_id: "https://elsewhere.example|1" }, { id: carol, external_id: 00u1 }]
authz_rules: [{ id: all, users: "*", models: "*" }]
"#;
    let told = "matches no token";
    let world = World::of(bundle, &config(""));
    world.server.until("it warns", |server| server.log().contains(told));
    assert!(world.server.log().contains("of 3 users and services"), "{}", world.server.log());
    let world = World::of(bundle, &config(", directory: true"));
    world.server.until("it warns", |server| server.log().contains(told));
    assert!(
        world.server.log().contains("of one user or service in the bundle (User::\"bob\" first)"),
        "{}",
        world.server.log()
    );
    // In the one directory an id may have the separator in it, and still is no other issuer's.
    assert_eq!(world.who(&json!({"sub": "auth0|5f7c"})), "alice");
    assert_eq!(world.who(&json!({"sub": "00u1"})), "carol");
    let foreign = "https://elsewhere.example|1";
    assert_eq!(world.who(&json!({"sub": foreign})), format!("{ISSUER}|{foreign}"));
}

/// Also an issuer whose name is no address is known as one, in whatever provider it stands.
#[test]
fn the_directory_takes_no_other_issuers_id_for_its_own() {
    let bundle = r#"
users: [{ id: alice, external_id: "partner|1" }]
authz_rules: [{ id: all, users: "*", models: "*" }]
"#;
    let more = ", directory: true";
    let partner = "    - introspection: { url: 'http://127.0.0.1:1/', client_id: a, client_secret_file: keys.json, issuer: partner }\n";
    let alone = World::of(bundle, &config(more));
    assert_eq!(alone.who(&json!({"sub": "partner|1"})), "alice");
    let both = World::of(bundle, &format!("{}{partner}", config(more)));
    assert_eq!(both.who(&json!({"sub": "partner|1"})), format!("{ISSUER}|partner|1"));
    // One directory at most, over all providers.
    let two = format!("{}{}", config(more), partner.replace("issuer: partner", "issuer: partner, directory: true"));
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("keys.json"), "{}").unwrap();
    let (code, said) = Setup::new().config(&two).fail_in(temp.path());
    assert!(code == Some(2) && said.contains("only one issuer may have `directory: true`"), "{said}");
}

/// A key that somebody makes who came by a token is in the teams that the token says: what is forbidden to those is
/// forbidden to the key.
#[test]
fn a_key_of_one_who_came_by_token_keeps_its_teams() {
    let keys = |more: &str| config(more).replace("  providers:\n", "  providers:\n    - keys: {}\n");
    // With a token a person makes keys that end.
    let ends =
        json!({"expires_at": tollgate::model::Timestamp::from_millis((now() + 86_400) * 1000).to_string()}).to_string();
    let world = World::of(BUNDLE, &keys(""));
    let mut client = world.server.connect();
    let alice =
        world.token(&json!({"sub": "u-alice", "groups": ["acme:contractors", "acme:unknown", "other:research"]}));
    let bearer = format!("Authorization: Bearer {alice}");
    let made = client.request("POST", "/v1/keys", &[&bearer, "Content-Type: application/json"], ends.as_bytes());
    assert_eq!(made.status, 201, "{}", made.body);
    let made = made.json();
    // An undeclared team is kept too, so that a forbid on it matches the key once it is declared.
    assert_eq!(made["inherited"], json!({"teams": ["contractors", "unknown"]}), "{made}");
    let (key, id) = (secret(made["key"].as_str().unwrap()), made["id"].as_str().unwrap().to_owned());
    let code = |client: &mut Client, key: &str, model: &str| ask(client, key, model, &Value::Null)["code"].clone();
    assert_eq!(code(&mut client, &alice, "m/secret"), "forbidden_by_rule");
    assert_eq!(
        (code(&mut client, &key, "m/secret"), code(&mut client, &key, "m/x")),
        (json!("forbidden_by_rule"), json!("permitted"))
    );
    // A key that the key makes, and the key with another secret, are no less in them.
    let by_key = format!("Authorization: Bearer {key}");
    let second =
        client.request("POST", "/v1/keys", &[&by_key, "Content-Type: application/json"], ends.as_bytes()).json();
    let second = secret(second["key"].as_str().unwrap_or_else(|| panic!("{second}")));
    assert_eq!(code(&mut client, &second, "m/secret"), "forbidden_by_rule");
    let rotated =
        client.request("POST", &format!("/v1/keys/{id}/rotate"), &[&bearer, "Content-Type: application/json"], b"{}");
    let rotated = secret(rotated.json()["key"].as_str().unwrap_or_else(|| panic!("{}", rotated.body)));
    assert_eq!(code(&mut client, &rotated, "m/secret"), "forbidden_by_rule");
    // It is kept over a restart.
    let temp = world.server.crash();
    let server = Setup::without_files().file("bundle.yaml", BUNDLE).config(&keys("")).start_in(temp);
    assert_eq!(code(&mut server.connect(), &rotated, "m/secret"), "forbidden_by_rule");
    // Where the token takes teams away, the key would be more than its maker.
    let bundle =
        BUNDLE.replace("{ id: bob,", "{ id: bob, team: research, external_id: \"https://dex.example.com/dex|u-bob\",");
    let world = World::of(&bundle, &keys(", memberships: replace"));
    let bob = |groups: Value| world.token(&json!({"sub": "u-bob", "groups": groups}));
    let make = |token: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        world.server.connect().request(
            "POST",
            "/v1/keys",
            &[&bearer, "Content-Type: application/json"],
            ends.as_bytes(),
        )
    };
    let refused = make(&bob(json!([])));
    assert!(refused.is_error(403, "forbidden", "") && refused.body.contains("Team::\\\"research\\\""), "{refused:?}");
    let made = make(&bob(json!(["acme:research"])));
    assert_eq!(made.status, 201, "{}", made.body);
    secret(made.json()["key"].as_str().unwrap());
}

/// A key that was created with a token is in teams that the bundle does not give its owner. Neither the administrator of one
/// of the owner's teams nor another credential of the owner may get its secret.
#[test]
fn a_key_with_teams_of_a_token_is_rotated_only_by_callers_with_the_same_teams() {
    let bundle = r#"
teams: [{ id: research }, { id: finance }, { id: ops }]
users:
  - { id: boss, teams: [{ id: research, role: admin }], external_id: "https://dex.example.com/dex|u-boss" }
  - { id: bob, team: research, external_id: "https://dex.example.com/dex|u-bob" }
authz_rules:
  - { id: money, teams: [finance], models: [m/secret] }
"#;
    let world = World::of(bundle, &config("").replace("  providers:\n", "  providers:\n    - keys: {}\n"));
    let administrator = world.server.temp.path().join("tollgate-data/administrator.key");
    let administrator = secret(std::fs::read_to_string(administrator).unwrap().trim_end());
    let request = |who: &str, method: &str, path: &str, body: Value| {
        let bearer = format!("Authorization: Bearer {who}");
        let headers = [bearer.as_str(), "Content-Type: application/json"];
        world.server.connect().request(method, path, &headers, body.to_string().as_bytes())
    };
    let ends = tollgate::model::Timestamp::from_millis((now() + 86_400) * 1000).to_string();
    let token = |who: &str, groups: &Value| world.token(&json!({"sub": format!("u-{who}"), "groups": groups}));
    // A key of bob without inherited teams.
    let plain = request(&administrator, "POST", "/v1/keys", json!({"owner": "User::\"bob\""})).json();
    let plain = secret(plain["key"].as_str().unwrap_or_else(|| panic!("{plain}")));
    let boss = token("boss", &json!([]));
    for groups in [json!(["acme:finance"]), json!(["acme:ops"]), json!(["acme:later"])] {
        let bob = token("bob", &groups);
        let given = json!({"expires_at": ends, "models": ["m/*"]});
        let made = request(&bob, "POST", "/v1/keys", given).json();
        let path = format!("/v1/keys/{}", made["id"].as_str().unwrap_or_else(|| panic!("{made}")));
        secret(made["key"].as_str().unwrap());
        for who in [&boss, &plain, &token("bob", &json!(["acme:research"]))] {
            for (method, path, body) in [
                ("POST", format!("{path}/rotate"), json!({})),
                ("PATCH", path.clone(), json!({"models": null})),
                // A caller that could not lift a pause cannot set one.
                ("PATCH", path.clone(), json!({"disabled": true})),
            ] {
                let answer = request(who, method, &path, body.clone());
                assert_eq!(answer.status, 403, "{groups} {method} {path} {body}: {}", answer.body);
            }
            assert_eq!(request(who, "PATCH", &path, json!({"models": ["m/x", "m/secret"]})).status, 200);
        }
        // Bob with such a token may, also with one that says more; so does an administrator.
        let more = [&groups, &json!(["acme:other"])].map(|list| list.as_array().unwrap().clone()).concat();
        for who in [&token("bob", &json!(more)), &administrator] {
            let rotated = request(who, "POST", &format!("{path}/rotate"), json!({}));
            assert_eq!(rotated.status, 200, "{groups}: {}", rotated.body);
            secret(rotated.json()["key"].as_str().unwrap());
        }
        assert_eq!(request(&boss, "POST", &format!("{path}/revoke"), json!({})).status, 200);
    }
}
