//! A real OpenID provider (npm `oidc-provider`): discovery, client credentials, sign-in by the device flow, keys that rotate
//! while decisions run, introspection, and a provider that stops and comes back.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, Server, Setup, secret};

const CLIENT: (&str, &str) = ("ci", "ci-secret-for-tests-alone");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/identity/oidc")
}

/// Whether there is a node, and what it needs.
fn there_is_a_provider() -> bool {
    // Tests run at once, and one of them fetches it for all.
    static READY: std::sync::LazyLock<bool> = std::sync::LazyLock::new(fetched);
    *READY
}

fn fetched() -> bool {
    let works = |command: &str| {
        Command::new(command).arg("--version").stdout(Stdio::null()).status().is_ok_and(|ended| ended.success())
    };
    let ready = works("node") && {
        folder().join("node_modules/oidc-provider").exists()
            || Command::new("npm")
                .args(["ci", "--silent"])
                .current_dir(folder())
                .status()
                .is_ok_and(|ended| ended.success())
    };
    if !ready {
        assert!(
            std::env::var_os("CI").is_none(),
            "there is no node with npm here, and without it nobody plays the provider"
        );
        eprintln!("skipped: there is no node with npm here, and without it nobody plays the provider");
    }
    ready
}

struct Provider {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
    issuer: String,
}

