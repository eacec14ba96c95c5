//! Alerts as they are posted: signed, once a period, sent again where that helps, and never more than may wait.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::receiver::{Post, SECRET, serve, take};
use crate::support::{DEADLINE, Server, Setup};

const BUNDLE: &str = r#"
authz_rules: [{ users: "*", models: "*" }]
limits:
  - { id: tokens, users: "*", each: user, budget: { tokens: 100, every: total }, warn_at: [50, 80] }
"#;

/// Takes posts, and answers each with the next of `statuses`, and with 200 once they are over.
fn listener(statuses: &[u16]) -> (u16, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, serve(listener, statuses))
}

fn server(port: u16, more: &str) -> Server {
    let config = format!(
        "alerts:\n  webhook:\n    url: http://127.0.0.1:{port}/hook?key=hidden\n    secret_file: secret\n    node: one\n    pause_ms: 20\n{more}"
    );
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("secret"), format!("{SECRET}\n")).unwrap();
    Setup::new().file("bundle.yaml", BUNDLE).config(&config).start_in(temp)
}

fn hold(server: &Server, who: &str, tokens: u64) -> Value {
    let body = json!({
        "principal": { "type": "User", "id": who }, "action": "chat", "resource": "Model::\"open/x\"",
        "reserve": { "input_tokens": tokens, "output_tokens": 0 },
    });
    server.post("/is_authorized", &body.to_string()).json()
}

fn counted(server: &Server, what: &str) -> bool {
    server.get("/metrics").body.lines().any(|line| line == what)
}

#[test]
fn an_alert_is_signed_and_told_once_a_period() {
    let (port, posts) = listener(&[]);
    let server = server(port, "");
    for tokens in [49, 1, 1, 28, 1, 1, 1] {
        hold(&server, "alice", tokens);
    }
    let first = posts.recv_timeout(DEADLINE).unwrap();
    first.check();
    let mut body = first.json();
    let id = body["id"].take();
    assert!(id.as_str().unwrap().starts_with("a-"));
    let at = body["at"].take();
    assert!(at.as_str().unwrap().ends_with('Z'));
    let revision = server.get("/bundle").json()["revision"].clone();
    let expected = json!({
        "event": "limit_warning", "id": null, "limit": "tokens", "meter": "User::\"alice\"", "percent": 50,
        "unit": "tokens", "amounts": { "limit": "100", "used": "0", "held": "50", "remaining": "50" },
        "resets_at": null, "at": null, "revision": revision, "node": "one",
    });
    assert_eq!(body, expected);
    let second = posts.recv_timeout(DEADLINE).unwrap();
    second.check();
    assert_eq!(second.json()["percent"], 80);
    assert_ne!(second.json()["id"], id);
    // Another meter has alerts of its own; what comes next is of it, and nothing came in between.
    hold(&server, "bob", 60);
    assert_eq!(posts.recv_timeout(DEADLINE).unwrap().json()["meter"], "User::\"bob\"");
    server.until("all are counted", |server| counted(server, "tollgate_alerts_total{outcome=\"delivered\"} 3"));
    assert!(posts.try_recv().is_err());
    assert!(!server.log().contains(SECRET) && !server.log().contains("hidden"), "{}", server.log());
}

#[test]
fn what_a_call_used_beyond_what_it_held_is_told_when_it_is_settled() {
    let (port, posts) = listener(&[]);
    let server = server(port, "");
    let settle = |held: &Value, used: u64| {
        let usage =
            json!({ "reservation": held["reservation"]["id"], "usage": { "input_tokens": used, "output_tokens": 0 } });
        assert_eq!(server.post("/settle", &usage.to_string()).status, 200);
    };
    let [first, second] = [10, 10].map(|tokens| hold(&server, "alice", tokens));
    settle(&first, 40);
    let told = posts.recv_timeout(DEADLINE).unwrap().json();
    assert_eq!((&told["percent"], &told["meter"]), (&json!(50), &json!("User::\"alice\"")));
    assert_eq!((&told["amounts"]["used"], &told["amounts"]["held"]), (&json!("40"), &json!("10")));
    // Sent again, settled without crossing anything, and held anew: it was told in this period.
    settle(&first, 40);
    settle(&second, 15);
    hold(&server, "alice", 1);
    let third = hold(&server, "alice", 1);
    settle(&third, 30);
    assert_eq!(posts.recv_timeout(DEADLINE).unwrap().json()["percent"], 80);
    for percent in [50, 80] {
        let metric = format!("tollgate_limit_warnings_total{{limit=\"tokens\",percent=\"{percent}\"}} 1");
        assert!(counted(&server, &metric), "{}", server.get("/metrics").body);
    }
    server.until("it is logged", |server| {
        server.log().contains("limit tokens of User::\"alice\" has reached 50 %: 50 of 100")
    });
}

