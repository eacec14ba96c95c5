//! Files of the data directory are their owner's alone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{BUNDLE, Server, Setup};

const LIMIT: &str = "limits: [{ id: one, users: [alice], budget: { tokens: 100, every: day } }]\n";
const RESERVE: &str = r#"{"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"",
    "reserve": {"requests": 1, "input_tokens": 1, "output_tokens": 1}}"#;

/// Every file below `directory` with its permissions.
fn files(directory: &Path) -> Vec<(String, u32)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        files.push((path.file_name().unwrap().to_string_lossy().into_owned(), mode));
    }
    files
}

fn start(temp: TempDir) -> Server {
    let policies = temp.path().join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    std::fs::write(policies.join("bundle.yaml"), format!("{BUNDLE}{LIMIT}")).unwrap();
    let mut manifest = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    assert!(manifest.args(["bundle", "manifest"]).arg(&policies).status().unwrap().success());
    let server = Setup::without_files().start_in(temp);
    let held = server.post("/is_authorized", RESERVE).json();
    assert!(held["reservation"]["id"].is_string(), "{held}");
    server
}

/// Meters, keys, tokens, locks and the record of sequences; also where an earlier version let others read them.
#[test]
fn every_file_of_the_data_directory_is_its_owners_alone() {
    let mut temp = TempDir::new().unwrap();
    for time in ["made", "made before"] {
        let server = start(temp);
        let data = server.temp.path().join("tollgate-data");
        let found = files(&data);
        for name in [
            "meters.db",
            "meters-0.log",
            "meters-1.log",
            "meters.lock",
            "keys.db",
            "tokens.db",
            "manifest-sequence.json",
        ] {
            assert!(found.iter().any(|(known, _)| known == name), "{name}: {found:?}");
        }
        assert!(found.iter().all(|(_, mode)| mode & 0o077 == 0), "{time}: {found:?}");
        assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o077, 0);
        temp = server.crash();
        // Others have been private from the beginning.
        let of_earlier = ["meters", "keys.", "tokens.", "manifest-sequence."];
        for (name, _) in found.into_iter().filter(|(name, _)| of_earlier.iter().any(|begin| name.starts_with(begin))) {
            let path = temp.path().join("tollgate-data").join(name);
            if path.exists() {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o664)).unwrap();
            }
        }
    }
}
