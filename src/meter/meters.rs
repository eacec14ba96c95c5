//! Many meters, by name. They lie in many small tables instead of a large one: a table that grows moves all it has, and
//! a sweep looks at all of one, so that neither is a pause that anyone notices.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::meter::Meter;
use super::reservation::{Charge, MeterKey};
use crate::model::Timestamp;

/// A power of two. A million meters are a thousand in each.
const TABLES: usize = 1024;

/// Meters by name.
#[derive(Debug, Clone)]
pub(super) struct Meters {
    hasher: RandomState,
    // Boxed, since a table has up to twice as many places as meters.
    tables: Box<[HashTable<Box<Named>>]>,
    /// Which table is swept next.
    next: usize,
    count: usize,
}

type Named = (MeterKey, Meter);

impl Default for Meters {
    fn default() -> Self {
        let tables = (0..TABLES).map(|_| HashTable::new()).collect();
        Self { hasher: RandomState::default(), tables, next: 0, count: 0 }
    }
}

/// The table of a hash: by bits that the table itself looks at neither for the place nor for the tag.
fn table_of(hash: u64) -> usize {
    usize::try_from(hash >> 40).unwrap_or(0) % TABLES
}

impl Meters {
    fn hash(&self, series: &str, subject: Option<&str>) -> u64 {
        self.hasher.hash_one((series, subject))
    }

    fn find(&self, series: &str, subject: Option<&str>) -> Option<&Named> {
        let hash = self.hash(series, subject);
        let same = |(key, _): &Named| is(key, series, subject);
        self.tables.get(table_of(hash))?.find(hash, |named| same(named)).map(|named| &**named)
    }

    /// The meter of a charge.
    pub(super) fn of(&self, charge: &Charge) -> Option<&Meter> {
        self.find(&charge.limit.series, charge.subject.as_deref()).map(|(_, meter)| meter)
    }

    pub(super) fn get(&self, key: &MeterKey) -> Option<&Meter> {
        self.find(&key.series, key.subject.as_deref()).map(|(_, meter)| meter)
    }

    pub(super) fn get_mut(&mut self, key: &MeterKey) -> Option<&mut Meter> {
        let (series, subject) = (&*key.series, key.subject.as_deref());
        let hash = self.hash(series, subject);
        let found = self.tables.get_mut(table_of(hash))?.find_mut(hash, |named| is(&named.0, series, subject));
        found.map(|named| &mut named.1)
    }

    /// Puts `meter` in the place of what there was.
    pub(super) fn insert(&mut self, key: MeterKey, meter: Meter) {
        let hash = self.hash(&key.series, key.subject.as_deref());
        let hasher = &self.hasher;
        let Some(table) = self.tables.get_mut(table_of(hash)) else { return };
        let rehash = |(key, _): &Named| hasher.hash_one((&*key.series, key.subject.as_deref()));
        match table.entry(hash, |named| named.0 == key, |named| rehash(named)) {
            Entry::Occupied(mut found) => found.get_mut().1 = meter,
            Entry::Vacant(place) => {
                place.insert(Box::new((key, meter)));
                self.count += 1;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&MeterKey, &Meter)> {
        self.tables.iter().flatten().map(|named| (&named.0, &named.1))
    }

    /// Forgets blank meters of the next tables, until `most` meters were looked at, and hands over their names.
    pub(super) fn sweep(&mut self, now: Timestamp, most: usize) -> Vec<MeterKey> {
        let (mut blank, mut seen, mut tables) = (Vec::new(), 0, 0);
        while seen < most && tables < TABLES {
            let Some(table) = self.tables.get_mut(self.next) else { break };
            seen += table.len();
            tables += 1;
            self.next = (self.next + 1) % TABLES;
            blank.extend(table.extract_if(|named| named.1.is_blank(now)).map(|named| named.0));
        }
        self.count -= blank.len();
        blank
    }
}

fn is(key: &MeterKey, series: &str, subject: Option<&str>) -> bool {
    *key.series == *series && key.subject.as_deref() == subject
}
