//! Patterns of model names, and which of many match a name.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

/// A model name with `*` in it, which never crosses a `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(pub(crate) SmolStr);

impl Pattern {
    /// Whether the fully qualified `name` is one of those meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        // With as many slashes in the name as in the pattern, no `*` is left a slash to cross.
        let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
        slashes(&self.0) == slashes(name) && wildcard(self.0.as_bytes(), name.as_bytes())
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Pattern {
    /// What the names that it matches have before the first slash; `None` where a `*` stands there.
    pub(super) fn account(&self) -> Option<&str> {
        self.0.split_once('/').map(|(account, _)| account).filter(|account| !account.contains('*'))
    }
}

/// Patterns with what each stands for. Of many, those of a model's account are looked at, and those of every account.
#[derive(Debug, Clone)]
pub struct Patterns<T> {
    of_accounts: HashMap<SmolStr, Vec<(Pattern, T)>, RandomState>,
    /// `None` matches every model.
    others: Vec<(Option<Pattern>, T)>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { of_accounts: HashMap::default(), others: Vec::new() }
    }
}

impl<T: Copy> Patterns<T> {
    /// Adds a pattern, or what stands for every model.
    pub fn add(&mut self, pattern: Option<Pattern>, of: T) {
        match pattern {
            Some(pattern) if pattern.account().is_some() => {
                let account = pattern.account().unwrap_or_default().into();
                self.of_accounts.entry(account).or_default().push((pattern, of));
            }
            pattern => self.others.push((pattern, of)),
        }
    }

    /// What those stand for that match `name`.
    pub fn matching(&self, name: &str) -> impl Iterator<Item = T> {
        let account = name.split_once('/').map_or("", |(account, _)| account);
        let of_account = self.of_accounts.get(account).map_or(&[] as &[_], Vec::as_slice);
        let of_account = of_account.iter().filter(move |(pattern, _)| pattern.matches(name)).map(|(_, of)| *of);
        let matches = move |pattern: &Option<Pattern>| pattern.as_ref().is_none_or(|pattern| pattern.matches(name));
        of_account.chain(self.others.iter().filter(move |(pattern, _)| matches(pattern)).map(|(_, of)| *of))
    }
}

/// Whether `text` matches `pattern`, in which `*` is any run of bytes. Linear in the text for each star.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&wanted) if wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_never_crosses_a_slash() {
        let matches = |pattern: &str, name: &str| Pattern(pattern.into()).matches(name);
        assert!(matches("*/llama-*", "meta/llama-3"));
        assert!(!matches("*/llama-*", "meta/x/llama-3"));
        assert!(!matches("*/llama-*", "meta/llama-3/x"));
        assert!(matches("a/*-b-*", "a/x-b-y-b-z"));
        assert!(!matches("openai/*", "openai-evil/x"));
        assert!(!matches("a*/b", "a/x/b"));
    }
}
