//! The operating system's events: a hint that something changed, and never more than that.
//!
//! They are lost when a queue overflows, do not exist on many network file systems, stay with an inode when its path
//! means another, and do not see a link that is pointed elsewhere. So only single folders are watched, those in which
//! the last walk found something and those in which a link to them lies, and the list is mended after each walk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::signals::Signals;
use super::walk::{FolderId, Walk};

/// More folders than this are not watched but only looked at: the system has watches for a number of programs.
const MAX_FOLDERS: usize = 4_096;
/// How long after the system refused a watch it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The folders that are watched.
pub(super) struct NativeEvents {
    /// `None` where there are no events to be had.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Option<FolderId>>,
    refused_at: Option<Instant>,
    complaint: Option<String>,
}

impl NativeEvents {
    /// Events that are told to `signals`.
    pub(super) fn new(signals: Arc<Signals>) -> Self {
        let (watcher, complaint) = match notify::recommended_watcher(move |event| tell(event, &signals)) {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { watcher, watched: BTreeMap::new(), refused_at: None, complaint }
    }

    /// No events.
    pub(super) fn none() -> Self {
        let complaint = Some("switched off".to_owned());
        Self { watcher: None, watched: BTreeMap::new(), refused_at: None, complaint }
    }

    /// Why changes are found by looking alone, where they are.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Watches the folders of `walk`, and those around `directory`, from now on, and no others.
    pub(super) fn follow(&mut self, directory: &Path, walk: &Walk) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted: BTreeMap<PathBuf, Option<FolderId>> = surroundings(directory);
        wanted.extend(walk.folders.iter().map(|(path, id)| (path.clone(), Some(*id))));
        self.watched.retain(|path, id| {
            let keep = wanted.get(path) == Some(id);
            if !keep {
                // It is gone from there already, which is often why it is given up.
                let _gone = watcher.unwatch(path);
            }
            keep
        });
        if wanted.len() > MAX_FOLDERS {
            self.complaint = Some(format!("the bundle has more than {MAX_FOLDERS} folders"));
            return;
        }
        if self.refused_at.is_some_and(|refused| refused.elapsed() < ASK_AGAIN) {
            return;
        }
        (self.refused_at, self.complaint) = (None, None);
        for (path, id) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path, id);
                }
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) || !path.exists() => {}
                Err(error) => {
                    (self.refused_at, self.complaint) = (Some(Instant::now()), Some(error.to_string()));
                    return;
                }
            }
        }
    }
}

/// The folders in which `directory` may be replaced: its own parent, that of what it is a link to, and those of the
/// links on the way to it.
fn surroundings(directory: &Path) -> BTreeMap<PathBuf, Option<FolderId>> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    let places = directory.ancestors().filter(|path| *path == directory || is_link(path));
    let target = fs::canonicalize(&directory).ok();
    places.chain(target.as_deref()).filter_map(Path::parent).map(|parent| (parent.to_path_buf(), None)).collect()
}

fn tell(event: notify::Result<Event>, signals: &Signals) {
    match event {
        Ok(event) if event.need_rescan() => signals.lost(),
        // Our own reading opens files too: were that a hint, there would be no end of it.
        Ok(event) if is_reading(event.kind) => {}
        Ok(_) => signals.hint(),
        Err(_) => signals.lost(),
    }
}

fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
