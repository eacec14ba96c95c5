//! Keys that tokens are checked with. A key says itself which algorithms it is for; a token only picks among those.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::algorithm::{Algorithm, Material};
use super::jws::Jws;
use crate::model::{Refusal, RefusalReason, strict_json};

/// Most keys of a set.
const MAX_KEYS: usize = 100;
/// Most keys that a token may be tried with: those of its `kid`, and those for every `kid`. A set with more is refused,
/// so that each of its keys counts, and a made-up token costs no more than so many looks at its signature.
pub const MAX_ALIKE: usize = 16;
/// Fewest bits of an RSA key's modulus.
const MIN_RSA_BITS: usize = 2048;
/// What sequences and integers begin with in DER (X.690, section 8).
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// What an uncompressed point of an elliptic curve begins with (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Fewest bytes of a shared secret.
const MIN_SECRET_BYTES: usize = 32;

/// What checks the signatures of an issuer's tokens.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    /// How many of a published set are of no use here.
    passed_over: usize,
}

#[derive(Clone)]
struct Key {
    kid: Option<SmolStr>,
    /// Whether it is for tokens of every `kid`: its owner configured it by itself.
    any_kid: bool,
    algorithms: Vec<Algorithm>,
    material: Material,
}

/// Why there are no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The set is no JSON Web Key Set (RFC 7517).
    #[error("it is no JSON Web Key Set: {0}")]
    Form(&'static str),
    /// A PEM file with anything but public keys that are taken.
    #[error(
        "its PEM blocks have to be public keys, RSA (2048 bits at least), P-256, P-384, P-521 or Ed25519, and nothing else"
    )]
    Pem,
    /// Neither a set nor PEM.
    #[error(
        "it is neither a JSON Web Key Set nor a file with public keys in PEM: no line begins with `-----BEGIN PUBLIC KEY-----`"
    )]
    Nothing,
    /// A token could be any of too many keys'.
    #[error(
        "a token could be of more than {MAX_ALIKE} keys: those of one `kid`, and those in PEM, are {MAX_ALIKE} at most"
    )]
    Alike,
    /// A short secret.
    #[error("a secret for HS256 has {MIN_SECRET_BYTES} bytes at least; `openssl rand -hex 32` makes a good one")]
    Secret,
}

impl KeySet {
    /// The keys of a published set. Those of no use are passed over: for encryption, too short, symmetric, private.
    ///
    /// # Errors
    /// Where it is no such set.
    pub fn of_jwks(text: &[u8]) -> Result<Self, KeyError> {
        ready();
        let set = strict_json::from_slice(text).map_err(|_| KeyError::Form("no JSON whose members stand once"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeyError::Form("`keys` is no list"))?;
        if keys.len() > MAX_KEYS {
            return Err(KeyError::Form("more than 100 keys"));
        }
        let read: Vec<Key> = keys.iter().filter_map(|key| Key::of_jwk(key.as_object()?)).collect();
        Self { passed_over: keys.len() - read.len(), keys: read }.bounded()
    }

    /// The keys of a file, a published set or PEM.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn of_file(text: &[u8]) -> Result<Self, KeyError> {
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        if text.trim_ascii_start().starts_with(b"{") { Self::of_jwks(text) } else { Self::of_pem(text) }
    }

    /// Reads public keys from one or more PEM blocks; each key verifies tokens of every `kid`. Text around the blocks
    /// is a comment (RFC 7468, section 2).
    ///
    /// # Errors
    /// Where there is none, too many, or anything else than keys that are taken.
    pub fn of_pem(text: &[u8]) -> Result<Self, KeyError> {
        ready();
        let blocks = pem_blocks(&String::from_utf8_lossy(text)).ok_or(KeyError::Pem)?;
        if blocks.is_empty() {
            return Err(KeyError::Nothing);
        }
        let keys: Option<Vec<Key>> = blocks.iter().map(|block| Key::of_pem(block.as_bytes())).collect();
        let keys = keys.ok_or(KeyError::Pem)?;
        Self { keys, passed_over: 0 }.bounded()
    }

