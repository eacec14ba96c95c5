//! Keys that would lift their own bounds, that are paused, that outlive their owners, and names that mean nothing.

use std::time::Instant;

use serde_json::{Value, json};
use tollgate::Timestamp;
use tollgate::gate::{KeyWrite, Keys as _};

use crate::keys::{Keys, PEOPLE};
use crate::passwords::{HASH, PASSWORD};
use crate::redis::Redis;
use crate::support::{Answer, DEADLINE, Setup, secret};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn start() -> Keys {
    Keys::of(Setup::without_files().file("people.yaml", PEOPLE).start())
}

/// An instant so many days from now.
fn in_days(days: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap() + days * DAY_MS).to_string()
}

fn path(id: &str) -> String {
    format!("/v1/keys/{id}")
}

#[test]
fn who_is_no_administrator_only_narrows_what_an_administrator_gave() {
    let keys = start();
    let alice = keys.make(json!({"owner": "User::\"alice\""})).1;
    let bounds = json!({
        "owner": "User::\"alice\"", "expires_at": "2098-01-01T00:00:00Z", "models": ["oa/*"],
        "networks": ["10.0.0.0/8"], "paths": ["/v1/*"], "actions": ["chat", "embed"],
        "limits": [{"budget": {"usd": 50, "every": "month"}}],
    });
    for (member, value) in
        [("roles", json!(["tollgate:gateway"])), ("tags", json!(["night"])), ("metadata", json!({"env": "prod"}))]
    {
        let mut given = bounds.clone();
        given[member] = value;
        let id = keys.make(given).0;
        for (change, told) in [
            (json!({"expires_at": null}), 403),
            (json!({"expires_at": "2099-01-01T00:00:00Z"}), 403),
            (json!({"models": null}), 403),
            (json!({"models": ["*"]}), 403),
            (json!({"routers": ["prod"]}), 403),
            (json!({"networks": null}), 403),
            (json!({"networks": ["10.0.0.0/7"]}), 403),
            (json!({"networks": ["10.0.0.0/8", "192.0.2.1"]}), 403),
            (json!({"paths": null}), 403),
            (json!({"paths": ["/*"]}), 403),
            (json!({"actions": null}), 403),
            (json!({"actions": ["use"]}), 403),
            (json!({"limits": null}), 403),
            (json!({"limits": [{"budget": {"usd": 51, "every": "month"}}]}), 403),
            (json!({"limits": [{"budget": {"usd": 50, "every": "hour"}}]}), 403),
            (json!({"disabled": true}), 403),
            // Who asks for the same, or for less, has it.
            (json!({"models": ["oa/*"], "networks": ["10.0.0.0/8"], "expires_at": "2098-01-01T00:00:00Z"}), 200),
            (json!({"note": "mine"}), 200),
            (
                json!({"models": ["oa/big"], "networks": ["10.1.0.0/16"], "actions": ["chat"], "paths": ["/v1/chat/*"]}),
                200,
            ),
            (json!({"limits": [{"budget": {"usd": 10, "every": "month"}}, {"concurrency": 2}]}), 200),
            (json!({"expires_at": "2097-01-01T00:00:00Z"}), 200),
            (json!({"expires_at": "2098-01-01T00:00:00Z"}), 403),
            (json!({"models": ["oa/*"]}), 403),
        ] {
            let answer = keys.ask(&alice, "PATCH", &path(&id), change.clone());
            assert_eq!(answer.status, told, "{member} {change}: {}", answer.body);
        }
        assert_eq!(keys.admin("PATCH", &path(&id), json!({"models": null, "expires_at": null})).status, 200);
    }
    // What is no more than the owner could make is the owner's to change.
    let plain = keys.make(bounds).0;
    let freed = json!({"expires_at": null, "models": null, "networks": null, "limits": null});
    assert_eq!(keys.ask(&alice, "PATCH", &path(&plain), freed).status, 200);
}

