//! Files that lie in a bundle's directory, are not read, and look as if they were meant to be.
//!
//! A forbid in `deny.YAML` does not hold. The names and contents that lead to such a mistake are known, so the mistake is
//! reported. Hidden files are left out on purpose, and never reported.

use std::sync::Arc;

use super::bundle::FileKind;
use super::parse::SECTIONS;
use super::problem::{Problem, ProblemCode, edit_distance};
use super::syntax::Place;

/// Most files that are reported one by one.
pub const MOST_SKIPPED: usize = 100;
/// How much of a JSON file is searched for keys.
pub const SEARCHED_BYTES: usize = 1 << 20;
/// The endings of the files that are read.
const ENDINGS: [&str; 4] = ["yaml", "yml", "cedar", "cedarschema"];
/// The ending of files of entities.
const ENTITIES: &str = ".entities.json";
/// A key of policies in Cedar's JSON form.
const CEDAR_JSON: &str = "staticPolicies";

/// Why a file is not read although it looks like policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// The ending is not in lower case, or has spaces around it.
    Spelling,
    /// The name goes on after the ending.
    LongerName,
    /// The ending is one edit away from one that is read.
    NearMiss {
        /// The ending that is read.
        ending: &'static str,
    },
    /// A JSON file with a key of a policy file.
    PolicyKey {
        /// The key.
        key: &'static str,
    },
    /// A JSON file that holds entities in Cedar's form.
    Entities,
    /// A directory that is named like a file.
    Directory,
}

/// A file that is not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SkippedFile {
    /// Its path in the bundle.
    pub path: Arc<str>,
    /// Why it is not read.
    pub reason: SkipReason,
}

/// The conclusion from the name of a file that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameSays {
    /// The name is like that of a policy file.
    Skipped(SkipReason),
    /// The content has to be searched: [`of_json`].
    Json,
    /// The file has nothing to do with the bundle.
    Unrelated,
}

/// The conclusion from the name of the file at `path`, if [`FileKind::of`] does not know it.
#[must_use]
pub fn of_name(path: &str) -> NameSays {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    if FileKind::of(name.trim()).is_some() {
        return NameSays::Skipped(SkipReason::Spelling);
    }
    if name.find(ENTITIES).and_then(|at| name.get(at + ENTITIES.len()..)).is_some_and(goes_on) {
        return NameSays::Skipped(SkipReason::LongerName);
    }
    let mut parts = name.split('.').skip(1).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        for ending in ENDINGS {
            let Some(rest) = part.strip_prefix(ending) else { continue };
            if (rest.is_empty() && !is_last) || goes_on(rest) {
                return NameSays::Skipped(SkipReason::LongerName);
            }
        }
        if is_last {
            return of_last_ending(part.trim());
        }
    }
    NameSays::Unrelated
}

fn of_last_ending(ending: &str) -> NameSays {
    if matches!(ending, "json" | "jsonc" | "json5") {
        return NameSays::Json;
    }
    // `.xml` and `.yml` are one edit apart.
    let near = ENDINGS.into_iter().find(|known| known.len() > 3 && edit_distance(known, ending) == 1);
    near.map_or(NameSays::Unrelated, |ending| NameSays::Skipped(SkipReason::NearMiss { ending }))
}

/// Whether `rest`, behind an ending, is something that people add to the name of a file that they put aside.
fn goes_on(rest: &str) -> bool {
    rest.chars().next().is_some_and(|first| !first.is_alphanumeric())
}

/// Whether the beginning of a JSON file shows that it was meant as policy.
#[must_use]
pub fn of_json(bytes: &[u8]) -> Option<SkipReason> {
    let bytes = bytes.get(..SEARCHED_BYTES).unwrap_or(bytes);
    let text = readable(bytes);
    if text.trim_start().starts_with('[') {
        return keys(&text, 2).iter().any(|key| key.name == "uid").then_some(SkipReason::Entities);
    }
    let found = keys(&text, 1);
    let known = SECTIONS.iter().copied().chain([CEDAR_JSON]);
    let key = known.into_iter().find(|known| found.iter().any(|key| key.name == *known))?;
    // A set of public keys (RFC 7517) has such a member too.
    let is_jwks = key == "keys" && text.contains("\"kty\"");
    (!is_jwks).then_some(SkipReason::PolicyKey { key })
}

