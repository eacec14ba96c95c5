//! What keys do not reach: more than their owners, other people's, and this server itself.

use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tollgate::Timestamp;

use crate::keys::{Keys, PEOPLE};
use crate::passwords::{HASH, PASSWORD};
use crate::redis::Redis;
use crate::support::{Answer, Client, DEADLINE, Server, Setup, secret};

const CLOSED: &str = "identity: { loopback: closed }\n";

fn closed(files: &[(&str, &str)]) -> Keys {
    let setup = Setup::without_files().file("people.yaml", PEOPLE).config(CLOSED);
    Keys::of(files.iter().fold(setup, |setup, (name, text)| setup.file(name, text)).start())
}

fn status(keys: &Keys, key: &str, method: &str, path: &str, body: Value) -> u16 {
    keys.ask(key, method, path, body).status
}

/// A key of the administrator, with this besides.
fn of_root(keys: &Keys, member: &str, value: Value) -> (String, String) {
    keys.make(json!({"owner": "User::\"root\"", member: value}))
}

#[test]
fn a_narrowed_key_of_an_administrator_makes_none_and_frees_itself_of_nothing() {
    let keys = closed(&[]);
    let every = json!({"owner": "User::\"root\"", "roles": ["tollgate:administrator"]});
    for (member, value) in [
        ("models", json!(["oa/big"])),
        ("routers", json!(["prod"])),
        ("actions", json!(["chat", "manage_keys"])),
        ("paths", json!(["/v1/keys"])),
        ("networks", json!(["127.0.0.0/8"])),
        ("limits", json!([{"budget": {"usd": 1, "every": "month"}}])),
    ] {
        let (id, key) = of_root(&keys, member, value);
        assert_eq!(status(&keys, &key, "POST", "/v1/keys", every.clone()), 403, "{member}");
        let path = format!("/v1/keys/{id}");
        assert_eq!(status(&keys, &key, "PATCH", &path, json!({member: null})), 404, "{member}");
        assert_eq!(status(&keys, &key, "POST", &format!("{path}/rotate"), json!({})), 404, "{member}");
    }
    let (id, key) = of_root(&keys, "expires_at", json!("2099-01-01T00:00:00Z"));
    let until = |end: &str| json!({"owner": "User::\"alice\"", "expires_at": end});
    assert!(keys.ask(&key, "POST", "/v1/keys", every).is_error(403, "forbidden", "expires_at"));
    assert_eq!(status(&keys, &key, "POST", "/v1/keys", until("2100-01-01T00:00:00Z")), 403);
    assert_eq!(status(&keys, &key, "PATCH", &format!("/v1/keys/{id}"), json!({"expires_at": null})), 403);
    assert_eq!(status(&keys, &key, "POST", "/v1/keys", until("2098-01-01T00:00:00Z")), 201);
}

#[test]
fn a_rule_of_the_bundle_makes_no_teams_administrator_more_than_that() {
    let people = PEOPLE.replace(
        "services: [{ id: bot, team: ops }]",
        "services:\n  - { id: bot, team: ops }\n  - { id: robot, team: research, roles: ['tollgate:administrator'] }\n  \
         - { id: shared, teams: [research, ops] }\n  - { id: plain, team: research }",
    );
    let rule = "permit (principal, action == Action::\"manage_keys\", resource is Service)\n\
                when { principal has administers && resource in principal.administers };\n\
                permit (principal in User::\"alice\", action == Action::\"manage_keys\", resource is Service);\n";
    let setup = Setup::without_files().file("people.yaml", &people).file("who.cedar", rule);
    let keys = Keys::of(setup.config(CLOSED).start());
    let (_, boss) = keys.make(json!({"owner": "User::\"boss\""}));
    let (_, alice) = keys.make(json!({"owner": "User::\"alice\""}));
    let make = |key: &str, owner: &str| keys.ask(key, "POST", "/v1/keys", json!({"owner": owner}));
    assert_eq!(make(&boss, "Service::\"plain\"").status, 201);
    assert!(make(&boss, "Service::\"robot\"").is_error(403, "forbidden", "owner"));
    assert!(make(&boss, "Service::\"shared\"").is_error(403, "forbidden", "owner"));
    // Whom a rule names may do what it says, but for what would make more of them.
    assert_eq!(make(&alice, "Service::\"shared\"").status, 201);
    assert!(make(&alice, "Service::\"robot\"").is_error(403, "forbidden", "owner"));
}

