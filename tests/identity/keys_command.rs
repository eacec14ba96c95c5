//! `tollgate keys` against a running server: what is typed, what is printed, and how it ends.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Server, Setup, secret};

const PEOPLE: &str = "
users: [{ id: alice }]
provider_accounts: [{ id: oa, provider: openai, models: [{ name: big, price: { input: 1, output: 1 } }] }]
authz_rules: [{ users: [alice], models: ['oa/*'] }]
";

struct World {
    server: Server,
    administrator: String,
}

impl World {
    fn start() -> Self {
        let server = Setup::without_files().file("people.yaml", PEOPLE).start();
        let path = server.temp.path().join("tollgate-data/administrator.key");
        let administrator = secret(std::fs::read_to_string(path).unwrap().trim_end());
        Self { server, administrator }
    }

    fn run_as(&self, token: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.env_clear().stdin(Stdio::null()).arg("keys").args(arguments);
        command.env("TOLLGATE_SERVER", format!("http://{}", self.server.address)).env("TOLLGATE_TOKEN", token);
        let output = command.output().unwrap();
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!told.contains(&self.administrator), "{told}");
        output
    }

    /// What it prints, where it works.
    fn run(&self, arguments: &[&str]) -> Value {
        let output = self.run_as(&self.administrator, &[arguments, &["--format", "json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn code(&self, key: &str) -> String {
        let question = format!(
            r#"{{"credential": {{"api_key": "{key}"}}, "action": "chat", "resource": "Model::\"oa/big\"",
                "context": {{"input_tokens": 1, "max_output_tokens": 1}}}}"#
        );
        self.server.post("/is_authorized", &question).json()["code"].as_str().unwrap().to_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_command_walks_a_key_through_its_life() {
    let world = World::start();
    let made = world.run(&["create", "--owner", "User::\"alice\"", "--note", "laptop", "--model", "oa/*"]);
    let (id, key) = (made["id"].as_str().unwrap(), secret(made["key"].as_str().unwrap()));
    assert_eq!(world.code(&key), "permitted");

    let shown = world.run(&["show", id]);
    assert_eq!((&shown["note"], &shown["state"]), (&"laptop".into(), &"active".into()), "{shown}");
    assert!(!shown.to_string().contains(&key), "a key is printed once");
    let listed = world.run(&["list", "--owner", "User::\"alice\""]);
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["keys"][0]["id"], id);

    world.run(&["change", id, "--model", "oa/other"]);
    assert_eq!(world.code(&key), "forbidden_by_rule");
    world.run(&["change", id, "--clear", "models"]);
    assert_eq!(world.code(&key), "permitted");

    let rotated = world.run(&["rotate", id, "--grace-seconds", "0"]);
    let newer = secret(rotated["key"].as_str().unwrap());
    assert_eq!((&*world.code(&key), &*world.code(&newer)), ("credential_expired", "permitted"));

    world.run(&["revoke", id, "--reason", "lost"]);
    assert_eq!(world.code(&newer), "credential_revoked");
    world.run(&["delete", id]);
    assert_eq!(world.code(&newer), "unauthenticated");
    let gone = world.run_as(&world.administrator, &["show", id]);
    assert_eq!((gone.status.code(), text(&gone.stdout)), (Some(1), String::new()), "{}", text(&gone.stderr));
}

#[test]
fn the_command_sends_amounts_as_they_were_written() {
    let world = World::start();
    // A float would make it 123456789.12345679.
    let limits = r#"[{"id": "usd", "budget": {"usd": 123456789.123456789, "every": "total"}}]"#;
    let made = world.run(&["create", "--owner", "User::\"alice\"", "--limits", limits]);
    let (id, key) = (made["id"].as_str().unwrap().to_owned(), secret(made["key"].as_str().unwrap()));
    assert_eq!(world.code(&key), "permitted");
    let path = format!("/v1/keys/{id}");
    let bearer = format!("Authorization: Bearer {}", world.administrator);
    let told = world.server.connect().request("GET", &path, &[&bearer], b"").body;
    assert!(told.contains("123456789.123456789"), "{told}");
}

#[test]
fn the_command_tells_whoever_may_not_and_where_nobody_answers() {
    let world = World::start();
    let made = world.run(&["create", "--owner", "User::\"alice\""]);
    let key = secret(made["key"].as_str().unwrap());
    let others = world.run_as(&key, &["create", "--owner", "Service::\"bot\""]);
    assert_eq!((others.status.code(), text(&others.stdout)), (Some(1), String::new()), "{}", text(&others.stderr));
    let wrong = world.run_as(&secret("tg_nobody_0000"), &["list"]);
    assert_eq!((wrong.status.code(), text(&wrong.stdout)), (Some(1), String::new()), "{}", text(&wrong.stderr));
    assert!(!text(&wrong.stderr).contains("tg_nobody_0000"), "{}", text(&wrong.stderr));
    let odd = world.run_as(&world.administrator, &["create", "--limits", "[{"]);
    assert_eq!(odd.status.code(), Some(2), "{}", text(&odd.stderr));
    let nobody = world.run_as(&world.administrator, &["list", "--server", "http://127.0.0.1:1"]);
    assert_eq!((nobody.status.code(), text(&nobody.stdout)), (Some(2), String::new()), "{}", text(&nobody.stderr));
}

#[test]
fn a_path_may_say_its_methods_and_what_is_said_may_be_taken_back() {
    let world = World::start();
    let path = r#"{"path": "/v1/x", "methods": ["POST"]}"#;
    let made = world.run(&["create", "--owner", "User::\"alice\"", "--path", path, "--path", "/v1/y/*"]);
    secret(made["key"].as_str().unwrap());
    assert_eq!(made["paths"], serde_json::json!([{"path": "/v1/x", "methods": ["POST"]}, "/v1/y/*"]), "{made}");
    let id = made["id"].as_str().unwrap();
    for odd in ["{", r#"{"path": "/a", "path": "/b"}"#] {
        let refused = world.run_as(&world.administrator, &["change", id, "--path", odd]);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("is JSON"), "{}", text(&refused.stderr));
    }
    let unknown = world.run_as(&world.administrator, &["change", id, "--clear", "bogus"]);
    let told = text(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(2), "{told}");
    assert!(["owner", "reason", "grace_seconds"].iter().all(|name| !told.contains(name)), "{told}");
    // Whatever it says that can be taken back can be.
    let (_, members) = told.split_once("possible values: ").unwrap_or_else(|| panic!("{told}"));
    let members: Vec<&str> = members.split(']').next().unwrap().split(", ").collect();
    assert!(members.len() == 12 && members.contains(&"paths"), "{members:?}");
    let cleared: Vec<&str> = members.iter().flat_map(|member| ["--clear", member]).collect();
    let changed = world.run(&[&["change", id][..], &cleared].concat());
    assert!(changed["paths"].is_null(), "{changed}");
}

