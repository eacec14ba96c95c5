//! Rules: who may do what with which models, and when.

use crate::model::Effect;
use crate::policy::problem::ProblemCode;
use crate::policy::syntax::{ConditionText, Name, RuleDeclaration, Selector, SelectorKind};
use crate::policy::yaml::{Kind, Node, Scalar};

use super::fields::{Fields, Findings, Wildcard, shortened};

pub(super) const WHO: &[SelectorKind] = &[
    SelectorKind::User,
    SelectorKind::Team,
    SelectorKind::Org,
    SelectorKind::Service,
    SelectorKind::Key,
    SelectorKind::Tag,
    SelectorKind::Role,
];

pub(super) const WHAT: &[SelectorKind] = &[
    SelectorKind::Model,
    SelectorKind::ModelGroup,
    SelectorKind::ProviderAccount,
    SelectorKind::Router,
    SelectorKind::ModelTag,
];

pub(super) const KNOWN: &[&str] = &[
    "id",
    "description",
    "effect",
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
    "when",
    "unless",
];

pub(super) fn rule(node: &Node, findings: &Findings) -> Option<RuleDeclaration> {
    let fields = Fields::of(node, "a rule", KNOWN, findings)?;
    // A rule without a usable id would take the name of its number, and a rule that lost a selector would say
    // something else: but a file with a problem never loads, so what is left serves only to find more of them.
    let id = fields.has("id").then(|| fields.id("id")).flatten();
    require(&fields, WHO, ProblemCode::RuleWithoutWho, "the rule does not say who");
    require(&fields, WHAT, ProblemCode::RuleWithoutWhat, "the rule does not say what");
    Some(RuleDeclaration {
        id,
        place: fields.place,
        effect: effect(&fields),
        description: description(&fields),
        who: selectors(&fields, WHO),
        what: selectors(&fields, WHAT),
        actions: fields.names("actions", Wildcard::Never),
        when: conditions(&fields, "when"),
        unless: conditions(&fields, "unless"),
    })
}

/// Reports a rule in which none of `kinds` is spoken of.
fn require(fields: &Fields, kinds: &[SelectorKind], code: ProblemCode, message: &str) {
    if kinds.iter().any(|kind| fields.is_meant(kind.field())) {
        return;
    }
    let names = kinds.iter().map(|kind| format!("`{}`", kind.field())).collect::<Vec<_>>().join(", ");
    let every = if code == ProblemCode::RuleWithoutWho { "users" } else { "models" };
    let help = format!("add one of {names}; `{every}: \"*\"` is every one, and must be written");
    fields.findings.error(code, fields.place, message).help(help);
}

pub(super) fn selectors(fields: &Fields, kinds: &[SelectorKind]) -> Box<[Selector]> {
    let of_kind = |&kind: &SelectorKind| {
        let wildcard = match kind {
            SelectorKind::Model => Wildcard::Pattern,
            kind if kind.takes_wildcard() => Wildcard::All,
            _ => Wildcard::Never,
        };
        let names: Vec<Name> = fields.names(kind.field(), wildcard).into();
        names.into_iter().map(move |name| Selector { kind, name })
    };
    kinds.iter().flat_map(of_kind).collect()
}

fn effect(fields: &Fields) -> Effect {
    let Some(node) = fields.get("effect") else { return Effect::Permit };
    let Some(scalar) = fields.findings.scalar(node, "`permit` or `forbid`") else { return Effect::Permit };
    let help = match scalar.text.as_str() {
        "permit" => return Effect::Permit,
        "forbid" => return Effect::Forbid,
        "allow" | "Allow" | "Permit" | "PERMIT" | "ALLOW" => "write `permit`, or leave `effect` out",
        "deny" | "Deny" | "DENY" | "Forbid" | "FORBID" | "block" => "write `forbid`",
        _ => "write `permit` or `forbid`",
    };
    let message = format!("`effect` is `permit` or `forbid`, found `{}`", shortened(&scalar.text));
    fields.findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
    Effect::Permit
}

pub(super) fn description(fields: &Fields) -> Option<Box<str>> {
    let node = fields.get("description")?;
    let scalar = fields.findings.scalar(node, "a text")?;
    Some(scalar.text.as_str().into())
}

/// One condition, or a list of them.
fn conditions(fields: &Fields, field: &str) -> Box<[ConditionText]> {
    let Some(node) = fields.get(field) else { return Box::default() };
    let items = match &node.kind {
        Kind::Sequence(_) => fields.findings.list(node, field, "conditions").unwrap_or_default(),
        _ => std::slice::from_ref(node),
    };
    items.iter().filter_map(|item| condition(item, field, fields.findings)).collect()
}

fn condition(node: &Node, field: &str, findings: &Findings) -> Option<ConditionText> {
    let Scalar { text, layout, start, .. } = findings.scalar(node, "a condition")?;
    if text.trim().is_empty() {
        let message = format!("a condition of `{field}` is empty");
        let help = "write a Cedar expression, or remove the condition";
        findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
        return None;
    }
    Some(ConditionText { text: text.clone(), place: *start, layout: *layout })
}
