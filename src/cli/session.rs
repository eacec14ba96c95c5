//! Who is signed in at which server: a file of tokens that only its owner reads.
//!
//! What is hard about it: a refresh token is used once, and whoever uses it twice looks like a thief and loses the session.
//! So one process at a time renews a session, behind a lock, and the next one reads what it wrote; and the file is replaced
//! whole, so that no reader ever sees half of one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::output::Exit;
use crate::client::{Exchange, Grant, Issuer, OAuthError, Tokens};
use crate::config::ProxyVariableError;
use crate::edge::clock::SystemClock;
use crate::edge::outgoing::{Address, Proxy};
use crate::gate::Clock as _;
use crate::model::{SecretText, Timestamp};

/// Largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;
/// For which another process may hold the lock: it waits for an issuer at most.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it still does.
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// Where a command's session is.
#[derive(Debug, Args)]
pub(super) struct SessionArguments {
    /// The server: https://…, or http:// on this machine
    #[arg(long, value_name = "URL", env = "TOLLGATE_SERVER", default_value = "http://127.0.0.1:8181", hide_env_values = true, value_parser = server)]
    pub(super) server: Address,
    /// Where sessions are kept [default: tollgate/credentials.json in the user's config directory]
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CREDENTIALS", hide_env_values = true)]
    credentials: Option<PathBuf>,
}

pub(super) fn server(text: &str) -> Result<Address, String> {
    let address = Address::parse(text).map_err(|error| error.to_string())?;
    if address.is_bare() { Ok(address) } else { Err("expected an address without a path".to_owned()) }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("nobody is signed in at {0}; `tollgate login --server {0}` does that")]
    None(String),
    #[error("the session at {0} has ended; `tollgate login --server {0}` begins another ({1})")]
    Ended(String, String),
    #[error(
        "the server {server} does not take this sign-in, so that no session is kept: {message}; sign in with an issuer that \
         stands in its `identity.providers`, or with a key (`--api-key-file`)"
    )]
    NotTaken { server: String, message: String },
    #[error(transparent)]
    OAuth(#[from] OAuthError),
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error(transparent)]
    Proxy(#[from] ProxyVariableError),
    #[error("no config directory: name a file with --credentials or TOLLGATE_CREDENTIALS")]
    Nowhere,
}

impl SessionError {
    /// How a command ends: what may be otherwise another time, or is the command line's, ends with 2.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::None(_) | Self::Ended(..) | Self::NotTaken { .. } | Self::OAuth(OAuthError::Refused { .. }) => {
                Exit::Error
            }
            _ => Exit::Usage,
        }
    }
}

/// One server's session.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    /// Who hands out its tokens; the server itself, where nobody is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<SessionIssuer>,
    access_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// When the tokens came and end, in milliseconds since 1970.
    since_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<i64>,
}

/// An issuer that somebody signed in at.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionIssuer {
    pub(super) name: String,
    pub(super) client_id: String,
    /// Whether the server is shown the ID token instead of the access token.
    pub(super) sends_id_token: bool,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    servers: BTreeMap<String, Session>,
}

impl Drop for Session {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.access_token.zeroize();
        self.id_token.zeroize();
        self.refresh_token.zeroize();
    }
}

impl Session {
    pub(super) fn new(issuer: Option<SessionIssuer>, tokens: &Tokens) -> Self {
        let text = |secret: &SecretText| secret.expose().to_owned();
        Self {
            issuer,
            access_token: text(&tokens.access),
            id_token: tokens.identity.as_ref().map(text),
            refresh_token: tokens.refresh.as_ref().map(text),
            since_ms: tokens.since.as_millis(),
            expires_ms: tokens.expires_at.map(Timestamp::as_millis),
        }
    }

    fn tokens(&self) -> Tokens {
        let secret = |text: &String| SecretText::new(text.clone());
        Tokens {
            access: secret(&self.access_token),
            refresh: self.refresh_token.as_ref().map(secret),
            identity: self.id_token.as_ref().map(secret),
            since: Timestamp::from_millis(self.since_ms),
            expires_at: self.expires_ms.map(Timestamp::from_millis),
        }
    }

    /// What the server is shown.
    pub(super) fn shown(&self) -> Option<SecretText> {
        let tokens = self.tokens();
        match &self.issuer {
            Some(issuer) if issuer.sends_id_token => tokens.identity,
            _ => Some(tokens.access),
        }
    }

