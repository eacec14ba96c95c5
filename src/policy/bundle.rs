//! A bundle: the texts that people wrote, by path, and the digest that names them.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::problem::{Problem, ProblemCode};
use super::skipped::{MOST_SKIPPED, SkippedFile};
use super::syntax::Place;
use crate::model::hex;

/// What a file of a bundle is, by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `.yaml`, `.yml`: people, models, rules and limits.
    Yaml,
    /// `*_test.yaml`, `*_test.yml`: tests of the bundle, not policy.
    Test,
    /// `.cedar`: native policies.
    Cedar,
    /// `.cedarschema`: entity types and actions of one's own.
    Schema,
    /// `.entities.json`: entities in Cedar's JSON form.
    Entities,
}

impl FileKind {
    /// The kind of the file at `path`; `None` for a file that is no part of a bundle.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        match name.rsplit_once('.')? {
            (stem, "yaml" | "yml") if stem.ends_with("_test") => Some(Self::Test),
            (_, "yaml" | "yml") => Some(Self::Yaml),
            (_, "cedar") => Some(Self::Cedar),
            (_, "cedarschema") => Some(Self::Schema),
            (stem, "json") if stem.ends_with(".entities") => Some(Self::Entities),
            _ => None,
        }
    }
}

/// One file of a bundle, as read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The path relative to the bundle, with `/` between its parts.
    pub path: Arc<str>,
    /// What the file is.
    pub kind: FileKind,
    /// Its bytes, as they are; that they are UTF-8 is checked where they are parsed.
    pub bytes: Arc<[u8]>,
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
}

impl SourceFile {
    /// The file at `path` with these bytes; `None` where such a path is no part of a bundle.
    pub fn new(path: impl Into<Arc<str>>, bytes: impl Into<Arc<[u8]>>) -> Option<Self> {
        let (path, bytes) = (path.into(), bytes.into());
        let kind = FileKind::of(&path)?;
        let digest = Sha256::digest(&bytes).into();
        Some(Self { path, kind, bytes, digest })
    }
}

/// All files of one reading, sorted by path.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    files: Vec<SourceFile>,
    skipped: Vec<SkippedFile>,
}

impl Bundle {
    /// A bundle of these files, in whatever order they come.
    #[must_use]
    pub fn new(mut files: Vec<SourceFile>) -> Self {
        files.sort_by(|left, right| left.path.cmp(&right.path));
        Self { files, skipped: Vec::new() }
    }

    /// Adds the files that are not read although they look like policy.
    #[must_use]
    pub fn with_skipped(mut self, mut skipped: Vec<SkippedFile>) -> Self {
        skipped.sort();
        skipped.dedup();
        self.skipped = skipped;
        self
    }

    /// The files that are not read and look as if they should be, sorted by path. They are no part of the revision.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedFile] {
        &self.skipped
    }

    /// A warning about each of these files; where they are many, the last one counts the rest.
    #[must_use]
    pub fn skipped_problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.skipped.iter().take(MOST_SKIPPED).map(SkippedFile::problem).collect();
        let rest = self.skipped.len().saturating_sub(MOST_SKIPPED);
        if rest > 0 {
            let message = format!("{rest} more files look like policy and are not read");
            problems.push(Problem::warning(ProblemCode::FileSkipped, &Arc::from(""), Place::default(), message));
        }
        problems
    }

    /// The files, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The name of this content: equal content has an equal revision on every machine. 16 hexadecimal digits
    /// of the SHA-256 over every path and digest.
    #[must_use]
    pub fn revision(&self) -> Arc<str> {
        let mut hash = Sha256::new();
        for file in &self.files {
            hash.update((file.path.len() as u64).to_le_bytes());
            hash.update(file.path.as_bytes());
            hash.update(file.digest);
        }
        hex::encode(&hash.finalize()).get(..16).unwrap_or_default().into()
    }
}
