//! Passwords that are set on a running server, and kept where its keys are.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::keys::{Keys, PEOPLE};
use crate::passwords::{HASH, PASSWORD};
use crate::redis::Redis;
use crate::support::{Answer, Client, Server, Setup, secret};

const NEW: &str = "new battery staple";
const OTHER: &str = "other battery staple";
const CONFIG: &str = "identity:
  failures: { enabled: false }
  providers:
    - keys: {}
    - basic: {}
";

fn setup() -> Setup {
    for text in [PASSWORD, HASH, NEW, OTHER] {
        secret(text);
    }
    Setup::without_files().file("people.yaml", PEOPLE).config(CONFIG)
}

fn start() -> Keys {
    Keys::of(setup().start())
}

fn path(user: &str) -> String {
    format!("/v1/users/{user}/password")
}

fn set(keys: &Keys, user: &str, password: &str) -> Answer {
    keys.admin("PUT", &path(user), json!({ "password": password }))
}

fn show(keys: &Keys, user: &str) -> Value {
    let answer = keys.admin("GET", &path(user), Value::Null);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn question(keys: &Keys, username: &str, password: &str) -> Value {
    keys.question(json!({"basic": {"username": username, "password": password}}), json!({}))
}

fn code(keys: &Keys, username: &str, password: &str) -> String {
    question(keys, username, password)["code"].as_str().unwrap().to_owned()
}

/// A request of whoever has this name and password.
fn as_user(server: &Server, (username, password): (&str, &str), method: &str, path: &str, body: &Value) -> Answer {
    let header = format!("Authorization: Basic {}", STANDARD.encode(format!("{username}:{password}")));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.connect().request(method, path, &["Content-Type: application/json", &header], body.as_bytes())
}

#[test]
fn a_password_is_set_and_proves_a_user() {
    let keys = start();
    assert_eq!(show(&keys, "alice"), json!({"user": "alice", "set": false}));
    assert_eq!(code(&keys, "alice", NEW), "unauthenticated");
    let answer = set(&keys, "alice", NEW);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = show(&keys, "alice");
    assert_eq!((&told["set"], &told["kept_in"]), (&json!(true), &json!("store")), "{told}");
    assert!(told["changed_at"].is_string() && answer.json() == told, "{told} {}", answer.body);
    for _ in 0..2 {
        let told = question(&keys, "alice", NEW);
        assert_eq!((&told["decision"], &told["principal"]["id"]), (&json!("permit"), &json!("alice")), "{told}");
        assert_eq!(told["principal"]["type"], "User");
    }
    // It says who calls, too, and whoever calls may change its own.
    assert_eq!(as_user(&keys.server, ("alice", NEW), "GET", &path("alice"), &Value::Null).status, 200);
    let answer = as_user(&keys.server, ("alice", NEW), "PUT", &path("alice"), &json!({"password": OTHER}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(as_user(&keys.server, ("alice", NEW), "GET", &path("alice"), &Value::Null).status, 401);
    assert_eq!(as_user(&keys.server, ("alice", OTHER), "GET", &path("alice"), &Value::Null).status, 200);
    // A hash that was made elsewhere is as good.
    assert_eq!(keys.admin("PUT", &path("alice"), json!({"password_hash": HASH})).status, 200);
    assert_eq!((&*code(&keys, "alice", PASSWORD), &*code(&keys, "alice", OTHER)), ("permitted", "unauthenticated"));
    let log = keys.server.log();
    assert!(log.contains("the password of User::\"alice\" was set by User::\"alice\""), "{log}");
}

#[test]
fn unknown_names_and_wrong_passwords_look_alike() {
    let keys = start();
    assert_eq!(set(&keys, "alice", NEW).status, 200);
    let mut first: Option<String> = None;
    for (what, username, password) in [
        ("wrong password", "alice", OTHER),
        ("no password", "alice", ""),
        ("other case", "Alice", NEW),
        ("declared without one", "west", NEW),
        ("unknown", "nobody", NEW),
        ("a service", "bot", NEW),
        ("the id of the record", "User::\"alice\"", NEW),
    ] {
        let mut told = question(&keys, username, password);
        assert_eq!(told["code"], "unauthenticated", "{what}: {told}");
        told["id"] = Value::Null;
        let told = told.to_string();
        assert_eq!(&told, first.get_or_insert(told.clone()), "{what}");
    }
}

#[test]
fn a_change_and_a_removal_hold_at_once_and_end_refresh_tokens() {
    let keys = start();
    let exchange = |body: Value| {
        let answer = keys.ask("", "POST", "/v1/token", body);
        for name in ["access_token", "refresh_token"] {
            answer.json()[name].as_str().map(secret);
        }
        answer
    };
    let issued = |password: &str| {
        let answer = exchange(json!({"grant_type": "password", "username": "alice", "password": password}));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["refresh_token"].clone()
    };
    let refresh = |token: &Value| exchange(json!({"grant_type": "refresh_token", "refresh_token": token}));
    assert_eq!(set(&keys, "alice", NEW).status, 200);
    let (first, second) = (issued(NEW), issued(NEW));
    let first = refresh(&first).json()["refresh_token"].clone();
    assert_eq!(code(&keys, "alice", NEW), "permitted", "it is remembered from here on");
    assert_eq!(set(&keys, "alice", OTHER).status, 200);
    assert_eq!((&*code(&keys, "alice", NEW), &*code(&keys, "alice", OTHER)), ("unauthenticated", "permitted"));
    assert_eq!((refresh(&first).status, refresh(&second).status), (401, 401));
    // Also where it is the same password once more.
    let third = issued(OTHER);
    assert_eq!(set(&keys, "alice", OTHER).status, 200);
    assert_eq!((code(&keys, "alice", OTHER), refresh(&third).status), ("permitted".to_owned(), 401));
    let fourth = issued(OTHER);
    let answer = keys.admin("DELETE", &path("alice"), Value::Null);
    assert_eq!((answer.status, answer.json()), (200, json!({"user": "alice", "set": false})));
    assert_eq!((code(&keys, "alice", OTHER), refresh(&fourth).status), ("unauthenticated".to_owned(), 401));
    // Nothing is left to remove, and it is as the caller wished.
    assert_eq!(keys.admin("DELETE", &path("alice"), Value::Null).status, 200);
}

#[test]
fn what_was_acknowledged_outlives_a_crash() {
    let keys = start();
    assert_eq!(set(&keys, "alice", NEW).status, 200);
    assert_eq!(set(&keys, "west", NEW).status, 200);
    assert_eq!(keys.admin("DELETE", &path("west"), Value::Null).status, 200);
    assert_eq!(set(&keys, "boss", NEW).status, 200);
    assert_eq!(set(&keys, "boss", OTHER).status, 200);
    let temp = keys.server.crash();
    let files = ["keys.db", "keys.db-wal"]
        .map(|name| std::fs::read(temp.path().join("tollgate-data").join(name)).unwrap_or_default());
    for text in [NEW, OTHER] {
        let kept = files.iter().any(|file| file.windows(text.len()).any(|part| part == text.as_bytes()));
        assert!(!kept, "a password is kept in clear");
    }
    let server = setup().start_in(temp);
    for (name, password, is_right) in
        [("alice", NEW, true), ("west", NEW, false), ("boss", OTHER, true), ("boss", NEW, false)]
    {
        let status = as_user(&server, (name, password), "GET", &path(name), &Value::Null).status;
        assert_eq!(status == 200, is_right, "{name} {password}");
    }
}

/// Whoever may make a key of a user that is all that the user is, and nobody else, may set the user's password.
#[test]
fn who_may_make_a_whole_key_may_set_a_password() {
    let keys = start();
    let owned = |owner: &str, more: Value| {
        let mut body = json!({ "owner": owner });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        keys.make(body)
    };
    let (rotated_id, replaced) = owned("User::\"alice\"", json!({}));
    let rotated = keys.admin("POST", &format!("/v1/keys/{rotated_id}/rotate"), json!({"grace_seconds": 3600}));
    secret(rotated.json()["key"].as_str().unwrap());
    let callers = [
        ("alice", owned("User::\"alice\"", json!({})).1),
        ("alice, narrowed", owned("User::\"alice\"", json!({"models": ["oa/big"]})).1),
        ("alice, from networks", owned("User::\"alice\"", json!({"networks": ["127.0.0.0/8"]})).1),
        ("alice, limited", owned("User::\"alice\"", json!({"limits": [{"budget": {"usd": 5, "every": "month"}}]})).1),
        ("alice, ending", owned("User::\"alice\"", json!({"expires_at": "2099-01-01T00:00:00Z"})).1),
        ("alice, replaced", replaced),
        ("boss", owned("User::\"boss\"", json!({})).1),
        ("boss, narrowed", owned("User::\"boss\"", json!({"actions": ["chat"]})).1),
        ("root", owned("User::\"root\"", json!({})).1),
        ("root, ending", owned("User::\"root\"", json!({"expires_at": "2099-01-01T00:00:00Z"})).1),
        ("ian", owned("User::\"ian\"", json!({})).1),
        ("a service", owned("Service::\"bot\"", json!({})).1),
        ("a team", owned("Team::\"research\"", json!({})).1),
    ];
    let mut may = Vec::new();
    for (caller, key) in &callers {
        for user in ["alice", "boss", "west", "both", "root", "ian", "out"] {
            let made = keys.ask(key, "POST", "/v1/keys", json!({"owner": format!("User::\"{user}\"")}));
            made.json()["key"].as_str().map(secret);
            let put = keys.ask(key, "PUT", &path(user), json!({"password": NEW}));
            let removed = keys.ask(key, "DELETE", &path(user), Value::Null);
            let what = format!("{caller} {user}: {} {} {}", made.body, put.body, removed.body);
            assert_eq!(made.status == 201, put.status == 200, "{what}");
            assert_eq!(put.status, removed.status, "{what}");
            let shown = keys.ask(key, "GET", &path(user), Value::Null);
            match put.status {
                200 => {
                    may.push(format!("{caller}: {user}"));
                    assert_eq!(shown.status, 200, "{what}");
                }
                // Whom the caller may manage it may look at.
                403 => assert_eq!(shown.status, 200, "{what}"),
                404 => assert!(shown.is_error(404, "not_found", "") && shown.body == put.body, "{what}"),
                other => panic!("{other}: {what}"),
            }
        }
    }
    for expected in ["alice: alice", "boss: boss", "boss: alice", "root: alice", "root: root", "root: both"] {
        assert!(may.iter().any(|one| one == expected), "{expected}: {may:?}");
    }
    for (caller, user) in [("boss", "both"), ("boss", "root"), ("alice", "boss"), ("alice, ending", "alice")] {
        assert!(!may.contains(&format!("{caller}: {user}")), "{caller}: {user}");
    }
    let users_of = |caller: &str| may.iter().filter(|one| one.starts_with(&format!("{caller}: "))).count();
    for (caller, _) in &callers[1..6] {
        assert_eq!(users_of(caller), 0, "{caller}: {may:?}");
    }
    // Also on loopback, nobody does so without a credential.
    for method in ["GET", "PUT", "DELETE"] {
        let body = if method == "PUT" { json!({"password": NEW}) } else { Value::Null };
        assert_eq!(keys.ask("", method, &path("alice"), body).status, 401, "{method}");
    }
}

/// Whoever has a token of a password that is another now has nothing.
#[test]
fn a_token_ends_with_the_password() {
    let keys = start();
    let exchanged = |password: &str| {
        let grant = json!({"grant_type": "password", "username": "alice", "password": password});
        let answer = keys.ask("", "POST", "/v1/token", grant).json();
        secret(answer["refresh_token"].as_str().unwrap());
        secret(answer["access_token"].as_str().unwrap())
    };
    let code = |token: &str| keys.question(json!({"bearer": token}), json!({}))["code"].as_str().unwrap().to_owned();
    for removed in [false, true] {
        assert_eq!(set(&keys, "alice", NEW).status, 200);
        let token = exchanged(NEW);
        for _ in 0..2 {
            assert_eq!(code(&token), "permitted");
        }
        if removed {
            assert_eq!(keys.admin("DELETE", &path("alice"), Value::Null).status, 200);
        } else {
            assert_eq!(set(&keys, "alice", OTHER).status, 200);
        }
        assert_eq!(code(&token), "credential_expired");
        let put = keys.ask(&token, "PUT", &path("alice"), json!({"password": NEW}));
        let made = keys.ask(&token, "POST", "/v1/keys", json!({}));
        assert_eq!((put.status, made.status), (401, 401), "{} {}", put.body, made.body);
    }
}

/// A hash says what checking costs, which would tell of other names; administrators bring hashes along, nobody else.
#[test]
fn a_hash_is_set_by_administrators_alone() {
    let keys = start();
    let (_, alice) = keys.make(json!({"owner": "User::\"alice\""}));
    let body = json!({ "password_hash": HASH });
    let answer = keys.ask(&alice, "PUT", &path("alice"), body.clone());
    assert!(answer.is_error(403, "forbidden", ""), "{answer:?}");
    assert_eq!(keys.admin("PUT", &path("alice"), body).status, 200);
    let answer = keys.admin("PUT", &path("tollgate:administrator"), json!({ "password": NEW }));
    assert!(answer.is_error(400, "invalid_request", "user"), "{answer:?}");
}

/// However many set passwords, others show theirs: one is hashed at a time.
#[test]
fn who_sets_passwords_without_end_keeps_nobody_out() {
    let keys = start();
    assert_eq!(set(&keys, "boss", OTHER).status, 200);
    let (_, alice) = keys.make(json!({"owner": "User::\"alice\""}));
    let (told, done) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicBool::new(false));
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                while !done.load(relaxed) {
                    let answer = keys.ask(&alice, "PUT", &path("alice"), json!({"password": NEW}));
                    assert!(answer.status == 200 || answer.is_error(503, "unavailable", ""), "{answer:?}");
                    told.fetch_add(usize::from(answer.status == 503), relaxed);
                }
            });
        }
        keys.server.until("some are told to come back", |_| told.load(relaxed) > 100);
        let mut wrong = 0;
        for number in 0..5 {
            // Never remembered, since each is of another address.
            let more = json!({"context": {"ip": format!("203.0.113.{number}")}});
            let credential = json!({"basic": {"username": "boss", "password": OTHER}});
            wrong += usize::from(keys.question(credential, more)["decision"] != "permit");
        }
        done.store(true, relaxed);
        assert_eq!(wrong, 0);
    });
}

