//! API keys: how one is written, `tg_<id>_<secret><checksum>`, and what is kept of it.
//!
//! The id is public and stays through rotation. The secret is 256 random bits as 43 characters of base62. The checksum, the
//! CRC-32 of what stands before it as 6 characters, is no proof: it lets scanners know a key, and a typo be told from a
//! wrong secret without looking anything up.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sha2::{Digest as _, Sha256};
use smol_str::SmolStr;

use super::facts::Timestamp;
use super::hex;
use super::identity::Narrowed;
use super::limit::KeyLimit;
use super::secret::SecretText;
use super::uid::{EntityUid, check_name};

/// What every refresh token of Tollgate's own begins with, so that scanners recognise it.
pub const REFRESH_TOKEN_PREFIX: &str = "tgr_";
/// What every key begins with.
pub const KEY_PREFIX: &str = "tg_";
/// How many characters a secret has.
const SECRET_LENGTH: usize = 43;
/// How many characters a checksum has.
const CHECKSUM_LENGTH: usize = 6;
/// How many characters the id of a key has that Tollgate makes.
const ID_LENGTH: usize = 12;
/// Longest id of a key, in bytes: those of a bundle are whatever it calls them.
pub const MAX_KEY_ID_BYTES: usize = 128;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key as somebody presents it, of the right form.
#[derive(Clone, Copy)]
pub struct KeyText<'a> {
    /// Its public id.
    pub id: &'a str,
    whole: &'a str,
}

/// A text that begins as a key and is none: cut off, mistyped, or with something around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key is not of the form tg_<id>_<secret and checksum>, or a character of it is wrong")]
pub struct NotAKey;

impl<'a> KeyText<'a> {
    /// Whether a text means to be a key.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(KEY_PREFIX)
    }

    /// Reads a key. Nothing is trimmed, and case matters.
    ///
    /// # Errors
    /// Where it is none, or its checksum is wrong.
    pub fn parse(text: &'a str) -> Result<Self, NotAKey> {
        let (before, secret) = text.rsplit_once('_').ok_or(NotAKey)?;
        let id = before.strip_prefix(KEY_PREFIX).ok_or(NotAKey)?;
        let is_secret = secret.len() == SECRET_LENGTH + CHECKSUM_LENGTH && secret.bytes().all(is_digit);
        if !is_secret || id.len() > MAX_KEY_ID_BYTES || check_name(id).is_err() {
            return Err(NotAKey);
        }
        let (body, checksum) = text.split_at_checked(text.len() - CHECKSUM_LENGTH).ok_or(NotAKey)?;
        if base62::<CHECKSUM_LENGTH, 1>([crc32(body.as_bytes())]).as_slice() != checksum.as_bytes() {
            return Err(NotAKey);
        }
        Ok(Self { id, whole: text })
    }

    /// The id of a text of the form of a key. Nothing else of it is looked at.
    #[must_use]
    pub fn id_of(text: &str) -> Option<&str> {
        let (before, _) = text.split_at_checked(text.len().checked_sub(1 + SECRET_LENGTH + CHECKSUM_LENGTH)?)?;
        before.strip_prefix(KEY_PREFIX)
    }

    /// The public id of a key as somebody may have sent it where none belongs: of one that is whole, or, cut short or
    /// mistyped, of one whose id has the form of those that are made here. Nothing else of such a text is public.
    #[must_use]
    pub fn public_id(text: &str) -> Option<&str> {
        if let Ok(key) = KeyText::parse(text) {
            return Some(key.id);
        }
        let (id, _) = text.strip_prefix(KEY_PREFIX)?.split_once('_')?;
        (id.len() == ID_LENGTH && id.bytes().all(is_digit)).then_some(id)
    }

    /// All of it, for whoever hashes it.
    #[must_use]
    pub fn expose(&self) -> &'a str {
        self.whole
    }
}

impl std::fmt::Debug for KeyText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyText").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The key of this id with this secret.
///
/// # Errors
/// Where the id is none that a key can have.
pub fn key_text(id: &str, secret: [u8; 32]) -> Result<SecretText, NotAKey> {
    let mut text = zeroize::Zeroizing::new(String::with_capacity(KEY_PREFIX.len() + id.len() + 50));
    text.push_str(KEY_PREFIX);
    text.push_str(id);
    text.push('_');
    let words = secret.as_chunks::<4>().0;
    let mut number = [0_u32; 8];
    for (word, bytes) in number.iter_mut().zip(words) {
        *word = u32::from_be_bytes(*bytes);
    }
    text.extend(base62::<SECRET_LENGTH, 8>(number).iter().map(|digit| char::from(*digit)));
    let checksum = base62::<CHECKSUM_LENGTH, 1>([crc32(text.as_bytes())]);
    text.extend(checksum.iter().map(|digit| char::from(*digit)));
    KeyText::parse(&text)?;
    Ok(SecretText::new(text.as_str()))
}

