//! Files on a real disk, a real watcher, and everything that editors, git, Kubernetes and bad luck do to them.
//!
//! No assertion waits for a fixed time: a change is waited for on a channel, with a deadline that only a hang meets.
//! That something is *never* told is seen from what was told by the time that something later was. Most scenarios run
//! twice, with the operating system's events and without.

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
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::edge::files::manifest::{self, SigningKey};
use tollgate::edge::files::{
    Follower, ManifestPolicy, Patience, ReadLimits, Reader, Reading, SettleOptions, WatchOptions, Watcher, read, settle,
};
use tollgate::policy::problem::{Problem, ProblemCode};

/// Only a hang takes this long, also on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(60);

type Outcome = Result<Reading, Vec<Problem>>;

// ---- What the tests say ------------------------------------------------------------------------------------------

/// A watched directory `bundle` in a temporary one, and what was told of it.
struct Scene {
    // Dropped in this order: first the watcher, then what it watches.
    watcher: Option<Watcher>,
    told: Receiver<Outcome>,
    history: Vec<Outcome>,
    temp: TempDir,
    options: WatchOptions,
}

impl Scene {
    fn new(options: WatchOptions) -> Self {
        Self { watcher: None, told: channel().1, history: Vec::new(), temp: TempDir::new().unwrap(), options }
    }

