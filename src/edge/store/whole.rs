//! Databases that are found whole or not at all: they are made under another name, and get theirs when everything is in
//! them. So what has the name and is empty was damaged.

use std::fs::{OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction};

/// Why one cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

/// Makes the database of this path, with what `fill` puts in.
pub(super) fn make(path: &Path, fill: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), MakeError> {
    let beside = path.with_extension("new");
    // What a process left that was killed meanwhile; a journal that stayed would be taken for that of the new one.
    for left in [beside.clone(), journal(&beside)] {
        match std::fs::remove_file(&left) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    private(&beside)?;
    let mut connection = Connection::open(&beside)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction()?;
    fill(&transaction)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    std::fs::rename(&beside, path)?;
    let directory = path.parent().unwrap_or(path);
    Ok(std::fs::File::open(directory)?.sync_all()?)
}

/// Makes a file readable by its owner alone, and the file itself where there is none: before SQLite opens it, which gives
/// what it keeps beside it the same mode.
pub(super) fn private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn journal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}
