//! Text within JSON, for records and answers that are written byte by byte.

/// Appends `text` to `out`, escaped for use within a JSON string; the quotes are the caller's.
#[inline]
pub fn escape(text: &str, out: &mut Vec<u8>) {
    // It does not stop at the first match, so that the compiler can vectorize the loop.
    let special = |byte: u8| matches!(byte, 0..0x20 | b'"' | b'\\');
    if !text.bytes().fold(false, |any, byte| any | special(byte)) {
        return out.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
}
