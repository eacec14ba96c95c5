//! Lying still: a set of files is taken only when two readings of it agree, or when its manifest proves it whole.
//!
//! Two readings a tenth of a second apart do not see a writer that pauses for longer. Where taking the files would
//! open something, they must therefore lie still for longer: who compiles them says so, as [`Patience`].

use std::thread;
use std::time::{Duration, Instant};

use super::manifest::{self, ManifestPolicy};
use super::read::{Reader, Reading};
use super::walk::{Walk, problem};
use crate::policy::problem::{Problem, ProblemCode};

/// How long a set of files must lie still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until two readings agree.
    Usual,
    /// For longer: a file loses forbids or limits, or is gone with them, and the files may be half written.
    Long,
}

/// The times of [`settle()`]. With the defaults, and the watcher's, a change is taken well within a second of its last
/// write, and within three where patience is long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettleOptions {
    /// Between two readings.
    pub pause: Duration,
    /// How long files lie still where patience is long.
    pub long: Duration,
    /// After this long without two readings that agree, that is an error.
    pub give_up: Duration,
}

impl Default for SettleOptions {
    fn default() -> Self {
        Self { pause: Duration::from_millis(100), long: Duration::from_millis(1_800), give_up: Duration::from_secs(10) }
    }
}

/// Reads the bundle once it lies still, and verifies its manifest. Patience is never long: for a first load, and
/// for commands, which somebody runs when the files are written.
///
/// # Errors
/// Everything that is wrong with the directory, the files or the manifest; or that they never lay still.
pub fn settle(reader: &Reader, policy: &ManifestPolicy, options: &SettleOptions) -> Result<Reading, Vec<Problem>> {
    let settle = Settle { reader, policy, options, hurry: true, before: None };
    let wait = |duration| {
        thread::sleep(duration);
        Wait::Over
    };
    match settle.run(|_| Patience::Usual, wait) {
        Some(settled) => settled.outcome,
        None => Err(vec![never_still(options)]),
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// All of it was waited.
    Over,
    /// Somebody wants the files now.
    Hurry,
    /// Nobody wants them any more.
    Stop,
}

/// One settling.
pub(super) struct Settle<'a> {
    pub(super) reader: &'a Reader,
    pub(super) policy: &'a ManifestPolicy,
    pub(super) options: &'a SettleOptions,
    /// Whether patience is never long.
    pub(super) hurry: bool,
    /// The state of the files at the last accepted load.
    pub(super) before: Option<&'a Walk>,
}

/// A set of files that lay still.
pub(super) struct Settled {
    /// How they looked before they were read: a change since then shows against it.
    pub(super) walk: Walk,
    /// What the disk gave, before the manifest was verified.
    pub(super) digest: Result<[u8; 32], Vec<Problem>>,
    pub(super) outcome: Result<Reading, Vec<Problem>>,
    /// Whether two readings agreed; where not, `outcome` says that they never did.
    pub(super) agreed: bool,
}

/// One reading, and when it began.
struct Look {
    began: Instant,
    walk: Walk,
    /// What the disk gave, for the next reading to be compared with.
    digest: Result<[u8; 32], Vec<Problem>>,
    /// The same, its manifest verified.
    outcome: Result<Reading, Vec<Problem>>,
}

impl Settle<'_> {
    /// Settles; `None` where a wait ended with [`Wait::Stop`]. A bundle that cannot be taken needs as much patience as
    /// one that opens something: a writer half way leaves dangling links and manifests that do not fit yet.
    pub(super) fn run(
        mut self,
        mut patience: impl FnMut(&Reading) -> Patience,
        mut wait: impl FnMut(Duration) -> Wait,
    ) -> Option<Settled> {
        let began = Instant::now();
        loop {
            let look = self.look();
            if look.is_proven() || self.settled(&look, &mut patience, &mut wait)? {
                return Some(Settled { walk: look.walk, digest: look.digest, outcome: look.outcome, agreed: true });
            }
            if began.elapsed() >= self.options.give_up {
                let outcome = Err(vec![never_still(self.options)]);
                return Some(Settled { walk: look.walk, digest: look.digest, outcome, agreed: false });
            }
        }
    }

    fn settled(
        &mut self,
        look: &Look,
        patience: &mut impl FnMut(&Reading) -> Patience,
        wait: &mut impl FnMut(Duration) -> Wait,
    ) -> Option<bool> {
        if !self.lies_still(look, self.options.pause, wait)? {
            return Some(false);
        }
        let long = !self.hurry && look.outcome.as_ref().map_or(Patience::Long, patience) == Patience::Long;
        if long { self.lies_still(look, self.options.long, wait) } else { Some(true) }
    }

    /// Whether the files are still those of `look` when it is `duration` old.
    fn lies_still(&mut self, look: &Look, duration: Duration, wait: &mut impl FnMut(Duration) -> Wait) -> Option<bool> {
        loop {
            match wait(self.options.pause.min(duration)) {
                Wait::Over => {}
                Wait::Hurry => self.hurry = true,
                Wait::Stop => return None,
            }
            let needed = if self.hurry { self.options.pause.min(duration) } else { duration };
            let over = look.began.elapsed() >= needed;
            let walk = self.reader.walk();
            // Who touches a file has not changed it; who changes it within a tick of the clock has not touched it.
            if (over || walk != look.walk) && self.reader.digest(&walk) != look.digest {
                return Some(false);
            }
            if over {
                return Some(true);
            }
        }
    }

    fn look(&self) -> Look {
        let began = Instant::now();
        let walk = self.reader.walk();
        let read = self.reader.read(&walk);
        let digest = match &read {
            Ok(reading) => Ok(reading.digest()),
            Err(problems) => Err(problems.clone()),
        };
        let outcome = read.and_then(|reading| {
            let problems = manifest::verify(&reading.bundle, reading.manifest.as_ref(), self.policy);
            if !problems.is_empty() {
                return Err(problems);
            }
            let swapped = self.before.map(|before| before.swapped(self.reader.directory())).unwrap_or_default();
            Ok(Reading { swapped, ..reading })
        });
        Look { began, walk, digest, outcome }
    }
}

impl Look {
    /// Whether a manifest, which [`manifest::verify`] found to fit, says that these are all the files, and whole.
    fn is_proven(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|reading| reading.manifest.is_some())
    }
}

fn never_still(options: &SettleOptions) -> Problem {
    let message = format!("the files keep changing: no two readings in {} s agreed", options.give_up.as_secs());
    problem(ProblemCode::FileUnreadable, "", message)
}