#[test]
fn a_narrowed_key_has_no_role_on_this_server() {
    let keys = closed(&[]);
    let question = json!({"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"oa/big\""});
    let may = |key: &str| {
        let asked = [
            ("POST", "/is_authorized", question.clone()),
            ("GET", "/metrics", Value::Null),
            ("GET", "/v1/keys", Value::Null),
            ("POST", "/bundle/reload", json!({})),
        ];
        asked.map(|(method, path, body)| status(&keys, key, method, path, body))
    };
    let plain = keys.make(json!({"owner": "User::\"root\""})).1;
    assert_eq!(may(&plain), [200; 4]);
    for (member, value) in [
        ("models", json!(["oa/big"])),
        ("routers", json!(["prod"])),
        ("actions", json!(["chat"])),
        ("paths", json!(["/v1/*"])),
        ("networks", json!(["192.0.2.0/24"])),
    ] {
        assert_eq!(may(&of_root(&keys, member, value).1), [403; 4], "{member}");
    }
    // From where it is bound to, it has the roles of its owner; it makes no keys there either.
    assert_eq!(may(&of_root(&keys, "networks", json!(["127.0.0.0/8"])).1), [200, 200, 403, 200]);
}

#[test]
fn a_narrowed_key_of_the_bundle_has_no_role_on_this_server() {
    let key = |id: &str| {
        let text = tollgate::model::key_text(id, [7; 32]).unwrap();
        let parsed = tollgate::model::KeyText::parse(text.expose()).unwrap();
        let hash = tollgate::model::bundle_key_hash(&parsed);
        (secret(text.expose()), tollgate::model::key_hash_text(&hash))
    };
    let ((narrowed, its_hash), (plain, plain_hash)) = (key("ci"), key("plain"));
    let bundle = format!(
        "keys:\n  - {{ id: ci, hash: \"{its_hash}\", owner: 'User::\"root\"', models: [oa/big] }}\n  \
         - {{ id: plain, hash: \"{plain_hash}\", owner: 'User::\"root\"' }}\n"
    );
    let keys = closed(&[("keys.yaml", &bundle)]);
    for (key, told) in [(&plain, [200, 201]), (&narrowed, [403, 403])] {
        assert_eq!(status(&keys, key, "GET", "/metrics", Value::Null), told[0]);
        assert_eq!(status(&keys, key, "POST", "/v1/keys", json!({"owner": "User::\"root\""})), told[1]);
    }
}

#[test]
fn a_secret_that_was_replaced_manages_nothing() {
    let keys = closed(&[]);
    for (owner, end) in [("alice", Value::Null), ("alice", json!("2099-01-01T00:00:00Z")), ("root", Value::Null)] {
        let (id, old) = keys.make(json!({"owner": format!("User::\"{owner}\""), "expires_at": end}));
        let path = format!("/v1/keys/{id}");
        let rotated = keys.ask(&old, "POST", &format!("{path}/rotate"), json!({"grace_seconds": 7200}));
        assert_eq!(rotated.status, 200, "{}", rotated.body);
        let new = secret(rotated.json()["key"].as_str().unwrap());
        assert_eq!(status(&keys, &old, "POST", &format!("{path}/rotate"), json!({"grace_seconds": 0})), 404);
        assert_eq!(status(&keys, &old, "POST", &format!("{path}/revoke"), json!({"reason": "x"})), 404);
        assert_eq!(status(&keys, &old, "DELETE", &path, Value::Null), 404);
        assert_eq!(status(&keys, &old, "POST", "/v1/keys", json!({})), 403);
        assert_eq!(status(&keys, &old, "GET", "/v1/keys", Value::Null), 403);
        assert_eq!(status(&keys, &new, "GET", &path, Value::Null), 200);
    }
}