    /// A secret that the issuer shares with this server.
    ///
    /// # Errors
    /// Where it is short.
    pub fn of_secret(bytes: &[u8]) -> Result<Self, KeyError> {
        ready();
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(KeyError::Secret);
        }
        let (algorithms, material) = (Algorithm::HS.to_vec(), Material::Library(DecodingKey::from_secret(bytes)));
        let key = Key { kid: None, any_kid: true, algorithms, material };
        Ok(Self { keys: vec![key], passed_over: 0 })
    }

    /// The keys of both.
    ///
    /// # Errors
    /// Where a token could then be of too many.
    pub fn and(mut self, other: Self) -> Result<Self, KeyError> {
        self.keys.extend(other.keys);
        self.passed_over += other.passed_over;
        self.bounded()
    }

    fn bounded(self) -> Result<Self, KeyError> {
        let tried = |kid: &Option<SmolStr>| self.keys.iter().filter(|key| key.is_for(kid.as_ref())).count();
        let fits = self.keys.iter().all(|key| tried(&key.kid) <= MAX_ALIKE);
        if fits { Ok(self) } else { Err(KeyError::Alike) }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many of a published set are of no use here.
    #[must_use]
    pub fn passed_over(&self) -> usize {
        self.passed_over
    }

    /// Whether a key of this set signed the token, with an algorithm of that key's and of `allowed`.
    ///
    /// # Errors
    /// With the reason, where none did.
    pub fn check(&self, token: &Jws<'_>, allowed: Option<&[Algorithm]>) -> Result<(), Unsigned> {
        let algorithm = token.header.algorithm;
        let named = |key: &&Key| key.is_for(token.header.kid.as_ref());
        let mut found = self.keys.iter().filter(named).peekable();
        if found.peek().is_none() {
            return Err(Unsigned::UnknownKey);
        }
        let fits = |key: &&Key| key.algorithms.contains(&algorithm);
        let mut tried = found.filter(fits).peekable();
        if tried.peek().is_none() || allowed.is_some_and(|allowed| !allowed.contains(&algorithm)) {
            return Err(Unsigned::Algorithm);
        }
        let signed = |key: &Key| key.material.signed(token.signature, token.signed.as_bytes(), algorithm);
        if tried.any(signed) { Ok(()) } else { Err(Unsigned::Wrong) }
    }
}

/// That no key of a set signed a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// The set has no such key.
    UnknownKey,
    /// The key is not for that algorithm.
    Algorithm,
    /// The signature is not the key's.
    Wrong,
}

impl From<Unsigned> for Refusal {
    fn from(unsigned: Unsigned) -> Self {
        match unsigned {
            Unsigned::UnknownKey => Self::new(RefusalReason::Wrong, "no key of the token's issuer has its `kid`"),
            Unsigned::Algorithm => Self::new(RefusalReason::Untrusted, "the token's key is not for its algorithm"),
            Unsigned::Wrong => Self::new(RefusalReason::Wrong, "the token's signature is not its issuer's"),
        }
    }
}

impl Key {
    /// Whether a token with this `kid`, or without one, may be its.
    fn is_for(&self, kid: Option<&SmolStr>) -> bool {
        self.any_kid || self.kid.as_ref() == kid
    }

