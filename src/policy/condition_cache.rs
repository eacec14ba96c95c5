//! Conditions by their text, so that each is parsed once, from load to load and by whichever thread comes to it first.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use smol_str::SmolStr;

use super::condition::{Clause, Condition, ConditionError, parse_clause};

/// Parsed clauses and conditions, by text.
#[derive(Debug, Default)]
pub struct ConditionCache {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    clauses: HashMap<(bool, SmolStr), Result<Clause, Arc<ConditionError>>, RandomState>,
    conditions: HashMap<Vec<(bool, SmolStr)>, Arc<Condition>, RandomState>,
}

impl ConditionCache {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// The clause with this text.
    ///
    /// # Errors
    /// As [`parse_clause`] says.
    pub fn clause(&self, text: &SmolStr, unless: bool) -> Result<Clause, Arc<ConditionError>> {
        if let Some(known) = self.lock().clauses.get(&(unless, text.clone())) {
            return known.clone();
        }
        // Parsing takes long enough for others not to wait for it.
        let parsed = parse_clause(text, unless).map_err(Arc::new);
        self.lock().clauses.insert((unless, text.clone()), parsed.clone());
        parsed
    }

    /// The condition made of these clauses, if it was made before.
    #[must_use]
    pub fn known(&self, key: &[(bool, SmolStr)]) -> Option<Arc<Condition>> {
        self.lock().conditions.get(key).cloned()
    }

    /// Keeps a condition; the one to use is another's where that was quicker.
    pub fn keep(&self, key: Vec<(bool, SmolStr)>, condition: Condition) -> Arc<Condition> {
        Arc::clone(self.lock().conditions.entry(key).or_insert_with(|| Arc::new(condition)))
    }

    /// Forgets what no snapshot uses any more.
    pub fn tidy(&self) {
        const KEPT: usize = 100_000;
        let mut known = self.lock();
        known.conditions.retain(|_, condition| Arc::strong_count(condition) > 1);
        if known.clauses.len() > KEPT {
            known.clauses.clear();
        }
    }
}
