//! Those who guess are slowed, and owners are not kept out.

use crate::support::{Answer, Client, Server, Setup, secret};

const TOKEN: &str = "owners-token-0123456789abcdef-0123";

fn server(failures: &str) -> Server {
    secret(TOKEN);
    let config = format!(
        "identity:
  failures: {failures}
  providers:
    - static: {{ tokens: [{{ token: {TOKEN}, principal: 'User::\"alice\"' }}] }}
"
    );
    Setup::new().config(&config).start()
}

fn ask(client: &mut Client, token: &str, ip: Option<&str>) -> Answer {
    let context = ip.map(|ip| format!(r#", "context": {{"ip": "{ip}"}}"#)).unwrap_or_default();
    let question = format!(
        r#"{{"credential": {{"bearer": "{token}"}}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""{context}}}"#
    );
    client.post("/is_authorized", &question)
}

fn count(server: &Server, reason: &str) -> u64 {
    let metrics = server.get("/metrics").body;
    let wanted = format!("tollgate_authentication_failures_total{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&wanted)).map_or(0, |count| count.trim().parse().unwrap())
}

#[test]
fn a_source_that_guesses_is_refused_and_others_are_not() {
    let server = server("{ source_burst: 5, source_every_ms: 3600000 }");
    let mut client = server.connect();
    for number in 0..20 {
        let answer = ask(&mut client, &secret(format!("a-guess-of-somebody-{number}")), Some("203.0.113.7"));
        assert_eq!((answer.status, answer.json()["code"].as_str()), (200, Some("unauthenticated")));
        let told = answer.json()["message"].as_str().unwrap().contains("too many");
        assert_eq!(told, number >= 5, "{number}: {}", answer.body);
        assert_eq!(answer.json()["retry_after_seconds"].is_u64(), told, "{number}: {}", answer.body);
    }
    assert_eq!((count(&server, "not_recognized"), count(&server, "too_many_failures")), (5, 15));
    // The guesser's address is shut even to what is right; every other is not.
    assert_eq!(ask(&mut client, TOKEN, Some("203.0.113.7")).json()["decision"], "forbid");
    assert_eq!(ask(&mut client, TOKEN, Some("203.0.113.8")).json()["decision"], "permit");
    // What proved somebody lately is no guess, wherever it comes from.
    assert_eq!(ask(&mut client, TOKEN, Some("203.0.113.7")).json()["decision"], "permit");
}

#[test]
fn a_network_of_ipv6_is_one_source_and_who_has_no_address_is_not_one_with_the_gateway() {
    let server = server("{ source_burst: 2, source_every_ms: 3600000 }");
    let mut client = server.connect();
    for number in 0..4 {
        ask(&mut client, "a-guess-of-somebody-else", Some(&format!("2001:db8::{number}")));
    }
    assert_eq!(count(&server, "too_many_failures"), 2);
    assert_eq!(ask(&mut client, TOKEN, Some("2001:db8::99")).json()["decision"], "forbid");
    assert_eq!(ask(&mut client, TOKEN, Some("2001:db8:0:1::1")).json()["decision"], "permit");
    for _ in 0..10 {
        ask(&mut client, "a-guess-of-somebody-else", None);
    }
    assert_eq!(count(&server, "too_many_failures"), 3, "nothing is known of where those came from");
}

#[test]
fn a_flood_is_logged_in_few_lines() {
    let server = server("{ enabled: false }");
    let mut client = server.connect();
    let began = std::time::Instant::now();
    for _ in 0..200 {
        ask(&mut client, "a-guess-of-somebody-else", Some("203.0.113.7"));
    }
    assert_eq!(count(&server, "not_recognized"), 200);
    let lines = server.log().matches("refused a credential").count();
    // Twenty in each ten seconds.
    let windows = usize::try_from(began.elapsed().as_secs() / 10).unwrap() + 2;
    assert!((1..=20 * windows).contains(&lines), "{lines}");
    server.until("the rest is summed up", |server| server.log().contains(" more credentials: not_recognized "));
}

#[test]
fn a_caller_that_guesses_is_told_to_wait() {
    secret(TOKEN);
    let config = format!(
        "identity:
  loopback: closed
  failures: {{ source_burst: 3, source_every_ms: 3600000 }}
  providers:
    - static: {{ tokens: [{{ token: {TOKEN}, principal: 'Service::\"gateway\"', roles: ['tollgate:gateway'] }}] }}
"
    );
    let server = Setup::new().config(&config).start();
    let mut client = server.connect();
    let mut call = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        client.request("GET", "/metrics", &[&header], b"")
    };
    assert_eq!(call(TOKEN).status, 200);
    assert_eq!([(); 5].map(|()| call("a-guess-of-somebody-else").status), [401, 401, 401, 429, 429]);
    let seconds = retry_after(&call("a-guess-of-somebody-else"));
    assert!((1..=3600).contains(&seconds), "{seconds}");
    assert_eq!(call(TOKEN).status, 200, "what proved somebody lately is no guess");
    assert!(!call(TOKEN).head.to_ascii_lowercase().contains("retry-after"));
}

/// The header of a refusal says in whole seconds what its message does.
fn retry_after(refused: &Answer) -> u64 {
    assert!(refused.is_error(429, "too_many_failures", ""), "{refused:?}");
    let lines = refused.head.lines().filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(name, _)| name.eq_ignore_ascii_case("retry-after")).map(|(_, value)| value.trim());
    let seconds: u64 = values.next().unwrap_or_else(|| panic!("{}", refused.head)).parse().unwrap();
    assert_eq!(values.next(), None);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with(&format!("try again in {seconds} s")), "{message}");
    seconds
}