#[test]
fn a_key_that_the_bundle_names_is_widened_by_administrators() {
    // The id is in a rule before there is such a key; it is known when one was made.
    let keys = start();
    let alice = keys.make(json!({"owner": "User::\"alice\""})).1;
    let (id, _) = keys.make(json!({"owner": "User::\"alice\"", "expires_at": "2098-01-01T00:00:00Z"}));
    let rule = format!("  - {{ id: named, keys: ['{id}'], models: [other/model] }}\n");
    let file = keys.server.temp.path().join("policies/people.yaml");
    std::fs::write(file, format!("{PEOPLE}{rule}")).unwrap();
    assert_eq!(keys.admin("POST", "/bundle/reload", Value::Null).status, 200);
    assert_eq!(keys.ask(&alice, "PATCH", &path(&id), json!({"expires_at": null})).status, 403);
    assert_eq!(keys.admin("PATCH", &path(&id), json!({"expires_at": null})).status, 200);
}

#[test]
fn a_key_that_has_expired_has_ended_for_everybody() {
    let keys = start();
    let alice = keys.make(json!({"owner": "User::\"alice\""})).1;
    let soon = Timestamp::from_millis(Timestamp::parse(&in_days(0)).unwrap().as_millis() + 300).to_string();
    let id = keys.make(json!({"owner": "User::\"alice\"", "expires_at": soon})).0;
    let began = Instant::now();
    while keys.admin("GET", &path(&id), Value::Null).json()["state"] != "expired" {
        assert!(began.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    for body in [json!({"expires_at": null}), json!({"expires_at": "2099-01-01T00:00:00Z"}), json!({"note": "x"})] {
        assert!(keys.ask(&alice, "PATCH", &path(&id), body.clone()).is_error(409, "conflict", ""), "{body}");
        assert!(keys.admin("PATCH", &path(&id), body.clone()).is_error(409, "conflict", ""), "{body}");
    }
    assert!(keys.admin("POST", &format!("{}/rotate", path(&id)), json!({})).is_error(409, "conflict", ""));
    // It can still be revoked, and forgotten.
    assert_eq!(keys.admin("POST", &format!("{}/revoke", path(&id)), Value::Null).status, 200);
    assert_eq!(keys.admin("DELETE", &path(&id), Value::Null).status, 200);
}

/// A chain of keys, each made by the one before.
#[test]
fn a_key_that_ends_makes_widens_and_prolongs_nothing_that_lasts_longer() {
    let keys = start();
    for owner in ["alice", "root"] {
        let owner = format!("User::\"{owner}\"");
        let until = |end: &str| json!({"owner": owner, "expires_at": end});
        let (first, key) = keys.make(until("2090-01-01T00:00:00Z"));
        let forever = keys.make(json!({"owner": owner, "models": ["oa/big"], "networks": ["127.0.0.0/8"]})).0;
        let shorter = keys.make(json!({"owner": owner, "models": ["oa/big"], "expires_at": "2089-01-01T00:00:00Z"})).0;
        let made = keys.ask(&key, "POST", "/v1/keys", until("2090-01-01T00:00:00Z")).json();
        let grandchild = secret(made["key"].as_str().unwrap());
        for (key, who) in [(&key, "first"), (&grandchild, "made by it")] {
            let ask = |method: &str, path: &str, body: Value| keys.ask(key, method, path, body).status;
            assert_eq!(ask("POST", "/v1/keys", json!({"owner": owner})), 403, "{who}");
            assert_eq!(ask("POST", "/v1/keys", until("2091-01-01T00:00:00Z")), 403, "{who}");
            for body in [
                json!({"models": null}),
                json!({"models": ["oa/*"]}),
                json!({"networks": ["0.0.0.0/0"]}),
                json!({"routers": ["prod"]}),
                json!({"disabled": true}),
            ] {
                assert_eq!(ask("PATCH", &path(&forever), body.clone()), 403, "{owner} {who} {body}");
            }
            assert_eq!(ask("POST", &format!("{}/rotate", path(&forever)), json!({})), 403, "{who}");
            assert_eq!(ask("PATCH", &path(&first), json!({"expires_at": null})), 403, "{who}");
            assert_eq!(ask("PATCH", &path(&first), json!({"expires_at": "2090-01-01T00:00:01Z"})), 403, "{who}");
            assert_eq!(ask("PATCH", &path(&shorter), json!({"expires_at": "2091-01-01T00:00:00Z"})), 403, "{who}");
            assert_eq!(
                ask("PATCH", &path(&shorter), json!({"models": ["oa/*"], "expires_at": "2090-01-01T00:00:00Z"})),
                200
            );
            assert_eq!(
                ask("PATCH", &path(&shorter), json!({"models": ["oa/big"], "expires_at": "2089-01-01T00:00:00Z"})),
                200
            );
            // To end or narrow what lasts longer is no more than the key has.
            assert_eq!(ask("PATCH", &path(&forever), json!({"networks": ["127.0.0.1"]})), 200, "{who}");
        }
        // Tokens of it are no more than it is.
        let access = keys.ask("", "POST", "/v1/token", json!({"grant_type": "api_key", "api_key": key})).json();
        let access = [&access["access_token"], &access["refresh_token"]].map(|token| secret(token.as_str().unwrap()));
        assert_eq!(keys.ask(&access[0], "PATCH", &path(&forever), json!({"models": null})).status, 403);
        assert_eq!(keys.ask(&access[0], "POST", "/v1/keys", json!({"owner": owner})).status, 403);
    }
}

const SESSIONS: &str = "identity:
  failures: { enabled: false }
  providers:
    - keys: { max_days: 20 }
    - basic: {}
";

/// A token that was given for a password, and one that was given for a key.
fn sessions(keys: &Keys, user: &str, password: &str) -> [String; 2] {
    let key = keys.make(json!({"owner": format!("User::\"{user}\"")})).1;
    [
        json!({"grant_type": "password", "username": user, "password": password}),
        json!({"grant_type": "api_key", "api_key": key}),
    ]
    .map(|grant| {
        let told = keys.ask("", "POST", "/v1/token", grant).json();
        secret(told["refresh_token"].as_str().unwrap());
        secret(told["access_token"].as_str().unwrap())
    })
}

#[test]
fn a_session_makes_keys_that_end_soon() {
    secret(HASH);
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).config(SESSIONS).start());
    let hash = json!({"password_hash": HASH});
    for user in ["alice", "root"] {
        assert_eq!(keys.admin("PUT", &format!("/v1/users/{user}/password"), hash.clone()).status, 200);
        let owner = format!("User::\"{user}\"");
        let (forever, _) = keys.make(json!({"owner": owner}));
        for token in sessions(&keys, user, &secret(PASSWORD)) {
            let make = |end: Value| -> Answer {
                keys.ask(&token, "POST", "/v1/keys", json!({"owner": owner, "expires_at": end}))
            };
            for end in [Value::Null, json!(in_days(21))] {
                let answer = make(end);
                assert!(answer.is_error(403, "forbidden", "expires_at"), "{}", answer.body);
                assert!(answer.body.contains("max_days"), "{}", answer.body);
            }
            let made = make(json!(in_days(19)));
            assert_eq!(made.status, 201, "{}", made.body);
            secret(made.json()["key"].as_str().unwrap());
            let id = made.json()["id"].as_str().unwrap().to_owned();
            for (end, told) in [(Value::Null, 403), (json!(in_days(22)), 403), (json!(in_days(18)), 200)] {
                let answer = keys.ask(&token, "PATCH", &path(&id), json!({"expires_at": end}));
                assert_eq!(answer.status, told, "{end}: {}", answer.body);
            }
            // A new secret of what lasts for good would be access for good.
            let rotated = keys.ask(&token, "POST", &format!("{}/rotate", path(&forever)), json!({}));
            assert!(rotated.is_error(403, "forbidden", "expires_at"), "{}", rotated.body);
            let rotated = keys.ask(&token, "POST", &format!("{}/rotate", path(&id)), json!({}));
            assert_eq!(rotated.status, 200, "{}", rotated.body);
            secret(rotated.json()["key"].as_str().unwrap());
        }
    }
    // A key that does not end, and a password, make what does not.
    let header = |user: &str| {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{PASSWORD}"));
        format!("Authorization: Basic {pair}")
    };
    let headers = ["Content-Type: application/json", &header("alice")];
    let made = keys.server.connect().request("POST", "/v1/keys", &headers, b"{}");
    assert_eq!(made.status, 201, "{}", made.body);
    secret(made.json()["key"].as_str().unwrap());
    let (status, told) = Setup::without_files()
        .file("people.yaml", PEOPLE)
        .config("identity: { providers: [{ keys: { max_days: 0 } }] }\n")
        .fail();
    assert!(status != Some(0) && told.contains("`max_days` is 1 to 3650"), "{told}");
}

