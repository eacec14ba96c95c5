//! What is kept of a password, and whether one is the one.

use std::cell::RefCell;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use smol_str::SmolStr;

use crate::edge::random;
use crate::model::{Argon2id, PasswordHash, SecretText};

/// The costs of hashes that are made here: OWASP's first choice of 19 MiB and two passes.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// Bytes of salts and digests that are made here.
const SALT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
/// Of longer passwords bcrypt reads no more than this, so that they would be as good as their beginnings.
const BCRYPT_BYTES: usize = 72;

thread_local! {
    /// The memory in which this thread computes hashes. Each thread keeps its own, since tens of megabytes that are
    /// allocated and freed for each password would stay with the allocator in fragments.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Stored {
    /// In a bundle, a file or a store.
    Argon2id(PasswordHash),
    /// In an htpasswd file; its form was looked at when it was read.
    Bcrypt(SmolStr),
}

impl Stored {
    /// What nobody's password comes to.
    pub(super) fn nobody() -> Self {
        super::nobody().map_or(Self::Bcrypt(SmolStr::default()), Self::Argon2id)
    }

    pub(super) fn expose(&self) -> &str {
        match self {
            Self::Argon2id(hash) => hash.expose(),
            Self::Bcrypt(hash) => hash,
        }
    }

    /// What checking it costs, as the hash says it: all before its salt. Whoever measures can tell no two of one cost apart.
    pub(super) fn cost(&self) -> &str {
        match self {
            Self::Argon2id(hash) => hash.cost(),
            // `$2y$10$` and salt and digest.
            Self::Bcrypt(hash) => hash.rsplitn(2, '$').last().unwrap_or(hash),
        }
    }

    /// Whether `password` is the one. Takes tens of milliseconds.
    pub(super) fn is(&self, password: &SecretText) -> bool {
        match self {
            Self::Argon2id(hash) => argon2id(hash, password).unwrap_or(false),
            Self::Bcrypt(hash) => {
                let text = password.expose();
                let right = bcrypt::verify(text, hash).unwrap_or(false);
                right && text.len() <= BCRYPT_BYTES
            }
        }
    }
}

fn argon2id(hash: &PasswordHash, password: &SecretText) -> Option<bool> {
    let Argon2id { memory_kib, passes, lanes, salt, digest } = hash.parts().ok()?;
    let computed = computed(password, &salt, Costs { memory_kib, passes, lanes }, digest.len())?;
    Some(verify_slices_are_equal(&computed, &digest).is_ok())
}

/// What Argon2 is made to cost.
#[derive(Clone, Copy)]
struct Costs {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

fn computed(password: &SecretText, salt: &[u8], costs: Costs, bytes: usize) -> Option<Vec<u8>> {
    let costs = Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(bytes)).ok()?;
    let mut out = vec![0; bytes];
    let blocks = costs.block_count();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, costs);
    MEMORY.with(|memory| {
        // Nothing below asks for it a second time.
        let mut memory = memory.try_borrow_mut().ok()?;
        if memory.len() < blocks {
            // First, so that the old and the new one are not there at once.
            *memory = Vec::new();
            memory.resize(blocks, Block::default());
        }
        let used = memory.get_mut(..blocks)?;
        let computed = argon2.hash_password_into_with_memory(password.expose().as_bytes(), salt, &mut out, &mut *used);
        // Remains of a password in this memory would allow fast guesses to an attacker who can read it.
        used.fill(Block::default());
        computed.ok().map(|()| out)
    })
}

/// What is to be kept of a new password; `None` where it cannot be computed.
#[must_use]
pub fn hash(password: &SecretText) -> Option<PasswordHash> {
    let mut salt = vec![0; SALT_BYTES];
    random::fill(&mut salt);
    let costs = Costs { memory_kib: MEMORY_KIB, passes: PASSES, lanes: 1 };
    let digest = computed(password, &salt, costs, DIGEST_BYTES)?;
    PasswordHash::of(&Argon2id { memory_kib: MEMORY_KIB, passes: PASSES, lanes: 1, salt, digest }).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let password = SecretText::new("correct horse");
        let made = hash(&password).unwrap();
        assert_ne!(made, hash(&password).unwrap());
        let made = Stored::Argon2id(made);
        assert!(made.is(&password));
        assert!(!made.is(&SecretText::new("correct horse ")) && !made.is(&SecretText::new("")));
        assert!(!Stored::nobody().is(&password));
    }

    #[test]
    fn a_hash_says_what_it_costs() {
        let dear =
            PasswordHash::parse("$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAA").unwrap();
        assert_eq!(Stored::Argon2id(dear).cost(), "$argon2id$v=19$m=19456,t=2,p=1");
        let theirs = Stored::Bcrypt("$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234".into());
        assert_eq!(theirs.cost(), "$2y$10");
    }

    #[test]
    fn a_hash_of_others_is_read_alike() {
        let theirs = bcrypt::hash_with_salt("password", 5, *b"0123456789abcdef").unwrap();
        let stored = Stored::Bcrypt(theirs.format_for_version(bcrypt::Version::TwoY).into());
        assert!(stored.is(&SecretText::new("password")) && !stored.is(&SecretText::new("Password")));
        // Two passwords of one beginning are two passwords.
        let long = "x".repeat(72);
        let theirs = bcrypt::hash_with_salt(&long, 5, *b"0123456789abcdef").unwrap();
        let stored = Stored::Bcrypt(theirs.format_for_version(bcrypt::Version::TwoY).into());
        assert!(stored.is(&SecretText::new(long.as_str())) && !stored.is(&SecretText::new(format!("{long}y"))));
    }
}
