//! Requests of the server that go through a proxy (`HTTPS_PROXY`), and those that never do. Names under `example.test` have
//! no address, so that only the proxy can reach them.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::authority::{Authority, Leaf, dns};
use crate::support::{Server, Setup};
use crate::tokens::{Signer, now, set};

const ISSUER: &str = "https://issuer.example.test";
const HOOKS: &str = "https://hooks.example.test:8443/hook";

type Heads = Arc<Mutex<Vec<String>>>;

/// Reads up to the empty line.
fn head(reader: &mut impl std::io::BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// Serves HTTPS as an issuer and as the receiver of a webhook.
fn host(leaf: &Leaf, issuer: String, keys: String) -> (SocketAddr, Heads) {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let chain = vec![CertificateDer::from(leaf.certificate.clone())];
    let config = Arc::new(config.with_single_cert(chain, PrivatePkcs8KeyDer::from(leaf.key.clone()).into()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heads) = (listener.local_addr().unwrap(), Heads::default());
    let noted = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let (noted, issuer, keys) = (Arc::clone(&noted), issuer.clone(), keys.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(StreamOwned::new(connection, stream));
                while let Some(head) = head(&mut reader) {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                    reader.read_exact(&mut body).unwrap();
                    let body = match head.split(' ').nth(1) {
                        Some("/keys") => keys.clone(),
                        _ => json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}).to_string(),
                    };
                    noted.lock().unwrap().push(head);
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, heads)
}

/// A proxy. Every host is the one at `to`; without it, the answer to `CONNECT` is `refusal`.
fn proxy(to: Option<SocketAddr>, refusal: &'static str) -> (SocketAddr, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heads) = (listener.local_addr().unwrap(), Heads::default());
    let noted = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let Some(head) = head(&mut reader) else { return };
                noted.lock().unwrap().push(head);
                let mut client = stream;
                let Some(to) = to else {
                    let _ = write!(client, "HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n");
                    return;
                };
                let server = TcpStream::connect(to).unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                let (back, mut upwards) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pump(reader, &mut upwards));
                pump(server, &mut { back });
            });
        }
    });
    (address, heads)
}

fn pump(mut from: impl Read, to: &mut TcpStream) {
    let _ended = std::io::copy(&mut from, to);
    let _gone = to.shutdown(Shutdown::Write);
}

struct World {
    signer: Signer,
    authority: Authority,
    temp: TempDir,
}

impl World {
    fn new() -> Self {
        let world =
            Self { signer: Signer::p256("one"), authority: Authority::new("CA"), temp: TempDir::new().unwrap() };
        std::fs::write(world.temp.path().join("ca.pem"), &world.authority.pem).unwrap();
        world
    }

    fn host(&self, name: &str, issuer: &str) -> (SocketAddr, Heads) {
        host(&self.authority.vouch_for(&[dns(name)], |_| {}), issuer.to_owned(), set([&self.signer]))
    }

    fn start(self, issuer: &str, proxy: &str) -> (Server, String) {
        let config = format!(
            "identity: {{ providers: [{{ jwt: {{ issuers: [{{ issuer: '{issuer}', audiences: [tollgate], \
             claims: {{ user: sub }} }}] }} }}] }}"
        );
        let token = self.signer.token(&json!({"iss": issuer, "aud": "tollgate", "sub": "alice", "exp": now() + 600}));
        let setup = Setup::new().config(&config).variable("HTTPS_PROXY", proxy);
        let setup = setup.variable("SSL_CERT_FILE", self.temp.path().join("ca.pem").to_str().unwrap());
        (setup.start_in(self.temp), token)
    }
}

fn permits(server: &Server, token: &str) -> bool {
    let question =
        json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""});
    server.post("/is_authorized", &question.to_string()).json()["decision"] == "permit"
}

