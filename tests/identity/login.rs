//! `tollgate login`, `token` and `logout`, against an issuer that is made while tests run.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::issuer::{Asked, FakeIssuer};
use crate::support::{Setup, secret};

/// A shell's home.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(arguments).env_clear().env("HOME", self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        told(&self.command(arguments).output().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join(".config/tollgate/credentials.json")
    }
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Hands out tokens that end after so many seconds. A refresh token is taken once; who shows one twice is refused.
fn issuer(seconds: i64) -> FakeIssuer {
    let taken = std::sync::Mutex::new(Vec::<String>::new());
    FakeIssuer::start(move |asked: &Asked, before| {
        let refused = |code: &str| (400, json!({ "error": code }));
        match (asked.path.as_str(), asked.form("grant_type").as_deref()) {
            ("/device", _) => (
                200,
                json!({ "device_code": secret("device-code-0123456789"), "user_code": "WDJB-MJHT\u{1b}[2J", "interval": 1,
                        "verification_uri": "https://login.example/device", "expires_in": 60,
                        "verification_uri_complete": "https://login.example/device?user_code=WDJB-MJHT" }),
            ),
            ("/token", Some("urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code")) if before == 0 => {
                refused("authorization_pending")
            }
            ("/token", Some("refresh_token")) => {
                let shown = asked.form("refresh_token").unwrap();
                let mut taken = taken.lock().unwrap();
                if taken.contains(&shown) {
                    return refused("invalid_grant");
                }
                taken.push(shown);
                (200, tokens(before, 3600))
            }
            ("/token", _) => (200, tokens(before, seconds)),
            _ => (404, json!({})),
        }
    })
}

fn tokens(number: usize, seconds: i64) -> Value {
    json!({ "access_token": format!("access-{number}"), "id_token": format!("identity-{number}"), "token_type": "bearer",
            "refresh_token": format!("refresh-{number}"), "expires_in": seconds })
}

