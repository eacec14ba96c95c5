//! Files that are gone, or not read at all: what an engine that watches a directory makes of them.

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
#![cfg(unix)]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::edge::files::{ManifestPolicy, ReadLimits, Reader, SettleOptions, WatchOptions, manifest, read};
use tollgate::policy::problem::ProblemCode;
use tollgate::{Engine, Request};

/// Only a hang takes this long, also on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(60);
/// So long that no test sees the end of it.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

const PERMIT: &str = "authz_rules: [{ users: [alice], models: [openai/m] }]\n";
const DENY: &str = "authz_rules: [{ effect: forbid, users: [alice], models: [openai/m] }]\n";
const LIMIT: &str = "limits: [{ id: one, users: [alice], rate: { requests: 1, every: minute } }]\n";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Points the link at `path` to `target`, in one step.
fn point(target: &str, path: &Path) {
    let beside = path.parent().unwrap().join(".new-link");
    symlink(target, &beside).unwrap();
    fs::rename(beside, path).unwrap();
}

/// A watching engine, and whether each bundle that it took permits.
struct Watching {
    engine: Engine,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Watching {
    /// An engine for which files lie still for `long` where patience is long.
    fn new(directory: &Path, long: Duration) -> Self {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&taken);
        let options =
            WatchOptions { settle: SettleOptions { long, ..SettleOptions::default() }, ..WatchOptions::default() };
        let note = move |live: &tollgate::policy::Live| {
            let files = live.current().map(|snapshot| snapshot.counts());
            told.lock()
                .unwrap()
                .extend(files.map(|counts| format!("{} forbids, {} limits", counts.forbids, counts.limits)));
        };
        let engine =
            Engine::builder().policies(directory).watch(true).watch_options(options).on_load(note).build().unwrap();
        Self { engine, taken }
    }

    fn permits(&self) -> bool {
        let uid = |text: &str| text.parse().unwrap();
        let request = Request::new(uid("User::\"alice\""), "chat", uid("Model::\"openai/m\""));
        self.engine.is_authorized(&request).unwrap().is_permit()
    }

    fn until(&self, what: &str, is_it: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_it(self) {
            assert!(began.elapsed() < DEADLINE, "{what}: {:?}", self.taken.lock().unwrap());
            std::thread::yield_now();
        }
    }

