//! A file of names, one a line with what is known of it: read anew when it changes; where the newest does not read, the
//! last good one goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use smol_str::SmolStr;
use zeroize::Zeroizing;

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
/// What is known, by name.
pub(super) type Names<T> = HashMap<SmolStr, T>;
/// The digest of what stood in the file. Times and sizes may stay as they were while that changes.
type Stamp = [u8; 32];

pub(super) struct Watched<T> {
    path: PathBuf,
    line: ReadLine<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    known: Arc<Names<T>>,
    /// What the file was when it was last read; `None` where it could not be.
    stamp: Option<Stamp>,
    looked_at: Option<Timestamp>,
}

impl<T> Watched<T> {
    pub(super) fn open(path: PathBuf, line: ReadLine<T>) -> Result<Self, FileError> {
        let text = text_of(&path)?;
        let known = Arc::new(read(&path, &text, &line)?);
        let state = Mutex::new(State { known, stamp: Some(stamp(&text)), looked_at: None });
        Ok(Self { path, line, state })
    }

    /// What the file says; it is looked at again if that is due at `now`.
    pub(super) fn known(&self, now: Option<Timestamp>) -> Arc<Names<T>> {
        let mut state = self.state.lock();
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
        let text = text_of(&self.path);
        let stamp = text.as_ref().ok().map(|text| stamp(text));
        if stamp == state.stamp {
            return;
        }
        // Told once for each change, and not again while it stays as it is.
        state.stamp = stamp;
        let file = self.path.display();
        match text.and_then(|text| read(&self.path, &text, &self.line)) {
            Ok(known) => {
                state.known = Arc::new(known);
                let names = state.known.len();
                tracing::info!(target: "tollgate::identity", %file, names, "read {file} anew: {names} names");
            }
            Err(error) => {
                tracing::warn!(target: "tollgate::identity", %file, "{error}; the names of before go on");
            }
        }
    }
}

fn stamp(text: &str) -> Stamp {
    Sha256::digest(text.as_bytes()).into()
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let unreadable = |error| FileError::Unreadable { path: path.to_owned(), error };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(unreadable(std::io::Error::other(format!("it is no file of {MAX_BYTES} bytes at most"))));
    }
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(unreadable)
}

fn read<T>(path: &Path, text: &str, entry: &ReadLine<T>) -> Result<Names<T>, FileError> {
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
    Ok(known)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;

    /// A file of names alone, in which `before` stands.
    fn watched(path: &Path, before: &str) -> Watched<()> {
        std::fs::write(path, before).unwrap();
        Watched::open(path.to_owned(), Box::new(|line| Ok((line.into(), ())))).unwrap()
    }

    #[test]
    fn a_change_is_seen_though_time_and_size_stay_as_they_were() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("names");
        let watched = watched(&path, "alice\n");
        let made = std::fs::metadata(&path).unwrap().modified().unwrap();
        let at = |millis| watched.known(Some(Timestamp::from_millis(millis)));
        assert!(at(0).contains_key("alice"));
        std::fs::write(&path, "carol\n").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(made).unwrap();
        assert!(at(LOOK_EVERY_MS - 1).contains_key("alice"), "it is not looked at yet");
        let after = at(LOOK_EVERY_MS);
        assert!(after.contains_key("carol") && !after.contains_key("alice"));
        // While it stays as it is, so does what is known.
        assert!(Arc::ptr_eq(&after, &at(2 * LOOK_EVERY_MS)));
        std::fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&after, &at(3 * LOOK_EVERY_MS)), "the names of before go on");
        std::fs::write(&path, "alice\n").unwrap();
        assert!(at(4 * LOOK_EVERY_MS).contains_key("alice"));
    }
}
