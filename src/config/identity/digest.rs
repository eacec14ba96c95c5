//! `digest:`, names and proofs of passwords (RFC 7616).

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalars::ConfigPath;
use crate::edge::identity::DigestFile;

/// Names and proofs of passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestSettings {
    /// A file of `name:realm:digest` lines.
    pub file: PathBuf,
    /// The realm of all of them.
    pub realm: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// The file of users: `name:realm:hash` with SHA-256.
    file: ConfigPath,
    /// The realm. Default: `tollgate`.
    realm: Option<String>,
}

impl Raw {
    /// The file of users.
    pub(super) fn file(&self) -> &PathBuf {
        &self.file.0
    }

    pub(super) fn checked(self) -> Result<DigestSettings, String> {
        let realm = self.realm.unwrap_or_else(|| "tollgate".to_owned());
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b':') || byte == b' ';
        if realm.is_empty() || realm.len() > 128 || !realm.bytes().all(plain) {
            return Err("`digest`: `realm` is 1 to 128 characters of ASCII, no quote, backslash or colon".to_owned());
        }
        // Opened to say what is wrong with it where it is named; who serves opens it again, and keeps it.
        DigestFile::open(&self.file.0, &realm).map_err(|error| format!("`digest`: `file`: {error}"))?;
        Ok(DigestSettings { file: self.file.0, realm })
    }
}
