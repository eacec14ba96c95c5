//! Limits: whom they bind on what, how much of what over which time, and what happens at the edges.

use std::sync::Arc;

use smol_str::format_smolstr;

use crate::meter::{Durability, Lease, Limit, Measure, Mode, OnExpiry, OnMissingUsage, OnStoreError, Unpriced};
use crate::model::{Amount, KeyLimit, Period, Unit};
use crate::policy::problem::{ProblemCode, nearest};
use crate::policy::syntax::{Each, LimitDeclaration, Name, Place, Selector, SelectorKind};
use crate::policy::yaml::{Kind, Node};

use super::amounts;
use super::fields::{Fields, Findings, Wildcard, listed, shortened};
use super::measures::{self, Measured};
use super::rules::{self, WHAT, WHO};

// The keys of each; `schema/rules.schema.json` has the same.
pub(super) const KNOWN: &[&str] = &[
    "id",
    "description",
    "everyone",
    "users",
    "teams",
    "orgs",
    "services",
    "keys",
    "tags",
    "roles",
    "models",
    "model_groups",
    "provider_accounts",
    "routers",
    "model_tags",
    "actions",
    "each",
    "budget",
    "rate",
    "concurrency",
    "warn_at",
    "mode",
    "overrides",
    "on_store_error",
    "on_expiry",
    "on_missing_usage",
    "durability",
    "unpriced",
    "lease",
];
/// The keys of a limit of one key.
pub(super) const OF_KEY: &[&str] = &[
    "id",
    "each",
    "budget",
    "rate",
    "concurrency",
    "warn_at",
    "mode",
    "overrides",
    "on_store_error",
    "on_expiry",
    "on_missing_usage",
    "durability",
    "unpriced",
];
pub(super) const ON_STORE_ERROR: &[&str] = &["permit"];
pub(super) const LEASE: &[&str] = &["size", "seconds"];
/// Most limits of one key.
const MAX_KEY_LIMITS: usize = 16;
/// For how long a lease is spent where nobody says otherwise, and at most, in seconds.
const USUAL_LEASE: u64 = 10;
const LONGEST_LEASE: u64 = 3600;

pub(super) fn limit(node: &Node, findings: &Findings) -> Option<LimitDeclaration> {
    let fields = Fields::of(node, "a limit", KNOWN, findings)?;
    let id = fields.id("id");
    let (who, what) = scope(&fields);
    let measured = measures::measure(&fields);
    let overrides = measures::overrides(&fields, measured.as_ref());
    let edges = Edges::read(&fields, measured.as_ref());
    let declared = LimitDeclaration {
        id: id?,
        place: fields.place,
        description: rules::description(&fields),
        each: each(&fields),
        who,
        what,
        actions: fields.names("actions", Wildcard::Never),
        limit: Arc::new(nothing()),
    };
    let Measured { measure, cap } = measured?;
    let limit = Limit {
        id: declared.id.value.clone(),
        series: series(&declared.id.value, &measure).into(),
        measure,
        cap,
        overrides,
        ..edges.limit
    };
    Some(LimitDeclaration { limit: Arc::new(limit), ..declared })
}

/// A limit of the key `key` alone: as one of a bundle, but that it says neither whom it binds nor on what, and needs no id.
fn of_key(node: &Node, key: &str, findings: &Findings) -> Option<KeyLimit> {
    let fields = Fields::of(node, "a limit of a key", OF_KEY, findings)?;
    let named = fields.name("id");
    let measured = measures::measure(&fields);
    let overrides = measures::overrides(&fields, measured.as_ref());
    let edges = Edges::read(&fields, measured.as_ref());
    let each = each(&fields);
    if let Some(Each::Org | Each::Team | Each::User | Each::Service) = each {
        let node = fields.get("each")?;
        let message = "a key has one owner, so that its limits have no meter for each of those";
        let help = "it is one of key, model, router, end_user, `metadata.<key>`; left out, the key has one meter";
        findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
        return None;
    }
    let Measured { measure, cap } = measured?;
    let name = named.map_or_else(|| measure_name(&measure).into(), |name| name.value);
    // The key stands in the series, so that no two keys share a meter, whatever it is for each of.
    let series = series(&format!("key:{key}:{name}"), &measure).into();
    let limit = Limit { id: format_smolstr!("key:{name}"), series, measure, cap, overrides, ..edges.limit };
    Some(KeyLimit { limit: Arc::new(limit), each: each.filter(|each| *each != Each::Key) })
}

