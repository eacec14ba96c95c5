//! What tells how the server is: readiness, health checks while there is no room, metrics of statuses.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Client, Server, Setup, question};

/// How many responses there were of each status.
fn statuses(server: &Server) -> BTreeMap<u16, u64> {
    let metrics = server.get("/metrics").body;
    let line = |line: &str| {
        let (status, count) = line.strip_prefix("tollgate_http_responses_total{status=\"")?.split_once("\"} ")?;
        Some((status.parse().unwrap(), count.parse().unwrap()))
    };
    metrics.lines().filter_map(line).collect()
}

fn metric(server: &Server, line: &str) -> Option<u64> {
    let metrics = server.get("/metrics").body;
    metrics.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok())
}

/// The key that the first start makes: in a file of the data directory, or printed.
fn administrator(server: &Server) -> String {
    let files = std::fs::read_dir(server.temp.path().join("tollgate-data")).unwrap();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let key = |text: String| text.split_whitespace().find(|word| word.starts_with("tg_")).map(ToOwned::to_owned);
    texts.chain([server.log()]).find_map(key).expect("an administrator's key")
}

#[test]
fn every_response_is_counted_under_its_own_status() {
    let server = Server::start();
    let key = administrator(&server);
    let bearer = format!("Authorization: Bearer {key}");
    let mut seen = BTreeMap::new();
    for (path, method) in tollgate::edge::http::routes() {
        let path = path.replace("{id}", "nothing").replace("{user}", "nobody");
        for (body, headers) in [
            ("", vec![]),
            ("{", vec!["Content-Type: application/json"]),
            (r#"{"owner": "User::\"alice\""}"#, vec!["Content-Type: application/json", bearer.as_str()]),
        ] {
            let before = statuses(&server);
            // Of the two readings, the first is counted too.
            let answer = server.connect().request(method, &path, &headers, body.as_bytes());
            let after = statuses(&server);
            for (status, count) in &after {
                let expected = u64::from(*status == answer.status) + u64::from(*status == 200);
                let was = before.get(status).copied().unwrap_or(0);
                assert_eq!(count - was, expected, "{method} {path} answered {}: {status}", answer.status);
            }
            assert!(after.contains_key(&answer.status), "{method} {path} answered {}", answer.status);
            *seen.entry(answer.status).or_insert(0) += 1;
        }
    }
    // A key was made, and much else was refused.
    for status in [200, 201, 400, 401, 404] {
        assert!(seen.contains_key(&status), "{seen:?}");
    }
    // What is no HTTP is answered before any route sees it.
    for (bytes, status) in
        [("hello\r\n\r\n".to_owned(), 400), (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(40_000)), 431)]
    {
        let before = statuses(&server).get(&status).copied().unwrap_or(0);
        let mut client = server.connect();
        let _ = client.try_send(bytes.as_bytes());
        assert_eq!(client.read().map_or(status, |answer| answer.status), status);
        server.until("it is counted", |server| statuses(server).get(&status).copied().unwrap_or(0) > before);
    }
}

#[test]
fn a_health_check_is_answered_while_there_is_no_room() {
    let server = Setup::new().config("limits: { connections: 2 }\n").start();
    let mut busy: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for client in &mut busy {
        assert_eq!(client.request("GET", "/version", &[], b"").status, 200);
    }
    for path in ["/health/live", "/health/ready"] {
        for _ in 0..100 {
            let answer = server.get(path);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.head.to_ascii_lowercase().contains("connection: close"), "{answer:?}");
        }
    }
    // Also while more connections than are looked at say nothing, and others wait for room.
    let silent: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    let mut waiting: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    }
    assert_eq!(server.get("/health/live").status, 200);
    drop(silent);
    drop(busy);
    for mut client in waiting {
        assert_eq!(client.read().expect("an answer").status, 200);
    }
}

#[test]
fn health_has_a_listener_of_its_own() {
    let server = Setup::new().config("listen_health: '127.0.0.1:0'\n").start();
    let log = server.log();
    let line = log.lines().find(|line| line.contains("health checks")).expect("where health checks are answered");
    let address = line.split_once("http://").unwrap().1.split('/').next().unwrap().parse().unwrap();
    let ask = |method: &str, path: &str| Client::connect(address).request(method, path, &[], b"").status;
    assert_eq!((ask("GET", "/health/live"), ask("GET", "/health/ready"), ask("HEAD", "/health/live")), (200, 200, 200));
    for path in ["/metrics", "/bundle", "/is_authorized", "/version", "/health/", "/"] {
        assert_eq!((ask("GET", path), ask("POST", path)), (404, 404), "{path}");
    }
    // Nobody else reaches it.
    for address in ["0.0.0.0:0", "192.0.2.1:8182", "[::]:0"] {
        let (code, said) = Setup::new().config(&format!("listen_health: '{address}'\n")).fail();
        assert!(code == Some(2) && said.contains("listen_health"), "{said}");
    }
}

