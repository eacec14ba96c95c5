//! The log: what was written and is not in the tables yet. Every commit appends one record and syncs it; once the tables
//! have all of a file, it is written from its beginning again, while the other one takes what comes.
//!
//! What is hard about it: telling the record that a crash tore, which nobody was told of, from one that was damaged
//! later. Records are numbered, and none is begun before the one before it is on disk: so a crash can tear only the
//! last, and whatever else is missing leaves a hole in the numbers.

use std::fs::File as Handle;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::edge::store::private;

/// The files' names in the data directory.
pub(super) const FILE_NAMES: [&str; 2] = ["meters-0.log", "meters-1.log"];

/// What a file begins with: this, the id of the tables that it belongs to, and a digest of both.
const BEGINNING: &[u8; 16] = b"tollgate log 1\n\0";
/// How long that is.
pub(super) const HEADER_BYTES: u64 = 48;
/// What a record begins with: this, the length of what it says (4 bytes), its number (8) and a digest (16).
const MARK: &[u8; 4] = b"\xF5rec";
const RECORD_HEADER_BYTES: usize = 32;
const DIGEST_BYTES: usize = 16;
/// A file whose records were torn so often was not torn by crashes.
const MOST_TORN: usize = 64;

/// Which tables a log belongs to: random, so that nobody who names things can write what looks like a record.
pub(super) type LogId = [u8; 16];

/// Both files, open for writing.
#[derive(Debug)]
pub(super) struct Log {
    id: LogId,
    files: [Arc<Handle>; 2],
    current: usize,
    end: u64,
    number: u64,
    buffer: Vec<u8>,
}

/// What one of the files has, to be taken into the tables.
#[derive(Debug, Clone)]
pub(super) struct Part {
    file: Arc<Handle>,
    end: u64,
    /// The number of its last record.
    pub(super) number: u64,
}

/// Why what a file has cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(String),
}

/// Makes both files anew, with nothing in them.
pub(super) fn make(directory: &Path, id: &LogId) -> io::Result<()> {
    for path in paths(directory) {
        let file = private::open(&path, |options| options.truncate(true))?;
        file.write_all_at(&header(id), 0)?;
        file.sync_all()?;
    }
    Handle::open(directory)?.sync_all()
}

/// Whether there is a file that has more than its beginning.
pub(super) fn has_records(directory: &Path) -> bool {
    paths(directory).iter().any(|path| std::fs::metadata(path).is_ok_and(|found| found.len() > HEADER_BYTES))
}

pub(super) fn paths(directory: &Path) -> [PathBuf; 2] {
    FILE_NAMES.map(|name| directory.join(name))
}

/// All that a file has; where it is not of these tables, why not.
pub(super) fn read(path: &Path, id: &LogId) -> Result<Vec<u8>, LogError> {
    let damaged = |reason: &str| LogError::Damaged(reason.to_owned());
    let mut bytes = Vec::new();
    match Handle::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is missing")),
        Err(error) => return Err(error.into()),
    };
    let begins = |with: &[u8]| bytes.starts_with(with);
    if begins(&header(id)) {
        Ok(bytes)
    } else if begins(BEGINNING) {
        Err(damaged("its beginning is damaged, or of other tables"))
    } else {
        Err(damaged("it is not a log of Tollgate's"))
    }
}

/// The records beyond `folded` that are whole, in their order: the number of each, and where it says what.
pub(super) fn records(bytes: &[u8], id: &LogId, folded: u64) -> Result<Vec<(u64, Range<usize>)>, LogError> {
    let (mut found, mut at, mut torn) = (Vec::new(), 0, 0);
    while let Some(begin) = bytes.get(at..).and_then(|rest| rest.windows(MARK.len()).position(|some| some == MARK)) {
        at += begin;
        match record(bytes, at, id, folded) {
            Seen::Whole(number, says) => {
                at = says.end;
                found.push((number, says));
                continue;
            }
            Seen::Torn => torn += 1,
            Seen::Nothing => {}
        }
        if torn > MOST_TORN {
            return Err(LogError::Damaged("too many of its records are not as they were written".to_owned()));
        }
        at += 1;
    }
    Ok(found)
}

enum Seen {
    Whole(u64, Range<usize>),
    Torn,
    /// Old, or nothing at all.
    Nothing,
}

fn record(bytes: &[u8], at: usize, id: &LogId, folded: u64) -> Seen {
    let field = |from: usize, length: usize| bytes.get(at + from..)?.get(..length);
    let number = field(8, 8).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes);
    let length = field(4, 4).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
    let (Some(number), Some(length)) = (number.filter(|number| *number > folded), length) else { return Seen::Nothing };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    match (field(RECORD_HEADER_BYTES, length), field(16, DIGEST_BYTES)) {
        (Some(says), Some(told)) if digest(id, number, says) == told => {
            let begin = at + RECORD_HEADER_BYTES;
            Seen::Whole(number, begin..begin + length)
        }
        (Some(_), _) => Seen::Torn,
        (None, _) => Seen::Nothing,
    }
}

fn header(id: &LogId) -> Vec<u8> {
    let mut header = [BEGINNING.as_slice(), id].concat();
    header.extend_from_slice(&digest(id, 0, BEGINNING));
    header
}

fn digest(id: &LogId, number: u64, says: &[u8]) -> [u8; DIGEST_BYTES] {
    let whole = Sha256::new().chain_update(id).chain_update(number.to_le_bytes()).chain_update(says).finalize();
    let mut digest = [0; DIGEST_BYTES];
    digest.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    digest
}

impl Log {
    /// Opens both for writing, where the tables have all that is in them: up to the record `number`.
    pub(super) fn open(directory: &Path, id: LogId, number: u64) -> io::Result<Self> {
        let [first, second] = paths(directory);
        let open = |path: PathBuf| private::open(&path, |options| options.create(false).read(true)).map(Arc::new);
        let files = [open(first)?, open(second)?];
        Ok(Self { id, files, current: 0, end: HEADER_BYTES, number, buffer: Vec::new() })
    }

    /// The number of the last record.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// How much of the current file is in use.
    pub(super) const fn len(&self) -> u64 {
        self.end - HEADER_BYTES
    }

    /// Appends a record that says what `write` writes, and returns when it is on disk. One that fails is overwritten by
    /// the next.
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let number = self.number + 1;
        self.buffer.clear();
        self.buffer.resize(RECORD_HEADER_BYTES, 0);
        write(&mut self.buffer);
        let says = self.buffer.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        let length = u32::try_from(says.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let digest = digest(&self.id, number, says);
        let header = MARK.iter().copied().chain(length.to_le_bytes()).chain(number.to_le_bytes()).chain(digest);
        self.buffer.iter_mut().zip(header).for_each(|(to, from)| *to = from);
        let [first, second] = &self.files;
        let file = if self.current == 0 { first } else { second };
        file.write_all_at(&self.buffer, self.end)?;
        file.sync_data()?;
        self.end += u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.number = number;
        Ok(())
    }

    /// Goes on in the other file, which the tables must have all of, and hands over what is in this one.
    pub(super) fn switch(&mut self) -> Part {
        let [first, second] = &self.files;
        let file = Arc::clone(if self.current == 0 { first } else { second });
        let part = Part { file, end: self.end, number: self.number };
        self.current = 1 - self.current;
        self.end = HEADER_BYTES;
        part
    }
}

impl Part {
    /// What was written to it; older records may be before the first.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.end).map_err(|_| io::ErrorKind::FileTooLarge)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}
