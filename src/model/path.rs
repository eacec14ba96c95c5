//! Paths of a gateway's requests, in one normal form for conditions, keys and routes.
//!
//! Two readers may interpret one path in two ways: one decodes an escape, resolves `..`, joins `//` or cuts at `;`, and
//! the other does not (RFC 3986, sections 3.3 and 6.2.2). A decision about such a path could be about another path than
//! the one that is served, so it is refused.

use smol_str::SmolStr;

/// Longest path with its query, in bytes.
pub const MAX_PATH_BYTES: usize = 8 * 1024;

/// Texts that make a path ambiguous wherever they occur. A [`RequestPath`] never contains them. Conditions that are
/// compiled for other Cedar engines check for them explicitly.
pub const TWO_WAYS_WITHIN: [&str; 8] = ["%", "\\", "//", "/./", "/../", "?", "#", ";"];
/// The same at its end.
pub const TWO_WAYS_AT_END: [&str; 2] = ["/.", "/.."];

/// A path in normal form: it begins with `/`, has no escape, no empty or dot segment before its end, no `\ ? # ;`, no
/// control character, and no query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath(SmolStr);

/// Why a text is no path that every reader takes for the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("a path must begin with `/`")]
    Relative,
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("a path with its query may have at most {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// An escape that stays one: of a character that means something in a path, of no UTF-8, twice encoded, or broken.
    #[error(
        "a path must not have an escape (`%`) of `/`, `\\`, `.`, `%`, `?`, `#`, `;` or a control character, or a \
         broken one; \
         send the path as the client sent it"
    )]
    Escape,
    /// A control character, NUL too.
    #[error("a path must not have control characters")]
    Control,
    /// A character that some readers take for the end of the path, of a segment, or for a `/`.
    #[error("a path must not have a `\\`, `#` or `;`; a query may follow a `?`")]
    Delimiter,
    /// `//`.
    #[error("a path must not have a `//`")]
    EmptySegment,
    /// `.` or `..` as a segment.
    #[error("a path must not have a segment `.` or `..`")]
    DotSegment,
}

impl RequestPath {
    /// Reads a path as a client sent it, with or without its query: the query is cut off at the first `?`, and an escape
    /// of a character that means nothing in a path is decoded, once.
    ///
    /// # Errors
    /// Where two readers may take it for two different paths.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        let path = text.split_once('?').map_or(text, |(path, _query)| path);
        let path = if path.contains('%') { SmolStr::from(decoded(path)?) } else { SmolStr::new(path) };
        check(&path)?;
        let mut segments = path.split('/').skip(1);
        if segments.any(is_dots) {
            return Err(PathError::DotSegment);
        }
        Ok(Self(path))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path, to be kept.
    #[must_use]
    pub fn into_text(self) -> SmolStr {
        self.0
    }
}

/// A path, or how one begins, in the form that it is compared in: a segment at the end of a beginning is not complete, so
/// that `/v1/.` may begin `/v1/.well-known`.
///
/// # Errors
/// Where no [`RequestPath`] can be it, or begin with it.
pub fn normal_pattern(text: &str, is_beginning: bool) -> Result<SmolStr, PathError> {
    if text.contains('?') {
        return Err(PathError::Delimiter);
    }
    if !is_beginning {
        return RequestPath::parse(text).map(RequestPath::into_text);
    }
    let (complete, last) = text.rsplit_once('/').ok_or(PathError::Relative)?;
    // With a following character, the last segment does not consist of dots only.
    let whole = RequestPath::parse(&format!("{complete}/{last}x"))?;
    whole.0.strip_suffix('x').map(SmolStr::new).ok_or(PathError::Escape)
}