impl Provider {
    /// On this port, or on any; its keys are those of the file, if it is there.
    fn start(port: u16, keys: &Path) -> Self {
        let mut child = Command::new("node")
            .args(["provider.mjs", &port.to_string(), keys.to_str().unwrap()])
            .current_dir(folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut provider = Self { child, input, output, issuer: String::new() };
        provider.issuer = provider.line("ready ");
        provider
    }

    fn line(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the provider ended");
            if let Some(rest) = line.trim().strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
        self.line(&format!("done {what}"));
    }

    fn port(&self) -> u16 {
        self.issuer.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// A token for a client.
    fn client_token(&self, resource: &str) -> String {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", CLIENT.0, CLIENT.1));
        let address = self.issuer.trim_start_matches("http://").parse().unwrap();
        let headers = [
            &*format!("Authorization: Basic {basic}"),
            "Content-Type: application/x-www-form-urlencoded",
            "Connection: close",
        ];
        let body = format!("grant_type=client_credentials&scope=chat&resource={}", resource.replace(':', "%3A"));
        let answer = Client::connect(address).request("POST", "/token", &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        secret(answer.json()["access_token"].as_str().unwrap())
    }

    /// A token for somebody who signed in on a device.
    fn user_token(&self, login: &str) -> String {
        let output =
            Command::new("node").args(["sign-in.mjs", &self.issuer, login]).current_dir(folder()).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let token = answer["access_token"].as_str();
        secret(token.unwrap_or_else(|| panic!("{answer} {}", String::from_utf8_lossy(&output.stderr))))
    }
}

/// `tollgate login` shows a code, a person types it at the real provider, and `tollgate token` then has a token that a
/// server takes, and renews it.
#[test]
fn a_person_signs_in_with_the_command_line() {
    if !there_is_a_provider() {
        return;
    }
    let temp = tempfile::TempDir::new().unwrap();
    let provider = Provider::start(0, &temp.path().join("keys.json"));
    let server = server(&provider);
    let at = format!("http://{}", server.address);
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(arguments).args(["--server", &at]).env_clear().env("HOME", temp.path()).stdin(Stdio::null());
        command
    };
    let arguments =
        ["login", "--issuer", &provider.issuer, "--client-id", "cli", "--scope", "openid chat offline_access"];
    let mut login = command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(login.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let (_, rest) = line.trim().split_once("open ").unwrap_or_else(|| panic!("{line}"));
    let (page, code) = rest.split_once(" and type ").unwrap_or_else(|| panic!("{line}"));
    let code = code.split_whitespace().next().unwrap();
    let person = Command::new("node")
        .args(["sign-in.mjs", &provider.issuer, "alice", &format!("{page}?user_code={code}")])
        .current_dir(folder())
        .output()
        .unwrap();
    assert!(person.status.success(), "{}", String::from_utf8_lossy(&person.stdout));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut told, &mut rest).unwrap();
    assert!(login.wait().unwrap().success(), "{line}{rest}");
    let token = || {
        let output = command(&["token"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        secret(String::from_utf8(output.stdout).unwrap().trim())
    };
    let first = token();
    let told = ask(&mut server.connect(), &first);
    assert_eq!(
        (told["decision"].as_str(), told["principal"]["id"].as_str()),
        (Some("permit"), Some("alice")),
        "{told}"
    );
    // As if it had ended: another one is had with the refresh token.
    let file = temp.path().join(".config/tollgate/credentials.json");
    let mut kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let ends = kept.pointer_mut("/servers").unwrap().as_object_mut().unwrap().values_mut().next().unwrap();
    let name = ends.as_object().unwrap().keys().find(|name| name.contains("expires")).unwrap().clone();
    ends[&name] = json!(0);
    std::fs::write(&file, kept.to_string()).unwrap();
    let second = token();
    assert_ne!(first, second);
    assert_eq!(ask(&mut server.connect(), &second)["decision"], "permit");
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server(provider: &Provider) -> Server {
    let temp = tempfile::TempDir::new().unwrap();
    secret(CLIENT.1);
    std::fs::write(temp.path().join("secret"), "tollgate-secret-for-tests").unwrap();
    secret("tollgate-secret-for-tests");
    let issuer = &provider.issuer;
    let mapping = "service_when: { gty: client-credentials }, claims: { service: client_id, user: sub, teams: [groups, { value: research }] }";
    let config = format!(
        "identity:
  providers:
    - jwt: {{ issuers: [{{ issuer: '{issuer}', audiences: [tollgate], refresh_ms: 1000, unknown_key_pause_ms: 100, {mapping} }}] }}
    - introspection: {{ url: '{issuer}/token/introspection', client_id: tollgate, client_secret_file: secret, issuer: '{issuer}',
        remember_ms: 0, timeout_ms: 20000, {mapping} }}
"
    );
    let server = Setup::new().config(&config).start_in(temp);
    server.until("the keys are there", |server| server.log().contains("1 in use"));
    server
}

fn ask(client: &mut Client, token: &str) -> Value {
    let body = json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""});
    client.post("/is_authorized", &body.to_string()).json()
}

fn permitted(client: &mut Client, token: &str) -> Option<String> {
    let answer = ask(client, token);
    (answer["decision"] == "permit").then(|| {
        format!("{}:{}", answer["principal"]["type"].as_str().unwrap(), answer["principal"]["id"].as_str().unwrap())
    })
}

#[test]
fn who_signs_in_at_a_real_provider_is_known() {
    if !there_is_a_provider() {
        return;
    }
    let temp = tempfile::TempDir::new().unwrap();
    let provider = Provider::start(0, &temp.path().join("keys"));
    let server = server(&provider);
    let mut client = server.connect();
    assert_eq!(permitted(&mut client, &provider.client_token("urn:tollgate")).as_deref(), Some("Service:ci"));
    assert_eq!(permitted(&mut client, &provider.user_token("alice")).as_deref(), Some("User:alice"));
    // An opaque one is asked about.
    let opaque = provider.client_token("urn:opaque");
    assert!(!opaque.contains('.'));
    assert_eq!(permitted(&mut client, &opaque).as_deref(), Some("Service:ci"));
    assert_eq!(ask(&mut client, &secret("an-opaque-token-that-nobody-handed-out"))["code"], "unauthenticated");
}

#[test]
fn keys_rotate_while_decisions_run_and_a_provider_may_be_away() {
    if !there_is_a_provider() {
        return;
    }
    let temp = tempfile::TempDir::new().unwrap();
    let keys = temp.path().join("keys");
    let mut provider = Provider::start(0, &keys);
    let server = server(&provider);
    let old = provider.client_token("urn:tollgate");
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let mut client = server.connect();
            while !stop.load(Ordering::Relaxed) {
                assert!(permitted(&mut client, &old).is_some(), "a decision by the old key failed");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut client = server.connect();
        for _ in 0..3 {
            provider.tell("rotate");
            // At once: the unknown key makes the server look. The pause between two looks may have to pass first.
            let new = provider.client_token("urn:tollgate");
            server.until("the new key is known", |_| permitted(&mut server.connect(), &new).is_some());
            assert!(permitted(&mut client, &old).is_some());
        }
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap();
    });
    assert!(asked.load(Ordering::Relaxed) > 0);
    let mut client = server.connect();
    let newest = provider.client_token("urn:tollgate");
    server.until("the newest key is known", |_| permitted(&mut server.connect(), &newest).is_some());
    // A key that its issuer takes back is no longer good, also for tokens that were proved before.
    provider.tell("retire");
    server.until("the old key is gone", |_| permitted(&mut server.connect(), &old).is_none());
    assert!(permitted(&mut client, &newest).is_some());
    // Away: the last good keys go on, for tokens that were seen and for others.
    let unseen = provider.client_token("urn:tollgate");
    let port = provider.port();
    drop(provider);
    server.until("it is told", |server| server.log().contains("the last ones go on"));
    assert!(permitted(&mut client, &newest).is_some());
    assert!(permitted(&mut client, &unseen).is_some());
    assert!(permitted(&mut client, &old).is_none());
    // And back, with a new key.
    let mut provider = Provider::start(port, &keys);
    provider.tell("rotate");
    let new = provider.client_token("urn:tollgate");
    server.until("the new key is known", |_| permitted(&mut server.connect(), &new).is_some());
    assert!(permitted(&mut client, &newest).is_some());
}
