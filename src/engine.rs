//! The library's face: an engine that loads a bundle, keeps it current, and offers the decision service, blocking here and
//! asynchronous as [`Engine::pdp`]. The server is a caller of it.

mod blocking;
#[cfg(feature = "tower")]
mod layer;

#[cfg(feature = "tower")]
pub use layer::{Asked, Asks, Authorize, AuthorizeLayer};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::edge::clock::SystemClock;
use crate::edge::files::{Follower, Patience, Reader, Reading, Sequence, WatchOptions, Watcher, manifest, settle};
use crate::edge::store::Memory;
use crate::gate::{Authenticator, Clock, DecisionLog, FailureLimits, Meters, Notice, Observer};
use crate::meter::DEFAULT_MOST_OPEN_OF_PRINCIPAL;
use crate::model::Facts;
use crate::pdp::{self, OnAlert, Pdp};
use crate::policy::live::{Live, files_that_lost_forbids_or_limits, loses_much};
use crate::policy::{Bundle, Loaded, Loader, Problem, Report, Snapshot, report};

/// How often, and how many times, a retired snapshot is looked at, whether somebody holds it. A request does for well
/// under a millisecond; who of the library's users keeps one for longer than ten seconds drops it too.
const RETIRED_WAIT: Duration = Duration::from_millis(2);
const RETIRED_WAITS: u32 = 5_000;

/// Decides. Cheap to clone; every clone decides by the same bundle, and a reload never makes a decision wait.
///
/// ```no_run
/// use tollgate::{Engine, Request};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::load("policies")?;
/// let request = Request::new(r#"User::"alice""#.parse()?, "chat", r#"Model::"openai-main/gpt-4o""#.parse()?);
/// let decision = engine.is_authorized(&request)?;
/// assert!(decision.is_permit());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    pdp: Pdp,
    guard: Arc<Mutex<Guard>>,
    watcher: Option<Watcher>,
    /// For reloading where nothing watches.
    source: Option<(PathBuf, WatchOptions, Mutex<Keeper>)>,
}

/// A bundle that does not load: everything that is wrong with it.
#[derive(Debug)]
pub struct LoadError {
    /// The problems, sorted by place.
    pub problems: Vec<Problem>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&report::text(&self.problems, false))
    }
}

impl std::error::Error for LoadError {}

impl Engine {
    /// Loads the bundle in `directory`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::builder().policies(directory.as_ref()).build()
    }

    /// For everything that [`Engine::load`] leaves at its default.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// The decision service, asynchronous: everything that the server can do.
    #[must_use]
    pub fn pdp(&self) -> &Pdp {
        &self.inner.pdp
    }

    /// What decides now. Everything asked of one snapshot is answered by one bundle.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.inner.pdp.snapshot()
    }

    /// What Tollgate knows of a caller now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.inner.pdp.facts()
    }

    /// What became of the loads so far.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        self.inner.pdp.live().report()
    }

    /// How the watcher is doing, where one watches.
    #[must_use]
    pub fn watch_status(&self) -> Option<crate::edge::files::WatchStatus> {
        self.inner.watcher.as_ref().map(Watcher::status)
    }

    /// Reads the bundle again now and returns when it is in charge, or has failed ([`Engine::report`] says which).
    /// False where that took longer than `timeout`.
    #[must_use]
    pub fn reload(&self, timeout: Duration) -> bool {
        if let Some(watcher) = &self.inner.watcher {
            let wish = watcher.trigger();
            return watcher.wait(wish, timeout);
        }
        if let Some((directory, options, keeper)) = &self.inner.source {
            let mut keeper = keeper.lock();
            let policy = keeper.manifest_policy(options);
            let reader = Reader::new(directory, options.limits.clone());
            keeper.take(settle(&reader, &policy, &options.settle));
        }
        true
    }

    /// Lets the bundle of this revision in, though the guard holds it.
    pub fn acknowledge(&self, revision: &str) {
        let mut guard = self.inner.guard.lock();
        guard.acknowledged = Some(revision.into());
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.snapshot().map(|snapshot| Arc::clone(snapshot.revision()));
        f.debug_struct("Engine").field("revision", &revision).finish_non_exhaustive()
    }
}

