//! What commands share that ask a running server: which server, with whose credential, and why there is no answer.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::output::{self, Exit};
use super::session::{SessionArguments, SessionError, Sessions};
use crate::config::WatchedFile;
use crate::edge::outgoing::Address;
use crate::model::SecretText;

/// Longest credential that is read from a file.
const MAX_CREDENTIAL_BYTES: u64 = 16 * 1024;

/// Which server is asked, and who asks.
#[derive(Debug, Args)]
pub(super) struct AskingArguments {
    #[command(flatten)]
    session: SessionArguments,
    /// The file of a credential, - for stdin; else TOLLGATE_TOKEN has it, else whoever is signed in at the server asks
    /// (`tollgate login`)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AskingArguments {
    /// The server.
    pub(super) fn server(&self) -> &Address {
        &self.session.server
    }

    /// What the server is shown: what is named, else what the environment has, else a token of the session; `None` where
    /// there is none of these.
    pub(super) async fn credential(&self) -> Result<Option<SecretText>, Failure> {
        if let Some(path) = &self.token_file {
            let read = read_own_credential(path);
            return read.map(Some).map_err(|message| Failure::NoServer(format!("{}: {message}", path.display())));
        }
        if let Some(token) = crate::config::token().filter(|token| !token.expose().is_empty()) {
            return Ok(Some(token));
        }
        match Sessions::open_if_there(&self.session)? {
            Some(mut sessions) => Ok(Some(sessions.token(self.server()).await?)),
            None => Ok(None),
        }
    }

    /// Whether the credential is read from stdin.
    pub(super) fn reads_stdin(&self) -> bool {
        self.token_file.as_deref() == Some(Path::new("-"))
    }

    /// What to do about it that there is no credential.
    pub(super) fn ways_to_a_credential(&self) -> String {
        format!("set TOLLGATE_TOKEN, name --token-file, or sign in with `tollgate login --server {}`", self.server())
    }
}

/// The credential in a file; `-` is stdin.
pub(super) fn read_credential(path: &Path) -> Result<SecretText, String> {
    let mut text = zeroize::Zeroizing::new(String::new());
    // One more, so that what is too long is not taken for what it begins with.
    let most = MAX_CREDENTIAL_BYTES + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    match read {
        Err(error) => Err(error.to_string()),
        Ok(_) if text.len() as u64 > MAX_CREDENTIAL_BYTES => Err("it is too long for a credential".to_owned()),
        Ok(_) if text.trim().is_empty() => Err("it holds no credential".to_owned()),
        Ok(_) => Ok(SecretText::new(text.trim())),
    }
}

/// Reads a credential like [`read_credential`], for one that is shown to a server, and warns if others can read its
/// file.
pub(super) fn read_own_credential(path: &Path) -> Result<SecretText, String> {
    if path != Path::new("-") {
        let file = WatchedFile { setting: "the credential".to_owned(), path: path.to_owned(), is_secret: true };
        if let Some(warning) = file.check()? {
            output::note(format_args!("warning: {warning}"));
        }
    }
    read_credential(path)
}

/// Why there is nothing to tell.
pub(super) enum Failure {
    /// The command line is wrong, or no server answers.
    NoServer(String),
    /// The server refuses.
    Refused(String),
}

impl Failure {
    /// Tells it on stderr.
    pub(super) fn told(self) -> ExitCode {
        match self {
            Self::NoServer(message) => output::fail(message, Exit::Usage),
            Self::Refused(message) => output::fail(message, Exit::Error),
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error.exit() {
            Exit::Error => Self::Refused(error.to_string()),
            _ => Self::NoServer(error.to_string()),
        }
    }
}

/// A text in a query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
