//! A bundle older than one that was accepted, put back while nobody looks.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::edge::files::{ReadLimits, SigningKey, manifest, read};

use crate::support::{Answer, Server, Setup, question};

const RECORD: &str = "tollgate-data/manifest-sequence.json";

fn key() -> SigningKey {
    // The base64 of 32 bytes that are all zero.
    SigningKey::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap()
}

/// A bundle whose only rule is called `rule`, signed.
fn publish(temp: &Path, sequence: u64, rule: &str) {
    let policies = temp.join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    let text = format!("authz_rules: [{{ id: {rule}, users: [alice], models: [open/x] }}]\n");
    std::fs::write(policies.join("bundle.yaml"), text).unwrap();
    let reading = read(&policies, &ReadLimits::default()).unwrap();
    let text = manifest::create(&reading.bundle, sequence);
    std::fs::write(policies.join("manifest.json.sig"), manifest::sign(text.as_bytes(), &key()).unwrap()).unwrap();
    std::fs::write(policies.join("manifest.json"), text).unwrap();
}

fn setup() -> Setup {
    Setup::without_files().config(&config())
}

fn config() -> String {
    let public = key().public_key().unwrap();
    format!("reload: {{ manifest: {{ public_keys: [\"{public}\"] }} }}\n")
}

fn published(sequence: u64, rule: &str) -> TempDir {
    let temp = TempDir::new().unwrap();
    publish(temp.path(), sequence, rule);
    temp
}

fn reload(server: &Server) -> Answer {
    server.connect().request("POST", "/bundle/reload", &[], b"")
}

/// Which rule decides.
fn decides(server: &Server) -> Value {
    server.post("/is_authorized", &question("alice", "open/x")).json()["rules"][0]["id"].clone()
}

/// The only thing that is wrong with the newest files.
fn problem(server: &Server) -> Value {
    let bundle = server.get("/bundle").json();
    let problems = bundle["failure"]["problems"].as_array().cloned().unwrap_or_default();
    assert_eq!(problems.len(), 1, "{bundle}");
    problems[0].clone()
}

#[track_caller]
fn is_refused_as_older(server: &Server, sequence: u64, accepted: u64) {
    let problem = problem(server);
    assert_eq!((&problem["code"], &problem["file"]), (&json!("bundle-older"), &json!("manifest.json")));
    let message = format!("this bundle's sequence is {sequence}, and one of {accepted} has been accepted");
    assert_eq!(problem["message"], message.as_str());
    let help = problem["help"].as_str().unwrap();
    assert!(help.ends_with(&format!("`tollgate bundle manifest --sequence {}`", accepted + 1)), "{help}");
}

#[test]
fn an_older_bundle_is_refused_after_a_restart_too() {
    let server = setup().start_in(published(41, "old"));
    publish(server.temp.path(), 42, "new");
    assert_eq!(reload(&server).status, 200);
    assert_eq!(decides(&server), "new");
    publish(server.temp.path(), 41, "old");
    assert!(reload(&server).is_error(409, "reload_failed", ""));
    is_refused_as_older(&server, 41, 42);
    assert_eq!(decides(&server), "new");

    // As soon as it decides it has been kept: nothing is left for a crash to lose.
    let server = setup().start_in(server.crash());
    assert_eq!(server.get("/health/ready").status, 503);
    is_refused_as_older(&server, 41, 42);
    assert!(server.log().contains("this bundle's sequence is 41, and one of 42 has been accepted"), "{}", server.log());
    assert!(server.post("/is_authorized", &question("alice", "open/x")).is_error(503, "no_bundle", ""));

    // The way back is forward.
    publish(server.temp.path(), 43, "old");
    assert_eq!(reload(&server).status, 200);
    assert_eq!(decides(&server), "old");
    let server = setup().start_in(server.crash());
    assert_eq!((server.get("/health/ready").status, decides(&server)), (200, json!("old")));
}

#[test]
fn a_bundle_that_does_not_decide_raises_nothing() {
    let server = setup().start_in(published(41, "good"));
    publish(server.temp.path(), 50, "no rule of this { name");
    assert!(reload(&server).is_error(409, "reload_failed", ""));
    let server = setup().start_in(server.crash());
    publish(server.temp.path(), 42, "next");
    assert_eq!(reload(&server).status, 200);
    assert_eq!(decides(&server), "next");
}

#[test]
fn without_a_manifest_nothing_is_kept() {
    let server = Server::start();
    assert_eq!(reload(&server).status, 200);
    assert!(!server.temp.path().join(RECORD).exists());
    // Nor are meters, where they need not outlive the process, keys, where there are none, or decisions, where they are not
    // recorded.
    let config = "meters: { in_memory: true }\nidentity: { providers: [] }\ndecision_log: { level: off }\n";
    let server = Setup::new().config(config).start();
    assert_eq!(reload(&server).status, 200);
    assert!(!server.temp.path().join("tollgate-data").exists());
}

#[test]
fn with_a_damaged_record_it_does_not_start() {
    let temp = setup().start_in(published(42, "rule")).crash();
    for damage in ["", "{\"version\":1,\"seq", "42\n"] {
        std::fs::write(temp.path().join(RECORD), damage).unwrap();
        let (code, said) = setup().fail_in(temp.path());
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("code=sequence-not-kept") && said.contains(RECORD) && said.contains("remove it"),
            "{said}"
        );
    }
    std::fs::remove_file(temp.path().join(RECORD)).unwrap();
    assert_eq!(decides(&setup().start_in(temp)), "rule");
}

#[test]
fn what_cannot_be_kept_does_not_decide() {
    let temp = published(41, "old");
    // A file where a directory should be: root, too, can write nothing below it.
    std::fs::write(temp.path().join("file"), "").unwrap();
    let elsewhere = |setup: Setup| setup.argument("--data").argument("file/data").fail_in(temp.path());
    let (code, said) = elsewhere(setup());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`file/data` cannot be used"), "{said}");
    let (code, said) = elsewhere(
        setup().config(&format!("{}meters: {{ in_memory: true }}\nidentity: {{ providers: [] }}\n", config())),
    );
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("code=sequence-not-kept") && said.contains("file/data"), "{said}");

    std::fs::remove_file(temp.path().join("tollgate.yaml")).unwrap();
    let server = setup().start_in(temp);
    let blocking = server.temp.path().join(format!("{RECORD}.new"));
    std::fs::create_dir(&blocking).unwrap();
    publish(server.temp.path(), 42, "new");
    assert!(reload(&server).is_error(409, "reload_failed", ""));
    let problem = problem(&server);
    assert_eq!(problem["code"], "sequence-not-kept", "{problem}");
    assert!(problem["help"].as_str().unwrap().contains("--data"), "{problem}");
    assert_eq!(decides(&server), "old");
    std::fs::remove_dir(&blocking).unwrap();
    assert_eq!(reload(&server).status, 200);
    assert_eq!(decides(&server), "new");
}

#[test]
fn in_process_it_is_the_same() {
    let temp = published(42, "new");
    let (policies, data) = (temp.path().join("policies"), temp.path().join("data"));
    let build = || tollgate::Engine::builder().policies(&policies).data(&data).build();
    assert!(build().is_ok());
    publish(temp.path(), 41, "old");
    let error = build().unwrap_err().to_string();
    assert!(error.contains("this bundle's sequence is 41, and one of 42 has been accepted"), "{error}");
    // Who names no data directory keeps nothing.
    assert!(tollgate::Engine::load(&policies).is_ok());
    std::fs::write(data.join("manifest-sequence.json"), "").unwrap();
    assert!(build().unwrap_err().to_string().contains("sequence-not-kept"));
}
