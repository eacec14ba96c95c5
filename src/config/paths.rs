//! The data directory of a config file: its path begins at the directory of the file. In earlier versions it began at the
//! working directory of the server.

use std::path::{Path, PathBuf};

use super::ConfigError;

/// Files that show that a data directory is in use.
const KEPT: [&str; 6] =
    ["meters.db", "meters-0.log", "meters-redis.json", "keys.db", "tokens.db", "manifest-sequence.json"];

/// Refuses to start when `written`, relative to the working directory as in earlier versions, holds data and `data`
/// does not.
pub(super) fn check_data(data: &Path, written: &Path) -> Result<(), ConfigError> {
    let is_kept = |directory: &Path| KEPT.iter().any(|name| directory.join(name).exists());
    if is_same(data, written) || is_kept(data) || !is_kept(written) {
        return Ok(());
    }
    let shown = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let (new, old) = (shown(data), shown(written));
    Err(ConfigError::Refused(format!(
        "`data` in the config file is relative to that file, so that it names `{}`, which is empty; the existing \
         meters or keys are in `{}`. Move it there, or name it with an absolute path: `data: {}`",
        new.display(),
        old.display(),
        old.display()
    )))
}

fn is_same(left: &Path, right: &Path) -> bool {
    let real = |path: &Path| -> Option<PathBuf> { std::fs::canonicalize(path).ok() };
    left == right || real(left).is_some_and(|left| real(right) == Some(left))
}
