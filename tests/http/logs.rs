//! The log of a running server: one record a line, the fields of a request, and nothing that a log must not have.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tollgate::edge::clock::SystemClock;
use tollgate::edge::telemetry::{LogFormat, LogLevel, LogOptions, subscriber};

use crate::support::{BUNDLE, DEADLINE, Server, Setup, question, secret};

const TOKEN: &str = "logs-token-0123456789";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const LIMITS: &str = r#"
authz_rules: [{ id: all, users: "*", models: "*" }]
limits: [{ id: tokens, users: "*", each: user, budget: { tokens: 100, every: total }, warn_at: [50] }]
"#;

fn config() -> String {
    let token = secret(TOKEN);
    format!(
        "identity: {{ providers: [{{ static: {{ tokens: [{{ token: {token}, principal: 'User::\"alice\"' }}] }} }}] }}\n"
    )
}

/// A server whose log is JSON, as it is wherever stderr is no terminal and nothing else is said.
fn setup() -> Setup {
    Setup::new().config(&config()).log_format(None)
}

fn records(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn records_of(server: &Server, message: &str) -> Vec<Value> {
    let is_it = |record: &Value| record["message"].as_str().is_some_and(|said| said.starts_with(message));
    records(&server.log()).into_iter().filter(is_it).collect()
}

fn asked_with(server: &Server, credential: &str, headers: &[&str]) -> Value {
    let body =
        json!({"credential": {"bearer": credential}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""});
    let headers = [&["Content-Type: application/json"], headers].concat();
    let answer = server.connect().request("POST", "/is_authorized", &headers, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn elsewhere_than_on_a_terminal_every_line_is_json() {
    let mut server = setup().start();
    std::fs::write(server.policies().join("broken.yaml"), "authz_rule: []\n").unwrap();
    server.signal("HUP");
    server.until("it does not load", |server| !records_of(server, "the bundle does not load").is_empty());
    server.signal("TERM");
    assert!(server.wait().success());
    server.until("the end is logged", |server| !records_of(server, "stopped").is_empty());
    for record in records(&server.log()) {
        let at: jiff::Timestamp = record["timestamp"].as_str().unwrap().parse().unwrap();
        let age = jiff::Timestamp::now().duration_since(at);
        assert!(!age.is_negative() && age.as_secs() < 600, "{record}");
        assert!(["error", "warn", "info"].contains(&record["level"].as_str().unwrap()), "{record}");
        assert!(record["target"].as_str().unwrap().starts_with("tollgate::"), "{record}");
        assert!(!record["message"].as_str().unwrap().is_empty(), "{record}");
    }
    let one = |message: &str| records_of(&server, message).into_iter().next().unwrap_or_else(|| panic!("no {message}"));
    let start = one("tollgate ");
    assert_eq!((&start["url"], &start["policies"]), (&json!(format!("http://{}", server.address)), &json!("policies")));
    let loaded = one("loaded revision");
    assert_eq!((&loaded["rules"], &loaded["forbids"], &loaded["files"]), (&json!(6), &json!(2), &json!(1)));
    let problem = one("a file has no `authz_rule`");
    assert_eq!((&problem["level"], &problem["code"]), (&json!("error"), &json!("unknown-field")));
    assert!(problem["place"].as_str().unwrap().starts_with("broken.yaml:1:1"), "{problem}");
    assert!(problem["help"].as_str().unwrap().contains("authz_rules"), "{problem}");
    let failed = one("the bundle does not load");
    assert_eq!((&failed["level"], &failed["revision"]), (&json!("error"), &loaded["revision"]));
}

#[test]
fn the_lines_of_a_request_name_its_trace_its_decision_and_its_revision() {
    let server = setup().start();
    let traceparent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let answer = asked_with(&server, "a-guess-of-somebody", &[&traceparent]);
    assert_eq!(answer["code"], "unauthenticated");
    server.until("it is logged", |server| !records_of(server, "refused a credential").is_empty());
    let record = records_of(&server, "refused a credential").remove(0);
    for (name, expected) in [
        ("trace_id", json!(TRACE)),
        ("parent_span_id", json!(PARENT)),
        ("method", json!("POST")),
        ("route", json!("/is_authorized")),
        ("decision_id", answer["id"].clone()),
        ("revision", answer["revision"].clone()),
        ("reason", json!("not_recognized")),
    ] {
        assert_eq!(record[name], expected, "{name}: {record}");
    }
    // The next request has nothing of this one, also on a connection that is kept.
    let good = format!("00-{TRACE}-{PARENT}-01");
    let malformed: [&[&str]; 5] = [
        &[],
        &["traceparent: "],
        &[&format!("traceparent: {}", good.to_uppercase())],
        &[&format!("traceparent: {}", good.replace(TRACE, &"0".repeat(32)))],
        &[&traceparent, &traceparent],
    ];
    for (number, headers) in malformed.into_iter().enumerate() {
        let answer = asked_with(&server, "a-guess-of-somebody", headers);
        server.until("it is logged", |server| records_of(server, "refused a credential").len() == number + 2);
        let record = records_of(&server, "refused a credential").remove(number + 1);
        assert_eq!(record["decision_id"], answer["id"], "{record}");
        assert!(record.get("trace_id").is_none() && record.get("parent_span_id").is_none(), "{headers:?}: {record}");
    }
}

/// Holding may go on in a task of its own, and explaining does so on a thread of its own: the lines still name the request.
#[test]
fn what_a_request_does_elsewhere_names_it_too() {
    let server = setup().file("bundle.yaml", LIMITS).start();
    let header = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let headers = ["Content-Type: application/json", &header];
    let held = json!({"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"main/big\"",
        "context": {"input_tokens": 60, "max_output_tokens": 0}, "reserve": true});
    let answer = server.connect().request("POST", "/is_authorized", &headers, held.to_string().as_bytes()).json();
    assert_eq!(answer["decision"], "permit", "{answer}");
    server.until("the alert is logged", |server| !records_of(server, "limit tokens").is_empty());
    let record = records_of(&server, "limit tokens").remove(0);
    assert_eq!(
        (&record["level"], &record["limit"], &record["percent"]),
        (&json!("warn"), &json!("tokens"), &json!(50))
    );
    assert_eq!((&record["decision_id"], &record["trace_id"]), (&answer["id"], &json!(TRACE)), "{record}");
    let one = json!({"credential": {"bearer": "a-guess"}, "action": "chat", "resource": "Model::\"main/big\"", "explain": true});
    let batch = json!({"requests": [one, one]});
    let answer =
        server.connect().request("POST", "/is_authorized/batch", &headers, batch.to_string().as_bytes()).json();
    server.until("both are logged", |server| records_of(server, "refused a credential").len() == 2);
    for (record, item) in
        records_of(&server, "refused a credential").iter().zip(answer["responses"].as_array().unwrap())
    {
        assert_eq!((&record["decision_id"], &record["trace_id"]), (&item["id"], &json!(TRACE)), "{record}");
        assert_eq!(record["route"], "/is_authorized/batch", "{record}");
    }
}

/// Paths and queries are what callers write, and may hold what they should have written elsewhere.
#[test]
fn at_debug_each_request_is_a_line_without_its_path_and_query() {
    let server = setup().argument("--log-level").argument("debug").start();
    let hidden = secret("tg_in-a-path-0123456789");
    for (path, status) in [
        (format!("/{hidden}"), 404),
        (format!("/v1/users/{hidden}/password"), 404),
        (format!("/health/live?key={hidden}"), 200),
    ] {
        assert_eq!(server.get(&path).status, status, "{path}");
    }
    assert_eq!(server.connect().request(&hidden.to_uppercase(), "/health/live", &[], b"").status, 405);
    server.until("all are logged", |server| records_of(server, "request answered").len() >= 4);
    let answered: Vec<_> = records_of(&server, "request answered")
        .iter()
        .map(|record| {
            assert!(record["duration_us"].is_u64() && record["level"] == "debug", "{record}");
            json!([record["method"], record["route"], record["status"]])
        })
        .collect();
    let expected = [
        json!(["GET", "unknown", 404]),
        json!(["GET", "/v1/users/{user}/password", 404]),
        json!(["GET", "/health/live", 200]),
        json!(["other", "/health/live", 405]),
    ];
    assert_eq!(answered[..4], expected);
    assert!(!server.log().to_lowercase().contains(&hidden), "{}", server.log());
}

#[test]
fn what_a_level_leaves_out_is_not_logged() {
    let (code, log) = {
        let taken = Server::start();
        let address = taken.address.to_string();
        setup().argument("--listen").argument(&address).argument("--log-level").argument("error").fail()
    };
    assert_eq!(code, Some(2));
    let records = records(&log);
    assert_eq!(records.len(), 1, "{log}");
    assert!(records[0]["message"].as_str().unwrap().starts_with("cannot listen on"), "{log}");
}

/// What a file or an argument is called is anybody's to choose.
#[test]
fn no_name_ends_a_line_or_reaches_a_terminal() {
    let evil = "p\n2026-01-01T00:00:00Z error: forged\r\u{1b}[31mred\u{2028}x\u{9b}1m\u{202e}";
    for format in ["text", "json"] {
        let setup = Setup::new().config("identity: { providers: [] }\n").variable("TOLLGATE_LOG_FORMAT", format);
        let server = setup.argument("--policies").argument(evil).start();
        server.until("the start is logged", |server| server.log().contains("serving p"));
        let log = server.log();
        let is_harmless = |next: char| next == '\n' || !(next.is_control() || matches!(next, '\u{2028}' | '\u{202e}'));
        assert!(log.chars().all(is_harmless), "{log:?}");
        assert!(log.contains("forged"), "it is there, shown: {log}");
        let begins = if format == "json" { "{\"timestamp\":\"" } else { "20" };
        assert!(log.lines().all(|line| line.starts_with(begins) && !line.contains("Z error: forged\n")), "{log}");
        assert!(!log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{log}");
    }
}

#[test]
fn text_is_for_people() {
    let server =
        Setup::new().config(&format!("{}log: {{ format: text, level: info }}\n", config())).log_format(None).start();
    asked_with(&server, "a-guess-of-somebody", &[]);
    server.until("it is logged", |server| server.log().contains("refused a credential"));
    let log = server.log();
    assert!(
        log.contains(" info: refused a credential reason=not_recognized method=POST route=/is_authorized decision_id="),
        "{log}"
    );
    assert!(log.contains(" warning: fixed tokens") && log.contains(" info: loaded revision"), "{log}");
    assert!(log.contains("try: curl -s http://127.0.0.1:"), "{log}");
}

/// Whoever reads the log may end; nobody who asks hears of that.
#[test]
fn a_closed_stderr_neither_stops_the_server_nor_makes_it_panic() {
    let temp = tempfile::TempDir::new().unwrap();
    let policies = temp.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("bundle.yaml"), BUNDLE).unwrap();
    std::fs::write(temp.path().join("tollgate.yaml"), config()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "debug"]).current_dir(temp.path()).env_clear();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let started =
        lines.find_map(|line| line.unwrap().split_once("listens on http://").map(|(_, rest)| rest.to_owned()));
    let address = started.unwrap().split(',').next().unwrap().to_owned();
    drop(lines);
    let ask = |method: &str, path: &str, body: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // Each of these logs: a refusal, a bundle that does not load, a request at debug.
    let guess = r#"{"credential": {"bearer": "a-guess"}, "action": "chat", "resource": "Model::\"open/x\""}"#;
    for _ in 0..3 {
        assert!(ask("POST", "/is_authorized", guess).contains("\"unauthenticated\""));
    }
    std::fs::write(policies.join("broken.yaml"), "authz_rule: []\n").unwrap();
    assert!(ask("POST", "/bundle/reload", "").starts_with("HTTP/1.1 409"));
    assert!(ask("POST", "/is_authorized", &question("alice", "openai-main/gpt-4o")).contains("\"permit\""));
    let metrics = ask("GET", "/metrics", "");
    assert!(metrics.contains("tollgate_panics_total 0"), "{metrics}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

/// A program that uses the library reads its events with a subscriber of its own.
#[test]
fn the_library_emits_events_and_installs_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("bundle.yaml"), BUNDLE).unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&lines);
    let options = LogOptions { format: LogFormat::Json, level: LogLevel::Info, colour: false };
    let own =
        subscriber(options, Arc::new(SystemClock), move |line: &[u8]| shared.lock().unwrap().extend_from_slice(line));
    tracing::subscriber::with_default(own, || tollgate::Engine::load(folder.path()).unwrap());
    let log = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert!(
        records(&log).iter().any(|record| record["message"].as_str().unwrap().starts_with("loaded revision")),
        "{log}"
    );
    // Nobody has installed one for the whole process, so that this is the first.
    assert!(tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default()).is_ok());
}
