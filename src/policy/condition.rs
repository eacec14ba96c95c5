//! Conditions: what `when` and `unless` say, parsed once per distinct text, and what each reads when it is evaluated.

use std::collections::HashSet;
use std::sync::Arc;

use cedar_policy_core::ast::{BinaryOp, EntityUID, Expr, ExprBuilder, ExprKind, Literal, Var};
use cedar_policy_core::expr_builder::ExprBuilder as _;
use miette::Diagnostic;
use smol_str::SmolStr;

use super::addresses;
use super::guard;
use super::named::NamedPart;
use super::source;

/// Longest text of one condition, in bytes.
pub const MAX_CONDITION_BYTES: usize = 16 * 1024;
/// Deepest expression that is evaluated. Evaluation takes up to 8 KiB of stack a level.
pub const MAX_DEPTH: usize = 256;

/// A condition, by its number in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConditionIndex(pub(crate) u32);

/// One `when` or `unless`.
#[derive(Debug, Clone)]
pub struct Clause {
    /// `unless`: it must not hold.
    pub unless: bool,
    /// The expression as written.
    pub text: SmolStr,
    /// The expression as Cedar has it.
    pub expression: Expr,
    /// What the text names, in the order of the text.
    pub named: Arc<[NamedPart]>,
}

impl Clause {
    /// What must be true.
    fn required(&self) -> Expr {
        if self.unless { Expr::not(self.expression.clone()) } else { self.expression.clone() }
    }
}

/// All that a rule demands besides its scope.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Each part, in the order in which they are evaluated.
    pub clauses: Box<[Clause]>,
    /// All parts, joined by `&&`.
    pub expression: Expr,
    /// What evaluating it needs.
    pub reads: Reads,
}

/// Which context members a condition reads, as a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Members(u16);

/// The members of Tollgate's own context, in the order of their bits.
pub const MEMBERS: [&str; 14] = [
    "now",
    "budget",
    "rate",
    "limits",
    "auth",
    "metadata",
    "ip",
    "method",
    "path",
    "input_tokens",
    "max_output_tokens",
    "stream",
    "end_user",
    "team",
];

impl Members {
    /// Every member.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether `member` is among them.
    #[must_use]
    pub fn has(self, member: &str) -> bool {
        MEMBERS.iter().position(|name| *name == member).is_none_or(|bit| self.0 & (1 << bit) != 0)
    }

    /// Whether meters must be read for one of them.
    #[must_use]
    pub fn say_meters(self) -> bool {
        !self.is_empty() && ["budget", "rate", "limits"].into_iter().any(|member| self.has(member))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These and those.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn one(member: &str) -> Self {
        MEMBERS.iter().position(|name| *name == member).map_or(Self::ALL, |bit| Self(1 << bit))
    }
}

/// What evaluating an expression needs.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// The principal's attributes, tags or ancestors.
    pub principal: bool,
    /// The resource's.
    pub resource: bool,
    /// The action's ancestors.
    pub action: bool,
    /// Which members of the context.
    pub members: Members,
    /// The limits that it names.
    pub limits: Vec<SmolStr>,
    /// Entities named in the text whose attributes or ancestors are read.
    pub literals: Vec<Arc<EntityUID>>,
    /// How many times at most it steps from an entity to one that an attribute names.
    pub steps: usize,
    /// How deep the expression is.
    pub depth: usize,
}

/// A text that is no condition.
#[derive(Debug, Clone)]
pub enum ConditionError {
    /// Too long, too deep or too many operators.
    TooComplex {
        /// Where, in bytes of the text.
        offset: usize,
        /// What bound it passes.
        message: String,
    },
    /// Cedar cannot read it.
    Syntax {
        /// Where, in bytes of the text.
        offset: usize,
        /// How many bytes.
        length: usize,
        /// What Cedar says.
        message: String,
        /// What Cedar proposes.
        help: Option<String>,
    },
}

