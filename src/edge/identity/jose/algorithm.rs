//! What tokens are signed with (RFC 7518, section 3.1, and RFC 8037).

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, ParsedPublicKey};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::verify;

use super::jws::decoded;

/// An algorithm that is taken. `none` is no algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are called as RFC 7518 calls them")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    pub(super) const HS: [Self; 3] = [Self::HS256, Self::HS384, Self::HS512];
    pub(super) const RSA: [Self; 6] = [Self::RS256, Self::RS384, Self::RS512, Self::PS256, Self::PS384, Self::PS512];

    /// The one that a header or a key calls so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::HS256,
            "HS384" => Self::HS384,
            "HS512" => Self::HS512,
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "ES512" => Self::ES512,
            // RFC 9864 gives the curve a name of its own.
            "EdDSA" | "Ed25519" => Self::EdDSA,
            _ => return None,
        })
    }

    /// Whether it is for secrets that an issuer shares, and not for public keys.
    #[must_use]
    pub fn is_of_secrets(self) -> bool {
        Self::HS.contains(&self)
    }

    /// As the library calls it, which has no ES512.
    const fn of_library(self) -> Option<jsonwebtoken::Algorithm> {
        Some(match self {
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
            Self::HS384 => jsonwebtoken::Algorithm::HS384,
            Self::HS512 => jsonwebtoken::Algorithm::HS512,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::ES512 => return None,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        })
    }
}

/// What signatures are checked with.
#[derive(Clone)]
pub(super) enum Material {
    /// A key that the library knows.
    Library(DecodingKey),
    /// One of P-521, which the library does not know.
    P521(Arc<ParsedPublicKey>),
}

impl Material {
    /// Of an uncompressed point of P-521; `None` where that is none.
    pub(super) fn of_p521(point: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).ok().map(|key| Self::P521(Arc::new(key)))
    }

    /// Whether `signature` is that of `signed` (in Base64, as the token has it).
    pub(super) fn signed(&self, signature: &str, signed: &[u8], algorithm: Algorithm) -> bool {
        match (self, algorithm.of_library()) {
            (Self::Library(key), Some(algorithm)) => verify(signature, signed, key, algorithm) == Ok(true),
            (Self::P521(key), None) => {
                decoded(signature).is_some_and(|signature| key.verify_sig(signed, &signature).is_ok())
            }
            _ => false,
        }
    }
}
