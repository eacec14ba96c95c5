//! Where lines go: files in a folder of the data directory, which take turns, or standard output.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::chain::{self, Digest, NOTHING, Tree};
use crate::model::Timestamp;

const DAY_MS: i64 = 86_400_000;
/// A file name is this prefix, the number of the file's first line, and the suffix.
const PREFIX: &str = "decisions-";
const SUFFIX: &str = ".jsonl";
/// Longest file of a process before that is gone on with; a longer one is closed, so that no start reads for long.
const MOST_RESUMED_BYTES: u64 = 64 * 1024 * 1024;

/// Why a decision log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DecisionLogError {
    /// A file or folder cannot be read or written.
    #[error("the decision log in {} cannot be opened: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process writes it.
    #[error("another process writes the decision log in {}; give each its own data directory", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The number of its first line.
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

/// The files of a folder, the oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        found.extend(number.map(|first| Found { first, path: path.clone() }));
    }
    found.sort_by_key(|one| one.first);
    Ok(found)
}

/// Where a log goes on.
#[derive(Debug, Clone)]
pub(super) struct Position {
    /// The number of the next line.
    pub(super) next: u64,
    /// The digest of the line before it.
    pub(super) before: Digest,
    /// The tree over the lines of the file that is open.
    pub(super) tree: Tree,
}

impl Default for Position {
    fn default() -> Self {
        Self { next: 1, before: NOTHING, tree: Tree::default() }
    }
}

/// The repair that a start made at the end of the newest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repaired {
    pub(super) file: String,
    /// Bytes of a line that was not written to its end, and are gone now.
    pub(super) bytes: u64,
}

/// A folder of files that take turns.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    most_bytes: u64,
    keep_days: u32,
    /// The file that is open, with its length.
    current: Option<(File, u64)>,
    /// All files with the day on which each was begun; the last one is open.
    files: Vec<(Found, i64)>,
    _lock: File,
}

/// How a folder is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    pub(super) most_bytes: u64,
    pub(super) keep_days: u32,
}

impl Folder {
    /// Opens the folder, repairs the end of its newest file, and goes on with that unless it is long.
    pub(super) fn open(path: &Path, keeping: Keeping) -> Result<(Self, Position, Option<Repaired>), DecisionLogError> {
        let wrong = |error| DecisionLogError::Io { path: path.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(wrong)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(wrong)?;
        let lock = private().truncate(false).open(path.join("lock")).map_err(wrong)?;
        lock.set_permissions(Permissions::from_mode(0o600)).map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DecisionLogError::InUse { path: path.to_owned() }),
            Err(fs::TryLockError::Error(error)) => return Err(wrong(error)),
        }
        let Keeping { most_bytes, keep_days } = keeping;
        let mut files = Vec::new();
        for found in list(path).map_err(wrong)? {
            fs::set_permissions(&found.path, Permissions::from_mode(0o600)).map_err(wrong)?;
            let day = begun(&found.path).map_err(wrong)?;
            files.push((found, day));
        }
        let mut folder = Self { path: path.to_owned(), most_bytes, keep_days, current: None, files, _lock: lock };
        let (position, repaired) = folder.resume().map_err(wrong)?;
        Ok((folder, position, repaired))
    }

    fn resume(&mut self) -> io::Result<(Position, Option<Repaired>)> {
        let Some((newest, _)) = self.files.last() else { return Ok((Position::default(), None)) };
        let file = OpenOptions::new().read(true).append(true).open(&newest.path)?;
        let mut reader = BufReader::new(&file);
        let mut position = Position { next: newest.first, ..Position::default() };
        let (mut length, mut torn) = (0, 0);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
            if line.pop() == Some(b'\n') {
                position.before = chain::leaf(&line);
                position.tree.push(position.before);
                position.next += 1;
                length += bytes;
            } else {
                torn = bytes;
            }
            line.clear();
        }
        let name = newest.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let repaired = (torn > 0).then_some(Repaired { file: name, bytes: torn });
        if torn > 0 {
            file.set_len(length)?;
            file.sync_all()?;
        }
        if position.tree.size() == 0 {
            // The file is empty. The next line takes the number from the file's name, and refers to the last line of
            // the file before it.
            position.before = self.last_before_newest()?;
        }
        self.current = Some((file, length));
        if length > MOST_RESUMED_BYTES {
            self.current = None;
        }
        Ok((position, repaired))
    }

    /// The digest of the last line of the file before the newest.
    fn last_before_newest(&self) -> io::Result<Digest> {
        let before = self.files.len().checked_sub(2).and_then(|at| self.files.get(at));
        let Some((before, _)) = before else { return Ok(NOTHING) };
        let mut last = NOTHING;
        for line in BufReader::new(File::open(&before.path)?).split(b'\n') {
            last = chain::leaf(&line?);
        }
        Ok(last)
    }

    /// Whether a line of so many bytes belongs into a new file: the one that is open is full, or of another day.
    fn is_over(&self, more: u64, now: Timestamp) -> bool {
        let of_today = self.files.last().is_none_or(|(_, day)| *day == day_of(now));
        match &self.current {
            None => true,
            Some((_, length)) => *length > 0 && (length + more > self.most_bytes || !of_today),
        }
    }

    /// Begins a file with the line of this number.
    fn begin(&mut self, first: u64, now: Timestamp) -> io::Result<()> {
        let path = self.path.join(format!("{PREFIX}{first:020}{SUFFIX}"));
        // A file of this number is there where a start began it and wrote no line.
        let file = private().append(true).open(&path)?;
        File::open(&self.path)?.sync_all()?;
        self.files.retain(|(known, _)| known.first != first);
        self.files.push((Found { first, path }, day_of(now)));
        self.current = Some((file, 0));
        Ok(())
    }

    /// Removes files whose last line is older than is kept.
    fn forget(&mut self, now: Timestamp) {
        let oldest = day_of(now).saturating_sub(i64::from(self.keep_days));
        // A file ends where the next one begins.
        while let [(first, _), (_, ended), ..] = self.files.as_slice() {
            if *ended >= oldest || fs::remove_file(&first.path).is_err() {
                break;
            }
            self.files.remove(0);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((file, length)) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        match file.write_all(bytes) {
            Ok(()) => {
                *length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                Ok(())
            }
            Err(error) => {
                // No part of a line stays. Where that fails too, the next start finds it.
                let _whole = file.set_len(*length);
                Err(error)
            }
        }
    }
}

