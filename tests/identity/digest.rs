//! Proofs of passwords (RFC 7616), as curl sends them.

use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Client, Server, Setup, secret};

const PASSWORD: &str = "correct horse digest";

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn start(folder: &tempfile::TempDir) -> Server {
    start_with(folder, "{ enabled: false }")
}

fn start_with(folder: &tempfile::TempDir, failures: &str) -> Server {
    secret(PASSWORD);
    let kept = secret(hash(&format!("alice:tollgate:{PASSWORD}")));
    let path = folder.path().join("digests");
    std::fs::write(&path, format!("alice:tollgate:{kept}\n")).unwrap();
    let bundle = crate::support::BUNDLE
        .replace("{ id: alice, team: research }", "{ id: alice, team: research, roles: ['tollgate:monitor'] }");
    let config = format!(
        "identity:\n  loopback: closed\n  failures: {failures}\n  providers:\n    - digest: {{ file: {} }}\n",
        path.display()
    );
    Setup::new().file("bundle.yaml", &bundle).config(&config).start()
}

fn challenge(client: &mut Client) -> String {
    let answer = client.request("GET", "/metrics", &[], b"");
    assert_eq!(answer.status, 401);
    let line = answer.head.lines().find(|line| line.to_ascii_lowercase().starts_with("www-authenticate: digest "));
    line.unwrap().to_owned()
}

fn nonce(challenge: &str) -> String {
    challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// The header for GET /metrics, with what `change` makes of it.
fn header(nonce: &str, count: u32, change: impl Fn(String) -> String) -> String {
    let (kept, request) = (hash(&format!("alice:tollgate:{PASSWORD}")), hash("GET:/metrics"));
    let response = hash(&format!("{kept}:{nonce}:{count:08x}:c0ffee:auth:{request}"));
    change(format!(
        "Authorization: Digest username=\"alice\", realm=\"tollgate\", nonce=\"{nonce}\", uri=\"/metrics\", \
         algorithm=SHA-256, qop=auth, nc={count:08x}, cnonce=\"c0ffee\", response=\"{response}\""
    ))
}

fn send(client: &mut Client, header: &str) -> Answer {
    client.request("GET", "/metrics", &[header], b"")
}

#[test]
fn curl_proves_a_password() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = start(&folder);
    let url = format!("http://{}/metrics", server.address);
    let curl = |password: &str| {
        let user = format!("alice:{password}");
        let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--digest", "--user", &user, &url];
        Command::new("curl").args(arguments).output().map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Ok(right) = curl(PASSWORD) else { return };
    assert_eq!(right, "200");
    assert_eq!(curl("wrong").unwrap(), "401");
}

#[test]
fn a_proof_holds_once_and_for_its_request_alone() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = start(&folder);
    let mut client = server.connect();
    let told = challenge(&mut client);
    assert!(told.contains("algorithm=SHA-256") && told.contains("qop=\"auth\""), "{told}");
    let nonce = nonce(&told);
    assert_eq!(send(&mut client, &header(&nonce, 1, |text| text)).status, 200);
    let again = send(&mut client, &header(&nonce, 1, |text| text));
    assert!(again.status == 401 && again.head.contains("stale=true"), "{again:?}");
    assert_eq!(send(&mut client, &header(&nonce, 3, |text| text)).status, 200);
    assert_eq!(send(&mut client, &header(&nonce, 2, |text| text)).status, 200, "out of order, and new");
    assert_eq!(send(&mut client, &header(&nonce, 2, |text| text)).status, 401);
    let elsewhere = client.request("GET", "/bundle", &[&header(&nonce, 4, |text| text)], b"");
    assert_eq!(elsewhere.status, 401, "for another path");
    let with_query = client.request("GET", "/metrics?x=1", &[&header(&nonce, 5, |text| text)], b"");
    assert_eq!(with_query.status, 401, "for another query");
    for (what, header) in [
        ("a wrong proof with another nonce", header("AAAA", 6, |text| text.replace("nc=00000006", "nc=00000007"))),
        ("MD5", header(&nonce, 7, |text| text.replace("SHA-256", "MD5"))),
        ("no algorithm", header(&nonce, 8, |text| text.replace("algorithm=SHA-256, ", ""))),
        ("auth-int", header(&nonce, 9, |text| text.replace("qop=auth", "qop=auth-int"))),
        ("another realm", header(&nonce, 10, |text| text.replace("realm=\"tollgate\"", "realm=\"other\""))),
        ("another count", header(&nonce, 11, |text| text.replace("nc=0000000b", "nc=0000000c"))),
        ("an unknown name", header(&nonce, 12, |text| text.replace("alice", "mallory"))),
        ("a parameter twice", header(&nonce, 13, |text| format!("{text}, username=\"alice\""))),
        ("a name by its hash", header(&nonce, 14, |text| format!("{text}, userhash=true"))),
        ("nothing", "Authorization: Digest x".to_owned()),
    ] {
        let answer = send(&mut client, &header);
        assert!(answer.is_error(401, "unauthenticated", ""), "{what}: {answer:?}");
        assert!(!answer.head.contains("stale=true"), "{what}: {answer:?}");
    }
    assert_eq!(send(&mut client, &header(&nonce, 20, |text| text)).status, 200);
}

/// A nonce of another node, or of the process before, is told to be stale, and whoever answers it rightly is no guesser.
#[test]
fn a_right_proof_with_a_nonce_of_another_process_is_stale_and_no_guess() {
    let folder = tempfile::TempDir::new().unwrap();
    let theirs = nonce(&challenge(&mut start(&folder).connect()));
    let server = start_with(&folder, "{ source_burst: 2, source_every_ms: 60000, id_burst: 2, id_every_ms: 60000 }");
    let mut client = server.connect();
    for count in 1..6 {
        let answer = send(&mut client, &header(&theirs, count, |text| text));
        assert!(answer.status == 401 && answer.head.contains("stale=true"), "{count}: {answer:?}");
    }
    let ours = nonce(&challenge(&mut client));
    assert_eq!(send(&mut client, &header(&ours, 1, |text| text)).status, 200, "who was told so is let in");
    for (what, proof) in [
        ("a wrong proof", header(&theirs, 7, |text| text.replace("nc=00000007", "nc=00000008"))),
        ("an unknown name", header(&theirs, 8, |text| text.replace("alice", "mallory"))),
    ] {
        let answer = send(&mut client, &proof);
        assert!(answer.status == 401 && !answer.head.contains("stale=true"), "{what}: {answer:?}");
    }
    assert_eq!(send(&mut client, &header(&ours, 9, |text| text.replace("9,", "8,"))).status, 429, "those were guesses");
}

#[test]
fn a_name_that_nobody_has_is_not_logged() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = start(&folder);
    let mut client = server.connect();
    let nonce = nonce(&challenge(&mut client));
    let key = secret(tollgate::model::key_text("3JxqPZ0aTn4L", [7; 32]).unwrap().expose());
    for (count, name) in [(1, "alice"), (2, &key), (3, &secret("my-password-as-a-name"))] {
        let proof = header(&nonce, count, |text| text.replace("alice", name).replace("c0ffee", "other"));
        assert_eq!(send(&mut client, &proof).status, 401, "{name}");
    }
    server.until("all are logged", |server| server.log().matches("refused a credential").count() >= 3);
    let log = server.log();
    assert!(log.contains(" about=alice ") && log.contains(" about=3JxqPZ0aTn4L "), "{log}");
    assert!(log.lines().any(|line| line.contains(" reason=wrong ") && !line.contains(" about=")), "{log}");
}
