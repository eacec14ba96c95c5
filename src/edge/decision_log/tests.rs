//! The log as a whole, in files, with a clock and a disk of the test's own.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicI64;

use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use super::queue::Taken;
use super::*;
use crate::model::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// A writer that is driven turn by turn.
struct World {
    writer: Writer,
    now: Arc<AtomicI64>,
    free: Arc<AtomicU64>,
    told: Arc<Mutex<Vec<String>>>,
    checkpoints: Arc<Mutex<Vec<u8>>>,
}

struct Now(Arc<AtomicI64>);

impl Clock for Now {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Ten records; their ids follow those of the turn before.
fn ten(turn: i64) -> Vec<u8> {
    let first = turn.unsigned_abs() * 10;
    records(first..first + 10)
}

/// Lines as [`line::write`] makes them.
fn records(ids: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let record = |id| format!("\"id\":\"p-{id}\",\"decision\":\"permit\",\"masked\":[]}}\n");
    ids.into_iter().map(record).collect::<String>().into_bytes()
}

impl World {
    fn open(folder: &Path, most_bytes: u64) -> Self {
        let keeping = Keeping { most_bytes, keep_days: 2 };
        let (folder, position, repaired) = Folder::open(folder, keeping).unwrap();
        Self::with(Output::Folder(folder), State::at(position), repaired.as_ref())
    }

    fn with(output: Output, state: State, repaired: Option<&files::Repaired>) -> Self {
        let (now, free) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicU64::new(50)));
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let checkpoints: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (telling, keeping, disk) = (Arc::clone(&told), Arc::clone(&checkpoints), Arc::clone(&free));
        let mut writer = Writer {
            shared: Arc::new(Shared::new(1024, OnFull::Drop)),
            output,
            clock: Arc::new(Now(Arc::clone(&now))),
            tell: Arc::new(move |_, text| telling.lock().push(text.to_owned())),
            keep: Box::new(move |checkpoint| {
                keeping.lock().extend_from_slice(&checkpoint.line);
                Ok(())
            }),
            free: Box::new(move |_| Some(disk.load(Ordering::Relaxed))),
            node: "n1".to_owned(),
            state,
        };
        writer.start(repaired);
        Self { writer, now, free, told, checkpoints }
    }

    fn at(&self, millis: i64) {
        self.now.store(millis, Ordering::Relaxed);
    }

    fn take(&mut self, lines: Vec<u8>, dropped: u64) {
        self.writer.turn(&Taken { lines, dropped, closed: false });
    }

    fn lost(&self) -> u64 {
        self.writer.shared.lost.load(Ordering::Relaxed)
    }
}

fn whole(folder: &Path) -> Verified {
    let verified = verify(folder, &Kept::default()).unwrap();
    assert_eq!(verified.damage, None);
    verified
}

