//! Bytes as hexadecimal digits: digests, and ids made of random bytes.

/// Writes two lower-case digits for each byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(digits(bytes).map(char::from));
    text
}

/// The digits that [`encode`] writes, in ASCII, for a caller that has a buffer.
pub fn digits(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]).filter_map(|half| DIGITS.get(usize::from(half)).copied())
}

/// Reads exactly `N` bytes, in digits of either case.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
        *byte = high? << 4 | low?;
    }
    Some(bytes)
}

/// Whether `text` has exactly `length` lower-case digits, as [`encode`] writes them.
#[must_use]
pub fn is_lower(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hex_every_byte_is_read_as_it_was_written() {
        let all: [u8; 256] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let text = encode(&all);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff") && is_lower(&text, 512));
        assert_eq!(decode(&text), Some(all));
        assert_eq!(decode(&text.to_uppercase()), Some(all));
    }

    #[test]
    fn hex_only_digits_of_the_length_are_read() {
        for text in ["", "0", "000", "0000", "+f", " f", "0x", "g0", "é"] {
            assert_eq!(decode::<1>(text), None, "{text}");
        }
        assert!(!is_lower("AB", 2) && !is_lower("ab", 3) && is_lower("", 0));
    }
}
