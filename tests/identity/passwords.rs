//! Names and passwords: of the bundle, and of an htpasswd file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{Answer, BUNDLE, Client, DEADLINE, Server, Setup, secret};

/// `correct horse:battery`, as argon2-cffi hashes it.
pub const HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$aPP2CA0a0FphxSMwsr2xxg$mCpxiJUn8ui1Bx/4fkTq7u6+xVVKMI6/rD/2iurtJU4";
/// `correct horse:battery`, of bcrypt.
const BCRYPT: &str = "$2y$05$/E0SSrnFXSztig8hkuQTq.ZdCdMUJIaP6TU1FBtbIr2sK2fxV1Oq.";
pub const PASSWORD: &str = "correct horse:battery";

pub fn bundle() -> String {
    BUNDLE
        .replace(
            "{ id: alice, team: research }",
            &format!("{{ id: alice, team: research, password_hash: \"{HASH}\" }}"),
        )
        .replace("{ id: ian, team: gone }", &format!("{{ id: ian, team: gone, password_hash: \"{HASH}\" }}"))
        .replace(
            "{ id: bot, team: research }",
            &format!("{{ id: bot, team: research, roles: ['tollgate:gateway'], password_hash: \"{HASH}\" }}"),
        )
}

fn setup(basic: &str) -> Setup {
    secret(PASSWORD);
    secret(HASH);
    Setup::new()
        .file("bundle.yaml", &bundle())
        .config(&format!("identity:\n  loopback: closed\n  providers:\n    - basic: {basic}\n"))
}

fn open() -> Server {
    secret(PASSWORD);
    secret(HASH);
    let config = "identity:\n  providers:\n    - basic: {}\n";
    Setup::new().file("bundle.yaml", &bundle()).config(config).start()
}

/// The decision about a name and a password.
fn ask(client: &mut Client, username: &str, password: &str) -> Answer {
    let question = serde_json::json!({
        "credential": { "basic": { "username": username, "password": password } },
        "action": "chat",
        "resource": "Model::\"openai-main/gpt-4o\"",
    });
    client.post("/is_authorized", &question.to_string())
}

fn header(client: &mut Client, pair: &[u8]) -> Answer {
    let header = format!("Authorization: Basic {}", STANDARD.encode(pair));
    let question = r#"{"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""}"#;
    client.request("POST", "/is_authorized", &["Content-Type: application/json", &header], question.as_bytes())
}

#[test]
fn a_password_of_the_bundle_says_who_asks() {
    let server = open();
    let mut client = server.connect();
    for _ in 0..2 {
        let answer = ask(&mut client, "alice", PASSWORD);
        assert_eq!((answer.status, answer.json()["decision"].as_str()), (200, Some("permit")), "{}", answer.body);
        assert_eq!(answer.json()["principal"]["type"], "User");
    }
    let answer = ask(&mut client, "bot", PASSWORD);
    assert_eq!(answer.json()["principal"]["type"], "Service", "{}", answer.body);
    let answer = ask(&mut client, "ian", PASSWORD);
    assert_eq!(answer.json()["code"], "principal_disabled", "{}", answer.body);
}

/// What of names and passwords goes wrong; each looks alike from outside.
#[test]
fn wrong_names_and_passwords_are_refused_alike() {
    let server = open();
    let mut client = server.connect();
    let long = "x".repeat(1025);
    let cases = [
        ("wrong password", "alice", "correct horse"),
        ("one character more", "alice", "correct horse:batterys"),
        ("other case", "alice", "Correct horse:battery"),
        ("a space more", "alice", " correct horse:battery"),
        ("no password", "alice", ""),
        ("unknown name", "nobody", PASSWORD),
        ("other case of the name", "Alice", PASSWORD),
        ("a space before the name", " alice", PASSWORD),
        ("look-alike name", "аlice", PASSWORD),
        ("a name in another form of Unicode", "ali\u{301}ce", PASSWORD),
        ("no name", "", PASSWORD),
        ("NUL in the name", "alice\0", PASSWORD),
        ("NUL in the password", "alice", "correct horse:battery\0"),
        ("the hash as password", "alice", HASH),
        ("a long password", "alice", &long),
        ("a long name", &long, PASSWORD),
        ("a uid as name", "User::\"alice\"", PASSWORD),
        ("a name without password", "carol", PASSWORD),
        ("another kind of account", "openai-main", PASSWORD),
        ("injection", "' OR 1=1--", PASSWORD),
        ("a header in the name", "alice\r\nX-Role: admin", PASSWORD),
    ];
    let mut first: Option<String> = None;
    for (what, username, password) in cases {
        let answer = ask(&mut client, username, password);
        let mut told = answer.json();
        assert_eq!((answer.status, told["code"].as_str()), (200, Some("unauthenticated")), "{what}: {}", answer.body);
        assert!(told["principal"].is_null(), "{what}");
        told["id"] = serde_json::Value::Null;
        let told = told.to_string();
        assert_eq!(&told, first.get_or_insert(told.clone()), "{what}");
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("tollgate_authentication_failures_total{reason=\"wrong\"}"), "{metrics}");
}

