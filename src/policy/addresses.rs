//! IPv4-mapped addresses in bundles and requests. Conditions never see a mapped address of a request, so a mapped address
//! that is written elsewhere becomes the IPv4 address too. Otherwise a forbid on it would not match.
//!
//! A bundle's texts are rewritten before they are validated, so that the validator, decisions and `compile` agree. What
//! [`super::load::unchecked`] compiles stays as it is, as Cedar alone reads it.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{
    Context, Entity, Expr, ExprKind, ExtensionFunction, Literal, Name, PartialValue, RestrictedExpr, Value, ValueKind,
};
use cedar_policy_core::extensions::Extensions;
use smol_str::SmolStr;

use crate::model::unmapped;

/// The function that reads an address.
const IP: &str = "ip";

/// `text`, from which `expressions` were parsed, with each IPv4-mapped address replaced by the IPv4 address and as many
/// spaces as keep every other place in the text; `None` where it names none.
pub(super) fn rewritten<'a>(text: &str, expressions: impl IntoIterator<Item = &'a Expr>) -> Option<String> {
    if !text.contains(IP) {
        return None;
    }
    let mut changed: Option<String> = None;
    for part in expressions.into_iter().flat_map(Expr::subexpressions) {
        let Some((address, argument)) = mapped(part) else { continue };
        let Some(range) = argument.source_loc().map(|loc| loc.start()..loc.end()) else { continue };
        let literal = format!("{:width$}", format!("\"{address}\""), width = range.len());
        // An IPv4 address is never longer than its mapped form.
        if literal.len() == range.len() && text.get(range.clone()).is_some_and(|old| old.starts_with('"')) {
            changed.get_or_insert_with(|| text.to_owned()).replace_range(range, &literal);
        }
    }
    changed
}

/// The IPv4 address that a call of `ip` names in mapped form, and the argument that names it.
fn mapped(expression: &Expr) -> Option<(String, &Expr)> {
    let ExprKind::ExtensionFunctionApp { fn_name, args } = expression.expr_kind() else { return None };
    let [argument] = args.as_slice() else { return None };
    match argument.expr_kind() {
        ExprKind::Lit(Literal::String(text)) if fn_name.to_string() == IP => Some((unmapped(text)?, argument)),
        _ => None,
    }
}

/// `entity` with the IPv4 address in place of each mapped one in its attributes and tags.
pub(crate) fn entity(entity: &Entity) -> Entity {
    if !entity
        .attrs()
        .chain(entity.tags())
        .any(|(_, value)| matches!(value, PartialValue::Value(value) if holds(value)))
    {
        return entity.clone();
    }
    let own = |(name, one): (&SmolStr, &PartialValue)| {
        let one = match one {
            PartialValue::Value(one) => PartialValue::Value(value(one)),
            PartialValue::Residual(_) => one.clone(),
        };
        (name.clone(), one)
    };
    Entity::new_with_attr_partial_value(
        entity.uid().clone(),
        entity.attrs().map(own),
        HashSet::new(),
        entity.ancestors().cloned().collect(),
        entity.tags().map(own),
    )
}

/// `context` with the IPv4 address in place of each mapped one.
pub(crate) fn context(context: &Context) -> Context {
    match context {
        Context::Value(members) if members.values().any(holds) => {
            Context::Value(Arc::new(members.iter().map(|(name, one)| (name.clone(), value(one))).collect()))
        }
        other => other.clone(),
    }
}

/// Whether the value is a mapped address or has one within.
fn holds(value: &Value) -> bool {
    match value.value_kind() {
        ValueKind::Lit(_) => false,
        ValueKind::Set(set) => set.iter().any(holds),
        ValueKind::Record(members) => members.values().any(holds),
        ValueKind::ExtensionValue(_) => plain(value).is_some(),
    }
}

/// The IPv4 address that a mapped one stands for.
fn plain(value: &Value) -> Option<Value> {
    static FUNCTION: LazyLock<Option<&'static ExtensionFunction>> =
        LazyLock::new(|| Extensions::all_available().func(&IP.parse::<Name>().ok()?).ok());
    let ValueKind::ExtensionValue(address) = value.value_kind() else { return None };
    let written = RestrictedExpr::from(address.as_ref().clone());
    let (address, _) = mapped(&written)?;
    match (*FUNCTION)?.call(&[SmolStr::from(address).into()]) {
        Ok(PartialValue::Value(value)) => Some(value),
        _ => None,
    }
}

fn value(one: &Value) -> Value {
    match one.value_kind() {
        ValueKind::Lit(_) => one.clone(),
        ValueKind::Set(set) => Value::set(set.iter().map(value), None),
        ValueKind::Record(members) => {
            Value::record(members.iter().map(|(name, member)| (name.clone(), value(member))), None)
        }
        ValueKind::ExtensionValue(_) => plain(one).unwrap_or_else(|| one.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(text: &str) -> Option<String> {
        let expression: Expr = text.parse().ok()?;
        rewritten(text, [&expression])
    }

    #[test]
    fn a_mapped_address_is_replaced_and_nothing_else_moves() {
        for (text, becomes) in [
            ("ip(\"::ffff:a00:0/104\")", "ip(\"10.0.0.0/8\"      )"),
            (
                "ip(\"::ffff:10.0.0.0/104\") == ip( \"::FFFF:0a00:1\" )",
                "ip(\"10.0.0.0/8\"         ) == ip( \"10.0.0.1\"      )",
            ),
            ("ip(\"\\u{3a}:ffff:0:0\").isIpv4()", "ip(\"0.0.0.0\"        ).isIpv4()"),
        ] {
            let changed = rewrite(text);
            assert_eq!(changed.as_deref(), Some(becomes), "{text}");
            assert_eq!(changed.map(|text| text.len()), Some(text.len()));
        }
        for text in ["ip(\"10.0.0.0/8\")", "ip(\"::ffff:0:0/95\")", "\"::ffff:10.0.0.1\" == context.ip", "ip(\"ip\")"] {
            assert_eq!(rewrite(text), None, "{text}");
        }
    }
}