/// The limits of a key that stands in the bundle. Each is as one that the bundle has for that key alone.
pub(super) fn declared_of_key(fields: &Fields, key: &Name) -> Box<[LimitDeclaration]> {
    let Some(node) = fields.get("limits") else { return Box::default() };
    let nodes = fields.findings.list(node, "limits", "limits").unwrap_or_default();
    let own = all_of_key(node, nodes, &key.value, fields.findings);
    let declared = |(place, KeyLimit { limit, each }): (Place, KeyLimit)| {
        // No other key's, whatever that is called.
        let name = limit.id.strip_prefix("key:").unwrap_or(&limit.id);
        let id = format_smolstr!("key:{}:{name}", key.value);
        LimitDeclaration {
            id: Name::new(id.clone(), place),
            place,
            description: None,
            limit: Arc::new(Limit { id, ..(*limit).clone() }),
            each: Some(each.unwrap_or(Each::Key)),
            who: Box::new([Selector { kind: SelectorKind::Key, name: key.clone() }]),
            what: Box::default(),
            actions: Box::default(),
        }
    };
    own.into_iter().map(declared).collect()
}

/// The limits of the key `key`, each with its place.
pub(super) fn all_of_key(list: &Node, nodes: &[Node], key: &str, findings: &Findings) -> Vec<(Place, KeyLimit)> {
    let mut limits: Vec<(Place, KeyLimit)> = Vec::with_capacity(nodes.len().min(MAX_KEY_LIMITS));
    if nodes.len() > MAX_KEY_LIMITS {
        let message = format!("a key has {MAX_KEY_LIMITS} limits at most");
        findings.error(ProblemCode::InvalidValue, list.place, message).help("put what many keys share in `limits:`");
        return limits;
    }
    for node in nodes {
        let Some(limit) = of_key(node, key, findings) else { continue };
        if limits.iter().any(|(_, known)| known.limit.id == limit.limit.id) {
            let name = limit.limit.id.strip_prefix("key:").unwrap_or(&limit.limit.id).escape_debug();
            let message = format!("two limits of the key are called `{name}`");
            let help = "give each an `id`; without one a limit is called after its kind: budget, rate, concurrency";
            findings.error(ProblemCode::DuplicateId, node.place, message).help(help);
            continue;
        }
        limits.push((node.place, limit));
    }
    limits
}

fn measure_name(measure: &Measure) -> &'static str {
    match measure {
        Measure::Budget { .. } => "budget",
        Measure::Rate { .. } => "rate",
        Measure::Concurrency => "concurrency",
    }
}

/// What the meters of a limit are named by: what would make another meter of it. The part behind the id has two colons
/// always, so that no two limits share a series.
fn series(id: &str, measure: &Measure) -> String {
    let unit = measure.unit().as_str();
    match measure {
        Measure::Budget { period: Period::Rolling(length_ms), .. } => format!("{id}:{unit}:rolling({length_ms}ms)"),
        Measure::Budget { period: Period::Calendar { every, zone }, .. } => {
            let zone = zone.iana_name().unwrap_or("UTC");
            format!("{id}:{unit}:{}({zone})", format!("{every:?}").to_lowercase())
        }
        Measure::Rate { every_ms, .. } => format!("{id}:{unit}:rate({every_ms}ms)"),
        Measure::Concurrency => format!("{id}:{unit}:concurrency"),
    }
}

/// Whom the limit binds and on what; one of the two at least, or everyone.
fn scope(fields: &Fields) -> (Box<[Selector]>, Box<[Selector]>) {
    let findings = fields.findings;
    let meant =
        |kinds: &[_]| kinds.iter().any(|kind: &crate::policy::syntax::SelectorKind| fields.is_meant(kind.field()));
    let everyone = fields.switch("everyone");
    if let Some((key, _)) = fields.entry("everyone") {
        if everyone == Some(false) {
            let message = "`everyone: false` says nothing";
            findings
                .error(ProblemCode::InvalidValue, key.place, message)
                .help("name whom the limit binds, or remove the key");
        } else if meant(WHO) {
            let message = "`everyone` stands beside names: it is everyone, or those";
            findings
                .error(ProblemCode::InvalidValue, key.place, message)
                .help("remove `everyone`, or the names of whom the limit binds");
        }
    } else if !meant(WHO) && !meant(WHAT) && !fields.is_meant("everyone") {
        let names = WHO.iter().chain(WHAT).map(|kind| kind.field()).collect::<Vec<_>>();
        let help = format!("add one of {}, or `everyone: true`", listed(&names));
        let message = "the limit says neither whom it binds nor on what";
        findings.error(ProblemCode::LimitWithoutScope, fields.place, message).help(help);
    }
    (rules::selectors(fields, WHO), rules::selectors(fields, WHAT))
}

