//! Reading: from a directory to a bundle, all of it or every reason why not.
//!
//! Content is the truth: whatever the times say, a file is the same if its SHA-256 is.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use super::walk::{Found, MANIFEST, ReadLimits, SIGNATURE, Stamp, Walk, not_a_file, problem, too_large, unreadable};
use crate::policy::bundle::{Bundle, SourceFile};
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::skipped::{SEARCHED_BYTES, SkippedFile, of_json};

/// Below this many bytes and files, a second thread costs more than it saves.
const WORTH_TWO_THREADS_BYTES: u64 = 1 << 20;
const WORTH_TWO_THREADS_FILES: usize = 256;

/// Everything that one reading of a bundle's directory gives.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The files.
    pub bundle: Bundle,
    /// The manifest that lies beside them, not verified yet.
    pub manifest: Option<ManifestText>,
    /// Paths of the set before this one to which a link led that leads elsewhere now: each of these files was replaced, or
    /// taken away, in one step. Empty for a single reading.
    pub swapped: BTreeSet<Arc<str>>,
}

/// A manifest and its signature, as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestText {
    /// The bytes of `manifest.json`.
    pub text: Arc<[u8]>,
    /// The bytes of `manifest.json.sig`, if there is one.
    pub signature: Option<Arc<[u8]>>,
}

impl Reading {
    /// SHA-256 over every path and content, manifest and signature included, and over which files are not read though they
    /// look like policy: equal for equal readings, and only so.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let files = self.bundle.files().iter().map(|file| (&*file.path, file.digest));
        digest_of(files, self.manifest.as_ref(), self.bundle.skipped())
    }
}

/// Reads the bundle below `directory` once.
///
/// Somebody may be writing to it: [`super::settle()`] reads until it lies still.
///
/// # Errors
/// Everything that is wrong with the directory and its files; what is in the files is not looked at.
pub fn read(directory: &Path, limits: &ReadLimits) -> Result<Reading, Vec<Problem>> {
    let reader = Reader::new(directory, limits.clone());
    reader.read(&reader.walk())
}

/// Reads one directory, again and again. It keeps nothing between readings: what is unchanged is known by its digest.
#[derive(Debug, Clone)]
pub struct Reader {
    directory: PathBuf,
    limits: ReadLimits,
}

impl Reader {
    /// A reader of the bundle below `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, limits: ReadLimits) -> Self {
        Self { directory: directory.into(), limits }
    }

    /// The directory, as it was given.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Looks which files there are and how they look, and opens none of them. Links are resolved anew each time.
    #[must_use]
    pub fn walk(&self) -> Walk {
        Walk::through(&self.directory, &self.limits)
    }

    /// Reads the files that `walk` found.
    ///
    /// # Errors
    /// What was wrong with the walk, and every file that could not be read.
    pub fn read(&self, walk: &Walk) -> Result<Reading, Vec<Problem>> {
        let make = |found: &Found, bytes: &[u8]| SourceFile::new(Arc::clone(&found.path), bytes);
        let (files, manifest) = together(self.each(walk, make), self.manifest(walk))?;
        let files: Vec<SourceFile> = files.into_iter().flatten().collect();
        complete(files.len(), walk)?;
        let bundle = Bundle::new(files).with_skipped(Self::skipped(walk));
        Ok(Reading { bundle, manifest, swapped: BTreeSet::new() })
    }

    /// The [`Reading::digest`] that a reading of these files would have, without keeping their bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn digest(&self, walk: &Walk) -> Result<[u8; 32], Vec<Problem>> {
        let (digests, manifest) = together(self.each(walk, |_, bytes| sha256(bytes)), self.manifest(walk))?;
        let skipped = Bundle::default().with_skipped(Self::skipped(walk));
        let files = walk.files.iter().map(|found| &*found.path).zip(digests);
        Ok(digest_of(files, manifest.as_ref(), skipped.skipped()))
    }

    /// The files that look like policy and are not read. One that cannot be opened is passed over: it is no part of the
    /// bundle, and the bundle does not depend on it.
    fn skipped(walk: &Walk) -> Vec<SkippedFile> {
        let mut bytes = Vec::new();
        let of_content = |found: &Found| {
            begin_of_file(found, SEARCHED_BYTES, &mut bytes).ok()?;
            let reason = of_json(&bytes)?;
            Some(SkippedFile { path: Arc::clone(&found.path), reason })
        };
        walk.skipped.iter().cloned().chain(walk.json.iter().filter_map(of_content)).collect()
    }

    /// The manifest and its signature. Without a manifest a signature signs nothing, and is no part of the reading.
    fn manifest(&self, walk: &Walk) -> Result<Option<ManifestText>, Vec<Problem>> {
        let Some(found) = &walk.manifest else { return Ok(None) };
        let take = |found: &Found| -> Result<Arc<[u8]>, Vec<Problem>> {
            let mut bytes = Vec::new();
            read_file(found, &self.limits, &mut bytes).map(|()| bytes.into()).map_err(|problem| vec![problem])
        };
        let (text, signature) = together(take(found), walk.signature.as_ref().map(take).transpose())?;
        Ok(Some(ManifestText { text, signature }))
    }

    /// What `make` makes of each file, in order.
    fn each<T: Send>(&self, walk: &Walk, make: impl Fn(&Found, &[u8]) -> T + Sync) -> Result<Vec<T>, Vec<Problem>> {
        let (next, total) = (AtomicUsize::new(0), AtomicU64::new(0));
        let work = || {
            let (mut results, mut bytes) = (Vec::new(), Vec::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(found) = walk.files.get(number) else { return results };
                let result = read_file(found, &self.limits, &mut bytes).and_then(|()| {
                    let before = total.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    let fits = before.saturating_add(bytes.len() as u64) <= self.limits.max_total_bytes;
                    if fits { Ok(make(found, &bytes)) } else { Err(grown(found)) }
                });
                results.push((number, result));
            }
        };
        let expected_bytes: u64 = walk.files.iter().map(|found| found.stamp.length).sum();
        let two = expected_bytes >= WORTH_TWO_THREADS_BYTES || walk.files.len() >= WORTH_TWO_THREADS_FILES;
        let mut results = if two { both(work) } else { work() };
        results.sort_by_key(|(number, _)| *number);

        let (mut values, mut problems) = (Vec::with_capacity(results.len()), walk.problems.clone());
        for (_, result) in results {
            match result {
                Ok(value) => values.push(value),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            complete(values.len(), walk)?;
            return Ok(values);
        }
        problems.sort_by(|left, right| (&left.file, left.code).cmp(&(&right.file, right.code)));
        Err(problems)
    }
}