    fn took(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

/// Somebody moves files about: those with forbids or limits are gone for longer than two readings take.
#[test]
fn a_file_that_vanishes_with_forbids_or_limits_waits() {
    for (lost, shown) in [(DENY, "1 forbids, 0 limits"), (LIMIT, "0 forbids, 1 limits")] {
        let temp = TempDir::new().unwrap();
        write(&temp.path().join("a.yaml"), PERMIT);
        write(&temp.path().join("b.yaml"), lost);
        let patient = Watching::new(temp.path(), FOREVER);
        let hasty = Watching::new(temp.path(), Duration::ZERO);
        fs::rename(temp.path().join("b.yaml"), temp.path().join("b.moved")).unwrap();
        // The hasty one shows that there was time enough to see it.
        hasty.until("the file is gone", |hasty| hasty.took().last().unwrap() == "0 forbids, 0 limits");
        write(&temp.path().join("c.yaml"), "users: [{ id: bob }]\n");
        hasty.until("a third file is there", |hasty| hasty.engine.snapshot().unwrap().counts().users == 1);
        fs::rename(temp.path().join("b.moved"), temp.path().join("b.yaml")).unwrap();
        patient.until("the file is back", |patient| patient.engine.snapshot().unwrap().counts().users == 1);
        let took = patient.took();
        assert!(took.iter().all(|took| took == shown), "{took:?}");
    }
}

#[test]
fn a_file_that_stays_away_is_gone_in_the_end() {
    let temp = TempDir::new().unwrap();
    write(&temp.path().join("a.yaml"), PERMIT);
    write(&temp.path().join("b.yaml"), DENY);
    let watching = Watching::new(temp.path(), SettleOptions::default().long);
    assert!(!watching.permits());
    fs::remove_file(temp.path().join("b.yaml")).unwrap();
    watching.until("the forbid is gone", Watching::permits);
}

/// A ConfigMap: links through `..data`, which is pointed elsewhere in one step; the links that lead nowhere are removed
/// after that.
#[test]
fn a_config_map_without_a_file_is_taken_without_waiting() {
    let temp = TempDir::new().unwrap();
    let bundle = temp.path().join("bundle");
    write(&bundle.join("..1/a.yaml"), PERMIT);
    write(&bundle.join("..1/b.yaml"), DENY);
    write(&bundle.join("..1/c.yaml"), &format!("{LIMIT}users: [{{ id: alice }}]\n"));
    write(&bundle.join("..2/a.yaml"), PERMIT);
    write(&bundle.join("..2/c.yaml"), "users: [{ id: alice }]\n");
    point("..1", &bundle.join("..data"));
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        symlink(format!("..data/{name}"), bundle.join(name)).unwrap();
    }
    let watching = Watching::new(&bundle, FOREVER);
    assert!(!watching.permits());
    point("..2", &bundle.join("..data"));
    fs::remove_file(bundle.join("b.yaml")).unwrap();
    watching.until("the swap is taken", Watching::permits);
    assert_eq!(watching.engine.snapshot().unwrap().counts().limits, 0);
}

/// git-sync: the bundle's directory, or one above it, is a link that is pointed to another worktree.
#[test]
fn another_worktree_is_taken_without_waiting() {
    for directory in ["current", "current/policies", "policies"] {
        let temp = TempDir::new().unwrap();
        for (version, with_deny) in [("1", true), ("2", false)] {
            let folder = temp.path().join(".worktrees").join(version).join("policies");
            write(&folder.join("a.yaml"), PERMIT);
            if with_deny {
                write(&folder.join("b.yaml"), DENY);
            }
        }
        // In the last case only a folder within the bundle is a link.
        let link = if directory == "policies" {
            write(&temp.path().join("policies/c.yaml"), "users: [{ id: alice }]\n");
            fs::rename(temp.path().join(".worktrees"), temp.path().join("policies/.worktrees")).unwrap();
            temp.path().join("policies/eu")
        } else {
            temp.path().join("current")
        };
        point(".worktrees/1", &link);
        let watching = Watching::new(&temp.path().join(directory), FOREVER);
        assert!(!watching.permits(), "{directory}");
        point(".worktrees/2", &link);
        watching.until("the other worktree is taken", Watching::permits);
    }
}

/// A link that is taken away, rather than pointed elsewhere, proves nothing.
#[test]
fn a_linked_folder_that_is_removed_waits() {
    let temp = TempDir::new().unwrap();
    let bundle = temp.path().join("bundle");
    write(&bundle.join("a.yaml"), PERMIT);
    write(&bundle.join(".shared/b.yaml"), DENY);
    point(".shared", &bundle.join("shared"));
    let patient = Watching::new(&bundle, FOREVER);
    let hasty = Watching::new(&bundle, Duration::ZERO);
    fs::remove_file(bundle.join("shared")).unwrap();
    hasty.until("the link is gone", Watching::permits);
    write(&bundle.join("c.yaml"), "users: [{ id: bob }]\n");
    hasty.until("a third file is there", |hasty| hasty.engine.snapshot().unwrap().counts().users == 1);
    point(".shared", &bundle.join("shared"));
    patient.until("the link is back", |patient| patient.engine.snapshot().unwrap().counts().users == 1);
    assert!(patient.took().iter().all(|took| took == "1 forbids, 0 limits"), "{:?}", patient.took());
}

#[test]
fn a_complete_manifest_without_a_file_is_taken_without_waiting() {
    let temp = TempDir::new().unwrap();
    write(&temp.path().join("a.yaml"), PERMIT);
    write(&temp.path().join("b.yaml"), DENY);
    let publish = |sequence| {
        let reading = read(temp.path(), &ReadLimits::default()).unwrap();
        let beside = temp.path().join(".manifest");
        fs::write(&beside, manifest::create(&reading.bundle, sequence)).unwrap();
        fs::rename(beside, temp.path().join("manifest.json")).unwrap();
    };
    publish(1);
    let watching = Watching::new(temp.path(), FOREVER);
    assert!(!watching.permits());
    fs::remove_file(temp.path().join("b.yaml")).unwrap();
    publish(2);
    watching.until("the manifest is taken", Watching::permits);
}

/// What is not read, and why that is a mistake, is told of each file; of what nobody would take for policy, nothing is.
#[test]
fn files_that_look_like_policy_and_are_not_read_are_found() {
    let temp = TempDir::new().unwrap();
    let json = "{ \"authz_rules\": [] }";
    for (name, text) in [
        ("a.yaml", PERMIT),
        ("deny.YAML", DENY),
        ("eu/deny.Yml", DENY),
        ("eu/deny.CEDAR", ""),
        ("rules.yaml.bak", ""),
        ("rules.yaml~", ""),
        ("deny.json", json),
        ("deny2.JSON", DENY),
        ("entities.json", "[{ \"uid\": { \"type\": \"User\", \"id\": \"a\" } }]"),
        ("package.json", "{ \"name\": \"x\", \"config\": { \"authz_rules\": [] } }"),
        ("jwks.json", "{ \"keys\": [{ \"kty\": \"RSA\" }] }"),
        ("README.md", ""),
        (".deny.YAML", ""),
        (".git/deny.YAML", ""),
        ("rules.yml/inner.yaml", "users: [{ id: bob }]\n"),
        ("rules.YAML/notes", ""),
    ] {
        write(&temp.path().join(name), text);
    }
    // Nothing but its name is looked at: an open would wait for ever.
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket.YAML")).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(temp.path().join("socket.json")).unwrap();
    let utf16: Vec<u8> = "\u{FEFF}{ \"limits\": [] }".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(temp.path().join("utf16.json"), utf16).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"d\xFFny.YAML");
    write(&temp.path().join(name), DENY);
    let reading = read(temp.path(), &ReadLimits::default()).unwrap();
    let found: Vec<&str> = reading.bundle.skipped().iter().map(|file| &*file.path).collect();
    assert_eq!(
        found,
        [
            "deny.YAML",
            "deny.json",
            "deny2.JSON",
            "d\u{FFFD}ny.YAML",
            "entities.json",
            "eu/deny.CEDAR",
            "eu/deny.Yml",
            "rules.YAML",
            "rules.yaml.bak",
            "rules.yaml~",
            "rules.yml",
            "socket.YAML",
            "utf16.json"
        ]
    );
    assert_eq!(reading.bundle.files().len(), 2);
}

