//! The long run: ten million decisions and a thousand reloads through the real server, and its memory stays flat.
//!
//! By hand, and in `.ci/long`: `cargo test --release --test soak -- --ignored --nocapture`. `SOAK_DECISIONS` and
//! `SOAK_RELOADS` set other numbers. A short form runs with every `cargo test`.

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

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Decisions asked for in one batch.
const BATCH: usize = 1_000;

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(policies: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--policies"])
            .arg(policies)
            .arg("--data")
            .arg(policies.with_extension("data"))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // It may listen before the bundle is loaded.
        let (mut address, mut is_loaded) = (None, false);
        while address.is_none() || !is_loaded {
            let line = lines.next().expect("the server ended before it listened").unwrap();
            is_loaded |= line.contains("loaded revision");
            if let (None, Some((_, rest))) = (&address, line.split_once("http://")) {
                address = Some(rest.split_whitespace().next().unwrap().trim_end_matches(['/', ',']).to_owned());
            }
        }
        let address = address.unwrap();
        // What it says later is read and dropped, so that the pipe never fills.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts `body` and returns the status and the body of the answer.
fn post(stream: &mut BufReader<TcpStream>, path: &str, body: &str) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    stream.get_mut().write_all(body.as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).unwrap();
    (status, String::from_utf8(answer).unwrap())
}

fn write_bundle(folder: &Path, version: usize) {
    let mut text = String::from("authz_rules:\n");
    for rule in 0..200 {
        let _ =
            writeln!(text, "  - id: v{version}-{rule}\n    users: [user-{rule}]\n    models: [account/model-{rule}]");
        if rule % 10 == 0 {
            text.push_str("    when: context.budget.used_percent < 80\n");
        }
    }
    let fresh = folder.join(".fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(&fresh, folder.join("rules.yaml")).unwrap();
}

fn batch(seed: usize) -> String {
    let mut body = String::from("{\"requests\":[");
    for item in 0..BATCH {
        let (user, model) = ((seed + item) % 200, (seed + item * 3) % 200);
        let comma = if item == 0 { "" } else { "," };
        let _ = write!(
            body,
            "{comma}{{\"principal\":{{\"type\":\"User\",\"id\":\"user-{user}\"}},\"action\":\"chat\",\
             \"resource\":{{\"type\":\"Model\",\"id\":\"account/model-{model}\"}}}}"
        );
    }
    body.push_str("]}");
    body
}

/// Runs this many decisions and reloads, and returns the memory early on and at the end, in KiB.
fn run(decisions: usize, reloads: usize) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    write_bundle(&policies, 0);
    let server = Server::start(&policies);
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    let batches = decisions.div_ceil(BATCH).max(reloads);
    let mut early = 0;
    for number in 0..batches {
        let (status, answer) = post(&mut stream, "/is_authorized/batch", &batch(number));
        assert_eq!(status, 200, "{answer}");
        if number * reloads / batches != (number + 1) * reloads / batches {
            write_bundle(&policies, number + 1);
            let (status, answer) = post(&mut stream, "/bundle/reload", "");
            assert_eq!(status, 200, "{answer}");
        }
        // The first tenth is for caches and the allocator to find their size.
        if number == batches / 10 {
            early = server.resident_kib();
        }
    }
    let end = server.resident_kib();
    println!("{} decisions, {reloads} reloads: {early} KiB after a tenth, {end} KiB at the end", batches * BATCH);
    (early, end)
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn memory_stays_flat_over_a_short_run() {
    let (early, end) = run(40_000, 40);
    assert!(end < early + early / 4 + 8 * 1024, "memory grew from {early} to {end} KiB");
}

#[test]
#[ignore = "takes minutes; by hand and in .ci/long"]
fn memory_stays_flat_over_ten_million_decisions() {
    let (early, end) = run(number("SOAK_DECISIONS", 10_000_000), number("SOAK_RELOADS", 1_000));
    assert!(end < early + early / 10 + 4 * 1024, "memory grew from {early} to {end} KiB");
}
