//! A file of names, one a line with what is known of it: read anew when it changes; where the newest does not read, the
//! last good one goes on.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use smol_str::SmolStr;

use crate::model::Timestamp;

/// Largest file.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// How often it is looked at, at most.
const LOOK_EVERY_MS: i64 = 1_000;

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line of it is not taken. Nothing of the line is told.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

/// Reads one line: a name, and what is known of it.
type ReadLine<T> = Box<dyn Fn(&str) -> Result<(SmolStr, T), String> + Send + Sync>;
type Names<T> = HashMap<SmolStr, T>;
type Stamp = (SystemTime, u64);

pub(super) struct Watched<T> {
    path: PathBuf,
    line: ReadLine<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    known: Arc<Names<T>>,
    /// What the file was when it was last read.
    stamp: Option<Stamp>,
    looked_at: Option<Timestamp>,
}

impl<T> Watched<T> {
    pub(super) fn open(path: PathBuf, line: ReadLine<T>) -> Result<Self, FileError> {
        let (known, stamp) = read(&path, &line)?;
        let state = Mutex::new(State { known, stamp: Some(stamp), looked_at: None });
        Ok(Self { path, line, state })
    }

    /// What the file says; it is looked at again if that is due at `now`.
    pub(super) fn known(&self, now: Option<Timestamp>) -> Arc<Names<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |now: Timestamp, last: Timestamp| {
            now.as_millis().saturating_sub(last.as_millis()) >= LOOK_EVERY_MS || now < last
        };
        if let Some(now) = now.filter(|now| state.looked_at.is_none_or(|last| due(*now, last))) {
            state.looked_at = Some(now);
            self.look(&mut state);
        }
        Arc::clone(&state.known)
    }

    fn look(&self, state: &mut State<T>) {
        let stamp = stamp(&self.path).ok();
        if stamp == state.stamp {
            return;
        }
        // Told once for each change, and not again while it stays as it is.
        state.stamp = stamp;
        let text = match read(&self.path, &self.line) {
            Ok((known, stamp)) => {
                (state.known, state.stamp) = (known, Some(stamp));
                format!("read {} anew: {} names", self.path.display(), state.known.len())
            }
            Err(error) => format!("warning: {error}; the names of before go on"),
        };
        // That nobody reads it is no reason to stop.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(std::io::Error::other(format!("it is no file of {MAX_BYTES} bytes at most")));
    }
    Ok((metadata.modified()?, metadata.len()))
}

fn read<T>(path: &Path, entry: &ReadLine<T>) -> Result<(Arc<Names<T>>, Stamp), FileError> {
    let unreadable = |error| FileError::Unreadable { path: path.to_owned(), error };
    let stamp = stamp(path).map_err(unreadable)?;
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let mut known = Names::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |message: String| FileError::Line { path: path.to_owned(), line: number + 1, message };
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = entry(line).map_err(wrong)?;
        if known.insert(name, value).is_some() {
            return Err(wrong("the name stands in the file twice".to_owned()));
        }
    }
    Ok((Arc::new(known), stamp))
}