/// Both values, or everything that is wrong with either.
fn together<A, B>(left: Result<A, Vec<Problem>>, right: Result<B, Vec<Problem>>) -> Result<(A, B), Vec<Problem>> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (left, right) => Err([left.err(), right.err()].into_iter().flatten().flatten().collect()),
    }
}

/// Runs `work` on two threads, of which this is one, and puts together what they made.
fn both<T: Send>(work: impl Fn() -> Vec<T> + Sync) -> Vec<T> {
    thread::scope(|scope| {
        // Where no second thread is to be had, the first does it all.
        let other = thread::Builder::new().spawn_scoped(scope, &work);
        let mut made = work();
        if let Ok(Ok(rest)) = other.map(thread::ScopedJoinHandle::join) {
            made.extend(rest);
        }
        made
    })
}

/// A bundle with a file less is another bundle: whatever went wrong, it must not pass for this one.
fn complete(count: usize, walk: &Walk) -> Result<(), Vec<Problem>> {
    if count == walk.files.len() {
        return Ok(());
    }
    Err(vec![problem(ProblemCode::FileUnreadable, "", format!("only {count} of {} files were read", walk.files.len()))])
}

fn grown(found: &Found) -> Problem {
    problem(ProblemCode::BundleTooLarge, &found.path, "the bundle grew over its limit while it was read")
}

/// Reads one file into `bytes`, and no more of it than it may have.
fn read_file(found: &Found, limits: &ReadLimits, bytes: &mut Vec<u8>) -> Result<(), Problem> {
    let most = usize::try_from(limits.max_file_bytes.saturating_add(1)).unwrap_or(usize::MAX);
    begin_of_file(found, most, bytes)?;
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(too_large(&found.path, limits));
    }
    Ok(())
}

/// Reads the first `most` bytes of a file into `bytes`, or all of a shorter one.
fn begin_of_file(found: &Found, most: usize, bytes: &mut Vec<u8>) -> Result<(), Problem> {
    let failed = |error: io::Error| unreadable(&found.path, &error);
    let file = open(&found.real).map_err(failed)?;
    // What was opened may not be what was looked at: a FIFO now, or something that a link elsewhere put in its place.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(not_a_file(&found.path));
    }
    if Stamp::of(&metadata).inode != found.stamp.inode {
        return Err(problem(ProblemCode::FileUnreadable, &found.path, "was replaced while it was read"));
    }
    bytes.clear();
    file.take(most as u64).read_to_end(bytes).map_err(failed)?;
    Ok(())
}

/// Opens for reading without ever waiting (as the open of a FIFO would), nor following a link put there meanwhile.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY);
    }
    options.open(path)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn digest_of<'a>(
    files: impl Iterator<Item = (&'a str, [u8; 32])>,
    manifest: Option<&ManifestText>,
    skipped: &[SkippedFile],
) -> [u8; 32] {
    let signature = manifest.and_then(|manifest| manifest.signature.as_deref());
    let manifest = manifest.map(|manifest| (MANIFEST, sha256(&manifest.text)));
    let signature = signature.map(|bytes| (SIGNATURE, sha256(bytes)));
    let mut hash = Sha256::new();
    for (path, digest) in files.chain(manifest).chain(signature) {
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path.as_bytes());
        hash.update(digest);
    }
    for file in skipped {
        hash.update((file.path.len() as u64).to_le_bytes());
        hash.update(file.path.as_bytes());
        hash.update(sha256(format!("{:?}", file.reason).as_bytes()));
    }
    hash.finalize().into()
}
