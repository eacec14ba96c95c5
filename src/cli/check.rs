//! `check`: everything that is wrong with a bundle, in one run.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::load::{self, Directory};
use super::output::{self, Exit, number};
use crate::policy::problem::{Problem, Severity};
use crate::policy::snapshot::Counts;
use crate::policy::{Loaded, report};

const EXAMPLE: &str = "\
Examples:
  tollgate check
  tollgate check policies --strict
  tollgate check policies --format sarif > tollgate.sarif

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
    let directory = &arguments.bundle.directory;
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
    let text = match arguments.format {
        Form::Text => report::text(problems, output::coloured(&std::io::stdout())),
        Form::Json => report::json(problems),
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
