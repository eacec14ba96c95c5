//! The store of keys, and the administrator's key that the first start makes.

use std::error::Error;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use smol_str::SmolStr;

use crate::cli::output;
use crate::config::{FirstKey, KeySettings, Settings};
use crate::edge::clock::SystemClock;
use crate::edge::random;
use crate::edge::store::{KeyFile, Pepper, RedisKeys};
use crate::gate::{Clock as _, KeyWrite, KeyWriteError, Keys, Passwords};
use crate::model::{ADMINISTRATOR, EntityUid, KeyDetails, KeyRecord, KeyText, SecretText, key_id, key_text};

/// Whose key the first one is. Nobody can declare it, and no token is it.
const FIRST_OWNER: &str = ADMINISTRATOR;
/// The file that the first key is put in, where it is to be.
const FIRST_KEY_FILE: &str = "administrator.key";

/// The store of keys, which keeps passwords too.
#[derive(Clone)]
pub(super) struct KeyStore {
    pub(super) keys: Arc<dyn Keys>,
    pub(super) passwords: Arc<dyn Passwords>,
}

impl KeyStore {
    fn of<S: Keys + Passwords + 'static>(store: S) -> Self {
        let store = Arc::new(store);
        Self { keys: Arc::clone(&store) as _, passwords: store }
    }
}

/// Opens the store; makes the first key where there is none.
///
/// # Errors
/// With the reason, where it cannot be had.
pub(super) fn open(settings: &Settings, options: &KeySettings) -> Result<KeyStore, Box<dyn Error>> {
    let store = store(settings, options)?;
    first_key(&*store.keys, options.first_key, &settings.data)?;
    Ok(store)
}

/// Where keys are kept: in the Redis that keeps the meters, if there is one, else in the data directory.
fn store(settings: &Settings, options: &KeySettings) -> Result<KeyStore, Box<dyn Error>> {
    let pepper = options.pepper_file.as_deref().map(Pepper::read).transpose()?;
    Ok(match settings.redis() {
        Some(redis) => KeyStore::of(RedisKeys::open(&redis, pepper, options.max_stale)?),
        None => KeyStore::of(KeyFile::open(&settings.data, pepper)?),
    })
}

/// Says that keys which were made before prove nobody, where `keys` is not among the providers: a list of providers that
/// somebody adds leaves them out without a word.
pub(super) fn warn_where_left_out(settings: &Settings) {
    if settings.identity.keys().is_none() && settings.redis().is_none() && KeyFile::is_in(&settings.data) {
        let data = settings.data.display();
        tracing::warn!(
            target: "tollgate::identity",
            %data,
            "{data} has API keys, possibly the administrator's, and they are all refused, since `keys` is not among \
             `identity.providers`; add `- keys: {{}}` to the list, or move keys.db away",
        );
    }
}

/// Makes a key for the administrator where there is none at all: there is no password to begin with.
fn first_key(keys: &dyn Keys, wish: FirstKey, data: &Path) -> Result<(), Box<dyn Error>> {
    // Where nobody can say whether there are keys, there may be.
    if wish == FirstKey::None || keys.count() > 0 || keys.find("").is_err() {
        return Ok(());
    }
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    random::fill(&mut *secret);
    let text = key_text(&key_id(random::bytes()), *secret)?;
    let key = KeyText::parse(text.expose())?;
    let details = KeyDetails {
        roles: [SmolStr::new(ADMINISTRATOR)].into(),
        note: Some("made by the first start".into()),
        ..KeyDetails::default()
    };
    let record = KeyRecord {
        id: key.id.into(),
        owner: EntityUid::new("Service", FIRST_OWNER)?,
        hash: keys.hash(&key),
        version: 1,
        created_at: SystemClock.now(),
        expires_at: None,
        used_at: AtomicI64::new(0),
        more: Some(Box::new(details)),
    };
    // Told before it is a key: a crash in between leaves a text that proves nothing, and the next start makes another.
    let stderr = std::io::stderr();
    if is_put_in_a_file(wish, stderr.is_terminal()) {
        let path = put(data, &text)?;
        let message = format!(
            "the administrator's key is in {path}, which only its owner can read; the server keeps only its hash. \
             Make keys with it, and delete the file"
        );
        tracing::info!(target: "tollgate::identity", path, "{message}");
    } else {
        // A message of the command, not a log event: no log has a secret in it.
        output::note(format_args!(
            "the administrator's key, shown this once (only its hash is kept):\n  {}\n\
             keep it where secrets are kept; `tollgate keys create` makes others with it",
            text.expose()
        ));
    }
    match pollster::block_on(keys.write(KeyWrite::MakeFirst(record))) {
        Ok(()) => {}
        Err(KeyWriteError::Taken) => {
            let message = "another server was quicker: its administrator's key counts, not this one";
            tracing::warn!(target: "tollgate::identity", "{message}");
        }
        Err(error) => {
            let message = "the administrator's key is not valid, since it could not be stored";
            tracing::warn!(target: "tollgate::identity", "{message}: {error}");
        }
    }
    Ok(())
}

/// Whether the first key is put in a file: if stderr is not a terminal, its output is probably stored somewhere.
fn is_put_in_a_file(wish: FirstKey, is_terminal: bool) -> bool {
    match wish {
        FirstKey::File => true,
        FirstKey::Auto => !is_terminal,
        FirstKey::Print | FirstKey::None => false,
    }
}

fn put(data: &Path, text: &SecretText) -> std::io::Result<String> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = data.join(FIRST_KEY_FILE);
    // A file of its own that takes the place of the old one: the old one may be open to others, or a link elsewhere.
    let new = data.join(format!("{FIRST_KEY_FILE}.new"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{}", text.expose())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    Ok(path.display().to_string())
}