/// How an engine is to be set up.
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, set by a method of its own")]
pub struct EngineBuilder {
    directory: Option<PathBuf>,
    bundle: Option<Bundle>,
    data: Option<PathBuf>,
    watch: bool,
    wait: bool,
    strict: bool,
    admin_policies: bool,
    guarded: bool,
    options: WatchOptions,
    clock: Arc<dyn Clock>,
    meters: Option<Arc<dyn Meters>>,
    most_open: usize,
    authenticators: Vec<Arc<dyn Authenticator>>,
    failures: Option<FailureLimits>,
    on_alert: Option<OnAlert>,
    told: Option<Told>,
    log: Option<Arc<dyn DecisionLog>>,
    observer: Option<Arc<dyn Observer>>,
}

/// Who is told of each load.
type Told = Arc<dyn Fn(&Live) + Send + Sync>;

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            directory: None,
            bundle: None,
            data: None,
            watch: false,
            wait: true,
            strict: false,
            admin_policies: true,
            guarded: false,
            options: WatchOptions::default(),
            clock: Arc::new(SystemClock),
            meters: None,
            most_open: DEFAULT_MOST_OPEN_OF_PRINCIPAL,
            authenticators: Vec::new(),
            failures: Some(FailureLimits::default()),
            on_alert: None,
            told: None,
            log: None,
            observer: None,
        }
    }
}

impl EngineBuilder {
    /// The directory that holds the bundle.
    pub fn policies(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// A bundle that is in memory; instead of a directory.
    pub fn bundle(mut self, bundle: Bundle) -> Self {
        self.bundle = Some(bundle);
        self
    }

    /// Where to keep what must last: the highest sequence of a manifest that was accepted, so that no older bundle is
    /// accepted after a restart either. Created when there is something to keep. Default: nowhere; the engine alone
    /// remembers it, and only while it lives.
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data = Some(directory.into());
        self
    }

    /// Whether changes of the directory are taken over while the engine lives. Default: no.
    pub fn watch(mut self, watch: bool) -> Self {
        self.watch = watch;
        self
    }

    /// Whether building fails where the first bundle does. Default: yes; else a watching engine waits for a good one,
    /// and decides nothing before.
    pub fn first_must_load(mut self, must: bool) -> Self {
        self.wait = must;
        self
    }

    /// Whether warnings are errors. Default: no.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Whether the built-in policies (`tollgate schema --admin`) decide the actions of `admin` for which the bundle has
    /// no rule. Default: yes.
    pub fn admin_policies(mut self, hold: bool) -> Self {
        self.admin_policies = hold;
        self
    }

    /// Whether a reload is held until it is acknowledged if it drops much (every forbid, every limit, most rules),
    /// newly permits every principal, or leaves a forbid without any principal. Default: no.
    pub fn guarded(mut self, guarded: bool) -> Self {
        self.guarded = guarded;
        self
    }

    /// How the directory is read and watched.
    pub fn watch_options(mut self, options: WatchOptions) -> Self {
        self.options = options;
        self
    }

    /// Where `context.now` comes from. Default: the system's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where meters are kept. Default: in memory, forgotten with the engine.
    pub fn meters(mut self, meters: Arc<dyn Meters>) -> Self {
        self.meters = Some(meters);
        self
    }

    /// How many reservations a principal may have open at a time. Default: 10,000.
    pub fn open_reservations_per_principal(mut self, most: usize) -> Self {
        self.most_open = most;
        self
    }

    /// One more provider of identities, asked after those before it. Default: none, so that credentials prove nobody.
    pub fn authenticator(mut self, provider: Arc<dyn Authenticator>) -> Self {
        self.authenticators.push(provider);
        self
    }

    /// How many failures to prove somebody are borne, by source and by id; `None` for any number. Default: a few.
    pub fn failures(mut self, limits: impl Into<Option<FailureLimits>>) -> Self {
        self.failures = limits.into();
        self
    }

