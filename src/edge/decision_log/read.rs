//! Reads a decision log: verifies that it is complete, locates damage, and finds the record of a decision.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::chain::{self, Digest, NOTHING, Tree};
use super::files::list;
use crate::model::hex;

/// Longest line that is read; the log writes none that is longer.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The directory holds no log.
    #[error("there is no decision log in {}", .0.display())]
    Nothing(PathBuf),
    /// A file that should hold checkpoints holds something else.
    #[error("line {line} of {} is no checkpoint of a decision log", path.display())]
    NoCheckpoint {
        /// Which file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
    },
}

/// The first thing that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// The number that the record there has, or should have.
    pub seq: u64,
    /// A description of the damage.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: record {}: {}", self.file, self.line, self.seq, self.what)
    }
}

/// The result of verifying a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The first and the last number; `None` for an empty log.
    pub lines: Option<(u64, u64)>,
    /// How many decisions are recorded.
    pub decisions: u64,
    /// The number of records that the log itself counts as missing.
    pub missing: u64,
    /// How many checkpoints fit.
    pub checkpoints: u64,
    /// Lines behind the last checkpoint: only the line after each vouches for it.
    pub unchecked: u64,
    /// The first damage; all lines before it are intact.
    pub damage: Option<Damage>,
}

/// Checkpoints that were kept elsewhere, as they were written, sorted by number.
#[derive(Debug, Clone, Default)]
pub struct Kept(Vec<(u64, Vec<u8>)>);

impl Kept {
    /// Reads a file of checkpoints, one a line.
    ///
    /// # Errors
    /// Where it cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let unreadable = |error| ReadError::Io { path: path.to_owned(), error };
        let mut kept = Vec::new();
        let mut lines = Lines::open(path).map_err(unreadable)?;
        while let Some(line) = lines.next().map_err(unreadable)? {
            let Some(seq) = Head::of(&line.bytes).filter(|head| head.event == "checkpoint").map(|head| head.seq) else {
                return Err(ReadError::NoCheckpoint { path: path.to_owned(), line: line.number });
            };
            kept.push((seq, line.bytes));
        }
        // A webhook can deliver a checkpoint twice.
        kept.sort_unstable();
        kept.dedup();
        Ok(Self(kept))
    }

    /// Whether a checkpoint with this number was kept that differs from the line.
    fn contradicts(&self, seq: u64, line: &[u8]) -> bool {
        let from = self.0.partition_point(|(known, _)| *known < seq);
        let mut of_seq = self.0.iter().skip(from).take_while(|(known, _)| *known == seq);
        of_seq.any(|(_, kept)| kept != line)
    }

    /// The number of the first checkpoint after this line.
    fn first_after(&self, seq: u64) -> Option<u64> {
        let at = self.0.partition_point(|(known, _)| *known <= seq);
        self.0.get(at).map(|(seq, _)| *seq)
    }
}

/// The members that are read from every line.
struct Head {
    seq: u64,
    prev: String,
    event: String,
    members: Value,
}

impl Head {
    fn of(line: &[u8]) -> Option<Self> {
        let members: Value = serde_json::from_slice(line).ok()?;
        let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let seq = members.get("seq")?.as_u64().filter(|_| members.get("v") == Some(&Value::from(1)))?;
        Some(Self { seq, prev: text("prev"), event: text("event"), members })
    }

    fn count(&self) -> u64 {
        self.members.get("count").and_then(Value::as_u64).unwrap_or_default()
    }
}

/// A line of a file.
struct Line {
    number: u64,
    bytes: Vec<u8>,
    /// Whether a newline ends it.
    whole: bool,
}

struct Lines {
    reader: BufReader<File>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { reader: BufReader::new(File::open(path)?), number: 0 })
    }

    /// The next line; of one that is too long only its beginning.
    fn next(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let read = io::Read::take(&mut self.reader, MAX_LINE_BYTES).read_until(b'\n', &mut bytes)?;
        self.number += 1;
        let whole = bytes.last() == Some(&b'\n');
        if whole {
            bytes.pop();
        }
        Ok((read > 0).then_some(Line { number: self.number, bytes, whole }))
    }
}

/// Walks through a log and holds each line against the one before.
struct Walk<'k> {
    kept: &'k Kept,
    found: Verified,
    next: Option<u64>,
    before: Option<Digest>,
    tree: Tree,
    /// Where the line before stands.
    place: Place,
}

