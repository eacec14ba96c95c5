//! Client certificates: whom their names prove, and everything that must prove nobody.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, SanType, date_time_ymd};
use tempfile::TempDir;
use tollgate::edge::identity::{CertificateProvider, ForwardedProvider, Grants, Mapping, NameKind};
use tollgate::gate::{self, Authenticator, Credential, Presented};
use tollgate::model::{Identity, Network, RefusalReason};
use tollgate::{Bundle, Engine, SourceFile, Timestamp};

use crate::authority::{Authority, Leaf, Tls, dns, email, uri};
use crate::support::{Client, Server, Setup, question};

const MAPPINGS: &str = "
      mappings:
        - { spiffe: 'spiffe://acme.example/gateway', principal: 'Service::\"gateway\"', roles: ['tollgate:gateway'] }
        - { spiffe: 'spiffe://acme.example/ns/{namespace}/sa/{name}', principal: 'Service::\"{namespace}/{name}\"' }
        - { dns: 'gateway.acme.example', principal: 'Service::\"gateway\"', roles: ['tollgate:gateway'] }
        - { dns: '{name}.svc.acme.example', principal: 'Service::\"{name}\"' }
        - { email: '{user}@acme.example', principal: 'User::\"{user}\"' }
";

fn start(provider: &str) -> (Server, Authority) {
    let (authority, temp) = (Authority::new("authority"), TempDir::new().unwrap());
    authority.server().write(temp.path(), "server");
    std::fs::write(temp.path().join("ca.pem"), &authority.pem).unwrap();
    let config = format!(
        "tls: {{ certificate_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_certificates: optional }}
identity:
  loopback: closed
  providers:
  - {provider}:{MAPPINGS}"
    );
    (Setup::new().config(&config).start_in(temp), authority)
}

/// The status, and whom or what the answer names.
fn asks(server: &Server, authority: &Authority, client: Option<&Leaf>) -> Result<(u16, String), String> {
    let mut connection = Tls::connect(server.address, authority, client)?;
    let body = question("bob", "openai-main/gpt-4o");
    let (status, answer) = connection.ask("POST", "/is_authorized", &["Content-Type: application/json"], &body)?;
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    Ok((status, message.split(" may ask only").next().unwrap().to_owned()))
}

#[test]
fn the_names_of_a_certificate_say_who_calls() {
    let (server, authority) = start("client_certificate");
    let changed = |names: &[SanType], change: fn(&mut CertificateParams)| authority.vouch_for(names, change);
    let leaf = |names: &[SanType]| changed(names, |_| {});
    for (names, who) in [
        (vec![uri("spiffe://acme.example/gateway")], None),
        (vec![dns("gateway.acme.example")], None),
        (vec![dns("GateWay.ACME.example")], None),
        (vec![uri("spiffe://acme.example/ns/prod/sa/web"), dns("gateway.acme.example")], Some("Service::\"prod/web\"")),
        (vec![dns("a.example"), dns("web.svc.acme.example")], Some("Service::\"web\"")),
        (vec![email("alice@acme.example")], Some("User::\"alice\"")),
        (vec![uri("https://acme.example/x"), email("alice@acme.example")], Some("User::\"alice\"")),
    ] {
        let expected = who.map_or((200, String::new()), |who| (403, who.to_owned()));
        assert_eq!(asks(&server, &authority, Some(&leaf(&names))), Ok(expected), "{names:?}");
    }
    // Nothing shown, and nobody named; a subject names nobody unless somebody says so.
    assert_eq!(asks(&server, &authority, None).unwrap().0, 401);
    let subject: fn(&mut CertificateParams) =
        |params| params.distinguished_name.push(DnType::CommonName, "gateway.acme.example");
    assert_eq!(asks(&server, &authority, Some(&changed(&[], subject))).unwrap().0, 401);
    // A credential in a header is more than the connection.
    let mut connection = Tls::connect(server.address, &authority, Some(&leaf(&[dns("gateway.acme.example")]))).unwrap();
    assert_eq!(connection.ask("GET", "/metrics", &[], "").unwrap().0, 200);
    assert_eq!(connection.ask("GET", "/metrics", &["Authorization: Bearer nobody"], "").unwrap().0, 401);
}

