//! The decision log: a record of each decision, in files that link their lines, or on standard output.
//!
//! The thread that decides writes the record as JSON (`line`), without the masked members, and puts it in a bounded
//! `queue`. One separate thread (`writer`) numbers the lines, links them (`chain`) and writes them (`files`). Lost
//! records are counted in the log itself. `read` verifies a log and finds records in it.

mod chain;
mod files;
mod json;
mod level;
mod line;
mod mask;
mod queue;
mod read;
mod refusals;
mod writer;

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

pub use files::DecisionLogError;
pub use level::{Level, SampleRate};
pub use mask::{Mask, MaskError};
pub use queue::OnFull;
pub use read::{Damage, Inclusion, Kept, ReadError, Verified, find, prove, verify};

use crate::gate::{Checkpoint, Clock, Decided, DecisionLog, DecisionLogStatus, DecisionRecord};
use files::{Folder, Keeping, Output, Position};
use parking_lot::{Mutex, MutexGuard};
use queue::Queue;
use refusals::Refusals;
use writer::{State, Writer};

/// Bytes that may wait to be written.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// The usual size of a record.
const USUAL_RECORD_BYTES: usize = 1024;

/// How urgent an event of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Info,
    Warning,
}

/// Reports an event to the operator of the process.
type Tell = Arc<dyn Fn(Urgency, &str) + Send + Sync>;

fn trace(urgency: Urgency, message: &str) {
    match urgency {
        Urgency::Info => tracing::info!(target: "tollgate::decision_log", "{message}"),
        Urgency::Warning => tracing::warn!(target: "tollgate::decision_log", "{message}"),
    }
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Files in this folder.
    Folder(PathBuf),
    /// Standard output.
    Stdout,
}

/// How decisions are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionLogOptions {
    /// Which decisions.
    pub level: Level,
    /// Where to.
    pub destination: Destination,
    /// Longest file; a longer one is ended, and another begun.
    pub max_bytes: u64,
    /// For how many days files are kept after their last line.
    pub keep_days: u32,
    /// How to handle a record for which the queue has no room.
    pub on_full: OnFull,
    /// Members that are left out of every record.
    pub mask: Mask,
    /// A file to which every checkpoint is also written.
    pub checkpoint_file: Option<PathBuf>,
    /// The name of this machine.
    pub node: String,
}

impl DecisionLogOptions {
    /// Forbids, in files of 1 GiB that are kept for 14 days; addresses, end users and metadata are masked.
    #[must_use]
    pub fn new(destination: Destination) -> Self {
        Self {
            level: Level::default(),
            destination,
            max_bytes: 1024 * 1024 * 1024,
            keep_days: 14,
            on_full: OnFull::default(),
            mask: Mask::usual(),
            checkpoint_file: None,
            node: String::new(),
        }
    }
}

/// State that is shared by the deciding threads and the writer.
struct Shared {
    queue: Queue,
    refusals: Mutex<Refusals>,
    written: AtomicU64,
    lost: AtomicU64,
    summed_up: AtomicU64,
    stopped: AtomicBool,
}

impl Shared {
    fn new(queue_bytes: usize, on_full: OnFull) -> Self {
        Self {
            queue: Queue::new(queue_bytes, on_full),
            refusals: Mutex::default(),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            summed_up: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock()
    }
}

/// Takes each checkpoint of a log.
pub type OnCheckpoint = Box<dyn FnMut(Checkpoint) + Send>;

/// Records decisions; a separate thread writes them. Dropping it writes all queued records.
pub struct Recorder {
    level: Level,
    mask: Mask,
    shared: Arc<Shared>,
    writing: Mutex<Option<JoinHandle<()>>>,
}

thread_local! {
    /// A record while it is written.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Recorder {
    /// Opens the log, repairs its end, and begins to write. That it has stopped or goes on, and checkpoints, are `tracing`
    /// events.
    ///
    /// # Errors
    /// Where its files cannot be opened, or another process writes them.
    pub fn open(options: DecisionLogOptions, clock: Arc<dyn Clock>) -> Result<Self, DecisionLogError> {
        Self::open_with(options, clock, Box::new(|_| {}))
    }

    /// As [`Recorder::open`]; calls `on_checkpoint` for each checkpoint, once it is on the disk. The thread that writes the
    /// log makes the call, so it must not wait.
    ///
    /// # Errors
    /// As [`Recorder::open`].
    pub fn open_with(
        options: DecisionLogOptions,
        clock: Arc<dyn Clock>,
        mut on_checkpoint: OnCheckpoint,
    ) -> Result<Self, DecisionLogError> {
        let keeping = Keeping { most_bytes: options.max_bytes, keep_days: options.keep_days };
        let (output, position, repaired) = match &options.destination {
            Destination::Folder(path) => {
                let (folder, position, repaired) = Folder::open(path, keeping)?;
                (Output::Folder(folder), position, repaired)
            }
            Destination::Stdout => (Output::standard(), Position::default(), None),
        };
        let shared = Arc::new(Shared::new(QUEUE_BYTES, options.on_full));
        let checkpoint_file = options.checkpoint_file;
        let keep = move |checkpoint: Checkpoint| {
            let written = checkpoint_file.as_deref().map_or(Ok(()), |path| append(path, &checkpoint.line));
            on_checkpoint(checkpoint);
            written
        };
        let writer = Writer {
            shared: Arc::clone(&shared),
            output,
            clock,
            tell: Arc::new(trace),
            keep: Box::new(keep),
            free: Box::new(Output::free_percent),
            node: options.node,
            state: State::at(position),
        };
        let thread = std::thread::Builder::new().name("decision-log".to_owned());
        let spawned = thread.spawn(move || writer.run(repaired.as_ref()));
        let path = PathBuf::from("its thread");
        let writing = spawned.map_err(|error| DecisionLogError::Io { path, error })?;
        Ok(Self { level: options.level, mask: options.mask, shared, writing: Mutex::new(Some(writing)) })
    }

    /// How many bytes of records may wait to be written.
    #[must_use]
    pub const fn capacity_bytes(&self) -> usize {
        QUEUE_BYTES
    }

    /// How many bytes of records wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.queue.len()
    }

    /// Writes all queued records, ends the log with a checkpoint, and accepts no more records.
    pub fn close(&self) {
        self.shared.queue.close();
        let writing = self.writing.lock().take();
        if let Some(writing) = writing {
            // After a panic of the thread no records are left to write.
            let _ended = writing.join();
        }
    }
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(line))
}

impl DecisionLog for Recorder {
    fn record(&self, record: &DecisionRecord<'_>) {
        if !self.level.takes(record) {
            return;
        }
        if let Decided::Refused(unproved) = record.decided
            && !self.shared.refusals().takes(unproved.refusal.reason, record.at)
        {
            self.shared.summed_up.fetch_add(1, Ordering::Relaxed);
            return;
        }
        LINE.with_borrow_mut(|text| {
            text.clear();
            text.reserve(USUAL_RECORD_BYTES);
            line::write(text, record, &self.mask);
            self.shared.queue.put(text);
        });
    }

    fn status(&self) -> DecisionLogStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DecisionLogStatus {
            written: load(&self.shared.written),
            lost: load(&self.shared.lost),
            summed_up: load(&self.shared.summed_up),
            queued_bytes: u64::try_from(self.shared.queue.len()).unwrap_or(u64::MAX),
            stopped: self.shared.stopped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("level", &self.level).field("status", &self.status()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