#[test]
fn a_session_sets_its_own_password_with_the_current_one() {
    let new = secret("new battery staple");
    secret(HASH);
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).config(SESSIONS).start());
    for user in ["alice", "root"] {
        let at = format!("/v1/users/{user}/password");
        // There is none yet: only who has more than a token sets the first one.
        let key = keys.make(json!({"owner": format!("User::\"{user}\"")})).1;
        let session = keys.ask("", "POST", "/v1/token", json!({"grant_type": "api_key", "api_key": key})).json();
        secret(session["refresh_token"].as_str().unwrap());
        let session = secret(session["access_token"].as_str().unwrap());
        let first = keys.ask(&session, "PUT", &at, json!({"password": new}));
        assert!(first.is_error(403, "forbidden", "current_password"), "{}", first.body);
        let guess = json!({"password": new, "current_password": ""});
        assert!(keys.ask(&session, "PUT", &at, guess).is_error(403, "forbidden", "current_password"));
        assert_eq!(keys.ask(&key, "PUT", &at, json!({"password": PASSWORD})).status, 200);
        for token in sessions(&keys, user, &secret(PASSWORD)) {
            for (body, told) in [
                (json!({"password": new}), 403),
                (json!({"password": new, "current_password": "wrong battery staple"}), 403),
                (json!({"password": new, "current_password": new}), 403),
            ] {
                let answer = keys.ask(&token, "PUT", &at, body);
                assert!(answer.is_error(told, "forbidden", "current_password"), "{}", answer.body);
                assert!(!answer.body.contains("staple"), "{}", answer.body);
            }
        }
        let [token, _] = sessions(&keys, user, PASSWORD);
        let removed = keys.ask(&token, "DELETE", &at, json!(null));
        assert!(removed.is_error(403, "forbidden", ""), "{}", removed.body);
        let right = json!({"password": new, "current_password": PASSWORD});
        let answer = keys.ask(&token, "PUT", &at, right);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(keys.code_with(&key, json!({})), "permitted");
    }
    // An administrator's session sets another's, as before.
    let [token, _] = sessions(&keys, "root", &new);
    assert_eq!(keys.ask(&token, "PUT", "/v1/users/alice/password", json!({"password": PASSWORD})).status, 200);
}

