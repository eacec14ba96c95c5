//! The highest sequence of a manifest that was accepted, kept where it outlives the process: else a restart would be
//! the moment to put an old bundle back, correctly signed as it is.
//!
//! There is one record a data directory, whatever bundle is served from it. Releases may lie in directories of their
//! own, links move and keys are changed: a record for each path or key would be forgotten with it. Two bundles that
//! share a data directory are therefore counted together, which refuses too much rather than too little.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::older;
use super::walk::problem;
use crate::policy::problem::{Problem, ProblemCode};

/// The record's name, in the data directory.
pub const RECORD: &str = "manifest-sequence.json";
/// Written in full before it takes the record's name.
const NEW: &str = "manifest-sequence.json.new";
/// Locked while the record is raised: two servers may run on one data directory while one relieves the other.
const LOCK: &str = "manifest-sequence.lock";
/// The form of record that this version writes and reads.
const VERSION: u32 = 1;
/// No record is longer.
const MAX_BYTES: u64 = 1024;

/// The highest sequence that was accepted. By default it is kept in memory, and ends with the process.
#[derive(Debug, Default)]
pub struct Sequence {
    accepted: u64,
    record: Option<Record>,
}

impl Sequence {
    /// The sequence that is kept in `directory`, which need not be there before something is to be kept.
    ///
    /// # Errors
    /// Where there is a record that cannot be read or is damaged. To start afresh then would let every old bundle in.
    pub fn kept_in(directory: &Path) -> Result<Self, Problem> {
        // An absolute path, so that the directory stays the same one whatever becomes of the process's own.
        let directory = std::path::absolute(directory).map_err(|error| unwritable(directory, &error))?;
        let record = Record { directory };
        record.tighten();
        let accepted = record.read()?.unwrap_or(0);
        Ok(Self { accepted, record: Some(record) })
    }

    /// The lowest sequence that is not older than what was accepted.
    #[must_use]
    pub fn minimum(&self) -> u64 {
        self.accepted
    }

    /// Accepts a bundle of this sequence. When it returns, that lasts: only then may the bundle decide.
    ///
    /// # Errors
    /// Where that cannot be kept, or a newer bundle was accepted, by another server on the same data directory too.
    pub fn accept(&mut self, sequence: u64) -> Result<(), Problem> {
        self.accepted = match &self.record {
            Some(record) => record.raise(self.accepted.max(sequence))?,
            None => self.accepted.max(sequence),
        };
        if sequence < self.accepted { Err(older(sequence, self.accepted)) } else { Ok(()) }
    }
}

/// The file, and how it is written.
#[derive(Debug)]
struct Record {
    directory: PathBuf,
}

/// What the file says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    sequence: u64,
}

impl Record {
    /// Makes the record say `sequence` at least; returns what it says.
    fn raise(&self, sequence: u64) -> Result<u64, Problem> {
        // Mostly it says so already, and then even a directory that cannot be written does.
        if let Some(kept) = self.read()?.filter(|kept| *kept >= sequence) {
            return Ok(kept);
        }
        let unwritable = |error| unwritable(&self.directory, &error);
        create(&self.directory).map_err(unwritable)?;
        let lock = for_owner().truncate(false).open(self.directory.join(LOCK)).map_err(unwritable)?;
        lock.lock().map_err(unwritable)?;
        let sequence = self.read()?.map_or(sequence, |kept| kept.max(sequence));
        self.write(sequence).map_err(unwritable)?;
        Ok(sequence)
    }

    /// Removes the permissions of other users on files that an earlier version made. A file system without permissions
    /// does not prevent the start.
    fn tighten(&self) {
        #[cfg(unix)]
        for name in [RECORD, LOCK, NEW] {
            use std::os::unix::fs::PermissionsExt;
            let path = self.directory.join(name);
            let is_open = |metadata: fs::Metadata| metadata.is_file() && metadata.permissions().mode() & 0o077 != 0;
            if fs::symlink_metadata(&path).is_ok_and(is_open) {
                let _not_changed = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
            }
        }
    }

    /// Whatever happens meanwhile, the record is the old one or the new one, and after this the new one.
    fn write(&self, sequence: u64) -> io::Result<()> {
        let new = self.directory.join(NEW);
        let mut file = for_owner().truncate(true).open(&new)?;
        serde_json::to_writer(&mut file, &Kept { version: VERSION, sequence })?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, self.directory.join(RECORD))?;
        sync(&self.directory)
    }

    /// What the record says; `None` where there is none.
    fn read(&self) -> Result<Option<u64>, Problem> {
        let path = self.directory.join(RECORD);
        let damaged = |why: &dyn Display| {
            let help = "it tells which bundles are too old to be taken: put it back from a copy; or, where every \
                        bundle that could be put here may decide, remove it, and the next one taken writes it anew";
            not_kept(format!("`{}` cannot be read: {why}", path.display())).with_help(help)
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(damaged(&error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) if kept.version == VERSION => Ok(Some(kept.sequence)),
            Ok(kept) => Err(damaged(&format!("it is of version {}; only {VERSION} is known", kept.version))),
            Err(error) => Err(damaged(&format!("it is damaged: {error}"))),
        }
    }
}

