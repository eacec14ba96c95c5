//! `check`: everything that is wrong with a bundle, in one run.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::limits_of;
use super::load::{self, Directory};
use super::output::{self, Exit, number};
use crate::model::EntityUid;
use crate::policy::limits::BoundLimit;
use crate::policy::problem::{Problem, Severity};
use crate::policy::snapshot::Counts;
use crate::policy::{Loaded, report};

const EXAMPLE: &str = "\
Examples:
  tollgate check
  tollgate check policies --strict
  tollgate check policies --format sarif > tollgate.sarif
  tollgate check policies --principal 'User::\"alice\"'

Exit codes: 0 nothing is wrong, 1 errors (with --strict, warnings too), 2 usage, or files that cannot be read.";

/// Tell everything that is wrong with a bundle
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    bundle: Directory,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
    /// How problems are written
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
    /// Tell too which limits can bind this one, as a Cedar uid: User::"alice"
    #[arg(long, value_name = "UID")]
    principal: Option<EntityUid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// A JSON array
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Commands that show problems in a pull request on GitHub
    Github,
}

pub(super) fn run(arguments: &CheckArguments) -> ExitCode {
    let directory = &arguments.bundle.path();
    let outcome = load::load(directory, arguments.strict);
    let (problems, counts) = match &outcome {
        Ok(Loaded { problems, snapshot }) => (problems, Some((snapshot.counts(), snapshot.revision()))),
        Err(problems) => (problems, None),
    };
    let exit = match &outcome {
        Ok(_) => Exit::Fine,
        Err(problems) if load::unreadable(problems) => Exit::Usage,
        Err(_) => Exit::Error,
    };
    let root = root(directory);
    let binding = match (&outcome, &arguments.principal) {
        (Ok(Loaded { snapshot, .. }), Some(principal)) => match limits_of::of(snapshot, principal) {
            Ok(limits) => Some((limits, principal)),
            Err(message) => return output::fail(format_args!("--principal: {message}"), Exit::Usage),
        },
        _ => None,
    };
    let text = match arguments.format {
        Form::Text => {
            let limits = binding.map(|(limits, principal)| limits_of::text(&limits, principal));
            report::text(problems, output::coloured(&std::io::stdout())) + &limits.unwrap_or_default()
        }
        Form::Json => match binding {
            Some((limits, _)) => with_limits(problems, &limits),
            None => report::json(problems),
        },
        Form::Sarif => report::sarif(problems, &root),
        Form::Github => report::github(problems, &root),
    };
    let code = output::data(&text, exit, Exit::Usage);
    let said = match counts {
        Some((counts, revision)) => format!("{}; revision {revision}", declared(counts)),
        None => failed(problems, arguments.strict),
    };
    output::note(output::shown(&format!("{}: {said}", directory.display())));
    code
}

/// The problems as they are without `--principal`, and the limits beside them.
fn with_limits(problems: &[Problem], limits: &[&BoundLimit]) -> String {
    let problems: serde_json::Value = serde_json::from_str(&report::json(problems)).unwrap_or_default();
    let both = serde_json::json!({ "problems": problems, "limits": limits_of::json(limits) });
    // A value of texts and numbers can always be written.
    serde_json::to_string_pretty(&both).unwrap_or_default() + "\n"
}

/// The directory as it is named in a repository: relative to where the command runs, if it is below.
fn root(directory: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let relative = directory.strip_prefix(&here).unwrap_or(directory);
    let relative = relative.strip_prefix(".").unwrap_or(relative);
    relative.display().to_string()
}

fn declared(counts: Counts) -> String {
    let each = [
        (counts.orgs, "org"),
        (counts.teams, "team"),
        (counts.users, "user"),
        (counts.services, "service"),
        (counts.keys, "key"),
        (counts.provider_accounts, "provider account"),
        (counts.models, "model"),
        (counts.model_groups, "model group"),
        (counts.routers, "router"),
        (counts.limits, "limit"),
    ];
    let declared: Vec<String> =
        each.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| number(count, what)).collect();
    let rules = number(counts.rules, "rule");
    let effects = format!("{} permit, {} forbid", counts.permits, counts.forbids);
    let files = number(counts.files, "file");
    let rest = if declared.is_empty() { String::new() } else { format!(", {}", declared.join(", ")) };
    format!("{rules} ({effects}){rest}; {files}")
}

fn failed(problems: &[Problem], strict: bool) -> String {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let strictly = if strict && errors == 0 { " (--strict takes warnings for errors)" } else { "" };
    format!("{}, {}: it does not load{strictly}", number(errors, "error"), number(warnings, "warning"))
}
