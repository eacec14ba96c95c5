//! Starting, reloading and stopping.

use serde_json::{Value, json};

use crate::support::{BUNDLE, Server, Setup, question};

const BROKEN: &str = "authz_rules:\n  - { id: a, users: [x], model: [a/b] }\n  - { id: b, users: [], models: [a/b] }\n";

fn decision(server: &Server) -> Value {
    server.post("/is_authorized", &question("alice", "openai-main/gpt-4o")).json()["decision"].clone()
}

fn write(server: &Server, name: &str, text: &str) {
    let path = server.policies().join(name);
    let beside = server.temp.path().join("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[test]
fn a_broken_bundle_starts_a_server_that_says_so() {
    let server = Setup::new().file("broken.yaml", BROKEN).start();
    let refused = server.post("/is_authorized", &question("alice", "openai-main/gpt-4o"));
    assert!(refused.is_error(503, "no_bundle", ""), "{refused:?}");
    assert!(server.post("/is_authorized/batch", r#"{"requests": []}"#).is_error(503, "no_bundle", ""));
    // What is no request is told before that there is no bundle.
    assert!(server.post("/is_authorized", "{}").is_error(400, "invalid_request", "principal"));
    let ready = server.get("/health/ready");
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("no_bundle")));
    assert_eq!(server.get("/health/live").status, 200);
    let bundle = server.get("/bundle").json();
    assert_eq!((&bundle["revision"], &bundle["counts"]), (&Value::Null, &Value::Null));
    let problems = bundle["failure"]["problems"].as_array().unwrap();
    let codes: Vec<&str> = problems.iter().filter_map(|one| one["code"].as_str()).collect();
    assert!(codes.contains(&"unknown-field") && codes.contains(&"empty-list"), "{codes:?}");
    assert!(
        problems
            .iter()
            .all(|one| one["file"] == "broken.yaml" && one["line"].as_u64() > Some(0) && one["message"].is_string())
    );
    assert!(server.log().contains("broken.yaml:2:"), "{}", server.log());
    write(&server, "broken.yaml", "authz_rules: [{ users: [x], models: [a/b] }]\n");
    server.until("the bundle is repaired", |server| server.get("/health/ready").status == 200);
    assert_eq!(decision(&server), "permit");
}

#[test]
fn no_bundle_at_all_starts_too() {
    let server = Setup::new().argument("--policies").argument("nowhere").start();
    assert_eq!(server.get("/health/ready").status, 503);
    let failure = server.get("/bundle").json();
    assert!(failure["failure"]["problems"][0]["message"].is_string(), "{failure}");
    // The first line says so, and how it goes on.
    let log = server.log();
    let first = log.lines().next().unwrap();
    assert!(first.contains("nowhere` does not exist") && first.contains("as soon as it is there"), "{log}");
    std::fs::rename(server.policies(), server.temp.path().join("nowhere")).unwrap();
    server.until("the directory is there", |server| server.get("/health/ready").status == 200);
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("rules.yaml"), BUNDLE).unwrap();
    let server = Setup::new().argument("--policies").argument("../rules.yaml").start_in(below(temp));
    assert!(server.log().lines().next().unwrap().contains("rules.yaml` is not a directory"), "{}", server.log());
}

/// A directory in `temp`, which holds something else too.
fn below(temp: tempfile::TempDir) -> tempfile::TempDir {
    let below = tempfile::TempDir::new_in(temp.path()).unwrap();
    // Removed with the directory of the machine.
    let _kept = temp.keep();
    below
}

/// Somebody looks for a forbid that does not hold: `/bundle`, the log and a strict server all say which file it is in.
#[test]
fn files_that_are_not_read_are_told() {
    let deny = "authz_rules: [{ id: deny, effect: forbid, users: [alice], models: [openai-main/gpt-4o] }]\n";
    let server = Setup::new().file("deny.YAML", deny).file("notes.txt", deny).start();
    assert_eq!(decision(&server), "permit");
    let bundle = server.get("/bundle").json();
    assert_eq!(bundle["skipped"], json!(["deny.YAML"]));
    let warnings = bundle["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|one| one["code"] == "file-skipped" && one["file"] == "deny.YAML"), "{bundle}");
    assert!(server.log().contains("deny.YAML") && server.log().contains("file-skipped"), "{}", server.log());
    write(&server, "policy.json", "{ \"authz_rules\": [] }\n");
    server.until("the second is told", |server| {
        server.get("/bundle").json()["skipped"] == json!(["deny.YAML", "policy.json"])
    });
    std::fs::rename(server.policies().join("deny.YAML"), server.policies().join("deny.yaml")).unwrap();
    server.until("the forbid holds", |server| decision(server) == "forbid");
    assert_eq!(server.get("/bundle").json()["skipped"], json!(["policy.json"]));

    let strict = Setup::new().argument("--strict").file("deny.YAML", deny).start();
    let failure = strict.get("/bundle").json()["failure"].clone();
    assert!(failure["problems"].as_array().unwrap().iter().any(|one| one["code"] == "file-skipped"), "{failure}");
    assert_eq!(strict.get("/health/ready").status, 503);

    let in_tests = Setup::new().file("ab_test.yaml", deny).start();
    let failure = in_tests.get("/bundle").json()["failure"].clone();
    let problem = &failure["problems"][0];
    assert_eq!((&problem["code"], &problem["line"]), (&json!("policy-in-test"), &json!(1)), "{failure}");
}

#[test]
fn a_reload_is_whole_or_not_at_all() {
    let server = Server::start();
    let before = server.get("/bundle").json();
    write(&server, "more.yaml", "authz_rules: [{ id: bobs, users: [bob], models: [open/x] }]\n");
    let reloaded = server.connect().request("POST", "/bundle/reload", &[], b"");
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    assert_ne!(reloaded.json()["revision"], before["revision"]);
    assert_eq!(reloaded.json()["counts"]["rules"], 7);
    assert_eq!(server.post("/is_authorized", &question("bob", "open/x")).json()["decision"], "permit");

    write(&server, "more.yaml", BROKEN);
    let failed = server.post("/bundle/reload", "{}");
    assert!(failed.is_error(409, "reload_failed", ""), "{failed:?}");
    assert_eq!(server.post("/is_authorized", &question("bob", "open/x")).json()["decision"], "permit");
    let bundle = server.get("/bundle").json();
    assert_eq!((&bundle["revision"], &bundle["degraded"]), (&reloaded.json()["revision"], &json!(true)));
    let ready = server.get("/health/ready");
    assert_eq!(
        (ready.status, &ready.json()["status"], &ready.json()["degraded"]),
        (200, &json!("degraded"), &json!(true))
    );
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("\ntollgate_reload_failed 1\n"), "{metrics}");
    assert!(!metrics.contains("tollgate_reload_total{outcome=\"failure\"} 0\n"));

    std::fs::remove_file(server.policies().join("more.yaml")).unwrap();
    server.signal("HUP");
    server.until("SIGHUP reloads", |server| server.get("/bundle").json()["revision"] == before["revision"]);
    assert!(server.log().contains("loaded revision"));
    assert!(server.post("/bundle/reload", r#"{"acknowlegde": "x"}"#).is_error(400, "invalid_request", "acknowlegde"));
    assert!(server.connect().request("POST", "/bundle/reload", &[], b"{}").is_error(400, "invalid_request", ""));
}

#[test]
fn a_change_is_noticed_by_itself() {
    let server = Server::start();
    write(&server, "more.yaml", "authz_rules: [{ id: bobs, users: [bob], models: [open/x] }]\n");
    server.until("the change is active", |server| {
        server.post("/is_authorized", &question("bob", "open/x")).json()["decision"] == "permit"
    });
}

#[test]
fn a_reload_that_loses_much_waits_to_be_acknowledged() {
    let server = Setup::new().config("reload: { guard: true }\n").start();
    let before = server.get("/bundle").json()["revision"].clone();
    let without: String = BUNDLE
        .lines()
        .filter(|line| !line.contains("effect: forbid"))
        .fold(String::new(), |text, line| text + line + "\n");
    write(&server, "bundle.yaml", &without);
    let held = server.connect().request("POST", "/bundle/reload", &[], b"");
    assert!(held.is_error(409, "reload_held", ""), "{held:?}");
    let bundle = server.get("/bundle").json();
    assert_eq!(bundle["revision"], before);
    let waiting = bundle["failure"]["revision"].as_str().unwrap();
    assert!(held.body.contains(waiting), "{held:?}");
    assert!(server.post("/bundle/reload", r#"{"acknowledge": "another"}"#).is_error(409, "reload_held", ""));
    let taken = server.post("/bundle/reload", &format!("{{\"acknowledge\": \"{waiting}\"}}"));
    assert_eq!((taken.status, &taken.json()["revision"]), (200, &json!(waiting)), "{taken:?}");
}

/// A bundle of which one line is changed.
const GUARDED: &str = "teams: [{ id: staff }, { id: contractors }, { id: empty }]
users:
  - { id: alice, team: staff }
  - { id: carl, teams: [staff, contractors], tags: [external] }
authz_rules:
  - { id: staff, teams: [staff], models: [\"a/*\"] }
  - { id: cheap, users: \"*\", models: \"*\", actions: [embed], when: 'principal.tags.contains(\"pilot\")' }
  - { id: no-contractors, effect: forbid, teams: [contractors], models: [\"a/secret*\"] }
  - { id: no-externals, effect: forbid, tags: [external], teams: [staff, contractors], models: [\"a/x*\"] }
  - { id: nobody-yet, effect: forbid, teams: [empty], models: [\"a/*\"] }
";

/// What the guard says to the bundle with `from` in it replaced by `to`; nothing where it is taken.
fn guarded(from: &str, to: &str) -> Option<String> {
    assert!(GUARDED.contains(from), "{from}");
    let server = Setup::new().config("reload: { guard: true }\n").file("bundle.yaml", GUARDED).start();
    write(&server, "bundle.yaml", &GUARDED.replace(from, to));
    let answer = server.connect().request("POST", "/bundle/reload", &[], b"");
    if answer.status == 200 {
        return None;
    }
    assert!(answer.is_error(409, "reload_held", ""), "{answer:?}");
    let waiting = server.get("/bundle").json()["failure"]["revision"].as_str().unwrap().to_owned();
    let taken = server.post("/bundle/reload", &format!("{{\"acknowledge\": \"{waiting}\"}}"));
    assert_eq!((taken.status, &taken.json()["revision"]), (200, &json!(waiting)), "{taken:?}");
    Some(answer.body)
}

#[test]
fn a_reload_that_opens_the_door_waits_to_be_acknowledged() {
    for (name, from, to) in [
        ("everybody, everything", "teams: [staff], models: [\"a/*\"]", "users: \"*\", models: \"*\""),
        ("every model", "teams: [staff], models: [\"a/*\"]", "services: \"*\", models: [\"*/*\"]"),
        ("a condition is gone", ", when: 'principal.tags.contains(\"pilot\")'", ""),
        ("a condition tells nobody apart", "principal.tags.contains(\"pilot\")", "context.budget.used_percent < 80"),
        ("another team", "forbid, teams: [contractors]", "forbid, teams: [empty]"),
        ("an unknown user", "forbid, teams: [contractors]", "forbid, users: [nobody]"),
        ("nobody is in the team", "[staff, contractors]", "[staff]"),
        ("nobody has the tag", "forbid, tags: [external]", "forbid, tags: [internal]"),
        ("nobody has both", "teams: [staff, contractors], models: [\"a/x*\"]", "teams: [empty], models: [\"a/x*\"]"),
    ] {
        // Members of `contractors` are said in the line of carl alone.
        let (from, to) = if name == "nobody is in the team" {
            ("teams: [staff, contractors], tags", "team: staff, tags")
        } else {
            (from, to)
        };
        let held = guarded(from, to).unwrap_or_else(|| panic!("{name}: it is taken"));
        let expected = if to.contains("\"*") || name.contains("condition") {
            "permits every principal"
        } else {
            "no longer applies to any declared principal"
        };
        assert!(held.contains(expected), "{name}: {held}");
    }
}

#[test]
fn a_reload_that_opens_no_door_is_taken() {
    for (name, from, to) in [
        ("one more model", "models: [\"a/*\"] }", "models: [\"a/*\", \"b/*\"] }"),
        ("everybody, some models", "teams: [staff], models: [\"a/*\"]", "users: \"*\", models: [\"a/*\"]"),
        ("a team, every model", "models: [\"a/*\"] }", "models: \"*\" }"),
        ("a forbid of everybody", "forbid, teams: [contractors]", "forbid, users: \"*\""),
        ("nobody before either", "forbid, teams: [empty]", "forbid, users: [nobody]"),
        ("a condition that tells people apart", "contains(\"pilot\")", "contains(\"pilots\")"),
    ] {
        assert_eq!(guarded(from, to), None, "{name}");
    }
}

#[test]
fn who_is_in_flight_is_answered_before_the_end() {
    let mut server = Server::start();
    let body = question("alice", "openai-main/gpt-4o");
    let mut idle = server.connect();
    assert_eq!(idle.request("GET", "/version", &[], b"").status, 200);
    let mut client = server.connect();
    let head = format!(
        "POST /is_authorized HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes());
    assert_eq!(client.read().unwrap().status, 100, "the head is read");
    client.send(&body.as_bytes()[..10]);
    server.signal("TERM");
    assert!(idle.read().is_none());
    server.until("nobody new is let in", |server| std::net::TcpStream::connect(server.address).is_err());
    client.send(&body.as_bytes()[10..]);
    let answer = client.read().unwrap();
    assert_eq!(answer.json()["decision"], "permit");
    assert!(client.read().is_none());
    assert!(server.wait().success(), "{}", server.log());
    server.until("that is logged", |server| server.log().contains("every request was answered"));
}

#[test]
fn who_takes_too_long_is_cut_off_at_the_end() {
    let mut server = Setup::new().config("limits: { shutdown_ms: 100 }\n").start();
    let mut client = server.connect();
    client.send(
        b"POST /is_authorized HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\
          Expect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.read().unwrap().status, 100, "the head is read");
    client.send(b"{");
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(1));
}

#[test]
fn other_machines_are_only_let_in_where_that_was_asked_for() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let (code, said) =
            Setup::new().config("identity: { providers: [] }\n").argument("--listen").argument(address).fail();
        assert_eq!(code, Some(2));
        assert!(said.contains("--insecure") && said.contains(address), "{said}");
    }
    let server = Setup::new().argument("--listen").argument("0.0.0.0:0").argument("--insecure").start();
    server.until("it says who may ask", |server| server.log().contains("--insecure"));
    let tried = format!("try: curl -s http://127.0.0.1:{}/is_authorized -H 'Content-Type", server.address.port());
    server.until("it names an address to connect to", |server| server.log().contains(&tried));
    assert!(server.log().contains("warning: 0.0.0.0:") && server.log().contains("plain HTTP"), "{}", server.log());
    let loopback = Server::start();
    assert!(loopback.log().contains("loaded revision"), "{}", loopback.log());
    loopback.until("it says who may ask", |server| {
        server.log().contains("on loopback decisions are open") && server.log().contains("curl")
    });
    assert!(!loopback.log().contains("warning: ") && !loopback.log().contains("TOLLGATE_TOKEN"), "{}", loopback.log());
    let closed = Setup::new().config("identity: { loopback: closed }\n").start();
    closed.until("it says how to show a credential", |server| {
        server.log().contains("/is_authorized -H \"Authorization: Bearer $TOLLGATE_TOKEN\" -H 'Content-Type")
    });
    assert!(!closed.log().contains("plain HTTP"), "nobody listens in on loopback: {}", closed.log());
    let taken = loopback.address.to_string();
    let (code, said) = Setup::new().argument("--listen").argument(&taken).fail();
    assert!(code == Some(2) && said.contains("cannot listen on"), "{said}");
}

#[test]
fn one_worker_is_enough() {
    let server = Setup::new().config("server: { workers: 1 }\n").start();
    let hinted =
        r#"{"principal": "User::\"bob\"", "action": "chat", "resource": "Model::\"open/x\"", "explain": true}"#;
    assert!(server.post("/is_authorized", hinted).json()["hint"].is_string());
    assert_eq!(server.connect().request("POST", "/bundle/reload", &[], b"").status, 200);
}
