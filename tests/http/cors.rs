//! `cors:` which pages of other origins may read answers, and send requests to an open loopback.

use crate::support::{Answer, Server, Setup, question, secret};

const LISTED: &str = "https://console.example.com";
const CONFIG: &str = "cors: { origins: [\"https://console.example.com\", \"http://localhost:3000\"] }\n";

/// The answer to a request with these headers.
fn send(server: &Server, method: &str, path: &str, headers: &[&str]) -> Answer {
    let body = if method == "POST" { question("alice", "openai-main/gpt-4o") } else { String::new() };
    let json = ["Content-Type: application/json"];
    let headers = if method == "POST" { [headers, &json].concat() } else { headers.to_vec() };
    server.connect().request(method, path, &headers, body.as_bytes())
}

/// All values of a header, joined.
fn header(answer: &Answer, name: &str) -> Option<String> {
    let values: Vec<&str> = answer
        .head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn preflight(server: &Server, path: &str, origin: &str, method: &str, names: &str) -> Answer {
    let (origin, method) = (format!("Origin: {origin}"), format!("Access-Control-Request-Method: {method}"));
    let names = format!("Access-Control-Request-Headers: {names}");
    send(server, "OPTIONS", path, &[&origin, &method, &names, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"])
}

fn no_header_of_cors(answer: &Answer) -> bool {
    !answer.head.to_ascii_lowercase().contains("access-control-")
}

/// Whether a server takes a credential, and which.
fn servers() -> (Server, Server, String) {
    let token = secret("a-token-of-a-gateway-0123456789-0123456789");
    let closed = format!(
        "{CONFIG}identity:\n  loopback: closed\n  providers:\n    - static: {{ tokens: [{{ token: {token}, principal: \
         'Service::\"bot\"', roles: [tollgate:gateway] }}] }}\n"
    );
    (
        Setup::new().config(CONFIG).start(),
        Setup::new().config(&closed).start(),
        format!("Authorization: Bearer {token}"),
    )
}

/// Listed, unlisted and opaque origins, each as a preflight and a real request, on an open loopback and with a credential.
#[test]
fn only_listed_origins_get_headers() {
    let (open, closed, credential) = servers();
    let hot = ["/is_authorized", "/is_authorized/batch", "/v1/auth/validate", "/bundle/reload"];
    for origin in [LISTED, "http://localhost:3000"] {
        for server in [&open, &closed] {
            for path in hot {
                let answer = preflight(server, path, origin, "POST", "content-type, authorization");
                assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}: {answer:?}");
                assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some(origin), "{path}");
                assert_eq!(header(&answer, "access-control-allow-methods").as_deref(), Some("POST"), "{path}");
                let names = header(&answer, "access-control-allow-headers").unwrap();
                assert_eq!(names, "content-type, authorization");
                assert!(header(&answer, "vary").unwrap().contains("origin"), "{answer:?}");
                assert_eq!(header(&answer, "access-control-allow-credentials"), None);
            }
        }
        let from = format!("Origin: {origin}");
        let real = send(&open, "POST", "/is_authorized", &[&from, "Sec-Fetch-Site: cross-site"]);
        let with_credential =
            send(&closed, "POST", "/is_authorized", &[&from, "Sec-Fetch-Site: cross-site", &credential]);
        for answer in [real, with_credential] {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some(origin));
            assert_eq!(header(&answer, "access-control-expose-headers").as_deref(), Some("x-tollgate-id, retry-after"));
            assert_eq!(header(&answer, "vary").as_deref(), Some("origin"));
            assert_eq!(header(&answer, "access-control-allow-credentials"), None);
        }
        // A page can read errors too.
        let answer = send(&closed, "POST", "/is_authorized", &[&from]);
        assert!(answer.is_error(401, "unauthenticated", ""), "{answer:?}");
        assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some(origin));
    }
    for origin in
        ["https://evil.example", "null", "https://console.example.com.evil.example", "http://console.example.com", ""]
    {
        let from = format!("Origin: {origin}");
        for server in [&open, &closed] {
            let answer = preflight(server, "/is_authorized", origin, "POST", "content-type");
            assert!(
                answer.is_error(405, "method_not_allowed", "") && no_header_of_cors(&answer),
                "{origin}: {answer:?}"
            );
        }
        let answer = send(&open, "POST", "/is_authorized", &[&from, "Sec-Fetch-Site: cross-site"]);
        assert!(answer.is_error(403, "forbidden", "") && no_header_of_cors(&answer), "{origin}: {answer:?}");
        // A credential is enough; the page cannot read the answer.
        for server in [&open, &closed] {
            let answer = send(server, "POST", "/is_authorized", &[&from, "Sec-Fetch-Site: cross-site", &credential]);
            let expected = if std::ptr::eq(server, &closed) { 200 } else { 401 };
            assert!(answer.status == expected && no_header_of_cors(&answer), "{origin}: {answer:?}");
            assert_eq!(header(&answer, "vary").as_deref(), Some("origin"));
        }
    }
}

