//! The names in a condition or a `.cedar` file that can be looked up: entities, and the texts that are compared with labels
//! and with the path of a request. With a name that no entity has, a forbid never matches and an exception has no effect.

use std::sync::Arc;

use cedar_policy_core::ast::{BinaryOp, EntityUID, Expr, ExprKind, Literal, Pattern, PatternElem, Var};
use cedar_policy_core::parser::Loc;
use smol_str::SmolStr;

/// A part of a text that names something, and the bytes of the text that it stands in.
#[derive(Debug, Clone)]
pub struct NamedPart {
    /// What it names.
    pub named: Named,
    /// Where it begins, in bytes of the text.
    pub offset: usize,
    /// How many bytes of the text name it.
    pub length: usize,
}

/// What a part of a text names.
#[derive(Debug, Clone)]
pub enum Named {
    /// An entity, such as `Team::"research"`.
    Entity(Arc<EntityUID>),
    /// A tag of the principal.
    PrincipalTag(SmolStr),
    /// A role of the principal.
    Role(SmolStr),
    /// A tag of the resource.
    ResourceTag(SmolStr),
    /// A path that `context.path` is compared with.
    Path(SmolStr),
    /// A pattern that `context.path` is compared with: the texts between its wildcards.
    PathPattern(Vec<String>),
}

impl NamedPart {
    /// `uid`, at the place in the text that its parser noted.
    #[must_use]
    pub fn entity(uid: &Arc<EntityUID>, loc: Option<&Loc>) -> Self {
        Self::at(Named::Entity(Arc::clone(uid)), loc.or(uid.loc()))
    }

    fn at(named: Named, loc: Option<&Loc>) -> Self {
        let (offset, length) = loc.map_or((0, 1), |loc| (loc.start(), loc.end() - loc.start()));
        Self { named, offset, length }
    }

    /// Everything that `expression` names, in the order of its text. The expression must come from a parser: the places
    /// get lost where it is rebuilt.
    #[must_use]
    pub fn all(expression: &Expr) -> Vec<Self> {
        let mut found: Vec<Self> = expression.subexpressions().flat_map(named_by).collect();
        found.sort_by_key(|part| part.offset);
        found
    }
}

/// What an expression names without what its parts name.
fn named_by(expression: &Expr) -> Vec<NamedPart> {
    match expression.expr_kind() {
        ExprKind::Lit(Literal::EntityUID(uid)) => vec![NamedPart::entity(uid, expression.source_loc())],
        ExprKind::Like { expr, pattern } if is_path(expr) => {
            vec![NamedPart::at(Named::PathPattern(pieces(pattern)), expression.source_loc())]
        }
        ExprKind::BinaryApp {
            op: BinaryOp::Eq | BinaryOp::Contains | BinaryOp::ContainsAll | BinaryOp::ContainsAny,
            arg1,
            arg2,
        } => [(arg1, arg2), (arg2, arg1)].into_iter().flat_map(|(read, told)| compared(read, told)).collect(),
        _ => Vec::new(),
    }
}

/// The texts of `told` that are compared with what `read` reads.
fn compared(read: &Expr, told: &Expr) -> Vec<NamedPart> {
    let make: fn(SmolStr) -> Named = match read.expr_kind() {
        _ if is_path(read) => Named::Path,
        ExprKind::GetAttr { expr, attr } => match (expr.expr_kind(), attr.as_str()) {
            (ExprKind::Var(Var::Principal), "tags") => Named::PrincipalTag,
            (ExprKind::Var(Var::Principal), "roles") => Named::Role,
            (ExprKind::Var(Var::Resource), "tags") => Named::ResourceTag,
            _ => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    let text = |told: &Expr| match told.expr_kind() {
        ExprKind::Lit(Literal::String(text)) => Some(NamedPart::at(make(text.clone()), told.source_loc())),
        _ => None,
    };
    match told.expr_kind() {
        ExprKind::Set(elements) => elements.iter().filter_map(text).collect(),
        _ => text(told).into_iter().collect(),
    }
}

/// `context.path`
fn is_path(expression: &Expr) -> bool {
    let ExprKind::GetAttr { expr, attr } = expression.expr_kind() else { return false };
    attr == "path" && matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
}

/// The texts between the wildcards of a pattern, the empty ones at its ends too.
fn pieces(pattern: &Pattern) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for element in pattern.iter() {
        match (element, pieces.last_mut()) {
            (PatternElem::Char(character), Some(last)) => last.push(*character),
            _ => pieces.push(String::new()),
        }
    }
    pieces
}
