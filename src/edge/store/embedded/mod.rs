//! Meters on disk. Every move is made in memory first, in one ledger; a writer appends what moved since its last commit
//! to a log as one record and syncs it, however many asked for it (group commit), and only then are they answered. Beside
//! it, another thread takes what the log has into tables (SQLite in WAL mode), where it is found again.
//!
//! What is hard about it: a commit that fails must leave nobody with an answer, and nothing forgotten. What was to be
//! written is a state, not a step, so it is put back and written with the next commit; what was held is given back.

mod archive;
mod books;
mod file;
mod fold;
mod folder;
mod log;
mod record;
mod writer;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, MutexGuard};
use smol_str::SmolStr;
use tokio::sync::oneshot;

pub use file::OpenError;

use self::archive::Archive;
use self::file::File;
use self::log::Part;
use super::{EXPIRE_AT_ONCE, SWEEP_AT_ONCE, answered, gather_subjects, held, is_known, looks, recorded};
use crate::gate::{Books, CloseError, HoldError, Later, Look, Meters, StoreError, SubjectsOf};
use crate::meter::{Alert, Charge, Closed, Durability, Held, Hold, Ledger, Reservation, ReservationId, Usage};
use crate::model::{Amount, Timestamp};

/// How long what need not be waited for may wait to be written, in milliseconds: what a crash may forget of it, but for
/// the commit itself.
pub const ASYNC_WAIT_MS: u64 = 20;

/// The name of the tables' file in the data directory.
pub const FILE_NAME: &str = "meters.db";

/// Meters in a file.
pub struct Embedded {
    shared: Arc<Shared>,
    archive: Mutex<Archive>,
    books: Arc<books::Reader>,
    /// The writer, and who takes the log into the tables.
    threads: Vec<JoinHandle<()>>,
}

/// What the threads and those who ask have in common.
struct Shared {
    state: Mutex<State>,
    /// There is something for the writer to do.
    wake: Condvar,
    /// Something about the folding changed.
    folding: Condvar,
}

struct State {
    ledger: Ledger,
    /// How often closed reservations were let go of: what was read from the file before may be old.
    let_go: u64,
    waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    /// Closed reservations with keys that stay in memory for a while: whoever looked in vain for a key, here and in the
    /// file, and then holds or notes under it, must not miss what came between.
    lingering: VecDeque<ReservationId>,
    /// Closed reservations that the tables have not as they are, with the record that has them so.
    unfolded: HashMap<ReservationId, u64>,
    /// Whether something moved that nobody waits for.
    moved: bool,
    /// Whether the last commit failed: then everyone waits for the next one, so that what a crash forgets stays little.
    fails: bool,
    ends: bool,
    fold: Fold,
}

/// How far the log is, and the tables.
#[derive(Default)]
struct Fold {
    /// The last record that is written.
    written: u64,
    /// The last record that is in the tables.
    folded: u64,
    /// What is to be taken into the tables.
    handed: Option<Part>,
    /// Whether somebody wants what is written to be in the tables.
    wanted: bool,
    /// Why it could not be done.
    failed: Option<Arc<str>>,
    ends: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits until the tables have all that is written by now.
    fn fold_written(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        let written = state.fold.written;
        if state.fold.folded < written {
            state.fold.wanted = true;
            self.wake.notify_one();
        }
        let waits = |state: &mut State| state.fold.folded < written && state.fold.failed.is_none();
        self.folding.wait_while(&mut state, waits);
        match &state.fold.failed {
            Some(reason) if state.fold.folded < written => Err(StoreError::Away(reason.clone())),
            _ => Ok(()),
        }
    }
}

/// Whether an answer waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    ForDisk,
    No,
}

impl Wait {
    /// What failed moved nothing that could be waited for.
    fn if_done<T, E>(self, done: Result<T, E>) -> (Result<T, E>, Self) {
        let wait = if done.is_ok() { self } else { Self::No };
        (done, wait)
    }

    fn of<'a>(mut durabilities: impl Iterator<Item = &'a Durability>) -> Self {
        if durabilities.any(|durability| *durability == Durability::Sync) { Self::ForDisk } else { Self::No }
    }
}