#[test]
fn a_preflight_names_the_methods_of_the_path_and_the_headers_that_may_be_set() {
    let server = Setup::new().config(CONFIG).start();
    for (path, methods) in [
        ("/usage", "GET, HEAD, POST"),
        ("/limits", "GET, HEAD"),
        ("/health/ready", "GET, HEAD"),
        ("/v1/keys/abc", "GET, HEAD, PATCH, DELETE"),
        ("/v1/users/a%2Fb/password", "GET, HEAD, PUT, DELETE"),
    ] {
        let answer = preflight(&server, path, LISTED, "GET", "x-other");
        assert_eq!(header(&answer, "access-control-allow-methods").as_deref(), Some(methods), "{path}: {answer:?}");
        assert_eq!(header(&answer, "access-control-allow-headers"), None, "{path}: {answer:?}");
    }
    let names = "Authorization,content-type, X-Tollgate-Anything, traceparent, tracestate, cookie, x-forwarded-for, \
                 x-api-key, api-key, host, b\u{e4}d";
    let answer = preflight(&server, "/is_authorized", LISTED, "POST", names);
    assert!(answer.status == 204 || answer.status == 400, "{answer:?}");
    let names = names.trim_end_matches("b\u{e4}d");
    let answer = preflight(&server, "/is_authorized", LISTED, "POST", names);
    let allowed = "authorization, content-type, x-tollgate-anything, traceparent, tracestate, x-api-key, api-key";
    assert_eq!(header(&answer, "access-control-allow-headers").as_deref(), Some(allowed), "{answer:?}");
    // Without the header of a preflight request, and for an unknown path, the usual error is returned.
    let plain = send(&server, "OPTIONS", "/is_authorized", &[&format!("Origin: {LISTED}")]);
    assert!(plain.is_error(405, "method_not_allowed", ""), "{plain:?}");
    assert_eq!(header(&plain, "access-control-allow-origin").as_deref(), Some(LISTED));
    let unknown = preflight(&server, "/nowhere", LISTED, "GET", "");
    assert!(unknown.is_error(404, "not_found", ""), "{unknown:?}");
    // A request with two origins has no allowed origin.
    let two = [&*format!("Origin: {LISTED}"), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"];
    let answer = send(&server, "POST", "/is_authorized", &two);
    assert!(answer.is_error(403, "forbidden", "") && no_header_of_cors(&answer), "{answer:?}");
}

#[test]
fn without_origins_there_is_no_cors() {
    for config in ["", "cors: {}\n", "cors: { origins: [] }\n"] {
        let server = Setup::new().config(config).start();
        let answer = preflight(&server, "/is_authorized", LISTED, "POST", "content-type");
        assert!(answer.is_error(405, "method_not_allowed", "") && no_header_of_cors(&answer), "{answer:?}");
        let answer = send(&server, "POST", "/is_authorized", &[&format!("Origin: {LISTED}")]);
        assert!(answer.status == 200 && no_header_of_cors(&answer), "{answer:?}");
        assert_eq!(header(&answer, "vary"), None);
    }
}

#[test]
fn every_origin_is_for_servers_that_need_a_credential() {
    let any = "cors: { origins: [\"*\"] }\n";
    for arguments in [vec![], vec!["--insecure"]] {
        let setup = arguments.into_iter().fold(Setup::new().config(any), Setup::argument);
        let (code, said) = setup.fail();
        assert!(code == Some(2) && said.contains("cors.origins has `*`") && said.contains("closed"), "{said}");
    }
    let server = Setup::new().config(&format!("{any}identity: {{ loopback: closed }}\n")).start();
    for origin in ["https://any.example", "null"] {
        let answer = preflight(&server, "/is_authorized", origin, "POST", "authorization");
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some("*"));
        let answer = send(&server, "POST", "/is_authorized", &[&format!("Origin: {origin}")]);
        assert_eq!((answer.status, header(&answer, "access-control-allow-origin").as_deref()), (401, Some("*")));
    }
}

#[test]
fn origins_are_checked_when_the_server_starts() {
    for (origins, place, part) in [
        ("[\"https://a.example/\"]", "tollgate.yaml:1:19", "without a path"),
        ("[\"https://a.example\", a.example]", "tollgate.yaml:1:40", "an origin such as"),
        ("[\"https://a.example:443\"]", "tollgate.yaml:1:19", "without its default port"),
        ("[\"https://A.example\"]", "tollgate.yaml:1:19", "in lower case"),
        ("[\"null\"]", "tollgate.yaml:1:19", "pages of any site"),
        ("https://a.example", "tollgate.yaml:1:18", "expected a list"),
    ] {
        let (code, said) = Setup::new().config(&format!("cors: {{ origins: {origins} }}\n")).fail();
        assert!(code == Some(2) && said.contains("`cors.origins`: "), "{origins}: {said}");
        assert!(said.contains(place) && said.contains(part), "{origins}: {said}");
    }
    let many: Vec<String> = (0..101).map(|number| format!("\"https://{number}.example\"")).collect();
    let (code, said) = Setup::new().config(&format!("cors: {{ origins: [{}] }}\n", many.join(", "))).fail();
    assert!(code == Some(2) && said.contains("`cors.origins`: expected at most 100 origins"), "{said}");
}