#[test]
fn guesses_at_the_current_password_are_slowed() {
    secret(HASH);
    let config = "identity: { providers: [{ keys: {} }, { basic: {} }] }\n";
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).config(config).start());
    let at = "/v1/users/alice/password";
    assert_eq!(keys.admin("PUT", at, json!({"password_hash": HASH})).status, 200);
    let [token, _] = sessions(&keys, "alice", &secret(PASSWORD));
    let guess = |number: usize| {
        let body = json!({"password": "new battery staple", "current_password": format!("guess {number}")});
        keys.ask(&token, "PUT", at, body).status
    };
    let told: Vec<u16> = (0..40).map(guess).take_while(|status| *status != 429).collect();
    assert!(told.len() < 40 && told.iter().all(|status| *status == 403), "{told:?}");
}

#[test]
fn a_key_is_paused_and_only_who_may_lift_that_pauses_it() {
    let keys = start();
    let alice = keys.make(json!({"owner": "User::\"alice\""})).1;
    let boss = keys.make(json!({"owner": "User::\"boss\""})).1;
    let (id, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let pause = |who: &str, paused: bool| keys.ask(who, "PATCH", &path(&id), json!({"disabled": paused}));
    let root = keys.administrator().to_owned();
    let issued = keys.ask("", "POST", "/v1/token", json!({"grant_type": "api_key", "api_key": key})).json();
    let [access, refresh] = ["access_token", "refresh_token"].map(|name| secret(issued[name].as_str().unwrap()));
    for (who, others) in [(&root, [&alice, &boss]), (&boss, [&alice, &alice]), (&alice, [&boss, &boss])] {
        assert_eq!(keys.code(&key), "permitted");
        let told = pause(who, true);
        assert_eq!(told.status, 200, "{}", told.body);
        assert_eq!((&told.json()["disabled"], &told.json()["state"]), (&json!(true), &json!("disabled")));
        assert_eq!((&*keys.code(&key), &*keys.code(&access)), ("principal_disabled", "principal_disabled"));
        assert_eq!(keys.ask(&key, "GET", &path(&id), Value::Null).status, 401);
        let refreshed = json!({"grant_type": "refresh_token", "refresh_token": refresh});
        assert_eq!(keys.ask("", "POST", "/v1/token", refreshed).status, 401);
        for other in others {
            assert!(pause(other, false).is_error(403, "forbidden", "disabled"), "{who}");
            // Once more is no pause of one's own.
            assert_eq!(pause(other, true).status, 200);
            assert!(pause(other, false).is_error(403, "forbidden", "disabled"), "{who}");
        }
        assert_eq!(pause(who, false).status, 200);
    }
    assert_eq!(pause(&alice, true).status, 200);
    assert_eq!(pause(&root, false).status, 200);
    for wrong in [json!({"disabled": null}), json!({"disabled": "yes"}), json!({"disabled": 1})] {
        assert!(keys.admin("PATCH", &path(&id), wrong).is_error(400, "invalid_request", "disabled"));
    }
    assert!(keys.admin("POST", "/v1/keys", json!({"disabled": true})).is_error(400, "invalid_request", "disabled"));
    // It outlives the server.
    assert_eq!(pause(&root, true).status, 200);
    let server = Setup::without_files().start_in(keys.server.crash());
    let keys = Keys::with(server, &root);
    assert_eq!(keys.code(&key), "principal_disabled");
    let shown = keys.admin("GET", &path(&id), Value::Null).json();
    assert_eq!((&shown["disabled"], &shown["disabled_by"]["id"]), (&json!(true), &json!("tollgate:administrator")));
}

#[test]
fn a_pause_holds_on_every_node() {
    let Some(redis) = Redis::start() else { return };
    let config = format!("meters: {{ redis: {{ url: 'redis://127.0.0.1:{}', timeout_ms: 5000 }} }}\n", redis.port);
    let start = || Setup::without_files().file("people.yaml", PEOPLE).config(&config).start();
    let one = Keys::of(start());
    let two = Keys::with(start(), one.administrator());
    let (id, key) = one.make(json!({"owner": "User::\"alice\""}));
    assert_eq!(two.code(&key), "permitted");
    for (disabled, code) in [(true, "principal_disabled"), (false, "permitted")] {
        assert_eq!(one.admin("PATCH", &path(&id), json!({"disabled": disabled})).status, 200);
        let began = Instant::now();
        while two.code(&key) != code {
            assert!(began.elapsed() < DEADLINE);
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_key_is_revoked_without_a_reason_and_the_last_page_says_so() {
    let keys = start();
    let (id, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let told = keys.admin("POST", &format!("{}/revoke", path(&id)), Value::Null);
    assert_eq!((told.status, &told.json()["revoked"]["reason"]), (200, &Value::Null), "{}", told.body);
    assert_eq!(keys.code(&key), "credential_revoked");
    // As `curl -X POST` sends it: no body has no type.
    let other = keys.make(json!({"owner": "User::\"alice\""})).0;
    let bearer = format!("Authorization: Bearer {}", keys.administrator());
    let post = |what: &str, body: &[u8]| {
        keys.server.connect().request("POST", &format!("{}/{what}", path(&other)), &[bearer.as_str()], body)
    };
    let rotated = post("rotate", b"");
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    secret(rotated.json()["key"].as_str().unwrap());
    assert!(post("revoke", b"{}").is_error(400, "invalid_request", ""));
    assert_eq!(post("revoke", b"").status, 200);
    let list = keys.admin("GET", "/v1/keys", Value::Null).json();
    assert_eq!(list.get("next"), Some(&Value::Null), "{list}");
    let list = keys.admin("GET", "/v1/keys?page_size=1", Value::Null).json();
    assert!(list["next"].is_string(), "{list}");
    let limits = keys.server.get("/limits?principal=User::%22alice%22").json();
    assert_eq!(limits.get("next"), Some(&Value::Null), "{limits}");
    let usage = keys.server.get("/usage").json();
    assert_eq!(usage.get("next"), Some(&Value::Null), "{usage}");
    let server = Setup::without_files().start_in(keys.server.crash());
    assert_eq!(Keys::with(server, "").code(&key), "credential_revoked");
}

#[test]
fn names_that_mean_nothing_are_told() {
    let keys = start();
    let params = |told: &Value| -> Vec<String> {
        let warnings = told["warnings"].as_array().cloned().unwrap_or_default();
        warnings.iter().map(|one| one["param"].as_str().unwrap().to_owned()).collect()
    };
    let body = json!({
        "owner": "User::\"alice\"",
        "models": ["oa/big", "oa/bgi", "ao/big", "big", "oa/*", "ao/*", "*/bi*", "*/gb*"],
        "routers": ["prod", "prdo"],
    });
    let told = keys.admin("POST", "/v1/keys", body.clone());
    assert_eq!(told.status, 201, "{}", told.body);
    let unknown = ["models[1]", "models[2]", "models[3]", "models[5]", "models[7]", "routers[1]"];
    assert_eq!(params(&told.json()), unknown, "{}", told.body);
    let id = told.json()["id"].as_str().unwrap().to_owned();
    secret(told.json()["key"].as_str().unwrap());
    let strict = keys.admin("POST", "/v1/keys?strict=true", body);
    assert!(strict.is_error(400, "invalid_request", "models[1]"), "{}", strict.body);
    let fine = json!({"owner": "User::\"alice\"", "models": ["oa/big"], "routers": ["prod"]});
    let told = keys.admin("POST", "/v1/keys?strict=true", fine);
    assert!(told.status == 201 && told.json().get("warnings").is_none(), "{}", told.body);
    secret(told.json()["key"].as_str().unwrap());
    let change = |query: &str, body: Value| keys.admin("PATCH", &format!("{}{query}", path(&id)), body);
    assert_eq!(params(&change("", json!({"models": ["oa/bgi"]})).json()), ["models[0]"]);
    assert_eq!(change("?strict=true", json!({"models": ["oa/bgi"]})).status, 400);
    assert_eq!(change("?strict=maybe", json!({"note": "x"})).status, 400);
    // A bundle that declares no accounts says nothing of models.
    let rules = "users: [{ id: alice }]\nauthz_rules: [{ users: [alice], models: [oa/big] }]\n";
    let keys = Keys::of(Setup::without_files().file("rules.yaml", rules).start());
    let told = keys.admin("POST", "/v1/keys", json!({"owner": "User::\"alice\"", "models": ["x/y", "x/*", "*/z"]}));
    assert!(told.status == 201 && told.json().get("warnings").is_none(), "{}", told.body);
    secret(told.json()["key"].as_str().unwrap());
}

#[test]
fn keys_without_an_owner_are_marked_and_revoked_after_a_while() {
    let setup = || Setup::without_files().config("identity: { providers: [{ keys: { orphan_days: 2 } }] }\n");
    let keys = Keys::of(setup().file("people.yaml", PEOPLE).start());
    let administrator = keys.administrator().to_owned();
    let (id, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let (old, _) = keys.make(json!({"owner": "User::\"alice\""}));
    let without = PEOPLE.replace("  - { id: alice, team: research }\n", "");
    let put = |keys: &Keys, text: &str| {
        std::fs::write(keys.server.temp.path().join("policies/people.yaml"), text).unwrap();
        assert_eq!(keys.admin("POST", "/bundle/reload", Value::Null).status, 200);
    };
    let shown = |keys: &Keys, id: &str| keys.admin("GET", &path(id), Value::Null).json();
    let wait = |keys: &Keys, id: &str, state: &str| {
        let began = Instant::now();
        loop {
            let told = shown(keys, id);
            if told["state"] == state {
                return told;
            }
            assert!(began.elapsed() < DEADLINE, "{state}: {told}");
            std::thread::yield_now();
        }
    };
    put(&keys, &without);
    assert_eq!(keys.code(&key), "unauthenticated");
    let told = wait(&keys, &id, "orphaned");
    assert!(told["orphaned_at"].is_string(), "{told}");
    // Who comes back finds the key as it was.
    put(&keys, PEOPLE);
    assert!(wait(&keys, &id, "active").get("orphaned_at").is_none());
    assert_eq!(keys.code(&key), "permitted");
    put(&keys, &without);
    wait(&keys, &id, "orphaned");
    wait(&keys, &old, "orphaned");
    // One that was marked two days ago is revoked.
    let temp = keys.server.crash();
    let data = temp.path().join("tollgate-data");
    let store = tollgate::edge::store::KeyFile::open(&data, None).unwrap();
    let mut record = (*store.find(&old).unwrap().unwrap()).clone();
    record.version += 1;
    record.more.as_mut().unwrap().orphaned_at = Some(Timestamp::parse(&in_days(-2)).unwrap());
    pollster::block_on(store.write(KeyWrite::Change(record))).unwrap();
    drop(store);
    let keys = Keys::with(setup().start_in(temp), &administrator);
    let told = wait(&keys, &old, "revoked");
    assert!(told["revoked"]["reason"].as_str().unwrap().contains("2 days"), "{told}");
    assert_eq!(shown(&keys, &id)["state"], "orphaned");
    assert!(keys.admin("GET", "/v1/keys", Value::Null).json()["keys"][0]["state"].is_string());
    // The administrator's own key has an owner that nobody declares, and is none of these.
    let own = administrator.split('_').nth(1).unwrap();
    assert_eq!(shown(&keys, own)["state"], "active");
}

#[test]
fn the_first_key_goes_to_a_file_where_nobody_sits_before_stderr() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::TempDir::new().unwrap();
    let data = temp.path().join("tollgate-data");
    std::fs::create_dir(&data).unwrap();
    // What is there already is open to everybody, and leads elsewhere.
    let elsewhere = temp.path().join("elsewhere");
    std::fs::write(&elsewhere, "untouched").unwrap();
    std::os::unix::fs::symlink(&elsewhere, data.join("administrator.key")).unwrap();
    let server = Setup::without_files().file("people.yaml", PEOPLE).start_in(temp);
    let file = server.temp.path().join("tollgate-data/administrator.key");
    let log = server.log();
    assert!(log.contains("administrator.key") && !log.contains("tg_"), "{log}");
    assert!(file.symlink_metadata().unwrap().is_file());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(elsewhere).unwrap(), "untouched");
    let keys = Keys::of(server);
    assert_eq!(keys.admin("GET", "/v1/keys", Value::Null).status, 200);
    let printed = "identity: { providers: [{ keys: { first_key: print } }] }\n";
    let server = Setup::without_files().file("people.yaml", PEOPLE).config(printed).start();
    let log = server.log();
    assert!(log.split_whitespace().any(|word| word.starts_with("tg_")), "{log}");
    assert!(!server.temp.path().join("tollgate-data/administrator.key").exists());
}