#[test]
fn what_fails_is_sent_again_and_what_is_refused_is_not() {
    let (port, posts) = listener(&[500, 429, 200, 400]);
    let server = server(port, "");
    hold(&server, "alice", 60);
    let tries: Vec<Post> = (0..3).map(|_| posts.recv_timeout(DEADLINE).unwrap()).collect();
    for again in &tries {
        again.check();
        assert_eq!(again.body, tries[0].body, "the same alert");
    }
    hold(&server, "bob", 60);
    assert_eq!(posts.recv_timeout(DEADLINE).unwrap().json()["meter"], "User::\"bob\"");
    server.until("it is counted", |server| counted(server, "tollgate_alerts_total{outcome=\"failed\"} 1"));
    assert!(counted(&server, "tollgate_alerts_total{outcome=\"delivered\"} 1"));
    assert!(counted(&server, "tollgate_alert_retries_total 2"));
    server.until("it is logged", |server| server.log().contains("was not taken: it was answered with 400"));
}

#[test]
fn an_alert_waits_for_who_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let server = server(port, "    attempts: 100\n");
    let decided = hold(&server, "alice", 60);
    assert_eq!(decided["decision"], "permit", "nobody waits for alerts");
    server.until("it was tried", |server| !counted(server, "tollgate_alert_retries_total 0"));
    let posts = serve(TcpListener::bind(("127.0.0.1", port)).unwrap(), &[]);
    posts.recv_timeout(DEADLINE).unwrap().check();
}

#[test]
fn a_full_queue_drops_the_oldest() {
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut server = server(port, "    queue: 2\n    timeout_ms: 300000\n");
    hold(&server, "first", 60);
    let _kept = silent.accept().unwrap();
    for number in 0..5 {
        assert_eq!(hold(&server, &format!("user-{number}"), 60)["decision"], "permit");
    }
    assert!(counted(&server, "tollgate_alerts_total{outcome=\"dropped\"} 3"));
    assert!(counted(&server, "tollgate_alerts_waiting 3"));
    assert!(counted(&server, "tollgate_limit_warnings_total{limit=\"tokens\",percent=\"50\"} 6"));
    server.signal("TERM");
    assert!(server.wait().success());
    server.until("it says what is lost", |server| server.log().contains("3 alerts were not sent"));
}

#[test]
fn without_a_good_secret_it_does_not_start() {
    let url = "alerts: { webhook: { url: 'https://alerts.example.com/x' } }\n";
    let file = "alerts: { webhook: { url: 'https://alerts.example.com/x', secret_file: secret } }\n";
    let open = "alerts: { webhook: { url: 'http://alerts.example.com/x' } }\n";
    for (config, secret, said) in [
        (url, None, "needs a secret to sign with"),
        (file, None, "cannot be read"),
        (file, Some(""), "16 bytes long at least"),
        (file, Some("fifteen letters\n"), "16 bytes long at least"),
        (open, None, "expected https://"),
    ] {
        let temp = tempfile::TempDir::new().unwrap();
        if let Some(secret) = secret {
            std::fs::write(temp.path().join("secret"), secret).unwrap();
        }
        let (code, log) = Setup::new().config(config).fail_in(temp.path());
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(said) && !log.contains("fifteen"), "{log}");
    }
}

/// The authority of `tls/authority.pem` vouches for `localhost` with the key of `tls/server.key.der`, which is no secret:
/// `openssl req -x509 -newkey ec …`, and `openssl x509 -req -extfile <(echo subjectAltName=DNS:localhost) …`.
fn tls_listener() -> (u16, Receiver<Post>) {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs};
    let certificate = CertificateDer::from(&include_bytes!("tls/server.der")[..]);
    let key = PrivatePkcs8KeyDer::from(&include_bytes!("tls/server.key.der")[..]);
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate], key.into()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, posts) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            if let Some(post) = take(StreamOwned::new(connection, stream), 200)
                && sender.send(post).is_err()
            {
                return;
            }
        }
    });
    (port, posts)
}

#[test]
fn over_tls_only_who_is_vouched_for_is_told() {
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/tls/authority.pem");
    let start = |host: &str, port: u16| {
        let url = format!("https://{host}:{port}/hook");
        let setup = Setup::new().file("bundle.yaml", BUNDLE).config("alerts: { webhook: { attempts: 1 } }\n");
        let setup = setup.variable("TOLLGATE_ALERTS_WEBHOOK_URL", &url).variable("SSL_CERT_FILE", authority);
        setup.variable("TOLLGATE_ALERTS_WEBHOOK_SECRET", SECRET).start()
    };
    let (port, posts) = tls_listener();
    let server = start("localhost", port);
    hold(&server, "alice", 60);
    posts.recv_timeout(DEADLINE).unwrap().check();
    let (port, posts) = tls_listener();
    let server = start("127.0.0.1", port);
    hold(&server, "alice", 60);
    server.until("it is refused", |server| counted(server, "tollgate_alerts_total{outcome=\"failed\"} 1"));
    server.until("why is logged", |server| server.log().contains("certificate"));
    assert!(posts.try_recv().is_err());
}