    /// Who is told of each load, whether it worked or not, on the thread that loads. Default: nobody.
    pub fn on_load(mut self, told: impl Fn(&Live) + Send + Sync + 'static) -> Self {
        self.told = Some(Arc::new(told));
        self
    }

    /// Who is told, once a period and meter, that a limit has reached one of its `warn_at`; on the thread that decides,
    /// so it must not wait. Default: nobody.
    pub fn on_alert(mut self, on_alert: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.on_alert = Some(Arc::new(on_alert));
        self
    }

    /// Where decisions are recorded, such as an [`edge::decision_log::Recorder`](crate::edge::decision_log::Recorder).
    /// Default: nowhere.
    pub fn decision_log(mut self, log: Arc<dyn DecisionLog>) -> Self {
        self.log = Some(log);
        self
    }

    /// Who observes decisions, refused credentials and alerts, such as the metrics of a server. Default: no one.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Loads the bundle and starts to watch, as set up.
    ///
    /// # Errors
    /// Everything that is wrong with the bundle. Whether it must load or not: a record in the data directory that is
    /// damaged or cannot be read.
    pub fn build(self) -> Result<Engine, LoadError> {
        let sequence = self.data.as_deref().map_or_else(|| Ok(Sequence::default()), Sequence::kept_in);
        let sequence = sequence.map_err(|problem| LoadError { problems: vec![problem] })?;
        let live = Arc::new(Live::default());
        let guard = Arc::new(Mutex::new(Guard { on: self.guarded, acknowledged: None }));
        let mut keeper = Keeper {
            live: Arc::clone(&live),
            clock: Arc::clone(&self.clock),
            guard: Arc::clone(&guard),
            loader: Loader::new(self.strict).admin_policies(self.admin_policies),
            sequence,
            told: self.told,
        };
        if let Some(bundle) = &self.bundle {
            let outcome = keeper.loader.load(bundle);
            keeper.publish(outcome, bundle, None);
        }
        let directory = self.directory.or_else(|| self.bundle.is_none().then(|| PathBuf::from("policies")));
        let pdp = Pdp::new(pdp::Parts {
            live: Arc::clone(&live),
            clock: self.clock,
            meters: self.meters.unwrap_or_else(|| Arc::new(Memory::default())),
            max_open_reservations: self.most_open,
            authenticators: self.authenticators,
            failures: self.failures,
            log: self.log,
            observer: self.observer,
            on_alert: self.on_alert,
        });
        let mut inner = Inner { pdp, guard, watcher: None, source: None };
        if let Some(directory) = directory {
            if self.wait || !self.watch {
                let reader = Reader::new(&directory, self.options.limits.clone());
                let policy = keeper.manifest_policy(&self.options);
                keeper.take(settle(&reader, &policy, &self.options.settle));
            }
            if self.watch && (live.current().is_some() || !self.wait) {
                inner.watcher = Watcher::start(&directory, self.options, keeper).ok();
            } else {
                inner.source = Some((directory, self.options, Mutex::new(keeper)));
            }
        }
        match (live.current(), live.report().failure.as_ref()) {
            (None, Some(failure)) if self.wait => Err(LoadError { problems: failure.problems.to_vec() }),
            _ => Ok(Engine { inner: Arc::new(inner) }),
        }
    }
}

/// Drops a snapshot that decides no more. For a million rules that takes a while: no decision waits for it, nor does the
/// next reload. So it happens on a thread of its own, and only once no request in flight is left to hold the snapshot:
/// the last one would have to drop it, on a thread that serves.
fn retire(snapshot: Arc<Snapshot>) {
    #[expect(clippy::disallowed_methods, reason = "no decision waits here: the thread is there for nothing else")]
    let once_free = move || {
        for _ in 0..RETIRED_WAITS {
            if Arc::strong_count(&snapshot) == 1 {
                break;
            }
            std::thread::sleep(RETIRED_WAIT);
        }
        drop(snapshot);
    };
    // Where there is no thread to be had it is dropped here.
    let _dropping = std::thread::Builder::new().name("drop".to_owned()).spawn(once_free);
}