/// Verifies the log in a folder, or in one file.
///
/// # Errors
/// Returns an error if the log cannot be read. Damage is not an error; it is in [`Verified::damage`].
pub fn verify(path: &Path, kept: &Kept) -> Result<Verified, ReadError> {
    let walk = Walk {
        kept,
        found: Verified::default(),
        next: None,
        before: None,
        tree: Tree::default(),
        place: Place::default(),
    };
    let mut walk = walk;
    let files = files(path)?;
    let last = files.len().saturating_sub(1);
    for (number, (file, first)) in files.iter().enumerate() {
        let unreadable = |error| ReadError::Io { path: file.clone(), error };
        walk.file(file, *first, number == last).map_err(unreadable)?;
        if walk.found.damage.is_some() {
            break;
        }
    }
    walk.cut();
    Ok(walk.found)
}

/// The files of a log with the number in each name, the oldest first.
fn files(path: &Path) -> Result<Vec<(PathBuf, Option<u64>)>, ReadError> {
    let unreadable = |error| ReadError::Io { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Ok(vec![(path.to_owned(), None)]);
    }
    let found = list(path).map_err(unreadable)?;
    if found.is_empty() {
        return Err(ReadError::Nothing(path.to_owned()));
    }
    Ok(found.into_iter().map(|one| (one.path, Some(one.first))).collect())
}

/// A line of a file of the log.
#[derive(Debug, Clone, Default)]
struct Place {
    file: String,
    line: u64,
}

impl Place {
    fn new(file: &str, line: u64) -> Self {
        Self { file: file.to_owned(), line }
    }
}

impl Walk<'_> {
    fn file(&mut self, path: &Path, first: Option<u64>, is_last: bool) -> io::Result<()> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.tree = Tree::default();
        if let (Some(first), Some(next)) = (first, self.next)
            && first != next
        {
            let what = format!("the records from {next} on are missing: the next file begins with {first}");
            self.damaged(Place::new(&name, 1), next, what);
            return Ok(());
        }
        let mut lines = Lines::open(path)?;
        let mut line = lines.next()?;
        while let Some(this) = line {
            let ahead = lines.next()?;
            self.line(&name, &this, ahead.as_ref());
            if self.found.damage.is_some() {
                return Ok(());
            }
            if !this.whole && !is_last {
                let what = "the last line is incomplete, and another file follows".to_owned();
                self.damaged(Place::new(&name, this.number), self.next.unwrap_or(1).saturating_sub(1), what);
                return Ok(());
            }
            line = ahead;
        }
        Ok(())
    }

    fn line(&mut self, file: &str, line: &Line, ahead: Option<&Line>) {
        let place = Place::new(file, line.number);
        let expected = self.next;
        let number = expected.unwrap_or(1);
        if !line.whole {
            let what = format!(
                "the last line is incomplete: {} bytes follow the last complete record; the next start of a server \
                 removes and logs them",
                line.bytes.len()
            );
            return self.damaged(place, number, what);
        }
        let Some(head) = Head::of(&line.bytes) else {
            return self.damaged(place, number, "this is not a record: it was changed".to_owned());
        };
        if let Some(expected) = expected.filter(|expected| *expected != head.seq) {
            let what = if head.seq > expected {
                format!("it is missing: record {} is in its place", head.seq)
            } else {
                format!("record {} is in its place again", head.seq)
            };
            return self.damaged(place, expected, what);
        }
        let digest = chain::leaf(&line.bytes);
        if let Some(before) = self.before.or((head.seq == 1).then_some(NOTHING))
            && head.prev != hex::encode(&before)
        {
            // Either this line was changed or the one before it. The next line confirms this one. Without a next line,
            // every line from the one before on is unconfirmed.
            let vouched =
                ahead.is_none_or(|ahead| Head::of(&ahead.bytes).is_some_and(|next| next.prev == hex::encode(&digest)));
            if vouched && head.seq > 1 {
                let place = self.place.clone();
                return self.damaged(place, head.seq - 1, "it was changed after it was written".to_owned());
            }
            return self.damaged(place, head.seq, "it was changed or moved after it was written".to_owned());
        }
        if head.event == "checkpoint" && !self.fits(&head, file) {
            let what = "the checkpoint states another root than that of the lines before it".to_owned();
            return self.damaged(place, head.seq, what);
        }
        if self.kept.contradicts(head.seq, &line.bytes) {
            let what =
                "it differs from the checkpoint that was kept elsewhere: the lines before it were rewritten".to_owned();
            return self.damaged(place, head.seq, what);
        }
        self.take(&head, digest);
        self.place = place;
    }

    fn fits(&self, head: &Head, file: &str) -> bool {
        let text = |name: &str| head.members.get(name).and_then(Value::as_str);
        let of_file = text("file").is_some_and(|known| known == "-" || known == file);
        of_file
            && head.members.get("size").and_then(Value::as_u64) == Some(self.tree.size())
            && text("root") == Some(&hex::encode(&self.tree.root()))
    }

    fn take(&mut self, head: &Head, digest: Digest) {
        let found = &mut self.found;
        found.lines = Some((found.lines.map_or(head.seq, |(first, _)| first), head.seq));
        found.unchecked += 1;
        match head.event.as_str() {
            "checkpoint" => {
                found.checkpoints += 1;
                found.unchecked = 0;
            }
            "gap" => found.missing = found.missing.saturating_add(head.count()),
            "" => found.decisions += 1,
            _ => {}
        }
        self.tree.push(digest);
        self.before = Some(digest);
        self.next = Some(head.seq + 1);
    }

    /// Reports that the log ends before a checkpoint that was kept elsewhere.
    fn cut(&mut self) {
        if self.found.damage.is_some() {
            return;
        }
        let ended = self.found.lines.map_or(0, |(_, last)| last);
        if let Some(seq) = self.kept.first_after(ended) {
            let what = format!("the log ends here, but checkpoint {seq} that was kept elsewhere covers more lines");
            let place = self.place.clone();
            self.damaged(place, ended + 1, what);
        }
    }

    fn damaged(&mut self, place: Place, seq: u64, what: String) {
        self.found.damage = Some(Damage { file: place.file, line: place.line, seq, what });
    }
}

