//! A token as it is sent (RFC 7515, compact), taken apart strictly: three parts, a header of JSON whose members stand once,
//! and nothing in it that would change what the signature means. Nothing of it is believed before a key has checked it.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::algorithm::Algorithm;
use crate::model::{Refusal, RefusalReason, strict_json};

/// The longest token that is parsed, which is also the longest credential.
pub const MOST_TOKEN_BYTES: usize = 16 * 1024;
/// Longest `kid`.
const MAX_KID: usize = 128;
/// Members of a header that would change how a token is read, or where its key comes from.
const REFUSED: &[&str] = &["crit", "b64", "zip", "enc", "cty", "jku", "jwk", "x5u", "x5c"];

/// A token in its parts.
#[derive(Debug)]
pub struct Jws<'t> {
    /// What it says of its signature.
    pub header: Header,
    /// What is signed: as it was sent.
    pub signed: &'t str,
    /// The signature, in base64url.
    pub signature: &'t str,
    payload: &'t str,
}

/// What a token says of its signature. Which algorithms a key takes is the key's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`.
    pub kid: Option<SmolStr>,
    /// `typ`, in small letters.
    pub typ: Option<SmolStr>,
}

/// Whether a text means to be such a token, a good one or not.
#[must_use]
pub fn looks_like(text: &str) -> bool {
    let Some((header, _)) = text.split_once('.') else { return false };
    let text = header.trim_end_matches('=');
    let decoded = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(header));
    decoded.is_ok_and(|bytes| bytes.trim_ascii_start().starts_with(b"{")) || header.starts_with("eyJ")
}

impl<'t> Jws<'t> {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// Where it is no token that could be good.
    pub fn parse(text: &'t str, most_bytes: usize) -> Result<Self, Refusal> {
        if text.len() > most_bytes {
            let length = text.len();
            return Err(malformed(format!("the token has {length} bytes, and the maximum is {most_bytes}")));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or_else(|| malformed("a token has three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("a token has three parts"))?;
        if payload.contains('.') {
            return Err(malformed("a token has three parts; encrypted tokens are not taken"));
        }
        let header = Header::read(&object(header, "the token's header")?)?;
        Ok(Self { header, signed, signature, payload })
    }

    /// The payload, as bytes.
    ///
    /// # Errors
    /// Where it is no base64url.
    pub fn payload(&self) -> Result<Vec<u8>, Refusal> {
        decoded(self.payload).ok_or_else(|| malformed("the token's payload is not base64url without padding"))
    }

    /// The claims, not checked yet.
    ///
    /// # Errors
    /// Where they are no JSON object whose members stand once.
    pub fn claims(&self) -> Result<Map<String, Value>, Refusal> {
        object(self.payload, "the token's payload")
    }
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Self, Refusal> {
        if REFUSED.iter().any(|name| header.contains_key(*name)) {
            return Err(untrusted(
                "the token's header has a member that this server does not take: critical extensions, compression, \
                 encryption, nested tokens and keys that a token brings along are refused",
            ));
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => Algorithm::named(name)
                .ok_or_else(|| untrusted("the algorithm in the token's header (`alg`) is not taken"))?,
            _ => return Err(malformed("the token's header has no `alg`")),
        };
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if (1..=MAX_KID).contains(&kid.len()) => Some(kid.into()),
            Some(_) => return Err(malformed("the token's `kid` is no text of 1 to 128 bytes")),
        };
        let typ = match header.get("typ") {
            None => None,
            Some(Value::String(typ)) => Some(typ.to_ascii_lowercase().into()),
            Some(_) => return Err(malformed("the token's `typ` is no text")),
        };
        Ok(Self { algorithm, kid, typ })
    }
}

fn object(part: &str, what: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = decoded(part).ok_or_else(|| malformed(format!("{what} is not base64url without padding")))?;
    match strict_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => Ok(members),
        // What the reader says would show some of it.
        _ => Err(malformed(format!("{what} is no JSON object whose members stand once"))),
    }
}

pub(super) fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalReason::Malformed, message)
}

fn untrusted(message: &str) -> Refusal {
    Refusal::new(RefusalReason::Untrusted, message)
}