#[test]
fn names_that_prove_nobody() {
    let (server, authority) = start("client_certificate");
    let spiffe = "spiffe://acme.example/gateway";
    let refused = |names: Vec<SanType>, reason: &str| {
        let before = server.log().matches(reason).count();
        let (status, _) = asks(&server, &authority, Some(&authority.vouch_for(&names, |_| {}))).unwrap();
        assert_eq!(status, 401, "{names:?}");
        server.until(reason, |server| server.log().matches(reason).count() > before);
    };
    for text in [
        "spiffe://acme.example",
        "spiffe://acme.example/",
        "spiffe://acme.example/gateway/",
        "spiffe://acme.example//gateway",
        "spiffe://acme.example/x/../gateway",
        "spiffe://acme.example/ns/prod/sa/..",
        "spiffe://user@acme.example/gateway",
        "spiffe://acme.example:443/gateway",
        "spiffe://ACME.example/gateway",
        "SPIFFE://acme.example/gateway",
        "spiffe://acme.example/%67ateway",
        "spiffe://acme.example/gateway?x",
        "spiffe://acme.example/gateway#x",
        "spiffe://acme.example/gateway ",
        "spiffe:acme.example/gateway",
    ] {
        refused(vec![uri(text)], "malformed");
    }
    refused(vec![uri(spiffe), uri("spiffe://acme.example/ns/prod/sa/web")], "malformed");
    refused(vec![uri(spiffe), uri(spiffe)], "malformed");
    refused(vec![uri(spiffe), uri("https://acme.example")], "malformed");
    refused(vec![uri("spiffe://evil.example"), dns("gateway.acme.example")], "malformed");
    refused(vec![dns("a.svc.acme.example"), dns("b.svc.acme.example")], "malformed");
    refused((0..200).map(|at| dns(&format!("n{at}.example"))).collect(), "malformed");
    for name in [
        uri("spiffe://evil.example/gateway"),
        uri("spiffe://acme.example/Gateway"),
        uri("spiffe://acme.example/ns/prod/sa"),
        uri("spiffe://acme.example/ns/prod/sa/web/x"),
        dns("*.svc.acme.example"),
        dns("*.acme.example"),
        dns("a.b.svc.acme.example"),
        dns(".svc.acme.example"),
        dns("gateway.acme.example."),
        dns("gateway.acme.example.evil.example"),
        dns("a\"b.svc.acme.example"),
        email("alice@acme.example.evil.example"),
        email("alice@evil.example@acme.example"),
        email("@acme.example"),
        email("\"alice \"@acme.example"),
        SanType::IpAddress("127.0.0.1".parse().unwrap()),
    ] {
        refused(vec![name], "unknown_principal");
    }
    let fingerprints = server.log();
    assert!(!fingerprints.contains("BEGIN"), "{fingerprints}");
}

fn engine() -> Engine {
    let text = "users: [{ id: alice }]\nauthz_rules: [{ users: [alice], models: '*' }]\n";
    let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
    Engine::builder().bundle(bundle).build().unwrap()
}

fn gateway(kind: NameKind, pattern: &str) -> Mapping {
    let principal = "Service::\"gateway\"".parse().unwrap();
    let (teams, orgs, tags) = Default::default();
    Mapping::new(kind, pattern, &Grants { principal, teams, orgs, roles: Box::default(), tags }).unwrap()
}

