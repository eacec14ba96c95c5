//! What is a SPIFFE id, to the letter of the standard: nothing is decoded, folded or trimmed, so that no two texts are
//! the same workload.

/// Longest id (SPIFFE ID, section 2.3), and longest trust domain.
const MAX_BYTES: usize = 2048;
const MAX_DOMAIN_BYTES: usize = 255;

/// Whether `text` is the id of a workload: `spiffe://trust-domain/path`.
pub(super) fn is_workload(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    text.len() <= MAX_BYTES && is_trust_domain(domain) && path.split('/').all(is_segment)
}

/// Small letters, digits, `.`, `-`, `_`: no port, no user, no escapes.
pub(super) fn is_trust_domain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=MAX_DOMAIN_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

/// A part of the path: letters, digits, `.`, `-`, `_`; neither empty nor one of the two that lead elsewhere.
pub(super) fn is_segment(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_to_the_letter() {
        for good in ["spiffe://acme.example/a", "spiffe://a_b-1.c/ns/prod/sa/Web.Server-1_x", "spiffe://a/..."] {
            assert!(is_workload(good), "{good}");
        }
        let long_domain = format!("spiffe://{}/a", "a".repeat(256));
        let long = format!("spiffe://a/{}", "a".repeat(2038));
        for wrong in [
            "spiffe://acme.example",
            "spiffe://acme.example/",
            "spiffe://acme.example/a/",
            "spiffe://acme.example//a",
            "spiffe://acme.example/a/../b",
            "spiffe://acme.example/./a",
            "spiffe://user@acme.example/a",
            "spiffe://acme.example:443/a",
            "spiffe://Acme.example/a",
            "spiffe://acme.example/%61",
            "spiffe://acme.example/a?b",
            "spiffe://acme.example/a#b",
            "spiffe://acme.example/a b",
            "spiffe://acme.example/ä",
            "spiffe:///a",
            "SPIFFE://acme.example/a",
            "spiffe:acme.example/a",
            " spiffe://acme.example/a",
            "spiffe://acme.example/a\n",
            "https://acme.example/a",
            "",
            &long_domain,
            &long,
        ] {
            assert!(!is_workload(wrong), "{wrong}");
        }
    }
}