    fn of_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).map_or(Some(None), |value| value.as_str().map(Some));
        if jwk.contains_key("d") || jwk.contains_key("k") {
            return None;
        }
        if text("use")?.is_some_and(|is_for| is_for != "sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops")
            && !operations.as_array()?.iter().any(|operation| operation == "verify")
        {
            return None;
        }
        let (key, family) = Self::material(text("kty")??, &text)?;
        let algorithms = match text("alg")? {
            None => family.to_vec(),
            Some(name) => vec![Algorithm::named(name).filter(|algorithm| family.contains(algorithm))?],
        };
        Some(Self { kid: text("kid")?.map(SmolStr::new), any_kid: false, algorithms, material: key })
    }

    fn material<'j>(
        kind: &str,
        text: &impl Fn(&str) -> Option<Option<&'j str>>,
    ) -> Option<(Material, &'static [Algorithm])> {
        match kind {
            "RSA" => {
                let (n, e) = (text("n")??, text("e")??);
                let bytes = URL_SAFE_NO_PAD.decode(n).ok()?;
                let key = DecodingKey::from_rsa_components(n, e).ok()?;
                (bits(&bytes) >= MIN_RSA_BITS).then_some((Material::Library(key), &Algorithm::RSA))
            }
            "EC" => {
                let (x, y) = (text("x")??, text("y")??);
                let (bytes, algorithms): (_, &[Algorithm]) = match text("crv")?? {
                    "P-256" => (32, &[Algorithm::ES256]),
                    "P-384" => (48, &[Algorithm::ES384]),
                    "P-521" => (66, &[Algorithm::ES512]),
                    _ => return None,
                };
                let whole = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().filter(|part| part.len() == bytes);
                let (whole_x, whole_y) = (whole(x)?, whole(y)?);
                let key = match algorithms {
                    [Algorithm::ES512] => Material::of_p521(&[&[UNCOMPRESSED], &*whole_x, &*whole_y].concat())?,
                    _ => Material::Library(DecodingKey::from_ec_components(x, y).ok()?),
                };
                Some((key, algorithms))
            }
            "OKP" => {
                let x = text("x")??;
                let whole = URL_SAFE_NO_PAD.decode(x).is_ok_and(|x| x.len() == 32);
                let key = DecodingKey::from_ed_components(x).ok()?;
                (whole && text("crv")?? == "Ed25519").then_some((Material::Library(key), &[Algorithm::EdDSA]))
            }
            _ => None,
        }
    }

    fn of_pem(text: &[u8]) -> Option<Self> {
        let any = |material, algorithms: &[Algorithm]| Self {
            kid: None,
            any_kid: true,
            algorithms: algorithms.to_vec(),
            material,
        };
        if let Ok(key) = DecodingKey::from_ed_pem(text) {
            return Some(any(Material::Library(key), &[Algorithm::EdDSA]));
        }
        if let Ok(key) = DecodingKey::from_ec_pem(text) {
            let point = key.try_get_as_bytes().ok()?;
            // An uncompressed point: a byte, and two coordinates.
            return Some(match point.len() {
                65 => any(Material::Library(key), &[Algorithm::ES256]),
                97 => any(Material::Library(key), &[Algorithm::ES384]),
                133 => any(Material::of_p521(point)?, &[Algorithm::ES512]),
                _ => return None,
            });
        }
        let key = DecodingKey::from_rsa_pem(text).ok()?;
        let is_long = bits(modulus(key.try_get_as_bytes().ok()?)?) >= MIN_RSA_BITS;
        is_long.then(|| any(Material::Library(key), &Algorithm::RSA))
    }
}

/// Each block of PEM, from its first line to its last (RFC 7468). Other lines are passed over, a block that was commented
/// out among them. `None` where a block does not end.
fn pem_blocks(text: &str) -> Option<Vec<String>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut block = format!("{line}\n");
        loop {
            let line = lines.next()?;
            block.push_str(line);
            block.push('\n');
            if line == end {
                break;
            }
        }
        blocks.push(block);
    }
    Some(blocks)
}

/// The modulus of an `RSAPublicKey` in DER, its first member (RFC 8017, appendix A.1.1).
fn modulus(der: &[u8]) -> Option<&[u8]> {
    contents(contents(der, SEQUENCE)?, INTEGER)
}

/// What a value in DER holds, where it begins with `tag`.
fn contents(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (_, rest) = der.split_first().filter(|(found, _)| **found == tag)?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ ..0x80 => (usize::from(short), rest),
        long => {
            let (digits, rest) =
                rest.split_at_checked(usize::from(long & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    rest.get(..length)
}

/// How many bits a number has, its highest byte first.
fn bits(number: &[u8]) -> usize {
    let mut digits = number.iter().skip_while(|byte| **byte == 0);
    let highest = digits.next().map_or(0, |byte| 8 - byte.leading_zeros());
    digits.count() * 8 + usize::try_from(highest).unwrap_or(0)
}

/// Says which cryptography checks signatures; without it the library refuses to guess where a program has several.
pub(in crate::edge::identity) fn ready() {
    // Somebody else's choice stands.
    let _already = aws_lc::DEFAULT_PROVIDER.install_default();
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<_> = self.keys.iter().map(|key| (&key.kid, &key.algorithms)).collect();
        f.debug_struct("KeySet").field("keys", &kids).field("passed_over", &self.passed_over).finish()
    }
}