/// Hashes are in the file, so that nobody else may read it, also where it was made before.
#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let keys = start();
    let temp = keys.server.crash();
    let files = ["keys.db", "keys.db-wal"].map(|name| temp.path().join("tollgate-data").join(name));
    let mode = |file: &std::path::PathBuf| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
    let existing = || files.iter().filter(|file| file.exists());
    assert!(existing().all(|file| mode(file) == 0o600));
    for file in existing() {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let server = setup().start_in(temp);
    let files = ["keys.db", "keys.db-wal"].map(|name| server.temp.path().join("tollgate-data").join(name));
    assert!(files.iter().filter(|file| file.exists()).all(|file| mode(file) == 0o600));
}

/// Rules see from where somebody manages.
#[test]
fn a_rule_may_say_from_where_people_manage() {
    let forbid = |network: &str| {
        format!(
            "forbid (principal, action in Action::\"admin\", resource)\n\
             when {{ context has ip && context.ip.isInRange(ip(\"{network}\")) }};\n"
        )
    };
    for (network, status) in [("127.0.0.0/8", 404), ("10.0.0.0/8", 200)] {
        let keys = Keys::of(setup().file("from.cedar", &forbid(network)).start());
        assert_eq!(set(&keys, "alice", NEW).status, status, "{network}");
    }
}

