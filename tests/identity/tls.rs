//! TLS on the listener: who gets in, and files that change under it.

use std::process::Command;

use tempfile::TempDir;

use crate::authority::{Authority, Leaf, Tls, uri};
use crate::support::{Client, DEADLINE, Server, Setup, question};

const CONFIG: &str = "tls: { certificate_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_certificates: WANTED }\n";

/// A server with TLS, and its authority.
fn start(wanted: &str) -> (Server, Authority) {
    let (authority, temp) = (Authority::new("authority"), TempDir::new().unwrap());
    authority.server().write(temp.path(), "server");
    std::fs::write(temp.path().join("ca.pem"), &authority.pem).unwrap();
    (Setup::new().config(&CONFIG.replace("WANTED", wanted)).start_in(temp), authority)
}

fn asks(server: &Server, authority: &Authority, client: Option<&Leaf>) -> Result<u16, String> {
    let mut connection = Tls::connect(server.address, authority, client)?;
    let body = question("alice", "openai-main/gpt-4o");
    let (status, answer) = connection.ask("POST", "/is_authorized", &["Content-Type: application/json"], &body)?;
    assert_eq!(answer["decision"], "permit", "{answer}");
    Ok(status)
}

#[test]
fn a_server_with_a_certificate_speaks_tls_alone() {
    let (authority, temp) = (Authority::new("authority"), TempDir::new().unwrap());
    authority.server().write(temp.path(), "server");
    std::fs::write(temp.path().join("ca.pem"), &authority.pem).unwrap();
    let server = Setup::new()
        .variable("TOLLGATE_TLS_CERTIFICATE_FILE", "server.pem")
        .variable("TOLLGATE_TLS_KEY_FILE", "server.key")
        .start_in(temp);
    assert!(server.log().contains("listens on https://127.0.0.1:"), "{}", server.log());
    assert_eq!(asks(&server, &authority, None), Ok(200));
    // A client that speaks plain HTTP gets no HTTP back.
    assert!(Client::connect(server.address).try_request("GET", "/health/live", &[], b"").is_none());
    let (_, other) = (0, Authority::new("other"));
    assert!(asks(&server, &other, None).unwrap_err().contains("certificate"));
    // Others' clients say so too.
    let url = format!("https://{}/health/live", server.address);
    let curl = |more: &[&str]| Command::new("curl").args(["-sS", &url]).args(more).output().unwrap();
    let ca = server.temp.path().join("ca.pem").display().to_string();
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        let output = curl(&[&["--cacert", &*ca], version].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!curl(&["--cacert", &*ca, "--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0"]).status.success());
    assert!(!curl(&[]).status.success());
}

