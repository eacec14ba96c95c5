//! Bundles that change all the time, some of them broken, below clients that ask without pause: every answer is one
//! bundle's and no other's, nothing fails, and what is broken never decides.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]
#![cfg(all(unix, feature = "server"))]
#[path = "http/support.rs"]
#[allow(dead_code, reason = "it uses less of it than the other tests do")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::{Client, Setup, question};
use tempfile::TempDir;
use tollgate::edge::files::{ReadLimits, manifest, read};

const VERSIONS: u32 = 200;
const CONNECTIONS: usize = 64;
const THREADS: usize = 4;
/// Every so manyth version does not load.
const BROKEN: u32 = 5;

fn is_broken(version: u32) -> bool {
    version % BROKEN == BROKEN - 1
}

/// Puts a version in place of the one before, in one step. Its two rules stand in two files.
fn publish(temp: &Path, version: u32) {
    let directory = temp.join(format!("version-{version}"));
    std::fs::create_dir(&directory).unwrap();
    let rule = |name: &str| format!("authz_rules: [{{ id: {name}-{version}, users: [alice], models: [open/x] }}]\n");
    std::fs::write(directory.join("a.yaml"), rule("a")).unwrap();
    let broken = if is_broken(version) { "authz_rule: []\n" } else { "" };
    std::fs::write(directory.join("b.yaml"), format!("{}{broken}", rule("b"))).unwrap();
    // With a manifest the files are taken at once, without one when two readings of them agree.
    if !version.is_multiple_of(4) {
        let reading = read(&directory, &ReadLimits::default()).unwrap();
        std::fs::write(directory.join("manifest.json"), manifest::create(&reading.bundle, version.into())).unwrap();
    }
    symlink(&directory, temp.join("next")).unwrap();
    std::fs::rename(temp.join("next"), temp.join("current")).unwrap();
}

/// Asks on many connections at once until `stop`; what was said.
fn ask(address: std::net::SocketAddr, stop: &AtomicBool, asked: &AtomicU64) -> BTreeSet<String> {
    let body = question("alice", "open/x");
    let request = format!(
        "POST /is_authorized HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut clients: Vec<Client> = (0..CONNECTIONS / THREADS).map(|_| Client::connect(address)).collect();
    let mut said = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        for client in &mut clients {
            client.send(request.as_bytes());
        }
        for client in &mut clients {
            let answer = client.read().expect("an answer to every request");
            assert_eq!(answer.status, 200, "{answer:?}");
            // All but the answer's id; read later, so that the clients take little from the server.
            let (start, rest) = answer.body.split_once(r#","revision":"#).unwrap();
            assert!(start.starts_with(r#"{"decision":"permit","id":"#), "{answer:?}");
            if !said.contains(rest) {
                said.insert(rest.to_owned());
            }
            asked.fetch_add(1, Ordering::Relaxed);
        }
    }
    said
}

#[test]
fn every_answer_is_one_bundles() {
    let temp = TempDir::new().unwrap();
    publish(temp.path(), 0);
    let server = Setup::new().argument("--policies").argument("current").start_in(temp);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let asking: Vec<_> = (0..THREADS)
        .map(|_| {
            let (address, stop, asked) = (server.address, Arc::clone(&stop), Arc::clone(&asked));
            std::thread::spawn(move || ask(address, &stop, &asked))
        })
        .collect();
    let mut versions: BTreeMap<String, u32> = BTreeMap::new();
    versions.insert(server.get("/bundle").json()["revision"].as_str().unwrap().to_owned(), 0);
    for version in 1..VERSIONS {
        publish(server.temp.path(), version);
        let reloaded = server.connect().request("POST", "/bundle/reload", &[], b"");
        if is_broken(version) {
            assert!(reloaded.is_error(409, "reload_failed", ""), "{version}: {reloaded:?}");
        } else {
            assert_eq!(reloaded.status, 200, "{version}: {reloaded:?}");
            versions.insert(reloaded.json()["revision"].as_str().unwrap().to_owned(), version);
        }
        if version % 50 == 0 {
            // So that some answers come between two reloads, however slow the machine is.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let said: BTreeSet<String> = asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect();
    for text in &said {
        let body: Value = serde_json::from_str(&format!("{{\"revision\":{text}")).unwrap();
        let revision = body["revision"].as_str().unwrap();
        let rules = body["rules"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap());
        let rules: Vec<&str> = rules.collect();
        let version = versions.get(revision).unwrap_or_else(|| panic!("{revision} was never loaded: {rules:?}"));
        assert_eq!(rules, [format!("a-{version}"), format!("b-{version}")], "{revision}");
    }
    let good = (0..VERSIONS).filter(|version| !is_broken(*version)).count();
    assert_eq!(versions.len(), good);
    assert!(said.len() > good / 2, "only {} of {good} bundles were seen to decide", said.len());
    let metrics = server.get("/metrics").body;
    let count = |start: &str| -> usize {
        let line = metrics.lines().find_map(|line| line.strip_prefix(start)).unwrap();
        line.trim().parse().unwrap()
    };
    assert!(count("tollgate_reload_total{outcome=\"failure\"}") >= VERSIONS as usize - good, "{metrics}");
    assert!(count("tollgate_reload_total{outcome=\"success\"}") >= good, "{metrics}");
    assert_eq!(count("tollgate_http_responses_total{status=\"503\"}"), 0);
    assert!(count("tollgate_http_responses_total{status=\"200\"}") as u64 >= asked.load(Ordering::Relaxed));
}