/// All lines of all files, in order.
fn lines(folder: &Path) -> Vec<Value> {
    let files = files::list(folder).unwrap();
    let text: String = files.iter().map(|file| std::fs::read_to_string(&file.path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(folder: &Path, event: &str) -> Vec<Value> {
    lines(folder).into_iter().filter(|line| line["event"] == event).collect()
}

/// A log of 30 decisions with checkpoints, in one file.
fn written(folder: &Path) -> std::path::PathBuf {
    let mut world = World::open(folder, 1 << 20);
    for turn in 0..3 {
        world.at(turn * 2_000);
        world.take(ten(turn), 0);
    }
    world.writer.end();
    files::list(folder).unwrap()[0].path.clone()
}

#[test]
fn what_is_written_is_whole_and_goes_on_after_a_restart() {
    let temp = TempDir::new().unwrap();
    written(temp.path());
    let first = whole(temp.path());
    assert_eq!((first.decisions, first.unchecked, first.missing), (30, 0, 0));
    assert!(first.checkpoints >= 3);
    let mut world = World::open(temp.path(), 1 << 20);
    world.take(records([30]), 0);
    let second = whole(temp.path());
    assert_eq!(second.decisions, 31);
    assert_eq!(files::list(temp.path()).unwrap().len(), 1);
    assert_eq!(events(temp.path(), "start").len(), 2);
    assert_eq!(find(temp.path(), "p-7").unwrap().unwrap()["id"], "p-7");
    assert_eq!(find(temp.path(), "p-").unwrap(), None);
}

#[test]
fn another_process_may_not_write_the_same_log() {
    let temp = TempDir::new().unwrap();
    let keeping = Keeping { most_bytes: 1 << 20, keep_days: 2 };
    let _first = Folder::open(temp.path(), keeping).unwrap();
    assert!(matches!(Folder::open(temp.path(), keeping), Err(DecisionLogError::InUse { .. })));
}

#[test]
fn a_torn_line_is_found_and_repaired_at_the_next_start() {
    let temp = TempDir::new().unwrap();
    let file = written(temp.path());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend_from_slice(b"{\"v\":1,\"seq\":99");
    std::fs::write(&file, &bytes).unwrap();
    let damage = verify(temp.path(), &Kept::default()).unwrap().damage.unwrap();
    assert!(damage.what.contains("15 bytes follow the last complete record"), "{damage}");
    let mut world = World::open(temp.path(), 1 << 20);
    world.take(records([30]), 0);
    assert_eq!(whole(temp.path()).decisions, 31);
    let repaired = events(temp.path(), "repaired");
    assert_eq!((repaired.len(), &repaired[0]["bytes"]), (1, &Value::from(15)));
}

#[test]
fn files_take_turns_by_size_and_by_day_and_old_ones_go() {
    let temp = TempDir::new().unwrap();
    let mut world = World::open(temp.path(), 4_096);
    for turn in 0..10 {
        world.at(turn * 10);
        world.take(ten(turn), 0);
    }
    let by_size = files::list(temp.path()).unwrap();
    assert!(by_size.len() > 3, "{by_size:?}");
    for file in &by_size {
        assert!(std::fs::metadata(&file.path).unwrap().len() < 4_096 + 512);
    }
    assert_eq!(whole(temp.path()).decisions, 100);
    world.at(DAY_MS);
    world.take(records([100]), 0);
    world.at(2 * DAY_MS);
    world.take(records([101]), 0);
    let kept = whole(temp.path());
    assert_eq!((kept.lines.unwrap().0, kept.decisions), (1, 102));
    // The files of the first day ended on the second: more than two days ago.
    world.at(4 * DAY_MS);
    world.take(records([102]), 0);
    let kept = whole(temp.path());
    assert!(kept.lines.unwrap().0 > 1);
    assert_eq!(kept.decisions, 3);
    drop(world);
    World::open(temp.path(), 4_096).take(records([103]), 0);
    assert_eq!(whole(temp.path()).decisions, 4);
}

#[test]
fn a_gap_says_how_many_are_missing_and_where() {
    let temp = TempDir::new().unwrap();
    let mut world = World::open(temp.path(), 1 << 20);
    world.take(records(0..3), 1_234);
    world.take(records(3..4), 0);
    let lines = lines(temp.path());
    let at = lines.iter().position(|line| line["event"] == "gap").unwrap();
    assert_eq!((&lines[at]["count"], &lines[at]["reason"]), (&Value::from(1_234), &Value::from("queue_full")));
    assert_eq!((&lines[at - 1]["id"], &lines[at + 1]["id"]), (&Value::from("p-2"), &Value::from("p-3")));
    assert_eq!((whole(temp.path()).missing, world.lost()), (1_234, 1_234));
}

#[test]
fn a_disk_that_is_nearly_full_stops_the_log_until_it_is_not() {
    let temp = TempDir::new().unwrap();
    let mut world = World::open(temp.path(), 1 << 20);
    world.take(records(0..2), 0);
    world.free.store(9, Ordering::Relaxed);
    for second in 1..4 {
        world.at(second * 1_000);
        world.take(records(10..15), 1);
    }
    assert!(world.writer.shared.stopped.load(Ordering::Relaxed));
    assert_eq!(whole(temp.path()).decisions, 2);
    world.free.store(10, Ordering::Relaxed);
    world.at(4_000);
    world.take(records(2..4), 0);
    let verified = whole(temp.path());
    assert_eq!((verified.decisions, verified.missing, world.lost()), (4, 18, 18));
    assert_eq!(events(temp.path(), "gap")[0]["reason"], "not_written");
    assert!(!world.writer.shared.stopped.load(Ordering::Relaxed));
    let told = world.told.lock();
    let told: Vec<&str> = told.iter().map(String::as_str).filter(|text| !text.contains("checkpoint")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("less than 10 % of its disk is free") && told[1].contains("goes on"), "{told:?}");
}

/// Takes so many bytes and then fails, until there is room again.
struct Full {
    room: Arc<AtomicU64>,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room.load(Ordering::Relaxed);
        if room < bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room.store(room - bytes.len() as u64, Ordering::Relaxed);
        self.taken.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever fails in between: every decision is in the log, or is counted there as missing.
    #[test]
    fn every_record_is_written_or_counted(
        turns in proptest::collection::vec((0_u64..30, 0_u64..3, prop_oneof![Just(0_u64), Just(700), Just(1 << 20)]), 1..20)
    ) {
        let (room, taken) = (Arc::new(AtomicU64::new(1 << 20)), Arc::new(Mutex::new(Vec::new())));
        let stream = Full { room: Arc::clone(&room), taken: Arc::clone(&taken) };
        let mut world = World::with(Output::Stream(Box::new(stream)), State::at(Position::default()), None);
        let (mut made, mut dropped_before) = (0, 0);
        for (number, (count, dropped, space)) in (0..).zip(turns) {
            room.store(space, Ordering::Relaxed);
            world.at(number * 1_500);
            world.take(records(made..made + count), dropped);
            made += count;
            dropped_before += dropped;
        }
        room.store(1 << 30, Ordering::Relaxed);
        world.at(1_000_000);
        world.take(Vec::new(), 0);
        world.writer.end();
        let temp = TempDir::new().unwrap();
        let file = temp.path().join("stdout");
        std::fs::write(&file, &*taken.lock()).unwrap();
        let verified = whole(&file);
        prop_assert_eq!(verified.decisions + verified.missing, made + dropped_before);
        prop_assert_eq!(verified.missing, world.lost());
        prop_assert_eq!(verified.decisions, world.writer.shared.written.load(Ordering::Relaxed));
    }

    /// One changed byte anywhere is found, and the record that it is in is the one that is named.
    #[test]
    fn a_changed_byte_is_found_where_it_is(at in any::<prop::sample::Index>(), with in 1_u8..=255) {
        let temp = TempDir::new().unwrap();
        let file = written(temp.path());
        let mut bytes = std::fs::read(&file).unwrap();
        // Nothing vouches for the last line but a checkpoint that is kept elsewhere.
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        let index = at.index(last);
        bytes[index] ^= with;
        let line = 1 + bytes[..index].split(|byte| *byte == b'\n').skip(1).count() as u64;
        std::fs::write(&file, &bytes).unwrap();
        let damage = verify(temp.path(), &Kept::default()).unwrap().damage;
        prop_assert!(damage.is_some());
        let damage = damage.unwrap();
        prop_assert_eq!(damage.line, line, "{}", damage);
    }
}

/// The log with its lines as `change` leaves them.
fn changed(change: impl FnOnce(&mut Vec<String>)) -> Option<Damage> {
    let temp = TempDir::new().unwrap();
    let file = written(temp.path());
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, text).unwrap();
    verify(temp.path(), &Kept::default()).unwrap().damage
}

#[test]
fn the_first_record_that_is_wrong_is_named() {
    assert_eq!(changed(|_| {}), None);
    // A record with changed content that is still valid JSON.
    let damage = changed(|lines| lines[5] = lines[5].replace("permit", "forbid")).unwrap();
    assert_eq!((damage.line, damage.seq), (6, 6), "{damage}");
    let damage = changed(|lines| drop(lines.remove(5))).unwrap();
    assert_eq!((damage.line, damage.seq), (6, 6), "{damage}");
    assert!(damage.what.contains("missing"), "{damage}");
    let damage = changed(|lines| lines.swap(5, 6)).unwrap();
    assert_eq!((damage.line, damage.seq), (6, 6), "{damage}");
    let damage = changed(|lines| lines.insert(6, lines[5].clone())).unwrap();
    assert_eq!((damage.line, damage.seq), (7, 7), "{damage}");
    let damage = changed(|lines| lines[7] = lines[7].replace("\"prev\":\"", "\"prev\":\"0")).unwrap();
    assert_eq!((damage.line, damage.seq), (8, 8), "{damage}");
}

#[test]
fn only_a_checkpoint_that_is_kept_elsewhere_shows_a_cut_or_a_rewritten_tail() {
    let temp = TempDir::new().unwrap();
    let mut world = World::open(temp.path(), 1 << 20);
    world.take(records(0..5), 0);
    world.at(2_000);
    world.take(records(5..10), 0);
    world.writer.end();
    let elsewhere = temp.path().join("elsewhere");
    std::fs::write(&elsewhere, &*world.checkpoints.lock()).unwrap();
    let kept = Kept::read(&elsewhere).unwrap();
    assert_eq!(verify(temp.path(), &kept).unwrap().damage, None);
    let file = files::list(temp.path()).unwrap()[0].path.clone();
    let text = std::fs::read_to_string(&file).unwrap();
    let short: String = text.lines().take(4).map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, &short).unwrap();
    assert_eq!(whole(temp.path()).decisions, 2);
    let damage = verify(temp.path(), &kept).unwrap().damage.unwrap();
    assert_eq!(damage.seq, 5, "{damage}");
    // An attacker who can write the file can rewrite the whole log.
    drop(world);
    std::fs::remove_file(&file).unwrap();
    let mut world = World::open(temp.path(), 1 << 20);
    world.take(records(20..25), 0);
    world.at(2_000);
    world.take(records(25..30), 0);
    world.writer.end();
    assert_eq!(whole(temp.path()).decisions, 10);
    assert!(verify(temp.path(), &kept).unwrap().damage.unwrap().what.contains("kept elsewhere"));
    std::fs::write(&elsewhere, "{}\n").unwrap();
    assert!(matches!(Kept::read(&elsewhere), Err(ReadError::NoCheckpoint { line: 1, .. })));
}

#[test]
fn a_record_is_proved_without_the_others() {
    let temp = TempDir::new().unwrap();
    written(temp.path());
    let proof = prove(temp.path(), "p-12").unwrap().unwrap();
    let line: Value = serde_json::from_str(&proof.line).unwrap();
    let checkpoint: Value = serde_json::from_str(&proof.checkpoint).unwrap();
    assert_eq!(line["id"], "p-12");
    assert!(checkpoint["size"].as_u64().unwrap() > proof.index);
    assert!(!proof.path.is_empty());
    assert_eq!(prove(temp.path(), "p-99").unwrap(), None);
}
