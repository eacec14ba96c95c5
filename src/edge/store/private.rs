//! Files of the data directory: only their owner may look into them, since they say who spent what, and prove who is who.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes a directory, and those above it, where there is none.
pub(super) fn folder(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Opens a file to write it, made where there is none. `how` says what else.
pub(super) fn open(path: &Path, how: impl FnOnce(&mut OpenOptions) -> &mut OpenOptions) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = how(options.write(true).create(true).mode(0o600)).open(path)?;
    tighten(&file);
    Ok(file)
}

/// Takes from others what they may do with a file that an earlier version made. A file system that has no permissions is no
/// reason to stop.
fn tighten(file: &File) {
    let mode = file.metadata().map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        let _not_changed = file.set_permissions(Permissions::from_mode(0o600));
    }
}

/// The same for a file that is there already.
#[cfg(feature = "sqlite")]
pub(super) fn tighten_at(path: &Path) {
    if let Ok(file) = File::open(path) {
        tighten(&file);
    }
}