fn proves(
    provider: impl Authenticator + 'static,
    credential: Credential,
    now: &str,
) -> Result<Identity, RefusalReason> {
    let snapshot = engine().snapshot().unwrap();
    let providers: [Arc<dyn Authenticator>; 1] = [Arc::new(provider)];
    let asked = Presented::new(credential);
    let proved = gate::authenticate(&providers, &asked, &snapshot, Timestamp::parse(now).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(proved).map(|identity| (*identity).clone()).map_err(|refusal| refusal.reason)
}

/// A connection may outlive its certificate.
#[test]
fn a_certificate_proves_for_as_long_as_it_holds() {
    let authority = Authority::new("authority");
    let leaf = authority.vouch_for(&[uri("spiffe://acme.example/gateway")], |params| {
        params.not_before = date_time_ymd(2026, 3, 1);
        params.not_after = date_time_ymd(2026, 3, 2);
        params.distinguished_name.push(DnType::CommonName, "gw");
    });
    let at = |now: &str, kind: NameKind, pattern: &str| {
        let credential = Credential::Certificates(Arc::new([leaf.certificate.clone().into_boxed_slice()]));
        proves(CertificateProvider::new([gateway(kind, pattern)]), credential, now)
    };
    let (kind, pattern) = (NameKind::Spiffe, "spiffe://acme.example/gateway");
    assert_eq!(at("2026-02-28T23:59:59.999Z", kind, pattern), Err(RefusalReason::NotYetValid));
    let proved = at("2026-03-01T00:00:00Z", kind, pattern).unwrap();
    assert_eq!(proved.expires_at, Timestamp::parse("2026-03-02T00:00:00Z"));
    assert_eq!(at("2026-03-02T00:00:00Z", kind, pattern), Err(RefusalReason::Expired));
    assert!(at("2026-03-01T12:00:00Z", NameKind::CommonName, "gw").is_ok());
    assert_eq!(at("2026-03-01T12:00:00Z", NameKind::CommonName, "g"), Err(RefusalReason::UnknownPrincipal));
    let broken = |bytes: &[u8]| {
        let credential = Credential::Certificates(Arc::new([bytes.into()]));
        proves(CertificateProvider::new([gateway(kind, pattern)]), credential, "2026-03-01T12:00:00Z")
    };
    let certificate = leaf.certificate.as_slice();
    for bytes in [b"".as_slice(), b"x", &certificate[..certificate.len() - 1], &[certificate, b"x"].concat()] {
        assert_eq!(broken(bytes).map(|_| ()), Err(RefusalReason::Malformed));
    }
    assert_eq!(broken(&authority.certificate).map(|_| ()), Err(RefusalReason::Malformed));
    let none = Credential::Certificates(Arc::new([]));
    let provider = CertificateProvider::new([gateway(kind, pattern)]);
    assert_eq!(proves(provider, none, "2026-03-01T12:00:00Z").map(|_| ()), Err(RefusalReason::Malformed));
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The certificate that a proxy sends along is what counts, and what it tells besides must be so.
#[test]
fn a_forwarded_certificate_is_read_itself() {
    let authority = Authority::new("authority");
    let leaf = authority.vouch_for(&[uri("spiffe://acme.example/gateway"), dns("gw.acme.example")], |params| {
        params.not_after = date_time_ymd(2026, 3, 2);
    });
    let hash: String = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf.certificate)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let at = |said: String, by: &str, now: &str| {
        let mapping = gateway(NameKind::Spiffe, "spiffe://acme.example/gateway");
        let provider = ForwardedProvider::new([Network::parse("10.0.0.0/8").unwrap()], [mapping]);
        let credential = Credential::ForwardedCertificate { said: said.into(), by: by.parse().ok() };
        proves(provider, credential, now).map(|_| ())
    };
    let (inside, now) = ("10.0.0.7", "2026-03-01T00:00:00Z");
    let certificate = format!("Cert=\"{}\"", percent(&leaf.pem));
    for (said, expected) in [
        (certificate.clone(), Ok(())),
        (format!("Hash={hash};{certificate};URI=spiffe://acme.example/gateway;DNS=gw.acme.example"), Ok(())),
        (format!("Hash={};{certificate}", "0".repeat(64)), Err(RefusalReason::Malformed)),
        (format!("{certificate};URI=spiffe://acme.example/other"), Err(RefusalReason::Malformed)),
        (format!("{certificate};DNS=other.acme.example"), Err(RefusalReason::Malformed)),
        ("Cert=\"\";URI=spiffe://acme.example/gateway".to_owned(), Err(RefusalReason::Malformed)),
        ("Cert=\"%2\";URI=spiffe://acme.example/gateway".to_owned(), Err(RefusalReason::Malformed)),
        (format!("Cert=\"{}\"", percent(&leaf.key_pem)), Err(RefusalReason::Malformed)),
        (format!("Cert=\"{}\"", percent(&authority.pem)), Err(RefusalReason::Malformed)),
        ("Hash=00".to_owned(), Err(RefusalReason::UnknownPrincipal)),
    ] {
        assert_eq!(at(said.clone(), inside, now), expected, "{said}");
    }
    assert_eq!(at(certificate.clone(), inside, "2026-03-02T00:00:00Z"), Err(RefusalReason::Expired));
    for by in ["192.0.2.1", "::1", "::ffff:11.0.0.1", ""] {
        assert_eq!(at(certificate.clone(), by, now), Err(RefusalReason::NotAllowedHere), "{by}");
    }
    assert_eq!(at(certificate, "::ffff:10.0.0.1", now), Ok(()));
}

#[test]
fn a_proxy_tells_who_its_client_is_and_nobody_else_does() {
    let start = |from: &str| {
        Setup::new()
            .config(&format!(
                "identity:
  loopback: closed
  providers:
  - forwarded_certificate:
      from: [{from}]{MAPPINGS}"
            ))
            .start()
    };
    let ask = |server: &Server, headers: &[&str]| {
        let headers = [&["Content-Type: application/json"], headers].concat();
        let body = question("bob", "openai-main/gpt-4o");
        let mut client = Client::connect(server.address);
        let answer = client.request("POST", "/is_authorized", &headers, body.as_bytes());
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let message = body["error"]["message"].as_str().unwrap_or_default().to_owned();
        (answer.status, message.split(" may ask only").next().unwrap().to_owned())
    };
    let header = |value: &str| format!("X-Forwarded-Client-Cert: {value}");
    let server = start("127.0.0.1, '10.0.0.0/8'");
    let good = "By=spiffe://acme.example/proxy;Hash=00;Subject=\"CN=a,O=\\\"b\\\"\";URI=spiffe://acme.example/gateway";
    assert_eq!(ask(&server, &[&header(good)]), (200, String::new()));
    for (value, who) in [
        ("URI=spiffe://acme.example/gateway,URI=spiffe://acme.example/ns/a/sa/b", "Service::\"a/b\""),
        ("Subject=\"x\\\",URI=spiffe://acme.example/gateway\";DNS=web.svc.acme.example", "Service::\"web\""),
    ] {
        assert_eq!(ask(&server, &[&header(value)]), (403, who.to_owned()), "{value}");
    }
    for value in [
        "",
        " ",
        ",",
        "x",
        "URI=",
        "URI=spiffe://acme.example/gateway,",
        "URI=spiffe://acme.example/gateway;URI=spiffe://acme.example/gateway",
        "URI=\"spiffe://acme.example/gateway",
        "Subject=\"a\"URI=spiffe://acme.example/gateway",
        "URI=spiffe://acme.example/gateway;Role=admin",
        "URI=spiffe://acme.example/gateway,Subject=\"CN=x\"",
        "Subject=\"CN=gateway.acme.example\"",
        "DNS=*.svc.acme.example",
        "Cert=\"x\";URI=spiffe://acme.example/gateway",
    ] {
        assert!(matches!(ask(&server, &[&header(value)]).0, 400 | 401 | 431), "{value}");
    }
    // What the server reads of a request at all ends before this.
    let huge = header(&format!("URI=\"{}\"", "a".repeat(100 * 1024)));
    let mut client = Client::connect(server.address);
    let answer = client.try_request("GET", "/metrics", &[&huge], b"");
    assert!(answer.is_none_or(|answer| answer.status == 431));
    // Twice is ambiguous.
    assert_eq!(ask(&server, &[&header(good), &header(good)]).0, 400);
    // Only who is configured may tell, whatever the question says of its address.
    let server = start("'10.0.0.0/8'");
    assert_eq!(ask(&server, &[&header(good)]).0, 401);
    assert_eq!(ask(&server, &[&header(good), "X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1"]).0, 401);
    server.until("it is told", |server| server.log().matches("not_allowed_here").count() == 2);
    // Where nobody forwards certificates the header is nothing.
    let server = Setup::new().config("identity: { loopback: closed, providers: [{ static: { tokens: [{ token: forwarded-0123456789, principal: 'User::\"a\"' }] } }] }").start();
    assert_eq!(ask(&server, &[&header(good)]).0, 401);
    assert!(!server.log().contains("refused a credential"), "{}", server.log());
}

#[test]
fn mappings_that_could_be_read_in_two_ways_do_not_load() {
    for (mapping, said) in [
        ("{ spiffe: 'spiffe://a/{x}', principal: 'Service::\"{y}\"' }", "uses a variable"),
        ("{ spiffe: 'spiffe://a/{x}/{x}', principal: 'Service::\"{x}\"' }", "variable"),
        ("{ spiffe: 'spiffe://a/{x}/{y}', principal: 'Service::\"{x}-{y}\"' }", "between two variables"),
        ("{ spiffe: 'spiffe://a/{x}/{y}', principal: 'Service::\"{x}{y}\"' }", "between two variables"),
        ("{ spiffe: 'spiffe://a/a-{x}', principal: 'Service::\"{x}\"' }", "whole part"),
        ("{ spiffe: 'spiffe://{x}/a', principal: 'Service::\"{x}\"' }", "fits no name"),
        ("{ spiffe: 'spiffe://a', principal: 'Service::\"x\"' }", "fits no name"),
        ("{ spiffe: 'spiffe://A/a', principal: 'Service::\"x\"' }", "fits no name"),
        ("{ spiffe: 'spiffe://a/*', principal: 'Service::\"x\"' }", "fits no name"),
        ("{ dns: '*.example', principal: 'Service::\"x\"' }", "fits no name"),
        ("{ dns: 'A.example', principal: 'Service::\"x\"' }", "fits no name"),
        ("{ email: 'a', principal: 'Service::\"x\"' }", "fits no name"),
        ("{ email: 'a@{x}', principal: 'Service::\"{x}\"' }", "fits no name"),
        ("{ dns: 'a', principal: 'Team::\"x\"' }", "a User or a Service"),
        ("{ dns: 'a', email: 'a@b', principal: 'Service::\"x\"' }", "one of"),
        ("{ principal: 'Service::\"x\"' }", "one of"),
        ("{ dns: '', principal: 'Service::\"x\"' }", "fits no name"),
    ] {
        let config = format!(
            "identity:\n  providers:\n  - forwarded_certificate: {{ from: [127.0.0.1], mappings: [ {mapping} ] }}\n"
        );
        let (code, log) = Setup::new().config(&config).fail();
        assert!(code == Some(2) && log.contains(said), "{mapping}: {log}");
    }
    let none =
        "identity: { providers: [{ client_certificate: { mappings: [{ dns: a, principal: 'User::\"a\"' }] } }] }";
    let (code, log) = Setup::new().config(none).fail();
    assert!(code == Some(2) && log.contains("tls.client_ca_file"), "{log}");
}
