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
    /// Names of those that changed since this was last asked, unless nobody asks.
    changed: Vec<MeterKey>,
    unasked: bool,
}

#[derive(Debug, Clone)]
struct Named {
    key: MeterKey,
    meter: Meter,
    /// Whether it is among those that changed.
    changed: bool,
}

impl Named {
    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((&*self.key.series, self.key.subject.as_deref()))
    }
}

impl Default for Meters {
    fn default() -> Self {
        let tables = (0..TABLES).map(|_| HashTable::new()).collect();
        Self { hasher: RandomState::default(), tables, next: 0, count: 0, changed: Vec::new(), unasked: false }
    }
}

/// The table of a hash: by bits that the table itself looks at neither for the place nor for the tag.
fn table_of(hash: u64) -> usize {
    usize::try_from(hash >> 40).unwrap_or(0) % TABLES
}

impl Meters {
    /// Those of whose changes nobody asks.
    pub(super) fn unasked() -> Self {
        Self { unasked: true, ..Self::default() }
    }

    fn hash(&self, series: &str, subject: Option<&str>) -> u64 {
        self.hasher.hash_one((series, subject))
    }

    fn find(&self, series: &str, subject: Option<&str>) -> Option<&Named> {
        let hash = self.hash(series, subject);
        self.tables.get(table_of(hash))?.find(hash, |named| is(&named.key, series, subject)).map(|named| &**named)
    }

    /// The meter of a charge.
    pub(super) fn of(&self, charge: &Charge) -> Option<&Meter> {
        self.find(&charge.limit.series, charge.subject.as_deref()).map(|named| &named.meter)
    }

    pub(super) fn get(&self, key: &MeterKey) -> Option<&Meter> {
        self.find(&key.series, key.subject.as_deref()).map(|named| &named.meter)
    }

    /// Changes a meter, and notes that it did; `None` where there is none of that name.
    pub(super) fn change<T>(&mut self, key: &MeterKey, with: impl FnOnce(&mut Meter) -> T) -> Option<T> {
        let (series, subject) = (&*key.series, key.subject.as_deref());
        let hash = self.hash(series, subject);
        let table = self.tables.get_mut(table_of(hash))?;
        let named = table.find_mut(hash, |named| is(&named.key, series, subject))?;
        if !named.changed && !self.unasked {
            named.changed = true;
            self.changed.push(named.key.clone());
        }
        Some(with(&mut named.meter))
    }

    /// Changes the meter of a charge, which is made where there is none, and notes that it did.
    pub(super) fn change_of(&mut self, charge: &Charge, now: Timestamp, with: impl FnOnce(&mut Meter)) {
        let (series, subject) = (&*charge.limit.series, charge.subject.as_deref());
        let hash = self.hash(series, subject);
        let hasher = &self.hasher;
        let Some(table) = self.tables.get_mut(table_of(hash)) else { return };
        let named = match table.entry(hash, |named| is(&named.key, series, subject), |named| named.hash(hasher)) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                self.count += 1;
                let meter = Meter::new(&charge.limit, now);
                place.insert(Box::new(Named { key: charge.key(), meter, changed: false })).into_mut()
            }
        };
        if !named.changed && !self.unasked {
            named.changed = true;
            self.changed.push(named.key.clone());
        }
        with(&mut named.meter);
    }

    /// Puts `meter` in the place of what there was, which nobody need be told of.
    pub(super) fn restore(&mut self, key: MeterKey, meter: Meter) {
        self.put(Named { key, meter, changed: false });
    }

    fn put(&mut self, named: Named) {
        let hash = self.hash(&named.key.series, named.key.subject.as_deref());
        let hasher = &self.hasher;
        let Some(table) = self.tables.get_mut(table_of(hash)) else { return };
        match table.entry(hash, |other| other.key == named.key, |other| other.hash(hasher)) {
            Entry::Occupied(mut found) => **found.get_mut() = named,
            Entry::Vacant(place) => {
                place.insert(Box::new(named));
                self.count += 1;
            }
        }
    }

    /// Forgets one; nobody need be told of it.
    pub(super) fn forget(&mut self, key: &MeterKey) {
        let (series, subject) = (&*key.series, key.subject.as_deref());
        let hash = self.hash(series, subject);
        let Some(table) = self.tables.get_mut(table_of(hash)) else { return };
        if let Ok(found) = table.find_entry(hash, |named| is(&named.key, series, subject)) {
            found.remove();
            self.count -= 1;
        }
    }

    /// Those that changed since this was last asked, as they are.
    pub(super) fn take_changed(&mut self) -> Vec<(MeterKey, Meter)> {
        let changed = std::mem::take(&mut self.changed);
        let mut taken = Vec::with_capacity(changed.len());
        for key in changed {
            let (series, subject) = (&*key.series, key.subject.as_deref());
            let hash = self.hash(series, subject);
            let table = self.tables.get_mut(table_of(hash));
            let found = table.and_then(|table| table.find_mut(hash, |named| is(&named.key, series, subject)));
            // It may have been forgotten since, or be noted twice where it came again.
            if let Some(named) = found.filter(|named| named.changed) {
                named.changed = false;
                taken.push((named.key.clone(), named.meter.clone()));
            }
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&MeterKey, &Meter)> {
        self.tables.iter().flatten().map(|named| (&named.key, &named.meter))
    }

    /// The meters of one of the tables; `None` behind the last.
    pub(super) fn in_table(&self, table: usize) -> Option<impl Iterator<Item = (&MeterKey, &Meter)>> {
        Some(self.tables.get(table)?.iter().map(|named| (&named.key, &named.meter)))
    }

    /// Forgets blank meters of the next tables, until `most` meters were looked at, and hands over their names.
    pub(super) fn sweep(&mut self, now: Timestamp, most: usize) -> Vec<MeterKey> {
        let (mut blank, mut seen, mut tables) = (Vec::new(), 0, 0);
        while seen < most && tables < TABLES {
            let Some(table) = self.tables.get_mut(self.next) else { break };
            seen += table.len();
            tables += 1;
            self.next = (self.next + 1) % TABLES;
            blank.extend(table.extract_if(|named| named.meter.is_blank(now)).map(|named| named.key));
        }
        self.count -= blank.len();
        blank
    }
}

fn is(key: &MeterKey, series: &str, subject: Option<&str>) -> bool {
    *key.series == *series && key.subject.as_deref() == subject
}