/// What is not read does not decide, so that it is no part of the revision; that it came or went is told all the same.
#[test]
fn a_file_that_is_not_read_is_told_while_it_is_there() {
    let temp = TempDir::new().unwrap();
    write(&temp.path().join("a.yaml"), PERMIT);
    let watching = Watching::new(temp.path(), FOREVER);
    let revision = watching.engine.snapshot().unwrap().revision().to_string();
    let is_told = |watching: &Watching, name: &str| {
        let report = watching.engine.report();
        report.warnings.iter().any(|problem| problem.code == ProblemCode::FileSkipped && &*problem.file == name)
    };
    write(&temp.path().join("deny.YAML"), DENY);
    watching.until("it is told", |watching| is_told(watching, "deny.YAML"));
    write(&temp.path().join("deny.json"), "{}");
    fs::remove_file(temp.path().join("deny.YAML")).unwrap();
    watching.until("it is gone", |watching| !is_told(watching, "deny.YAML"));
    // The name stays, and what is in it says something else.
    write(&temp.path().join("deny.json"), "{ \"authz_rules\": [] }");
    watching.until("its content is told", |watching| is_told(watching, "deny.json"));
    assert_eq!(watching.engine.snapshot().unwrap().revision().to_string(), revision);
    let strict = Engine::builder().policies(temp.path()).strict(true).build().unwrap_err();
    assert!(strict.problems.iter().any(|problem| problem.code == ProblemCode::FileSkipped), "{strict}");
}

/// A reader keeps nothing between readings, so that both ways to a digest agree.
#[test]
fn what_is_not_read_is_part_of_both_digests() {
    let temp = TempDir::new().unwrap();
    write(&temp.path().join("a.yaml"), PERMIT);
    let reader = Reader::new(temp.path(), ReadLimits::default());
    let digest = || {
        let walk = reader.walk();
        let both = (reader.digest(&walk).unwrap(), reader.read(&walk).unwrap().digest());
        assert_eq!(both.0, both.1);
        both.0
    };
    let before = digest();
    write(&temp.path().join("deny.json"), "{ \"authz_rules\": [] }");
    let with_json = digest();
    write(&temp.path().join("deny.json"), "{ \"other\": [] }");
    let harmless = digest();
    assert!(before != with_json && before == harmless);
    assert!(ManifestPolicy::default().public_keys.is_empty());
}