#[test]
fn an_owner_has_so_many_keys_at_most_however_many_are_made_at_once() {
    let keys = closed(&[]);
    let alice = keys.make(json!({"owner": "User::\"alice\""})).1;
    let made: usize = std::thread::scope(|scope| {
        let make = || {
            let mut client = Client::connect(keys.server.address);
            let headers = ["Content-Type: application/json", &format!("Authorization: Bearer {alice}")];
            let made = || client.request("POST", "/v1/keys", &headers, b"{}").status;
            std::iter::repeat_with(made).take_while(|status| *status == 201).count()
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(made, 999);
}

#[test]
fn a_key_is_revoked_whoever_changes_it_meanwhile() {
    let keys = closed(&[]);
    let (id, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let path = format!("/v1/keys/{id}");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (keys, key, path, done) = (&keys, &key, &path, &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    keys.ask(key, "PATCH", path, json!({"note": format!("{number}")}));
                }
            });
        }
        let revoked = keys.admin("POST", &format!("{path}/revoke"), json!({"reason": "leaked"}));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(revoked.status, 200, "{}", revoked.body);
    });
    assert_eq!(keys.ask(&key, "GET", &path, Value::Null).status, 401);
}

#[test]
fn a_server_that_was_killed_while_it_first_started_starts() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    for millis in (0..40).step_by(2) {
        let began = Instant::now();
        std::fs::remove_dir_all(&data).unwrap();
        let mut killed = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--policies", "/nonexistent", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        killed.kill().unwrap();
        killed.wait().unwrap();
        let opened = tollgate::edge::store::KeyFile::open(&data, None);
        assert!(opened.is_ok(), "killed after {millis} ms: {}", opened.unwrap_err());
        let opened = tollgate::edge::store::Embedded::open(&data, Timestamp::from_millis(0));
        assert!(opened.is_ok(), "killed after {millis} ms: {}", opened.err().unwrap());
        assert!(began.elapsed() < DEADLINE);
        std::fs::create_dir_all(&data).unwrap();
    }
    // What a process left that was about to make it; and what is not Tollgate's is no new one.
    let fresh = directory.path().join("fresh");
    std::fs::create_dir_all(&fresh).unwrap();
    for left in ["keys.new", "keys.new-journal", "meters.new", "meters.new-journal"] {
        std::fs::write(fresh.join(left), b"half of it").unwrap();
    }
    drop(tollgate::edge::store::KeyFile::open(&fresh, None).unwrap());
    drop(tollgate::edge::store::Embedded::open(&fresh, Timestamp::from_millis(0)).unwrap());
    for name in ["keys.db", "meters.db"] {
        std::fs::write(fresh.join(name), b"").unwrap();
    }
    let told = tollgate::edge::store::KeyFile::open(&fresh, None).unwrap_err().to_string();
    assert!(told.contains("is damaged"), "{told}");
    let told = tollgate::edge::store::Embedded::open(&fresh, Timestamp::from_millis(0)).err().unwrap().to_string();
    assert!(told.contains("is damaged"), "{told}");
}

#[test]
fn others_are_told_of_a_narrowed_key_only_what_it_may_do() {
    let keys = closed(&[]);
    let gateway = keys.make(json!({"owner": "User::\"root\""})).1;
    let ask = |key: &str, request: Value, authorize: bool| -> Answer {
        let body = json!({"api_key": key, "request": request, "authorize": authorize});
        keys.ask(&gateway, "POST", "/v1/auth/validate", body)
    };
    let chat =
        |ip: &str| json!({"path": "/v1/chat/completions", "method": "POST", "params": {"model": "oa/big"}, "ip": ip});
    let answer = ask(&gateway, json!({"path": "/x"}), false);
    // What somebody may do on this server is not told.
    assert_eq!((answer.status, &answer.json()["attributes"]["roles"]), (200, &json!([])));
    for (member, value) in [("models", json!(["oa/small"])), ("limits", json!([{"concurrency": 1}]))] {
        let narrowed = keys.make(json!({"owner": "User::\"alice\"", member: value})).1;
        assert!(ask(&narrowed, json!({"path": "/x"}), false).is_error(403, "forbidden", ""), "{member}");
    }
    let bound = keys.make(json!({"owner": "User::\"alice\"", "networks": ["192.0.2.0/24"]})).1;
    assert_eq!(ask(&bound, chat("192.0.2.7"), true).status, 200);
    assert_eq!(ask(&bound, chat("198.51.100.7"), true).status, 403);
    assert!(ask(&bound, chat("nowhere"), true).is_error(400, "invalid_request", "request.ip"));
}

