//! What is counted, and Prometheus' text of it. Counting is a few atomic additions; the text is written when it is
//! asked for. A dozen families need no library.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hyper::StatusCode;
use parking_lot::{Mutex, RwLock};
use smol_str::SmolStr;

use super::health::{Component, Part};
use crate::edge::outgoing::Outbox;
use crate::engine::Engine;
use crate::model::{DecisionCode, RefusalReason, RuleReference};

/// Most rules that are counted by name; what comes after them is counted together.
const MOST_RULES: u64 = 1_000;
/// Parts of the table of rules, so that threads seldom meet.
const PARTS: usize = 16;
/// The label of what keys forbid that are kept.
static KEYS: SmolStr = SmolStr::new_static("key");
/// Every code of a decision, in the order of [`DecisionCode`].
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
/// The statuses that are shown before one is answered; any other, as soon as it is.
const USUAL_STATUSES: [u16; 15] = [200, 201, 202, 204, 400, 401, 402, 403, 404, 405, 408, 409, 413, 429, 503];
/// The least status that there is, and how many there may be (RFC 9110, section 15).
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 900;

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    decisions: [AtomicU64; CODES.len()],
    responses: Responses,
    panics: AtomicU64,
    handshakes: AtomicU64,
    refusals: [AtomicU64; RefusalReason::ALL.len()],
    rules: Rules,
    /// Percents that were crossed, by limit. Their number is bounded by what people write.
    warnings: Mutex<BTreeMap<(SmolStr, u8), u64>>,
}

/// Responses, each under its own status.
#[derive(Debug)]
struct Responses(Box<[AtomicU64]>);

