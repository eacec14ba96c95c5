//! Provider accounts with their models, model groups, and routers.

use crate::policy::problem::ProblemCode;
use crate::policy::syntax::{AccountDeclaration, Estimates, ModelDeclaration, ModelsDeclaration};
use crate::policy::yaml::{Kind, Node, Scalar, Style};

use super::amounts::shown;
use super::fields::{Fields, Findings, Wildcard};
use super::people::extras;
use super::prices::price;

// The keys of each declaration; `schema/rules.schema.json` has the same.
pub(super) const ACCOUNT: &[&str] =
    &["id", "provider", "tags", "models", "estimate_input_tokens", "estimate_output_tokens", "metadata"];
pub(super) const MODEL: &[&str] = &[
    "name",
    "enabled",
    "tags",
    "aliases",
    "max_output_tokens",
    "estimate_input_tokens",
    "estimate_output_tokens",
    "price",
    "metadata",
];
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
    let estimates = estimates(&fields);
    let extras = extras(&fields);
    Some(AccountDeclaration { id: id?, provider, tags, models, estimates, extras })
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
            estimates: Estimates::default(),
            price: None,
            metadata: Box::default(),
        });
    }
    let fields = Fields::of(node, "a model", MODEL, findings)?;
    let name = fields.id("name");
    let enabled = fields.switch("enabled").unwrap_or(true);
    let (tags, aliases) = (fields.names("tags", Wildcard::Never), fields.names("aliases", Wildcard::Never));
    let max_output_tokens = tokens(&fields, "max_output_tokens");
    let estimates = estimates(&fields);
    let price = price(&fields);
    let metadata = fields.metadata();
    Some(ModelDeclaration { name: name?, enabled, tags, aliases, max_output_tokens, estimates, price, metadata })
}

fn estimates(fields: &Fields) -> Estimates {
    Estimates {
        input_tokens: tokens(fields, "estimate_input_tokens"),
        output_tokens: tokens(fields, "estimate_output_tokens"),
    }
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

/// A model group or a router, whichever `what` says.
pub(super) fn models(node: &Node, what: &'static str, findings: &Findings) -> Option<ModelsDeclaration> {
    let fields = Fields::of(node, what, MODELS, findings)?;
    let id = fields.id("id");
    let models = fields.required("models").map(|node| findings.names(node, "models", Wildcard::Pattern));
    let tags = fields.names("tags", Wildcard::Never);
    let metadata = fields.metadata();
    Some(ModelsDeclaration { id: id?, models: models?, tags, metadata })
}
