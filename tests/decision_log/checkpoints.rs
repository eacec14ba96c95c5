//! Checkpoints that are sent to a webhook. The checkpoints that a receiver stored reveal a cut of the log's end, also after
//! crashes of the server and of the receiver.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::crash::change;
use crate::receiver::{Post, Receiver, SECRET};
use crate::support::{DEADLINE, Server, Setup, question};
use crate::{folder, lines, log, stop};

fn setup(port: u16, more: &str) -> Setup {
    let url = format!("http://127.0.0.1:{port}/checkpoints?token=hidden");
    let webhook = format!("{{ url: '{url}', secret_file: secret, pause_ms: 20{more} }}");
    let log = format!("decision_log: {{ level: all, checkpoints: {{ webhook: {webhook} }} }}\n");
    Setup::new().config(&format!("alerts: {{ webhook: {{ node: one }} }}\nmeters: {{ in_memory: true }}\n{log}"))
}

fn with_secret() -> TempDir {
    let temp = TempDir::new().unwrap();
    std::fs::write(temp.path().join("secret"), SECRET).unwrap();
    temp
}

fn start(port: u16, more: &str) -> Server {
    setup(port, more).start_in(with_secret())
}

fn ask(server: &Server) {
    assert_eq!(server.post("/is_authorized", &question("alice", "openai-main/gpt-4o")).json()["decision"], "permit");
}

/// Makes as many decisions as take a checkpoint at once.
fn ask_many(server: &Server) {
    let requests = vec![question("alice", "openai-main/gpt-4o"); 1_000].join(",");
    assert_eq!(server.post("/is_authorized/batch", &format!("{{\"requests\": [{requests}]}}")).status, 200);
}

fn counted(server: &Server, line: &str) -> bool {
    server.get("/metrics").body.lines().any(|known| known == line)
}

/// Stores the bodies as a receiver would: one after the other in a file.
fn store(temp: &Path, posts: &[Post]) -> PathBuf {
    let path = temp.join("received.jsonl");
    let bodies: Vec<&[u8]> = posts.iter().map(|post| post.body.as_slice()).collect();
    std::fs::write(&path, bodies.concat()).unwrap();
    path
}

fn verify(folder: &Path, received: &Path) -> (i32, String) {
    log(folder, &["verify", "--checkpoint", received.to_str().unwrap()])
}

fn assert_cut_is_found(folder: &Path, received: &Path, kept: usize) {
    change(folder, |lines| lines.truncate(kept));
    assert_eq!(log(folder, &["verify"]).0, 0, "the log alone does not show it");
    let (code, told) = verify(folder, received);
    assert_eq!((code, told.contains("the log ends here")), (1, true), "{told}");
}

#[test]
fn a_receiver_that_stores_signed_checkpoints_finds_a_cut_tail() {
    let receiver = Receiver::start(0, &[]);
    let mut server = start(receiver.port, "");
    ask(&server);
    let first = receiver.posts.recv_timeout(DEADLINE).unwrap();
    first.check();
    assert!(first.body.ends_with(b"}\n"), "bodies can be appended to one file");
    let mut members = first.json();
    for name in ["seq", "prev", "at", "file", "size", "root"] {
        assert!(!members[name].take().is_null(), "{name}");
    }
    let expected = json!({
        "v": 1, "seq": null, "prev": null, "at": null, "event": "checkpoint", "node": "one", "file": null,
        "size": null, "root": null,
    });
    assert_eq!(members, expected);
    stop(&mut server);
    let mut posts = vec![first];
    posts.extend(receiver.stop());
    let folder = folder(server.temp.path());
    let written = lines(&folder);
    assert_eq!(posts.last().unwrap().json(), *written.last().unwrap(), "the log ends with a checkpoint, which is sent");
    let received = store(server.temp.path(), &posts);
    let (code, told) = verify(&folder, &received);
    assert_eq!(code, 0, "{told}");
    assert_cut_is_found(&folder, &received, written.len() - 2);
    assert!(!server.log().contains(SECRET) && !server.log().contains("hidden"), "{}", server.log());
}

