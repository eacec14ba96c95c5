//! Paths of a gateway's requests: which of them two readers may take for two different ones.

/// What makes a path be read in two ways wherever it stands: one reader takes it as it is, another decodes it, steps up or
/// cuts it off (RFC 3986, sections 3.3 and 6.2.2).
pub const TWO_WAYS_WITHIN: [&str; 8] = ["%", "\\", "//", "/./", "/../", "?", "#", ";"];
/// The same at its end.
pub const TWO_WAYS_AT_END: [&str; 2] = ["/.", "/.."];

/// Whether two readers may take `path` for two different ones. Such a path fits no pattern, and no route: what decides
/// would see one, and what serves another.
#[must_use]
pub fn is_read_in_two_ways(path: &str) -> bool {
    TWO_WAYS_WITHIN.iter().any(|part| path.contains(part)) || TWO_WAYS_AT_END.iter().any(|end| path.ends_with(end))
}