/// The record of a decision as it is written in the log. The newest files are searched first.
///
/// # Errors
/// Where the log cannot be read.
pub fn find(path: &Path, id: &str) -> Result<Option<Value>, ReadError> {
    for (file, _) in files(path)?.into_iter().rev() {
        let unreadable = |error| ReadError::Io { path: file.clone(), error };
        let mut lines = Lines::open(&file).map_err(unreadable)?;
        while let Some(line) = lines.next().map_err(unreadable)? {
            if let Some(record) = record_of(&line, id) {
                return Ok(Some(record));
            }
        }
    }
    Ok(None)
}

fn record_of(line: &Line, id: &str) -> Option<Value> {
    // Reading JSON takes longer than looking for the text.
    let quoted = format!("\"id\":{}", Value::from(id));
    let has = line.bytes.windows(quoted.len()).any(|part| part == quoted.as_bytes());
    has.then(|| serde_json::from_slice(&line.bytes).ok()).flatten().filter(|record: &Value| record["id"] == id)
}

/// A proof that a line is part of a log: it needs only the root from a checkpoint, and no other lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// The line, as written.
    pub line: String,
    /// How many lines stand before it in its file.
    pub index: u64,
    /// The siblings on the way to the root (RFC 6962), from the bottom up, in hexadecimal.
    pub path: Vec<String>,
    /// The first checkpoint behind it, as written: it states size and root.
    pub checkpoint: String,
}

/// Proves that the record of a decision stands in the log; `None` where it does not, or no checkpoint stands behind it yet.
///
/// # Errors
/// Where the log cannot be read.
pub fn prove(path: &Path, id: &str) -> Result<Option<Inclusion>, ReadError> {
    for (file, _) in files(path)?.into_iter().rev() {
        let unreadable = |error| ReadError::Io { path: file.clone(), error };
        let mut lines = Lines::open(&file).map_err(unreadable)?;
        let (mut leaves, mut proved): (Vec<Digest>, Option<(usize, Line)>) = (Vec::new(), None);
        while let Some(line) = lines.next().map_err(unreadable)? {
            if let Some((index, record)) = &proved
                && Head::of(&line.bytes).is_some_and(|head| head.event == "checkpoint")
            {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Ok(Some(Inclusion {
                    line: text(&record.bytes),
                    index: u64::try_from(*index).unwrap_or(u64::MAX),
                    path: chain::path(&leaves, *index).iter().map(|digest| hex::encode(digest)).collect(),
                    checkpoint: text(&line.bytes),
                }));
            }
            leaves.push(chain::leaf(&line.bytes));
            if proved.is_none() && record_of(&line, id).is_some() {
                proved = Some((leaves.len() - 1, line));
            }
        }
    }
    Ok(None)
}
