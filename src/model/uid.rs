//! Who and what: entity uids, parsed once and then trusted.

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;

/// Longest entity id or type that a request or bundle may hold, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// The uid of a Cedar entity: a type and an id, compared exactly.
///
/// Written `User::"alice"`, as in Cedar's policy syntax.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityUid {
    kind: SmolStr,
    id: SmolStr,
}

/// Why a text is no entity uid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// The text does not have the form `Type::"id"`.
    #[error("`{text}` is not an entity uid; write it as Type::\"id\", for example User::\"alice\"")]
    Form {
        /// The text, cut to a length fit for a message.
        text: String,
    },
    /// The type is no Cedar path such as `User` or `Docs::File`.
    #[error("`{kind}` is not an entity type; a type is a name such as User or Docs::File")]
    Type {
        /// The type as given, cut to a length fit for a message.
        kind: String,
    },
    /// The id holds what no name may hold.
    #[error("{0}")]
    Name(#[from] NameError),
}

/// Why a text may not name anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name needs at least one character.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("a name may be {MAX_NAME_BYTES} bytes long at most; this one has {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A model's name with an empty segment, `.` or `..`.
    #[error("the name of a model must not have an empty segment, `.` or `..` between its slashes")]
    Segment,
    /// A control, bidirectional or zero-width character.
    #[error("a name must not hold {what} (U+{:04X})", u32::from(*character))]
    Character {
        /// The character.
        character: char,
        /// What kind of character that is.
        what: &'static str,
    },
}

/// Checks that `name` may name an entity: not empty, at most [`MAX_NAME_BYTES`], and without characters that
/// a reader cannot see.
///
/// # Errors
/// The first thing wrong with it.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { length: name.len() });
    }
    // Nearly every name is printable ASCII, and this is on the way of each request.
    if name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    for character in name.chars() {
        if let Some(what) = unseen(character) {
            return Err(NameError::Character { character, what });
        }
    }
    Ok(())
}

/// Checks that `name` may name a model, or be a pattern of such names: gateways put it into the path of a provider, where an
/// empty segment, `.` or `..` leads to another model than the one that was decided about. Readers of URLs take `\` for `/`,
/// and `%2e` for `.`.
///
/// # Errors
/// The first thing wrong with it.
pub fn check_model_name(name: &str) -> Result<(), NameError> {
    check_name(name)?;
    let is_plain = |segment: &str| !segment.is_empty() && !is_dots(segment);
    if name.split(['/', '\\']).all(is_plain) { Ok(()) } else { Err(NameError::Segment) }
}

/// Whether a segment is `.` or `..`, in whatever spelling.
fn is_dots(segment: &str) -> bool {
    let (mut rest, mut dots) = (segment, 0);
    while !rest.is_empty() {
        let after = ["%2e", "%2E"].into_iter().find_map(|dot| rest.strip_prefix(dot));
        let Some(after) = after.or_else(|| rest.strip_prefix('.')) else { return false };
        rest = after;
        dots += 1;
    }
    matches!(dots, 1 | 2)
}

fn unseen(character: char) -> Option<&'static str> {
    match character {
        '\u{200B}'..='\u{200D}' | '\u{2060}'..='\u{2064}' | '\u{FEFF}' | '\u{00AD}' | '\u{034F}' | '\u{180E}' => {
            Some("a zero-width character")
        }
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{206F}' => {
            Some("a bidirectional control character")
        }
        '\u{2028}' | '\u{2029}' => Some("a line separator"),
        '\u{FE00}'..='\u{FE0F}' | '\u{E0000}'..='\u{E0FFF}' => Some("an invisible selector"),
        _ if character.is_control() => Some("a control character"),
        _ => None,
    }
}

impl EntityUid {
    /// A uid from its two parts.
    ///
    /// # Errors
    /// When the type is no Cedar path or the id no name ([`check_name`]).
    pub fn new(kind: impl Into<SmolStr>, id: impl Into<SmolStr>) -> Result<Self, UidError> {
        let (kind, id) = (kind.into(), id.into());
        if !is_type(&kind) {
            return Err(UidError::Type { kind: shortened(&kind) });
        }
        check_name(&id)?;
        Ok(Self { kind, id })
    }

    /// A uid whose parts were checked before.
    // INVARIANT: `kind` is a Cedar path; ids of native entities may hold anything that Cedar takes.
    pub(crate) fn trusted(kind: impl Into<SmolStr>, id: impl Into<SmolStr>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }

    /// The uid of an entity as Cedar names it. Its id may hold what [`check_name`] refuses: an entity of a JSON file is
    /// called what the file calls it.
    #[must_use]
    pub fn of_native(uid: &cedar_policy::EntityUid) -> Self {
        Self::trusted(uid.type_name().to_string(), uid.id().unescaped())
    }

    /// The entity type, `User` or `Docs::File`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The id within the type.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn id_smol(&self) -> &SmolStr {
        &self.id
    }
}

fn is_type(kind: &str) -> bool {
    // Nearly every type is a plain name, and this is on the way of each request.
    if kind.len() <= MAX_NAME_BYTES && kind.bytes().all(|byte| byte.is_ascii_alphabetic()) && !kind.is_empty() {
        return true;
    }
    kind.len() <= MAX_NAME_BYTES
        && kind.split("::").all(|part| {
            part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
}

/// `text` cut to what a message may hold.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 120;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

impl FromStr for EntityUid {
    type Err = UidError;

    /// Parses Cedar's form, `Type::"id"`, with Cedar's escapes in the id.
    fn from_str(text: &str) -> Result<Self, UidError> {
        let form = || UidError::Form { text: shortened(text) };
        let (kind, quoted) = text.split_once("::\"").ok_or_else(form)?;
        let inner = quoted.strip_suffix('"').ok_or_else(form)?;
        if inner.contains(['"', '\\']) {
            let parsed = cedar_policy::EntityUid::from_str(text).map_err(|_| form())?;
            return Self::new(kind.trim(), parsed.id().unescaped());
        }
        Self::new(kind, inner)
    }
}

impl fmt::Display for EntityUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The same, without a look at each character.
        let plain = |byte: u8| (0x20..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\'' | b'\\');
        if self.id.bytes().all(plain) {
            return write!(f, "{}::\"{}\"", self.kind, self.id);
        }
        write!(f, "{}::\"{}\"", self.kind, self.id.escape_debug())
    }
}

impl fmt::Debug for EntityUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_model_steps_nowhere() {
        for name in
            ["a", "a/b", "a/b/c", "a/...", "a/..b", "a/.b", "a/b:0", "a/b.c", "*", "a/*", "*/b-*", "a/%2e%2e%2e"]
        {
            assert_eq!(check_model_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "a/./b",
            "a/../b",
            "..",
            ".",
            "a/..",
            "./a",
            "a\\..\\b",
            "a/%2e%2E/b",
            "a/.%2e",
            "a/%2e",
        ] {
            assert!(check_model_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn uids_read_as_cedar_reads_them() {
        let uid: EntityUid = r#"Docs::File::"a \"b\" c""#.parse().unwrap();
        assert_eq!((uid.kind(), uid.id()), ("Docs::File", "a \"b\" c"));
        assert_eq!(uid.to_string(), r#"Docs::File::"a \"b\" c""#);
        for bad in [
            "",
            "alice",
            "User::alice",
            "User::\"a",
            "1User::\"a\"",
            "User::\"\"",
            "User::\"a\u{200B}\"",
            "User::\"a\"b\"",
        ] {
            assert!(bad.parse::<EntityUid>().is_err(), "{bad} was taken");
        }
    }
}
