//! `/metrics` from outside: the names that dashboards rely on, what moves each metric, and the alerts and the dashboard
//! in `packaging/`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::redis_server;
use crate::support::{Client, Server, Setup, question};

/// The families and labels of the first version with metrics. Dashboards and alerts of users have these names: they may
/// get company, and never change.
const FIRST_NAMES: [(&str, &str, &[&str]); 21] = [
    ("tollgate_decisions_total", "counter", &["decision", "code"]),
    ("tollgate_rule_decisions_total", "counter", &["rule"]),
    ("tollgate_rule_decisions_other_total", "counter", &[]),
    ("tollgate_http_responses_total", "counter", &["status"]),
    ("tollgate_panics_total", "counter", &[]),
    ("tollgate_tls_handshake_failures_total", "counter", &[]),
    ("tollgate_authentication_failures_total", "counter", &["reason"]),
    ("tollgate_limit_warnings_total", "counter", &["limit", "percent"]),
    ("tollgate_alerts_total", "counter", &["outcome"]),
    ("tollgate_alert_retries_total", "counter", &[]),
    ("tollgate_alerts_waiting", "gauge", &[]),
    ("tollgate_reload_total", "counter", &["outcome"]),
    ("tollgate_reload_failed", "gauge", &[]),
    ("tollgate_reload_last_success_timestamp_seconds", "gauge", &[]),
    ("tollgate_decision_log_records_total", "counter", &["outcome"]),
    ("tollgate_decision_log_queue_bytes", "gauge", &[]),
    ("tollgate_decision_log_stopped", "gauge", &[]),
    ("tollgate_bundle_info", "gauge", &["revision"]),
    ("tollgate_bundle_rules", "gauge", &[]),
    ("tollgate_store_up", "gauge", &["store"]),
    ("tollgate_provider_up", "gauge", &["provider"]),
];

/// A native rule whose id has everything that a label has to escape.
const ODD_RULE: &str = r#"@id("say \"no\" \\ to\nerin") forbid (principal == User::"erin", action, resource);"#;

const LIMITS: &str =
    "limits: [{ id: tokens, users: \"*\", each: user, budget: { tokens: 100, every: total }, warn_at: [50] }]\n";

/// A server with every part that has metrics, except a Redis. The addresses of its webhook and its identity provider
/// refuse connections.
fn with_everything() -> Server {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "decision_log: {{ level: all, checkpoints: {{ webhook: {{ url: 'http://{nowhere}/checkpoints', secret_file: secret }} }} }}
alerts: {{ webhook: {{ url: 'http://{nowhere}/hook', secret_file: secret, pause_ms: 20, attempts: 2 }} }}
decisions: {{ budget_status: 451 }}
identity:
  providers:
    - keys: {{}}
    - basic: {{}}
    - name: company
      delegated: {{ url: 'http://{nowhere}/auth' }}
"
    );
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("secret"), "a secret of thirty-two bytes ...\n").unwrap();
    let setup = Setup::new().file("limits.yaml", LIMITS).file("odd.cedar", ODD_RULE);
    setup.config(&config).start_in(temp)
}

/// A sample: the name, its labels, and the value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What `/metrics` shows.
struct Scrape {
    text: String,
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Scrape {
    fn of(server: &Server) -> Self {
        Self::read(server.get("/metrics").body)
    }

    fn read(text: String) -> Self {
        let kind = |line: &str| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            Some((name.to_owned(), kind.to_owned()))
        };
        let kinds = text.lines().filter_map(kind).collect();
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
        Self { text, kinds, samples }
    }

    /// The value of the only series of `name` with these labels, among others.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample| {
            let has = |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|known| known == value);
            sample.name == name && labels.iter().all(has)
        };
        let found: Vec<_> = self.samples.iter().filter(has).collect();
        assert!(found.len() < 2, "{name} {labels:?}: {found:?}");
        found.first().map(|sample| sample.value)
    }

    /// The names that an expression may use.
    fn names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.kinds.keys().cloned().collect();
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            names.extend(["bucket", "sum", "count"].map(|suffix| format!("{name}_{suffix}")));
        }
        names
    }
}

/// Reads one line: labels are texts in quotes, with escapes.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let (name, mut rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels = BTreeMap::new();
    while let Some((label, text)) = rest.split_once("=\"") {
        let (mut value, mut chars) = (String::new(), text.char_indices());
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{line}")) {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(label.trim_start_matches(',').to_owned(), value);
        rest = &text[end + 1..];
    }
    assert_eq!(rest, "}", "{line}");
    Sample { name: name.to_owned(), labels, value }
}