/// Whether reloads that lose much are held, and which one is let in all the same.
struct Guard {
    on: bool,
    acknowledged: Option<Box<str>>,
}

/// Turns readings of the directory into snapshots, and puts them in charge.
struct Keeper {
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    guard: Arc<Mutex<Guard>>,
    loader: Loader,
    sequence: Sequence,
    told: Option<Told>,
}

impl Keeper {
    /// Puts what was loaded in charge, or notes why not, and tells who wants to know.
    fn publish(&mut self, outcome: Result<Loaded, Vec<Problem>>, bundle: &Bundle, sequence: Option<u64>) {
        match outcome.and_then(|loaded| self.admit(loaded, sequence)) {
            Ok(loaded) => {
                let before = self.live.publish(loaded.snapshot, loaded.problems, self.clock.now());
                self.tell();
                if let Some(before) = before {
                    retire(before);
                }
            }
            Err(problems) => self.fail(problems, Some(bundle.revision())),
        }
    }

    fn fail(&self, problems: Vec<Problem>, revision: Option<Arc<str>>) {
        self.live.fail(problems, revision, self.clock.now());
        self.tell();
    }

    fn tell(&self) {
        pdp::events::load(&self.live);
        if let Some(told) = &self.told {
            told(&self.live);
        }
    }

    /// What was loaded, where the guard lets it in and its sequence is kept. It is kept before the bundle decides: a
    /// crash in between leaves a bundle to be taken again, and never one that decided and is forgotten.
    fn admit(&mut self, loaded: Loaded, sequence: Option<u64>) -> Result<Loaded, Vec<Problem>> {
        if let Some(held) = self.held(&loaded.snapshot) {
            return Err(vec![held]);
        }
        if let Some(sequence) = sequence {
            self.sequence.accept(sequence).map_err(|problem| vec![problem])?;
        }
        Ok(loaded)
    }

    fn held(&self, snapshot: &Snapshot) -> Option<Problem> {
        let guard = self.guard.lock();
        if !guard.on || guard.acknowledged.as_deref() == Some(snapshot.revision()) {
            return None;
        }
        loses_much(self.live.current()?.as_ref(), snapshot)
    }

    fn manifest_policy(&self, options: &WatchOptions) -> crate::edge::files::ManifestPolicy {
        let mut policy = options.manifest.clone();
        policy.minimum_sequence = policy.minimum_sequence.max(self.sequence.minimum());
        policy
    }
}

impl Follower for Keeper {
    fn take(&mut self, outcome: Result<Reading, Vec<Problem>>) {
        match outcome {
            Ok(reading) => {
                // The loader has kept what `patience` compiled, if these are the same files.
                let outcome = self.loader.load(&reading.bundle);
                self.publish(outcome, &reading.bundle, reading.manifest.as_ref().and_then(manifest::sequence));
            }
            Err(problems) => self.fail(problems, None),
        }
    }

    fn patience(&mut self, reading: &Reading) -> Patience {
        let Some(before) = self.live.current() else { return Patience::Usual };
        match self.loader.load(&reading.bundle) {
            Ok(ready) => {
                let lost = files_that_lost_forbids_or_limits(&before, &ready.snapshot);
                // The files behind a link whose target changed were replaced in one step.
                let is_whole = lost.is_subset(&reading.swapped);
                if is_whole { Patience::Usual } else { Patience::Long }
            }
            Err(_) => Patience::Usual,
        }
    }

    fn minimum_sequence(&self) -> u64 {
        self.sequence.minimum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SourceFile;

    #[test]
    fn who_holds_a_retired_snapshot_does_not_drop_it() {
        let text = "authz_rules: [{ users: [a], models: [b/c] }]\n";
        let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
        let held = crate::policy::load(&bundle).unwrap().snapshot;
        let dropped = Arc::downgrade(&held);
        retire(Arc::clone(&held));
        // As long as somebody holds it, so does the thread that is to drop it.
        std::thread::park_timeout(10 * RETIRED_WAIT);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(held);
        while dropped.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
