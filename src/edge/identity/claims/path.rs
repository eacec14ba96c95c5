//! Where in a token a claim stands.

use std::fmt;

use serde_json::{Map, Value};
use smol_str::SmolStr;

/// Most steps of a path.
const MAX_STEPS: usize = 16;

/// A way into nested claims: `sub`, `realm_access.roles`, `["https://example.com/roles"]`, `/a~1b/c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(Box<[SmolStr]>);

/// A text that is no such path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a claim is named by its path: `sub`, `realm_access.roles`, `[\"https://example.com/roles\"]` where a name has dots, or a \
     JSON pointer such as `/realm_access/roles`"
)]
pub struct PathError;

impl fmt::Display for ClaimPath {
    /// With dots between its steps, as people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            let dot = if at > 0 { "." } else { "" };
            write!(f, "{dot}{}", step.escape_debug())?;
        }
        Ok(())
    }
}

impl ClaimPath {
    /// The claim of this name, whatever is in it.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(Box::new([name.into()]))
    }

    /// Reads a path.
    ///
    /// # Errors
    /// Where the text is none.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let steps = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescaped).collect::<Option<Vec<_>>>().ok_or(PathError)?,
            None => dotted(text)?,
        };
        if steps.is_empty() || steps.len() > MAX_STEPS || steps.iter().any(SmolStr::is_empty) {
            return Err(PathError);
        }
        Ok(Self(steps.into()))
    }

    /// The first step.
    #[must_use]
    pub fn root(&self) -> &str {
        self.0.first().map_or("", SmolStr::as_str)
    }

    /// Whether it is the claim called `name` itself.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.0.len() == 1 && self.root() == name
    }

    /// Whether its last step is `name`.
    #[must_use]
    pub fn ends_with(&self, name: &str) -> bool {
        self.0.last().is_some_and(|last| last == name)
    }

    /// The value of the claim called `name` next to this one, null included.
    #[must_use]
    pub fn beside<'c>(&self, name: &str, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let (_, parents) = self.0.split_last()?;
        let mut members = claims;
        for step in parents {
            members = members.get(step.as_str())?.as_object()?;
        }
        members.get(name)
    }

    /// What stands there. What is null is not there.
    #[must_use]
    pub fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let (first, rest) = self.0.split_first()?;
        let start = claims.get(first.as_str())?;
        let found = rest.iter().try_fold(start, |value, step| value.as_object()?.get(step.as_str()))?;
        (!found.is_null()).then_some(found)
    }
}

/// A step of a JSON pointer (RFC 6901).
fn unescaped(step: &str) -> Option<SmolStr> {
    let wrong = step.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
    (!wrong).then(|| step.replace("~1", "/").replace("~0", "~").into())
}

fn dotted(text: &str) -> Result<Vec<SmolStr>, PathError> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let after = match rest.strip_prefix("[\"") {
            Some(quoted) => {
                let (name, after) = quoted.split_once("\"]").ok_or(PathError)?;
                steps.push(name.into());
                after
            }
            None => {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (name, after) = rest.split_at_checked(end).ok_or(PathError)?;
                steps.push(name.into());
                after
            }
        };
        rest = match after.strip_prefix('.') {
            Some("") => return Err(PathError),
            Some(next) => next,
            None if after.is_empty() || after.starts_with("[\"") => after,
            None => return Err(PathError),
        };
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_it_is_written() {
        for (text, steps) in [
            ("sub", Some(vec!["sub"])),
            ("realm_access.roles", Some(vec!["realm_access", "roles"])),
            ("[\"https://example.com/roles\"]", Some(vec!["https://example.com/roles"])),
            ("a[\"b.c\"].d", Some(vec!["a", "b.c", "d"])),
            ("/a~1b/c~0d", Some(vec!["a/b", "c~d"])),
            ("", None),
            ("a..b", None),
            ("a.", None),
            (".a", None),
            ("/", None),
            ("/a~2", None),
            ("[\"a\"", None),
            ("[a]", None),
        ] {
            let read =
                ClaimPath::parse(text).ok().map(|path| path.0.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(read, steps.map(|steps| steps.iter().map(ToString::to_string).collect()), "{text}");
        }
    }
}