#[test]
fn guesses_at_a_key_by_others_do_not_keep_its_owner_out_of_what_validates() {
    let keys = closed(&[]);
    let gateway = keys.make(json!({"owner": "User::\"root\""})).1;
    let (id, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let guess = secret(tollgate::model::key_text(&id, [9; 32]).unwrap().expose());
    let mut client = Client::connect(keys.server.address);
    let mut ask = |key: &str, ip: &str| {
        let body = json!({"api_key": key, "request": {"path": "/x", "ip": ip}}).to_string();
        let headers = ["Content-Type: application/json", &format!("Authorization: Bearer {gateway}")];
        client.request("POST", "/v1/auth/validate", &headers, body.as_bytes()).status
    };
    let told: Vec<u16> = (0..40).map(|_| ask(&guess, "192.0.2.1")).collect();
    assert_eq!((told[0], told[39]), (401, 429));
    assert_eq!(ask(&key, "192.0.2.2"), 200);
}

/// Access and refresh token for that.
fn exchanged(server: &Server, grant: &Value) -> Result<(String, String), Answer> {
    let answer = server.post("/v1/token", &grant.to_string());
    if answer.status != 200 {
        return Err(answer);
    }
    let told = answer.json();
    let text = |name: &str| secret(told[name].as_str().unwrap_or_else(|| panic!("no {name}: {told}")));
    Ok((text("access_token"), text("refresh_token")))
}

fn refreshed(server: &Server, token: &str) -> Result<(String, String), Answer> {
    exchanged(server, &json!({"grant_type": "refresh_token", "refresh_token": token}))
}

fn code(server: &Server, token: &str) -> String {
    let question = json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"oa/big\""});
    server.post("/is_authorized", &question.to_string()).json()["code"].as_str().unwrap().to_owned()
}

const TOKENS: &str = "identity: { providers: [{ keys: {} }, { basic: {} }], tokens: {} }\n";

#[test]
fn tokens_of_a_key_end_when_its_secret_is_replaced() {
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).config(TOKENS).start());
    let (id, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let grant = |key: &str| json!({"grant_type": "api_key", "api_key": key});
    let (access, refresh) = exchanged(&keys.server, &grant(&key)).unwrap();
    assert_eq!(code(&keys.server, &access), "permitted");
    let rotate = |grace: i64| {
        let answer = keys.admin("POST", &format!("/v1/keys/{id}/rotate"), json!({"grace_seconds": grace}));
        secret(answer.json()["key"].as_str().unwrap())
    };
    // For as long as the secret is taken, so are they.
    let second = rotate(3600);
    assert_eq!(code(&keys.server, &access), "permitted");
    let (_, refresh) = refreshed(&keys.server, &refresh).unwrap();
    let (of_second, refresh_of_second) = exchanged(&keys.server, &grant(&second)).unwrap();
    let third = rotate(0);
    for token in [&access, &of_second] {
        assert_eq!(code(&keys.server, token), "credential_expired", "of a secret that was replaced");
    }
    for token in [&refresh, &refresh_of_second] {
        assert_eq!(refreshed(&keys.server, token).unwrap_err().status, 401);
    }
    let (access, refresh) = exchanged(&keys.server, &grant(&third)).unwrap();
    assert_eq!(code(&keys.server, &access), "permitted");
    refreshed(&keys.server, &refresh).unwrap();
}

/// Puts it into the bundle, and has that read.
fn put(server: &Server, name: &str, text: &str) {
    let revision = |server: &Server| server.get("/bundle").json()["revision"].as_str().unwrap().to_owned();
    let before = revision(server);
    std::fs::write(server.policies().join(name), text).unwrap();
    assert_eq!(server.post("/bundle/reload", "{}").status, 200);
    server.until("the bundle is another", |server| revision(server) != before);
}

#[test]
fn tokens_of_a_key_of_the_bundle_end_with_its_hash() {
    let make = |byte: u8| {
        let text = tollgate::model::key_text("ci", [byte; 32]).unwrap();
        let hash = tollgate::model::bundle_key_hash(&tollgate::model::KeyText::parse(text.expose()).unwrap());
        let hash = tollgate::model::key_hash_text(&hash);
        (secret(text.expose()), format!("keys: [{{ id: ci, hash: \"{hash}\", owner: 'User::\"alice\"' }}]\n"))
    };
    let ((first, bundle), (_, other)) = (make(1), make(2));
    let setup = Setup::without_files().file("people.yaml", PEOPLE).file("keys.yaml", &bundle).config(TOKENS);
    let keys = Keys::of(setup.start());
    let (access, refresh) = exchanged(&keys.server, &json!({"grant_type": "api_key", "api_key": first})).unwrap();
    assert_eq!(code(&keys.server, &access), "permitted");
    put(&keys.server, "keys.yaml", &other);
    assert_eq!(code(&keys.server, &access), "credential_expired");
    assert_eq!(refreshed(&keys.server, &refresh).unwrap_err().status, 401);
}