fn check(path: &str) -> Result<(), PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    if path.contains(['\\', '#', ';']) {
        return Err(PathError::Delimiter);
    }
    if path.contains("//") { Err(PathError::EmptySegment) } else { Ok(()) }
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// Each escape decoded, once.
fn decoded(path: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    let digit = |byte: Option<u8>| {
        let digit = char::from(byte?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else { return Err(PathError::Escape) };
        match high * 16 + low {
            b'/' | b'\\' | b'.' | b'%' | b'?' | b'#' | b';' | 0..0x20 | 0x7f => return Err(PathError::Escape),
            byte => bytes.push(byte),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| PathError::Escape)?;
    // This includes control characters beyond ASCII.
    if text.chars().any(char::is_control) { Err(PathError::Escape) } else { Ok(text) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_normal_form() {
        for (text, normal) in [
            ("/", "/"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/", "/v1/chat/"),
            ("/v1/%63hat", "/v1/chat"),
            ("/v1/a%20b", "/v1/a b"),
            ("/v1/%C3%A9", "/v1/é"),
            ("/v1/é", "/v1/é"),
            ("/v1/x%2A", "/v1/x*"),
            ("/model/a%3Ab", "/model/a:b"),
            ("/v1/files?x=/../%2e;#", "/v1/files"),
            ("/v1/...", "/v1/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/v1/a..b/.c", "/v1/a..b/.c"),
        ] {
            assert_eq!(RequestPath::parse(text).unwrap().as_str(), normal, "{text}");
        }
    }

    #[test]
    fn a_path_that_is_read_in_two_ways_is_none() {
        use PathError::{Control, Delimiter, DotSegment, EmptySegment, Escape, Relative, TooLong};
        for (text, error) in [
            ("", Relative),
            ("v1", Relative),
            ("http://x/v1", Relative),
            ("?x", Relative),
            ("/v1/emb/../files", DotSegment),
            ("/v1/.", DotSegment),
            ("/..", DotSegment),
            ("/./v1", DotSegment),
            ("//v1", EmptySegment),
            ("/v1//x", EmptySegment),
            ("/v1//", EmptySegment),
            ("/v1\\x", Delimiter),
            ("/v1;x", Delimiter),
            ("/v1#x", Delimiter),
            ("/v1/%2e%2e/x", Escape),
            ("/v1/%2E/x", Escape),
            ("/v1%2fx", Escape),
            ("/v1%5Cx", Escape),
            ("/v1/%252e", Escape),
            ("/v1/%3fx", Escape),
            ("/v1/%23", Escape),
            ("/v1/%3B", Escape),
            ("/v1/%00", Escape),
            ("/v1/%0a", Escape),
            ("/v1/%7f", Escape),
            ("/v1/%c2%85", Escape),
            ("/v1/%ff", Escape),
            ("/v1/%", Escape),
            ("/v1/%4", Escape),
            ("/v1/%zz", Escape),
            ("/v1/%+4", Escape),
            ("/v1/\n", Control),
            ("/v1/.\t./x", Control),
            ("/v1/\0", Control),
            ("/v1/\u{85}", Control),
            ("/v1?x=\n", Control),
        ] {
            assert_eq!(RequestPath::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(RequestPath::parse(&format!("/{}", "x".repeat(MAX_PATH_BYTES))), Err(TooLong));
    }

    #[test]
    fn a_pattern_is_in_the_form_that_it_is_compared_in() {
        for (text, is_beginning, normal) in [
            ("/v1/chat/", true, Some("/v1/chat/")),
            ("/", true, Some("/")),
            ("/v1/.", true, Some("/v1/.")),
            ("/v1/%41", true, Some("/v1/A")),
            ("/v1/%4", true, None),
            ("/v1/../", true, None),
            ("/v1//", true, None),
            ("/v1/.", false, None),
            ("/v1/%41", false, Some("/v1/A")),
            ("/v1/a?b", false, None),
            ("/v1/a?b", true, None),
            ("v1/", true, None),
            ("", true, None),
        ] {
            assert_eq!(normal_pattern(text, is_beginning).ok().as_deref(), normal, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_normal_holds_nothing_that_is_read_in_two_ways(text in "/([a-z./%;?#\\\\]|%[0-9a-f]{2}|\\PC){0,24}") {
            if let Ok(path) = RequestPath::parse(&text) {
                let path = path.as_str();
                prop_assert!(path.starts_with('/') && !path.chars().any(char::is_control));
                let within = TWO_WAYS_WITHIN.iter().any(|part| path.contains(part));
                prop_assert!(!within && !TWO_WAYS_AT_END.iter().any(|end| path.ends_with(end)), "{path}");
                // A normal path stays unchanged.
                let again = RequestPath::parse(path);
                prop_assert_eq!(again.as_ref().map(RequestPath::as_str), Ok(path));
            }
        }
    }
}