#[test]
fn a_header_holds_a_name_and_a_password() {
    let server = setup("{}").start();
    let mut client = server.connect();
    let right = format!("bot:{PASSWORD}");
    assert_eq!(header(&mut client, right.as_bytes()).status, 200, "a colon in the password is the password's");
    assert_eq!(header(&mut client, format!("alice:{PASSWORD}").as_bytes()).status, 200, "about oneself");
    let answer = header(&mut client, b"bot:wrong");
    assert!(answer.is_error(401, "unauthenticated", ""), "{answer:?}");
    let head = answer.head.to_ascii_lowercase();
    assert!(head.contains("www-authenticate: bearer ") && head.contains("www-authenticate: basic "), "{head}");
    assert!(head.contains("charset=\"utf-8\""), "{head}");
    for (what, pair) in [
        ("no colon", &b"bot"[..]),
        ("bad UTF-8", b"bot:\xff\xfe"),
        ("bad UTF-8 in the name", b"b\xc3t:x"),
        ("nothing", b""),
    ] {
        let answer = header(&mut client, pair);
        assert!(answer.status == 400 || answer.status == 401, "{what}: {answer:?}");
        assert!(!answer.body.contains("bot"), "{what}: {answer:?}");
    }
    for (what, text) in [
        ("not base64", "Basic !!!"),
        ("url-safe base64", "Basic Ym90Oj8_"),
        ("base64 without padding", "Basic Ym90Og"),
        ("two credentials", "Basic Ym90Og==, Bearer x"),
    ] {
        let header = format!("Authorization: {text}");
        let answer = client.request("POST", "/is_authorized", &["Content-Type: application/json", &header], b"{}");
        assert!(answer.is_error(400, "invalid_request", ""), "{what}: {answer:?}");
    }
}

#[test]
fn an_htpasswd_file_is_read_anew_when_it_changes() {
    secret(BCRYPT);
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("htpasswd");
    std::fs::write(&path, format!("# people\n\ndora:{BCRYPT}\n")).unwrap();
    let basic = format!("basic: {{ htpasswd: {}, cache_ms: 0 }}", path.display());
    let config = format!("identity:\n  failures: {{ enabled: false }}\n  providers:\n    - {basic}\n");
    secret(PASSWORD);
    let server = Setup::new().config(&config).start();
    let mut client = server.connect();
    let answer = ask(&mut client, "dora", PASSWORD);
    assert_eq!(answer.json()["principal"]["id"], "dora", "{}", answer.body);
    assert_eq!(ask(&mut client, "alice", PASSWORD).json()["code"], "unauthenticated");
    // A file that does not read leaves the names of before.
    std::fs::write(&path, "dora:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").unwrap();
    let temp = &temp;
    server.until("the broken file is told", |server| {
        ask(&mut server.connect(), "dora", PASSWORD);
        server.log().contains("htpasswd:1: `{SHA}` is one round of SHA-1 without a salt")
    });
    assert_eq!(ask(&mut client, "dora", PASSWORD).json()["principal"]["id"], "dora");
    // Another name, by a rename.
    let other = temp.path().join("other");
    std::fs::write(&other, format!("emil:{BCRYPT}\n")).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let began = std::time::Instant::now();
    while ask(&mut client, "emil", PASSWORD).json()["principal"]["id"] != "emil" {
        assert!(began.elapsed() < DEADLINE);
    }
    assert_eq!(ask(&mut client, "dora", PASSWORD).json()["code"], "unauthenticated", "who is gone is nobody");
}