#[test]
fn refresh_tokens_of_a_password_end_with_it() {
    let with =
        |more: &str| PEOPLE.replace("{ id: alice, team: research }", &format!("{{ id: alice, team: research{more} }}"));
    let hashed = with(&format!(", password_hash: \"{HASH}\""));
    secret(HASH);
    let setup = Setup::without_files().file("people.yaml", &hashed).config(TOKENS);
    let server = Keys::of(setup.start()).server;
    let grant = json!({"grant_type": "password", "username": "alice", "password": secret(PASSWORD)});
    let (_, refresh) = exchanged(&server, &grant).unwrap();
    let (access, refresh) = refreshed(&server, &refresh).unwrap();
    assert_eq!(code(&server, &access), "permitted");
    // Nobody in between: what is refused uses up no token.
    put(&server, "people.yaml", &with(&format!(", disabled: true, password_hash: \"{HASH}\"")));
    assert_eq!(refreshed(&server, &refresh).unwrap_err().status, 401);
    put(&server, "people.yaml", &hashed);
    let (_, refresh) = refreshed(&server, &refresh).unwrap();
    // Another password, and none.
    let other = HASH.replace("$mCpx", "$mCpy");
    put(&server, "people.yaml", &with(&format!(", password_hash: \"{other}\"")));
    assert!(refreshed(&server, &refresh).unwrap_err().is_error(401, "unauthenticated", ""));
    put(&server, "people.yaml", &with(""));
    assert_eq!(refreshed(&server, &refresh).unwrap_err().status, 401);
    put(&server, "people.yaml", &hashed);
    refreshed(&server, &refresh).unwrap();
}

#[test]
fn a_token_shows_no_hash_of_a_password() {
    let hashed = PEOPLE.replace(
        "{ id: alice, team: research }",
        &format!("{{ id: alice, team: research, password_hash: \"{HASH}\" }}"),
    );
    secret(HASH);
    let server = Keys::of(Setup::without_files().file("people.yaml", &hashed).config(TOKENS).start()).server;
    let grant = json!({"grant_type": "password", "username": "alice", "password": secret(PASSWORD)});
    let (access, _) = exchanged(&server, &grant).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(access.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    // What it says of it is a digest of all of it, salt and all.
    let mark = claims["tollgate"]["mark"].as_str().unwrap();
    assert!(mark.len() == 32 && mark.bytes().all(|byte| byte.is_ascii_hexdigit()), "{claims}");
    for part in HASH.split('$').filter(|part| part.len() > 8) {
        assert!(!claims.to_string().contains(part), "{claims}");
    }
    assert_eq!(claims["tollgate"]["principal"], "User::\"alice\"");
}

#[test]
fn who_guesses_at_the_exchange_is_told_to_wait() {
    let server = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).config(TOKENS).start()).server;
    let guess = secret(tollgate::model::key_text("nobody", [9; 32]).unwrap().expose());
    let grant = json!({"grant_type": "api_key", "api_key": guess});
    let told: Vec<u16> = (0..30).map(|_| exchanged(&server, &grant).unwrap_err().status).collect();
    assert_eq!((told[0], told[29]), (401, 429));
}

#[test]
fn a_token_is_exchanged_for_no_other() {
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).config(TOKENS).start());
    let (_, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let (access, _) = exchanged(&keys.server, &json!({"grant_type": "api_key", "api_key": key})).unwrap();
    for grant in [json!({"grant_type": "api_key", "api_key": access}), json!({})] {
        let header = format!("Authorization: Bearer {access}");
        let headers: &[&str] = if grant == json!({}) { &[&header] } else { &[] };
        let headers = [headers, &["Content-Type: application/json"]].concat();
        let answer = keys.server.connect().request("POST", "/v1/token", &headers, grant.to_string().as_bytes());
        assert!(answer.is_error(403, "forbidden", ""), "{}", answer.body);
    }
}