/// The result of promtool; `None` with a word about it where it is not installed, which is a failure under CI.
fn promtool(arguments: &[&str], directory: &Path, input: &str) -> Option<Output> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(directory);
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = started else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "promtool is missing");
        println!("skipped: promtool is not installed (./test installs it)");
        return None;
    };
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Some(child.wait_with_output().unwrap())
}

fn accepted(arguments: &[&str], directory: &Path, input: &str) {
    if let Some(output) = promtool(arguments, directory, input) {
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}\n{input}");
    }
}

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)
}

/// A question that holds tokens.
fn hold(who: &str, tokens: u64) -> String {
    let question: Value = serde_json::from_str(&question(who, "openai-main/gpt-4o")).unwrap();
    let mut question = question.as_object().unwrap().clone();
    question.insert("reserve".into(), json!({ "input_tokens": tokens, "output_tokens": 0 }));
    Value::from(question).to_string()
}

#[test]
fn the_first_names_stay_and_promtool_takes_the_text() {
    let server = with_everything();
    assert_eq!(server.post("/is_authorized", &hold("alice", 60)).json()["code"], "permitted");
    assert_eq!(server.post("/is_authorized", &question("erin", "openai-main/gpt-4o")).json()["decision"], "forbid");
    let scrape = Scrape::of(&server);
    for (name, kind, labels) in FIRST_NAMES {
        assert_eq!(scrape.kinds.get(name).map(String::as_str), Some(kind), "{name}: {}", scrape.text);
        let samples: Vec<_> = scrape.samples.iter().filter(|sample| sample.name == name).collect();
        assert!(!samples.is_empty(), "{name}: {}", scrape.text);
        for sample in samples {
            assert_eq!(
                sample.labels.keys().map(String::as_str).collect::<BTreeSet<_>>(),
                labels.iter().copied().collect()
            );
        }
    }
    // Labels are escaped, and found again as they were.
    let odd = [("rule", "say \"no\" \\ to\nerin")];
    assert_eq!(scrape.value("tollgate_rule_decisions_total", &odd), Some(1.0), "{}", scrape.text);
    accepted(&["check", "metrics"], Path::new("/"), &scrape.text);
}

