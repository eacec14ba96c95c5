//! An open loopback and the pages of browsers: which `Host` a request without a credential needs.

use crate::support::{Answer, Server, Setup, question, secret};

fn ask(server: &Server, method: &str, path: &str, headers: &[&str]) -> Answer {
    let body = if method == "POST" { question("alice", "openai-main/gpt-4o") } else { String::new() };
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    if method == "POST" {
        head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    let mut client = server.connect();
    client.send(format!("{head}\r\n{body}").as_bytes());
    client.read().expect("an answer")
}

#[test]
fn a_name_that_leads_to_the_loopback_by_dns_is_not_let_in() {
    let server = Setup::new().config("hosts: [tollgate.internal, 192.0.2.7]\n").start();
    let port = server.address.port();
    for host in [
        "localhost".to_owned(),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        "127.9.9.9".to_owned(),
        format!("[::1]:{port}"),
        "[::ffff:127.0.0.1]".to_owned(),
        "app.localhost".to_owned(),
        "TOLLGATE.internal.".to_owned(),
        "192.0.2.7:8181".to_owned(),
    ] {
        let answer = ask(&server, "POST", "/is_authorized", &[&format!("Host: {host}")]);
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
    for host in
        ["evil.example", "evil.example:8181", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0", "192.0.2.8"]
    {
        let host = format!("Host: {host}");
        for (method, path) in [
            ("POST", "/is_authorized"),
            ("POST", "/is_authorized?status=map"),
            ("POST", "/is_authorized/batch"),
            ("POST", "/v1/is_authorized"),
            ("POST", "/v1/auth/validate"),
            ("POST", "/settle"),
            ("POST", "/release"),
            ("POST", "/extend"),
            ("POST", "/usage"),
            ("GET", "/usage"),
            ("GET", "/limits"),
            ("GET", "/metrics"),
            ("GET", "/bundle"),
            ("POST", "/bundle/reload"),
        ] {
            let answer = ask(&server, method, path, &[&host]);
            assert!(answer.is_error(403, "forbidden", ""), "{host} {path}: {answer:?}");
            // What looks like a credential is none until it proves somebody; many that do not are slowed.
            let answer = ask(&server, method, path, &[&host, "Authorization: Bearer anything-at-all"]);
            assert!(matches!(answer.status, 401 | 429), "{host} {path}: {answer:?}");
        }
        // What everybody may read, everybody may.
        for path in ["/health/live", "/health/ready", "/version", "/openapi.json", "/docs"] {
            assert_eq!(ask(&server, "GET", path, &[&host]).status, 200, "{path}");
        }
    }
    // A request that names its server in its target is for that one.
    let answer = ask(&server, "GET", "http://evil.example/metrics", &["Host: localhost"]);
    assert!(answer.is_error(403, "forbidden", ""), "{answer:?}");
    assert_eq!(ask(&server, "GET", "http://localhost/metrics", &["Host: localhost"]).status, 200);
}

#[test]
fn a_page_of_another_site_is_not_let_in() {
    let server = Server::start();
    let with =
        |headers: &[&str]| ask(&server, "POST", "/is_authorized", &[&["Host: localhost"], headers].concat()).status;
    assert_eq!(with(&["Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(with(&["Sec-Fetch-Site: cross-site", "Origin: http://localhost:3000"]), 403);
    assert_eq!(with(&["Sec-Fetch-Site: same-origin"]), 200);
    assert_eq!(with(&["Sec-Fetch-Site: none"]), 200);
}

#[test]
fn whoever_proves_itself_may_use_any_name() {
    let token = secret("a-token-of-a-gateway-0123456789-0123456789");
    let config = format!(
        "identity:\n  providers:\n    - static: {{ tokens: [{{ token: {token}, principal: 'Service::\"bot\"', roles: \
         [tollgate:gateway] }}, {{ token: '{token}-of-nobody', principal: 'User::\"alice\"' }}] }}\n"
    );
    secret(format!("{token}-of-nobody"));
    let server = Setup::new().config(&config).start();
    let with = |token: &str| {
        let headers = ["Host: evil.example", &format!("Authorization: Bearer {token}")];
        ask(&server, "POST", "/is_authorized", &headers).status
    };
    assert_eq!(with(&token), 200);
    // Who is no gateway asks about nobody else, and reads nothing of the server.
    let header = format!("Authorization: Bearer {token}-of-nobody");
    assert_eq!(ask(&server, "GET", "/metrics", &["Host: evil.example", &header]).status, 403);
    // With `--insecure` it is not the loopback that lets anybody in.
    let insecure = Setup::new().argument("--insecure").start();
    assert_eq!(ask(&insecure, "POST", "/is_authorized", &["Host: gateway.example"]).status, 200);
}

#[test]
fn a_request_of_http_1_1_says_which_host_it_is_for() {
    let server = Server::start();
    for (headers, status) in [
        (vec![], 400),
        (vec!["Host:"], 400),
        (vec!["Host: a b"], 400),
        (vec!["Host: a/b"], 400),
        (vec!["Host: user@localhost"], 400),
        (vec!["Host: localhost:x"], 400),
        (vec!["Host: localhost:99999"], 400),
        (vec!["Host: ::1"], 400),
        (vec!["Host: localhost", "Host: localhost"], 400),
        (vec!["Host: localhost"], 200),
    ] {
        for path in ["/health/live", "/metrics"] {
            let answer = ask(&server, "GET", path, &headers);
            assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        }
    }
    // HTTP/1.0 knew no `Host`; nothing lets it in on loopback then.
    for (path, status) in [("/health/live", 200), ("/metrics", 403)] {
        let mut old = server.connect();
        old.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        assert_eq!(old.read().unwrap().status, status, "{path}");
    }
}

#[test]
fn names_of_hosts_are_checked() {
    for wrong in ["localhost:8181", "http://tollgate", "a b", "''"] {
        let (code, said) = Setup::new().config(&format!("hosts: ['{}']\n", wrong.trim_matches('\''))).fail();
        assert!(code == Some(2) && said.contains("`hosts`"), "{wrong}: {said}");
    }
}
