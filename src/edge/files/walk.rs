//! The way through a directory: which files a bundle has, where each really lies, and how it looked.
//!
//! What is hard is what else may lie there: links that lead out, or round and round, and FIFOs, on which a plain open
//! would wait for ever. So nothing is opened here, and a link is followed only by way of its canonical target.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::check_name;
use crate::policy::bundle::FileKind;
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::skipped::{NameSays, SkipReason, SkippedFile, of_name};
use crate::policy::syntax::Place;

/// The manifest's name, in the bundle's own directory.
pub const MANIFEST: &str = "manifest.json";
/// The name of the manifest's signature, beside it.
pub const SIGNATURE: &str = "manifest.json.sig";

/// Most JSON files that are no part of the bundle and are searched for policy.
const MOST_JSON_FILES: usize = 1_000;

/// How much a bundle may hold. Reading one never takes more than this, whatever lies in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLimits {
    /// Bytes in one file.
    pub max_file_bytes: u64,
    /// Files in the bundle.
    pub max_files: usize,
    /// Bytes in all files together.
    pub max_total_bytes: u64,
    /// Folders within folders.
    pub max_depth: usize,
    /// Names looked at, those that are no part of the bundle included: links may multiply a small directory.
    pub max_entries: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            max_file_bytes: 16 << 20,
            max_files: 50_000,
            max_total_bytes: 2 << 30,
            max_depth: 32,
            max_entries: 500_000,
        }
    }
}

/// How a file looks without reading it. A change of its content changes this too, unless it comes within one tick of
/// the file system's clock, or from somebody who can set that clock: hence a regular reading as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    pub(super) inode: (u64, u64),
}

impl Stamp {
    #[cfg(unix)]
    pub(super) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn of(metadata: &Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let modified = since.map_or((0, 0), |since| (since.as_secs().cast_signed(), i64::from(since.subsec_nanos())));
        Self { length: metadata.len(), modified, changed: modified, inode: (0, 0) }
    }
}

/// Which folder a path means. The time of birth is part of it because file systems use an inode's number again.
pub(super) type FolderId = ((u64, u64), Option<SystemTime>);

fn folder_id(metadata: &Metadata) -> FolderId {
    (Stamp::of(metadata).inode, metadata.created().ok())
}

/// A file that is part of the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its path in the bundle.
    pub(super) path: Arc<str>,
    /// Where it lies, all links followed.
    pub(super) real: PathBuf,
    pub(super) stamp: Stamp,
    /// The folder on the way to it that is, or may be, a link, where a link leads to it: as written, links not followed.
    pub(super) through: Option<Arc<Path>>,
}

/// What one walk through the directory found. Two walks are equal where nothing seems to have changed between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// The files, sorted by path.
    pub(super) files: Vec<Found>,
    pub(super) manifest: Option<Found>,
    pub(super) signature: Option<Found>,
    /// The folders in which a change would matter, by where they lie.
    pub(super) folders: BTreeMap<PathBuf, FolderId>,
    /// What is wrong, sorted by file.
    pub(super) problems: Vec<Problem>,
    /// The bundle's directory, all links followed.
    root: PathBuf,
    /// Where the folders that files are found through really lie.
    links: BTreeMap<Arc<Path>, PathBuf>,
    /// Files that by their names look like policy, and are not read.
    pub(super) skipped: Vec<SkippedFile>,
    /// JSON files that are not part of the bundle, and may look like policy.
    pub(super) json: Vec<Found>,
}

impl Walk {
    /// Walks through `directory`, opening nothing but folders.
    #[must_use]
    pub fn through(directory: &Path, limits: &ReadLimits) -> Self {
        let root = match fs::canonicalize(directory) {
            Ok(root) => root,
            Err(error) => return Self::failed(directory, &error),
        };
        let walk = Self { root: root.clone(), ..Self::default() };
        let mut walker = Walker { root: &root, limits, walk, trail: Vec::new(), entries: 0, bytes: 0 };
        let end = walker.folder(&root, "");
        let mut walk = walker.walk;
        if let Err(Full) = end {
            // It has said so among its problems, and is not to be read.
            walk.files.clear();
        }
        walk.json.sort_by(|left, right| left.path.cmp(&right.path));
        walk.skipped.sort();
        walk.files.sort_by(|left, right| left.path.cmp(&right.path));
        walk.problems.sort_by(|left, right| (&left.file, left.code).cmp(&(&right.file, right.code)));
        walk
    }