impl Embedded {
    /// Opens the file in `directory`, or makes it; takes up what was left open at `now`.
    ///
    /// # Errors
    /// Where it is damaged, in use, of a later version, or cannot be read or made.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, OpenError> {
        let mut file = File::open(directory)?;
        let ledger = file.load(now)?;
        let archive = Mutex::new(file.archive()?);
        let (log, books) = (file.log(directory)?, file.books()?);
        let state = State {
            ledger,
            let_go: 0,
            waiting: Vec::new(),
            lingering: VecDeque::new(),
            unfolded: HashMap::new(),
            moved: true,
            fails: false,
            ends: false,
            fold: Fold { written: file.folded, folded: file.folded, ..Fold::default() },
        };
        let shared = Shared { state: Mutex::new(state), wake: Condvar::new(), folding: Condvar::new() };
        let shared = Arc::new(shared);
        let books = Arc::new(books::Reader::new(books, Arc::clone(&shared)));
        let mut store = Self { shared, archive, books, threads: Vec::new() };
        store.start("meters", |shared| writer::run(&shared, log))?;
        store.start("meters-fold", |shared| folder::run(&shared, file))?;
        Ok(store)
    }

    fn start(&mut self, name: &str, work: impl FnOnce(Arc<Shared>) + Send + 'static) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(shared));
        self.threads.push(thread.map_err(|error| OpenError::Thread(error.to_string()))?);
        Ok(())
    }

    /// Moves something, and answers when it is as durable as `wait` says.
    fn change<T, E>(
        &self,
        now: Timestamp,
        work: impl FnOnce(&mut Ledger) -> (Result<T, E>, Wait),
    ) -> Later<Result<T, E>>
    where
        T: Send + Unpin + 'static,
        E: From<StoreError> + Send + Unpin + 'static,
    {
        let mut state = self.shared.lock();
        state.ledger.expire(now, EXPIRE_AT_ONCE);
        let (done, wait) = work(&mut state.ledger);
        // Who did nothing need not wait, nor does who need not know; but where nothing can be written, all have to.
        if wait == Wait::No && !(state.fails && done.is_ok()) {
            let is_first = !std::mem::replace(&mut state.moved, true);
            drop(state);
            if is_first {
                self.shared.wake.notify_one();
            }
            return Later::ready(done);
        }
        self.once_written(state, done)
    }

    /// Answers when everything that moved until now is on disk.
    fn once_written<T, E>(&self, mut state: MutexGuard<'_, State>, done: Result<T, E>) -> Later<Result<T, E>>
    where
        T: Send + Unpin + 'static,
        E: From<StoreError> + Send + Unpin + 'static,
    {
        let (sender, written) = oneshot::channel();
        let is_first = state.waiting.is_empty();
        state.waiting.push(sender);
        drop(state);
        if is_first {
            self.shared.wake.notify_one();
        }
        Later::pending(async move {
            match written.await {
                Ok(Ok(())) => done,
                Ok(Err(error)) => Err(error.into()),
                Err(_gone) => Err(StoreError::NotWritten("the store was closed".into()).into()),
            }
        })
    }

    /// Takes a closed reservation back into memory, where it is only in the file.
    fn recall(&self, id: ReservationId) -> Result<(), StoreError> {
        loop {
            let let_go = {
                let state = self.shared.lock();
                if state.ledger.reservation(id).is_some() {
                    return Ok(());
                }
                state.let_go
            };
            let found = self.archive.lock().reservation(id)?;
            let mut state = self.shared.lock();
            if state.let_go == let_go {
                if let Some(reservation) = found.filter(|_| state.ledger.reservation(id).is_none()) {
                    state.ledger.recall(reservation);
                }
                return Ok(());
            }
        }
    }
}

