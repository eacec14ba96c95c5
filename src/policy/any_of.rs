//! A list under `unless` that is meant as a range. Each of its conditions is an exception of its own, so that an hour
//! "from nine" and "until six" on a forbid except every hour there is.

use std::sync::Arc;

use cedar_policy_core::ast::{
    BinaryOp, Context, EntityUID, EntityUIDEntry, Expr, ExprKind, Literal, Request, SlotEnv, UnaryOp, ValueKind,
};
use cedar_policy_core::entities::Entities;
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;

use super::condition::{Clause, conjuncts};
use super::problem::{ProblemCode, Severity};
use super::validate::{ShapeProblem, grouped};

/// On which side of its bound a member passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Above,
    Below,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }
}

/// A comparison of a member of the request.
struct Comparison<'a> {
    /// The compared member, in Cedar's notation.
    member: String,
    side: Side,
    bound: &'a Expr,
}

/// The first two conditions of a forbid's `unless` that bound one member from opposite sides, so that one of them holds
/// for whatever value it has.
pub(super) fn opposite_bounds(clauses: &[Clause]) -> Option<ShapeProblem> {
    let exceptions = || clauses.iter().enumerate().filter(|(_, clause)| clause.unless);
    let of_clause = |(number, clause)| (number, clause, comparisons(clause));
    let all: Vec<(usize, &Clause, Vec<Comparison<'_>>)> = exceptions().map(of_clause).collect();
    for (position, (number, second, bounds)) in all.iter().enumerate() {
        for (_, first, others) in all.iter().take(position) {
            let meets = |bound: &&Comparison<'_>| others.iter().any(|other| bound.leaves_nothing_with(other));
            if let Some(bound) = bounds.iter().find(meets) {
                return Some(problem(*number, &bound.member, first, second));
            }
        }
    }
    None
}

fn problem(number: usize, member: &str, first: &Clause, second: &Clause) -> ShapeProblem {
    let both = format!("{} && {}", grouped(first), grouped(second));
    ShapeProblem {
        severity: Severity::Warning,
        code: ProblemCode::UnlessAnyOf,
        message: format!(
            "a list under `unless` is \"any of\": a value of `{member}` that is within either of its two bounds passes this forbid"
        ),
        help: Some(format!("if both must hold for the exception, write them as one condition: `{both}`")),
        clause: Some((number, 0, second.text.len())),
    }
}

impl Comparison<'_> {
    /// Whether the two are bounds of one member that together admit every value. For bounds that do not meet (before
    /// six, or from ten on), "any of" is the intended meaning.
    fn leaves_nothing_with(&self, other: &Self) -> bool {
        if self.member != other.member || self.side == other.side {
            return false;
        }
        let (lower, upper) = match self.side {
            Side::Above => (self.bound, other.bound),
            Side::Below => (other.bound, self.bound),
        };
        let known = is_constant(lower) && is_constant(upper);
        !known || is_true(&Expr::lesseq(lower.clone(), upper.clone())) != Some(false)
    }
}

/// The comparisons that must hold for the clause to hold.
fn comparisons(clause: &Clause) -> Vec<Comparison<'_>> {
    conjuncts(&clause.expression).into_iter().flat_map(|part| of_part(part, false)).collect()
}

/// Cedar has `<` and `<=` alone: `a > b` is `!(a <= b)`.
fn of_part(part: &Expr, negated: bool) -> Vec<Comparison<'_>> {
    match part.expr_kind() {
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => of_part(arg, !negated),
        ExprKind::BinaryApp { op: BinaryOp::Less | BinaryOp::LessEq, arg1, arg2 } => {
            let side = if negated { Side::Above } else { Side::Below };
            let left = Comparison { member: arg1.to_string(), side, bound: arg2 };
            let right = Comparison { member: arg2.to_string(), side: side.other(), bound: arg1 };
            let told = [(arg1, left), (arg2, right)].into_iter().filter(|(member, _)| !is_constant(member));
            told.map(|(_, comparison)| comparison).collect()
        }
        _ => Vec::new(),
    }
}

fn is_constant(expression: &Expr) -> bool {
    let told = |part: &Expr| {
        matches!(part.expr_kind(), ExprKind::Var(_) | ExprKind::Lit(Literal::EntityUID(_)) | ExprKind::Unknown(_))
    };
    !expression.subexpressions().any(told)
}

/// The result of a comparison of constants; `None` if it raises an error.
fn is_true(expression: &Expr) -> Option<bool> {
    // The expression reads no part of the request.
    let nobody = EntityUID::with_eid_and_type("User", "nobody").ok()?;
    let known = || EntityUIDEntry::Known { euid: Arc::new(nobody.clone()), loc: None };
    let request = Request::new_unchecked(known(), known(), known(), Some(Context::empty()));
    let entities = Entities::new();
    let value = Evaluator::new(request, &entities, Extensions::all_available()).interpret(expression, &SlotEnv::new());
    match value.ok()?.value_kind() {
        ValueKind::Lit(Literal::Bool(holds)) => Some(*holds),
        _ => None,
    }
}