/// Parses the text of one clause. To be called on a stack of some size ([`mod@super::load`] sees to that).
///
/// # Errors
/// When the text is too complex or no Cedar expression.
pub fn parse_clause(text: &str, unless: bool) -> Result<Clause, ConditionError> {
    let too_complex = |offset, message: String| ConditionError::TooComplex { offset, message };
    if text.len() > MAX_CONDITION_BYTES {
        return Err(too_complex(0, format!("a condition may be {MAX_CONDITION_BYTES} bytes long at most")));
    }
    guard::cedar_text(text).map_err(|trouble| too_complex(trouble.offset, trouble.to_string()))?;
    let parsed: Expr = text.parse().map_err(|error: cedar_policy_core::parser::err::ParseErrors| {
        let first: &dyn Diagnostic =
            error.iter().next().map_or(&error as &dyn Diagnostic, |first| first as &dyn Diagnostic);
        let (offset, length) = source::label_of(first).unwrap_or((0, text.len()));
        ConditionError::Syntax {
            offset,
            length,
            message: first.to_string(),
            help: first.help().map(|help| help.to_string()),
        }
    })?;
    if let Some(text) = addresses::rewritten(text, [&parsed]) {
        return parse_clause(&text, unless);
    }
    let expression = bare(&parsed);
    let depth = depth(&expression);
    if depth > MAX_DEPTH {
        return Err(too_complex(
            0,
            format!("the expression is {depth} levels deep; {MAX_DEPTH} are evaluated at most"),
        ));
    }
    let named = NamedPart::all(&parsed).into();
    Ok(Clause { unless, text: text.into(), expression, named })
}

impl Condition {
    /// All of `clauses`, which must not be empty; `None` where they are.
    #[must_use]
    pub fn new(clauses: Vec<Clause>) -> Option<Self> {
        let expression = balanced(&clauses.iter().map(Clause::required).collect::<Vec<_>>(), Expr::and)?;
        let reads = Reads::of(&expression);
        Some(Self { clauses: clauses.into(), expression, reads })
    }
}

impl Reads {
    /// What evaluating `expression` needs.
    #[must_use]
    pub fn of(expression: &Expr) -> Self {
        let mut reads = Self { depth: depth(expression), ..Self::default() };
        reads.visit(expression);
        reads.steps = steps(expression);
        reads
    }

    /// What evaluating either needs.
    pub fn add(&mut self, other: &Self) {
        self.principal |= other.principal;
        self.resource |= other.resource;
        self.action |= other.action;
        self.members = self.members.union(other.members);
        self.limits.extend(other.limits.iter().cloned());
        self.literals.extend(other.literals.iter().cloned());
        self.steps = self.steps.max(other.steps);
        self.depth = self.depth.max(other.depth);
    }

    /// Whether evaluating needs any entity.
    #[must_use]
    pub fn needs_entities(&self) -> bool {
        self.principal || self.resource || self.action || !self.literals.is_empty()
    }

    fn visit(&mut self, expression: &Expr) {
        match expression.expr_kind() {
            ExprKind::Var(Var::Principal) => self.principal = true,
            ExprKind::Var(Var::Resource) => self.resource = true,
            ExprKind::Var(Var::Action) => self.action = true,
            ExprKind::Var(Var::Context) => self.members = Members::ALL,
            ExprKind::Lit(Literal::EntityUID(uid)) => self.literals.push(Arc::clone(uid)),
            // Nothing steps from a set to its elements, so what they name is not read.
            ExprKind::Set(elements) => {
                elements.iter().filter(|element| !is_literal(element)).for_each(|e| self.visit(e));
            }
            ExprKind::GetAttr { expr, attr } | ExprKind::HasAttr { expr, attr } if is_context(expr) => {
                self.members = self.members.union(Members::one(attr));
            }
            ExprKind::GetAttr { expr, attr } | ExprKind::HasAttr { expr, attr } if is_limits(expr) => {
                self.limits.push(attr.clone());
                self.visit(expr);
            }
            ExprKind::ExtHasAttr { expr, attrs } if is_limits(expr) => {
                self.limits.push(attrs.head.clone());
                self.visit(expr);
            }
            ExprKind::ExtHasAttr { expr, attrs } if is_context(expr) => {
                self.limits.extend(attrs.tail.first().filter(|_| attrs.head == "limits").cloned());
                self.members = self.members.union(Members::one(&attrs.head));
            }
            ExprKind::BinaryApp { op: BinaryOp::Eq, arg1, arg2 } => {
                [arg1, arg2].into_iter().filter(|side| !is_entity(side)).for_each(|side| self.visit(side));
            }
            ExprKind::BinaryApp { op: BinaryOp::In, arg1, arg2 } => {
                self.visit(arg1);
                if !is_entity(arg2) {
                    self.visit(arg2);
                }
            }
            ExprKind::Is { expr, .. } if is_entity(expr) => {}
            _ => children(expression).into_iter().for_each(|child| self.visit(child)),
        }
    }
}