#[test]
fn those_who_guess_are_told_when_to_come_back_wherever_they_guess() {
    let config = "identity: { failures: { source_burst: 1, source_every_ms: 3600000 } }\n";
    let server = Setup::new().config(config).start();
    let mut client = server.connect();
    let mut guess = |path: &str, body: &str| client.post(path, body);
    let validated = r#"{"api_key": "a-guess-of-somebody-else", "request": {"path": "/", "ip": "203.0.113.9"}}"#;
    assert_eq!(guess("/v1/auth/validate", validated).status, 401);
    retry_after(&guess("/v1/auth/validate", validated));
    let exchanged = r#"{"grant_type": "api_key", "api_key": "a-guess-of-somebody-else"}"#;
    assert_eq!(guess("/v1/token", exchanged).status, 401);
    retry_after(&guess("/v1/token", exchanged));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (failures, name) in [
        ("{ source_burst: 0 }", "source_burst"),
        ("{ id_burst: 0 }", "id_burst"),
        ("{ source_every_ms: 0 }", "source_every_ms"),
        ("{ id_every_ms: -1 }", "id_every_ms"),
        ("{ proved_ms: -1 }", "proved_ms"),
        ("{ sources: 3 }", "sources"),
    ] {
        let (code, said) = Setup::new().config(&format!("identity:\n  failures: {failures}\n")).fail();
        assert!(code == Some(2) && said.contains(name), "{said}");
    }
}

#[test]
fn who_guesses_at_a_digest_is_known_by_the_name_however_it_is_written() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("digests");
    std::fs::write(&path, format!("alice:tollgate:{}\n", secret("0".repeat(64)))).unwrap();
    let config = format!(
        "identity:\n  loopback: closed\n  failures: {{ source_burst: 1000, id_burst: 5, id_every_ms: 3600000 }}\n  \
         providers:\n    - digest: {{ file: {} }}\n",
        path.display()
    );
    for name in
        ["username=\"alice\"", "username=alice", "Username=\"alice\"", "username =\"al\\ice\"", "username= alice"]
    {
        let server = Setup::new().config(&config).start();
        let mut client = server.connect();
        let told = [(); 7].map(|()| {
            let challenge = client.request("GET", "/metrics", &[], b"").head;
            let nonce = challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
            let header = format!(
                "Authorization: Digest {name}, realm=\"tollgate\", nonce=\"{nonce}\", uri=\"/metrics\", algorithm=SHA-256, \
                 qop=auth, nc=00000001, cnonce=\"c0ffee\", response=\"{}\"",
                "1".repeat(64)
            );
            client.request("GET", "/metrics", &[&header], b"").status
        });
        assert_eq!(told, [401, 401, 401, 401, 401, 429, 429], "{name}");
    }
}