    /// The files of this walk that were reached through a link whose target has changed since. A link changes in one
    /// step, so its new target is complete. If the bundle's directory is such a link, these are all files.
    pub(super) fn swapped(&self, directory: &Path) -> BTreeSet<Arc<str>> {
        let everything = fs::canonicalize(directory).is_ok_and(|root| root != self.root);
        let elsewhere = |(folder, real): (&Arc<Path>, &PathBuf)| {
            fs::canonicalize(folder).is_ok_and(|now| now != *real).then(|| Arc::clone(folder))
        };
        let links: BTreeSet<Arc<Path>> = self.links.iter().filter_map(elsewhere).collect();
        let is_swapped =
            |found: &&Found| everything || found.through.as_ref().is_some_and(|through| links.contains(through));
        self.files.iter().filter(is_swapped).map(|found| Arc::clone(&found.path)).collect()
    }

    fn failed(directory: &Path, error: &io::Error) -> Self {
        let message = format!("the bundle's directory `{}` cannot be read: {error}", directory.display());
        Self { problems: vec![problem(ProblemCode::FileUnreadable, "", message)], ..Self::default() }
    }
}

/// A problem with the file at `path` as a whole.
pub(super) fn problem(code: ProblemCode, path: &str, message: impl Into<String>) -> Problem {
    Problem::error(code, &Arc::from(path), Place::default(), message)
}

pub(super) fn unreadable(path: &str, error: &io::Error) -> Problem {
    problem(ProblemCode::FileUnreadable, path, format!("cannot be read: {error}"))
}

/// The bundle holds too much: nothing further is looked at.
struct Full;

struct Walker<'a> {
    root: &'a Path,
    limits: &'a ReadLimits,
    walk: Walk,
    /// The folders that lead to where we are. INVARIANT: canonical, so that a loop meets itself.
    trail: Vec<PathBuf>,
    entries: usize,
    bytes: u64,
}

