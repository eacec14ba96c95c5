//! Watching: the same bundle again and again, told only when it is another.
//!
//! Three things find a change. Events of the operating system say at once that something may have happened. A look at
//! the files' times, lengths and inodes, twice a second, finds what events miss: links pointed elsewhere, folders
//! replaced, network disks, queues that overflow. And a reading of everything, whose interval grows with what it
//! costs, finds what even the times hide. Whatever finds it, [`super::settle()`] decides when it is taken, and no
//! failure ends the thread: the last good bundle goes on deciding until there is a better one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::manifest::ManifestPolicy;
use super::native::NativeEvents;
use super::read::{Reader, Reading};
use super::settle::{Patience, Settle, SettleOptions, Wait};
use super::signals::{Signals, Wake};
use super::walk::{ReadLimits, Walk};
use crate::policy::problem::Problem;

/// A look or a reading may take one part in this many of the thread's time.
const SHARE: u32 = 20;

/// Who the watcher works for. Called on the watcher's thread, one call at a time.
///
/// Any `FnMut(Result<Reading, Vec<Problem>>)` is one.
pub trait Follower: Send + 'static {
    /// Takes a set of files that is not the one told before, or why there is none.
    fn take(&mut self, outcome: Result<Reading, Vec<Problem>>);

    /// How long this set of files, of which two readings agree, must lie still before it is taken. Not asked about the
    /// first set, one that a manifest proves whole, or one that [`Watcher::trigger`] asked for: nobody waits for those.
    /// Who compiles the files to answer may keep the outcome: [`Self::take`] mostly gets the same ones next.
    fn patience(&mut self, _reading: &Reading) -> Patience {
        Patience::Usual
    }

    /// The lowest manifest sequence that is not older than the bundle last accepted; the higher of this and of
    /// [`ManifestPolicy::minimum_sequence`] counts.
    fn minimum_sequence(&self) -> u64 {
        0
    }
}

impl<F: FnMut(Result<Reading, Vec<Problem>>) + Send + 'static> Follower for F {
    fn take(&mut self, outcome: Result<Reading, Vec<Problem>>) {
        self(outcome);
    }
}

/// How to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    /// What a bundle may hold.
    pub limits: ReadLimits,
    /// How long files must lie still.
    pub settle: SettleOptions,
    /// What is demanded of its manifest.
    pub manifest: ManifestPolicy,
    /// Whether to use the operating system's events. Without them a change is seen up to `look_every` later.
    pub native_events: bool,
    /// A burst of events is over when none came for this long.
    pub quiet: Duration,
    /// However long a burst goes on, the files are looked at after this long.
    pub quiet_at_most: Duration,
    /// How often files are looked at; up to `look_at_most` where that would cost more than a twentieth of a core.
    pub look_every: Duration,
    /// See `look_every`.
    pub look_at_most: Duration,
    /// How often all files are read; up to `read_at_most` where that would cost more than a twentieth of a core.
    pub read_every: Duration,
    /// See `read_every`.
    pub read_at_most: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            limits: ReadLimits::default(),
            settle: SettleOptions::default(),
            manifest: ManifestPolicy::default(),
            native_events: true,
            quiet: Duration::from_millis(150),
            quiet_at_most: Duration::from_secs(1),
            look_every: Duration::from_millis(500),
            look_at_most: Duration::from_secs(1),
            read_every: Duration::from_secs(1),
            read_at_most: Duration::from_secs(60),
        }
    }
}

/// How the watcher is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchStatus {
    /// Why the operating system's events are not used, or not for every folder; changes are then found by looking.
    pub without_events: Option<String>,
    /// How many times events were lost, by an overflow for instance.
    pub events_lost: u64,
    /// When the directory was last found to be as it was last told. Its age is how stale the bundle may be.
    pub last_looked: Option<Instant>,
}

/// A thread that watches a bundle's directory. Dropped, it ends, and the drop waits for that.
#[derive(Debug)]
pub struct Watcher {
    signals: Arc<Signals>,
    status: Arc<Mutex<WatchStatus>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch `directory`, which need not be there yet, and tells `follower` what is in it, soon and whenever
    /// that is something else.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(directory: impl Into<PathBuf>, options: WatchOptions, follower: impl Follower) -> io::Result<Self> {
        // An absolute path, so that the directory stays the same one whatever becomes of the process's own.
        let directory = std::path::absolute(directory.into())?;
        let (signals, status) = (Arc::new(Signals::default()), Arc::new(Mutex::new(WatchStatus::default())));
        let (thread_signals, thread_status) = (Arc::clone(&signals), Arc::clone(&status));
        let thread = thread::Builder::new().name("tollgate-watch".to_owned()).spawn(move || {
            let reader = Reader::new(directory, options.limits.clone());
            Watch::new(reader, options, follower, thread_signals, thread_status).run();
        })?;
        Ok(Self { signals, status, thread: Some(thread) })
    }

    /// Reads the directory now, and tells the follower whether it changed or not. Patience is not long then: who asks
    /// for a reload has written the files. The number is for [`Self::wait`].
    pub fn trigger(&self) -> u64 {
        self.signals.wish()
    }

    /// Waits until the reading that [`Self::trigger`] asked for has been told to the follower; false where that took
    /// longer than `timeout`.
    #[must_use]
    pub fn wait(&self, trigger: u64, timeout: Duration) -> bool {
        self.signals.wait_fulfilled(trigger, timeout)
    }

    /// How the watcher is doing.
    #[must_use]
    pub fn status(&self) -> WatchStatus {
        self.status.lock().clone()
    }

    /// Whether the thread runs. It ends only with the watcher, or where the follower panics.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.signals.stop();
        if let Some(thread) = self.thread.take() {
            // A follower's panic has been reported where it happened.
            let _ended = thread.join();
        }
    }
}