#[test]
fn crashes_of_the_server_and_of_the_receiver_lose_no_evidence() {
    let receiver = Receiver::start(0, &[]);
    let port = receiver.port;
    let server = start(port, ", attempts: 100");
    ask(&server);
    let mut posts = vec![receiver.posts.recv_timeout(DEADLINE).unwrap()];
    server.until("the first is counted", |server| {
        counted(server, "tollgate_decision_log_checkpoints_total{outcome=\"delivered\"} 1")
    });
    posts.extend(receiver.stop());
    // The receiver is away: decisions and the log go on.
    ask(&server);
    server.until("an attempt fails", |server| {
        let body = server.get("/metrics").body;
        body.contains("\ntollgate_decision_log_checkpoint_retries_total ")
            && !body.contains("\ntollgate_decision_log_checkpoint_retries_total 0\n")
    });
    assert!(counted(&server, "tollgate_decision_log_stopped 0"));
    // The server is killed with a checkpoint that was not delivered, and both come back.
    let temp = server.crash();
    let receiver = Receiver::start(port, &[]);
    let mut server = setup(port, ", attempts: 100").start_in(temp);
    ask(&server);
    let newest = receiver.posts.recv_timeout(DEADLINE).unwrap();
    newest.check();
    posts.push(newest);
    stop(&mut server);
    posts.extend(receiver.stop());
    let folder = folder(server.temp.path());
    let received = store(server.temp.path(), &posts);
    let (code, told) = verify(&folder, &received);
    assert_eq!(code, 0, "{told}");
    let written = lines(&folder);
    assert_eq!(written.iter().filter(|line| line["event"] == "start").count(), 2);
    // Cut to the state at the crash: the log alone looks like one whose server was not started again.
    let second_start = written.iter().rposition(|line| line["event"] == "start").unwrap();
    assert_cut_is_found(&folder, &received, second_start);
    // A server that continues the cut log makes other lines under the numbers that the receiver knows.
    let mut server =
        setup(port, ", attempts: 1").start_in(std::mem::replace(&mut server.temp, TempDir::new().unwrap()));
    ask_many(&server);
    stop(&mut server);
    let (code, told) = verify(&folder, &received);
    assert_eq!((code, told.contains("differs from the checkpoint that was kept elsewhere")), (1, true), "{told}");
}

#[test]
fn a_checkpoint_that_is_refused_is_logged_and_counted() {
    let receiver = Receiver::start(0, &[503, 429, 400]);
    let server = start(receiver.port, "");
    ask(&server);
    let attempts: Vec<Value> = (0..3).map(|_| receiver.posts.recv_timeout(DEADLINE).unwrap().json()).collect();
    assert!(attempts.iter().all(|attempt| *attempt == attempts[0]), "the same checkpoint");
    server.until("it is counted", |server| {
        counted(server, "tollgate_decision_log_checkpoints_total{outcome=\"failed\"} 1")
    });
    assert!(counted(&server, "tollgate_decision_log_checkpoint_retries_total 2"));
    // The log has the whole checkpoint, so that a collector of the log can store it.
    let root = attempts[0]["root"].as_str().unwrap();
    server.until("it is logged", |server| {
        let log = server.log();
        log.contains("was not delivered: it was answered with 400") && log.contains(root)
    });
    ask(&server);
    assert_ne!(receiver.posts.recv_timeout(DEADLINE).unwrap().json(), attempts[0], "the next one is sent");
}

#[test]
fn in_a_full_queue_newer_checkpoints_replace_older_ones_and_no_decision_waits() {
    // Accepts connections and does not answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = start(silent.local_addr().unwrap().port(), ", queue: 2, timeout_ms: 300000");
    ask(&server);
    let _unanswered = silent.accept().unwrap();
    server.until("some are dropped", |server| {
        ask_many(server);
        let body = server.get("/metrics").body;
        let count = body.lines().find_map(|line| {
            line.strip_prefix("tollgate_decision_log_checkpoints_total{outcome=\"dropped\"} ")?.parse::<u64>().ok()
        });
        count.is_some_and(|count| count >= 2)
    });
    assert!(counted(&server, "tollgate_queue_length{queue=\"checkpoints\"} 3"));
    assert!(counted(&server, "tollgate_queue_limit{queue=\"checkpoints\"} 2"));
    stop(&mut server);
    let log = server.log();
    assert_eq!(log.matches("was dropped: the queue of decision_log.checkpoints.webhook is full").count(), 1, "{log}");
    server
        .until("the rest is logged", |server| server.log().contains("3 checkpoints of the decision log were not sent"));
    assert_eq!(crate::log(&folder(server.temp.path()), &["verify"]).0, 0);
}

#[test]
fn a_file_and_a_webhook_get_the_same_checkpoints() {
    let receiver = Receiver::start(0, &[]);
    let temp = with_secret();
    let webhook = format!("{{ url: 'http://127.0.0.1:{}', secret_file: secret }}", receiver.port);
    let config = format!("decision_log: {{ level: all, checkpoints: {{ file: copy.jsonl, webhook: {webhook} }} }}\n");
    let mut server = Setup::new().config(&config).start_in(temp);
    ask(&server);
    stop(&mut server);
    let posts = receiver.stop();
    assert!(!posts.is_empty());
    let received = store(server.temp.path(), &posts);
    let copy = server.temp.path().join("copy.jsonl");
    assert_eq!(std::fs::read(received).unwrap(), std::fs::read(copy).unwrap());
}

#[test]
fn without_a_good_secret_it_does_not_start() {
    for (secret, expected) in [(None, "cannot be read"), (Some("short"), "16 bytes long at least")] {
        let temp = TempDir::new().unwrap();
        if let Some(secret) = secret {
            std::fs::write(temp.path().join("secret"), secret).unwrap();
        }
        let (code, log) = setup(9, "").fail_in(temp.path());
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(expected) && log.contains("tollgate.yaml:3:") && !log.contains("short"), "{log}");
    }
}
