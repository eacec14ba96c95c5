//! Names and proofs of passwords (RFC 7616): SHA-256 and `qop=auth` alone. What is kept is `H(name:realm:password)`, which
//! is as good as the password in its realm; argon2 hashes cannot serve here.
//!
//! What is hard about it: a proof must hold once. Nonces are signed and end after a while, so that none need be kept
//! before it was used; of those that were used it is known which counts came. Only rightful users fill that memory, and
//! where it is full, the oldest nonces end early.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use smol_str::SmolStr;

use super::named::Named;
use super::watched::{FileError, Watched};
use crate::edge::random;
use crate::gate::{Authenticator, Credential, Described, Later, Presented, Verdict};
use crate::model::hex;
use crate::model::{AuthMethod, EntityUid, Identity, Refusal, RefusalReason, SecretText, Timestamp, check_name};
use crate::policy::Snapshot;

/// For how long a nonce holds.
const NONCE_MS: i64 = 300_000;
/// Most nonces of which counts are kept.
const MOST_NONCES: usize = 10_000;
/// Longest header, and most parameters in it.
const MAX_BYTES: usize = 4 * 1024;
const MAX_PARAMETERS: usize = 16;
/// Bytes of a nonce before its signature: when it was made, and chance.
const STAMP_BYTES: usize = 16;
/// Bytes of its signature.
const TAG_BYTES: usize = 16;

/// A file of `name:realm:H(name:realm:password)` lines, SHA-256 in hex, as htdigest writes with MD5.
pub struct DigestFile {
    realm: String,
    names: Watched<SecretText>,
}

impl DigestFile {
    /// Reads the file, whose lines are all of `realm`.
    ///
    /// # Errors
    /// With the first line that is not taken.
    pub fn open(path: impl Into<PathBuf>, realm: &str) -> Result<Self, FileError> {
        let realm = realm.to_owned();
        let of = realm.clone();
        Ok(Self { realm, names: Watched::open(path.into(), Box::new(move |line| entry(line, &of)))? })
    }
}

fn entry(line: &str, realm: &str) -> Result<(SmolStr, SecretText), String> {
    let mut parts = line.split(':');
    let [Some(name), Some(of), Some(hash), None] = [parts.next(), parts.next(), parts.next(), parts.next()] else {
        return Err("a line is a name, a realm and a digest, with colons between".to_owned());
    };
    check_name(name).map_err(|error| error.to_string())?;
    if of != realm {
        return Err(format!("the realm that is served is `{realm}`; this line is of another"));
    }
    let is_hex = hex::is_lower(hash, hash.len());
    match hash.len() {
        64 if is_hex => Ok((name.into(), SecretText::new(hash))),
        32 if is_hex => Err("MD5 is broken; the digest is SHA-256 of `name:realm:password` in small hex".to_owned()),
        _ => Err("the digest is SHA-256 of `name:realm:password` in small hex".to_owned()),
    }
}

/// Knows names and what their passwords come to.
pub struct DigestProvider {
    name: String,
    file: DigestFile,
    key: hmac::Key,
    used: Mutex<Used>,
}

/// Counts that came, by nonce, and nonces by when they were made.
#[derive(Default)]
struct Used {
    counts: HashMap<[u8; STAMP_BYTES], Counts>,
    by_age: BTreeSet<[u8; STAMP_BYTES]>,
    /// Nonces made before this have ended.
    ended_before: i64,
}

/// The highest count that came, and which of the 63 below it.
#[derive(Clone, Copy, Default)]
struct Counts {
    highest: u32,
    seen: u64,
}

impl DigestProvider {
    /// Called `name`, for those in the file.
    ///
    /// # Errors
    /// Where there are no random numbers.
    pub fn new(name: String, file: DigestFile) -> std::io::Result<Self> {
        let mut key = [0; 32];
        random::fill(&mut key);
        Ok(Self { name, file, key: hmac::Key::new(hmac::HMAC_SHA256, &key), used: Mutex::default() })
    }

    /// A nonce that holds from `now` on.
    fn nonce(&self, now: Timestamp) -> String {
        let chance: [u8; 8] = random::bytes();
        let mut nonce = now.as_millis().to_be_bytes().to_vec();
        nonce.extend_from_slice(&chance);
        let tag = hmac::sign(&self.key, &nonce);
        nonce.extend(tag.as_ref().iter().take(TAG_BYTES));
        URL_SAFE_NO_PAD.encode(nonce)
    }