/// As docs/identity.md has it: a fixed token, for as long as it takes to make a key.
#[test]
fn an_administrator_without_a_key_finds_a_way_back() {
    let world = World::start();
    let alice = world.run(&["create", "--owner", "User::\"alice\""]);
    secret(alice["key"].as_str().unwrap());
    world.run(&["delete", world.administrator.split('_').nth(1).unwrap()]);
    let start = |temp, config: &str| Setup::without_files().file("people.yaml", PEOPLE).config(config).start_in(temp);
    let server = start(world.server.crash(), "");
    assert!(!server.log().contains("tg_"), "there are keys, so that none is made: {}", server.log());
    let token = secret("way-back-0123456789abcdef-0123456");
    let temp = server.crash();
    std::fs::write(temp.path().join("way-back"), &token).unwrap();
    let config = "identity:\n  providers:\n    - keys: {}\n    - static: { tokens: [{ token_file: way-back, \
                  principal: 'User::\"way-back\"', roles: [\"tollgate:administrator\"] }] }\n";
    let world = World { server: start(temp, config), administrator: token };
    let owner = ["create", "--owner", "Service::\"tollgate:administrator\"", "--role", "tollgate:administrator"];
    let made = world.run(&owner);
    let administrator = secret(made["key"].as_str().unwrap());
    let temp = world.server.crash();
    std::fs::remove_file(temp.path().join("tollgate.yaml")).unwrap();
    let world = World { server: start(temp, ""), administrator };
    assert_eq!(world.run(&["list"])["keys"].as_array().unwrap().len(), 2);
}