#[test]
fn who_gets_in_is_said_by_the_authorities_of_clients() {
    let id = [uri("spiffe://acme.example/gateway")];
    let (server, authority) = start("required");
    let good = authority.vouch_for(&id, |_| {});
    let other = Authority::new("authority").vouch_for(&id, |_| {});
    let past = authority.vouch_for(&id, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let future = authority.vouch_for(&id, |params| params.not_before = rcgen::date_time_ymd(2200, 1, 1));
    let own_authority = authority.vouch_for(&id, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let for_servers = authority.vouch_for(&id, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(asks(&server, &authority, Some(&good)), Ok(200));
    let refused = [None, Some(&other), Some(&past), Some(&future), Some(&own_authority), Some(&for_servers)];
    for client in refused {
        assert!(asks(&server, &authority, client).is_err());
    }
    assert!(asks(&server, &authority, Some(&Leaf::self_signed(&id))).is_err());
    let mut connection = Tls::connect(server.address, &authority, Some(&good)).unwrap();
    assert_eq!(connection.ask("GET", "/version", &[], "").unwrap().0, 200);

    let (server, authority) = start("optional");
    assert_eq!(asks(&server, &authority, None), Ok(200));
    assert!(asks(&server, &authority, Some(&good)).is_err(), "it was vouched for by another authority");
}

#[test]
fn new_files_are_taken_and_broken_ones_are_not() {
    let (server, authority) = start("required");
    let good = authority.vouch_for(&[], |_| {});
    let write = |name: &str, text: &str| std::fs::write(server.temp.path().join(name), text).unwrap();
    let mut kept = Tls::connect(server.address, &authority, Some(&good)).unwrap();
    assert_eq!(kept.ask("GET", "/version", &[], "").unwrap().0, 200);
    // A key that is not the certificate's, a file that is none, half a file.
    for (name, text) in [
        ("server.key", authority.server().key_pem),
        ("ca.pem", "x".to_owned()),
        ("server.pem", good.pem[..200].to_owned()),
    ] {
        let before = std::fs::read_to_string(server.temp.path().join(name)).unwrap();
        let told = server.log().matches("TLS stays as it is").count();
        write(name, &text);
        server.until("it is told", |server| server.log().matches("TLS stays as it is").count() > told);
        assert_eq!(asks(&server, &authority, Some(&good)), Ok(200), "after {name}");
        let taken = |server: &Server| server.log().matches("TLS files reloaded").count();
        let so_far = taken(&server);
        write(name, &before);
        server.until("what was there is back", |server| {
            taken(server) > so_far || {
                std::thread::sleep(std::time::Duration::from_millis(50));
                false
            }
        });
    }
    assert!(kept.ask("GET", "/version", &[], "").is_err(), "who vouched for it may be gone");
    // Everything new.
    let next = Authority::new("next");
    next.server().write(server.temp.path(), "server");
    write("ca.pem", &next.pem);
    let client = next.vouch_for(&[], |_| {});
    server.until("the new files are taken", |server| asks(server, &next, Some(&client)) == Ok(200));
    assert!(asks(&server, &next, Some(&good)).is_err(), "the old authority vouches for nobody");
    assert!(asks(&server, &authority, Some(&client)).is_err(), "the old certificate is shown no longer");
}

#[test]
fn a_handshake_has_its_time_and_its_place_among_connections() {
    let (authority, temp) = (Authority::new("authority"), TempDir::new().unwrap());
    authority.server().write(temp.path(), "server");
    let config = "tls: { certificate_file: server.pem, key_file: server.key }\n\
                  limits: { connections: 1, header_timeout_ms: 3000 }\n";
    let server = Setup::new().config(config).start_in(temp);
    // Who says nothing holds the only place until its time is over.
    let mut silent = Client::connect(server.address);
    let began = std::time::Instant::now();
    assert_eq!(asks(&server, &authority, None), Ok(200));
    assert!(silent.read().is_none() && began.elapsed() < DEADLINE);
    let mut connection = Tls::connect(server.address, &authority, None).unwrap();
    connection.ask("GET", "/metrics", &[], "").unwrap();
}

#[test]
fn settings_that_do_not_go_together_end_the_start() {
    let authority = Authority::new("authority");
    for (config, said) in [
        ("tls: { certificate_file: server.pem }", "both"),
        ("tls: { certificate_file: server.pem, key_file: server.key, client_ca_file: ca.pem }", "asks nobody"),
        (
            "tls: { certificate_file: server.pem, key_file: server.key, client_certificates: required }",
            "client_ca_file",
        ),
        ("tls: { client_ca_file: ca.pem, client_certificates: required }", "both"),
        ("tls: { certificate_file: server.pem, key_file: none.key }", "none.key cannot be read"),
        ("tls: { certificate_file: server.pem, key_file: server.pem }", "no private key"),
        ("tls: { certificate_file: server.key, key_file: server.key }", "no certificate"),
        ("tls: { certificate_file: server.pem, key_file: other.key }", "cannot be used"),
        ("tls: { client_certificates: sometimes }", "off or optional or required"),
    ] {
        let temp = TempDir::new().unwrap();
        authority.server().write(temp.path(), "server");
        authority.server().write(temp.path(), "other");
        std::fs::write(temp.path().join("ca.pem"), &authority.pem).unwrap();
        let (code, log) = Setup::new().config(config).fail_in(temp.path());
        assert!(code == Some(2) && log.contains(said) && !log.contains("PRIVATE"), "{config}: {log}");
    }
}