impl Walker<'_> {
    /// The folder that really lies at `real`, as `path` in the bundle.
    fn folder(&mut self, real: &Path, path: &str) -> Result<(), Full> {
        if self.trail.iter().any(|folder| folder == real) {
            self.report(problem(
                ProblemCode::FileUnreadable,
                path,
                "this link leads back to a folder that it stands in",
            ));
            return Ok(());
        }
        if self.trail.len() > self.limits.max_depth {
            let message = format!("folders may lie {} deep at most", self.limits.max_depth);
            self.report(problem(ProblemCode::BundleTooLarge, path, message));
            return Ok(());
        }
        let entries = match fs::metadata(real).and_then(|metadata| Ok((folder_id(&metadata), fs::read_dir(real)?))) {
            Ok((id, entries)) => {
                self.walk.folders.insert(real.to_path_buf(), id);
                entries
            }
            Err(error) => {
                self.report(unreadable(path, &error));
                return Ok(());
            }
        };
        self.trail.push(real.to_path_buf());
        for entry in entries {
            match entry {
                Ok(entry) => self.entry(real, path, &entry.file_name())?,
                Err(error) => self.report(unreadable(path, &error)),
            }
        }
        self.trail.pop();
        Ok(())
    }

    fn entry(&mut self, folder: &Path, folder_path: &str, name: &OsStr) -> Result<(), Full> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            return Err(self.full(format!("a bundle's directory may hold {} names at most", self.limits.max_entries)));
        }
        if name.as_encoded_bytes().starts_with(b".") {
            return Ok(());
        }
        let shown = name.to_string_lossy();
        let path = if folder_path.is_empty() { shown.into_owned() } else { format!("{folder_path}/{shown}") };
        let spot = folder.join(name);
        let (real, metadata) = match self.target(spot.clone()) {
            Ok(target) => target,
            Err(Target::Broken(error)) => {
                self.report(unreadable(&path, &error));
                return Ok(());
            }
            Err(Target::Outside) => {
                let help = "put the file itself into the bundle, or make the bundle's directory one that holds both";
                let message = "this link leads out of the bundle's directory";
                self.report(problem(ProblemCode::LinkLeadsOut, &path, message).with_help(help));
                return Ok(());
            }
        };
        if metadata.is_dir() {
            let is_like_a_file =
                FileKind::of(&path).is_some() || of_name(&path) == NameSays::Skipped(SkipReason::Spelling);
            if is_like_a_file {
                self.walk.skipped.push(SkippedFile { path: path.as_str().into(), reason: SkipReason::Directory });
            }
            return if self.name_is_fit(name, &path) { self.folder(&real, &path) } else { Ok(()) };
        }
        if FileKind::of(&path).is_none() && path != MANIFEST && path != SIGNATURE {
            self.not_read(&path, real, &metadata);
            return Ok(());
        }
        if !metadata.is_file() {
            self.report(not_a_file(&path));
            return Ok(());
        }
        if !self.name_is_fit(name, &path) {
            return Ok(());
        }
        let through = self.through(&spot, &real, folder_path);
        self.file(&path, Found { path: path.as_str().into(), stamp: Stamp::of(&metadata), real, through })
    }

    /// A file that is no part of the bundle: notes it where it looks like policy.
    fn not_read(&mut self, path: &str, real: PathBuf, metadata: &Metadata) {
        match of_name(path) {
            NameSays::Skipped(reason) => self.walk.skipped.push(SkippedFile { path: path.into(), reason }),
            NameSays::Json if metadata.is_file() && self.walk.json.len() < MOST_JSON_FILES => {
                let found = Found { path: path.into(), real, stamp: Stamp::of(metadata), through: None };
                self.walk.json.push(found);
            }
            NameSays::Json | NameSays::Unrelated => {}
        }
    }

    /// The folder through which the file at `spot` is found to lie at `real`, where a link leads there: the one that its
    /// own link names, else the one in which it stands in the bundle.
    fn through(&mut self, spot: &Path, real: &Path, folder_path: &str) -> Option<Arc<Path>> {
        let folder = match fs::read_link(spot) {
            Ok(target) => spot.parent()?.join(target).parent()?.to_path_buf(),
            Err(_) => self.root.join(folder_path),
        };
        if real.parent() == Some(&folder) {
            return None;
        }
        let folder: Arc<Path> = folder.into();
        if !self.walk.links.contains_key(&folder) {
            self.walk.links.insert(Arc::clone(&folder), fs::canonicalize(&folder).ok()?);
        }
        Some(folder)
    }

    /// Where the thing at `spot` really lies, and what it is.
    fn target(&mut self, spot: PathBuf) -> Result<(PathBuf, Metadata), Target> {
        let metadata = fs::symlink_metadata(&spot)?;
        if !metadata.is_symlink() {
            return Ok((spot, metadata));
        }
        let real = fs::canonicalize(&spot)?;
        if !real.starts_with(self.root) {
            return Err(Target::Outside);
        }
        let metadata = fs::symlink_metadata(&real)?;
        // The link's own folder says when the link changes, this one when its target does.
        if let Some(parent) = real.parent()
            && !self.walk.folders.contains_key(parent)
            && let Ok(parent_metadata) = fs::metadata(parent)
        {
            self.walk.folders.insert(parent.to_path_buf(), folder_id(&parent_metadata));
        }
        Ok((real, metadata))
    }

    fn file(&mut self, path: &str, found: Found) -> Result<(), Full> {
        let length = found.stamp.length;
        if length > self.limits.max_file_bytes {
            self.report(too_large(path, self.limits));
            return Ok(());
        }
        match path {
            MANIFEST => self.walk.manifest = Some(found),
            SIGNATURE => self.walk.signature = Some(found),
            _ => self.walk.files.push(found),
        }
        self.bytes = self.bytes.saturating_add(length);
        if self.walk.files.len() > self.limits.max_files {
            return Err(self.full(format!("a bundle may hold {} files at most", self.limits.max_files)));
        }
        if self.bytes > self.limits.max_total_bytes {
            return Err(self.full(format!("a bundle may hold {} bytes at most", self.limits.max_total_bytes)));
        }
        Ok(())
    }

    /// Whether a file's or folder's name can be shown and be part of a rule's id; reports it where not.
    fn name_is_fit(&mut self, name: &OsStr, path: &str) -> bool {
        let Some(name) = name.to_str() else {
            self.report(problem(ProblemCode::NotUtf8, path, "the name is not UTF-8").with_help("rename it"));
            return false;
        };
        if let Err(error) = check_name(name) {
            self.report(problem(ProblemCode::InvalidName, path, error.to_string()).with_help("rename it"));
            return false;
        }
        true
    }

    fn report(&mut self, problem: Problem) {
        self.walk.problems.push(problem);
    }

    fn full(&mut self, message: String) -> Full {
        self.report(problem(ProblemCode::BundleTooLarge, "", message));
        Full
    }
}

/// Why what lies somewhere is not looked at.
enum Target {
    Broken(io::Error),
    Outside,
}

impl From<io::Error> for Target {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

pub(super) fn not_a_file(path: &str) -> Problem {
    problem(ProblemCode::NotAFile, path, "this is a FIFO, a socket or a device, where a file is expected")
}

pub(super) fn too_large(path: &str, limits: &ReadLimits) -> Problem {
    problem(ProblemCode::FileTooLarge, path, format!("a file may have {} bytes at most", limits.max_file_bytes))
        .with_help("split it: the same key may stand in many files")
}