impl Default for Responses {
    fn default() -> Self {
        Self((0..STATUSES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Responses {
    fn count(&self, status: StatusCode) {
        add(self.0.get(usize::from(status.as_u16().saturating_sub(FIRST_STATUS))));
    }

    /// Those that were answered, and the usual ones, by status.
    fn counts(&self) -> impl Iterator<Item = (u16, u64)> {
        let counts = (FIRST_STATUS..).zip(self.0.iter().map(load));
        counts.filter(|(status, count)| *count > 0 || USUAL_STATUSES.contains(status))
    }
}

#[derive(Debug, Default)]
struct Rules {
    hasher: RandomState,
    parts: [RwLock<HashMap<SmolStr, AtomicU64, RandomState>>; PARTS],
    named: AtomicU64,
    others: AtomicU64,
}

impl Metrics {
    /// A decision was made, by these rules.
    pub(super) fn decided(&self, code: DecisionCode, rules: &[RuleReference]) {
        if let Some(at) = CODES.iter().position(|known| *known == code) {
            add(self.decisions.get(at));
        }
        for rule in rules {
            // Keys that are kept make rules in any number, of no file; they are one label.
            let is_of_key = rule.file.is_empty() && rule.id.starts_with("key:");
            self.rules.count(if is_of_key { &KEYS } else { &rule.id });
        }
    }

    /// A credential proved nobody.
    pub(super) fn refused(&self, reason: RefusalReason) {
        let at = RefusalReason::ALL.iter().position(|known| *known == reason);
        add(at.and_then(|at| self.refusals.get(at)));
    }

    /// A response was sent.
    pub(super) fn responded(&self, status: StatusCode) {
        self.responses.count(status);
    }

    /// A percent of a limit was crossed.
    pub(super) fn warned(&self, limit: &SmolStr, percent: u8) {
        let mut warnings = self.warnings.lock();
        *warnings.entry((limit.clone(), percent)).or_default() += 1;
    }

    /// A connection did not get as far as a request.
    pub(super) fn handshake_failed(&self) {
        add(Some(&self.handshakes));
    }

    /// Something that should never happen.
    pub(super) fn panicked(&self) {
        add(Some(&self.panics));
    }

    /// All of it as Prometheus reads it.
    pub(super) fn text(&self, engine: &Engine, outbox: Option<&Outbox>, health: &[Component]) -> String {
        let mut out = Text(String::with_capacity(4 * 1024));
        self.decisions_text(&mut out);
        out.family("tollgate_http_responses_total", "counter", "Responses by status.");
        for (status, count) in self.responses.counts() {
            out.line("tollgate_http_responses_total", &[("status", &status.to_string())], count);
        }
        out.single("tollgate_panics_total", "counter", "Decisions that ended in a panic.", load(&self.panics));
        let name = "tollgate_tls_handshake_failures_total";
        out.single(name, "counter", "Connections that ended in their TLS handshake.", load(&self.handshakes));
        let name = "tollgate_authentication_failures_total";
        out.family(name, "counter", "Credentials that proved nobody, by reason.");
        for (reason, count) in RefusalReason::ALL.iter().zip(&self.refusals) {
            out.line(name, &[("reason", reason.as_str())], load(count));
        }
        let name = "tollgate_limit_warnings_total";
        out.family(name, "counter", "How often a percent of a limit was crossed, once a period and meter.");
        for ((limit, percent), count) in &*self.warnings.lock() {
            out.line(name, &[("limit", limit), ("percent", &percent.to_string())], *count);
        }
        if let Some(outbox) = outbox {
            outbox_text(outbox, &mut out);
        }
        engine_text(engine, &mut out);
        health_text(health, &mut out);
        out.0
    }

    fn decisions_text(&self, out: &mut Text) {
        let name = "tollgate_decisions_total";
        out.family(name, "counter", "Decisions by outcome and code.");
        for (code, count) in CODES.iter().zip(&self.decisions) {
            let decision = if *code == DecisionCode::Permitted { "permit" } else { "forbid" };
            out.line(name, &[("decision", decision), ("code", code.as_str())], load(count));
        }
        let name = "tollgate_rule_decisions_total";
        out.family(name, "counter", "Decisions that a rule determined.");
        let mut rules = self.rules.counts();
        rules.sort_unstable();
        for (rule, count) in &rules {
            out.line(name, &[("rule", rule)], *count);
        }
        let help = "Decisions determined by rules beyond the thousand that are counted by name.";
        out.single("tollgate_rule_decisions_other_total", "counter", help, load(&self.rules.others));
    }
}

fn outbox_text(outbox: &Outbox, out: &mut Text) {
    let [delivered, failed, dropped, retried] = outbox.counts().read();
    let name = "tollgate_alerts_total";
    out.family(name, "counter", "Alerts by what became of them; dropped ones were pushed out of a full queue.");
    for (outcome, count) in [("delivered", delivered), ("failed", failed), ("dropped", dropped)] {
        out.line(name, &[("outcome", outcome)], count);
    }
    out.single("tollgate_alert_retries_total", "counter", "How often an alert was sent again.", retried);
    let waiting = u64::try_from(outbox.len()).unwrap_or(u64::MAX);
    out.single("tollgate_alerts_waiting", "gauge", "Alerts that wait to be sent.", waiting);
}

fn decision_log_text(engine: &Engine, out: &mut Text) {
    let Some(status) = engine.pdp().decision_log_status() else { return };
    let name = "tollgate_decision_log_records_total";
    out.family(name, "counter", "Records of decisions by outcome; lost ones are counted in the log itself.");
    for (outcome, count) in [("written", status.written), ("lost", status.lost), ("summed_up", status.summed_up)] {
        out.line(name, &[("outcome", outcome)], count);
    }
    let (name, help) = ("tollgate_decision_log_queue_bytes", "Bytes of the queued records.");
    out.single(name, "gauge", help, status.queued_bytes);
    let (name, help) = ("tollgate_decision_log_stopped", "Whether records cannot be written now.");
    out.single(name, "gauge", help, u64::from(status.stopped));
}

fn engine_text(engine: &Engine, out: &mut Text) {
    let report = engine.report();
    let name = "tollgate_reload_total";
    out.family(name, "counter", "Loads of the bundle by outcome.");
    out.line(name, &[("outcome", "success")], report.loads);
    out.line(name, &[("outcome", "failure")], report.failures);
    let failed = u64::from(report.failure.is_some());
    out.single("tollgate_reload_failed", "gauge", "Whether the newest files did not load.", failed);
    let millis = report.loaded_at.map_or(0, crate::model::Timestamp::as_millis);
    let name = "tollgate_reload_last_success_timestamp_seconds";
    out.family(name, "gauge", "When the bundle that decides was loaded.");
    let _ = writeln!(out.0, "{name} {}.{:03}", millis / 1000, millis.rem_euclid(1000));
    decision_log_text(engine, out);
    if let Some(snapshot) = engine.snapshot() {
        let name = "tollgate_bundle_info";
        out.family(name, "gauge", "The bundle that decides.");
        out.line(name, &[("revision", snapshot.revision())], 1);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let rules = count(snapshot.counts().rules);
        out.single("tollgate_bundle_rules", "gauge", "Rules of the bundle that decides.", rules);
    }
}

/// Whether each store and provider answers, as far as is known.
fn health_text(health: &[Component], out: &mut Text) {
    let stores = ("tollgate_store_up", "store", "Whether a store answers.");
    let providers =
        ("tollgate_provider_up", "provider", "Whether a provider of identities answered when it was last asked.");
    for (kind, (name, label, help)) in [(Part::Store, stores), (Part::Provider, providers)] {
        out.family(name, "gauge", help);
        for one in health.iter().filter(|one| one.part == kind) {
            out.line(name, &[(label, &one.name)], u64::from(!one.away));
        }
    }
}

impl Rules {
    fn count(&self, rule: &SmolStr) {
        let part = usize::try_from(self.hasher.hash_one(rule) % PARTS as u64).unwrap_or_default();
        let Some(part) = self.parts.get(part) else { return };
        if let Some(count) = part.read().get(rule) {
            return add(Some(count));
        }
        if self.named.fetch_add(1, Ordering::Relaxed) >= MOST_RULES {
            self.named.fetch_sub(1, Ordering::Relaxed);
            return add(Some(&self.others));
        }
        let mut part = part.write();
        add(Some(part.entry(rule.clone()).or_default()));
    }

    fn counts(&self) -> Vec<(SmolStr, u64)> {
        let parts = self.parts.iter().map(|part| part.read());
        parts
            .flat_map(|part| part.iter().map(|(rule, count)| (rule.clone(), load(count))).collect::<Vec<_>>())
            .collect()
    }
}

fn add(counter: Option<&AtomicU64>) {
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Prometheus' text format. Writing to a String cannot fail.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.line(name, &[], value);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{escaped}\"", if number == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}
