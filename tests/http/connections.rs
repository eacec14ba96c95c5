//! Connections: what is no HTTP, what comes too slowly, and what is too much.

use std::time::{Duration, Instant};

use crate::support::{Client, Server, Setup, question};

const SHORT: &str = "limits: { header_timeout_ms: 2000, body_timeout_ms: 2000, idle_timeout_ms: 6000 }\n";

fn body() -> String {
    question("alice", "openai-main/gpt-4o")
}

fn head(extra: &str) -> String {
    format!("POST /is_authorized HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{extra}\r\n")
}

/// Whether nothing comes any more.
fn closed(client: &mut Client) -> bool {
    client.read().is_none()
}

#[test]
fn what_is_no_http_is_closed_on() {
    let server = Server::start();
    for (name, bytes, status) in [
        ("no request line", "hello\r\n\r\n".to_owned(), Some(400)),
        ("another protocol", "\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n".to_owned(), Some(400)),
        ("two lengths", format!("{}{}", head("Content-Length: 3\r\nContent-Length: 4\r\n"), "{}  "), Some(400)),
        ("a length that is none", head("Content-Length: 1e3\r\n"), Some(400)),
        ("a negative length", head("Content-Length: -1\r\n"), Some(400)),
        ("a folded header", head("X-A: b\r\n c\r\n"), Some(400)),
        ("a space before a colon", head("X-A : b\r\n"), Some(400)),
        ("an unknown transfer coding", head("Transfer-Encoding: gzip\r\n"), Some(400)),
        ("a head too long", head(&format!("X-A: {}\r\n", "a".repeat(40_000))), Some(431)),
        ("too many headers", head(&"X-A: b\r\n".repeat(200)), Some(431)),
        ("a path too long", format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000)), None),
        ("HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Some(400)),
    ] {
        let mut client = server.connect();
        let _ = client.try_send(bytes.as_bytes());
        let answer = client.read();
        match (status, &answer) {
            (Some(status), Some(answer)) => assert_eq!(answer.status, status, "{name}: {answer:?}"),
            (None, Some(answer)) => assert!((400..500).contains(&answer.status), "{name}: {answer:?}"),
            (_, None) => {}
        }
        assert!(closed(&mut client), "{name}");
    }
    let mut client = server.connect();
    client.send(head("Host: y\r\nContent-Length: 2\r\n").as_bytes());
    client.send(b"{}");
    assert!(client.read().unwrap().is_error(400, "invalid_request", ""));
}

