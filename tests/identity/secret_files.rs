//! Who may read and write the files of secrets, and how much memory passwords take.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::authority::Authority;
use crate::passwords::{HASH, PASSWORD};
use crate::support::{Client, Setup, secret};

const PEOPLE: &str = "users: [{ id: alice }]\nauthz_rules: [{ users: [alice], models: '*' }]\n";
const BCRYPT: &str = "bob:$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234\n";

/// Each kind of file that holds a secret: its name, what is in it, and the configuration that names it.
fn kinds() -> Vec<(&'static str, String, String)> {
    let providers = |provider: &str| format!("identity: {{ providers: [{{ keys: {{}} }}, {provider}] }}\n");
    let of_jwt = |key: &str| {
        let issuer = format!("issuer: 'http://127.0.0.1:1', audiences: [tollgate], {key}: the-file");
        providers(&format!("{{ jwt: {{ issuers: [{{ {issuer} }}] }} }}"))
    };
    let text = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGH".to_owned();
    let static_token = "{ static: { tokens: [{ token_file: the-file, principal: 'User::\"alice\"' }] } }";
    let introspection = "{ introspection: { url: 'http://127.0.0.1:1/x', client_id: c, client_secret_file: the-file, issuer: 'http://127.0.0.1:1' } }";
    let digest = format!("alice:tollgate:{}\n", "0".repeat(64));
    vec![
        ("static", text.clone(), providers(static_token)),
        ("introspection", text.clone(), providers(introspection)),
        ("jwt secret", text.clone(), of_jwt("secret_file")),
        ("jwt bearer", text.clone(), of_jwt("bearer_file")),
        ("basic", BCRYPT.to_owned(), providers("{ basic: { htpasswd: the-file } }")),
        ("digest", digest, providers("{ digest: { file: the-file } }")),
        ("pepper", text.clone(), "identity: { providers: [{ keys: { pepper_file: the-file } }] }\n".to_owned()),
        ("tokens' pepper", text.clone(), "identity: { tokens: { pepper_file: the-file } }\n".to_owned()),
        (
            "webhook of checkpoints",
            text.clone(),
            "decision_log: { checkpoints: { webhook: { url: 'http://127.0.0.1:1/', secret_file: the-file } } }\n"
                .to_owned(),
        ),
        ("webhook", text, "alerts: { webhook: { url: 'http://127.0.0.1:1/', secret_file: the-file } }\n".to_owned()),
        ("TLS key", String::new(), "tls: { certificate_file: server.pem, key_file: the-file }\n".to_owned()),
    ]
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn secrets_that_others_write_end_the_start_and_those_that_they_read_are_told() {
    let authority = Authority::new("authority");
    for (what, text, config) in kinds() {
        for (bits, told) in
            [(0o600, ""), (0o640, ""), (0o644, "warning"), (0o660, "warning"), (0o602, "error"), (0o666, "error")]
        {
            let temp = TempDir::new().unwrap();
            let file = temp.path().join("the-file");
            if text.is_empty() {
                authority.server().write(temp.path(), "server");
                std::fs::rename(temp.path().join("server.key"), &file).unwrap();
            } else {
                std::fs::write(&file, &text).unwrap();
            }
            mode(&file, bits);
            let setup = Setup::without_files().file("people.yaml", PEOPLE).config(&config);
            if told == "error" {
                let (status, log) = setup.fail_in(temp.path());
                assert_eq!(status, Some(2), "{what} {bits:o}: {log}");
                assert!(
                    log.contains("error: ") && log.contains("the-file") && log.contains("can write"),
                    "{what}: {log}"
                );
                assert!(log.contains("chmod o-w"), "{what}: {log}");
                continue;
            }
            let server = setup.start_in(temp);
            let log = server.log();
            let warned = log.lines().any(|line| line.contains("the-file") && line.contains("chmod 600"));
            assert_eq!(warned, told == "warning", "{what} {bits:o}: {log}");
        }
    }
}

#[test]
fn files_that_say_whom_to_trust_are_read_by_anybody_and_written_by_nobody() {
    let config = "identity: { providers: [{ jwt: { issuers: [{ issuer: 'http://127.0.0.1:1', audiences: [tollgate], jwks_file: the-file }] } }] }\n";
    for (bits, starts) in [(0o644, true), (0o646, false)] {
        let temp = TempDir::new().unwrap();
        let file = temp.path().join("the-file");
        std::fs::write(&file, json!({"keys": []}).to_string()).unwrap();
        mode(&file, bits);
        let setup = Setup::without_files().file("people.yaml", PEOPLE).config(config);
        if starts {
            let server = setup.start_in(temp);
            assert!(!server.log().contains("which holds a secret"), "{}", server.log());
        } else {
            let (status, log) = setup.fail_in(temp.path());
            assert!(status == Some(2) && log.contains("the-file"), "{log}");
        }
    }
}

#[test]
fn a_credential_of_a_command_is_looked_at_too() {
    let temp = TempDir::new().unwrap();
    let file = temp.path().join("token");
    std::fs::write(&file, secret("some-token-0123456789")).unwrap();
    for (bits, told) in [(0o600, ""), (0o644, "warning: "), (0o646, "can write")] {
        mode(&file, bits);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .env_clear()
            .args(["keys", "list", "--server", "http://127.0.0.1:1", "--token-file"])
            .arg(&file)
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert_eq!(log.contains("chmod"), !told.is_empty(), "{bits:o}: {log}");
        assert!(log.contains(told), "{bits:o}: {log}");
    }
}

/// The resident size of a process, in KiB.
#[cfg(target_os = "linux")]
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn wrong_passwords_take_the_memory_of_one_for_each_worker() {
    secret(HASH);
    let people = format!(
        "users: [{{ id: alice, password_hash: '{HASH}' }}]\nauthz_rules: [{{ users: [alice], models: '*' }}]\n"
    );
    let config = "identity: { failures: { enabled: false }, providers: [{ basic: {} }] }\n";
    let server = Setup::without_files().file("people.yaml", &people).config(config).start();
    let ask = |client: &mut Client, password: &str| {
        let credential = json!({"basic": {"username": "alice", "password": password}});
        let question = json!({"credential": credential, "action": "chat", "resource": "Model::\"a/b\""}).to_string();
        client.request("POST", "/is_authorized", &["Content-Type: application/json"], question.as_bytes()).json()
    };
    // What the first requests need besides is there before it is measured.
    for _ in 0..20 {
        assert_eq!(server.get("/health/ready").status, 200);
    }
    let before = resident_kib(server.pid());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (server, ask) = (&server, &ask);
            scope.spawn(move || {
                let mut client = server.connect();
                for number in 0..25 {
                    let told = ask(&mut client, &format!("wrong {thread} {number}"));
                    assert_eq!(told["code"], "unauthenticated", "{told}");
                }
            });
        }
    });
    let grown = resident_kib(server.pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
    // On a connection of its own: an idle one is closed after a while.
    assert_eq!(ask(&mut server.connect(), &secret(PASSWORD))["code"], "permitted");
}