#[test]
fn proxy_an_issuer_is_asked_through_it_with_credentials_that_are_never_logged() {
    let world = World::new();
    let (address, _) = world.host("issuer.example.test", ISSUER);
    let (proxy, heads) = proxy(Some(address), "");
    let (server, token) = world.start(ISSUER, &format!("http://me:p%40ssword@{proxy}"));
    server.until("the keys are read", |server| server.log().contains("in use"));
    assert!(permits(&server, &token));
    let heads = heads.lock().unwrap().clone();
    let credentials = STANDARD.encode("me:p@ssword");
    assert!(!heads.is_empty());
    for head in &heads {
        assert!(head.starts_with("CONNECT issuer.example.test:443 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("Proxy-Authorization: Basic {credentials}\r\n")), "{head}");
        // Nothing of the request itself is for the proxy.
        assert!(!head.contains("openid"), "{head}");
    }
    let log = server.log();
    for secret in ["ssword", &credentials] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn proxy_alerts_are_sent_through_it() {
    let world = World::new();
    let (address, posts) = world.host("hooks.example.test", ISSUER);
    let (proxy, heads) = proxy(Some(address), "");
    let bundle = "authz_rules: [{ users: '*', models: '*' }]\nlimits: [{ id: tokens, users: '*', budget: { tokens: 100, every: total }, warn_at: [50] }]\n";
    let config = format!("alerts: {{ webhook: {{ url: '{HOOKS}', secret_file: secret }} }}");
    std::fs::write(world.temp.path().join("secret"), "a secret of thirty-two bytes ...").unwrap();
    let authority = world.temp.path().join("ca.pem");
    let setup = Setup::new().file("bundle.yaml", bundle).config(&config);
    let setup =
        setup.variable("https_proxy", &proxy.to_string()).variable("SSL_CERT_FILE", authority.to_str().unwrap());
    let server = setup.start_in(world.temp);
    let body = json!({
        "principal": { "type": "User", "id": "alice" }, "action": "chat", "resource": "Model::\"open/x\"",
        "reserve": { "input_tokens": 60, "output_tokens": 0 },
    });
    assert_eq!(server.post("/is_authorized", &body.to_string()).status, 200);
    server.until("the alert is sent", |server| server.get("/metrics").body.contains("{outcome=\"delivered\"} 1"));
    assert!(heads.lock().unwrap()[0].starts_with("CONNECT hooks.example.test:8443 HTTP/1.1\r\n"));
    let post = posts.lock().unwrap()[0].clone();
    assert!(post.starts_with("POST /hook HTTP/1.1\r\n") && post.contains("x-tollgate-signature: t="), "{post}");
}

#[test]
fn proxy_a_host_on_this_machine_is_reached_directly() {
    let world = World::new();
    let (proxy, heads) = proxy(None, "502 Bad Gateway");
    // The issuer in its document has no port, so the keys are not read: that it was asked is enough.
    let (address, asked) = world.host("localhost", "https://localhost");
    let (server, _) = world.start(&format!("https://localhost:{}", address.port()), &format!("http://{proxy}"));
    server.until("the host is asked", |_| !asked.lock().unwrap().is_empty());
    assert!(heads.lock().unwrap().is_empty());
}

#[test]
fn proxy_what_it_refuses_has_a_code() {
    for (refusal, code) in [
        ("407 Proxy Authentication Required", "(proxy_authentication_required)"),
        ("403 Forbidden", "(proxy_refused)"),
        ("502 Bad Gateway", "(proxy_refused)"),
    ] {
        let (proxy, _) = proxy(None, refusal);
        let (server, token) = World::new().start(ISSUER, &format!("http://me:hidden@{proxy}"));
        server.until(code, |server| server.log().contains(code) && server.log().contains(&proxy.to_string()));
        assert!(!server.log().contains("hidden") && !permits(&server, &token));
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (server, _) = World::new().start(ISSUER, &format!("http://{gone}"));
    server.until("it is unreachable", |server| server.log().contains("(proxy_unreachable)"));
}

#[test]
fn proxy_a_server_does_not_start_with_a_url_it_cannot_use() {
    let (code, log) = Setup::new().variable("HTTPS_PROXY", "socks5://me:hidden@proxy:1080").fail();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("HTTPS_PROXY: only proxies with http:// and https:// are supported"), "{log}");
    assert!(!log.contains("hidden"), "{log}");
}