fn each(fields: &Fields) -> Option<Each> {
    let node = fields.get("each")?;
    let text = fields.findings.scalar(node, "a kind")?.text.as_str();
    let each = Each::named(text);
    if each.is_none() {
        let near = match text {
            "account" | "provider_account" | "model_group" | "tag" | "role" | "global" => None,
            "metadata" | "metadata." => Some("metadata.<key>"),
            "principal" | "person" | "member" | "caller" => Some("user"),
            "application" | "app" => Some("service"),
            "customer" => Some("end_user"),
            "api_key" => Some("key"),
            _ => nearest(text, Each::NAMES),
        };
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        let help =
            format!("{near}it is one of {}, `metadata.<key>`; left out, all share one meter", listed(&Each::NAMES));
        let message = format!("a limit cannot have a meter for each `{}`", shortened(text));
        fields.findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
    }
    if let Some(Each::Metadata(key)) = &each {
        fields.findings.checked(key, node.place)?;
    }
    each
}

/// What happens at the edges of a limit, the rest of it being filled in later.
struct Edges {
    limit: Limit,
}

impl Edges {
    fn read(fields: &Fields, measured: Option<&Measured>) -> Self {
        let unit = measured.map(|measured| measured.measure.unit());
        let is_budget = measured.is_some_and(|measured| matches!(measured.measure, Measure::Budget { .. }));
        let (mode, on_expiry, unpriced) = (
            choice(fields, "mode", &[("enforce", Mode::Enforce), ("warn", Mode::Warn)]),
            choice(fields, "on_expiry", &[("charge", OnExpiry::Charge), ("release", OnExpiry::Release)]),
            choice(fields, "unpriced", &[("forbid", Unpriced::Forbid), ("free", Unpriced::Free)]),
        );
        let missing_usage = [
            ("charge_hold", OnMissingUsage::ChargeHold),
            ("charge_estimate", OnMissingUsage::ChargeEstimate),
            ("release", OnMissingUsage::Release),
        ];
        let on_missing_usage = choice(fields, "on_missing_usage", &missing_usage);
        let durability = choice(fields, "durability", &[("sync", Durability::Sync), ("async", Durability::Async)]);
        if let (Some((key, _)), Some(unit)) = (fields.entry("unpriced"), unit)
            && unit != Unit::Usd
        {
            let message = "`unpriced` is for limits in `usd`: nothing else needs a price";
            fields.findings.error(ProblemCode::InvalidValue, key.place, message).help("remove `unpriced`");
        }
        for name in ["on_expiry", "on_missing_usage"] {
            if let (Some((key, _)), Some(Unit::Places)) = (fields.entry(name), unit) {
                let message = "a concurrency place is always released";
                fields.findings.error(ProblemCode::InvalidValue, key.place, message).help(format!("remove `{name}`"));
            }
        }
        // What money was spent may not be forgotten; of the rest a crash may forget some milliseconds.
        let usual = if is_budget && unit == Some(Unit::Usd) { Durability::Sync } else { Durability::Async };
        Self {
            limit: Limit {
                warn_at: warn_at(fields),
                mode: mode.unwrap_or_default(),
                on_expiry: on_expiry.unwrap_or_default(),
                on_missing_usage: on_missing_usage.unwrap_or_default(),
                on_store_error: on_store_error(fields, measured),
                durability: durability.unwrap_or(usual),
                unpriced: unpriced.unwrap_or_default(),
                lease: lease(fields, measured),
                ..nothing()
            },
        }
    }
}

/// A limit that says nothing yet.
fn nothing() -> Limit {
    Limit {
        id: "".into(),
        series: "".into(),
        measure: Measure::Concurrency,
        cap: Amount::ZERO,
        overrides: Box::default(),
        warn_at: Box::default(),
        mode: Mode::default(),
        on_expiry: OnExpiry::default(),
        on_missing_usage: OnMissingUsage::default(),
        on_store_error: OnStoreError::default(),
        durability: Durability::Async,
        unpriced: Unpriced::default(),
        lease: None,
    }
}