#[test]
fn a_length_beside_chunks_is_passed_over_and_ends_the_connection() {
    let server = Server::start();
    let body = body();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for both in
        ["Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"]
    {
        let mut client = server.connect();
        client.send(format!("{}{chunked}", head(both)).as_bytes());
        assert_eq!(client.read().unwrap().json()["decision"], "permit");
        // Whoever passed it on by the length would have more to send: it is not taken for a request.
        let _ = client.try_send(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(closed(&mut client));
    }
}

#[test]
fn bodies_come_in_many_ways() {
    let server = Server::start();
    let body = body();
    let mut client = server.connect();
    // In chunks, one of them with an extension; then two requests at once; then byte by byte.
    let (first, second) = body.split_at(20);
    let chunks = format!("14;a=b\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
    client.send(format!("{}{chunks}", head("Transfer-Encoding: chunked\r\n")).as_bytes());
    assert_eq!(client.read().unwrap().json()["decision"], "permit");
    let whole = format!("{}{body}", head(&format!("Content-Length: {}\r\n", body.len())));
    client.send(format!("{whole}{whole}").as_bytes());
    for _ in 0..2 {
        assert_eq!(client.read().unwrap().json()["decision"], "permit");
    }
    for byte in whole.as_bytes() {
        client.send(std::slice::from_ref(byte));
    }
    assert_eq!(client.read().unwrap().json()["decision"], "permit");
    client.send(head(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len())).as_bytes());
    assert_eq!(client.read().unwrap().status, 100);
    client.send(body.as_bytes());
    assert_eq!(client.read().unwrap().json()["decision"], "permit");
    // HTTP/1.0, after which the connection closes.
    let mut old = server.connect();
    let old_head = format!(
        "POST /is_authorized HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    old.send(format!("{old_head}{body}").as_bytes());
    assert_eq!(old.read().unwrap().json()["decision"], "permit");
    assert!(closed(&mut old));
    // Cut off within a chunk.
    let mut cut = server.connect();
    cut.send(format!("{}14\r\n{{\"principal\"", head("Transfer-Encoding: chunked\r\n")).as_bytes());
    cut.finish_sending();
    assert!(cut.read().is_none_or(|answer| answer.is_error(400, "invalid_request", "")));
}

#[test]
fn who_is_slow_is_not_waited_for() {
    let server = Setup::new().config(SHORT).start();
    let began = Instant::now();
    let mut silent = server.connect();
    let mut slow_head = server.connect();
    slow_head.send(b"POST /is_autho");
    let mut slow_body = server.connect();
    slow_body.send(head("Content-Length: 100\r\n").as_bytes());
    slow_body.send(b"{");
    let mut idle = server.connect();
    assert_eq!(idle.request("GET", "/version", &[], b"").status, 200);
    let mut dripping = server.connect();
    dripping.send(b"GET /version HTTP/1.1\r\n");
    let drips = (0..1000).take_while(|_| {
        std::thread::sleep(Duration::from_millis(20));
        dripping.try_send(b"X: y\r\n").is_ok()
    });
    assert!(drips.count() < 900, "a head that never ends is read on");
    let late = slow_body.read().expect("an answer");
    assert!(late.is_error(408, "body_timeout", ""), "{late:?}");
    assert!(closed(&mut silent) && closed(&mut slow_head) && closed(&mut slow_body) && closed(&mut idle));
    assert!(began.elapsed() < Duration::from_secs(60));
    // Between two requests there is more time than for a head.
    let mut patient = server.connect();
    assert_eq!(patient.request("GET", "/version", &[], b"").status, 200);
    std::thread::sleep(Duration::from_millis(3000));
    assert_eq!(patient.request("GET", "/version", &[], b"").status, 200);
}

#[test]
fn a_body_has_a_limit() {
    let server = Setup::new().config("limits: { body_bytes: 4096 }\n").start();
    let padded = |bytes: usize| {
        let body = body();
        format!("{}{body}", " ".repeat(bytes - body.len()))
    };
    assert_eq!(server.post("/is_authorized", &padded(4096)).json()["decision"], "permit");
    for path in ["/is_authorized", "/is_authorized/batch", "/v1/is_authorized", "/bundle/reload"] {
        let answer = server.post(path, &padded(4097));
        assert!(answer.is_error(413, "body_too_large", ""), "{path}: {answer:?}");
    }
    let mut chunked = server.connect();
    let chunk = format!("800\r\n{}\r\n", " ".repeat(2048));
    let _ = chunked.try_send(format!("{}{}", head("Transfer-Encoding: chunked\r\n"), chunk.repeat(3)).as_bytes());
    assert!(chunked.read().unwrap().is_error(413, "body_too_large", ""));
    let default = Server::start();
    let large = format!("{}{}", " ".repeat(2 * 1024 * 1024), body());
    assert!(default.post("/is_authorized", &large).is_error(413, "body_too_large", ""));
}

#[test]
fn connections_over_the_limit_wait() {
    let server = Setup::new().config("limits: { connections: 2 }\n").start();
    let mut first = server.connect();
    let mut second = server.connect();
    assert_eq!(first.request("GET", "/version", &[], b"").status, 200);
    assert_eq!(second.request("GET", "/version", &[], b"").status, 200);
    let mut third = server.connect();
    third.send(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n");
    drop(first);
    assert_eq!(third.read().unwrap().status, 200);
    assert_eq!(second.request("GET", "/version", &[], b"").status, 200);
}