/// An id for a new key.
#[must_use]
pub fn key_id(random: [u8; 16]) -> SmolStr {
    let mut number = [0_u32; 4];
    for (word, bytes) in number.iter_mut().zip(random.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    base62::<ID_LENGTH, 4>(number).iter().map(|digit| char::from(*digit)).collect()
}

/// The last `N` digits of a number in base62, whose words stand most significant first.
fn base62<const N: usize, const WORDS: usize>(mut number: [u32; WORDS]) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u64;
        for word in &mut number {
            let dividend = (rest << 32) | u64::from(*word);
            // The quotient of less than 62 * 2^32 by 62 fits a word.
            *word = u32::try_from(dividend / 62).unwrap_or(u32::MAX);
            rest = dividend % 62;
        }
        *digit = usize::try_from(rest).ok().and_then(|rest| BASE62.get(rest)).copied().unwrap_or(b'0');
    }
    digits
}

const fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// CRC-32 as in IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let at = usize::from(crc.to_le_bytes()[0] ^ byte);
        CRC_TABLE.get(at).copied().unwrap_or(0) ^ (crc >> 8)
    };
    !bytes.iter().fold(!0, step)
}

const CRC_TABLE: [u32; 256] = crc_table();

#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which refuses what is out of bounds")]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of a table of 256")]
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
}

/// What a secret hashes to.
pub type KeyHash = [u8; 32];

/// What a key of a bundle hashes to: SHA-256 of all of it, so that `sha256sum` says the same on any machine. A secret of 256
/// random bits needs no pepper and no slow hash, since nobody can try them.
#[must_use]
pub fn bundle_key_hash(key: &KeyText<'_>) -> KeyHash {
    Sha256::digest(key.expose()).into()
}

/// Reads `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn parse_key_hash(text: &str) -> Option<KeyHash> {
    hex::decode(text.strip_prefix("sha256:")?)
}

/// Writes what [`parse_key_hash`] reads.
#[must_use]
pub fn key_hash_text(hash: &KeyHash) -> String {
    format!("sha256:{}", hex::encode(hash))
}

/// What is kept of a key. A million of them stay in memory, so what few have is elsewhere.
#[derive(Debug)]
pub struct KeyRecord {
    /// Its public id.
    pub id: SmolStr,
    /// Whose it is: a `User`, `Service`, `Team` or `Org`.
    pub owner: EntityUid,
    /// What its secret hashes to.
    pub hash: KeyHash,
    /// How often it was changed: who changes it names the version that was read.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, in milliseconds; 0 for never. To the minute.
    pub used_at: AtomicI64,
    /// What few keys have.
    pub more: Option<Box<KeyDetails>>,
}

/// What is said of a key besides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyDetails {
    /// Who made it.
    pub created_by: Option<EntityUid>,
    /// What its last secret hashed to, and until when that is taken too.
    pub previous: Option<(KeyHash, Timestamp)>,
    /// That it was revoked.
    pub revoked: Option<Revocation>,
    /// A pause: the key authenticates no request until the pause is lifted.
    pub disabled: Option<Pause>,
    /// Since when the bundle does not declare its owner.
    pub orphaned_at: Option<Timestamp>,
    /// What it is for.
    pub note: Option<SmolStr>,
    /// Tags of its own.
    pub tags: Box<[SmolStr]>,
    /// Roles of its own: Tollgate's.
    pub roles: Box<[SmolStr]>,
    /// What becomes `context.metadata`.
    pub metadata: Box<[(SmolStr, SmolStr)]>,
    /// The owner's attributes from the token of the key's maker, in addition to the bundle.
    pub inherited: Option<Box<Inherited>>,
    /// The team that pays for it.
    pub payer: Option<SmolStr>,
    /// What it is narrowed to.
    pub narrowed: Option<Arc<Narrowed>>,
    /// Its own limits.
    pub limits: Arc<[KeyLimit]>,
    /// Those as they were written, in JSON.
    pub limits_text: Option<Arc<str>>,
}

/// The attributes in the token of a person who made a key for themselves. The bundle does not give them to the owner,
/// so the key keeps them. Otherwise a forbid on a team would not apply to the keys of people who are in it through
/// their tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Teams, by id.
    pub teams: Box<[SmolStr]>,
    /// Orgs, by id.
    pub orgs: Box<[SmolStr]>,
    /// Roles, without Tollgate's own.
    pub roles: Box<[SmolStr]>,
    /// Tags.
    pub tags: Box<[SmolStr]>,
}

/// That a key was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Option<EntityUid>,
    /// The reason, if one was given.
    pub reason: Option<SmolStr>,
}

/// The pause of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// When.
    pub at: Timestamp,
    /// The person or service that paused it. Only they or an administrator lift the pause.
    pub by: EntityUid,
}

/// A minute, the grain of last uses.
const USE_GRAIN_MS: i64 = 60_000;

impl KeyRecord {
    /// Notes a use; true where it is worth writing down.
    pub fn use_at(&self, now: Timestamp) -> bool {
        let (before, now) = (self.used_at.load(Ordering::Relaxed), now.as_millis());
        // Of two at once, one notes it.
        now.saturating_sub(before) >= USE_GRAIN_MS
            && self.used_at.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// When it was last used.
    #[must_use]
    pub fn last_used(&self) -> Option<Timestamp> {
        Some(self.used_at.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Timestamp::from_millis)
    }

    /// Whether it has ended at `now` by its own end.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// Whether it ends later than at `end`, or never.
    #[must_use]
    pub fn lasts_beyond(&self, end: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| expires_at > end)
    }

