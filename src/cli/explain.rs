//! `explain`: one decision, with every rule that was looked at and what each part of its condition came to.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::answer;
use super::load;
use super::output::{self, Exit, Format, Paint, shown};
use super::question::Question;
use crate::gate::{ClauseTrace, Explanation, RuleTrace};
use crate::model::{Decision, DecisionCode, Effect};
use crate::pdp::decide_assuming;

const EXAMPLE: &str = "\
Examples:
  tollgate explain --principal 'User::\"ian\"' --action chat \\
    --resource 'Model::\"azure-dev/gpt-4o\"' --assume '{\"now\": \"2026-03-01T22:00:00Z\"}'
  tollgate explain --principal 'User::\"ian\"' --action chat \\
    --resource 'Model::\"azure-dev/gpt-4o\"' --format json

Exit codes: 0 permit, 3 forbid, 1 a bundle or a request that is wrong, 2 usage.";

/// Decide one request, and tell why: the rules that were looked at, and what each part of each condition saw
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    question: Question,
}

pub(super) fn run(arguments: &ExplainArguments) -> ExitCode {
    let question = &arguments.question;
    let loaded = match load::load_with(&question.bundle.path(), false, !question.no_admin_policies) {
        Ok(loaded) => loaded,
        Err(problems) => return output::fail_with(&problems),
    };
    let assumptions = match question.assumptions(&loaded.snapshot) {
        Ok(assumptions) => assumptions,
        Err(message) => return output::fail(message, Exit::Error),
    };
    let explained = decide_assuming(&loaded.snapshot, &assumptions, &question.request());
    let (decision, explanation) = match explained {
        Ok(explained) => explained,
        Err(error) => return output::fail(format_args!("{error} ({})", error.code.as_str()), Exit::Error),
    };
    let hint = way_out(&decision, &explanation);
    let text = match question.format {
        Format::Json => answer::explanation_json(&decision, &explanation, hint.as_deref()),
        Format::Text => {
            let paint = Paint::of(&std::io::stdout());
            let head = answer::decision_text(&decision, hint.as_deref(), paint);
            head + &rules_text(&explanation, &decision, paint)
        }
    };
    let exit = if decision.is_permit() { Exit::Fine } else { Exit::Forbid };
    output::data(&text, exit, Exit::Error)
}

/// What would make it a permit.
fn way_out(decision: &Decision, explanation: &Explanation) -> Option<String> {
    let permits = explanation.looked_at.iter().any(|one| one.rule.effect == Effect::Permit && one.matches == Ok(true));
    match decision.code {
        // The command line takes no credentials, and the message of a limit already names its cause.
        DecisionCode::Permitted
        | DecisionCode::Unauthenticated
        | DecisionCode::ProviderUnavailable
        | DecisionCode::CredentialRevoked
        | DecisionCode::CredentialExpired
        | DecisionCode::StoreUnavailable
        | DecisionCode::PriceUnknown
        | DecisionCode::BudgetExceeded
        | DecisionCode::RateLimited
        | DecisionCode::ConcurrencyExceeded => None,
        DecisionCode::NoRulePermits => explanation.hint.clone(),
        DecisionCode::Error if explanation.hint.is_some() => explanation.hint.clone(),
        DecisionCode::Error => Some("the rule that raised an error must be mended, or what it read be told".to_owned()),
        DecisionCode::ForbiddenByRule => {
            let forbids: Vec<String> = decision.rules.iter().map(ToString::to_string).collect();
            let rest = if permits { "" } else { ", and a rule that permits would have to match" };
            Some(format!("a forbid beats every permit: {} would have to let it pass{rest}", forbids.join(", ")))
        }
        DecisionCode::PrincipalDisabled => {
            Some("no rule is asked while the principal, its team or its org is disabled or has expired".to_owned())
        }
        DecisionCode::ModelUnknown => Some("declare the model, or use a name that is declared".to_owned()),
        DecisionCode::ModelDisabled => Some("no rule is asked while the model has `enabled: false`".to_owned()),
    }
}

fn rules_text(explanation: &Explanation, decision: &Decision, paint: Paint) -> String {
    let asked = !matches!(
        decision.code,
        DecisionCode::PrincipalDisabled | DecisionCode::ModelUnknown | DecisionCode::ModelDisabled
    );
    let title = match explanation.looked_at.len() {
        0 => "no rule is about this principal, action and resource",
        _ if asked => "rules that are about this principal, action and resource:",
        _ => "rules that are about this principal, action and resource, and were not asked:",
    };
    let mut out = format!("\n{}\n", paint.bold(title));
    for trace in &explanation.looked_at {
        rule_text(trace, &mut out, paint);
    }
    out
}

fn rule_text(trace: &RuleTrace, out: &mut String, paint: Paint) {
    let matches = match &trace.matches {
        Ok(true) => paint.bold("matches"),
        Ok(false) => "does not match".to_owned(),
        Err(message) => paint.red(&format!("raises an error: {}", shown(message))),
    };
    let effect = match trace.rule.effect {
        Effect::Permit => paint.green("permit"),
        Effect::Forbid => paint.red("forbid"),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n  {effect} {}: {matches}", shown(&trace.rule.to_string()));
    for clause in &trace.clauses {
        clause_text(clause, out, paint);
    }
}

fn clause_text(clause: &ClauseTrace, out: &mut String, paint: Paint) {
    let came_to = match &clause.holds {
        None => paint.dim("not looked at"),
        Some(Ok(holds)) if *holds != clause.unless => paint.green(&holds.to_string()),
        Some(Ok(holds)) => paint.red(&holds.to_string()),
        Some(Err(message)) => paint.red(&format!("error: {}", shown(message))),
    };
    let word = if clause.unless { "unless" } else { "when" };
    let _ = writeln!(out, "    {word:6} {}  => {came_to}", shown(&clause.text));
    for (name, value) in &clause.values {
        let _ = writeln!(out, "             {} {}", paint.dim(&format!("{} =", shown(name))), shown(value));
    }
}