/// Whoever sends a key or a password in the place of a name does not find it in the log.
#[test]
fn a_name_that_nobody_has_is_not_logged() {
    let server = open();
    let mut client = server.connect();
    let key = secret(tollgate::model::key_text("3JxqPZ0aTn4L", [7; 32]).unwrap().expose());
    let cut = secret("tg_Fm3TqPZ0aTnX_cut-short-secret-part");
    for name in [&key, &cut, &secret("my-password-as-a-name")] {
        assert_eq!(ask(&mut client, name, "").json()["code"], "unauthenticated");
    }
    assert_eq!(ask(&mut client, "alice", "wrong").json()["code"], "unauthenticated");
    server.until("all are logged", |server| server.log().matches("refused a credential").count() >= 4);
    let log = server.log();
    for shown in [" about=3JxqPZ0aTn4L ", " about=Fm3TqPZ0aTnX ", " about=alice "] {
        assert!(log.contains(shown), "{shown}: {log}");
    }
    assert!(log.lines().any(|line| line.contains(" reason=wrong ") && !line.contains(" about=")), "{log}");
}

/// Of one name, the user of the bundle goes first, then the file's, which is a user too, and the bundle's service last.
#[test]
fn a_user_goes_before_a_service_of_the_same_name_in_a_file_too() {
    const OTHER: &str = "another password";
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("htpasswd");
    std::fs::write(&path, format!("bot:{BCRYPT}\n")).unwrap();
    let config = format!("identity:\n  providers:\n    - basic: {{ htpasswd: {} }}\n", path.display());
    secret(PASSWORD);
    secret(OTHER);
    let server = Setup::new().file("bundle.yaml", &bundle()).config(&config).start();
    let mut client = server.connect();
    let answer = ask(&mut client, "bot", PASSWORD);
    assert_eq!(answer.json()["principal"]["type"], "User", "{}", answer.body);
    // Whom the bundle declares with a password is not the file's.
    std::fs::write(&path, format!("alice:{}\n", bcrypt::hash(OTHER, 5).unwrap())).unwrap();
    server.until("the service is back", |server| {
        ask(&mut server.connect(), "bot", PASSWORD).json()["principal"]["type"] == "Service"
    });
    assert_eq!(ask(&mut client, "alice", OTHER).json()["code"], "unauthenticated");
    assert_eq!(ask(&mut client, "alice", PASSWORD).json()["decision"], "permit");
}

#[test]
fn a_file_of_hashes_that_are_not_taken_keeps_the_server_from_starting() {
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("htpasswd");
    for (line, reason) in [
        ("dora:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1"),
        ("dora:$apr1$abc$def", "MD5"),
        ("dora:rl.3StKT.4T8M", "eight characters"),
        ("dora:plain-text-password", "no hash that is known"),
        ("dora", "a name, a colon and a hash"),
    ] {
        std::fs::write(&path, format!("# one\n{line}\n")).unwrap();
        let config = format!("identity:\n  providers:\n    - basic: {{ htpasswd: {} }}\n", path.display());
        let (code, said) = Setup::new().config(&config).fail();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("htpasswd:2: ") && said.contains(reason), "{said}");
        assert!(!said.contains("plain-text"), "{said}");
    }
}

#[test]
fn a_changed_password_holds_at_once_and_the_old_one_no_longer() {
    let server = open();
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "alice", PASSWORD).json()["decision"], "permit");
    let changed = bundle().replace(
        &format!("{{ id: alice, team: research, password_hash: \"{HASH}\" }}"),
        "{ id: alice, team: research }",
    );
    std::fs::write(server.policies().join("bundle.yaml"), changed).unwrap();
    server.until("the change holds", |server| {
        ask(&mut server.connect(), "alice", PASSWORD).json()["code"] == "unauthenticated"
    });
}

#[test]
fn a_password_is_hashed_from_the_command_line() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let hash = |input: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["password", "hash"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, made, _) = hash(format!("{PASSWORD}\n").as_bytes());
    assert_eq!(code, Some(0));
    assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
    let text = BUNDLE.replace(
        "{ id: alice, team: research }",
        &format!("{{ id: alice, team: research, password_hash: \"{}\" }}", made.trim()),
    );
    let server = Setup::new().file("bundle.yaml", &text).config("identity:\n  providers:\n    - basic: {}\n").start();
    assert_eq!(ask(&mut server.connect(), "alice", PASSWORD).json()["decision"], "permit");
    for wrong in [&b""[..], b"\n", b"one\ntwo\n", b"\xff\n", b"a\0b\n", &[b'x'; 2000]] {
        let (code, made, said) = hash(wrong);
        assert!(code == Some(2) && made.is_empty() && said.starts_with("error: "), "{said}");
    }
}