impl Meters for Embedded {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        let mut state = self.shared.lock();
        state.ledger.expire(now, EXPIRE_AT_ONCE);
        Later::ready(Ok(looks(&state.ledger, charges, now)))
    }

    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        let id = hold.id;
        let wait = match &hold.idempotency {
            Some(_) => Wait::ForDisk,
            None => Wait::of(hold.charges.iter().map(|charge| &charge.limit.durability)),
        };
        let holding = self.change(now, |ledger| wait.if_done(held(ledger, hold, now)));
        if let Later::Ready(_) = holding {
            return holding;
        }
        let shared = Arc::clone(&self.shared);
        Later::pending(async move {
            let held = holding.await;
            if let Err(HoldError::Store(_)) = held {
                // Nobody was told that it is held.
                let _given_back = shared.lock().ledger.release(id, now);
            }
            held
        })
    }

    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.change(now, |ledger| match recorded(ledger, hold, usage, now) {
            // What is found is told as if it were noted now, so it has to be kept as well.
            found @ Err(CloseError::KeyTaken(_)) => (found, Wait::ForDisk),
            done => Wait::ForDisk.if_done(done),
        })
    }

    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        if let Err(error) = self.recall(id) {
            return Later::ready(Err(error.into()));
        }
        self.change(now, |ledger| Wait::ForDisk.if_done(ledger.settle(id, usage, now).map_err(CloseError::from)))
    }

    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        if let Err(error) = self.recall(id) {
            return Later::ready(Err(error.into()));
        }
        let settle = |ledger: &mut Ledger| ledger.settle_unknown(id, charged, now).map_err(CloseError::from);
        self.change(now, |ledger| Wait::ForDisk.if_done(settle(ledger)))
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        if let Err(error) = self.recall(id) {
            return Later::ready(Err(error.into()));
        }
        self.change(now, |ledger| Wait::ForDisk.if_done(ledger.release(id, now).map_err(CloseError::from)))
    }

    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        self.change(now, |ledger| {
            let alerts = ledger.warn(charges, now);
            let wait = if alerts.is_empty() { Wait::No } else { Wait::ForDisk };
            (Ok(alerts), wait)
        })
    }

    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        if let Err(error) = self.recall(id) {
            return Later::ready(Err(error.into()));
        }
        self.change(now, |ledger| Wait::ForDisk.if_done(ledger.extend(id, ttl_ms, now).map_err(CloseError::from)))
    }

    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        let known = self.shared.lock().ledger.reservation(id).cloned();
        if known.is_some() {
            return Later::ready(Ok(known));
        }
        let kept = self.archive.lock().reservation(id);
        Later::ready(kept.map(|kept| kept.filter(|kept| is_known(kept, now))))
    }

    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        let state = self.shared.lock();
        if let Some(known) = state.ledger.named(key).cloned() {
            // Whoever asks by a key tells what was answered: not before that is kept.
            return self.once_written(state, Ok(Some(known)));
        }
        drop(state);
        let kept = self.archive.lock().named(key);
        Later::ready(kept.map(|kept| kept.filter(|kept| is_known(kept, now))))
    }

    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        let now = Timestamp::from_millis(i64::MIN);
        self.change(now, |ledger| Wait::ForDisk.if_done(answered(ledger, id, answer)))
    }

    fn subjects(&self, of: &SubjectsOf) -> Later<Result<Vec<SmolStr>, StoreError>> {
        let (mut found, mut part) = (BTreeSet::new(), 0);
        while gather_subjects(&self.shared.lock().ledger, part, of, &mut found) {
            part += 1;
        }
        Later::ready(Ok(found.into_iter().collect()))
    }

    fn books(&self) -> Option<Arc<dyn Books>> {
        Some(Arc::clone(&self.books) as Arc<dyn Books>)
    }

    fn is_away(&self) -> bool {
        self.shared.lock().fails
    }

    fn tick(&self, now: Timestamp) {
        // Apart, so that whoever waits goes between.
        let swept = self.shared.lock().ledger.sweep(now, SWEEP_AT_ONCE);
        let mut state = self.shared.lock();
        if swept + state.ledger.expire(now, EXPIRE_AT_ONCE) > 0 && !std::mem::replace(&mut state.moved, true) {
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for Embedded {
    /// Writes what nobody waited for.
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.wake.notify_one();
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}
