//! A secret to sign with: never shown, and never a short one.

use std::fmt;

use aws_lc_rs::hmac;

use crate::model::hex;

/// Fewest bytes of a secret.
pub const MIN_SECRET_BYTES: usize = 16;

/// What alerts are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

/// A text that is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret must be {MIN_SECRET_BYTES} bytes long at least; `openssl rand -hex 32` makes a good one")]
pub struct SecretError;

impl Secret {
    /// A secret, without the space and the line breaks around it that files have.
    ///
    /// # Errors
    /// Where it is too short.
    pub fn new(text: &[u8]) -> Result<Self, SecretError> {
        let text = text.trim_ascii();
        if text.len() < MIN_SECRET_BYTES { Err(SecretError) } else { Ok(Self(text.into())) }
    }

    /// `t=<unix>,v1=<hex>`: the HMAC-SHA256 of the instant, a point and the body. The instant is part of it, so that who
    /// reads it can refuse what was sent long ago.
    #[must_use]
    pub fn signature(&self, unix: i64, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        signing.update(format!("{unix}.").as_bytes());
        signing.update(body);
        format!("t={unix},v1={}", hex::encode(signing.sign().as_ref()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_compute() {
        let secret = Secret::new(b" 0123456789abcdef\n").unwrap();
        assert_eq!(Secret::new(b"0123456789abcde\n"), Err(SecretError));
        assert!(!format!("{secret:?}").contains("0123"));
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
        assert_eq!(secret.signature(1_700_000_000, b"{}"), format!("t=1700000000,v1={expected}"));
    }
}