#[test]
fn a_user_that_is_not_declared_has_no_password() {
    let keys = start();
    let answer = set(&keys, "nobody", NEW);
    assert!(answer.is_error(404, "not_found", ""), "{answer:?}");
    // Nor has one that is declared no longer: neither the password nor what came of it proves anybody.
    assert_eq!(set(&keys, "west", NEW).status, 200);
    assert_eq!(code(&keys, "west", NEW), "permitted");
    let without = PEOPLE.replace("  - { id: west, team: research-west }\n", "");
    assert_ne!(without, PEOPLE);
    std::fs::write(keys.server.policies().join("people.yaml"), without).unwrap();
    keys.server.until("it proves nobody", |_| code(&keys, "west", NEW) == "unauthenticated");
    // Unless keys of such owners are taken too.
    let config = CONFIG.replace("keys: {}", "keys: { unknown_owners: allow }");
    let keys = Keys::of(setup().config(&config).start());
    assert_eq!(set(&keys, "nobody", NEW).status, 200);
    assert_eq!(question(&keys, "nobody", NEW)["principal"]["id"], "nobody");
}

#[test]
fn a_disabled_user_proves_itself_and_is_told_so() {
    let keys = start();
    assert_eq!(set(&keys, "out", NEW).status, 200);
    assert_eq!(code(&keys, "out", NEW), "principal_disabled");
}