    /// What is said of it besides; nothing, where that is nothing.
    #[must_use]
    pub fn details(&self) -> &KeyDetails {
        static NOTHING: std::sync::LazyLock<KeyDetails> = std::sync::LazyLock::new(KeyDetails::default);
        self.more.as_deref().unwrap_or(&NOTHING)
    }
}

impl Clone for KeyRecord {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            owner: self.owner.clone(),
            hash: self.hash,
            version: self.version,
            created_at: self.created_at,
            expires_at: self.expires_at,
            used_at: AtomicI64::new(self.used_at.load(Ordering::Relaxed)),
            more: self.more.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_checksum_is_the_one_that_others_work_out() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(base62::<6, 4>([0, 0, 0, 62 * 62 + 1]), *b"000101");
        let key = key_text("ci", [0; 32]).unwrap();
        assert_eq!(key.expose(), format!("tg_ci_{}", "0".repeat(43)) + "07FvUF");
        assert_eq!(key_text("ci", [255; 32]).unwrap().expose().len(), "tg_ci_".len() + 49);
    }

    #[test]
    fn of_a_key_in_the_wrong_place_its_id_is_public_and_nothing_else() {
        let whole = key_text("ci/cd", [7; 32]).unwrap();
        for (text, id) in [
            (whole.expose(), Some("ci/cd")),
            ("tg_3JxqPZ0aTn4L_cut-short", Some("3JxqPZ0aTn4L")),
            ("tg_3JxqPZ0aTn4L_", Some("3JxqPZ0aTn4L")),
            ("tg_3JxqPZ0aTn4L", None),
            ("tg_hunter2_x", None),
            ("tg_ci/cd_cut-short", None),
            ("tg_", None),
            ("tgr_3JxqPZ0aTn4L_x", None),
            (" tg_3JxqPZ0aTn4L_x", None),
            ("alice", None),
        ] {
            assert_eq!(KeyText::public_id(text), id, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_key_is_none() {
        let key = key_text("abc", [7; 32]).unwrap();
        let key = key.expose();
        assert_eq!(KeyText::parse(key).unwrap().id, "abc");
        let (cut, other) = (key.strip_suffix(|_: char| true).unwrap(), key.replace("abc", "abd"));
        for wrong in [
            "",
            "tg_",
            "tg__",
            "tg_abc",
            "tg_abc_",
            cut,
            &other,
            &key.to_uppercase(),
            &key.to_lowercase(),
            &format!(" {key}"),
            &format!("{key} "),
            &format!("{key}\n"),
            &format!("{key}\0"),
            &key.replacen("tg_", "tg-", 1),
            &key.replacen("tg_", "tg_\u{200B}", 1),
        ] {
            assert_eq!(KeyText::parse(wrong).err(), Some(NotAKey), "{wrong:?}");
        }
        assert!(key_text("", [0; 32]).is_err() && key_text(&"x".repeat(129), [0; 32]).is_err());
        assert!(!format!("{:?}", KeyText::parse(key).unwrap()).contains("0K"));
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let key = key_text("ci", [1; 32]).unwrap();
        let hash = bundle_key_hash(&KeyText::parse(key.expose()).unwrap());
        assert_eq!(parse_key_hash(&key_hash_text(&hash)), Some(hash));
        for wrong in ["", "sha256:", "sha256:00", "md5:00", &"0".repeat(64), &format!("sha256:{}", "g".repeat(64))] {
            assert_eq!(parse_key_hash(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_made_is_read(random: [u8; 16], secret: [u8; 32]) {
            let id = key_id(random);
            prop_assert!(id.len() == ID_LENGTH && id.bytes().all(is_digit));
            let key = key_text(&id, secret).unwrap();
            let read = KeyText::parse(key.expose()).unwrap();
            prop_assert_eq!(read.id, id.as_str());
            prop_assert_eq!(read.expose(), key.expose());
        }

        #[test]
        fn two_secrets_are_two_keys(one: [u8; 32], other: [u8; 32]) {
            let texts = [one, other].map(|secret| key_text("x", secret).unwrap());
            prop_assert_eq!(texts[0].expose() == texts[1].expose(), one == other);
        }

        #[test]
        fn one_wrong_character_is_noticed(secret: [u8; 32], at in 0_usize..64, to in "[0-9A-Za-z]") {
            let key = key_text("abcdefghijkl", secret).unwrap();
            let mut wrong = key.expose().to_owned();
            let at = at % wrong.len();
            wrong.replace_range(at..=at, &to);
            prop_assert_eq!(KeyText::parse(&wrong).is_ok(), wrong == key.expose());
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,90}", tail in "[_0-9A-Za-z]{0,60}") {
            let _read = KeyText::parse(&text);
            let _read = KeyText::parse(&format!("tg_{text}_{tail}"));
        }
    }
}
