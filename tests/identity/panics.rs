//! A provider that panics with a secret in its mouth: nobody hears it, and the server goes on.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tollgate::edge::http::{HttpOptions, Server, Services};
use tollgate::edge::telemetry::{LogFormat, LogLevel, LogOptions};
use tollgate::gate::{Authenticator, Credential, Later, Presented, Verdict};
use tollgate::policy::Snapshot;
use tollgate::{Bundle, Engine, SourceFile, Timestamp};

const SECRET: &str = "a-secret-that-a-provider-panics-with";
const RULES: &str = "users: [{ id: alice }]\nauthz_rules: [{ users: [alice], models: [\"*\"] }]\n";

/// A provider that somebody wrote in a hurry.
struct Hurried;

impl Authenticator for Hurried {
    fn name(&self) -> &'static str {
        "hurried"
    }

    fn authenticate(&self, presented: &Presented, _: &Arc<Snapshot>, _: Timestamp) -> Later<Verdict> {
        let (Credential::Bearer(token) | Credential::ApiKey(token)) = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        let parsed: Result<u32, _> = token.expose().parse::<u32>().map_err(|_| token.expose().to_owned());
        let number = parsed.unwrap();
        panic!("{number} is {}", token.expose())
    }
}

/// Asks and prints what is answered; run by the test below, in a process of its own.
#[test]
#[ignore = "the other test runs it"]
fn the_process_that_panics() {
    tollgate::cli::tell_only_where();
    if std::env::var_os("WITH_LOG").is_some() {
        let options = LogOptions { format: LogFormat::Json, level: LogLevel::Error, colour: false };
        tollgate::edge::telemetry::install(options, Arc::new(tollgate::edge::clock::SystemClock));
    }
    let bundle = Bundle::new(SourceFile::new("rules.yaml", RULES.as_bytes()).into_iter().collect());
    let engine = Engine::builder().bundle(bundle).authenticator(Arc::new(Hurried)).build().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let options = HttpOptions { listen: "127.0.0.1:0".parse().unwrap(), open: false, ..HttpOptions::default() };
    let server = runtime.block_on(Server::bind(Services::new(engine), options)).unwrap();
    let address = server.address().unwrap();
    runtime.spawn(server.run(std::future::pending()));
    let question =
        format!(r#"{{"credential": {{"bearer": "{SECRET}"}}, "action": "chat", "resource": "Model::\"a/b\""}}"#);
    let validate = format!(r#"{{"api_key": "{SECRET}", "request": {{"path": "/x"}}}}"#);
    let exchange = format!(r#"{{"grant_type": "api_key", "api_key": "{SECRET}"}}"#);
    for (method, path, body) in [
        ("POST", "/is_authorized", question.as_str()),
        ("POST", "/v1/auth/validate", validate.as_str()),
        ("POST", "/v1/token", exchange.as_str()),
        ("GET", "/metrics", ""),
        ("GET", "/health/live", ""),
    ] {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        println!("{path}: {answer}");
    }
}

#[test]
fn a_provider_that_panics_tells_no_secret_and_ends_nothing() {
    let exe = std::env::current_exe().unwrap();
    let output = Command::new(exe)
        .args(["--ignored", "--exact", "panics::the_process_that_panics", "--nocapture"])
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (answers, told) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{answers} {told}");
    assert!(!answers.contains(SECRET) && !told.contains(SECRET), "{answers} {told}");
    // It was reached, and where is told.
    assert!(told.matches("a panic at tests/identity/panics.rs:").count() >= 3, "{told}");
    for path in ["/is_authorized", "/v1/auth/validate", "/metrics"] {
        let answer = answers.split_once(&format!("{path}: ")).unwrap().1;
        assert!(answer.starts_with("HTTP/1.1 503"), "{path}: {answers}");
        let (answer, _) = answer.split_once("}}").unwrap();
        assert!(answer.contains(r#""code":"unavailable""#), "{path}: {answers}");
    }
    assert!(answers.contains("/health/live: HTTP/1.1 200"), "{answers}");
}

#[test]
fn where_there_is_a_log_a_panic_is_a_record_of_its_request() {
    let exe = std::env::current_exe().unwrap();
    let output = Command::new(exe)
        .args(["--ignored", "--exact", "panics::the_process_that_panics", "--nocapture"])
        .envs([("RUST_BACKTRACE", "1"), ("WITH_LOG", "1")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !told.contains(SECRET), "{told}");
    let records: Vec<Value> = told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let panics: Vec<_> = records.iter().filter(|record| record["target"] == "tollgate::panic").collect();
    for route in ["/is_authorized", "/v1/auth/validate", "/metrics"] {
        let record = panics.iter().find(|record| record["route"] == route);
        let record = record.unwrap_or_else(|| panic!("{route}: {told}"));
        assert!(record["place"].as_str().unwrap().starts_with("tests/identity/panics.rs:"), "{record}");
        assert!(record["backtrace"].as_str().unwrap().contains("panics"), "{record}");
    }
}