#[test]
fn a_person_signs_in_and_has_a_token() {
    let (home, issuer) = (Home::new(), issuer(3600));
    let (code, out, err) = home.run(&["token"]);
    assert!(
        (code, out.as_str()) == (Some(1), "") && err.contains("tollgate login --server http://127.0.0.1:8181"),
        "{err}"
    );
    let (code, out, err) = home.run(&["login", "--issuer", &issuer.url, "--client-id", "cli"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("open https://login.example/device and type WDJB-MJHT"), "{err}");
    assert!(err.contains("signed in at http://127.0.0.1:8181") && !err.contains('\u{1b}') && !err.contains("access-"));
    assert_eq!(issuer.asked("/token").len(), 2);
    assert_eq!(issuer.asked("/device")[0].form("scope").as_deref(), Some("openid%20profile%20email%20offline_access"));
    for (path, mode) in [(home.file(), 0o600), (home.file().parent().unwrap().to_owned(), 0o700)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(home.run(&["token"]), (Some(0), "access-1\n".to_owned(), String::new()));
    assert_eq!(issuer.asked("/token").len(), 2, "it is still fresh");
    // Another server is another session.
    assert_eq!(home.run(&["token", "--server", "https://tollgate.example"]).0, Some(1));
    let id = ["login", "--issuer", &issuer.url, "--server", "https://tollgate.example", "--id-token"];
    assert_eq!(home.run(&id).0, Some(0));
    assert_eq!(home.run(&["token", "--server", "https://tollgate.example"]).1, "identity-2\n");
    assert_eq!(home.run(&["token"]).1, "access-1\n");
    let (code, _, err) = home.run(&["logout"]);
    assert!(code == Some(0) && err.contains("signed out"), "{err}");
    assert_eq!(home.run(&["token"]).0, Some(1));
    assert_eq!(home.run(&["token", "--server", "https://tollgate.example"]).1, "identity-2\n");
    assert!(!std::fs::read_to_string(home.file()).unwrap().contains("access-1"));
}

/// Many shells want a token at once, and the last one has ended: one of them renews it, and all have the new one.
#[test]
fn a_refresh_token_is_used_once_however_many_ask() {
    let (home, issuer) = (Home::new(), issuer(0));
    assert_eq!(home.run(&["login", "--issuer", &issuer.url]).0, Some(0));
    let all: Vec<_> = (0..12)
        .map(|_| home.command(&["token"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in all {
        assert_eq!(told(&child.wait_with_output().unwrap()), (Some(0), "access-2\n".to_owned(), String::new()));
    }
    let refreshed: Vec<Asked> = issuer.asked("/token").into_iter().skip(2).collect();
    assert_eq!(refreshed.len(), 1);
    assert_eq!(refreshed[0].form("refresh_token").as_deref(), Some("refresh-1"));
    assert!(serde_json::from_str::<Value>(&std::fs::read_to_string(home.file()).unwrap()).is_ok());
    let left: Vec<_> =
        std::fs::read_dir(home.file().parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
}

#[test]
fn a_session_that_has_ended_is_told_and_so_is_a_file_that_others_read() {
    let home = Home::new();
    let issuer = FakeIssuer::start(|asked, _| match (asked.path.as_str(), asked.form("grant_type").as_deref()) {
        ("/device", _) => {
            (200, json!({ "device_code": "d", "user_code": "u", "verification_uri": "v", "interval": 1 }))
        }
        ("/token", Some("refresh_token")) => (400, json!({ "error": "invalid_grant" })),
        _ => (200, tokens(0, 0)),
    });
    assert_eq!(home.run(&["login", "--issuer", &issuer.url]).0, Some(0));
    let (code, out, err) = home.run(&["token"]);
    assert!(
        (code, out.as_str()) == (Some(1), "") && err.contains("has ended") && err.contains("invalid_grant"),
        "{err}"
    );
    std::fs::set_permissions(home.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, out, err) = home.run(&["token"]);
    assert!((code, out.as_str()) == (Some(2), "") && err.contains("others may read it"), "{err}");
    std::fs::set_permissions(home.file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(home.file(), "{\"version\": 1, \"servers\":").unwrap();
    let (code, _, err) = home.run(&["token"]);
    assert!(code == Some(2) && err.contains("no file of sessions") && !err.contains("access"), "{err}");
    let denied = FakeIssuer::start(|asked, _| match asked.path.as_str() {
        "/device" => (200, json!({ "device_code": "d", "user_code": "u", "verification_uri": "v", "interval": 1 })),
        _ => (400, json!({ "error": "access_denied" })),
    });
    let other = Home::new();
    let (code, _, err) = other.run(&["login", "--issuer", &denied.url]);
    assert!(code == Some(1) && err.contains("access_denied") && !other.file().exists(), "{err}");
    let (code, _, err) = other.run(&["login", "--issuer", "http://127.0.0.1:1"]);
    assert!(code == Some(2) && err.contains("no answer"), "{err}");
    assert_eq!(other.run(&["login"]).0, Some(2));
    let nowhere = Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("token").env_clear().output().unwrap();
    let (code, _, err) = told(&nowhere);
    assert!(code == Some(2) && err.contains("--credentials"), "{err}");
}

#[test]
fn a_key_signs_in_too_and_commands_ask_with_the_session() {
    let token = secret("gateway-token-0123456789abcdef-01");
    let config = format!(
        "identity: {{ loopback: closed, providers: [{{ static: {{ tokens: [{{ token: {token}, principal: 'Service::\"g\"', \
         roles: ['tollgate:gateway'] }}] }} }}] }}"
    );
    let server = Setup::new().config(&config).start();
    let url = format!("http://{}", server.address);
    let home = Home::new();
    let limits = ["limits", "--principal", "User::\"alice\"", "--server", &url];
    let (code, _, err) = home.run(&limits);
    assert!(code == Some(1) && err.contains("credential"), "{err}");
    // The tokens that a key is exchanged for; what the file then has is what a session at this server has.
    let tollgate = FakeIssuer::start(|asked, before| {
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        assert!(before == 0 && body["api_key"] == "tg_key_0123456789" && asked.path == "/v1/token");
        (
            200,
            json!({ "access_token": "gateway-token-0123456789abcdef-01", "token_type": "Bearer", "expires_in": 900, "refresh_token": "r" }),
        )
    });
    let key = home.0.path().join("key");
    std::fs::write(&key, format!("{}\n", secret("tg_key_0123456789"))).unwrap();
    let key = key.display().to_string();
    let (code, _, err) = home.run(&["login", "--api-key-file", &key, "--server", &tollgate.url]);
    assert!(code == Some(0) && !err.contains("tg_key"), "{err}");
    assert_eq!(home.run(&["token", "--server", &tollgate.url]).1, "gateway-token-0123456789abcdef-01\n");
    let text = std::fs::read_to_string(home.file()).unwrap().replace(&tollgate.url, &url);
    assert!(!text.contains("tg_key"));
    std::fs::write(home.file(), text).unwrap();
    let (code, out, err) = home.run(&limits);
    assert!(code == Some(0) && out.contains("no limit can bind"), "{out} {err}");
}

/// The real server hands out the tokens, and takes them.
#[test]
fn a_key_is_exchanged_at_the_server_itself() {
    let key = secret("gateway-key-0123456789abcdef-0123");
    let config = format!(
        "identity: {{ tokens: {{}}, loopback: closed, providers: [{{ static: {{ tokens: [{{ token: {key}, \
         principal: 'User::\"alice\"', roles: ['tollgate:monitor'] }}] }} }}] }}"
    );
    let server = Setup::new().config(&config).start();
    let (home, url) = (Home::new(), format!("http://{}", server.address));
    std::fs::write(home.0.path().join("key"), &key).unwrap();
    let path = home.0.path().join("key").display().to_string();
    let (code, _, err) = home.run(&["login", "--api-key-file", &path, "--server", &url]);
    assert_eq!(code, Some(0), "{err}");
    let (code, out, err) = home.run(&["token", "--server", &url]);
    let token = secret(out.trim());
    assert!(code == Some(0) && token.split('.').count() == 3, "{err}");
    let header = format!("Authorization: Bearer {token}");
    let answer = crate::support::Client::connect(server.address).request("GET", "/metrics", &[&header], b"");
    assert_eq!(answer.status, 200, "{}", answer.body);
    // A fixed token gets no refresh token, so the session ends with its token.
    let text = std::fs::read_to_string(home.file()).unwrap();
    let mut kept: Value = serde_json::from_str(&text).unwrap();
    kept["servers"][&url]["expires_ms"] = json!(0);
    std::fs::write(home.file(), kept.to_string()).unwrap();
    let (code, out, err) = home.run(&["token", "--server", &url]);
    assert!((code, out.as_str()) == (Some(1), "") && err.contains("has ended"), "{err}");
}

/// Whatever asks a server takes a file, the environment, or the session of `login`, in this order.
#[test]
fn every_command_that_asks_a_server_takes_the_same_credentials() {
    let people = "users: [{ id: alice }]\nauthz_rules: [{ users: [alice], models: '*' }]\n";
    let config = "identity: { loopback: closed }\n";
    let server = Setup::without_files().file("people.yaml", people).config(config).start();
    let path = server.temp.path().join("tollgate-data/administrator.key");
    let administrator = &secret(std::fs::read_to_string(path).unwrap().trim_end());
    let (home, url) = (Home::new(), format!("http://{}", server.address));
    let file = |name: &str, text: &str| {
        let path = home.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (good, wrong) = (file("good", administrator), file("wrong", &secret("wrong-token-0123456789")));
    let (long, empty) = (file("long", &"x".repeat(20_000)), file("empty", "\n"));
    let commands: [&[&str]; 2] = [&["limits", "--principal", "User::\"alice\""], &["keys", "list"]];
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = home.command(arguments);
        command.env("TOLLGATE_SERVER", &url).envs(token.map(|token| ("TOLLGATE_TOKEN", token)));
        let (code, out, err) = told(&command.output().unwrap());
        assert!(!format!("{out}{err}").contains(administrator), "{err}");
        (code, err)
    };
    for command in commands {
        let (code, err) = run(command, None);
        let ways = ["TOLLGATE_TOKEN", "--token-file", &format!("tollgate login --server {url}")];
        assert!(code != Some(0) && ways.iter().all(|way| err.contains(way)), "{command:?}: {err}");
        assert_eq!(run(command, Some(administrator)).0, Some(0), "{command:?}");
        assert_eq!(run(command, Some("wrong-token-0123456789")).0, Some(1), "{command:?}");
        assert_eq!(run(&[command, &["--token-file", &good]].concat(), None).0, Some(0), "{command:?}");
        let mut piped = home.command(&[command, &["--token-file", "-"]].concat());
        piped.env("TOLLGATE_SERVER", &url).stdin(std::fs::File::open(&good).unwrap());
        assert_eq!(piped.output().unwrap().status.code(), Some(0), "{command:?}");
        let named = run(&[command, &["--token-file", &wrong]].concat(), Some(administrator));
        assert_eq!(named.0, Some(1), "what is named goes before the environment: {named:?}");
        for (path, part) in [(&long, "too long"), (&empty, "no credential"), (&"/nope".to_owned(), "No such file")] {
            let (code, err) = run(&[command, &["--token-file", path]].concat(), Some(administrator));
            assert!(code == Some(2) && err.contains(part), "{command:?}: {err}");
        }
    }
    let (code, err) = run(&["login", "--api-key-file", &wrong], None);
    assert!(code == Some(1) && err.contains(&format!("{url} refuses")) && !err.contains("issuer"), "{err}");
    assert_eq!(run(&["login", "--api-key-file", &good], None).0, Some(0));
    for command in commands {
        let (code, err) = run(command, None);
        assert_eq!(code, Some(0), "{command:?}: {err}");
        let (code, _) = run(command, Some("wrong-token-0123456789"));
        assert_eq!(code, Some(1), "the environment goes before the session: {command:?}");
    }
}

/// A server that does not take an issuer's tokens is told before a session is kept that would never be of use.
#[test]
fn a_server_that_does_not_take_the_issuer_is_no_place_to_sign_in() {
    let signer = crate::tokens::Signer::p256("one");
    let keys: Value = serde_json::from_str(&crate::tokens::set([&signer])).unwrap();
    let name = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let known = std::sync::Arc::clone(&name);
    let issuer = FakeIssuer::start(move |asked: &Asked, _| match asked.path.as_str() {
        "/keys" => (200, keys.clone()),
        "/device" => (200, json!({ "device_code": "d", "user_code": "u", "verification_uri": "v", "interval": 1 })),
        _ => {
            let now = crate::tokens::now();
            let claims =
                json!({"iss": known.get().unwrap(), "aud": "tollgate", "sub": "alice", "iat": now, "exp": now + 600});
            (200, json!({ "access_token": signer.token(&claims), "token_type": "bearer", "expires_in": 600 }))
        }
    });
    name.set(issuer.url.clone()).unwrap();
    let serve = |loopback: &str, issuer: &str, keys: &str| {
        let config = format!(
            "identity:\n  loopback: {loopback}\n  providers:\n    - jwt: {{ issuers: [{{ issuer: '{issuer}', audiences: [tollgate], \
             jwks_url: '{keys}/keys', claims: {{ user: sub }} }}] }}\n"
        );
        let server = Setup::new().config(&config).start();
        server.until("the keys are read", |server| server.log().contains("in use"));
        server
    };
    let login = |home: &Home, url: &str| home.run(&["login", "--issuer", &issuer.url, "--server", url]);
    for loopback in ["open", "closed"] {
        let other = serve(loopback, "https://idp.example", &issuer.url);
        let (home, url) = (Home::new(), format!("http://{}", other.address));
        let (code, _, err) = login(&home, &url);
        assert!(
            code == Some(1) && err.contains("does not take this sign-in") && !err.contains("signed in at"),
            "{err}"
        );
        assert!(err.contains(&issuer.url) && err.contains("https://idp.example"), "it names both issuers: {err}");
        assert_eq!(home.run(&["token", "--server", &url]).0, Some(1), "no session is kept");
        let takes = serve(loopback, &issuer.url, &issuer.url);
        let (home, url) = (Home::new(), format!("http://{}", takes.address));
        let (code, _, err) = login(&home, &url);
        assert!(code == Some(0) && err.contains("signed in at") && !err.contains("warning"), "{err}");
    }
    // One without any such provider.
    let none = Setup::new().config("identity: { providers: [{ keys: { first_key: none } }] }\n").start();
    let (code, _, err) = login(&Home::new(), &format!("http://{}", none.address));
    assert!(code == Some(1) && err.contains("does not take this sign-in"), "{err}");
    // One that hands out no tokens for keys.
    let none = Setup::new()
        .config("identity: { tokens: { enabled: false }, providers: [{ keys: { first_key: none } }] }\n")
        .start();
    let home = Home::new();
    let key = home.0.path().join("key");
    std::fs::write(&key, "tg_key_0123456789").unwrap();
    let (key, url) = (key.display().to_string(), format!("http://{}", none.address));
    let (code, _, err) = home.run(&["login", "--api-key-file", &key, "--server", &url]);
    assert!(code == Some(1) && err.contains("hands out no tokens") && !home.file().exists(), "{err}");
    // Who cannot be asked may take it later, which is said.
    let home = Home::new();
    let (code, _, err) = login(&home, "http://127.0.0.1:1");
    assert!(code == Some(0) && err.contains("cannot verify that"), "{err}");
}
