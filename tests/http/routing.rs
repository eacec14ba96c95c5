//! How a request finds its route: in which order it is checked, what a path of the table matches, and what `Allow` names.

use crate::support::{Answer, Server, question};

/// Sends a head as it is, without adding a `Host`.
fn send(server: &Server, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    let mut client = server.connect();
    client.send(format!("{head}\r\n{body}").as_bytes());
    client.read().expect("an answer")
}

fn allow(answer: &Answer) -> Option<String> {
    let mut lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(name, _)| name.eq_ignore_ascii_case("allow")).map(|(_, value)| value.to_owned())
}

const LOCAL: &str = "Host: localhost";
const JSON: &str = "Content-Type: application/json";

#[test]
fn a_request_is_refused_for_the_first_check_that_it_fails() {
    let server = Server::start();
    let elsewhere = "Host: elsewhere.example";
    let paths = [("/is_authorized", "status"), ("/is_authorized/batch", ""), ("/v1/is_authorized", "")];
    for (path, query) in paths {
        let (nowhere, wrong) = (format!("{path}/nowhere?x=1"), format!("{path}?x=1"));
        for (method, target, headers, status, code, param) in [
            // Host, path, method, admission, query, content type, body.
            ("PUT", &*nowhere, &["Host: a b"][..], 400, "invalid_request", ""),
            ("PUT", &nowhere, &[elsewhere], 404, "not_found", ""),
            ("PUT", &wrong, &[elsewhere], 405, "method_not_allowed", ""),
            ("POST", &wrong, &[elsewhere], 403, "forbidden", ""),
            ("POST", &wrong, &[LOCAL], 400, "invalid_request", query),
            ("POST", path, &[LOCAL], 400, "invalid_request", ""),
            ("POST", path, &[LOCAL, JSON], 400, "invalid_request", ""),
        ] {
            let answer = send(&server, method, target, headers, "{");
            assert!(answer.is_error(status, code, param), "{method} {target} {headers:?}: {answer:?}");
            assert_eq!(allow(&answer).is_some(), status == 405, "{method} {target}: {answer:?}");
        }
        let without_type = send(&server, "POST", path, &[LOCAL], "{");
        let wrong_body = send(&server, "POST", path, &[LOCAL, JSON], "{");
        assert!(without_type.body.contains("Content-Type"), "{without_type:?}");
        assert!(!wrong_body.body.contains("Content-Type"), "{wrong_body:?}");
    }
}

#[test]
fn keys_are_managed_with_a_credential_before_anything_of_the_request_is_read() {
    let server = Server::start();
    for (method, target) in [
        ("GET", "/v1/keys?x=1"),
        ("POST", "/v1/keys?x=1"),
        ("GET", "/v1/keys/a?x=1"),
        ("PATCH", "/v1/keys/a?x=1"),
        ("DELETE", "/v1/keys/a?x=1"),
        ("POST", "/v1/keys/a/revoke?x=1"),
        ("POST", "/v1/keys/a/rotate?x=1"),
        ("GET", "/v1/users/a/password?x=1"),
        ("PUT", "/v1/users/%/password?x=1"),
        ("DELETE", "/v1/users/a/password?x=1"),
    ] {
        let answer = send(&server, method, target, &[LOCAL], "{");
        assert!(answer.is_error(401, "unauthenticated", ""), "{method} {target}: {answer:?}");
        assert!(answer.head.to_lowercase().contains("www-authenticate: "), "{answer:?}");
    }
}

#[test]
fn a_parameter_of_a_path_is_one_part_of_plain_characters() {
    let server = Server::start();
    let (longest, longer) = ("a".repeat(128), "a".repeat(129));
    let (user, long_user) = ("%61".repeat(1024), "%61".repeat(1024) + "b");
    for part in ["a", "A.b_c-9", "..", &longest] {
        for (method, path) in [("GET", format!("/v1/keys/{part}")), ("POST", format!("/v1/keys/{part}/revoke"))] {
            assert_eq!(send(&server, method, &path, &[LOCAL], "").status, 401, "{method} {path}");
        }
    }
    for part in ["", "a%20b", "%61", "a:b", "a~", "a/b", "a;b", "*", "{id}", &longer] {
        // For every method: whether the path exists comes first.
        for (method, path) in [("GET", format!("/v1/keys/{part}")), ("TRACE", format!("/v1/keys/{part}/revoke"))] {
            let answer = send(&server, method, &path, &[LOCAL], "");
            assert!(answer.is_error(404, "not_found", ""), "{method} {path}: {answer:?}");
            assert_eq!(allow(&answer), None, "{method} {path}: {answer:?}");
        }
    }
    for part in ["a", "a%2Fb", "%00", "%", "{user}", "..", &user] {
        let path = format!("/v1/users/{part}/password");
        assert_eq!(send(&server, "GET", &path, &[LOCAL], "").status, 401, "{path}");
    }
    for part in ["", "a/b", "/", &long_user] {
        let path = format!("/v1/users/{part}/password");
        assert_eq!(send(&server, "GET", &path, &[LOCAL], "").status, 404, "{path}");
    }
}

#[test]
fn allow_names_the_methods_of_the_path() {
    let server = Server::start();
    for (path, allowed) in [
        ("/is_authorized", "POST"),
        ("/is_authorized/batch", "POST"),
        ("/usage", "GET, HEAD, POST"),
        ("/limits", "GET, HEAD"),
        ("/health/live", "GET, HEAD"),
        ("/v1/keys", "GET, HEAD, POST"),
        ("/v1/keys/a", "GET, HEAD, PATCH, DELETE"),
        ("/v1/keys/a/rotate", "POST"),
        ("/v1/users/a/password", "GET, HEAD, PUT, DELETE"),
        ("/.well-known/jwks.json", "GET, HEAD"),
    ] {
        for method in ["TRACE", "OPTIONS", "get", "BREW"] {
            let answer = send(&server, method, path, &[LOCAL], "");
            assert!(answer.is_error(405, "method_not_allowed", ""), "{method} {path}: {answer:?}");
            assert_eq!(allow(&answer).as_deref(), Some(allowed), "{method} {path}: {answer:?}");
            assert!(answer.body.contains(&format!("this path takes {allowed}")), "{answer:?}");
        }
    }
}

#[test]
fn head_is_answered_as_get_without_a_body() {
    let server = Server::start();
    for path in ["/health/live", "/version", "/limits", "/v1/keys", "/nowhere"] {
        let get = server.get(path);
        let head = server.connect().request("HEAD", path, &[], b"");
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}: {head:?}");
        let length = |answer: &Answer| {
            let head = answer.head.to_lowercase();
            head.lines().find(|line| line.starts_with("content-length")).map(ToOwned::to_owned)
        };
        assert_eq!(length(&head), length(&get), "{path}");
    }
    let hot = server.connect().request("HEAD", "/is_authorized", &[], b"");
    assert_eq!(hot.status, 405, "{hot:?}");
    // A route without a body refuses one, and a route with an optional one takes none.
    let with_body = send(&server, "GET", "/version", &[LOCAL], &question("alice", "openai-main/gpt-4o"));
    assert!(with_body.is_error(400, "invalid_request", ""), "{with_body:?}");
    assert_eq!(send(&server, "POST", "/bundle/reload", &[LOCAL], "").status, 200);
}