    /// The next one, by its refresh token.
    async fn renewed(&self, server: &str, proxy: &Proxy) -> Result<Self, OAuthError> {
        let ended = || OAuthError::Refused {
            by: server.to_owned(),
            code: "invalid_grant".to_owned(),
            description: "no refresh token".to_owned(),
        };
        let last = self.tokens();
        let refresh = last.refresh.ok_or_else(ended)?;
        let mut next = match &self.issuer {
            Some(issuer) => {
                Issuer::discover_through(&issuer.name, proxy).await?.refresh(&issuer.client_id, &refresh).await?
            }
            None => Exchange::through(server, Grant::Refresh, proxy)?.next(&refresh).await?,
        };
        // An issuer need not tell again who it is.
        next.identity = next.identity.or(last.identity);
        Ok(Self::new(self.issuer.clone(), &next))
    }
}

/// The file of sessions, locked: nobody else reads or writes it meanwhile.
pub(super) struct Sessions {
    path: PathBuf,
    kept: Kept,
    _lock: File,
}

impl Sessions {
    /// Waits for the lock, and reads the file.
    pub(super) fn open(arguments: &SessionArguments) -> Result<Self, SessionError> {
        let path = arguments.credentials.clone().or_else(usual).ok_or(SessionError::Nowhere)?;
        let failed = |error: std::io::Error| SessionError::File { path: path.clone(), message: error.to_string() };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        let lock = path.with_extension("lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock).map_err(failed)?;
        wait_for(&lock).map_err(failed)?;
        let kept = read(&path).map_err(|message| SessionError::File { path: path.clone(), message })?;
        Ok(Self { path, kept, _lock: lock })
    }

    /// The file, where there is one and somebody is signed in at the server.
    pub(super) fn open_if_there(arguments: &SessionArguments) -> Result<Option<Self>, SessionError> {
        let path = arguments.credentials.clone().or_else(usual);
        if !path.is_some_and(|path| path.exists()) {
            return Ok(None);
        }
        let sessions = Self::open(arguments)?;
        Ok(sessions.kept.servers.contains_key(&arguments.server.to_string()).then_some(sessions))
    }

    /// Notes a session, or none, and writes the file.
    pub(super) fn set(&mut self, server: &Address, session: Option<Session>) -> Result<bool, SessionError> {
        let server = server.to_string();
        let had = match session {
            Some(session) => self.kept.servers.insert(server, session).is_some(),
            None => self.kept.servers.remove(&server).is_some(),
        };
        self.kept.version = 1;
        let failed = |message: String| SessionError::File { path: self.path.clone(), message };
        let text = serde_json::to_vec_pretty(&self.kept).map_err(|error| failed(error.to_string()))?;
        write(&self.path, &zeroize::Zeroizing::new(text)).map_err(|error| failed(error.to_string()))?;
        Ok(had)
    }

    /// A token that holds for a while, renewed where the last one does not.
    pub(super) async fn token(&mut self, server: &Address) -> Result<SecretText, SessionError> {
        let name = server.to_string();
        let session = self.kept.servers.get(&name).cloned().ok_or_else(|| SessionError::None(name.clone()))?;
        let now = SystemClock.now();
        let nothing = || SessionError::Ended(name.clone(), "it has no such token".to_owned());
        if session.tokens().is_fresh(now) {
            return session.shown().ok_or_else(nothing);
        }
        match session.renewed(&name, &crate::config::proxy()?).await {
            Ok(next) => {
                let shown = next.shown();
                self.set(server, Some(next))?;
                shown.ok_or_else(nothing)
            }
            Err(OAuthError::Refused { code, .. }) => Err(SessionError::Ended(name, code)),
            // Whoever would renew it is away, and it still holds.
            Err(_) if session.expires_ms.is_none_or(|end| now.as_millis() < end) => session.shown().ok_or_else(nothing),
            Err(error) => Err(error.into()),
        }
    }
}

/// The file that is used where none is named.
fn usual() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    directory.is_absolute().then(|| directory.join("tollgate").join("credentials.json"))
}

fn wait_for(lock: &File) -> std::io::Result<()> {
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_LOOK),
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(std::io::Error::other("another process holds it for too long"));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn read(path: &Path) -> Result<Kept, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error.to_string()),
    };
    let mode = file.metadata().map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err("others may read it; `chmod 600` it, or sign in anew after removing it".to_owned());
    }
    let mut text = zeroize::Zeroizing::new(Vec::new());
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let kept: Kept = serde_json::from_slice(&text).map_err(|_| "it is no file of sessions".to_owned())?;
    if kept.version > 1 { Err("it is of a newer Tollgate".to_owned()) } else { Ok(kept) }
}

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let next = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = (|| {
        // One that a process of the same number left behind.
        let _gone = std::fs::remove_file(&next);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&next)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&next, path)
    })();
    if written.is_err() {
        let _left_behind = std::fs::remove_file(&next);
    }
    written
}