#[test]
fn openmetrics_is_written_to_those_that_ask_for_it() {
    let server = Server::start();
    let ask = |accept: &str| server.connect().request("GET", "/metrics", &[accept], b"");
    let plain = ask("Accept: */*");
    assert!(plain.head.contains("text/plain; version=0.0.4; charset=utf-8"), "{}", plain.head);
    assert!(!plain.body.contains("# EOF"));
    let open = ask("Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3");
    assert!(open.head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{}", open.head);
    assert!(open.body.ends_with("\n# EOF\n") && open.body.matches("# EOF").count() == 1, "{}", open.body);
    assert!(open.body.contains("# TYPE tollgate_decisions counter\n"), "{}", open.body);
    // The series are the same. The bounds of buckets are the same numbers: OpenMetrics writes `1.0` for `1`.
    let series = |body: String| {
        let names = Scrape::read(body).samples.into_iter().map(|mut sample| {
            if let Some(bound) = sample.labels.get_mut("le") {
                *bound = bound.parse::<f64>().unwrap().to_string();
            }
            (sample.name, sample.labels)
        });
        // Those of scrapes appear with the first of them.
        names.filter(|(_, labels)| labels.get("route").is_none_or(|route| route != "/metrics")).collect::<BTreeSet<_>>()
    };
    assert_eq!(series(plain.body), series(open.body));
}

#[test]
fn decisions_are_measured_by_interface_and_code() {
    let server = Server::start();
    let name = "tollgate_decision_duration_seconds_count";
    let count =
        |interface: &str, code: &str| Scrape::of(&server).value(name, &[("interface", interface), ("code", code)]);
    // A series that exists from the start has a first increase that can be seen.
    assert_eq!(count("is_authorized", "permitted"), Some(0.0));
    let (good, bad) = (question("alice", "openai-main/gpt-4o"), question("alice", "openai-main/gpt-4o-mini"));
    server.post("/is_authorized", &good);
    server.post("/is_authorized/batch", &format!(r#"{{"requests": [{good}, {bad}]}}"#));
    assert_eq!(count("is_authorized", "permitted"), Some(2.0));
    assert_eq!(count("is_authorized", "forbidden_by_rule"), Some(1.0));
    let agent = r#"{"principal": "User::\"alice\"", "action": "Action::\"chat\"", "resource": "Model::\"openai-main/gpt-4o\"", "context": {}}"#;
    let answer = server.post("/v1/is_authorized", agent);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(count("cedar_agent", "permitted"), Some(1.0));
    // A list of candidates is one decision. A malformed request is not a decision.
    let list = r#"{"principal": {"type": "User", "id": "alice"}, "action": "chat", "candidates": ["Model::\"openai-main/gpt-4o\"", "Model::\"openai-main/gpt-4o-mini\""]}"#;
    assert_eq!(server.post("/is_authorized", list).status, 200);
    assert_eq!(server.post("/is_authorized", "{").status, 400);
    assert_eq!(count("is_authorized", "permitted"), Some(3.0));
    let scrape = Scrape::of(&server);
    let labels = [("interface", "is_authorized"), ("code", "permitted")];
    let sum = scrape.value("tollgate_decision_duration_seconds_sum", &labels).unwrap();
    assert!(sum > 0.0 && sum < 60.0, "in seconds: {sum}");
    // Buckets are cumulated, and the last has all.
    let le = [("interface", "is_authorized"), ("code", "permitted"), ("le", "+Inf")];
    assert_eq!(scrape.value("tollgate_decision_duration_seconds_bucket", &le), Some(3.0));
}

#[test]
fn requests_are_measured_by_route_and_status() {
    let server = with_everything();
    let file = server.temp.path().join("tollgate-data/administrator.key");
    let bearer = format!("Authorization: Bearer {}", std::fs::read_to_string(file).unwrap().trim());
    let json = "Content-Type: application/json";
    let name = "tollgate_http_request_duration_seconds_count";
    let body = r#"{"owner": "User::\"alice\""}"#;
    let full = hold("alice", 101);
    for (method, path, headers, body, method_label, route, status, label) in [
        (
            "POST",
            "/is_authorized",
            vec![json],
            question("alice", "openai-main/gpt-4o").as_str(),
            "POST",
            "/is_authorized",
            200,
            "200",
        ),
        ("POST", "/v1/keys", vec![json, &bearer], body, "POST", "/v1/keys", 201, "201"),
        ("POST", "/v1/keys", vec![json], body, "POST", "/v1/keys", 401, "401"),
        ("POST", "/is_authorized", vec![json], "{", "POST", "/is_authorized", 400, "400"),
        ("GET", "/v1/keys/secret-id", vec![&bearer], "", "GET", "/v1/keys/{id}", 404, "404"),
        ("HEAD", "/health/live", vec![], "", "GET", "/health/live", 200, "200"),
        ("GET", "/v1/users/secret-name/nothing", vec![], "", "other", "other", 404, "404"),
        ("DELETE", "/is_authorized", vec![], "", "other", "other", 405, "405"),
        // The configured status is not one of the usual ones.
        ("POST", "/is_authorized?status=map", vec![json], &full, "POST", "/is_authorized", 451, "other"),
    ] {
        let labels = [("method", method_label), ("route", route), ("status", label)];
        let before = Scrape::of(&server).value(name, &labels).unwrap_or(0.0);
        let answer = server.connect().request(method, path, &headers, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        let after = Scrape::of(&server);
        assert_eq!(after.value(name, &labels), Some(before + 1.0), "{method} {path}: {}", after.text);
    }
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.value("tollgate_http_responses_total", &[("status", "451")]), Some(1.0));
    assert_eq!(scrape.value("tollgate_http_responses_total", &[("status", "503")]), Some(0.0));
    // No label has a path as it was sent, a principal or a model.
    for text in ["secret-id", "secret-name", "User::", "gpt-4o"] {
        let shown = scrape.samples.iter().any(|sample| sample.labels.values().any(|value| value.contains(text)));
        assert!(!shown, "{text}: {}", scrape.text);
    }
}

#[test]
fn operations_of_a_store_are_measured_and_its_loss_is_seen() {
    let Some(mut redis) = redis_server::Server::start(&[]) else { return };
    let config = format!("meters: {{ redis: {{ url: 'redis://127.0.0.1:{}', timeout_ms: 2000 }} }}\n", redis.port);
    let server = Setup::new().file("limits.yaml", LIMITS).config(&config).start();
    let count = |operation: &str, outcome: &str| {
        let labels = [("store", "meters"), ("operation", operation), ("outcome", outcome)];
        let name = "tollgate_store_operation_duration_seconds_count";
        Scrape::of(&server).value(name, &labels).unwrap_or(0.0)
    };
    let ask = |tokens| server.post("/is_authorized", &hold("alice", tokens)).json();
    server.until("the store answers", |_| ask(1)["code"] == "permitted");
    let held = ask(1);
    assert!(count("hold", "ok") >= 2.0);
    let id = held["reservation"]["id"].as_str().unwrap();
    server
        .post("/settle", &json!({ "reservation": id, "usage": { "input_tokens": 1, "output_tokens": 0 } }).to_string());
    let settled = Scrape::of(&server);
    assert!(settled.text.contains("operation=\"settle\",outcome=\"ok\""), "{}", settled.text);
    assert_eq!(ask(1000)["code"], "budget_exceeded");
    assert_eq!(count("hold", "refused"), 1.0);
    assert_eq!(settled.value("tollgate_store_up", &[("store", "meters")]), Some(1.0));
    let in_flight =
        |server: &Server| Scrape::of(server).value("tollgate_store_operations_in_flight", &[("store", "meters")]);
    server.until("operations in the background end", |server| in_flight(server) == Some(0.0));
    redis.kill();
    assert_eq!(ask(1)["code"], "store_unavailable");
    assert!(count("hold", "unavailable") >= 1.0 || count("look", "unavailable") >= 1.0, "{}", Scrape::of(&server).text);
    server.until("the store is known to be down", |server| {
        Scrape::of(server).value("tollgate_store_up", &[("store", "meters")]) == Some(0.0)
    });
    assert!(Scrape::of(&server).value("tollgate_decisions_total", &[("code", "store_unavailable")]).unwrap() >= 1.0);
}

#[test]
fn outgoing_requests_and_queues_are_measured() {
    let server = with_everything();
    let scrape = Scrape::of(&server);
    for (limit, label, name) in [
        ("tollgate_queue_limit", "queue", "alerts"),
        ("tollgate_queue_limit", "queue", "checkpoints"),
        ("tollgate_queue_limit", "queue", "password_checks"),
        ("tollgate_queue_limit", "queue", "store_fallback"),
        ("tollgate_queue_limit_bytes", "queue", "decision_log"),
        ("tollgate_pool_limit", "pool", "connections"),
        ("tollgate_pool_limit", "pool", "explanations"),
        ("tollgate_pool_limit", "pool", "usage_reports"),
    ] {
        assert!(scrape.value(limit, &[(label, name)]).is_some_and(|limit| limit >= 1.0), "{name}: {}", scrape.text);
    }
    // The provider is asked, and does not answer.
    let asked = question("alice", "openai-main/gpt-4o").replace(
        r#""principal": {"type": "User", "id": "alice"}"#,
        r#""credential": {"bearer": "a-token-of-the-company"}"#,
    );
    assert_eq!(server.post("/is_authorized", &asked).json()["code"], "provider_unavailable");
    let name = "tollgate_outgoing_request_duration_seconds_count";
    let provider = [("purpose", "identity"), ("provider", "company"), ("outcome", "error")];
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.value(name, &provider), Some(1.0), "{}", scrape.text);
    assert_eq!(scrape.value("tollgate_provider_up", &[("provider", "company")]), Some(0.0));
    // An alert waits, is tried twice, and is given up.
    server.post("/is_authorized", &hold("alice", 60));
    let alert = [("purpose", "alerts"), ("outcome", "error")];
    server.until("the alert is given up", |server| {
        let scrape = Scrape::of(server);
        scrape.value("tollgate_alerts_total", &[("outcome", "failed")]) == Some(1.0)
            && scrape.value(name, &alert) == Some(2.0)
    });
    // Connections are those that are open, this one among them.
    let open = |server: &Server| Scrape::of(server).value("tollgate_pool_in_use", &[("pool", "connections")]);
    server.until("others are closed", |server| open(server) == Some(1.0));
    let held: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    server.until("all are accepted", |server| open(server) == Some(4.0));
    drop(held);
    server.until("they are closed", |server| open(server) == Some(1.0));
}

/// The metrics and labels in an expression of PromQL.
fn metrics_of(expression: &str) -> Vec<(String, Vec<String>)> {
    let starts = expression.match_indices("tollgate_").map(|(at, _)| at);
    let starts = starts.filter(|at| !expression[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
    starts
        .map(|at| {
            let end = expression[at..]
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .map_or(expression.len(), |end| at + end);
            let matchers =
                expression[end..].strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(all, _)| all);
            let label = |matcher: &str| matcher.trim().split(['=', '!']).next().unwrap().to_owned();
            let labels = matchers.split("\",").filter(|matcher| !matcher.trim().is_empty()).map(label).collect();
            (expression[at..end].to_owned(), labels)
        })
        .collect()
}

/// The labels by which an expression groups.
fn grouped_by(expression: &str) -> Vec<String> {
    let lists = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(',').map(|label| label.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// Every expression of the alerts and of the dashboard, with its place.
fn expressions() -> Vec<(String, String)> {
    let alerts: Value =
        serde_yaml::from_str(&std::fs::read_to_string(packaging("prometheus/alerts.yaml")).unwrap()).unwrap();
    let rules = alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let of_rule =
        |rule: &Value| (rule["alert"].as_str().unwrap().to_owned(), rule["expr"].as_str().unwrap().to_owned());
    let mut found: Vec<_> = rules.map(of_rule).collect();
    let board: Value =
        serde_json::from_str(&std::fs::read_to_string(packaging("grafana/tollgate.json")).unwrap()).unwrap();
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().into_iter().flatten();
        found.extend(targets.map(|target| (title.to_owned(), target["expr"].as_str().unwrap().to_owned())));
    }
    let variables = board["templating"]["list"].as_array().unwrap().iter();
    found.extend(variables.filter_map(|one| Some(("variable".to_owned(), one["query"].as_str()?.to_owned()))));
    found
}

#[test]
fn every_metric_of_the_alerts_and_the_dashboard_exists() {
    let server = with_everything();
    server.post("/is_authorized", &hold("alice", 60));
    let scrape = Scrape::of(&server);
    let names = scrape.names();
    let mut used = BTreeSet::new();
    for (place, expression) in expressions() {
        let metrics = metrics_of(&expression);
        let mut labels: BTreeSet<String> = ["job", "instance", "le"].map(ToOwned::to_owned).into();
        for (name, matched) in &metrics {
            assert!(names.contains(name), "{place}: no metric {name}: {expression}");
            let of_name: BTreeSet<String> = scrape
                .samples
                .iter()
                .filter(|sample| sample.name == *name)
                .flat_map(|sample| sample.labels.keys().cloned())
                .collect();
            for label in matched.iter().filter(|label| !["job", "instance"].contains(&label.as_str())) {
                assert!(of_name.contains(label), "{place}: {name} has no label {label}: {expression}");
            }
            labels.extend(of_name);
            used.insert(name.clone());
        }
        for label in grouped_by(&expression) {
            assert!(labels.contains(&label), "{place}: no metric has the label {label}: {expression}");
        }
    }
    // The dashboard shows every family but those with the same numbers as another, and the number of rules.
    let shown = |family: &&String| {
        let suffixes = ["", "_bucket", "_count"];
        suffixes.iter().any(|suffix| used.contains(&format!("{family}{suffix}")))
    };
    let hidden: Vec<_> = scrape.kinds.keys().filter(|family| !shown(family)).collect();
    assert_eq!(hidden, ["tollgate_alerts_waiting", "tollgate_bundle_rules", "tollgate_decision_log_queue_bytes"]);
}

#[test]
fn promtool_takes_the_alerts() {
    let folder = packaging("prometheus");
    for arguments in [
        &["check", "rules", "alerts.yaml"][..],
        &["test", "rules", "alerts.test.yaml"],
        &["check", "config", "--syntax-only", "prometheus.yaml"],
    ] {
        accepted(arguments, &folder, "");
    }
}

#[test]
fn the_manual_has_every_metric_and_every_alert() {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let server = with_everything();
    for family in Scrape::of(&server).kinds.keys() {
        assert!(manual.contains(&format!("`{family}`")), "docs/operations.md has no {family}");
    }
    let alerts = std::fs::read_to_string(packaging("prometheus/alerts.yaml")).unwrap();
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(manual.contains(&format!("`{alert}`")), "docs/operations.md has no {alert}");
    }
}
