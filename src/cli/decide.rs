//! `decide`: one decision, as the server would make it.

use std::process::ExitCode;

use clap::Args;

use super::answer;
use super::load;
use super::output::{self, Exit, Format, Paint};
use super::question::Question;
use crate::pdp::decide_assuming;

const EXAMPLE: &str = "\
Examples:
  tollgate decide --principal 'User::\"alice\"' --action chat \\
    --resource 'Model::\"openai-main/gpt-4o\"'
  tollgate decide --principal 'User::\"alice\"' --action chat \\
    --resource 'Model::\"azure-dev/gpt-4o\"' --context '{\"ip\": \"10.1.2.3\"}' \\
    --assume '{\"now\": \"2026-03-01T09:00:00Z\", \"budget\": {\"used_percent\": 85}}'

Exit codes: 0 permit, 3 forbid, 1 a bundle or a request that is wrong, 2 usage.";

/// Decide one request
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct DecideArguments {
    #[command(flatten)]
    question: Question,
    /// Where it is forbidden, tell what it lacked
    #[arg(long)]
    explain: bool,
}

pub(super) fn run(arguments: &DecideArguments) -> ExitCode {
    let question = &arguments.question;
    let loaded = match load::load_with(&question.bundle.path(), false, !question.no_admin_policies) {
        Ok(loaded) => loaded,
        Err(problems) => return output::fail_with(&problems),
    };
    let request = question.request().with_explain(arguments.explain);
    let assumptions = match question.assumptions(&loaded.snapshot) {
        Ok(assumptions) => assumptions,
        Err(message) => return output::fail(message, Exit::Error),
    };
    let decision = match decide_assuming(&loaded.snapshot, &assumptions, &request) {
        Ok((decision, _)) => decision,
        Err(error) => return output::fail(format_args!("{error} ({})", error.code.as_str()), Exit::Error),
    };
    let text = match question.format {
        Format::Text => answer::decision_text(&decision, decision.hint.as_deref(), Paint::of(&std::io::stdout())),
        Format::Json => answer::decision_json(&decision),
    };
    let exit = if decision.is_permit() { Exit::Fine } else { Exit::Forbid };
    output::data(&text, exit, Exit::Error)
}
