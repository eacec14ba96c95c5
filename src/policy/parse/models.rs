//! Provider accounts with their models and prices, model groups, and routers.

use crate::policy::problem::ProblemCode;
use crate::policy::syntax::{AccountDeclaration, ModelDeclaration, ModelsDeclaration, Price};
use crate::policy::yaml::{Kind, Node, Scalar, Style};

use super::fields::{Fields, Findings, Wildcard, describe, shortened};
use super::people::extras;

/// What a million tokens may cost at most, in dollars: far above any price, far below where arithmetic ends.
const MAX_PRICE_USD: u64 = 1_000_000_000;
/// Pico-dollars per token that a dollar per million tokens is.
const PICO_PER_USD_PER_MILLION: u64 = 1_000_000;

// The keys of each declaration; `schema/rules.schema.json` has the same.
pub(super) const ACCOUNT: &[&str] = &["id", "provider", "tags", "models", "metadata"];
pub(super) const MODEL: &[&str] = &["name", "enabled", "tags", "aliases", "max_output_tokens", "price", "metadata"];
pub(super) const PRICE: &[&str] = &["input", "output", "cached_input"];
pub(super) const MODELS: &[&str] = &["id", "models", "tags", "metadata"];

pub(super) fn account(node: &Node, findings: &Findings) -> Option<AccountDeclaration> {
    let fields = Fields::of(node, "a provider account", ACCOUNT, findings)?;
    let id = fields.id("id");
    let provider = fields.text("provider");
    let tags = fields.names("tags", Wildcard::Never);
    let models = fields.has("models").then(|| {
        let items = fields.get("models").and_then(|node| findings.list(node, "models", "models"));
        items.unwrap_or_default().iter().filter_map(|item| model(item, findings)).collect()
    });
    let extras = extras(&fields);
    Some(AccountDeclaration { id: id?, provider, tags, models, extras })
}

/// A model: its name alone, or a mapping.
fn model(node: &Node, findings: &Findings) -> Option<ModelDeclaration> {
    if matches!(node.kind, Kind::Scalar(_)) {
        let way_out = || "list the models by name; an account that lists none takes every model".to_owned();
        let name = findings.name(node, Wildcard::Never, way_out)?;
        return Some(ModelDeclaration {
            name,
            enabled: true,
            tags: Box::default(),
            aliases: Box::default(),
            max_output_tokens: None,
            price: None,
            metadata: Box::default(),
        });
    }
    let fields = Fields::of(node, "a model", MODEL, findings)?;
    let name = fields.id("name");
    let enabled = fields.switch("enabled").unwrap_or(true);
    let (tags, aliases) = (fields.names("tags", Wildcard::Never), fields.names("aliases", Wildcard::Never));
    let max_output_tokens = tokens(&fields, "max_output_tokens");
    let price = price(&fields);
    let metadata = fields.metadata();
    Some(ModelDeclaration { name: name?, enabled, tags, aliases, max_output_tokens, price, metadata })
}

fn tokens(fields: &Fields, field: &str) -> Option<u64> {
    let node = fields.get(field)?;
    let number = match &node.kind {
        Kind::Scalar(Scalar { text, style: Style::Plain, .. }) => whole_number(text),
        _ => None,
    };
    if number.is_none() {
        let found = shown(node);
        let message = format!("`{field}` is a whole number, 0 or more, found {found}");
        fields.findings.error(ProblemCode::InvalidValue, node.place, message).help("write digits only: `4096`");
    }
    number
}

/// Digits without a leading zero, which some readers would take for an octal number; at most what Cedar's Long holds.
fn whole_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = text.parse().ok().filter(|_| digits)?;
    i64::try_from(number).is_ok().then_some(number)
}

fn price(fields: &Fields) -> Option<Box<Price>> {
    let node = fields.get("price")?;
    let fields = Fields::of(node, "a price", PRICE, fields.findings)?;
    let amount = |field| fields.get(field).and_then(|node| amount(node, field, fields.findings));
    let price = Price { input: amount("input"), output: amount("output"), cached_input: amount("cached_input") };
    Some(Box::new(price))
}

/// Dollars per million tokens, as pico-dollars per token.
fn amount(node: &Node, field: &str, findings: &Findings) -> Option<u64> {
    let text = match &node.kind {
        Kind::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    let (what, help) = match decimal(text) {
        Ok(amount) => return Some(amount),
        Err(Unfit::Form) => ("is a decimal number", "write US dollars per million tokens: `0.10`"),
        Err(Unfit::Negative) => ("must not be negative", "write 0 for what costs nothing"),
        Err(Unfit::TooFine) => ("has 6 decimals at most", "round it; it is dollars per million tokens"),
        Err(Unfit::TooLarge) => ("is out of all proportion", "it is US dollars per million tokens"),
    };
    let message = format!("the price `{field}` {what}, found {}", shown(node));
    findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
    None
}

/// Why a text is no price.
#[derive(Debug, PartialEq, Eq)]
enum Unfit {
    Form,
    Negative,
    TooFine,
    TooLarge,
}

/// An exact decimal in millionths; no float is on the way.
fn decimal(text: &str) -> Result<u64, Unfit> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(positive) = text.strip_prefix('-') {
        return Err(decimal(positive).map_or_else(|unfit| unfit, |_| Unfit::Negative));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if !digits(whole) || !digits(fraction) || leading_zero {
        return Err(Unfit::Form);
    }
    if fraction.len() > 6 {
        return Err(Unfit::TooFine);
    }
    let whole: u64 = whole.parse().map_err(|_| Unfit::TooLarge)?;
    let millionths: u64 = format!("{fraction:0<6}").parse().map_err(|_| Unfit::Form)?;
    let amount = whole.checked_mul(PICO_PER_USD_PER_MILLION).and_then(|amount| amount.checked_add(millionths));
    amount.filter(|_| whole <= MAX_PRICE_USD).ok_or(Unfit::TooLarge)
}

fn shown(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.style == Style::Plain => format!("`{}`", shortened(&scalar.text)),
        _ => describe(node).to_owned(),
    }
}

/// A model group or a router, whichever `what` says.
pub(super) fn models(node: &Node, what: &'static str, findings: &Findings) -> Option<ModelsDeclaration> {
    let fields = Fields::of(node, what, MODELS, findings)?;
    let id = fields.id("id");
    let models = fields.required("models").map(|node| findings.names(node, "models", Wildcard::Pattern));
    let tags = fields.names("tags", Wildcard::Never);
    let metadata = fields.metadata();
    Some(ModelsDeclaration { id: id?, models: models?, tags, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("0.10", Ok(100_000)),
            ("0.1", Ok(100_000)),
            ("15", Ok(15_000_000)),
            ("0.000001", Ok(1)),
            ("1000000000.999999", Ok(1_000_000_000_999_999)),
            ("0.0000001", Err(Unfit::TooFine)),
            ("-1", Err(Unfit::Negative)),
            ("-x", Err(Unfit::Form)),
            ("1e3", Err(Unfit::Form)),
            ("1_000", Err(Unfit::Form)),
            ("010", Err(Unfit::Form)),
            (".5", Err(Unfit::Form)),
            ("5.", Err(Unfit::Form)),
            ("+1", Err(Unfit::Form)),
            ("", Err(Unfit::Form)),
            ("1000000001", Err(Unfit::TooLarge)),
            ("99999999999999999999999", Err(Unfit::TooLarge)),
        ] {
            assert_eq!(decimal(text), expected, "{text}");
        }
    }
}