fn is_context(expression: &Expr) -> bool {
    matches!(expression.expr_kind(), ExprKind::Var(Var::Context))
}

/// `context.limits`
pub(super) fn is_limits(expression: &Expr) -> bool {
    matches!(expression.expr_kind(), ExprKind::GetAttr { expr, attr } if attr == "limits" && is_context(expr))
}

fn is_literal(expression: &Expr) -> bool {
    matches!(expression.expr_kind(), ExprKind::Lit(_))
}

/// A variable or literal that stands for an entity itself, whatever its attributes.
fn is_entity(expression: &Expr) -> bool {
    matches!(
        expression.expr_kind(),
        ExprKind::Var(Var::Principal | Var::Action | Var::Resource) | ExprKind::Lit(Literal::EntityUID(_))
    )
}

/// The direct parts of an expression.
#[must_use]
pub fn children(expression: &Expr) -> Vec<&Expr> {
    match expression.expr_kind() {
        ExprKind::If { test_expr, then_expr, else_expr } => vec![test_expr, then_expr, else_expr],
        ExprKind::And { left, right } | ExprKind::Or { left, right } => vec![left, right],
        ExprKind::BinaryApp { arg1, arg2, .. } => vec![arg1, arg2],
        ExprKind::UnaryApp { arg, .. } => vec![arg],
        ExprKind::GetAttr { expr, .. }
        | ExprKind::HasAttr { expr, .. }
        | ExprKind::ExtHasAttr { expr, .. }
        | ExprKind::Like { expr, .. }
        | ExprKind::Is { expr, .. } => vec![expr],
        ExprKind::ExtensionFunctionApp { args, .. } => args.iter().collect(),
        ExprKind::Set(elements) => elements.iter().collect(),
        ExprKind::Record(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

/// How deep an expression is; a literal is 1.
#[must_use]
pub fn depth(expression: &Expr) -> usize {
    // By levels and not by recursion: the depth is what is not yet known to be bounded.
    let mut level = vec![expression];
    let mut depth = 0;
    while !level.is_empty() {
        depth += 1;
        level = level.into_iter().flat_map(children).collect();
    }
    depth
}

/// How many attribute and tag accesses stand within each other at most.
fn steps(expression: &Expr) -> usize {
    let below = children(expression).into_iter().map(steps).max().unwrap_or(0);
    let own = match expression.expr_kind() {
        ExprKind::ExtHasAttr { attrs, .. } => attrs.len(),
        ExprKind::GetAttr { .. }
        | ExprKind::HasAttr { .. }
        | ExprKind::BinaryApp { op: BinaryOp::GetTag | BinaryOp::HasTag | BinaryOp::In, .. } => 1,
        _ => 0,
    };
    below + own
}

/// The same expression as it is evaluated: without the places in its text, to which evaluating would count references
/// at each step, and with long chains of `&&` and `||` as balanced trees, which need no deep stack.
#[must_use]
pub fn bare(expression: &Expr) -> Expr {
    let chain = |join: fn(Expr, Expr) -> Expr, parts: Vec<&Expr>| {
        balanced(&parts.into_iter().map(bare).collect::<Vec<_>>(), join)
    };
    let joined = match expression.expr_kind() {
        ExprKind::And { .. } => chain(Expr::and, conjuncts(expression)),
        ExprKind::Or { .. } => chain(Expr::or, disjuncts(expression)),
        _ => None,
    };
    joined.unwrap_or_else(|| bare_node(expression))
}

/// The parts joined in their order, as a tree as deep as the logarithm of their number. `&&` and `||` are associative,
/// also in what they do not evaluate and in which error comes first.
fn balanced(parts: &[Expr], join: fn(Expr, Expr) -> Expr) -> Option<Expr> {
    match parts {
        [] => None,
        [only] => Some(only.clone()),
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            Some(join(balanced(left, join)?, balanced(right, join)?))
        }
    }
}

fn bare_node(expression: &Expr) -> Expr {
    let inner = |part: &Arc<Expr>| Arc::new(bare(part));
    let kind = match expression.expr_kind() {
        ExprKind::If { test_expr, then_expr, else_expr } => {
            ExprKind::If { test_expr: inner(test_expr), then_expr: inner(then_expr), else_expr: inner(else_expr) }
        }
        ExprKind::UnaryApp { op, arg } => ExprKind::UnaryApp { op: *op, arg: inner(arg) },
        ExprKind::BinaryApp { op, arg1, arg2 } => ExprKind::BinaryApp { op: *op, arg1: inner(arg1), arg2: inner(arg2) },
        ExprKind::GetAttr { expr, attr } => ExprKind::GetAttr { expr: inner(expr), attr: attr.clone() },
        ExprKind::HasAttr { expr, attr } => ExprKind::HasAttr { expr: inner(expr), attr: attr.clone() },
        ExprKind::ExtHasAttr { expr, attrs } => ExprKind::ExtHasAttr { expr: inner(expr), attrs: attrs.clone() },
        ExprKind::Like { expr, pattern } => ExprKind::Like { expr: inner(expr), pattern: pattern.clone() },
        ExprKind::Is { expr, entity_type } => ExprKind::Is { expr: inner(expr), entity_type: entity_type.clone() },
        ExprKind::ExtensionFunctionApp { fn_name, args } => {
            let args = Arc::new(args.iter().map(bare).collect());
            ExprKind::ExtensionFunctionApp { fn_name: fn_name.clone(), args }
        }
        ExprKind::Set(elements) => ExprKind::Set(Arc::new(elements.iter().map(bare).collect())),
        ExprKind::Record(members) => {
            ExprKind::Record(Arc::new(members.iter().map(|(name, value)| (name.clone(), bare(value))).collect()))
        }
        other => other.clone(),
    };
    ExprBuilder::with_data(()).with_expr_kind(kind)
}

/// The parts of a conjunction, in the order in which they are evaluated.
#[must_use]
pub fn conjuncts(expression: &Expr) -> Vec<&Expr> {
    let mut parts = Vec::new();
    let mut stack = vec![expression];
    while let Some(next) = stack.pop() {
        match next.expr_kind() {
            ExprKind::And { left, right } => stack.extend([right.as_ref(), left.as_ref()]),
            _ => parts.push(next),
        }
    }
    parts
}

/// The parts of a disjunction, in the order in which they are evaluated.
fn disjuncts(expression: &Expr) -> Vec<&Expr> {
    let mut parts = Vec::new();
    let mut stack = vec![expression];
    while let Some(next) = stack.pop() {
        match next.expr_kind() {
            ExprKind::Or { left, right } => stack.extend([right.as_ref(), left.as_ref()]),
            _ => parts.push(next),
        }
    }
    parts
}

/// What an expression looks at: the largest chains of accesses in it (`context.budget.used_percent`), each once.
#[must_use]
pub fn looked_at(expression: &Expr) -> Vec<&Expr> {
    fn is_chain(expression: &Expr) -> bool {
        match expression.expr_kind() {
            ExprKind::Var(_) => true,
            ExprKind::GetAttr { expr, .. } => is_chain(expr),
            ExprKind::BinaryApp { op: BinaryOp::GetTag, arg1, arg2 } => is_chain(arg1) && is_literal(arg2),
            _ => false,
        }
    }
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut stack = vec![expression];
    while let Some(next) = stack.pop() {
        if is_chain(next) {
            if !matches!(next.expr_kind(), ExprKind::Var(Var::Context)) && seen.insert(next.to_string()) {
                found.push(next);
            }
        } else {
            stack.extend(children(next).into_iter().rev());
        }
    }
    found
}
