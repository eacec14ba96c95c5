//! Decisions, the rules that determined them, refused credentials, and warnings of limits.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use smol_str::SmolStr;

use super::DecisionMade;
use super::families::{Families, Kind};
use super::histogram::{DECISION, LazyHistogram};
use crate::gate::Via;
use crate::model::{DecisionCode, RefusalReason};

/// Most rules that are counted by name; all others are counted together.
const MAX_RULES: u64 = 1_000;
/// Parts of the table of rules, so that threads seldom wait for each other.
const PARTS: usize = 16;
/// The label of all rules that come from keys of the store: there may be any number of such keys.
static KEYS: SmolStr = SmolStr::new_static("key");
/// Every code of a decision.
const CODES: [DecisionCode; 16] = [
    DecisionCode::Permitted,
    DecisionCode::Unauthenticated,
    DecisionCode::ProviderUnavailable,
    DecisionCode::CredentialRevoked,
    DecisionCode::CredentialExpired,
    DecisionCode::PrincipalDisabled,
    DecisionCode::ModelUnknown,
    DecisionCode::ModelDisabled,
    DecisionCode::ForbiddenByRule,
    DecisionCode::Error,
    DecisionCode::NoRulePermits,
    DecisionCode::StoreUnavailable,
    DecisionCode::PriceUnknown,
    DecisionCode::BudgetExceeded,
    DecisionCode::RateLimited,
    DecisionCode::ConcurrencyExceeded,
];
/// Every interface.
const INTERFACES: [Via; 5] = [Via::IsAuthorized, Via::CedarAgent, Via::Validate, Via::Layer, Via::Library];
/// How many of them a server has, the first ones.
const OF_SERVER: usize = 3;

/// The metrics of decisions.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    by_code: [Counter; CODES.len()],
    durations: [[LazyHistogram; CODES.len()]; INTERFACES.len()],
    rules: Rules,
    refusals: [Counter; RefusalReason::ALL.len()],
    /// Crossed percents by limit. Their number is bounded by the bundle.
    warnings: Mutex<BTreeMap<(SmolStr, u8), u64>>,
    panics: Counter,
}

impl Decisions {
    pub(super) fn decided(&self, made: &DecisionMade<'_>) {
        let code = CODES.iter().position(|known| *known == made.code);
        if let Some(counter) = code.and_then(|at| self.by_code.get(at)) {
            counter.inc();
        }
        let interface = INTERFACES.iter().position(|known| *known == made.via);
        let durations = interface.and_then(|at| self.durations.get(at));
        if let Some(histogram) = durations.zip(code).and_then(|(durations, at)| durations.get(at)) {
            histogram.observe(&DECISION, made.took);
        }
        for rule in made.rules {
            let is_of_key = rule.file.is_empty() && rule.id.starts_with("key:");
            self.rules.count(if is_of_key { &KEYS } else { &rule.id });
        }
    }

    pub(super) fn refused(&self, reason: RefusalReason) {
        let at = RefusalReason::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = at.and_then(|at| self.refusals.get(at)) {
            counter.inc();
        }
    }

    pub(super) fn warned(&self, limit: &SmolStr, percent: u8) {
        let mut warnings = self.warnings.lock();
        *warnings.entry((limit.clone(), percent)).or_default() += 1;
    }

    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    fn write_durations(&self, out: &mut Families<'_>) -> fmt::Result {
        let help =
            "Time from a call to its decision, with authentication and the waits for stores and identity providers.";
        let mut family = out.family(Kind::Histogram, "tollgate_decision_duration_seconds", help)?;
        // A series that exists from the start lets `rate` see its first increase.
        for permitted in self.durations.iter().take(OF_SERVER).filter_map(|durations| durations.first()) {
            permitted.get_or_make(&DECISION);
        }
        for (interface, durations) in INTERFACES.iter().zip(&self.durations) {
            for (code, histogram) in CODES.iter().zip(durations) {
                if let Some(histogram) = histogram.get() {
                    let labels = [("interface", interface.as_str()), ("code", code.as_str())];
                    family.histogram(&labels, histogram)?;
                }
            }
        }
        Ok(())
    }

    fn write(&self, out: &mut Families<'_>) -> fmt::Result {
        let mut family = out.family(Kind::Counter, "tollgate_decisions", "Decisions by outcome and code.")?;
        for (code, counter) in CODES.iter().zip(&self.by_code) {
            let decision = if *code == DecisionCode::Permitted { "permit" } else { "forbid" };
            family.counter(&[("decision", decision), ("code", code.as_str())], counter.get())?;
        }
        let help = "Decisions that a rule determined.";
        let mut family = out.family(Kind::Counter, "tollgate_rule_decisions", help)?;
        for (rule, count) in self.rules.counts() {
            family.counter(&[("rule", &rule)], count)?;
        }
        let help = "Decisions determined by rules beyond the thousand that are counted by name.";
        out.counter("tollgate_rule_decisions_other", help, self.rules.others.get())?;
        self.write_durations(out)?;
        let help = "Panics while a request was answered.";
        out.counter("tollgate_panics", help, self.panics.get())?;
        let help = "Refused credentials, by reason.";
        let mut family = out.family(Kind::Counter, "tollgate_authentication_failures", help)?;
        for (reason, counter) in RefusalReason::ALL.iter().zip(&self.refusals) {
            family.counter(&[("reason", reason.as_str())], counter.get())?;
        }
        let help = "How often a percent of a limit was crossed, once for each period and meter.";
        let mut family = out.family(Kind::Counter, "tollgate_limit_warnings", help)?;
        for ((limit, percent), count) in &*self.warnings.lock() {
            family.counter(&[("limit", limit), ("percent", &percent.to_string())], *count)?;
        }
        Ok(())
    }
}

impl Collector for Decisions {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.write(&mut Families::new(encoder))
    }
}

/// Decisions by rule. The rules change with each bundle, so their counters are looked up by name.
#[derive(Debug, Default)]
struct Rules {
    hasher: RandomState,
    parts: [RwLock<HashMap<SmolStr, AtomicU64, RandomState>>; PARTS],
    named: AtomicU64,
    others: Counter,
}

impl Rules {
    fn count(&self, rule: &SmolStr) {
        let part = usize::try_from(self.hasher.hash_one(rule) % PARTS as u64).unwrap_or_default();
        let Some(part) = self.parts.get(part) else { return };
        if let Some(count) = part.read().get(rule) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.named.fetch_add(1, Ordering::Relaxed) >= MAX_RULES {
            self.named.fetch_sub(1, Ordering::Relaxed);
            self.others.inc();
            return;
        }
        let mut part = part.write();
        part.entry(rule.clone()).or_default().fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, sorted by rule.
    fn counts(&self) -> BTreeMap<SmolStr, u64> {
        let mut all = BTreeMap::new();
        for part in &self.parts {
            let part = part.read();
            all.extend(part.iter().map(|(rule, count)| (rule.clone(), count.load(Ordering::Relaxed))));
        }
        all
    }
}
