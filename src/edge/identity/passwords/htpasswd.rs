//! An htpasswd file: a name, a colon, and a bcrypt or argon2id hash a line. Everything else that such files may hold is
//! refused with its line.

use std::path::PathBuf;
use std::sync::Arc;

use smol_str::SmolStr;

use super::stored::Stored;
use crate::edge::identity::watched::{FileError, Names, Watched};
use crate::model::{PasswordHash, Timestamp, check_name};

/// Costs of bcrypt: the least that `htpasswd -B` makes, and about a second of work.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 5..=14;

/// An htpasswd file.
pub struct Htpasswd(Watched<Stored>);

impl Htpasswd {
    /// Reads the file.
    ///
    /// # Errors
    /// With the first line that is not taken.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileError> {
        Watched::open(path.into(), Box::new(entry)).map(Self)
    }

    /// What is kept of the password of `name`; the file is looked at again if that is due.
    pub(super) fn find(&self, name: &str, now: Timestamp) -> Option<Stored> {
        self.0.known(Some(now)).get(name).cloned()
    }

    /// Every name with its hash, as the file was when it was last looked at: another file is another list.
    pub(super) fn names(&self) -> Arc<Names<Stored>> {
        self.0.known(None)
    }
}

fn entry(line: &str) -> Result<(SmolStr, Stored), String> {
    let (name, hash) = line.split_once(':').ok_or("a line is a name, a colon and a hash")?;
    check_name(name).map_err(|error| error.to_string())?;
    Ok((name.into(), stored(hash)?))
}

fn stored(hash: &str) -> Result<Stored, String> {
    let anew = "make it anew with `htpasswd -B`";
    if hash.starts_with("$argon2") {
        return PasswordHash::parse(hash).map(Stored::Argon2id).map_err(|error| error.to_string());
    }
    if let Some(rest) = ["$2y$", "$2b$", "$2a$"].iter().find_map(|prefix| hash.strip_prefix(prefix)) {
        return bcrypt(rest).map(|()| Stored::Bcrypt(hash.into()));
    }
    Err(match hash {
        _ if hash.starts_with("{SHA}") => format!("`{{SHA}}` is one round of SHA-1 without a salt; {anew}"),
        _ if hash.starts_with("{SSHA}") => format!("`{{SSHA}}` is one round of SHA-1; {anew}"),
        _ if hash.starts_with("$apr1$") || hash.starts_with("$1$") => format!("MD5 is tried out too quickly; {anew}"),
        _ if hash.starts_with("$5$") || hash.starts_with("$6$") => format!("crypt's SHA-2 is not taken; {anew}"),
        _ if hash.starts_with("$2x$") => format!("`$2x$` marks hashes of a faulty bcrypt; {anew}"),
        _ if hash.len() == 13 => format!("crypt reads eight characters of a password and no more; {anew}"),
        _ => format!("this is no hash that is known; if it is a password itself, {anew}"),
    })
}

/// `10$` and 53 characters of salt and digest.
fn bcrypt(rest: &str) -> Result<(), String> {
    let form = || "this is no bcrypt hash".to_owned();
    let (cost, rest) = rest.split_once('$').ok_or_else(form)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    if cost.len() != 2 || rest.len() != 53 || !rest.bytes().all(plain) {
        return Err(form());
    }
    let cost: u32 = cost.parse().map_err(|_| form())?;
    if BCRYPT_COSTS.contains(&cost) {
        return Ok(());
    }
    Err(format!("bcrypt's cost is {cost}, and {} to {} are taken", BCRYPT_COSTS.start(), BCRYPT_COSTS.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_form_is_refused_with_its_reason() {
        let tail = "abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";
        assert!(stored(&format!("$2y$10${tail}")).is_ok());
        for (hash, part) in [
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=".to_owned(), "SHA-1 without a salt"),
            ("{SSHA}abc".to_owned(), "SHA-1"),
            ("$apr1$abc$def".to_owned(), "MD5"),
            ("$1$abc$def".to_owned(), "MD5"),
            ("$6$abc$def".to_owned(), "SHA-2"),
            ("rl.3StKT.4T8M".to_owned(), "eight characters"),
            ("hunter2".to_owned(), "password itself"),
            (String::new(), "password itself"),
            (format!("$2x$10${tail}"), "faulty"),
            (format!("$2y$31${tail}"), "cost is 31"),
            (format!("$2y$04${tail}"), "cost is 4"),
            (format!("$2y$10${tail}x"), "no bcrypt hash"),
            ("$2y$10$short".to_owned(), "no bcrypt hash"),
            ("$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$AAAA".to_owned(), "costs too much"),
        ] {
            let error = stored(&hash).err().unwrap();
            assert!(error.contains(part) && (hash.is_empty() || !error.contains(&hash)), "{hash}: {error}");
        }
        assert!(entry("alice").is_err() && entry(":x").is_err());
    }
}