/// The readable part of a text in any encoding: for UTF-16 the ASCII characters, without the byte order mark.
pub(super) fn readable(bytes: &[u8]) -> String {
    let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).trim_start_matches(['\u{FEFF}', '\u{FFFD}']).to_owned()
}

/// A key, and the offset at which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundKey<'a> {
    pub(super) name: &'a str,
    pub(super) offset: usize,
}

/// The keys of `text` that stand within `depth` brackets of which the first begins a line, or, where `depth` is 1, at the
/// beginning of a line outside of any. The text need not be valid JSON or YAML, nor a single document.
pub(super) fn keys(text: &str, depth: usize) -> Vec<FoundKey<'_>> {
    let (mut found, mut level, mut at) = (Vec::new(), 0_usize, 0);
    // Where in a line: at its beginning, or behind spaces alone; and whether the outermost bracket began one.
    let (mut line_begins, mut is_blank, mut is_outermost) = (true, true, false);
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(at).copied() {
        let here = (level == depth && is_outermost) || (depth == 1 && level == 0 && line_begins);
        if level == 0 && matches!(byte, b'{' | b'[') {
            is_outermost = is_blank;
        }
        line_begins = byte == b'\n';
        is_blank = line_begins || (is_blank && byte.is_ascii_whitespace());
        let token = token(text, at);
        match byte {
            b'{' | b'[' => level += 1,
            b'}' | b']' => level = level.saturating_sub(1),
            // In JSON it is an error, and in YAML a comment.
            b'#' if at == 0 || bytes.get(at - 1).is_some_and(u8::is_ascii_whitespace) => {
                at += text.get(at..).and_then(|rest| rest.find('\n')).unwrap_or(bytes.len() - at);
                continue;
            }
            _ => {}
        }
        let Some((name, length)) = token else {
            at += 1;
            continue;
        };
        let follows = text.get(at + length..).unwrap_or_default().trim_start_matches([' ', '\t']);
        if here && follows.starts_with(':') {
            found.push(FoundKey { name, offset: at });
        }
        at += length;
    }
    found
}

/// The text or word that begins at `at`, and how many bytes it takes.
fn token(text: &str, at: usize) -> Option<(&str, usize)> {
    let rest = text.get(at..)?;
    let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
    if let Some(quote) = quote {
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, next)| {
            let ends = *next == quote && !escaped;
            escaped = *next == '\\' && !escaped && quote == '"';
            ends || *next == '\n'
        });
        // A quote within a plain text begins nothing.
        let (end, _) = end.filter(|(_, last)| *last == quote)?;
        return Some((rest.get(1..end)?, end + 1));
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = rest.bytes().take_while(is_word).count();
    (length > 0).then(|| (rest.get(..length).unwrap_or_default(), length))
}

impl SkippedFile {
    /// A file that is not read, from its path and content; `None` where it is read, or unrelated.
    #[must_use]
    pub fn of(path: &str, bytes: &[u8]) -> Option<Self> {
        if FileKind::of(path).is_some() {
            return None;
        }
        let reason = match of_name(path) {
            NameSays::Skipped(reason) => reason,
            NameSays::Json => of_json(bytes)?,
            NameSays::Unrelated => return None,
        };
        Some(Self { path: path.into(), reason })
    }

