//! Checks the modes of files that hold secrets and of files that determine trust. A user who can write such a file
//! controls authentication, so the server does not start. A user who can read a secret has it, so the server warns.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{ConfigError, ProviderKind, Settings};

/// The bit of a mode by which others than owner and group read.
const OTHERS_READ: u32 = 0o004;
/// The bit by which they write.
const OTHERS_WRITE: u32 = 0o002;
/// The bit by which the group writes.
const GROUP_WRITES: u32 = 0o020;

/// A file that a setting names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedFile {
    /// The setting.
    pub setting: String,
    /// The file.
    pub path: PathBuf,
    /// Whether the file holds a secret. Otherwise it only determines trust, and may be readable by all users.
    pub is_secret: bool,
}

impl WatchedFile {
    /// A file that holds a secret.
    pub(super) fn secret(setting: &str, path: &Path) -> Self {
        Self { setting: setting.to_owned(), path: path.to_owned(), is_secret: true }
    }

    /// A file that determines trust.
    pub(super) fn trusted(setting: &str, path: &Path) -> Self {
        Self { is_secret: false, ..Self::secret(setting, path) }
    }

    /// Looks at its mode; a warning, where others read a secret.
    ///
    /// # Errors
    /// Where others write it.
    pub fn check(&self) -> Result<Option<String>, String> {
        // A missing or unreadable file is reported by the code that reads it.
        let Ok(metadata) = std::fs::metadata(&self.path) else { return Ok(None) };
        let (mode, path, setting) = (metadata.permissions().mode(), self.path.display(), &self.setting);
        if mode & OTHERS_WRITE != 0 {
            return Err(format!(
                "{setting}: all users of this machine can write {path} (mode {:04o}); run `chmod o-w {path}`, and \
                 check its content",
                mode & 0o7777
            ));
        }
        if !self.is_secret || mode & (OTHERS_READ | GROUP_WRITES) == 0 {
            return Ok(None);
        }
        let who = if mode & OTHERS_READ != 0 { "all users of this machine can read" } else { "its group can write" };
        Ok(Some(format!(
            "{setting}: {who} {path} (mode {:04o}), which holds a secret; run `chmod 600 {path}`",
            mode & 0o7777
        )))
    }
}

impl Settings {
    /// Checks the modes of all files that hold secrets or determine trust; returns the warnings.
    ///
    /// # Errors
    /// All files that others can write.
    pub fn check_secret_files(&self) -> Result<Vec<String>, ConfigError> {
        let (mut warnings, mut errors) = (Vec::new(), Vec::new());
        for file in self.watched_files() {
            match file.check() {
                Ok(warning) => warnings.extend(warning),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(warnings) } else { Err(ConfigError::Refused(errors.join("; "))) }
    }

    fn watched_files(&self) -> Vec<WatchedFile> {
        let mut files = self.identity.files.clone();
        let secret = |files: &mut Vec<WatchedFile>, setting: &str, path: Option<&PathBuf>| {
            files.extend(path.map(|path| WatchedFile::secret(setting, path)));
        };
        secret(&mut files, "tls.key_file", self.tls.key_file.as_ref());
        secret(&mut files, "alerts.webhook.secret_file", self.webhook.secret_file.as_ref());
        let checkpoints = self.decision_log.checkpoints.webhook.as_ref();
        let of_checkpoints = checkpoints.and_then(|webhook| webhook.secret_file.as_ref());
        secret(&mut files, "decision_log.checkpoints.webhook.secret_file", of_checkpoints);
        let tokens = self.identity.tokens.as_ref();
        secret(&mut files, "identity.tokens.pepper_file", tokens.and_then(|tokens| tokens.pepper_file.as_ref()));
        let keeps_keys = |kind: &ProviderKind| matches!(kind, ProviderKind::Keys(_));
        if self.identity.providers.iter().any(|provider| keeps_keys(&provider.kind)) {
            secret(&mut files, "data", Some(&self.data.join("keys.pepper")));
        }
        let trusted =
            [("tls.certificate_file", &self.tls.certificate_file), ("tls.client_ca_file", &self.tls.client_ca_file)];
        for (setting, path) in trusted {
            files.extend(path.as_ref().map(|path| WatchedFile::trusted(setting, path)));
        }
        files
    }
}
