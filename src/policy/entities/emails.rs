//! Users and services by their email address, so that a token that proves the address can be linked to its owner.
//!
//! The case of ASCII letters is ignored, since mail systems ignore it in practice. No other letters are folded: Unicode
//! folds `K` (the Kelvin sign) to `k`, and a letter that only looks like another must not make one user the owner of
//! another's address.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smol_str::SmolStr;

use super::{EntityIndex, EntityRecord, External, Kind};
use crate::policy::index::number;

/// Positions of records, found by the address that the record has.
#[derive(Debug, Default)]
pub(super) struct Emails(HashTable<Owner>);

/// The owner of an address.
#[derive(Debug, Clone, Copy)]
struct Owner {
    /// The position of the first of its kind that has it.
    first: u32,
    /// Whether another of its kind has it too.
    shared: bool,
}

impl Emails {
    /// Indexes all users and services that are declared with an address.
    pub(super) fn of(records: &[EntityRecord], hasher: &RandomState) -> Self {
        let mut table: HashTable<Owner> = HashTable::new();
        for (at, record) in records.iter().enumerate().filter(|(_, record)| record.declared) {
            let Some((kind @ (Kind::USER | Kind::SERVICE), email)) = address_of(record) else { continue };
            let hash = hash(hasher, kind, email);
            if let Some(known) = table.find_mut(hash, |other| is_of(records, *other, kind, email)) {
                known.shared = true;
                continue;
            }
            let rehash = |other: &Owner| {
                let known = records.get(other.first as usize).and_then(address_of);
                known.map_or(0, |(kind, email)| self::hash(hasher, kind, email))
            };
            table.insert_unique(hash, Owner { first: number(at), shared: false }, rehash);
        }
        Self(table)
    }

    /// The owner of the address among `records`, which must be those that this index was built from, with the same
    /// hasher.
    pub(super) fn find(&self, records: &[EntityRecord], hasher: &RandomState, kind: Kind, email: &str) -> External {
        match self.0.find(hash(hasher, kind, email), |one| is_of(records, *one, kind, email)) {
            None => External::Nobody,
            Some(Owner { shared: true, .. }) => External::Several,
            Some(Owner { first, .. }) => External::One(EntityIndex(*first)),
        }
    }
}

fn address_of(record: &EntityRecord) -> Option<(Kind, &SmolStr)> {
    Some((record.kind, record.details.as_ref()?.extras.email.as_ref()?))
}

fn is_of(records: &[EntityRecord], owner: Owner, kind: Kind, email: &str) -> bool {
    let known = records.get(owner.first as usize).and_then(address_of);
    known.is_some_and(|(known_kind, known)| known_kind == kind && known.eq_ignore_ascii_case(email))
}

fn hash(hasher: &RandomState, kind: Kind, email: &str) -> u64 {
    hasher.hash_one((kind.0, email.to_ascii_lowercase()))
}
