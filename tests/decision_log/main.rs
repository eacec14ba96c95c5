//! The decision log from outside: the real binary decides, and the files that it leaves are read back.

#![allow(
    missing_docs,
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

mod checkpoints;
mod crash;
mod library;
#[path = "../http/receiver.rs"]
#[allow(dead_code, reason = "shared with the tests of HTTP")]
mod receiver;
mod records;
mod settings;
#[path = "../http/support.rs"]
#[allow(dead_code, reason = "shared with the tests of HTTP")]
mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use support::Server;

pub fn folder(temp: &Path) -> PathBuf {
    temp.join("tollgate-data/decisions")
}

/// The files of the log, the oldest first.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    files
}

/// Every line of the log, the first one first.
pub fn lines(folder: &Path) -> Vec<Value> {
    let text: String = files(folder).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The records of decisions.
pub fn decisions(folder: &Path) -> Vec<Value> {
    lines(folder).into_iter().filter(|line| line.get("event").is_none()).collect()
}

/// Stops a server as people do, so that all of its log is on the disk.
pub fn stop(server: &mut Server) {
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());
}

/// Runs `tollgate log`; its exit code, and what it said on both ways.
pub fn log(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let output = command.arg("log").args(arguments).arg("--log").arg(folder).env_clear().output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