    /// The warning that it is not read.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let aside = "or move it out of the bundle's directory";
        let (message, help) = match &self.reason {
            SkipReason::Spelling => (
                "this file is not read: its ending differs in case or spaces from those that are read".to_owned(),
                format!("write the ending in lower case, without spaces, {aside}"),
            ),
            SkipReason::LongerName => (
                "this file is not read: its name goes on after the ending of a policy file".to_owned(),
                format!("rename it so that the ending comes last, {aside}"),
            ),
            SkipReason::NearMiss { ending } => (
                format!("this file is not read: its ending is nearly `.{ending}`"),
                format!("did you mean `.{ending}`? Rename it, {aside}"),
            ),
            SkipReason::PolicyKey { key } => (
                format!("this file is not read, and it holds `{key}`, which is policy"),
                if *key == CEDAR_JSON {
                    format!("write the policies as Cedar text in a `.cedar` file, {aside}")
                } else {
                    format!("JSON is valid YAML: rename it so that it ends in `.yaml`, {aside}")
                },
            ),
            SkipReason::Entities => (
                "this file is not read, and it looks like entities in Cedar's JSON form".to_owned(),
                format!("rename it so that it ends in `.entities.json`, {aside}"),
            ),
            SkipReason::Directory => (
                "this is a directory, and its name is that of a policy file".to_owned(),
                "a container runtime makes an empty directory where a file that is to be mounted does not exist: check the \
                 mount, or rename the directory"
                    .to_owned(),
            ),
        };
        Problem::warning(ProblemCode::FileSkipped, &self.path, Place::default(), message).with_help(help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_that_policy_was_meant() {
        use SkipReason::{LongerName, NearMiss, Spelling};
        let skipped = |name: &str, reason| assert_eq!(of_name(name), NameSays::Skipped(reason), "{name}");
        for name in
            ["deny.YAML", "eu/deny.Yml", "deny.CEDAR", "X.CedarSchema", "a.Entities.JSON", "a.yaml ", "a_TEST.YML"]
        {
            skipped(name, Spelling);
        }
        for name in [
            "rules.yaml.bak",
            "rules.yml.orig",
            "rules.YAML.2026-01-01.old",
            "rules.cedar.disabled",
            "rules.yaml~",
            "#rules.yaml#",
            "rules.yaml (1)",
            "rules.yaml-old",
            "rules.cedarschema.json",
            "rules.cedar.json",
            "people.entities.json.bak",
            "people.entities.json~",
        ] {
            skipped(name, LongerName);
        }
        skipped("rules.yamll", NearMiss { ending: "yaml" });
        skipped("rules.ymal", NearMiss { ending: "yaml" });
        skipped("rules.ceder", NearMiss { ending: "cedar" });
        for name in ["README.md", "yaml", "yaml.txt", "a.xml", "a.toml", "a.yamlfmt", "cedar", "rules", "a.sh", "é.ñ"]
        {
            assert_eq!(of_name(name), NameSays::Unrelated, "{name}");
        }
        for name in ["deny.json", "deny.JSON", "deny.jsonc"] {
            assert_eq!(of_name(name), NameSays::Json, "{name}");
        }
    }

    #[test]
    fn the_keys_of_a_json_file_show_that_policy_was_meant() {
        for (text, key) in [
            (r#"{"authz_rules": []}"#, Some("authz_rules")),
            ("\u{FEFF}{ \"a\": \"}\", 'limits' : [] }", Some("limits")),
            ("{\n  // kept\n  users: [a]\n}", Some("users")),
            ("authz_rules:\n  - { id: deny }\n", Some("authz_rules")),
            ("# no JSON\n\"teams\":\n", Some("teams")),
            ("{\"staticPolicies\": {}}", Some("staticPolicies")),
            ("{\"authz_rules\": [", Some("authz_rules")),
            ("{\"data\": {\"authz_rules\": []}}", None),
            ("{\"note\": \"authz_rules:\"}", None),
            ("{\"keys\": [{\"kty\": \"RSA\"}]}", None),
            ("{\"keys\": [{\"id\": \"ci\"}]}", Some("keys")),
            ("", None),
            ("\"authz_rules", None),
            ("a: \"torn\nlimits: []\n", Some("limits")),
            ("a: 1\n---\n {limits: []}", Some("limits")),
            ("- { limits: [] }\nb: { limits: [] }\n", None),
        ] {
            let expected = key.map(|key| SkipReason::PolicyKey { key });
            assert_eq!(of_json(text.as_bytes()), expected, "{text}");
        }
        let utf16: Vec<u8> = "\u{FEFF}{\"limits\": []}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(of_json(&utf16), Some(SkipReason::PolicyKey { key: "limits" }));
        let entities = br#"[{"uid": {"type": "User", "id": "a"}, "attrs": {}, "parents": []}]"#;
        assert_eq!(of_json(entities), Some(SkipReason::Entities));
        assert_eq!(of_json(b"[{\"a\": {\"uid\": 1}}]"), None);
    }
}