#[test]
fn what_comes_of_a_key_ends_no_later_than_the_key() {
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).config(TOKENS).start());
    let (id, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let (_, refresh) = exchanged(&keys.server, &json!({"grant_type": "api_key", "api_key": key})).unwrap();
    // It ends in a minute now, or its secret does.
    for (method, path, body) in [
        ("POST", format!("/v1/keys/{id}/rotate"), json!({"grace_seconds": 60})),
        ("PATCH", format!("/v1/keys/{id}"), json!({"expires_at": "2099-01-01T00:00:00Z"})),
    ] {
        let answer = keys.admin(method, &path, body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["key"].as_str().map(secret);
    }
    let answer =
        keys.server.post("/v1/token", &json!({"grant_type": "refresh_token", "refresh_token": refresh}).to_string());
    let told = answer.json();
    for name in ["access_token", "refresh_token"] {
        secret(told[name].as_str().unwrap());
    }
    for name in ["expires_in", "refresh_expires_in"] {
        assert!((1..=60).contains(&told[name].as_i64().unwrap()), "{told}");
    }
}

#[test]
fn nothing_is_signed_for_who_is_disabled() {
    let hashed = |more: &str| {
        let alice = format!("{{ id: alice, team: research, password_hash: \"{HASH}\"{more} }}");
        PEOPLE.replace("{ id: alice, team: research }", &alice)
    };
    secret(HASH);
    let keys = Keys::of(Setup::without_files().file("people.yaml", &hashed("")).config(TOKENS).start());
    let (_, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let grants = [
        json!({"grant_type": "api_key", "api_key": key}),
        json!({"grant_type": "password", "username": "alice", "password": secret(PASSWORD)}),
    ];
    let refresh = grants.each_ref().map(|grant| exchanged(&keys.server, grant).unwrap().1);
    put(&keys.server, "people.yaml", &hashed(", disabled: true"));
    for (grant, refresh) in grants.iter().zip(&refresh) {
        assert!(exchanged(&keys.server, grant).unwrap_err().is_error(401, "unauthenticated", ""));
        assert!(refreshed(&keys.server, refresh).unwrap_err().is_error(401, "unauthenticated", ""));
    }
}

#[test]
fn a_revoked_family_is_known_for_longer_than_its_tokens() {
    let setup = || {
        let config = "identity: { providers: [{ keys: {} }], tokens: { access_seconds: 60, refresh_seconds: 60 } }\n";
        Setup::without_files().file("people.yaml", PEOPLE).config(config)
    };
    let keys = Keys::of(setup().start());
    let (_, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let grant = json!({"grant_type": "api_key", "api_key": key});
    let (_, first) = exchanged(&keys.server, &grant).unwrap();
    let (access, _) = refreshed(&keys.server, &first).unwrap();
    assert_eq!(refreshed(&keys.server, &first).unwrap_err().status, 401);
    assert_eq!(code(&keys.server, &access), "credential_revoked");
    let server = setup().start_in(keys.server.crash());
    exchanged(&server, &grant).unwrap();
    assert_eq!(code(&server, &access), "credential_revoked");
    let (status, told) = Setup::without_files()
        .file("people.yaml", PEOPLE)
        .config("identity: { tokens: { access_seconds: 3600, refresh_seconds: 60 } }\n")
        .fail();
    assert_ne!(status, Some(0));
    assert!(told.contains("`tokens.refresh_seconds` is no less than `tokens.access_seconds`"), "{told}");
}

#[test]
fn a_token_says_how_its_credential_was_proved() {
    let hashed = PEOPLE.replace(
        "{ id: alice, team: research }",
        &format!("{{ id: alice, team: research, password_hash: \"{HASH}\" }}"),
    );
    let rule = "  - { id: no-passwords, effect: forbid, users: '*', models: [oa/big], when: 'context.auth.method == \"basic\"' }\n";
    secret(HASH);
    let setup = Setup::without_files().file("people.yaml", &format!("{hashed}{rule}"));
    let keys = Keys::of(setup.config(TOKENS).start());
    let grant = json!({"grant_type": "password", "username": "alice", "password": secret(PASSWORD)});
    let (access, refresh) = exchanged(&keys.server, &grant).unwrap();
    assert_eq!(code(&keys.server, &access), "forbidden_by_rule");
    assert_eq!(code(&keys.server, &refreshed(&keys.server, &refresh).unwrap().0), "forbidden_by_rule");
    let key = keys.make(json!({"owner": "User::\"alice\""})).1;
    let (access, _) = exchanged(&keys.server, &json!({"grant_type": "api_key", "api_key": key})).unwrap();
    assert_eq!(code(&keys.server, &access), "permitted");
}

#[test]
fn limits_of_a_key_bind_where_the_bundle_has_none() {
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).start());
    let limits = json!([{"rate": {"requests": 1, "every": "hour"}}]);
    let key = keys.make(json!({"owner": "User::\"alice\"", "limits": limits})).1;
    let credential = json!({"api_key": key});
    let held = keys.question(credential.clone(), json!({"reserve": {"requests": 1}}));
    assert_eq!(held["code"], "permitted", "{held}");
    assert_eq!(keys.question(credential.clone(), json!({}))["code"], "rate_limited");
    let candidates = json!({
        "credential": credential, "action": "chat", "candidates": ["Model::\"oa/big\"", "Model::\"oa/small\""],
    });
    let answer = keys.server.post("/is_authorized", &candidates.to_string());
    assert_eq!((answer.status, &answer.json()["code"]), (200, &json!("rate_limited")), "{}", answer.body);
}

#[test]
fn a_key_of_another_node_is_known_at_once() {
    let Some(redis) = Redis::start() else { return };
    let node = || {
        let config = format!("meters: {{ redis: {{ url: 'redis://127.0.0.1:{}', timeout_ms: 5000 }} }}\n", redis.port);
        Setup::without_files().file("people.yaml", PEOPLE).config(&config).start()
    };
    let one = Keys::of(node());
    let other = node();
    for _ in 0..20 {
        let (id, key) = one.make(json!({"owner": "User::\"alice\""}));
        assert_eq!(code(&other, &key), "permitted");
        let rotated = one.admin("POST", &format!("/v1/keys/{id}/rotate"), json!({"grace_seconds": 60}));
        let new = secret(rotated.json()["key"].as_str().unwrap());
        assert_eq!(code(&other, &new), "permitted");
    }
    let metrics = other.get("/metrics").body;
    assert!(metrics.contains("tollgate_authentication_failures_total{reason=\"wrong\"} 0"), "{metrics}");
}

#[test]
fn an_owner_changes_what_an_administrator_gave_and_adds_nothing() {
    let keys = closed(&[]);
    let given = json!({"owner": "User::\"alice\"", "tags": ["night"], "metadata": {"env": "prod"}});
    let (id, key) = keys.make(given);
    let other = keys.make(json!({"owner": "User::\"alice\""})).1;
    let path = format!("/v1/keys/{id}");
    for (change, told) in [
        (json!({"note": "mine"}), 200),
        (json!({"expires_at": "2099-01-01T00:00:00Z"}), 200),
        (json!({"tags": ["night", "admin"]}), 403),
        (json!({"metadata": {"env": "dev"}}), 403),
        // A rule may forbid by the tag, and what the metadata says the request may not say otherwise.
        (json!({"tags": null}), 403),
        (json!({"metadata": null}), 403),
    ] {
        assert_eq!(status(&keys, &other, "PATCH", &path, change.clone()), told, "{change}");
    }
    // Another key of the same owner gets no secret of what is more than itself.
    assert_eq!(status(&keys, &other, "POST", &format!("{path}/rotate"), json!({})), 403);
    let rotated = keys.ask(&key, "POST", &format!("{path}/rotate"), json!({"grace_seconds": 60}));
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    secret(rotated.json()["key"].as_str().unwrap());
}

#[test]
fn errors_of_the_configuration_show_no_secret_of_an_address() {
    let password = secret("password-in-an-address");
    let token = secret("a-token-that-stands-alone");
    for config in [
        format!("meters: {{ redis: {{ url: \"redis://:{password}@127.0.0.1:1\", x: 1 }} }}\n"),
        format!("meters:\n  redis: redis://user:{password}@127.0.0.1:1\n"),
        format!(
            "identity: {{ providers: [{{ delegated: {{ url: \"http://u:{password}@127.0.0.1/\", bad: 1 }} }}] }}\n"
        ),
        format!("identity: {{ providers: [{{ static: {{ tokens: [\"{token}\"] }} }}] }}\n"),
    ] {
        let (status, told) = Setup::without_files().file("people.yaml", PEOPLE).config(&config).fail();
        assert_ne!(status, Some(0), "{config}");
        assert!(!told.contains(&password) && !told.contains(&token), "{told}");
    }
}
