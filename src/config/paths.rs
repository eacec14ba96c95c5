//! Paths of a config file: relative ones begin at the directory of that file, wherever the server is started.

use std::path::{Path, PathBuf};

use super::ConfigError;
use super::node::NodeError;
use crate::policy::yaml::{Key, Kind, Node};

/// Members whose value is a path, in addition to those that end in `_file` or `_files`.
const PATHS: [&str; 3] = ["htpasswd", "file", "checkpoints"];
/// The member that holds the path where the value is an object: `file: { directory: … }`.
const DIRECTORY: &str = "directory";
/// Members with names of the operator's own in them, whatever those are like.
const OPEN: [&str; 4] = ["claims", "metadata", "require", "service_when"];
/// Files that show that a data directory is in use.
const KEPT: [&str; 6] =
    ["meters.db", "meters-0.log", "meters-redis.json", "keys.db", "tokens.db", "manifest-sequence.json"];

/// A section, with the paths in it resolved.
///
/// # Errors
/// Where the directory has a name that is not UTF-8, so that no text of the section can say it.
pub(super) fn resolved(node: &Node, base: &Path) -> Result<Node, NodeError> {
    if base.as_os_str().is_empty() {
        return Ok(node.clone());
    }
    let kind = match &node.kind {
        Kind::Sequence(items) => {
            Kind::Sequence(items.iter().map(|item| resolved(item, base)).collect::<Result<_, _>>()?)
        }
        Kind::Mapping(members) => {
            let mut resolved_members = Vec::with_capacity(members.len());
            for (key, value) in members {
                let value = match key.text.as_str() {
                    name if is_path(name) => path(value, base)?,
                    name if OPEN.contains(&name) => value.clone(),
                    _ => resolved(value, base)?,
                };
                resolved_members.push((key.clone(), value));
            }
            Kind::Mapping(resolved_members)
        }
        kind => kind.clone(),
    };
    Ok(Node { kind, ..node.clone() })
}

fn is_path(name: &str) -> bool {
    PATHS.contains(&name) || name.ends_with("_file") || name.ends_with("_files")
}

/// A path, or a list of them; a value of another form is left for its reader to refuse.
fn path(node: &Node, base: &Path) -> Result<Node, NodeError> {
    let kind = match &node.kind {
        Kind::Scalar(scalar) if !scalar.text.is_empty() => {
            let Some(text) = base.join(scalar.text.as_str()).to_str().map(Into::into) else {
                let message = "the directory of the config file has a name that is not UTF-8; write an absolute path";
                return Err(NodeError::of(node, message));
            };
            Kind::Scalar(crate::policy::yaml::Scalar { text, ..scalar.clone() })
        }
        Kind::Sequence(items) => Kind::Sequence(items.iter().map(|item| path(item, base)).collect::<Result<_, _>>()?),
        Kind::Mapping(members) => {
            let resolve = |(key, value): &(_, _)| Ok((Clone::clone(key), of_directory(key, value, base)?));
            Kind::Mapping(members.iter().map(resolve).collect::<Result<_, _>>()?)
        }
        kind => kind.clone(),
    };
    Ok(Node { kind, ..node.clone() })
}

/// Resolves the path in an object such as `file: { directory: … }`.
fn of_directory(key: &Key, value: &Node, base: &Path) -> Result<Node, NodeError> {
    if key.text == DIRECTORY { path(value, base) } else { Ok(value.clone()) }
}

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
