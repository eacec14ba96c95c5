//! The pepper: what the hashes of keys are keyed with, so that whoever reads them alone can check no guess.

use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::edge::random;
use crate::model::{KeyHash, KeyText};

/// How many bytes a pepper has that Tollgate makes, and at least.
const BYTES: usize = 32;
/// Most bytes of one.
const MOST_BYTES: u64 = 4096;
/// The file in the data directory.
#[cfg(feature = "sqlite")]
const FILE_NAME: &str = "keys.pepper";

/// Why there is no pepper.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// The file cannot be read or made.
    #[error("the pepper of keys, `{}`: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is none.
    #[error("the pepper of keys, `{}`, has {BYTES} to {MOST_BYTES} bytes", path.display())]
    Length {
        /// Which.
        path: PathBuf,
    },
}

/// Keys a hash.
#[derive(Clone)]
pub struct Pepper(hmac::Key);

impl Pepper {
    /// Of these bytes.
    pub(in crate::edge::store) fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// New bytes for one.
    pub(in crate::edge::store) fn random() -> Zeroizing<[u8; BYTES]> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        random::fill(&mut *bytes);
        bytes
    }

    /// The one in this file.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds none.
    pub fn read(path: &Path) -> Result<Self, PepperError> {
        let io = |error| PepperError::Io { path: path.to_owned(), error };
        let metadata = std::fs::metadata(path).map_err(io)?;
        if !metadata.is_file() || metadata.len() > MOST_BYTES || metadata.len() < BYTES as u64 {
            return Err(PepperError::Length { path: path.to_owned() });
        }
        Ok(Self::new(&Zeroizing::new(std::fs::read(path).map_err(io)?)))
    }

    /// The one in the data directory, made where there is none.
    #[cfg(feature = "sqlite")]
    pub(super) fn in_directory(directory: &Path) -> Result<Self, PepperError> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = directory.join(FILE_NAME);
        if path.exists() {
            crate::edge::store::private::tighten_at(&path);
            return Self::read(&path);
        }
        let io = |error| PepperError::Io { path: path.clone(), error };
        let bytes = Self::random();
        // Under another name first, so that no crash leaves half of one.
        let new = directory.join(format!("{FILE_NAME}.new"));
        let write = || {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&*bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            std::fs::File::open(directory)?.sync_all()
        };
        write().map_err(io)?;
        Ok(Self::new(&*bytes))
    }

    /// What a key hashes to.
    pub(in crate::edge::store) fn hash(&self, key: &KeyText<'_>) -> KeyHash {
        self.of(key.expose().as_bytes())
    }

    /// What tells this pepper from another, and nothing of it.
    pub(in crate::edge::store) fn fingerprint(&self) -> KeyHash {
        self.of(b"tollgate: which pepper is this?")
    }

    /// A key that seals what others can read: it comes of the pepper, and tells nothing of it.
    #[cfg(feature = "redis")]
    pub(in crate::edge::store) fn sealing_key(&self) -> Zeroizing<KeyHash> {
        Zeroizing::new(self.of(b"tollgate: what seals signing keys"))
    }

    /// What chooses between decoys, which comes of the pepper too.
    pub(in crate::edge::store) fn decoy_key(&self) -> Zeroizing<KeyHash> {
        Zeroizing::new(self.of(b"tollgate: what chooses decoys of passwords"))
    }

    fn of(&self, bytes: &[u8]) -> KeyHash {
        let mut hash = [0; 32];
        let tag = hmac::sign(&self.0, bytes);
        hash.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        hash
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper(…)")
    }
}