/// One of a few words.
fn choice<T: Copy>(fields: &Fields, field: &str, known: &[(&'static str, T)]) -> Option<T> {
    let node = fields.get(field)?;
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let text = fields.findings.scalar(node, "a word")?.text.as_str();
    let found = known.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
    if found.is_none() {
        let near = nearest(text, words.iter().copied()).map(|near| format!("did you mean `{near}`? "));
        let help = format!("{}it is one of {}", near.unwrap_or_default(), listed(&words));
        let message = format!("`{field}` cannot be `{}`", shortened(text));
        fields.findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
    }
    found
}

/// Percents, ascending.
fn warn_at(fields: &Fields) -> Box<[u8]> {
    let findings = fields.findings;
    let Some(node) = fields.get("warn_at") else { return Box::default() };
    let Some(list) = findings.list(node, "warn_at", "percents") else { return Box::default() };
    let mut percents: Vec<u8> = Vec::new();
    for node in list {
        let percent = amounts::whole(node, "warn_at", 1..=100, findings).and_then(|percent| u8::try_from(percent).ok());
        let Some(percent) = percent else { continue };
        if percents.contains(&percent) {
            let message = format!("{percent} percent stands in this list twice");
            findings.error(ProblemCode::InvalidValue, node.place, message).help("remove one of the two");
            continue;
        }
        percents.push(percent);
    }
    percents.sort_unstable();
    percents.into()
}

/// `forbid`, `permit` with the usual allowance, or `{ permit: amount }`.
fn on_store_error(fields: &Fields, measured: Option<&Measured>) -> OnStoreError {
    let findings = fields.findings;
    let Some((_, Node { kind: Kind::Mapping(_), .. })) = fields.entry("on_store_error") else {
        let known = [("forbid", false), ("permit", true)];
        return match (choice(fields, "on_store_error", &known), measured) {
            (Some(true), Some(measured)) => OnStoreError::Permit(usual_allowance(measured.cap)),
            _ => OnStoreError::Forbid,
        };
    };
    let read = || {
        let node = fields.get("on_store_error")?;
        let inner = Fields::of(node, "`on_store_error`", ON_STORE_ERROR, findings)?;
        let (node, measured) = (inner.required("permit")?, measured?);
        let allowance = amounts::amount(node, "permit", measured.measure.unit(), findings)?;
        if allowance > measured.cap {
            let message = "the allowance is more than the limit itself";
            let help = "each node lets this much through while the store is away; make it a small part of the limit";
            findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
        }
        Some(OnStoreError::Permit(allowance))
    };
    read().unwrap_or_default()
}

/// How much of a meter a node draws at once, and for how long: `amount`, or `{ size, seconds }`.
fn lease(fields: &Fields, measured: Option<&Measured>) -> Option<Lease> {
    let findings = fields.findings;
    let (key, node) = fields.entry("lease")?;
    let measured = measured?;
    if measured.measure == Measure::Concurrency {
        let message = "places cannot be leased: each is held until its call ends";
        findings.error(ProblemCode::InvalidValue, key.place, message).help("remove `lease`");
        return None;
    }
    let (size, seconds) = if let Kind::Mapping(_) = node.kind {
        let inner = Fields::of(node, "`lease`", LEASE, findings)?;
        let seconds = inner.get("seconds").map(|node| amounts::whole(node, "seconds", 1..=LONGEST_LEASE, findings));
        (inner.required("size")?, seconds.unwrap_or(Some(USUAL_LEASE))?)
    } else {
        (fields.get("lease")?, USUAL_LEASE)
    };
    let amount = amounts::amount(size, "lease", measured.measure.unit(), findings)?;
    let wrong = if amount.is_zero() {
        Some(("a lease of nothing serves nobody", "write how much a node draws at once, or remove `lease`"))
    } else if amount > measured.cap {
        Some((
            "the lease is more than the limit itself",
            "each node holds this much; make it a small part of the limit",
        ))
    } else {
        None
    };
    if let Some((message, help)) = wrong {
        findings.error(ProblemCode::InvalidValue, size.place, message).help(help);
        return None;
    }
    Some(Lease { size: amount, lasts_ms: i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000) })
}

/// A hundredth of the cap, rounded up: of a cap that is not none, the smallest unit at least.
fn usual_allowance(cap: Amount) -> Amount {
    Amount::new(cap.get().div_ceil(100)).unwrap_or(cap)
}