    /// When a nonce of ours was made; `None` of another.
    fn made(&self, nonce: &str) -> Option<([u8; STAMP_BYTES], i64)> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let (stamp, tag) = bytes.split_at_checked(STAMP_BYTES)?;
        let computed = hmac::sign(&self.key, stamp);
        verify_slices_are_equal(computed.as_ref().get(..TAG_BYTES)?, tag).ok()?;
        let (millis, _) = stamp.split_first_chunk::<8>()?;
        Some((stamp.try_into().ok()?, i64::from_be_bytes(*millis)))
    }

    fn check(&self, text: &str, request: &Described, now: Timestamp) -> Result<EntityUid, Refusal> {
        let malformed = || Refusal::new(RefusalReason::Malformed, WRONG);
        let said = Said::read(text, &self.file.realm).ok_or_else(malformed)?;
        let target = match request.query.as_str() {
            "" => request.path.to_string(),
            query => format!("{}?{query}", request.path),
        };
        // A proof for one request is none for another.
        if said.uri != target {
            return Err(malformed());
        }
        let known = self.file.names.known(Some(now)).get(said.username.as_str()).cloned();
        // Of a name that nobody has, something else is computed that nobody can send; for all, so that each costs the same.
        let decoy = SecretText::new(hex::encode(hmac::sign(&self.key, said.username.as_bytes()).as_ref()));
        let exists = known.is_some();
        let expected = SecretText::new(said.response_for(&known.unwrap_or(decoy), &request.method));
        if !expected.is(&SecretText::new(said.response.as_str())) || !exists {
            let named = if exists { Named::Known(&said.username) } else { Named::Unknown(&said.username) };
            return Err(named.told_in(Refusal::new(RefusalReason::Wrong, WRONG)));
        }
        // Who knows the password guesses at nothing, also with a nonce of another process or of the one before (RFC 7616,
        // section 3.3: a stale nonce, and the same password again).
        let holds =
            self.made(&said.nonce).is_some_and(|(stamp, made)| self.used.lock().take(stamp, made, said.count, now));
        if !holds {
            return Err(Refusal::new(RefusalReason::Expired, "the nonce has ended; answer the new one"));
        }
        EntityUid::new("User", said.username.as_str()).map_err(|_| malformed())
    }
}

impl Authenticator for DigestProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, presented: &Presented, _: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let Credential::Digest { parameters: text, .. } = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        let checked = self.check(text.expose(), &presented.request, now);
        Later::ready(
            checked.map_or_else(Verdict::Refused, |user| {
                Verdict::Proved(Arc::new(Identity::new(user, AuthMethod::Digest)))
            }),
        )
    }

    fn challenge(&self, now: Timestamp) -> Option<String> {
        let (realm, nonce) = (&self.file.realm, self.nonce(now));
        Some(format!("Digest realm=\"{realm}\", qop=\"auth\", algorithm=SHA-256, nonce=\"{nonce}\", charset=UTF-8"))
    }
}

/// What everybody is told, whatever is wrong.
const WRONG: &str = "the name or the password is wrong";

impl Used {
    /// Whether this count of this nonce comes for the first time, while the nonce holds.
    fn take(&mut self, stamp: [u8; STAMP_BYTES], made: i64, count: u32, now: Timestamp) -> bool {
        let oldest = now.as_millis().saturating_sub(NONCE_MS).max(self.ended_before);
        if made < oldest || made > now.as_millis().saturating_add(NONCE_MS) {
            return false;
        }
        self.forget(oldest);
        if !self.counts.contains_key(&stamp) {
            self.by_age.insert(stamp);
        }
        self.counts.entry(stamp).or_default().take(count)
    }

    /// Forgets nonces that have ended; where there are too many, the oldest end now.
    fn forget(&mut self, oldest: i64) {
        while let Some(stamp) = self.by_age.first().copied() {
            let made = stamp.first_chunk::<8>().map_or(0, |millis| i64::from_be_bytes(*millis));
            let full = self.by_age.len() >= MOST_NONCES;
            if made >= oldest && !full {
                return;
            }
            if full {
                // What is forgotten must not come again.
                self.ended_before = self.ended_before.max(made.saturating_add(1));
            }
            self.by_age.remove(&stamp);
            self.counts.remove(&stamp);
        }
    }
}

