//! Files of the data directory. Only their owner may read them, since they hold spending and credentials.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Creates a directory and its parents if they do not exist.
pub(super) fn folder(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Opens a file for writing, and creates it if it does not exist. `how` sets further options.
pub(super) fn open(path: &Path, how: impl FnOnce(&mut OpenOptions) -> &mut OpenOptions) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = how(options.write(true).create(true).mode(0o600)).open(path)?;
    tighten(&file);
    Ok(file)
}

/// Removes the permissions of other users on a file that an earlier version made. A file system without permissions
/// does not prevent the start.
fn tighten(file: &File) {
    let mode = file.metadata().map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        let _not_changed = file.set_permissions(Permissions::from_mode(0o600));
    }
}

/// Like [`tighten`], for a file that exists already.
#[cfg(feature = "sqlite")]
pub(super) fn tighten_at(path: &Path) {
    if let Ok(file) = File::open(path) {
        tighten(&file);
    }
}
