//! What a model costs: US dollars per million tokens, per request and per image, in exact decimals.

use std::sync::Arc;

use crate::meter::{Price, Rates, Tier};
use crate::policy::problem::ProblemCode;
use crate::policy::yaml::Node;

use super::amounts;
use super::fields::{Fields, Findings};

/// What a million tokens may cost at most, in dollars: far above any price, far below where arithmetic ends.
const MOST_PER_MILLION_USD: u64 = 1_000_000_000;
/// What a request or an image may cost at most, in dollars.
const MOST_EACH_USD: u64 = 1_000_000;
/// Most tiers of a price.
const MOST_TIERS: usize = 16;
/// Pico-dollars per token are millionths of a dollar per million tokens.
const PER_MILLION_PLACES: usize = 6;
/// Pico-dollars in a dollar, as decimals.
const EACH_PLACES: usize = 12;

// The keys of each; `schema/rules.schema.json` has the same.
pub(super) const PRICE: &[&str] =
    &["input", "output", "cached_input", "cache_write", "reasoning", "request", "image", "tiers"];
pub(super) const TIER: &[&str] = &["above", "input", "output", "cached_input", "cache_write", "reasoning"];

pub(super) fn price(fields: &Fields) -> Option<Arc<Price>> {
    let node = fields.get("price")?;
    let fields = Fields::of(node, "a price", PRICE, fields.findings)?;
    let each = |field: &str| {
        let node = fields.get(field)?;
        amounts::price(node, field, EACH_PLACES, MOST_EACH_USD, fields.findings)
    };
    if !PRICE.iter().any(|field| fields.is_meant(field)) {
        let help = "write what it costs, `{ input: 0.10, output: 0.40 }`, or leave `price` out";
        fields.findings.error(ProblemCode::MissingField, fields.place, "the price is empty").help(help);
    }
    for (said, other) in [("input", "output"), ("output", "input"), ("tiers", "input")] {
        if fields.has(said) && !fields.is_meant(other) {
            let message = format!("the price says `{said}` and no `{other}`, which so costs nothing");
            let help = format!("add `{other}: 0` if it is free");
            fields.findings.warning(ProblemCode::PriceIncomplete, fields.place, message).help(help);
        }
    }
    let (request, image) = (each("request").unwrap_or(0), each("image").unwrap_or(0));
    Some(Arc::new(Price { rates: rates(&fields), tiers: tiers(&fields), request, image }))
}

/// What tokens cost; what is left out of `input` and `output` costs nothing.
fn rates(fields: &Fields) -> Rates {
    let rate = |field: &str| {
        let node = fields.get(field)?;
        amounts::price(node, field, PER_MILLION_PLACES, MOST_PER_MILLION_USD, fields.findings)
    };
    Rates {
        input: rate("input").unwrap_or(0),
        output: rate("output").unwrap_or(0),
        cached_input: rate("cached_input"),
        cache_write: rate("cache_write"),
        reasoning: rate("reasoning"),
    }
}

fn tiers(fields: &Fields) -> Box<[Tier]> {
    let findings = fields.findings;
    let Some(list) = fields.get("tiers").and_then(|node| findings.list(node, "tiers", "tiers")) else {
        return Box::default();
    };
    if let Some(node) = list.get(MOST_TIERS) {
        let message = format!("a price has {MOST_TIERS} tiers at most");
        findings.error(ProblemCode::InvalidValue, node.place, message).help("leave some out");
    }
    let mut tiers: Vec<Tier> = Vec::new();
    for node in list.iter().take(MOST_TIERS) {
        let Some((tier, above)) = tier(node, findings) else { continue };
        if tiers.last().is_some_and(|last| last.above >= tier.above) {
            let message = "each tier begins above the one before".to_owned();
            findings.error(ProblemCode::InvalidValue, above.place, message).help("put the tiers in ascending order");
            continue;
        }
        tiers.push(tier);
    }
    tiers.into()
}

fn tier<'a>(node: &'a Node, findings: &'a Findings) -> Option<(Tier, &'a Node)> {
    let fields = Fields::of(node, "a price tier", TIER, findings)?;
    let above = fields.required("above");
    // A tier prices the whole call, so that what it leaves out would be free.
    let _ = (fields.required("input"), fields.required("output"));
    let rates = rates(&fields);
    let node = above?;
    let above = amounts::whole(node, "above", 1..=u64::from(u32::MAX), findings)?;
    Some((Tier { above, rates }, node))
}
