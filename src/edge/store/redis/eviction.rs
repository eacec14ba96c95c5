//! Checks whether a Redis evicts keys when it is full, which would lose spending, revocations and API keys. Its policy
//! can change while it runs, so the check is repeated, and its count of evicted keys is followed.

use std::collections::BTreeMap;

use ::redis::Value;
use parking_lot::Mutex;

use super::link::{Link, Trouble};
use super::reply;
use crate::gate::StoreError;

/// Who checks that a Redis drops no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EvictionCheck {
    /// Tollgate does, and refuses a Redis that does not let it.
    #[default]
    Checked,
    /// The operator checks the policy, since this Redis does not report it.
    CheckedElsewhere,
}

impl EvictionCheck {
    /// Every one there is.
    pub const ALL: [Self; 2] = [Self::Checked, Self::CheckedElsewhere];

    /// The value in the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::CheckedElsewhere => "checked_elsewhere",
        }
    }
}

/// How many keys each process of a Redis has dropped, by the name of the process.
pub(super) type Evicted = BTreeMap<String, u64>;

/// The state that was observed of a Redis.
#[derive(Debug)]
pub(super) struct Eviction {
    check: EvictionCheck,
    is_cluster: bool,
    seen: Mutex<Option<Evicted>>,
}

/// A problem with the eviction policy of a Redis.
pub(super) enum Evicts {
    /// It does not answer.
    Away(StoreError),
    /// It may drop keys, or does not say whether it does.
    Unfit(StoreError),
    /// It has dropped keys.
    Dropped(String),
}

impl Eviction {
    /// `seen` is the state that was observed before this start.
    pub(super) const fn new(check: EvictionCheck, is_cluster: bool, seen: Option<Evicted>) -> Self {
        Self { check, is_cluster, seen: Mutex::new(seen) }
    }

    /// The observed state, to be stored.
    pub(super) fn seen(&self) -> Option<Evicted> {
        self.seen.lock().clone()
    }

    /// Resets the observed state, after an operator has accepted the data in the Redis.
    pub(super) fn forget(&self) {
        *self.seen.lock() = None;
    }

    /// Checks the eviction policy of the Redis, and the number of keys that it has evicted since the last check.
    pub(super) async fn look(&self, link: &Link) -> Result<(), Evicts> {
        let told = told(link.send(&::redis::cmd("INFO")).await).map_err(Evicts::Away)?;
        let mut policies: Vec<String> = told.iter().filter_map(|text| value(text, "maxmemory_policy")).collect();
        if policies.is_empty() {
            policies = config(link).await.map_err(Evicts::Away)?;
        }
        if let Some(policy) = policies.iter().find(|policy| *policy != "noeviction") {
            let how = format!(
                "it may evict keys when it is full (maxmemory-policy is {policy}); set maxmemory-policy to noeviction, \
                 also where maxmemory is 0"
            );
            return Err(Evicts::Unfit(StoreError::Away(how.into())));
        }
        if policies.is_empty() && self.check == EvictionCheck::Checked {
            let how = "neither INFO nor CONFIG GET shows whether it evicts keys when it is full; allow this user to \
                       run INFO, or check that maxmemory-policy is noeviction and set `meters.redis.eviction: \
                       checked_elsewhere`";
            return Err(Evicts::Unfit(StoreError::Away(how.into())));
        }
        self.compare(told.iter().filter_map(|text| counted(text)).collect())
    }

    /// Whether more keys were evicted than before. A process that was never seen counts from zero if another one was
    /// seen before it. In a cluster, which may have other nodes, the current count is the start.
    fn compare(&self, now: Evicted) -> Result<(), Evicts> {
        if now.is_empty() {
            return Ok(());
        }
        let mut seen = self.seen.lock();
        let before = |process: &String, count: u64| match &*seen {
            Some(seen) => seen.get(process).copied().unwrap_or(if self.is_cluster { count } else { 0 }),
            None => count,
        };
        let grown = now.iter().map(|(process, count)| count.saturating_sub(before(process, *count))).max().unwrap_or(0);
        *seen = Some(now);
        if grown > 0 {
            return Err(Evicts::Dropped(format!("Redis evicted {grown} keys because it was full (evicted_keys grew)")));
        }
        Ok(())
    }
}

/// The texts that a Redis, or each of a cluster, answers to INFO; none where it may not be asked.
fn told(answer: Result<Value, Trouble>) -> Result<Vec<String>, StoreError> {
    match answer {
        Ok(Value::Map(each)) => Ok(each.into_iter().filter_map(|(_, told)| reply::text(told)).collect()),
        Ok(told) => Ok(reply::text(told).into_iter().collect()),
        Err(trouble) => unless_refused(trouble).map(|()| Vec::new()),
    }
}

/// The policies that `CONFIG GET` reports.
async fn config(link: &Link) -> Result<Vec<String>, StoreError> {
    let answer = link.send(::redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy")).await;
    let policies = |told: Value| {
        // Names and values, of each node of a cluster its own.
        let pairs = match told {
            Value::Map(pairs) => {
                pairs.into_iter().filter_map(|(name, told)| Some((reply::text(name)?, told))).collect()
            }
            Value::Array(items) => in_pairs(items),
            _ => Vec::new(),
        };
        pairs.into_iter().flat_map(|(name, told)| match told {
            Value::Array(items) => in_pairs(items).into_iter().filter_map(|(_, told)| reply::text(told)).collect(),
            told if name == "maxmemory-policy" => reply::text(told).into_iter().collect(),
            _ => Vec::new(),
        })
    };
    match answer {
        Ok(told) => Ok(policies(told).collect()),
        Err(trouble) => unless_refused(trouble).map(|()| Vec::new()),
    }
}

fn in_pairs(items: Vec<Value>) -> Vec<(String, Value)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::new();
    while let (Some(name), Some(told)) = (items.next(), items.next()) {
        pairs.extend(reply::text(name).map(|name| (name, told)));
    }
    pairs
}

/// Passes over that a command may not be run.
fn unless_refused(trouble: Trouble) -> Result<(), StoreError> {
    match trouble {
        Trouble::Forbidden(_) => Ok(()),
        trouble => Err(trouble.into_store()),
    }
}

fn value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
}

fn counted(text: &str) -> Option<(String, u64)> {
    Some((value(text, "run_id")?, value(text, "evicted_keys")?.parse().ok()?))
}
