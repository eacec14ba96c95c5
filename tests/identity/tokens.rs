//! Issuers that tests play: keys, their published sets, and tokens signed by them, good ones and odd ones.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::secret;

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

pub enum Key {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    P521(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Shared(String),
}

/// A key with its name.
pub struct Signer {
    pub kid: String,
    pub key: Key,
}

impl Signer {
    pub fn p256(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()) }
    }

    pub fn p384(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()) }
    }

    pub fn p521(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::P521(EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap()) }
    }

    pub fn ed(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    pub fn rsa(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub fn shared(text: &str) -> Self {
        Self { kid: String::new(), key: Key::Shared(text.to_owned()) }
    }

    pub fn algorithm(&self) -> &'static str {
        match self.key {
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::P521(_) => "ES512",
            Key::Ed(_) => "EdDSA",
            Key::Rsa(_) => "RS256",
            Key::Shared(_) => "HS256",
        }
    }

    /// The public key, as sets publish it.
    pub fn jwk(&self) -> Value {
        let (kid, alg) = (&self.kid, self.algorithm());
        let point = |key: &EcdsaKeyPair, curve: &str| {
            let point = key.public_key().as_ref();
            let (x, y) = point[1..].split_at((point.len() - 1) / 2);
            json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y), "kid": kid, "alg": alg, "use": "sig"})
        };
        match &self.key {
            Key::P256(key) => point(key, "P-256"),
            Key::P384(key) => point(key, "P-384"),
            Key::P521(key) => point(key, "P-521"),
            Key::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().as_ref()), "kid": kid, "alg": alg, "use": "sig"})
            }
            Key::Rsa(key) => {
                let public = key.public_key();
                let (n, e) = (
                    public.modulus().big_endian_without_leading_zero(),
                    public.exponent().big_endian_without_leading_zero(),
                );
                json!({"kty": "RSA", "n": b64(n), "e": b64(e), "kid": kid, "use": "sig"})
            }
            Key::Shared(text) => json!({"kty": "oct", "k": b64(text), "kid": kid}),
        }
    }

    pub fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::P256(key) | Key::P384(key) | Key::P521(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Ed(key) => key.sign(message).as_ref().to_vec(),
            Key::Rsa(key) => {
                let padding: &dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    "PS256" => &RSA_PSS_SHA256,
                    "RS512" => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Key::Shared(text) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
                hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }

    /// A token of these two texts, whatever they are.
    pub fn raw(&self, algorithm: &str, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(payload));
        let signature = b64(self.signature(algorithm, signed.as_bytes()));
        secret(format!("{signed}.{signature}"))
    }

    /// A token with this header.
    pub fn with(&self, header: &Value, claims: &Value) -> String {
        self.raw(header["alg"].as_str().unwrap_or_default(), &header.to_string(), &claims.to_string())
    }

    /// An honest token.
    pub fn token(&self, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT"});
        if !self.kid.is_empty() {
            header["kid"] = self.kid.clone().into();
        }
        self.with(&header, claims)
    }
}

/// The set that an issuer publishes.
pub fn set<'s>(signers: impl IntoIterator<Item = &'s Signer>) -> String {
    json!({"keys": signers.into_iter().map(Signer::jwk).collect::<Vec<_>>()}).to_string()
}

/// `claims` with what `change` says; null takes a claim away.
pub fn changed(claims: &Value, change: &Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
    }
    claims
}
