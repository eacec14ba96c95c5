//! What is kept of a password: an argon2id hash in the PHC form, whose cost is neither a gift to whoever finds it nor a
//! bomb for whoever checks it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use smol_str::SmolStr;

use super::facts::Timestamp;
use super::uid::EntityUid;

/// Least memory.
pub const MIN_MEMORY_KIB: u32 = 7 * 1024;
/// Least memory times passes: the weakest that OWASP's password storage cheat sheet still names (7 MiB, 5 passes).
pub const MIN_COST_KIB: u32 = 5 * MIN_MEMORY_KIB;
/// Most memory.
pub const MAX_MEMORY_KIB: u32 = 64 * 1024;
/// Most passes over it.
pub const MAX_PASSES: u32 = 10;
/// Most lanes.
pub const MAX_LANES: u32 = 4;
/// Bytes of a salt, and of the digest.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
const DIGEST_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// Longest text; what follows from the numbers above, with some room.
const MAX_TEXT_BYTES: usize = 256;

/// An argon2id hash.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(SmolStr);

/// A password that a store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordRecord {
    /// Whose it is.
    pub principal: EntityUid,
    /// What is kept of it.
    pub hash: PasswordHash,
    /// When it was set.
    pub changed_at: Timestamp,
}

/// What an argon2id hash says.
#[derive(Clone, PartialEq, Eq)]
pub struct Argon2id {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// The salt.
    pub salt: Vec<u8>,
    /// What a right password comes to.
    pub digest: Vec<u8>,
}

/// Why a text is no hash that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    /// Not of the form at all; a password itself, perhaps.
    #[error("it is no argon2id hash")]
    Form,
    /// Of another function.
    #[error("it is a hash of `{0}`, and only argon2id is taken here")]
    Function(&'static str),
    /// Of a version before the one of RFC 9106.
    #[error("it is of another version than 19 (`v=19`)")]
    Version,
    /// Too quickly tried out.
    #[error(
        "it is too cheap to try out: {memory_kib} KiB and {passes} passes, where {MIN_MEMORY_KIB} KiB and passes times \
         memory of {MIN_COST_KIB} KiB are the least"
    )]
    Cheap {
        /// Its memory.
        memory_kib: u32,
        /// Its passes.
        passes: u32,
    },
    /// Whoever checks it would be busy with nothing else.
    #[error(
        "it costs too much to check: at most {MAX_MEMORY_KIB} KiB, {MAX_PASSES} passes and {MAX_LANES} lanes are taken"
    )]
    Bomb,
}

impl PasswordHash {
    /// Reads `$argon2id$v=19$m=19456,t=2,p=1$salt$digest`.
    ///
    /// # Errors
    /// With what is wrong with it, none of it shown.
    pub fn parse(text: &str) -> Result<Self, PasswordHashError> {
        read(text)?;
        Ok(Self(text.into()))
    }

    /// Writes what was computed.
    ///
    /// # Errors
    /// Where it costs too little or too much.
    pub fn of(hash: &Argon2id) -> Result<Self, PasswordHashError> {
        let Argon2id { memory_kib, passes, lanes, salt, digest } = hash;
        let (salt, digest) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(digest));
        Self::parse(&format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${digest}"))
    }

    /// The text, for whoever keeps it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What checking it costs, as it says itself: all before its salt.
    #[must_use]
    pub fn cost(&self) -> &str {
        self.0.rsplitn(3, '$').last().unwrap_or(&self.0)
    }

    /// A hash of this cost that nobody's password comes to; `None` never, of what was parsed.
    #[must_use]
    pub fn of_nobody(&self) -> Option<Self> {
        let mut parts = self.parts().ok()?;
        parts.salt.fill(0);
        parts.digest.fill(0);
        Self::of(&parts).ok()
    }

    /// What it says.
    ///
    /// # Errors
    /// Never, of what was parsed.
    pub fn parts(&self) -> Result<Argon2id, PasswordHashError> {
        read(&self.0)
    }
}