#[test]
fn a_name_is_percent_encoded() {
    let people = PEOPLE.replace("- { id: west, team: research-west }", "- { id: 'zoë/ä+b@x.org', team: research }");
    let keys = Keys::of(setup().file("people.yaml", &people).start());
    let (user, encoded) = ("zoë/ä+b@x.org", "zo%C3%AB%2F%c3%a4+b@x.org");
    assert_eq!(set(&keys, encoded, NEW).json()["user"], user);
    assert_eq!(code(&keys, user, NEW), "permitted");
    for (wrong, code) in
        [("%ff", "invalid_request"), ("%4", "invalid_request"), ("%zz", "invalid_request"), ("a%00b", "invalid_name")]
    {
        let answer = set(&keys, wrong, NEW);
        assert!(answer.is_error(400, code, "user"), "{wrong}: {answer:?}");
    }
    for (path, status) in [("/v1/users//password", 404), ("/v1/users/a/b/password", 404), ("/v1/users/alice", 404)] {
        assert_eq!(keys.admin("GET", path, Value::Null).status, status, "{path}");
    }
    let answer = keys.admin("POST", &path("alice"), json!({}));
    assert!(answer.is_error(405, "method_not_allowed", ""), "{answer:?}");
    let answer = keys.admin("GET", &format!("{}?x=1", path("alice")), Value::Null);
    assert!(answer.is_error(400, "invalid_request", ""), "{answer:?}");
}

