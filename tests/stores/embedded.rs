//! What the embedded store keeps: through a restart, a second process, damage and a disk that is full.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tollgate::edge::store::{Embedded, OpenError};
use tollgate::gate::{CloseError, HoldError, Meters, StoreError};
use tollgate::meter::{Durability, Limit, State};

use crate::{at, charge, daily, hold, id, tokens, wait};

pub fn open(directory: &Path) -> Embedded {
    Embedded::open(directory, at(0)).unwrap()
}

#[test]
fn a_restart_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let limit = daily("day", 100);
    let one = |number| [charge(&limit, "a", number)];
    let before = open(directory.path());
    wait(before.hold(hold(1, &one(10)), at(0))).unwrap();
    wait(before.hold(hold(2, &one(20)), at(0))).unwrap();
    wait(before.settle(id(2), tokens(15), at(1))).unwrap();
    let mut named = hold(3, &one(30));
    named.idempotency = Some(("never answered".into(), [0; 32]));
    wait(before.hold(named.clone(), at(0))).unwrap();
    drop(before);
    let after = open(directory.path());
    let look = wait(after.look(&one(1), at(2))).unwrap();
    assert_eq!((look[0].standing.used.get(), look[0].standing.held.get()), (15, 10));
    assert_eq!(wait(after.settle(id(2), tokens(15), at(3))).unwrap().reservation.state, State::Settled(tokens(15)));
    assert!(wait(after.settle(id(2), tokens(16), at(3))).is_err());
    wait(after.settle(id(1), tokens(10), at(3))).unwrap();
    let look = wait(after.look(&one(1), at(4))).unwrap();
    assert_eq!((look[0].standing.used.get(), look[0].standing.held.get()), (25, 0));
    // Nobody was told of what was given back, so its key names whatever comes next.
    named.id = id(4);
    wait(after.hold(named, at(4))).unwrap();
}

/// A copy of the file, as a crash would leave it.
pub fn as_after_a_crash(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_name() != "meters.lock" {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

/// Who sends a request again while the first is being written must not be told of it before it is kept.
#[test]
fn what_a_key_tells_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let limit = daily("day", 1_000_000);
    let named = |number: u128, key: &str| {
        let mut hold = hold(number, &[charge(&limit, "a", 1)]);
        hold.idempotency = Some((key.into(), [0; 32]));
        hold
    };
    let store = open(directory.path());
    // What keeps the writer busy.
    let others: Vec<_> =
        (1000..3000).map(|number| store.record(hold(number, &[charge(&limit, "b", 1)]), tokens(1), at(0))).collect();
    let first = store.record(named(1, "asked"), tokens(1), at(0));
    let found = wait(store.named("asked", at(0))).unwrap().unwrap();
    assert_eq!(found.id, id(1));
    let second = store.record(named(2, "noted"), tokens(1), at(0));
    assert!(matches!(wait(store.record(named(3, "noted"), tokens(1), at(0))), Err(CloseError::KeyTaken(_))));
    let copy = as_after_a_crash(directory.path());
    let after = open(copy.path());
    for (key, number) in [("asked", 1), ("noted", 2)] {
        assert_eq!(wait(after.named(key, at(1))).unwrap().map(|found| found.id), Some(id(number)), "{key}");
    }
    drop((first, second, others));
}

#[test]
fn two_processes_do_not_share_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path());
    assert!(matches!(Embedded::open(directory.path(), at(0)), Err(OpenError::InUse { .. })));
}

#[test]
fn a_damaged_file_is_refused() {
    type Damage = (&'static str, fn(&Path));
    let damage: [Damage; 8] = [
        ("empty", |file| fs::write(file, "").unwrap()),
        ("another program's", |file| fs::write(file, "not a database, but as long as one".repeat(500)).unwrap()),
        ("cut", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("overwritten in the middle", |file| {
            let mut bytes = fs::read(file).unwrap();
            let (from, to) = (bytes.len() / 4, bytes.len());
            bytes[from..to].fill(0xA5);
            fs::write(file, bytes).unwrap();
        }),
        ("without its log", |file| fs::remove_file(file.with_file_name("meters-1.log")).unwrap()),
        ("with another's log", |file| {
            let other = tempfile::tempdir().unwrap();
            drop(open(other.path()));
            fs::copy(other.path().join("meters-0.log"), file.with_file_name("meters-0.log")).unwrap();
        }),
        ("gone, with its log still there", |file| fs::remove_file(file).unwrap()),
        ("gone, with what was written last still there", |file| {
            fs::write(file.with_extension("db-wal"), "x").unwrap();
            fs::remove_file(file).unwrap();
        }),
    ];
    for (how, damage) in damage {
        let directory = tempfile::tempdir().unwrap();
        let limit = daily("day", 1_000_000);
        let store = open(directory.path());
        for number in 0..500 {
            wait(store.hold(hold(number, &[charge(&limit, &format!("subject {number}"), 1)]), at(0))).unwrap();
        }
        drop(store);
        damage(&directory.path().join("meters.db"));
        let error = Embedded::open(directory.path(), at(0)).expect_err(how);
        assert!(matches!(error, OpenError::Damaged { .. }), "{how}: {error}");
        assert!(error.to_string().contains("put back a copy"), "{how}: {error}");
    }
}

/// A process of its own whose files may not grow, since the limit is a process's.
#[test]
fn a_full_disk_grants_nothing() {
    const INSIDE: &str = "TOLLGATE_TEST_FULL_DISK";
    if let Ok(directory) = std::env::var(INSIDE) {
        let limit = daily("day", 1_000_000_000);
        let store = open(Path::new(&directory));
        let mut acknowledged = 0;
        for number in 0..100_000 {
            match wait(store.hold(hold(number, &[charge(&limit, "a", 1)]), at(0))) {
                Ok(_) => acknowledged += 1,
                Err(HoldError::Store(StoreError::NotWritten(_))) => break,
                Err(other) => panic!("{other:?}"),
            }
        }
        let look = wait(store.look(&[charge(&limit, "a", 1)], at(1))).unwrap();
        assert_eq!(look[0].standing.held.get(), acknowledged, "what was refused is held");
        // Who would not wait for the disk does, once it is full.
        let lazy = Arc::new(Limit { durability: Durability::Async, ..(*daily("lazy", 1_000_000_000)).clone() });
        let refused = (100_000..200_000).any(|number| {
            let held = wait(store.hold(hold(number, &[charge(&lazy, "a", 1)]), at(0)));
            matches!(held, Err(HoldError::Store(StoreError::NotWritten(_))))
        });
        assert!(refused, "a full disk grants what nobody will know of");
        println!("acknowledged {acknowledged}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    // Writing beyond the limit raises SIGXFSZ, which is ignored so that it fails as a full disk does.
    let script = "trap '' XFSZ; ulimit -f 300; exec \"$0\" --exact embedded::a_full_disk_grants_nothing --nocapture";
    let output = std::process::Command::new("bash")
        .args(["-c", script, this.to_str().unwrap()])
        .env(INSIDE, directory.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged = told.lines().find_map(|line| line.strip_prefix("acknowledged ")).unwrap();
    let acknowledged: u64 = acknowledged.parse().unwrap();
    assert!(acknowledged > 10, "{told}");
    let limit = daily("day", 1_000_000_000);
    let look = wait(open(directory.path()).look(&[charge(&limit, "a", 1)], at(1))).unwrap();
    assert_eq!(look[0].standing.held.get(), acknowledged, "not what was acknowledged");
}