/// The health check of the image, as it stands in the Dockerfile, with the variables of the image.
#[test]
fn the_health_check_of_the_image_works_with_tls_and_client_certificates() {
    let dockerfile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile")).unwrap();
    let joined = dockerfile.replace("\\\n", " ");
    let lines = || joined.lines().map(str::trim);
    let environment = lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(str::split_whitespace);
    let mut environment: BTreeMap<String, String> =
        environment.filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect();
    let check = lines().find(|line| line.starts_with("HEALTHCHECK")).expect("a health check");
    let check = check.split_once("CMD ").expect("a command").1.to_owned();
    // Ports of this test's own.
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    environment.insert("TOLLGATE_LISTEN".into(), free());
    environment.insert("TOLLGATE_LISTEN_HEALTH".into(), free());
    let healthy = |environment: &BTreeMap<String, String>| {
        Command::new("sh").args(["-c", &check]).envs(environment).output().unwrap().status.success()
    };
    assert!(!healthy(&environment), "nothing answers yet");
    let temp = tempfile::TempDir::new().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(temp.path().join("server.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(temp.path().join("server.key"), key.serialize_pem()).unwrap();
    let mut setup = Setup::new()
        .argument("--listen")
        .argument(&environment["TOLLGATE_LISTEN"])
        .variable("TOLLGATE_TLS_CERTIFICATE_FILE", "server.pem")
        .variable("TOLLGATE_TLS_KEY_FILE", "server.key")
        .variable("TOLLGATE_TLS_CLIENT_CA_FILE", "server.pem")
        .variable("TOLLGATE_TLS_CLIENT_CERTIFICATES", "required");
    setup = setup.variable("TOLLGATE_LISTEN_HEALTH", &environment["TOLLGATE_LISTEN_HEALTH"]);
    let server = setup.start_in(temp);
    assert!(healthy(&environment), "{check}: {}", server.log());
    drop(server);
    assert!(!healthy(&environment));
}

#[test]
fn a_bundle_that_does_not_load_is_told_as_a_reason() {
    let server = Server::start();
    let ready = || server.get("/health/ready");
    let told = ready().json();
    assert_eq!((&told["status"], &told["degraded"], &told["reasons"]), (&json!("ready"), &json!(false), &json!([])));
    std::fs::write(server.policies().join("more.yaml"), "authz_rules: [{ users: [a] }]\n").unwrap();
    server.until("it does not load", |server| server.get("/health/ready").json()["degraded"] == true);
    let answer = ready();
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("degraded")));
    assert!(answer.json()["reasons"][0].as_str().unwrap().contains("bundle"), "{answer:?}");
    let empty = Setup::without_files().file("a.yaml", "x: 1\n").start();
    let answer = empty.get("/health/ready");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("no_bundle")));
}

#[test]
fn stores_and_providers_that_are_away_are_told() {
    // Nobody listens there; the server starts all the same.
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "meters: {{ redis: {{ url: 'redis://{nowhere}', timeout_ms: 200 }} }}
identity:
  providers:
    - name: company
      delegated: {{ url: 'http://{nowhere}/auth' }}
    - name: okta
      jwt: {{ issuers: [{{ issuer: 'http://{nowhere}', audiences: [x] }}] }}
"
    );
    let server = Setup::new().config(&config).start();
    let has = |server: &Server, part: &str| -> bool {
        let reasons = server.get("/health/ready").json()["reasons"].clone();
        reasons.as_array().unwrap().iter().any(|reason: &Value| reason.as_str().unwrap().contains(part))
    };
    server
        .until("the store and the issuer are known to be away", |server| has(server, "meters") && has(server, "okta"));
    assert!(!has(&server, "company"), "nobody has asked it yet");
    let body = question("alice", "openai-main/gpt-4o").replace(
        r#""principal": {"type": "User", "id": "alice"}"#,
        r#""credential": {"bearer": "a-token-of-the-company"}"#,
    );
    assert_eq!(server.post("/is_authorized", &body).status, 200);
    let answer = server.get("/health/ready");
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("degraded")), "{answer:?}");
    assert!(has(&server, "company"), "{answer:?}");
    assert!(!answer.body.contains(&nowhere.to_string()), "everybody reads it: {answer:?}");
    for (line, up) in [
        ("tollgate_store_up{store=\"meters\"}", 0),
        ("tollgate_provider_up{provider=\"company\"}", 0),
        ("tollgate_provider_up{provider=\"okta\"}", 0),
    ] {
        assert_eq!(metric(&server, line), Some(up), "{line}");
    }
    let well = Server::start();
    for line in ["tollgate_store_up{store=\"meters\"}", "tollgate_store_up{store=\"keys\"}"] {
        assert_eq!(metric(&well, line), Some(1), "{line}");
    }
}

#[test]
fn a_full_disk_is_told_until_it_is_written_to_again() {
    let limits = "limits: [{ id: money, users: \"*\", durability: sync, budget: { tokens: 100, every: total } }]\n";
    let server = Setup::new().file("limits.yaml", limits).outlives_full_disks().start();
    let hold = |server: &Server| {
        let body = question("alice", "openai-main/gpt-4o");
        let body = body.strip_suffix('}').unwrap();
        let body = format!(r#"{body}, "reserve": {{"input_tokens": 1, "output_tokens": 1}}}}"#);
        server.post("/is_authorized", &body).json()["code"].as_str().map(ToOwned::to_owned)
    };
    assert_eq!(hold(&server).as_deref(), Some("permitted"));
    server.fill_disk(true);
    assert_eq!(hold(&server).as_deref(), Some("store_unavailable"));
    let told = server.get("/health/ready");
    assert_eq!((told.status, &told.json()["degraded"]), (200, &json!(true)), "{told:?}");
    assert_eq!(metric(&server, "tollgate_store_up{store=\"meters\"}"), Some(0));
    server.fill_disk(false);
    server.until("it is written to again", |server| {
        let _ = hold(server);
        server.get("/health/ready").json()["degraded"] == false
    });
}