/// What was told last: a digest, or what was wrong.
type Told = Result<[u8; 32], Vec<Problem>>;

/// What the thread knows.
struct Watch<F> {
    reader: Reader,
    options: WatchOptions,
    follower: F,
    signals: Arc<Signals>,
    status: Arc<Mutex<WatchStatus>>,
    native: NativeEvents,
    told: Option<Told>,
    /// How the files looked, and what their digest was, when they were last taken or refused.
    seen: Option<(Walk, Told)>,
    /// The state of the files at the last load without a problem.
    taken: Option<Walk>,
    next_look: Instant,
    next_read: Instant,
}

impl<F: Follower> Watch<F> {
    fn new(
        reader: Reader,
        options: WatchOptions,
        follower: F,
        signals: Arc<Signals>,
        status: Arc<Mutex<WatchStatus>>,
    ) -> Self {
        let native = if options.native_events { NativeEvents::new(Arc::clone(&signals)) } else { NativeEvents::none() };
        let now = Instant::now();
        Self {
            reader,
            options,
            follower,
            signals,
            status,
            native,
            told: None,
            seen: None,
            taken: None,
            next_look: now,
            next_read: now,
        }
    }

    fn run(mut self) {
        // The first look sets the watches, so that nothing that happens while it is read goes unnoticed.
        self.follow_events(&self.reader.walk());
        let mut going_on = self.take(false);
        while going_on.is_some() {
            going_on = match self.signals.wait(self.next_look.min(self.next_read)) {
                Wake::Stop => None,
                Wake::Wish(wish) => {
                    let taken = self.take(true);
                    self.signals.fulfil(wish);
                    taken
                }
                Wake::Lost => {
                    self.note(|status| status.events_lost += 1);
                    self.next_read = Instant::now();
                    self.look()
                }
                Wake::Hint => {
                    self.signals.wait_quiet(self.options.quiet, self.options.quiet_at_most);
                    self.look()
                }
                Wake::Due => self.look(),
            };
        }
    }

    /// Looks whether anything changed, and takes it if so; `None` at the end.
    fn look(&mut self) -> Option<()> {
        let began = Instant::now();
        let walk = self.reader.walk();
        self.follow_events(&walk);
        self.next_look = next(began, self.options.look_every, self.options.look_at_most);
        let mut changed = self.seen.as_ref().is_none_or(|(seen, _)| *seen != walk);
        if !changed && self.next_read <= began {
            let began = Instant::now();
            let digest = self.reader.digest(&walk);
            self.next_read = next(began, self.options.read_every, self.options.read_at_most);
            changed = self.seen.as_ref().is_none_or(|(_, seen)| *seen != digest);
        }
        if changed {
            return self.take(false);
        }
        self.note(|status| status.last_looked = Some(began));
        Some(())
    }

    fn follow_events(&mut self, walk: &Walk) {
        self.native.follow(self.reader.directory(), walk);
        let complaint = self.native.complaint().map(str::to_owned);
        self.note(|status| status.without_events = complaint);
    }

    /// Waits until the files lie still, and tells the follower if they are others than before, or in any case where it
    /// is `wished`; `None` at the end.
    fn take(&mut self, wished: bool) -> Option<()> {
        let began = Instant::now();
        let mut policy = self.options.manifest.clone();
        policy.minimum_sequence = policy.minimum_sequence.max(self.follower.minimum_sequence());
        let settle = Settle {
            reader: &self.reader,
            policy: &policy,
            options: &self.options.settle,
            hurry: wished || self.told.is_none(),
            before: self.taken.as_ref(),
        };
        // A wish that came since the thread woke up is heard by the first wait.
        let mut heard = if wished { self.signals.wishes() } else { self.signals.fulfilled() };
        let (signals, follower) = (&self.signals, &mut self.follower);
        let wait = |duration| match signals.pause(duration, heard) {
            Wake::Stop => Wait::Stop,
            Wake::Wish(wish) => {
                heard = wish;
                Wait::Hurry
            }
            _ => Wait::Over,
        };
        let settled = settle.run(|reading| follower.patience(reading), wait)?;
        self.next_read = Instant::now() + self.options.read_every;
        let told = match &settled.outcome {
            Ok(reading) => Ok(reading.digest()),
            Err(problems) => Err(problems.clone()),
        };
        if settled.agreed {
            self.note(|status| status.last_looked = Some(began));
        }
        if settled.outcome.is_ok() {
            self.taken = Some(settled.walk.clone());
        }
        // What never lay still counts as not seen, and is taken up again by the next look.
        self.seen = settled.agreed.then_some((settled.walk, settled.digest));
        if wished || self.told.as_ref() != Some(&told) {
            self.told = Some(told);
            self.follower.take(settled.outcome);
        }
        Some(())
    }

    fn note(&self, change: impl FnOnce(&mut WatchStatus)) {
        change(&mut self.status.lock());
    }
}

/// When to do again what began at `began` and is done now: after `every`, or later where it took long, but not later
/// than after `at_most`.
fn next(began: Instant, every: Duration, at_most: Duration) -> Instant {
    let now = Instant::now();
    now + now.duration_since(began).saturating_mul(SHARE).clamp(every, at_most.max(every))
}
