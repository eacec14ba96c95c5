//! Conditions by their text, so that each is parsed once, from load to load.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::condition::{Clause, Condition, ConditionError, parse_clause};

/// Parsed clauses and conditions, by text.
#[derive(Debug, Default)]
pub struct ConditionCache {
    clauses: HashMap<(bool, SmolStr), Result<Clause, Arc<ConditionError>>, RandomState>,
    conditions: HashMap<Vec<(bool, SmolStr)>, Arc<Condition>, RandomState>,
}

impl ConditionCache {
    /// The clause with this text.
    ///
    /// # Errors
    /// As [`parse_clause`] says.
    pub fn clause(&mut self, text: &SmolStr, unless: bool) -> Result<Clause, Arc<ConditionError>> {
        if let Some(known) = self.clauses.get(&(unless, text.clone())) {
            return known.clone();
        }
        let parsed = parse_clause(text, unless).map_err(Arc::new);
        self.clauses.insert((unless, text.clone()), parsed.clone());
        parsed
    }

    /// The condition made of these clauses, if it was made before.
    #[must_use]
    pub fn known(&self, key: &[(bool, SmolStr)]) -> Option<&Arc<Condition>> {
        self.conditions.get(key)
    }

    /// Keeps a condition.
    pub fn keep(&mut self, key: Vec<(bool, SmolStr)>, condition: Arc<Condition>) {
        self.conditions.insert(key, condition);
    }

    /// Forgets what no snapshot uses any more.
    pub fn tidy(&mut self) {
        const KEPT: usize = 100_000;
        self.conditions.retain(|_, condition| Arc::strong_count(condition) > 1);
        if self.clauses.len() > KEPT {
            self.clauses.clear();
        }
    }
}
