//! What a client proves itself with: a text that stays, a file that somebody else renews, or tokens that renew themselves.
#![allow(clippy::disallowed_methods, reason = "a file that rotates is read where it is")]

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::device::SignedIn;
use super::exchange::Exchange;
use super::oauth::{ClientCredentials, OAuthError};
use super::renew::{Renew, Renewing};
use crate::edge::clock::SystemClock;
use crate::gate::Later;
use crate::model::SecretText;

/// Longest credential that a file holds.
const MAX_BYTES: u64 = 16 * 1024;

/// Why there is no credential.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("the credential in {} cannot be read: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: Arc<std::io::Error>,
    },
    /// It is no text that a header can hold.
    #[error("the credential is empty, or holds what no header can")]
    Form,
    /// Whoever hands out tokens refuses, or does not answer.
    #[error(transparent)]
    OAuth(#[from] OAuthError),
    /// The task that was to renew it is gone.
    #[error("the credential was not renewed: the runtime ends")]
    Ended,
}

/// Where a client's credential comes from.
pub trait CredentialSource: Send + Sync {
    /// What goes into `Authorization`. `refused` is what the server did not take a moment ago.
    fn authorization(&self, refused: Option<&SecretText>) -> Later<Result<SecretText, CredentialError>>;

    /// Whether there may be another one where this one is refused.
    fn renews(&self) -> bool {
        true
    }
}

/// The sources that there are.
pub struct Credentials(Source);

enum Source {
    Fixed(SecretText),
    File(PathBuf),
    Renewed(Box<dyn CredentialSource>),
}

impl Credentials {
    /// A token or a key that stays as it is.
    #[must_use]
    pub fn bearer(token: &SecretText) -> Self {
        Self(Source::Fixed(bearer(token)))
    }

    /// A name and a password.
    #[must_use]
    pub fn basic(username: &str, password: &SecretText) -> Self {
        let pair = zeroize::Zeroizing::new(format!("{username}:{}", password.expose()));
        Self(Source::Fixed(SecretText::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))))
    }

    /// A token in a file that somebody else renews: it is read for each request, as a Kubernetes service account's is.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// Tokens of an issuer, for a client with a secret (RFC 6749, section 4.4).
    #[must_use]
    pub fn client_credentials(client: ClientCredentials) -> Self {
        Self::renewed(client)
    }

    /// Tokens of somebody who signed in on another device.
    #[must_use]
    pub fn device(signed_in: SignedIn) -> Self {
        Self::renewed(signed_in)
    }

    /// Tollgate's own short-lived tokens, for a key or a password: `POST /v1/token`.
    #[must_use]
    pub fn exchange(exchange: Exchange) -> Self {
        Self::renewed(exchange)
    }

    /// Tokens that renew themselves some way.
    #[must_use]
    pub fn renewed(how: impl Renew) -> Self {
        Self(Source::Renewed(Box::new(Renewing::new(how, Arc::new(SystemClock)))))
    }
}

impl CredentialSource for Credentials {
    fn authorization(&self, refused: Option<&SecretText>) -> Later<Result<SecretText, CredentialError>> {
        match &self.0 {
            Source::Fixed(fixed) => Later::ready(Ok(fixed.clone())),
            Source::File(path) => Later::ready(read(path)),
            Source::Renewed(renewed) => renewed.authorization(refused),
        }
    }

    fn renews(&self) -> bool {
        !matches!(self.0, Source::Fixed(_))
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

pub(super) fn bearer(token: &SecretText) -> SecretText {
    SecretText::new(format!("Bearer {}", token.expose()))
}

fn read(path: &PathBuf) -> Result<SecretText, CredentialError> {
    let unread = |error| CredentialError::File { path: path.clone(), error: Arc::new(error) };
    let mut text = zeroize::Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(unread)?;
    let token = text.trim();
    if token.is_empty() { Err(CredentialError::Form) } else { Ok(bearer(&SecretText::new(token))) }
}
