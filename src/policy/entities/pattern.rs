//! Patterns of names in a namespace, such as those of models, and which of many match a name.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use crate::model::Kind;

/// A name of one kind of resource with `*` in it, which never crosses a `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    kind: Kind,
    text: SmolStr,
}

impl Pattern {
    /// The pattern for resources of this kind.
    #[must_use]
    pub const fn new(kind: Kind, text: SmolStr) -> Self {
        Self { kind, text }
    }

    /// The kind of resource that it matches.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it matches the resource of this kind with the fully qualified `name`.
    #[must_use]
    pub fn matches(&self, kind: Kind, name: &str) -> bool {
        // With as many slashes in the name as in the pattern, no `*` is left a slash to cross.
        let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
        kind == self.kind && slashes(&self.text) == slashes(name) && wildcard(self.text.as_bytes(), name.as_bytes())
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Pattern {
    /// What the names that it matches have before the first slash; `None` where a `*` stands there.
    pub(super) fn account(&self) -> Option<&str> {
        self.text.split_once('/').map(|(account, _)| account).filter(|account| !account.contains('*'))
    }
}

/// Patterns with a value for each. Looking up a name compares it with the patterns of its namespace (a model's account)
/// and with those that are of every namespace.
#[derive(Debug, Clone)]
pub struct Patterns<T> {
    of_accounts: HashMap<SmolStr, Vec<(Pattern, T)>, RandomState>,
    others: Vec<(Names, T)>,
}

/// Names that a list of resources may mean without an entity of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Every name of the kind.
    Every(Kind),
    /// Names that the pattern matches.
    Matching(Pattern),
}

impl Names {
    /// The kind of resource that has the names.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Every(kind) => *kind,
            Self::Matching(pattern) => pattern.kind(),
        }
    }

    /// The pattern, unless every name is meant.
    #[must_use]
    pub const fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::Every(_) => None,
            Self::Matching(pattern) => Some(pattern),
        }
    }

    /// Whether the resource of this kind and name is meant.
    #[must_use]
    pub fn contain(&self, kind: Kind, name: &str) -> bool {
        match self {
            Self::Every(of) => *of == kind,
            Self::Matching(pattern) => pattern.matches(kind, name),
        }
    }
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { of_accounts: HashMap::default(), others: Vec::new() }
    }
}

impl<T: Copy> Patterns<T> {
    /// Adds a value for these names.
    pub fn add(&mut self, names: Names, of: T) {
        match names {
            Names::Matching(pattern) if pattern.account().is_some() => {
                let account = pattern.account().unwrap_or_default().into();
                self.of_accounts.entry(account).or_default().push((pattern, of));
            }
            names => self.others.push((names, of)),
        }
    }

    /// The values for the resource of this kind and name.
    pub fn matching(&self, kind: Kind, name: &str) -> impl Iterator<Item = T> {
        let account = name.split_once('/').map_or("", |(account, _)| account);
        let of_account = self.of_accounts.get(account).map_or(&[] as &[_], Vec::as_slice);
        let of_account = of_account.iter().filter(move |(pattern, _)| pattern.matches(kind, name)).map(|(_, of)| *of);
        of_account.chain(self.others.iter().filter(move |(names, _)| names.contain(kind, name)).map(|(_, of)| *of))
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
        let matches = |pattern: &str, name: &str| Pattern::new(Kind::MODEL, pattern.into()).matches(Kind::MODEL, name);
        assert!(matches("*/llama-*", "meta/llama-3"));
        assert!(!matches("*/llama-*", "meta/x/llama-3"));
        assert!(!matches("*/llama-*", "meta/llama-3/x"));
        assert!(matches("a/*-b-*", "a/x-b-y-b-z"));
        assert!(!matches("openai/*", "openai-evil/x"));
        assert!(!matches("a*/b", "a/x/b"));
    }

    /// Without this, a rule about models would also decide about another kind of resource with a similar name.
    #[test]
    fn names_are_of_one_kind() {
        let mut patterns = Patterns::default();
        patterns.add(Names::Every(Kind::MODEL), 1);
        patterns.add(Names::Matching(Pattern::new(Kind::MODEL, "*/b".into())), 2);
        patterns.add(Names::Matching(Pattern::new(Kind::MODEL, "a/*".into())), 3);
        patterns.add(Names::Every(Kind::ROUTER), 4);
        assert_eq!(patterns.matching(Kind::MODEL, "a/b").collect::<Vec<_>>(), [3, 1, 2]);
        assert_eq!(patterns.matching(Kind::ROUTER, "a/b").collect::<Vec<_>>(), [4]);
    }
}
