//! What the embedded store keeps: through a restart, a second process, damage and a disk that is full.

use std::fs;
use std::path::Path;

use tollgate::edge::store::{Embedded, OpenError};
use tollgate::gate::{HoldError, Meters, StoreError};
use tollgate::meter::State;

use crate::{at, charge, daily, hold, id, tokens, wait};

fn open(directory: &Path) -> Embedded {
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
    wait(before.hold(named, at(0))).unwrap();
    drop(before);
    let after = open(directory.path());
    let look = wait(after.look(&one(1), at(2))).unwrap();
    assert_eq!((look[0].standing.used.get(), look[0].standing.held.get()), (15, 10));
    assert_eq!(wait(after.settle(id(2), tokens(15), at(3))).unwrap().reservation.state, State::Settled(tokens(15)));
    assert!(wait(after.settle(id(2), tokens(16), at(3))).is_err());
    wait(after.settle(id(1), tokens(10), at(3))).unwrap();
    let look = wait(after.look(&one(1), at(4))).unwrap();
    assert_eq!((look[0].standing.used.get(), look[0].standing.held.get()), (25, 0));
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
    let damage: [Damage; 5] = [
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