fn read(text: &str) -> Result<Argon2id, PasswordHashError> {
    use PasswordHashError::{Bomb, Cheap, Form, Function, Version};
    if text.len() > MAX_TEXT_BYTES {
        return Err(Form);
    }
    let mut parts = text.split('$');
    let ("", Some(function)) = (parts.next().unwrap_or_default(), parts.next()) else { return Err(Form) };
    match function {
        "argon2id" => {}
        "argon2i" | "argon2d" => return Err(Function(if function == "argon2i" { "argon2i" } else { "argon2d" })),
        "2a" | "2b" | "2x" | "2y" => return Err(Function("bcrypt")),
        "apr1" | "1" => return Err(Function("md5crypt")),
        "5" | "6" => return Err(Function("sha-crypt")),
        "scrypt" | "7" => return Err(Function("scrypt")),
        "y" => return Err(Function("yescrypt")),
        _ => return Err(Form),
    }
    let [Some(version), Some(costs), Some(salt), Some(digest), None] =
        [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()]
    else {
        return Err(Form);
    };
    if version != "v=19" {
        return Err(Version);
    }
    let mut costs = costs.split(',');
    let mut cost = |name: &str| {
        let digits = costs.next()?.strip_prefix(name)?.strip_prefix('=')?;
        let plain = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        // What does not fit a number is a bomb all the same.
        plain.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let (Some(memory_kib), Some(passes), Some(lanes)) = (cost("m"), cost("t"), cost("p")) else { return Err(Form) };
    if costs.next().is_some() {
        return Err(Form);
    }
    if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
        return Err(Bomb);
    }
    if memory_kib < MIN_MEMORY_KIB || memory_kib.saturating_mul(passes) < MIN_COST_KIB {
        return Err(Cheap { memory_kib, passes });
    }
    let bytes = |text: &str, within: std::ops::RangeInclusive<usize>| {
        STANDARD_NO_PAD.decode(text).ok().filter(|bytes| within.contains(&bytes.len())).ok_or(Form)
    };
    let (salt, digest) = (bytes(salt, SALT_BYTES)?, bytes(digest, DIGEST_BYTES)?);
    Ok(Argon2id { memory_kib, passes, lanes, salt, digest })
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl fmt::Debug for Argon2id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kib, passes, lanes, salt: _, digest: _ } = self;
        write!(f, "Argon2id {{ memory_kib: {memory_kib}, passes: {passes}, lanes: {lanes}, … }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn a_hash_is_taken_within_its_bounds() {
        use PasswordHashError::{Bomb, Cheap, Form, Function, Version};
        let with = |costs: &str| PasswordHash::parse(&format!("$argon2id$v=19${costs}${TAIL}")).err();
        for good in ["m=19456,t=2,p=1", "m=7168,t=5,p=1", "m=65536,t=1,p=4", "m=65536,t=10,p=1"] {
            assert_eq!(with(good), None, "{good}");
        }
        for (costs, error) in [
            ("m=4194304,t=2,p=1", Bomb),
            ("m=65537,t=2,p=1", Bomb),
            ("m=19456,t=11,p=1", Bomb),
            ("m=19456,t=1000000,p=1", Bomb),
            ("m=19456,t=99999999999999999999,p=1", Bomb),
            ("m=19456,t=2,p=5", Bomb),
            ("m=7168,t=4,p=1", Cheap { memory_kib: 7168, passes: 4 }),
            ("m=8,t=10,p=1", Cheap { memory_kib: 8, passes: 10 }),
            ("m=19456,t=0,p=1", Form),
            ("m=19456,t=+2,p=1", Form),
            ("m=19456,t=2", Form),
            ("m=19456,t=2,p=1,keyid=a", Form),
            ("t=2,m=19456,p=1", Form),
        ] {
            assert_eq!(with(costs), Some(error), "{costs}");
        }
        let costs = "m=19456,t=2,p=1";
        for (text, error) in [
            ("hunter2".to_owned(), Form),
            (String::new(), Form),
            (format!("$argon2id$v=16${costs}${TAIL}"), Version),
            (format!("$argon2id${costs}${TAIL}"), Form),
            (format!("$argon2i$v=19${costs}${TAIL}"), Function("argon2i")),
            ("$2y$10$abcdefghijklmnopqrstuv".to_owned(), Function("bcrypt")),
            ("$apr1$abc$def".to_owned(), Function("md5crypt")),
            (format!("$argon2id$v=19${costs}$c2FsdA$AAAA"), Form),
            (format!("$argon2id$v=19${costs}${TAIL}=="), Form),
            (format!("$argon2id$v=19${costs}${TAIL}$x"), Form),
            (format!(" $argon2id$v=19${costs}${TAIL}"), Form),
            (format!("$argon2id$v=19${costs}${}", "A".repeat(300)), Form),
        ] {
            assert_eq!(PasswordHash::parse(&text).err(), Some(error), "{text}");
        }
    }

    #[test]
    fn what_is_read_is_what_was_written_and_is_not_shown() {
        let text = format!("$argon2id$v=19$m=19456,t=2,p=1${TAIL}");
        let hash = PasswordHash::parse(&text).unwrap();
        let parts = hash.parts().unwrap();
        assert_eq!(PasswordHash::of(&parts).unwrap().expose(), text);
        assert_eq!(hash.cost(), "$argon2id$v=19$m=19456,t=2,p=1");
        let nobody = hash.of_nobody().unwrap();
        assert_eq!((nobody.cost(), nobody.expose().len()), (hash.cost(), text.len()));
        assert!(!nobody.expose().contains("c29t"));
        let shown = format!("{hash:?} {parts:?}");
        assert!(!shown.contains("c29t") && !shown.contains("115"), "{shown}");
    }
}