    /// The scene of most tests: a directory `bundle`, watched, with `a.yaml` and `b.yaml` in it, told already.
    fn usual(options: WatchOptions) -> Self {
        let mut scene = Self::new(options);
        scene.write("bundle/a.yaml", "a: 1\n");
        scene.write("bundle/b.yaml", "b: 1\n");
        scene.watch("bundle");
        scene.expect(&[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
        scene
    }

    fn watch(&mut self, directory: &str) {
        let (teller, told) = channel();
        self.watch_for(directory, told, move |outcome: Outcome| teller.send(outcome).unwrap_or_default());
    }

    fn watch_for(&mut self, directory: &str, told: Receiver<Outcome>, follower: impl Follower) {
        self.told = told;
        self.watcher = Some(Watcher::start(self.path(directory), self.options.clone(), follower).unwrap());
    }

    fn watcher(&self) -> &Watcher {
        self.watcher.as_ref().unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Makes `path` a link to `target`, in one step if it is one already.
    fn link(&self, target: &str, path: &str) {
        let (new, path) = (self.path("new-link"), self.path(path));
        symlink(target, &new).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Waits until something is told that `is_it`; what was told before goes to the history.
    #[track_caller]
    fn until(&mut self, what: &str, is_it: impl Fn(&Outcome) -> bool) -> Outcome {
        let began = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            let Ok(outcome) = self.told.recv_timeout(left) else {
                panic!("{what} was not told; instead:\n{}", self.history.iter().map(shown).collect::<String>());
            };
            self.history.push(outcome.clone());
            if is_it(&outcome) {
                println!("{what}: told after {} ms", began.elapsed().as_millis());
                return outcome;
            }
        }
    }

    /// Waits until exactly these files are told.
    #[track_caller]
    fn expect(&mut self, files: &[(&str, &str)]) {
        let expected: BTreeMap<String, String> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let what: String = format!("{files:?}").chars().take(120).collect();
        let _told = self.until(&what, |outcome| outcome.as_ref().is_ok_and(|reading| texts(reading) == expected));
    }

    /// Waits until it is told that `file` has a problem of this code.
    #[track_caller]
    fn expect_problem(&mut self, code: ProblemCode, file: &str) {
        let _told = self.until(&format!("{code} of `{file}`"), |outcome| {
            outcome.as_ref().is_err_and(|problems| has(problems, code, file))
        });
    }

    /// Asks for a reading, waits until it was told, and says what it was.
    fn reload(&mut self) -> Outcome {
        let trigger = self.watcher().trigger();
        assert!(self.watcher().wait(trigger, DEADLINE), "the reload was not done");
        self.history.extend(self.told.try_iter());
        self.history.last().unwrap().clone()
    }
}

fn native() -> WatchOptions {
    WatchOptions::default()
}

fn polling() -> WatchOptions {
    WatchOptions { native_events: false, ..WatchOptions::default() }
}

fn has(problems: &[Problem], code: ProblemCode, file: &str) -> bool {
    problems.iter().any(|problem| problem.code == code && &*problem.file == file)
}

fn texts(reading: &Reading) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    reading.bundle.files().iter().map(|file| (file.path.to_string(), text(&file.bytes))).collect()
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Ok(reading) => format!("{:.1000?}\n", texts(reading)),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

fn run(folder: &Path, command: &str) {
    let output = Command::new("sh").arg("-euc").arg(command).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether permissions mean anything to whoever runs the tests; they mean nothing to root.
fn permissions_count() -> bool {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("closed");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    File::open(path).is_err()
}

/// What one reading of a directory that `arrange` filled has to say, a line for each problem.
#[track_caller]
fn check_read(arrange: impl FnOnce(&Path), expected: Result<&[&str], &[&str]>) {
    let temp = TempDir::new().unwrap();
    let bundle = temp.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    arrange(&bundle);
    let began = Instant::now();
    let outcome = read(&bundle, &ReadLimits::default());
    assert!(began.elapsed() < DEADLINE);
    let said: Result<Vec<String>, Vec<String>> = match outcome {
        Ok(reading) => Ok(reading.bundle.files().iter().map(|file| file.path.to_string()).collect()),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
    };
    match expected {
        Ok(paths) => assert_eq!(said, Ok(paths.iter().map(ToString::to_string).collect())),
        Err(lines) => assert_eq!(said, Err(lines.iter().map(ToString::to_string).collect())),
    }
}

// ---- Reading: what lies in a directory -----------------------------------------------------------------------------

#[test]
fn only_the_files_of_a_bundle_are_read_and_hidden_ones_are_not() {
    let arrange = |bundle: &Path| {
        for path in ["z.yml", "a.yaml", "eu/de/b.cedar", "eu/b_test.yaml", "x.cedarschema", "y.entities.json"] {
            fs::create_dir_all(bundle.join(path).parent().unwrap()).unwrap();
            fs::write(bundle.join(path), "").unwrap();
        }
        for path in [
            ".hidden.yaml",
            ".git/config.yaml",
            "eu/.b.yaml",
            "README.md",
            "a.yaml~",
            "b.json",
            "eu/manifest.json",
            "yaml",
        ] {
            fs::create_dir_all(bundle.join(path).parent().unwrap()).unwrap();
            fs::write(bundle.join(path), "").unwrap();
        }
        symlink("nowhere", bundle.join(".#a.yaml")).unwrap();
    };
    let expected = ["a.yaml", "eu/b_test.yaml", "eu/de/b.cedar", "x.cedarschema", "y.entities.json", "z.yml"];
    check_read(arrange, Ok(&expected));
}

#[test]
fn an_empty_directory_is_an_empty_bundle() {
    check_read(|_| (), Ok(&[]));
}

#[test]
fn what_is_no_file_is_an_error_where_a_file_is_expected_and_never_opened() {
    let arrange = |bundle: &Path| {
        run(bundle, "mkfifo rules.yaml other-fifo");
        UnixListener::bind(bundle.join("socket.cedar")).unwrap();
        symlink("/dev/zero", bundle.join("zero.yaml")).unwrap();
        symlink("rules.yaml", bundle.join("link-to-fifo.yaml")).unwrap();
    };
    let no_file = "error[not-a-file]: this is a FIFO, a socket or a device, where a file is expected";
    check_read(
        arrange,
        Err(&[
            &format!("link-to-fifo.yaml: {no_file}"),
            &format!("rules.yaml: {no_file}"),
            &format!("socket.cedar: {no_file}"),
            "zero.yaml: error[link-leads-out]: this link leads out of the bundle's directory",
        ]),
    );
}

#[test]
fn a_device_in_the_directory_is_an_error() {
    let temp = TempDir::new().unwrap();
    let made = Command::new("mknod").arg(temp.path().join("zero.yaml")).args(["c", "1", "5"]).output().unwrap();
    if !made.status.success() {
        println!("left out: only root may make a device: {}", String::from_utf8_lossy(&made.stderr));
        return;
    }
    let problems = read(temp.path(), &ReadLimits::default()).unwrap_err();
    assert!(has(&problems, ProblemCode::NotAFile, "zero.yaml"), "{problems:?}");
}

#[test]
fn links_are_followed_inside_the_directory_only() {
    let arrange = |bundle: &Path| {
        fs::write(bundle.join("../outside.yaml"), "").unwrap();
        fs::create_dir(bundle.join("../bundle-evil")).unwrap();
        fs::create_dir(bundle.join("folder")).unwrap();
        fs::write(bundle.join("folder/a.yaml"), "").unwrap();
        symlink("folder/a.yaml", bundle.join("inside.yaml")).unwrap();
        symlink("folder", bundle.join("again")).unwrap();
        symlink("../outside.yaml", bundle.join("out.yaml")).unwrap();
        symlink("../../bundle-evil", bundle.join("folder/evil")).unwrap();
        symlink("nowhere.yaml", bundle.join("dangling.yaml")).unwrap();
    };
    let out = "error[link-leads-out]: this link leads out of the bundle's directory";
    check_read(
        arrange,
        Err(&[
            &format!("again/evil: {out}"),
            "dangling.yaml: error[file-unreadable]: cannot be read: No such file or directory (os error 2)",
            &format!("folder/evil: {out}"),
            &format!("out.yaml: {out}"),
        ]),
    );
}

#[test]
fn links_that_go_round_end() {
    let arrange = |bundle: &Path| {
        fs::create_dir_all(bundle.join("a/b")).unwrap();
        symlink("..", bundle.join("a/b/up")).unwrap();
        symlink(".", bundle.join("self")).unwrap();
        symlink("loop.yaml", bundle.join("loop.yaml")).unwrap();
        fs::write(bundle.join("a/x.yaml"), "").unwrap();
    };
    let back = "error[file-unreadable]: this link leads back to a folder that it stands in";
    check_read(
        arrange,
        Err(&[
            &format!("a/b/up: {back}"),
            "loop.yaml: error[file-unreadable]: cannot be read: Too many levels of symbolic links (os error 40)",
            &format!("self: {back}"),
        ]),
    );
}

#[test]
fn links_that_multiply_a_directory_are_stopped() {
    let temp = TempDir::new().unwrap();
    for level in 0..30 {
        let folder = temp.path().join(format!("level{level}"));
        fs::create_dir(&folder).unwrap();
        for link in ["left", "right"] {
            symlink(format!("../level{}", level + 1), folder.join(link)).unwrap();
        }
    }
    fs::create_dir(temp.path().join("level30")).unwrap();
    let limits = ReadLimits { max_entries: 5_000, ..ReadLimits::default() };
    let problems = read(temp.path(), &limits).unwrap_err();
    assert!(has(&problems, ProblemCode::BundleTooLarge, ""), "{problems:?}");
}

#[test]
fn a_name_that_cannot_be_shown_is_an_error() {
    let arrange = |bundle: &Path| {
        fs::write(bundle.join(OsStr::from_bytes(b"\xff.yaml")), "").unwrap();
        fs::write(bundle.join(OsStr::from_bytes(b"\xff.txt")), "").unwrap();
        fs::create_dir(bundle.join(OsStr::from_bytes(b"dir\xff"))).unwrap();
        fs::write(bundle.join("two\nlines.yaml"), "").unwrap();
        fs::write(bundle.join("Überschrift.yaml"), "").unwrap();
    };
    check_read(
        arrange,
        Err(&[
            "dir\u{fffd}: error[not-utf8]: the name is not UTF-8",
            "two\nlines.yaml: error[invalid-name]: a name must not hold a control character (U+000A)",
            "\u{fffd}.yaml: error[not-utf8]: the name is not UTF-8",
        ]),
    );
}

#[test]
fn sizes_and_numbers_are_limited() {
    let temp = TempDir::new().unwrap();
    File::create(temp.path().join("big.yaml")).unwrap().set_len(1 << 30).unwrap();
    fs::create_dir_all(temp.path().join("1/2/3/4")).unwrap();
    for number in 0..5 {
        fs::write(temp.path().join(format!("{number}.yaml")), "12345").unwrap();
    }
    let began = Instant::now();
    let usual = ReadLimits::default();
    let said = |limits: &ReadLimits| -> Vec<String> {
        read(temp.path(), limits).unwrap_err().iter().map(ToString::to_string).collect()
    };
    let big = "big.yaml: error[file-too-large]: a file may have 16777216 bytes at most";
    assert_eq!(said(&usual), [big]);
    assert!(began.elapsed() < DEADLINE, "refused only after {:?}", began.elapsed());
    fs::remove_file(temp.path().join("big.yaml")).unwrap();
    let files = "error[bundle-too-large]: a bundle may hold 4 files at most";
    assert_eq!(said(&ReadLimits { max_files: 4, ..usual.clone() }), [files]);
    let bytes = "error[bundle-too-large]: a bundle may hold 24 bytes at most";
    assert_eq!(said(&ReadLimits { max_total_bytes: 24, ..usual.clone() }), [bytes]);
    let depth = "1/2/3/4: error[bundle-too-large]: folders may lie 3 deep at most";
    assert_eq!(said(&ReadLimits { max_depth: 3, ..usual.clone() }), [depth]);
    let exact = ReadLimits { max_files: 5, max_total_bytes: 25, max_depth: 4, max_file_bytes: 5, ..usual };
    assert_eq!(read(temp.path(), &exact).unwrap().bundle.files().len(), 5);
}

#[test]
fn a_directory_that_is_missing_or_a_file_is_an_error() {
    let temp = TempDir::new().unwrap();
    let missing = read(&temp.path().join("nowhere"), &ReadLimits::default()).unwrap_err();
    assert!(has(&missing, ProblemCode::FileUnreadable, ""), "{missing:?}");
    fs::write(temp.path().join("file"), "").unwrap();
    let file = read(&temp.path().join("file"), &ReadLimits::default()).unwrap_err();
    assert!(has(&file, ProblemCode::FileUnreadable, ""), "{file:?}");
}

#[test]
fn many_files_are_read_by_two_threads_as_by_one() {
    let temp = TempDir::new().unwrap();
    for number in 0..1_000 {
        fs::write(temp.path().join(format!("{number}.yaml")), format!("n: {number}\n")).unwrap();
    }
    let reader = Reader::new(temp.path(), ReadLimits::default());
    let walk = reader.walk();
    let reading = reader.read(&walk).unwrap();
    assert_eq!(reader.digest(&walk).unwrap(), reading.digest());
    assert_eq!(reading.bundle.files().len(), 1_000);
    for file in reading.bundle.files() {
        let number = file.path.strip_suffix(".yaml").unwrap();
        assert_eq!(&*file.bytes, format!("n: {number}\n").as_bytes());
    }
}

// ---- Watching: what happens to a directory ---------------------------------------------------------------------------

/// Runs a scenario with the operating system's events and without.
fn both_ways(scenario: impl Fn(WatchOptions) + Sync) {
    thread::scope(|scope| {
        scope.spawn(|| scenario(native()));
        scope.spawn(|| scenario(polling()));
    });
}

#[test]
fn files_added_changed_renamed_over_and_deleted() {
    both_ways(|options| {
        let mut scene = Scene::usual(options);
        // As vim and most editors write: a new file, renamed over the old one.
        scene.write("bundle/.a.yaml.swp", "a: 2\n");
        fs::rename(scene.path("bundle/.a.yaml.swp"), scene.path("bundle/a.yaml")).unwrap();
        scene.expect(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 1\n")]);
        // As `cp` and `echo` write: in place.
        scene.write("bundle/b.yaml", "b: 2\n");
        scene.expect(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 2\n")]);
        scene.write("bundle/new/folder/c.yaml", "c: 1\n");
        scene.expect(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 2\n"), ("new/folder/c.yaml", "c: 1\n")]);
        scene.write("bundle/new/folder/c.yaml", "c: 2\n");
        scene.expect(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 2\n"), ("new/folder/c.yaml", "c: 2\n")]);
        fs::remove_dir_all(scene.path("bundle/new")).unwrap();
        scene.expect(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 2\n")]);
        fs::remove_file(scene.path("bundle/a.yaml")).unwrap();
        scene.expect(&[("b.yaml", "b: 2\n")]);
    });
}

#[test]
fn a_change_of_equal_length_with_its_time_set_back_is_seen() {
    both_ways(|options| {
        let mut scene = Scene::usual(options);
        let path = scene.path("bundle/a.yaml");
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "a: 2\n").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        scene.expect(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 1\n")]);
    });
}

#[test]
fn touching_without_changing_is_not_told() {
    let mut scene = Scene::usual(native());
    for _ in 0..50 {
        File::options()
            .write(true)
            .open(scene.path("bundle/a.yaml"))
            .unwrap()
            .set_modified(std::time::SystemTime::now())
            .unwrap();
        scene.write("bundle/README.md", "not policy");
        scene.write("bundle/b.yaml", "b: 1\n");
    }
    scene.write("bundle/a.yaml", "a: 2\n");
    scene.expect(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 1\n")]);
    assert_eq!(scene.history.len(), 2, "{}", scene.history.iter().map(shown).collect::<String>());
}

/// A file is cut anywhere and completed piece by piece: no reading between is told.
#[test]
fn a_file_written_in_pieces_is_told_once_and_whole() {
    let settle = SettleOptions { pause: Duration::from_secs(3), give_up: DEADLINE, ..SettleOptions::default() };
    both_ways(|options| {
        let mut scene = Scene::usual(WatchOptions { settle: settle.clone(), ..options });
        let text: String = (0..20).map(|number| format!("- id: rule{number}\n  effect: forbid\n")).collect();
        let mut file = OpenOptions::new().write(true).truncate(true).open(scene.path("bundle/a.yaml")).unwrap();
        for piece in text.as_bytes().chunks(7) {
            file.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        scene.expect(&[("a.yaml", &text), ("b.yaml", "b: 1\n")]);
        assert_eq!(scene.history.len(), 2, "{}", scene.history.iter().map(shown).collect::<String>());
    });
}

/// Says that patience is long for whatever has fewer bytes than what was taken before.
struct Patient {
    teller: Sender<Outcome>,
    bytes: usize,
}

fn bytes(reading: &Reading) -> usize {
    reading.bundle.files().iter().map(|file| file.bytes.len()).sum()
}

impl Follower for Patient {
    fn take(&mut self, outcome: Outcome) {
        self.bytes = outcome.as_ref().map_or(self.bytes, bytes);
        self.teller.send(outcome).unwrap_or_default();
    }

    fn patience(&mut self, reading: &Reading) -> Patience {
        if bytes(reading) < self.bytes { Patience::Long } else { Patience::Usual }
    }
}

fn patient(options: WatchOptions, long: Duration) -> Scene {
    let settle = SettleOptions { long, ..SettleOptions::default() };
    let mut scene = Scene::new(WatchOptions { settle, ..options });
    scene.write("bundle/a.yaml", "- forbid\n- forbid\n- forbid\n");
    let (teller, told) = channel();
    scene.watch_for("bundle", told, Patient { teller, bytes: 0 });
    scene.expect(&[("a.yaml", "- forbid\n- forbid\n- forbid\n")]);
    scene
}

/// The writer pauses for longer than two readings take: only patience keeps the half file from being taken.
#[test]
fn a_file_that_lost_forbids_is_taken_only_after_long_patience() {
    both_ways(|options| {
        let mut scene = patient(options, Duration::from_secs(8));
        scene.write("bundle/a.yaml", "- forbid\n");
        thread::sleep(Duration::from_millis(1_500));
        scene.write("bundle/a.yaml", "- forbid\n- forbid\n- forbid\n- permit\n");
        scene.expect(&[("a.yaml", "- forbid\n- forbid\n- forbid\n- permit\n")]);
        assert_eq!(scene.history.len(), 2, "{}", scene.history.iter().map(shown).collect::<String>());
    });
}

#[test]
fn long_patience_ends_and_a_reload_cuts_it_short() {
    let mut scene = patient(native(), Duration::from_secs(2));
    scene.write("bundle/a.yaml", "- forbid\n- forbid\n");
    scene.expect(&[("a.yaml", "- forbid\n- forbid\n")]);
    let mut scene = patient(native(), 2 * DEADLINE);
    scene.write("bundle/a.yaml", "- forbid\n");
    scene.reload().unwrap();
    scene.write("bundle/a.yaml", "");
    // Long enough that the watcher has most likely begun to wait; the outcome is the same if it has not.
    thread::sleep(Duration::from_millis(700));
    assert_eq!(bytes(&scene.reload().unwrap()), 0);
}

/// Wishes for a reload, once, as soon as the watcher has begun to take what it saw by itself.
struct Impatient {
    watcher: Arc<Mutex<Option<Arc<Watcher>>>>,
    wishes: Sender<u64>,
}

impl Follower for Impatient {
    fn take(&mut self, _: Outcome) {}

    fn patience(&mut self, _: &Reading) -> Patience {
        Patience::Long
    }

    fn minimum_sequence(&self) -> u64 {
        if let Some(watcher) = self.watcher.lock().unwrap().take() {
            self.wishes.send(watcher.trigger()).unwrap_or_default();
        }
        0
    }
}

#[test]
fn a_reload_that_is_wished_for_while_patience_begins_cuts_it_short() {
    let settle = SettleOptions { long: 2 * DEADLINE, ..SettleOptions::default() };
    let mut scene = Scene::new(WatchOptions { settle, ..native() });
    scene.write("bundle/a.yaml", "a: 1\n");
    let (wishes, wished) = channel();
    let cell = Arc::default();
    scene.watch_for("bundle", channel().1, Impatient { watcher: Arc::clone(&cell), wishes });
    let watcher = Arc::new(scene.watcher.take().unwrap());
    assert!(watcher.wait(watcher.trigger(), DEADLINE));
    *cell.lock().unwrap() = Some(Arc::clone(&watcher));
    scene.write("bundle/a.yaml", "a: 2\n");
    let wish = wished.recv_timeout(DEADLINE).unwrap();
    assert!(watcher.wait(wish, DEADLINE), "the wish was passed over");
}

#[test]
fn a_reload_tells_what_is_there_whether_it_changed_or_not() {
    let slow = Duration::from_secs(3_600);
    let options =
        WatchOptions { look_every: slow, look_at_most: slow, read_every: slow, read_at_most: slow, ..polling() };
    let mut scene = Scene::usual(options);
    assert_eq!(texts(&scene.reload().unwrap())["a.yaml"], "a: 1\n");
    scene.write("bundle/a.yaml", "a: 2\n");
    assert_eq!(texts(&scene.reload().unwrap())["a.yaml"], "a: 2\n");
    fs::remove_dir_all(scene.path("bundle")).unwrap();
    assert!(has(&scene.reload().unwrap_err(), ProblemCode::FileUnreadable, ""));
    // Each is told; one that is wished for while another is read may be told twice.
    assert!(scene.history.len() >= 4, "{}", scene.history.len());
}

#[test]
fn git_switches_between_branches() {
    both_ways(|options| {
        // Longer than git may be kept waiting in the middle of it.
        let settle = SettleOptions { pause: Duration::from_secs(2), ..SettleOptions::default() };
        let mut scene = Scene::new(WatchOptions { settle, ..options });
        let bundle = scene.path("bundle");
        fs::create_dir(&bundle).unwrap();
        run(&bundle, "git init -q -b one && git config user.email a@b.c && git config user.name a");
        let branch = |number: usize| -> Vec<(String, String)> {
            (0..200)
                .map(|file| (format!("d{}/{file}.yaml", file % (7 * number)), format!("branch: {number}\n")))
                .collect()
        };
        for (number, name) in [(1, "one"), (2, "two")] {
            run(&bundle, &format!("git checkout -q {name} 2>/dev/null || git checkout -q -b {name}; rm -rf d*"));
            for (path, text) in branch(number) {
                scene.write(&format!("bundle/{path}"), &text);
            }
            run(&bundle, "git add -A && git commit -qm x");
        }
        scene.watch("bundle");
        let expected = |number| -> Vec<_> { branch(number) };
        for number in [2, 1, 2, 1] {
            run(&bundle, &format!("git checkout -q {}", ["", "one", "two"][number]));
            let files = expected(number);
            scene.expect(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>());
        }
        for outcome in scene.history.iter().flatten() {
            let kinds: std::collections::BTreeSet<String> = texts(outcome).into_values().collect();
            assert_eq!((kinds.len(), outcome.bundle.files().len()), (1, 200), "a mixture of two branches was told");
        }
    });
}

/// The files of a ConfigMap are links through `..data`, which is swapped for another folder in one step.
#[test]
fn a_config_map_is_swapped() {
    both_ways(|options| {
        let mut scene = Scene::new(options);
        for version in 1..=5 {
            for file in ["a.yaml", "b.yaml"] {
                scene.write(&format!("bundle/..2026_{version}/{file}"), &format!("version: {version}\n"));
            }
        }
        scene.link("..2026_1", "bundle/..data");
        scene.link("..data/a.yaml", "bundle/a.yaml");
        scene.link("..data/b.yaml", "bundle/b.yaml");
        scene.watch("bundle");
        for version in 1..=5 {
            scene.link(&format!("..2026_{version}"), "bundle/..data");
            let text = format!("version: {version}\n");
            scene.expect(&[("a.yaml", &text), ("b.yaml", &text)]);
            if version > 1 {
                fs::remove_dir_all(scene.path(&format!("bundle/..2026_{}", version - 1))).unwrap();
            }
        }
        assert_eq!(scene.history.len(), 5, "{}", scene.history.iter().map(shown).collect::<String>());
    });
}

/// git-sync makes a worktree for each commit and points a link at it; the bundle is that link, or a folder below it.
#[test]
fn git_sync_points_its_link_elsewhere() {
    both_ways(|options| {
        for directory in ["current", "current/policies"] {
            let mut scene = Scene::new(options.clone());
            for version in 1..=4 {
                scene.write(&format!(".worktrees/{version}/policies/a.yaml"), &format!("version: {version}\n"));
            }
            scene.link(".worktrees/1", "current");
            scene.watch(directory);
            let path = if directory == "current" { "policies/a.yaml" } else { "a.yaml" };
            for version in 1..=4 {
                scene.link(&format!(".worktrees/{version}"), "current");
                scene.expect(&[(path, &format!("version: {version}\n"))]);
            }
            // The watch is on the new target too.
            scene.write("current/policies/a.yaml", "version: edited\n");
            scene.expect(&[(path, "version: edited\n")]);
        }
    });
}

#[test]
fn the_directory_is_replaced_whole() {
    both_ways(|options| {
        let mut scene = Scene::usual(options);
        for version in 2..=4 {
            let text = format!("a: {version}\n");
            scene.write("next/a.yaml", &text);
            fs::rename(scene.path("bundle"), scene.path(&format!("old{version}"))).unwrap();
            fs::rename(scene.path("next"), scene.path("bundle")).unwrap();
            scene.expect(&[("a.yaml", &text)]);
            // Not only is the new one read, it is the one that is watched.
            let edited = format!("a: {version} edited\n");
            scene.write("bundle/a.yaml", &edited);
            scene.expect(&[("a.yaml", &edited)]);
        }
        fs::remove_dir_all(scene.path("bundle")).unwrap();
        scene.expect_problem(ProblemCode::FileUnreadable, "");
        scene.write("bundle/a.yaml", "a: again\n");
        scene.expect(&[("a.yaml", "a: again\n")]);
    });
}

#[test]
fn the_directory_appears_after_the_start() {
    both_ways(|options| {
        let mut scene = Scene::new(options);
        scene.watch("not/yet/bundle");
        scene.expect_problem(ProblemCode::FileUnreadable, "");
        scene.write("not/yet/bundle/a.yaml", "a: 1\n");
        scene.expect(&[("a.yaml", "a: 1\n")]);
    });
}

#[test]
fn what_is_no_file_comes_and_goes() {
    both_ways(|options| {
        let mut scene = Scene::usual(options);
        let good = [("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")];
        run(&scene.path("bundle"), "mkfifo fifo.yaml");
        scene.expect_problem(ProblemCode::NotAFile, "fifo.yaml");
        fs::remove_file(scene.path("bundle/fifo.yaml")).unwrap();
        scene.expect(&good);
        symlink("/etc/passwd", scene.path("bundle/out.yaml")).unwrap();
        scene.expect_problem(ProblemCode::LinkLeadsOut, "out.yaml");
        fs::remove_file(scene.path("bundle/out.yaml")).unwrap();
        scene.expect(&good);
        File::create(scene.path("bundle/big.yaml")).unwrap().set_len(1 << 30).unwrap();
        scene.expect_problem(ProblemCode::FileTooLarge, "big.yaml");
        fs::remove_file(scene.path("bundle/big.yaml")).unwrap();
        scene.expect(&good);
        assert!(scene.watcher().is_running());
    });
}

#[test]
fn a_file_that_cannot_be_read_for_a_while() {
    both_ways(|options| {
        let mut scene = Scene::usual(options);
        let path = scene.path("bundle/a.yaml");
        if permissions_count() {
            fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
            scene.expect_problem(ProblemCode::FileUnreadable, "a.yaml");
            fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        } else {
            println!("permissions mean nothing to this user: a dangling link stands for a file that may not be read");
            fs::rename(&path, scene.path("kept")).unwrap();
            symlink("nowhere", &path).unwrap();
            scene.expect_problem(ProblemCode::FileUnreadable, "a.yaml");
            fs::rename(scene.path("kept"), &path).unwrap();
        }
        scene.expect(&[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    });
}

#[test]
fn a_burst_of_five_thousand_files() {
    let mut scene = Scene::new(native());
    let fill = |scene: &Scene, text: &str| {
        for number in 0..5_000 {
            scene.write(&format!("bundle/d{}/{number}.yaml", number % 50), text);
        }
    };
    fill(&scene, "n: 1\n");
    scene.watch("bundle");
    let all_are = |text: &'static str| {
        move |outcome: &Outcome| {
            outcome.as_ref().is_ok_and(|reading| {
                let files = reading.bundle.files();
                files.len() == 5_000 && files.iter().all(|file| &*file.bytes == text.as_bytes())
            })
        }
    };
    let _told = scene.until("five thousand files", all_are("n: 1\n"));
    fill(&scene, "n: 2\n");
    let _told = scene.until("five thousand files, changed", all_are("n: 2\n"));
}

/// More events than the system keeps for us: some are lost, and nothing else is.
#[test]
fn the_queue_of_events_overflows() {
    let mut scene = Scene::usual(native());
    let (one, two) = (scene.path("bundle/x.txt"), scene.path("bundle/y.txt"));
    fs::write(&one, "").unwrap();
    let began = Instant::now();
    while scene.watcher().status().events_lost == 0 && began.elapsed() < Duration::from_secs(10) {
        for _ in 0..20_000 {
            fs::rename(&one, &two).unwrap();
            fs::rename(&two, &one).unwrap();
        }
    }
    println!("overflows: {} after {:?}", scene.watcher().status().events_lost, began.elapsed());
    scene.write("bundle/a.yaml", "a: 2\n");
    scene.expect(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 1\n")]);
    scene.write("bundle/a.yaml", "a: 3\n");
    scene.expect(&[("a.yaml", "a: 3\n"), ("b.yaml", "b: 1\n")]);
}

#[test]
fn without_events_that_is_said() {
    let scene = Scene::usual(polling());
    assert_eq!(scene.watcher().status().without_events.as_deref(), Some("switched off"));
}

#[test]
fn files_that_never_lie_still_are_an_error_until_they_do() {
    let settle = SettleOptions { give_up: Duration::from_millis(500), ..SettleOptions::default() };
    let mut scene = Scene::usual(WatchOptions { settle, ..native() });
    let (stop, stopped) = channel::<()>();
    let path = scene.path("bundle/a.yaml");
    let writer = thread::spawn(move || {
        let mut number = 0_u64;
        while stopped.try_recv().is_err() {
            number += 1;
            fs::write(&path, format!("a: {number}\n")).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        fs::write(&path, "a: still\n").unwrap();
    });
    let _told = scene.until("never still", |outcome| {
        outcome.as_ref().is_err_and(|problems| problems[0].message.contains("keep changing"))
    });
    stop.send(()).unwrap();
    writer.join().unwrap();
    scene.expect(&[("a.yaml", "a: still\n"), ("b.yaml", "b: 1\n")]);
}

#[test]
fn dropping_the_watcher_ends_it() {
    let mut scene = patient(native(), 2 * DEADLINE);
    // In the middle of a long wait, most likely.
    scene.write("bundle/a.yaml", "");
    thread::sleep(Duration::from_millis(700));
    let began = Instant::now();
    drop(scene.watcher.take());
    assert!(began.elapsed() < DEADLINE / 2);
    // The follower is gone with the thread.
    assert!(scene.told.recv_timeout(DEADLINE).is_err());
}

// ---- Manifests on disk -----------------------------------------------------------------------------------------------

fn publish(scene: &Scene, sequence: u64, key: &SigningKey) {
    let (reading, bundle) = (read(&scene.path("bundle"), &ReadLimits::default()).unwrap(), scene.path("bundle"));
    let text = manifest::create(&reading.bundle, sequence);
    fs::write(bundle.join("manifest.json.sig"), manifest::sign(text.as_bytes(), key).unwrap()).unwrap();
    fs::write(bundle.join("manifest.json"), text).unwrap();
}

#[test]
fn a_signed_bundle_is_taken_and_an_altered_one_is_not() {
    let key = SigningKey::parse(&manifest::generate_key().unwrap()).unwrap();
    let policy = ManifestPolicy { public_keys: vec![key.public_key().unwrap()], minimum_sequence: 2, required: true };
    let mut scene = Scene::new(WatchOptions { manifest: policy.clone(), ..native() });
    scene.write("bundle/a.yaml", "a: 1\n");
    scene.watch("bundle");
    scene.expect_problem(ProblemCode::ManifestMismatch, "manifest.json");
    publish(&scene, 2, &key);
    scene.expect(&[("a.yaml", "a: 1\n")]);
    scene.write("bundle/a.yaml", "a: 2\n");
    scene.expect_problem(ProblemCode::ManifestMismatch, "a.yaml");
    publish(&scene, 3, &key);
    scene.expect(&[("a.yaml", "a: 2\n")]);
    scene.write("bundle/extra.yaml", "");
    scene.expect_problem(ProblemCode::ManifestMismatch, "extra.yaml");
    fs::remove_file(scene.path("bundle/extra.yaml")).unwrap();
    publish(&scene, 1, &key);
    scene.expect_problem(ProblemCode::BundleOlder, "manifest.json");
    let other = SigningKey::parse(&manifest::generate_key().unwrap()).unwrap();
    publish(&scene, 4, &other);
    scene.expect_problem(ProblemCode::SignatureInvalid, "manifest.json.sig");
    let reader = Reader::new(scene.path("bundle"), ReadLimits::default());
    assert!(settle(&reader, &policy, &SettleOptions::default()).is_err());
    publish(&scene, 5, &key);
    assert!(settle(&reader, &policy, &SettleOptions::default()).is_ok());
    scene.expect(&[("a.yaml", "a: 2\n")]);
}

/// With a manifest there is nothing to wait for: the set of files is known to be whole.
#[test]
fn a_manifest_that_fits_is_taken_at_once() {
    let settle_options = SettleOptions { pause: 2 * DEADLINE, ..SettleOptions::default() };
    let temp = TempDir::new().unwrap();
    fs::write(temp.path().join("a.yaml"), "a: 1\n").unwrap();
    let reading = read(temp.path(), &ReadLimits::default()).unwrap();
    fs::write(temp.path().join("manifest.json"), manifest::create(&reading.bundle, 1)).unwrap();
    let began = Instant::now();
    let reader = Reader::new(temp.path(), ReadLimits::default());
    let settled = settle(&reader, &ManifestPolicy::default(), &settle_options).unwrap();
    assert_eq!(settled.bundle.revision(), reading.bundle.revision());
    assert!(began.elapsed() < DEADLINE);
}