#[test]
fn what_is_no_password_is_told_and_shows_none() {
    let keys = start();
    let put = |body: &str| {
        let headers =
            ["Content-Type: application/json".to_owned(), format!("Authorization: Bearer {}", keys.administrator())];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        Client::connect(keys.server.address).request("PUT", &path("alice"), &headers, body.as_bytes())
    };
    let cheap = HASH.replace("m=19456", "m=64");
    let bomb = HASH.replace("m=19456", "m=4194304");
    let bcrypt = "$2y$05$/E0SSrnFXSztig8hkuQTq.ZdCdMUJIaP6TU1FBtbIr2sK2fxV1Oq.";
    let (short, long) = ("geheime", "geheim".repeat(171));
    for (what, body, param) in [
        ("nothing", String::new(), ""),
        ("neither", "{}".to_owned(), "password"),
        ("both", json!({"password": NEW, "password_hash": HASH}).to_string(), ""),
        ("unknown member", json!({"password": NEW, "expires_at": null}).to_string(), "expires_at"),
        ("doubled member", format!(r#"{{"password": "{NEW}", "password": "{NEW}"}}"#), "password"),
        ("too short", json!({ "password": short }).to_string(), "password"),
        ("too long", json!({ "password": long }).to_string(), "password"),
        ("NUL", json!({"password": format!("{NEW}\0")}).to_string(), "password"),
        ("a number", r#"{"password": 1234567890123}"#.to_owned(), "password"),
        ("null", r#"{"password": null}"#.to_owned(), "password"),
        ("a list", json!({"password": [NEW]}).to_string(), "password"),
        ("no object", format!("\"{NEW}\""), ""),
        ("a list of objects", json!([{"password": NEW}]).to_string(), ""),
        ("no JSON", format!(r#"{{"password": "{NEW}""#), ""),
        ("no hash", json!({ "password_hash": NEW }).to_string(), "password_hash"),
        ("bcrypt", json!({ "password_hash": bcrypt }).to_string(), "password_hash"),
        ("cheap", json!({ "password_hash": cheap }).to_string(), "password_hash"),
        ("a bomb", json!({ "password_hash": bomb }).to_string(), "password_hash"),
    ] {
        let answer = put(&body);
        assert!(answer.is_error(400, "invalid_request", param), "{what}: {answer:?}");
        for shown in [NEW, HASH, short, "geheimgeheim", bcrypt, "1234567890123", "mCpxiJUn8ui1Bx"] {
            assert!(!answer.body.contains(shown), "{what}: {answer:?}");
        }
    }
    assert_eq!(show(&keys, "alice")["set"], false);
    let plain = keys.server.connect().request(
        "PUT",
        &path("alice"),
        &["Content-Type: text/plain", &format!("Authorization: Bearer {}", keys.administrator())],
        json!({ "password": NEW }).to_string().as_bytes(),
    );
    assert_eq!(plain.status, 400);
    for length in [8, 1024] {
        let password = secret("ü".repeat(length / 2));
        assert_eq!(set(&keys, "alice", &password).status, 200);
        assert_eq!(code(&keys, "alice", &password), "permitted");
    }
}

/// A password is no key, and nothing about keys knows of it.
#[test]
fn a_password_is_never_taken_for_a_key() {
    let keys = start();
    let count = || keys.admin("GET", "/v1/keys", Value::Null).json()["keys"].as_array().unwrap().len();
    let before = count();
    assert_eq!(set(&keys, "alice", NEW).status, 200);
    assert_eq!(count(), before);
    let of_alice = keys.admin("GET", "/v1/keys?owner=User%3A%3A%22alice%22", Value::Null).json();
    assert_eq!(of_alice["keys"], json!([]));
    for id in ["alice", "User%3A%3A%22alice%22"] {
        for (method, rest) in [("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/revoke"), ("POST", "/rotate")] {
            let body = if rest == "/revoke" { json!({"reason": "x"}) } else { json!({}) };
            let body = if matches!(method, "GET" | "DELETE") { Value::Null } else { body };
            assert_eq!(keys.admin(method, &format!("/v1/keys/{id}{rest}"), body).status, 404, "{method} {id}{rest}");
        }
    }
    let shown = keys.admin("GET", &path("alice"), Value::Null).body;
    assert!(!shown.contains("argon2id") && !shown.contains(NEW), "{shown}");
    // Where there is no key, a password is not one: the next start makes an administrator's.
    let own = keys.admin("GET", "/v1/keys", Value::Null).json()["keys"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(keys.admin("DELETE", &format!("/v1/keys/{own}"), Value::Null).status, 200);
    let keys = Keys::of(setup().start_in(keys.server.crash()));
    assert_eq!(show(&keys, "alice")["set"], true);
    assert_eq!(code(&keys, "alice", NEW), "permitted");
}

/// Of several passwords of one name, the bundle's counts first, then the file's, then the one that was set.
#[test]
fn the_bundle_goes_first_then_the_file_then_the_store() {
    let temp = tempfile::TempDir::new().unwrap();
    let file = temp.path().join("htpasswd");
    std::fs::write(&file, "").unwrap();
    let config = CONFIG.replace("basic: {}", &format!("basic: {{ htpasswd: {}, cache_ms: 0 }}", file.display()));
    let keys = Keys::of(setup().config(&config).start());
    assert_eq!(set(&keys, "alice", NEW).status, 200);
    let counts = |right: &str, wrong: [&str; 2]| {
        code(&keys, "alice", right) == "permitted"
            && wrong.iter().all(|wrong| code(&keys, "alice", wrong) == "unauthenticated")
    };
    assert!(counts(NEW, [OTHER, PASSWORD]));
    std::fs::write(&file, format!("alice:{}\n", bcrypt::hash(OTHER, 5).unwrap())).unwrap();
    keys.server.until("the file counts", |_| counts(OTHER, [NEW, PASSWORD]));
    let answer = set(&keys, "alice", NEW);
    assert!(answer.is_error(409, "conflict", "") && answer.body.contains("in the htpasswd file"), "{answer:?}");
    assert_eq!(show(&keys, "alice"), json!({"user": "alice", "set": true, "kept_in": "htpasswd"}));
    let declared = PEOPLE
        .replace("{ id: alice, team: research }", &format!("{{ id: alice, team: research, password_hash: '{HASH}' }}"))
        .replace("{ id: bot, team: ops }", &format!("{{ id: bot, team: ops, password_hash: '{HASH}' }}"));
    std::fs::write(keys.server.policies().join("people.yaml"), declared).unwrap();
    keys.server.until("the bundle counts", |_| counts(PASSWORD, [NEW, OTHER]));
    let answer = set(&keys, "alice", NEW);
    assert!(answer.is_error(409, "conflict", "") && answer.body.contains("in the bundle"), "{answer:?}");
    assert_eq!(show(&keys, "alice"), json!({"user": "alice", "set": true, "kept_in": "bundle"}));
    // What was set before can go, and then nothing is left that this could take away.
    let answer = keys.admin("DELETE", &path("alice"), Value::Null);
    assert_eq!((answer.status, answer.json()["kept_in"].as_str()), (200, Some("bundle")));
    let answer = keys.admin("DELETE", &path("alice"), Value::Null);
    assert!(answer.is_error(409, "conflict", "") && answer.body.contains("remove it there"), "{answer:?}");
    assert_eq!(code(&keys, "alice", PASSWORD), "permitted");
}

#[test]
fn two_nodes_of_one_redis_share_their_passwords() {
    let Some(redis) = Redis::start() else { return };
    let redis_at = format!("meters: {{ redis: {{ url: 'redis://127.0.0.1:{}', timeout_ms: 5000 }} }}\n", redis.port);
    let config = CONFIG.replace("keys: {}", "keys: { max_stale_seconds: 5 }");
    let start = || setup().config(&format!("{redis_at}{config}")).start();
    let one = Keys::of(start());
    let two = Keys::with(start(), one.administrator());
    for password in [NEW, OTHER] {
        assert_eq!(set(&one, "alice", password).status, 200);
        // At once: the other node asks before it says wrong.
        assert_eq!(code(&two, "alice", password), "permitted");
    }
    two.server.until("the one before is forgotten", |_| code(&two, "alice", NEW) == "unauthenticated");
    assert_eq!(two.admin("DELETE", &path("alice"), Value::Null).status, 200);
    one.server.until("the first node knows that it is gone", |_| code(&one, "alice", OTHER) == "unauthenticated");
    // A node that comes later has what was set before.
    assert_eq!(set(&one, "alice", NEW).status, 200);
    let three = Keys::with(start(), one.administrator());
    assert_eq!(code(&three, "alice", NEW), "permitted");
    // Without the Redis nothing is set, and after a while nobody is proved by what may be old.
    drop(redis);
    assert_eq!(set(&one, "alice", OTHER).status, 503);
    three.server.until("nothing is taken from memory any more", |server| {
        let answer = as_user(server, ("alice", NEW), "GET", &path("alice"), &Value::Null);
        answer.is_error(503, "provider_unavailable", "")
    });
    let unknown = as_user(&three.server, ("nobody", NEW), "GET", &path("alice"), &Value::Null);
    assert!(unknown.is_error(503, "provider_unavailable", ""), "{unknown:?}");
}

#[test]
fn where_no_passwords_are_kept_that_is_said() {
    for providers in ["[{ keys: {} }]", "[{ keys: {} }, { basic: { store: false } }]"] {
        let keys = Keys::of(setup().config(&format!("identity: {{ providers: {providers} }}\n")).start());
        let answer = set(&keys, "alice", NEW);
        assert!(answer.is_error(404, "not_found", "") && answer.body.contains("keeps no passwords"), "{answer:?}");
    }
    for (providers, part) in [
        ("[{ basic: { store: true } }]", "needs `keys` among the providers"),
        ("[{ keys: {}, enabled: false }, { basic: { store: true } }]", "needs `keys` among the providers"),
        ("[{ basic: { bundle: false } }]", "there are no names"),
        ("[{ keys: {} }, { basic: { bundle: false, store: false } }]", "there are no names"),
    ] {
        let (status, told) = setup().config(&format!("identity: {{ providers: {providers} }}\n")).fail();
        assert!(status == Some(2) && told.contains(part), "{providers}: {told}");
    }
    // The order of the two does not matter.
    let config = "identity: { providers: [{ basic: { bundle: false } }, { keys: {} }] }\n";
    let keys = Keys::of(setup().config(config).start());
    assert_eq!(set(&keys, "alice", NEW).status, 200);
    assert_eq!(code(&keys, "alice", NEW), "permitted");
}

fn command(keys: &Keys, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .env_clear()
        .env("TOLLGATE_SERVER", format!("http://{}", keys.server.address))
        .env("TOLLGATE_TOKEN", keys.administrator())
        .arg("password")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8(text.clone()).unwrap();
        assert!(input.trim().is_empty() || !text.contains(input.trim()), "{text}");
    }
    output
}

#[test]
fn the_command_sets_and_removes_a_password() {
    let people = PEOPLE.replace("- { id: west, team: research-west }", "- { id: 'zoë w', team: research }");
    let keys = Keys::of(setup().file("people.yaml", &people).start());
    let said = |output: &Output| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let set = said(&command(&keys, &["set", "zoë w"], &format!("{NEW}\n")));
    assert_eq!(set, (0, "the password of zoë w is set\n".to_owned(), String::new()));
    assert_eq!(code(&keys, "zoë w", NEW), "permitted");
    let (status, told, _) = said(&command(&keys, &["set", "alice", "--format", "json"], &format!("{OTHER}\r\n")));
    assert_eq!((status, serde_json::from_str::<Value>(&told).unwrap()["user"].clone()), (0, json!("alice")));
    assert_eq!(code(&keys, "alice", OTHER), "permitted");
    let removed = said(&command(&keys, &["remove", "zoë w"], ""));
    assert_eq!(removed, (0, "zoë w has no password\n".to_owned(), String::new()));
    assert_eq!(code(&keys, "zoë w", NEW), "unauthenticated");
    for (arguments, input, status, part) in [
        (["set", "nobody"], "long enough to be one\n", 1, "is not declared, so that a password would prove nobody"),
        (["set", "alice"], "kurz\n", 1, "password: a password has 8 to 1024 bytes"),
        (["set", "alice"], "\n", 2, "the password is empty"),
        (["remove", ""], "", 1, "no such path"),
    ] {
        let (ended, told, error) = said(&command(&keys, &arguments, input));
        assert!(ended == status && told.is_empty() && error.contains(part), "{arguments:?}: {ended} {error}");
    }
}