/// Creates a directory and those above it, for its owner alone, and makes that last.
fn create(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(directory)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(sync)
}

/// Makes last which files are in a directory.
fn sync(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// To write files that are nobody else's.
fn for_owner() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options
}

fn unwritable(directory: &Path, error: &io::Error) -> Problem {
    let message = format!("the bundle's sequence cannot be kept in `{}`: {error}", directory.display());
    let help = "make the data directory writable, or name another with --data, and reload; unkept, an older bundle \
                would be taken after a restart";
    not_kept(message).with_help(help)
}

fn not_kept(message: String) -> Problem {
    problem(ProblemCode::SequenceNotKept, "", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_in(directory: &Path) -> Sequence {
        Sequence::kept_in(directory).unwrap()
    }

    #[test]
    fn what_was_accepted_outlives_who_accepted_it() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("a/b");
        let mut sequence = kept_in(&data);
        assert_eq!(sequence.minimum(), 0);
        assert!(!temp.path().join("a").exists(), "created before there was anything to keep");
        for accepted in [41, 42, 42] {
            sequence.accept(accepted).unwrap();
            assert_eq!(kept_in(&data).minimum(), accepted);
        }
        let problem = kept_in(&data).accept(41).unwrap_err();
        let expected =
            "manifest.json: error[bundle-older]: this bundle's sequence is 41, and one of 42 has been accepted";
        assert_eq!(problem.to_string(), expected);
        assert_eq!(kept_in(&data).minimum(), 42);
    }

    #[test]
    #[cfg(unix)]
    fn nobody_else_may_look() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("a/b");
        kept_in(&data).accept(1).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&data), mode(&temp.path().join("a")), mode(&data.join(RECORD))], [0o700, 0o700, 0o600]);
    }

    #[test]
    fn in_memory_an_older_one_is_refused_too() {
        let mut sequence = Sequence::default();
        sequence.accept(7).unwrap();
        assert_eq!(sequence.accept(6).unwrap_err().code, ProblemCode::BundleOlder);
        assert_eq!(sequence.minimum(), 7);
    }

    #[test]
    fn two_servers_on_one_directory_count_together() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path();
        let (mut first, mut second) = (kept_in(directory), kept_in(directory));
        first.accept(42).unwrap();
        assert_eq!(second.accept(41).unwrap_err().code, ProblemCode::BundleOlder);
        assert_eq!(second.minimum(), 42);
        std::thread::scope(|scope| {
            for start in [43, 44, 45, 46] {
                scope.spawn(move || {
                    let mut sequence = kept_in(directory);
                    for accepted in (start..200).step_by(4) {
                        // Whether it is taken depends on who is quicker; what is kept never falls.
                        let _older = sequence.accept(accepted);
                        assert!(kept_in(directory).minimum() >= accepted);
                    }
                });
            }
        });
        assert_eq!(kept_in(directory).minimum(), 199);
    }

    #[test]
    fn a_damaged_record_is_never_taken_for_none() {
        let temp = tempfile::tempdir().unwrap();
        kept_in(temp.path()).accept(42).unwrap();
        let path = temp.path().join(RECORD);
        let whole = fs::read(&path).unwrap();
        // All but the last bytes, which are the line's end.
        let cut = (0..whole.len() - 1).map(|length| whole[..length].to_vec());
        let other =
            [&b"42"[..], b"{\"version\":1}", b"{\"version\":2,\"sequence\":42}", b"\0\0\0\0"].map(<[u8]>::to_vec);
        let long = [vec![b' '; 2 * 1024], whole.clone()].concat();
        for bytes in cut.chain(other).chain([long]) {
            fs::write(&path, &bytes).unwrap();
            let problem = Sequence::kept_in(temp.path()).unwrap_err();
            assert_eq!(problem.code, ProblemCode::SequenceNotKept, "{}", String::from_utf8_lossy(&bytes));
            assert!(problem.message.contains(RECORD) && problem.help.is_some(), "{problem}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(Sequence::kept_in(temp.path()).unwrap_err().code, ProblemCode::SequenceNotKept);
    }

    #[test]
    fn a_record_removed_meanwhile_is_written_again() {
        let temp = tempfile::tempdir().unwrap();
        let mut sequence = kept_in(temp.path());
        sequence.accept(42).unwrap();
        fs::remove_file(temp.path().join(RECORD)).unwrap();
        assert_eq!(sequence.accept(41).unwrap_err().code, ProblemCode::BundleOlder);
        assert_eq!(kept_in(temp.path()).minimum(), 42);
    }

    #[test]
    fn what_cannot_be_kept_is_not_accepted() {
        let temp = tempfile::tempdir().unwrap();
        let mut sequence = kept_in(temp.path());
        sequence.accept(1).unwrap();
        fs::create_dir(temp.path().join(NEW)).unwrap();
        assert_eq!(sequence.accept(2).unwrap_err().code, ProblemCode::SequenceNotKept);
        assert_eq!((sequence.minimum(), kept_in(temp.path()).minimum()), (1, 1));
        sequence.accept(1).unwrap();
        fs::remove_dir(temp.path().join(NEW)).unwrap();
        sequence.accept(2).unwrap();
    }
}