/// The day on which a file was begun, from its first line.
fn begun(path: &Path) -> io::Result<i64> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).read_until(b'\n', &mut line)?;
    let at = serde_json::from_slice::<serde_json::Value>(&line).ok();
    let at = at.as_ref().and_then(|line| Timestamp::parse(line.get("at")?.as_str()?));
    Ok(at.map_or(i64::MAX, day_of))
}

/// Days since 1970 in UTC.
fn day_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(DAY_MS)
}

/// Only the owner may read the file, since it shows which principal asked for which resource.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).write(true).mode(0o600);
    options
}

/// Where lines go.
pub(super) enum Output {
    Folder(Folder),
    /// Standard output, or a replacement for it in tests.
    Stream(Box<dyn io::Write + Send>),
}

impl Output {
    pub(super) fn standard() -> Self {
        Self::Stream(Box::new(io::stdout()))
    }

    /// Whether a line of so many bytes belongs into a new file.
    pub(super) fn is_over(&self, more: u64, now: Timestamp) -> bool {
        match self {
            Self::Folder(folder) => folder.is_over(more, now),
            Self::Stream(_) => false,
        }
    }

    /// Begins a file with the line of this number, and removes those that are too old.
    pub(super) fn begin(&mut self, first: u64, now: Timestamp) -> io::Result<()> {
        let Self::Folder(folder) = self else { return Ok(()) };
        folder.begin(first, now)?;
        folder.forget(now);
        Ok(())
    }

    /// Writes complete lines: either all of them or none.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Folder(folder) => folder.write(lines),
            Self::Stream(stream) => stream.write_all(lines).and_then(|()| stream.flush()),
        }
    }

    /// Syncs the written lines to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Folder(Folder { current: Some((file, _)), .. }) => file.sync_data(),
            _ => Ok(()),
        }
    }

    /// The name of the file that is open.
    pub(super) fn file(&self) -> &str {
        match self {
            Self::Folder(folder) => {
                let newest = folder.files.last().and_then(|(found, _)| found.path.file_name());
                newest.and_then(|name| name.to_str()).unwrap_or_default()
            }
            Self::Stream(_) => "-",
        }
    }

    /// The free share of the disk in percent; `None` if it cannot be determined.
    pub(super) fn free_percent(&self) -> Option<u64> {
        let Self::Folder(folder) = self else { return None };
        let disk = rustix::fs::statvfs(&folder.path).ok()?;
        // Counted like `df`: blocks that are reserved count neither as used nor as free.
        let free = u128::from(disk.f_bavail);
        let used = u128::from(disk.f_blocks.saturating_sub(disk.f_bfree));
        (free * 100).checked_div(used + free).and_then(|free| free.try_into().ok())
    }
}
