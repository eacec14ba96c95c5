//! The current snapshot, swapped whole, and the report of the last load.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::opens;
use super::problem::{Problem, ProblemCode};
use super::snapshot::Snapshot;
use super::syntax::Place;
use crate::model::{Effect, Timestamp};

/// What became of the loads so far.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// When the active snapshot was loaded.
    pub loaded_at: Option<Timestamp>,
    /// Warnings and notes of the active snapshot.
    pub warnings: Arc<[Problem]>,
    /// The newest load, if it failed: since then the files on disk are not what decides.
    pub failure: Option<Failure>,
    /// How many loads succeeded.
    pub loads: u64,
    /// How many failed.
    pub failures: u64,
}

/// A load that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// The revision that did not load, where there was one.
    pub revision: Option<Arc<str>>,
    /// Why.
    pub problems: Arc<[Problem]>,
}

/// The snapshot that decides now. Reading it never waits.
#[derive(Debug, Default)]
pub struct Live {
    current: ArcSwapOption<Snapshot>,
    report: ArcSwap<Report>,
}

impl Live {
    /// The snapshot that decides now; `None` before the first.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }
    /// The report of the last load.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// Puts `snapshot` in charge. Returns the one before.
    pub fn publish(&self, snapshot: Arc<Snapshot>, warnings: Vec<Problem>, now: Timestamp) -> Option<Arc<Snapshot>> {
        let before = self.current.swap(Some(snapshot));
        let last = self.report.load();
        self.report.store(Arc::new(Report {
            loaded_at: Some(now),
            warnings: warnings.into(),
            failure: None,
            loads: last.loads + 1,
            failures: last.failures,
        }));
        before
    }

    /// Notes a load that failed; the snapshot in charge stays.
    pub fn fail(&self, problems: Vec<Problem>, revision: Option<Arc<str>>, now: Timestamp) {
        let last = self.report.load();
        self.report.store(Arc::new(Report {
            failure: Some(Failure { at: now, revision, problems: problems.into() }),
            failures: last.failures + 1,
            ..Report::clone(&last)
        }));
    }
}

/// A description of the loss when `after` replaces `before`, if it is larger than a slip should cause: every forbid,
/// every limit, more than half of the rules, or a restriction of all principals.
#[must_use]
pub fn loses_much(before: &Snapshot, after: &Snapshot) -> Option<Problem> {
    let (old, new) = (before.counts(), after.counts());
    let message = if old.forbids > 0 && new.forbids == 0 {
        format!("this bundle drops every forbid: there were {}", old.forbids)
    } else if old.limits > 0 && new.limits == 0 {
        format!("this bundle drops every limit: there were {}", old.limits)
    } else if new.rules * 2 < old.rules {
        format!("this bundle drops most rules: of {} there are {} left", old.rules, new.rules)
    } else if let Some(rule) = opens::permits_everybody(before, after) {
        format!("this bundle permits every principal an access that not every principal had before: {rule}")
    } else if let Some(rule) = opens::forbids_nobody(before, after) {
        format!("this bundle has a forbid that no longer applies to any declared principal: {rule}")
    } else {
        return None;
    };
    let help = format!(
        "the bundle before stays in charge; if this is meant, acknowledge it: POST /bundle/reload with {{\"acknowledge\": \"{}\"}}",
        after.revision()
    );
    Some(Problem::error(ProblemCode::ReloadHeld, &Arc::from(""), Place::default(), message).with_help(help))
}

/// The files that hold fewer forbids or limits than before, or are gone with some: they may be half written, or on the way
/// to another place.
#[must_use]
pub fn files_that_lost_forbids_or_limits(before: &Snapshot, after: &Snapshot) -> BTreeSet<Arc<str>> {
    let lost = |before: HashMap<Arc<str>, usize>, after: &HashMap<Arc<str>, usize>| {
        let is_less =
            |(file, count): (Arc<str>, usize)| (after.get(&file).copied().unwrap_or_default() < count).then_some(file);
        before.into_iter().filter_map(is_less).collect::<Vec<_>>()
    };
    let of_forbids = lost(forbids(before), &forbids(after));
    of_forbids.into_iter().chain(lost(limits(before), &limits(after))).collect()
}

/// How many forbids each file has.
fn forbids(snapshot: &Snapshot) -> HashMap<Arc<str>, usize> {
    let forbids = snapshot.rules.iter().filter(|rule| rule.effect == Effect::Forbid);
    counted(snapshot, forbids.filter_map(|rule| snapshot.files.get(rule.file as usize)))
}

/// How many limits each file has.
fn limits(snapshot: &Snapshot) -> HashMap<Arc<str>, usize> {
    counted(snapshot, snapshot.limits.all().iter().map(|bound| &bound.file))
}

fn counted<'a>(snapshot: &Snapshot, of_files: impl Iterator<Item = &'a Arc<str>>) -> HashMap<Arc<str>, usize> {
    let mut by_file: HashMap<Arc<str>, usize> = snapshot.files().iter().map(|file| (Arc::clone(file), 0)).collect();
    for file in of_files {
        by_file.entry(Arc::clone(file)).and_modify(|count| *count += 1);
    }
    by_file
}