impl Counts {
    fn take(&mut self, count: u32) -> bool {
        if count > self.highest {
            let ahead = count - self.highest;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = count;
            return true;
        }
        let bit = 1_u64.checked_shl(self.highest - count).unwrap_or(0);
        let new = bit != 0 && count != 0 && self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

/// What a header says.
struct Said {
    username: String,
    nonce: String,
    uri: String,
    response: String,
    cnonce: String,
    nc: String,
    count: u32,
}

impl Said {
    /// Reads the parameters; `None` where one is missing, twice there or of another form.
    fn read(text: &str, realm: &str) -> Option<Self> {
        let mut parameters = parameters(text)?;
        let mut take = |name: &str| parameters.remove(name);
        let is = |value: Option<String>, wanted: &str| value.filter(|value| value == wanted).map(drop);
        is(take("realm"), realm)?;
        is(take("qop"), "auth")?;
        // Without an algorithm MD5 would be meant.
        take("algorithm").filter(|algorithm| algorithm.eq_ignore_ascii_case("SHA-256"))?;
        if take("userhash").is_some_and(|userhash| userhash != "false") {
            return None;
        }
        let (username, nonce, uri) = (take("username")?, take("nonce")?, take("uri")?);
        let (response, cnonce, nc) = (take("response")?, take("cnonce")?, take("nc")?);
        let is_hex =
            |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex(&nc, 8) || !is_hex(&response, 64) || check_name(&username).is_err() {
            return None;
        }
        let count = u32::from_str_radix(&nc, 16).ok()?;
        Some(Self { username, nonce, uri, response: response.to_ascii_lowercase(), cnonce, nc, count })
    }

    /// What the response is for who knows `kept`.
    fn response_for(&self, kept: &SecretText, method: &str) -> String {
        let request = digest(&format!("{method}:{}", self.uri));
        let Self { nonce, nc, cnonce, .. } = self;
        digest(&format!("{}:{nonce}:{nc}:{cnonce}:auth:{request}", kept.expose()))
    }
}

/// Whose the parameters of a header say that they are.
#[cfg(feature = "tower")]
pub(super) fn username(text: &str) -> Option<String> {
    parameters(text)?.remove("username")
}

/// `name=value, name="value"`: names in small letters, each once.
fn parameters(text: &str) -> Option<HashMap<String, String>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (mut found, mut rest) = (HashMap::new(), text.trim());
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let (value, after) = value(after.trim_start())?;
        if name.is_empty() || found.len() >= MAX_PARAMETERS || found.insert(name, value).is_some() {
            return None;
        }
        rest = match after.trim_start() {
            "" => "",
            more => more.strip_prefix(',')?.trim_start(),
        };
    }
    Some(found)
}

/// A token or a text in quotes, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end)?;
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn digest(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7616_comes_out() {
        let said = Said {
            username: "Mufasa".to_owned(),
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v".to_owned(),
            uri: "/dir/index.html".to_owned(),
            response: String::new(),
            cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ".to_owned(),
            nc: "00000001".to_owned(),
            count: 1,
        };
        let kept = SecretText::new(digest("Mufasa:http-auth@example.org:Circle of Life"));
        let expected = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1";
        assert_eq!(said.response_for(&kept, "GET"), expected);
    }

    #[test]
    fn a_count_comes_once() {
        let mut counts = Counts::default();
        for (count, new) in [(1, true), (1, false), (3, true), (2, true), (2, false), (3, false), (0, false)] {
            assert_eq!(counts.take(count), new, "{count}");
        }
        assert!(
            counts.take(1_000) && !counts.take(3) && counts.take(990) && !counts.take(990) && counts.take(u32::MAX)
        );
    }

    #[test]
    fn what_was_used_is_bounded_and_what_is_forgotten_has_ended() {
        let mut used = Used::default();
        let stamp = |made: i64| {
            let mut stamp = [0; STAMP_BYTES];
            stamp.iter_mut().zip(made.to_be_bytes()).for_each(|(to, from)| *to = from);
            stamp
        };
        for made in 0..20_000 {
            assert!(used.take(stamp(made), made, 1, Timestamp::from_millis(made)));
        }
        assert!(used.counts.len() <= MOST_NONCES && used.by_age.len() == used.counts.len());
        for made in (0..20_000).step_by(97) {
            assert!(!used.take(stamp(made), made, 1, Timestamp::from_millis(20_000)), "{made}");
        }
        assert!(!used.take(stamp(15_000), 15_000, 2, Timestamp::from_millis(15_001 + NONCE_MS)));
    }

    #[test]
    fn parameters_are_read_once_each() {
        let read = parameters("username=\"a\\\"b\", nc=00000001,qop=auth").unwrap();
        assert_eq!(
            (read["username"].as_str(), read["nc"].as_str(), read["qop"].as_str()),
            ("a\"b", "00000001", "auth")
        );
        for wrong in ["a", "a=", "a=\"b", "a=b, a=c", "a=b c=d", "=b", "A=b, a=c"] {
            assert!(parameters(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn other_lines_are_refused() {
        let good = format!("alice:tollgate:{}", "0".repeat(64));
        assert!(entry(&good, "tollgate").is_ok());
        for (line, part) in [
            (format!("alice:tollgate:{}", "0".repeat(32)), "MD5"),
            (format!("alice:other:{}", "0".repeat(64)), "realm"),
            (format!("alice:tollgate:{}", "A".repeat(64)), "small hex"),
            ("alice:tollgate".to_owned(), "a line is"),
            (format!("{good}:x"), "a line is"),
        ] {
            assert!(entry(&line, "tollgate").unwrap_err().contains(part), "{line}");
        }
    }
}
